"""Parquet and Arrow as people have them: names of classes in every shard, odd columns and types, names of files."""

from __future__ import annotations

import datetime
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import RawData, fingerprint, no_tick, peek
from kdpipe.errors import DataError

NAMES = ("cat", "dog", "emu")
SHADES = {"cat": 10, "dog": 20, "emu": 30}
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def images(truth, kind: pa.DataType = STRUCT) -> pa.Array:
    data = [png(SHADES[name]) for name in truth]
    return pa.array([{"bytes": d, "path": None} for d in data] if kind == STRUCT else data, kind)


def table(columns: dict, names=None, feature: str = "label") -> pa.Table:
    made = pa.table(columns)
    if names is None:
        return made
    features = {"image": {"_type": "Image"}, feature: {"names": list(names), "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write(path: Path, content: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".parquet":
        pq.write_table(content, path)
    else:
        with pa.ipc.new_stream(str(path), content.schema) as writer:
            writer.write_table(content)


def shard(path: Path, truth, names=NAMES, **more) -> None:
    """A file that numbers the classes of ``truth`` by its own list of names."""
    write(path, table({"image": images(truth), "label": [names.index(name) for name in truth], **more}, names))


def request(path: Path, **more) -> SimpleNamespace:
    fields = dict.fromkeys(("image_size", "channels", "image_column", "label_column"))
    return SimpleNamespace(path=str(path), **{**fields, **more})


def load(path: Path, source: str = "parquet", **more) -> RawData:
    data = SOURCES[source].load(request(path, **more), Path(), no_tick)
    seen = peek(SOURCES[source], request(path, **more), Path())
    assert (seen.class_names, seen.train) == (data.class_names, len(data.train.labels))
    assert seen.test == (None if data.test is None else len(data.test.labels))
    return data


def named(data: RawData, split: str = "train") -> list[str]:
    """Names of a split's images, each held against the image itself."""
    of = getattr(data, split)
    names = [data.class_names[label] for label in of.labels]
    assert of.images[:, 0, 0, 0].tolist() == [SHADES[name.partition(" ")[0]] for name in names]
    return names


def refused(path: Path, *said: str, source: str = "parquet", **more) -> None:
    for ask in (
        lambda: SOURCES[source].load(request(path, **more), Path(), no_tick),
        lambda: peek(SOURCES[source], request(path, **more), Path()),
    ):
        with pytest.raises(DataError) as error:
            ask()
        message = str(error.value)
        assert len(message.splitlines()) == 1
        for part in said:
            assert part in message


TRUTH = ["cat", "dog", "emu", "emu", "cat", "dog"]

# ------------------------------------------------------------------------------------- class names


@pytest.mark.parametrize("other", [("dog", "cat", "emu"), ("emu", "dog", "cat"), ("fox", "cat", "emu", "dog")])
def test_every_file_numbers_classes_by_its_own_names(tmp_path, other):
    shard(tmp_path / "train-0.parquet", TRUTH)
    shard(tmp_path / "train-1.parquet", TRUTH[::-1], other)
    shard(tmp_path / "test-0.parquet", TRUTH[:4], other)
    data = load(tmp_path)
    assert data.class_names == list(NAMES)
    assert named(data) == TRUTH + TRUTH[::-1] and named(data, "test") == TRUTH[:4]


def test_a_class_that_only_a_later_shard_knows_comes_last(tmp_path):
    shard(tmp_path / "train-0.parquet", ["dog", "cat"] * 2, ("dog", "cat"))
    shard(tmp_path / "train-1.parquet", ["emu", "cat"] * 2, ("cat", "emu"))
    data = load(tmp_path)
    assert data.class_names == ["dog", "cat", "emu"] and named(data) == ["dog", "cat"] * 2 + ["emu", "cat"] * 2


def test_names_without_images_are_left_out(tmp_path):
    shard(tmp_path / "train.parquet", ["emu", "cat"] * 2)
    data = load(tmp_path)
    assert data.class_names == ["cat", "emu"] and named(data) == ["emu", "cat"] * 2


def test_a_class_of_the_test_split_alone_is_named(tmp_path):
    shard(tmp_path / "train.parquet", ["emu", "cat"] * 2)
    shard(tmp_path / "test.parquet", ["emu", "dog"])
    refused(tmp_path, "test.parquet", "class 'dog' has no image in the training files")


def test_two_classes_of_one_name_stay_two(tmp_path):
    content = {"image": images(["cat", "dog", "cat"] * 2), "label": [0, 1, 2] * 2}
    write(tmp_path / "train.parquet", table(content, ("cat", "dog", "cat")))
    data = load(tmp_path)
    assert data.class_names == ["cat", "dog", "cat (2)"] and data.train.labels.tolist() == [0, 1, 2] * 2
    write(tmp_path / "test.parquet", table(content, ("dog", "cat", "cat")))
    refused(tmp_path, "test.parquet", "two of them are the same")


def test_a_name_that_is_blank_or_looks_like_another_is_numbered(tmp_path):
    content = {"image": images(["cat", "dog", "emu"] * 2), "label": [0, 1, 2] * 2}
    write(tmp_path / "train.parquet", table(content, ("cat", "cat ", "")))
    assert load(tmp_path).class_names == ["cat", "cat  (2)", "2"]


def test_files_that_know_classes_by_different_things_are_refused(tmp_path):
    shard(tmp_path / "train-0.parquet", TRUTH)
    write(tmp_path / "train-1.parquet", table({"image": images(TRUTH), "label": [0, 1, 2, 2, 0, 1]}))
    refused(tmp_path, "train-1.parquet", "numbers without names", "names of classes")


# ------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
@pytest.mark.parametrize("beside", [{}, {"width": [16] * 6}, {"image_id": [10**12 + i for i in range(6)]}])
def test_text_labels_are_names_of_classes(tmp_path, kind, beside):
    label = pa.array(TRUTH, pa.string()).cast(kind)
    write(tmp_path / "train.parquet", table({**beside, "image": images(TRUTH), "label": label}))
    data = load(tmp_path)
    assert data.class_names == list(NAMES) and named(data) == TRUTH


def test_text_labels_that_look_the_same_are_refused(tmp_path):
    write(tmp_path / "train.parquet", table({"image": images(TRUTH), "label": ["cat", "cat ", "cat"] * 2}))
    refused(tmp_path, "classes 'cat' and 'cat ' look the same")


NUMBERS = [(pa.int64(), [1, 2, 3]), (pa.int64(), [0, 2**40, 5]), (pa.uint64(), [2**63 + 1, 7, 2**64 - 1])]


@pytest.mark.parametrize(("kind", "three"), NUMBERS)
def test_numbers_without_names_are_the_classes_that_there_are(tmp_path, kind, three):
    label = pa.array([three[NAMES.index(name)] for name in TRUTH], kind)
    write(tmp_path / "train.parquet", table({"image": images(TRUTH), "label": label}))
    data = load(tmp_path)
    assert data.class_names == [str(number) for number in sorted(three)]
    assert [data.class_names[k] for k in data.train.labels] == [str(number) for number in label.to_pylist()]


@pytest.mark.parametrize("beside", ["width", "image_id", "hash"])
def test_a_column_with_another_meaning_is_no_label(tmp_path, beside):
    number = {"width": [16] * 6, "image_id": list(range(6)), "hash": [10**12 + i for i in range(6)]}[beside]
    write(tmp_path / "train.parquet", table({"image": images(TRUTH), beside: number, "words": TRUTH}))
    refused(tmp_path, "train.parquet", "data.label_column")
    assert named(load(tmp_path, label_column="words")) == TRUTH
    write(tmp_path / "train.parquet", table({"image": images(TRUTH), beside: number}))
    refused(tmp_path, f"column '{beside}'")


def test_the_one_column_with_names_is_the_label(tmp_path):
    content = {"image": images(TRUTH), "row": list(range(6)), "animal": [NAMES.index(name) for name in TRUTH]}
    write(tmp_path / "train.parquet", table(content, NAMES, "animal"))
    assert named(load(tmp_path)) == TRUTH


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (pa.array([0.0, 1.5, 2.0] * 2), "row 1: the label is 1.5"),
        (pa.array([0.0, math.nan, 2.0] * 2), "row 1: the label is empty"),
        (pa.array([0.0, math.inf, 2.0] * 2), "row 1: the label is inf"),
        (pa.array([[0], [1], [2]] * 2), "column 'label' is list<"),
        (pa.array([[0, 1], [1, 0]] * 3, pa.list_(pa.int8(), 2)), "column 'label' is fixed_size_list"),
        (pa.array([{"fine": 1}, {"fine": 2}] * 3), "make a column of the field that is meant"),
        (pa.array([datetime.date(2026, 1, day) for day in (1, 2, 3)] * 2), "column 'label' is date32"),
        (pa.array([0, 1, -1] * 2), "labels run from -1 to 1"),
        (pa.array([0, 1, 3] * 2), "labels run from 0 to 3, but there are 3 classes"),
        (pa.array([0, None, 1] * 2), "row 1: the label is empty"),
        (pa.array(["cat", " ", "dog"] * 2), "row 1: the label is empty"),
        (pa.array([1] * 6), "column 'label' has 1 class"),
        (pa.nulls(6), "row 0: the label is empty"),
    ],
)
def test_bad_labels(tmp_path, label, said):
    write(tmp_path / "train.parquet", table({"image": images(TRUTH), "label": label}, NAMES))
    refused(tmp_path, "train.parquet", said)


@pytest.mark.parametrize("label", [[-1] * 6, pa.nulls(6, pa.int64()), None])
def test_where_test_labels_are_withheld_the_validation_split_is_taken(tmp_path, label):
    shard(tmp_path / "train-0.parquet", TRUTH)
    content = {"image": images(TRUTH)} | ({} if label is None else {"label": label})
    write(tmp_path / "test-0.parquet", table(content, NAMES))
    assert load(tmp_path).test is None
    shard(tmp_path / "validation-0.parquet", TRUTH[:3])
    assert named(load(tmp_path), "test") == TRUTH[:3]


# ------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("kind", [STRUCT, pa.binary(), pa.large_binary()])
def test_images_are_bytes_alone_or_in_a_struct(tmp_path, kind):
    write(tmp_path / "train.parquet", table({"image": images(TRUTH, kind), "label": TRUTH}))
    assert named(load(tmp_path)) == TRUTH


@pytest.mark.parametrize("column", ["struct", "string"])
def test_text_is_never_opened_as_a_path_of_this_machine(tmp_path, column):
    there = tmp_path / "secret.png"
    there.write_bytes(png(0))
    entry = pa.array([{"bytes": str(there)}] * 6 if column == "struct" else [str(there)] * 6)
    write(tmp_path / "train.parquet", table({"image": entry, "label": TRUTH}))
    said = "column 'image' holds paths of images and not images" if column == "string" else "needs an image column"
    refused(tmp_path, "train.parquet", said)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "row 0: the image is empty"),
        ({"bytes": None, "path": None}, "row 0: the image is empty"),
        ({"bytes": None, "path": "cats/0.png"}, "row 0: it has the path 'cats/0.png' and no image"),
        ({"bytes": b"", "path": None}, "row 0: not a readable image"),
        ({"bytes": b"junk", "path": None}, "row 0: not a readable image"),
    ],
)
def test_bad_images(tmp_path, entry, said):
    rows = [entry, *images(TRUTH[1:]).to_pylist()]
    write(tmp_path / "train.parquet", table({"image": pa.array(rows, STRUCT), "label": TRUTH}))
    refused(tmp_path, "train.parquet", said)


def test_one_of_several_image_columns_is_chosen_by_name(tmp_path):
    content = {"left": images(TRUTH), "right": images(TRUTH[::-1]), "label": TRUTH}
    write(tmp_path / "train.parquet", table(content))
    refused(tmp_path, "left and right hold images", "data.image_column")
    refused(tmp_path, "data.image_column: no images in 'middle'", "left (struct", image_column="middle")
    assert named(load(tmp_path, image_column="left")) == TRUTH
    assert load(tmp_path, image_column="right").train.images[0, 0, 0, 0] == SHADES[TRUTH[-1]]
    write(tmp_path / "train.parquet", table({"mask": images(TRUTH[::-1]), "image": images(TRUTH), "label": TRUTH}))
    assert named(load(tmp_path)) == TRUTH


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (("data/train-00000-of-00002", "data/train-00001-of-00002"), "data/test-00000-of-00001"),
        (("plain_text/train/0000", "plain_text/train/0001"), "plain_text/test/0000"),
        (("default/partial-train/0000", "default/partial-train/0001"), "default/partial-validation/0000"),
        (("Training/a", "Training/b"), "Dev/c"),
        (("animals-train-0", "animals-train-1"), "animals-val-0"),
    ],
)
def test_usual_layouts(tmp_path, train, test):
    for i, name in enumerate(train):
        shard(tmp_path / f"{name}.parquet", TRUTH[3 * i : 3 * i + 3])
    shard(tmp_path / f"{test}.parquet", TRUTH[:2])
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.parquet").write_bytes(b"leftover")
    data = load(tmp_path)
    assert named(data) == TRUTH and named(data, "test") == TRUTH[:2]
    assert len(fingerprint(SOURCES["parquet"], request(tmp_path), Path())) == 64


def test_files_of_no_split_are_training_images(tmp_path):
    shard(tmp_path / "0000.parquet", TRUTH)
    data = load(tmp_path)
    assert named(data) == TRUTH and data.test is None


def test_configurations_are_not_mixed(tmp_path):
    shard(tmp_path / "full" / "train" / "0000.parquet", TRUTH)
    shard(tmp_path / "small" / "train" / "0000.parquet", TRUTH)
    refused(tmp_path, "several configurations (full and small)", "data.path")
    assert named(load(tmp_path / "full")) == TRUTH


def test_a_dataset_that_hugging_face_saved_to_disk(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split, truth in (("train", TRUTH), ("test", TRUTH[:3])):
        shard(tmp_path / split / "data-00000-of-00001.arrow", truth)
        (tmp_path / split / "state.json").write_text("{}")
    shard(tmp_path / "train" / "cache-0123.arrow", TRUTH)
    data = load(tmp_path, "arrow")
    assert named(data) == TRUTH and named(data, "test") == TRUTH[:3] and data.class_names == list(NAMES)
    victim = tmp_path / "test" / "data-00000-of-00001.arrow"
    whole = victim.read_bytes()
    for keep in (0, 7, len(whole) // 4):
        victim.write_bytes(whole[:keep])
        refused(tmp_path, str(victim), "fetch it again", source="arrow")


def test_files_of_several_kinds_in_one_split_are_not_mixed(tmp_path):
    for name in ("train_clean-0", "train_noisy-0"):
        shard(tmp_path / f"{name}.parquet", TRUTH)
    refused(tmp_path, "train files of several kinds (clean and noisy)")


@pytest.mark.parametrize(
    "names",
    [
        ("train-00000-of-00002-0c53a7f2c5d4a3e1", "train-00001-of-00002-3f1e0a77b2d945aa"),
        ("train_part1", "train_part2"),
        ("train1", "train2"),
        ("TRAIN-0", "train-1"),
    ],
)
def test_numbers_and_hashes_of_shards_are_no_kinds(tmp_path, names):
    for name in names:
        shard(tmp_path / f"{name}.PARQUET", TRUTH) if name.isupper() else shard(tmp_path / f"{name}.parquet", TRUTH)
    assert named(load(tmp_path)) == TRUTH * 2


def test_missing_shards_are_noted(tmp_path):
    shard(tmp_path / "train-00000-of-00040.parquet", TRUTH)
    assert "only 1 of the 40 training files are there, by their names" in load(tmp_path).notes


def test_what_was_taken_is_noted(tmp_path):
    shard(tmp_path / "train.parquet", TRUTH)
    shard(tmp_path / "test.parquet", TRUTH[:2])
    shard(tmp_path / "val.parquet", TRUTH[:2])
    notes = "\n".join(load(tmp_path).notes)
    for said in ("training images: train.parquet", "test images: test.parquet", "left out: validation files",
                 "images are in column 'image', labels in 'label' (names of classes)"):  # fmt: skip
        assert said in notes


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
@pytest.mark.parametrize("names", [None, NAMES])
def test_whole_numbers_may_be_written_as_floating_point(tmp_path, kind, names):
    label = pa.array([float(NAMES.index(name)) for name in TRUTH], kind)
    write(tmp_path / "train.parquet", table({"image": images(TRUTH), "label": label}, names))
    data = load(tmp_path)
    assert data.class_names == (list(NAMES) if names else ["0", "1", "2"])
    assert data.train.labels.tolist() == [NAMES.index(name) for name in TRUTH]


@pytest.mark.parametrize("column", ["image", "file_name", "image_path"])
def test_a_column_of_paths_is_called_one(tmp_path, column):
    write(tmp_path / "train.parquet", table({column: [f"{i}.png" for i in range(6)], "label": TRUTH}))
    refused(tmp_path, f"column '{column}' holds paths of images and not images")
    write(tmp_path / "train.parquet", table({"image": [{"path": f"{i}.png"} for i in range(6)], "label": TRUTH}))
    refused(tmp_path, "column 'image' holds paths of images")


def test_a_label_column_that_is_not_there_is_named(tmp_path):
    shard(tmp_path / "train.parquet", TRUTH)
    refused(tmp_path, "data.label_column: there is no column 'animal'", "label (int64)", label_column="animal")
