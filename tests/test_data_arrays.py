"""Arrays in .npz and .npy: names of splits, shapes, numbers, labels, and what is refused."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import read_study
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import RawData, fingerprint, inspect, no_tick
from kdpipe.errors import DataError

ARRAYS = SOURCES["arrays"]
LABELS = np.arange(12) % 3
GREY = (np.random.default_rng(0).integers(0, 256, (12, 5, 6)) // 2 + 80 * LABELS[:, None, None]).clip(0, 255)
GREY = GREY.astype(np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (12, 5, 6, 3), np.uint8)


def request(path: Path, **more) -> SimpleNamespace:
    fields = ("image_size", "channels", "image_column", "label_column", "channel_axis")
    return SimpleNamespace(path=str(path), **{**dict.fromkeys(fields), **more})


def load(path: Path, **more) -> RawData:
    data = ARRAYS.load(request(path, **more), Path(), no_tick)
    seen = inspect(ARRAYS, request(path, **more), Path())
    assert (seen.class_names, seen.train) == (data.class_names, len(data.train.labels))
    return data


def save(path: Path, **arrays) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def refused(path: Path, *said: str, **more) -> None:
    with pytest.raises(DataError) as error:
        load(path, **more)
    assert len(str(error.value).splitlines()) == 1
    for part in said:
        assert part in str(error.value)


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_val", "Y_val"),
        ("xtrain", "ytrain", "xtest", "ytest"),
        ("trainImages", "trainLabels", "devImages", "devLabels"),
        ("train_set_x", "train_set_y", "test_set_x", "test_set_y"),
        ("images", "labels", "images_test", "labels_test"),
        ("data", "target", "eval_data", "eval_target"),
    ],
)
def test_usual_names_of_splits(tmp_path, names):
    arrays = dict(zip(names, (GREY, LABELS, GREY[:6] // 2, LABELS[:6]), strict=True))
    data = load(save(tmp_path / "a.npz", **arrays))
    assert (data.train.images[:, 0] == GREY).all() and (data.train.labels == LABELS).all()
    assert data.test is not None and (data.test.images[:, 0] == GREY[:6] // 2).all()
    assert data.class_names == ["0", "1", "2"]


def test_a_test_split_goes_before_one_for_validation_and_the_rest_is_named(tmp_path):
    parts = {"train": GREY, "val": GREY // 3, "test": GREY // 2}
    arrays = {f"{split}_images": images for split, images in parts.items()}
    arrays |= {f"{split}_labels": LABELS[:, None] for split in parts}  # as MedMNIST has them
    data = load(save(tmp_path / "a.npz", weights=np.ones(3), **arrays))
    assert (data.test.images[:, 0] == GREY // 2).all()
    assert any("left out: validation arrays" in note for note in data.notes)
    assert any("'weights'" in note and "left out" in note for note in data.notes)


def test_withheld_test_labels_are_passed_over(tmp_path):
    arrays = {"x_train": GREY, "y_train": LABELS, "x_test": GREY}
    assert load(save(tmp_path / "a.npz", **arrays)).test is None
    assert load(save(tmp_path / "b.npz", y_test=np.full(12, -1), **arrays)).test is None
    with_validation = save(tmp_path / "c.npz", y_test=np.full(12, -1), x_val=GREY[:3], y_val=LABELS[:3], **arrays)
    assert len(load(with_validation).test.labels) == 3


@pytest.mark.parametrize("layout", ["npy", "npz a split", "folders"])
def test_several_files_of_a_folder(tmp_path, layout):
    parts = {"train": (GREY, LABELS), "test": (GREY[:3], LABELS[:3])}
    for split, (images, labels) in parts.items():
        if layout == "npz a split":
            save(tmp_path / f"{split}.npz", images=images, labels=labels)
            continue
        for name, array in (("images", images), ("labels", labels)):
            path = tmp_path / split / f"{name}.npy" if layout == "folders" else tmp_path / f"{name}_{split}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, array)
    data = load(tmp_path)
    assert (data.train.images[:, 0] == GREY).all() and (data.test.labels == LABELS[:3]).all()
    assert len(fingerprint(ARRAYS, request(tmp_path), Path())) == 64


def test_one_file_is_there_to_train_on_whatever_it_is_called(tmp_path):
    assert len(load(save(tmp_path / "test.npz", images=GREY, labels=LABELS)).train.labels) == 12


def test_names_of_ones_own(tmp_path):
    file = save(
        tmp_path / "a.npz", photo=GREY, thumb=GREY[:, :3], animal=LABELS, test_photo=GREY[:3], test_animal=LABELS[:3]
    )
    refused(file, "no images and labels", "'photo', 'thumb', 'animal'", "data.image_column")
    data = load(file, image_column="photo", label_column="animal")
    assert (data.train.images[:, 0] == GREY).all() and len(data.test.labels) == 3
    assert load(file, image_column="thumb", label_column="animal").train.images.shape[2] == 3


def test_two_arrays_that_could_both_be_the_images_are_named(tmp_path):
    file = save(tmp_path / "a.npz", x=GREY, images=GREY // 2, y=LABELS)
    refused(file, "'x'", "'images'", "the images of the train split", "data.image_column")
    assert (load(file, image_column="images").train.images[:, 0] == GREY // 2).all()


# ------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (GREY, GREY),
        (GREY.astype(np.int64), GREY),
        (GREY.astype(np.float32), GREY),
        (GREY / 255.0, GREY),
        ((GREY / 255.0).astype(np.float32), GREY),
        ((GREY > 90), (GREY > 90) * 255),
        ((GREY > 90).astype(np.float32), (GREY > 90) * 255),
        (GREY.astype(np.uint16) * 257, GREY),
        ((GREY.astype(np.uint16) * 257).astype(">u2"), GREY),
        (GREY.astype(np.uint16), GREY),
        (np.asfortranarray(GREY), GREY),
    ],
)
def test_numbers_become_bytes(tmp_path, images, wanted):
    assert (load(save(tmp_path / "a.npz", x=images, y=LABELS)).train.images[:, 0] == wanted).all()


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (GREY / 127.5 - 1, "floating-point numbers (float64) from -1 to"),
        (GREY * 1.5, "floating-point numbers"),
        (np.where(GREY > 100, np.nan, 0.5), "from nan to nan"),
        (GREY.astype(np.int32) * 100, "whole numbers (int32)"),
        (GREY.astype(np.int32) - 128, "whole numbers (int32)"),
        ((GREY > 90).astype(np.uint8), "whole numbers (uint8) from 0 to 1"),
        (GREY * 1j, "complex128, and no image"),
        (GREY.astype(str), "no image"),
    ],
)
def test_numbers_whose_black_and_white_are_not_known(tmp_path, images, said):
    refused(save(tmp_path / "a.npz", x=images, y=LABELS), "array 'x'", said)


def test_all_splits_are_read_by_one_rule(tmp_path):
    """A dark test split of 16 bits is as dark beside its training images as it was."""
    deep = GREY.astype(np.uint16) * 257
    data = load(save(tmp_path / "a.npz", x_train=deep, y_train=LABELS, x_test=deep // 300, y_test=LABELS))
    assert (data.test.images[:, 0] == (deep // 300) >> 8).all()
    refused(
        save(tmp_path / "b.npz", x_train=GREY / 255, y_train=LABELS, x_test=GREY, y_test=LABELS), "float64", "uint8"
    )


def test_axes_of_channels(tmp_path):
    last = load(save(tmp_path / "a.npz", x=RGB, y=LABELS)).train.images
    first = load(save(tmp_path / "b.npz", x=np.moveaxis(RGB, 3, 1), y=LABELS)).train.images
    assert (last == first).all() and (np.moveaxis(first, 1, 3) == RGB).all()
    assert load(save(tmp_path / "c.npz", x=GREY[..., None], y=LABELS)).train.images.shape == (12, 1, 5, 6)
    assert load(tmp_path / "a.npz", channels=1, image_size=4).train.images.shape == (12, 1, 4, 4)


def test_a_shape_that_can_be_read_both_ways_is_asked_for(tmp_path):
    file = save(tmp_path / "a.npz", x=RGB[:, :3], y=LABELS)
    refused(file, "shape (12, 3, 6, 3) can be", "data.channel_axis")
    assert (load(file, channel_axis="last").train.images == np.moveaxis(RGB[:, :3], 3, 1)).all()
    assert (load(file, channel_axis="first").train.images == RGB[:, :3]).all()


@pytest.mark.parametrize("shape", [(12, 30), (12, 5, 6, 4), (12, 5, 6, 2), (12, 1, 5, 6, 3), (12,), ()])
def test_shapes_that_are_no_images(tmp_path, shape):
    refused(save(tmp_path / "a.npz", x=np.ones(shape, np.uint8), y=LABELS), f"its shape is {shape}", "reshape")


def test_another_number_of_labels(tmp_path):
    refused(save(tmp_path / "a.npz", x=GREY, y=LABELS[:7]), "12 images but 7 labels")
    refused(save(tmp_path / "b.npz", x=GREY[:0], y=LABELS[:0]), "holds no images")
    refused(save(tmp_path / "c.npz", x=GREY[:, :0], y=LABELS), "it is empty, its shape is (12, 0, 6)")


# ------------------------------------------------------------------------------------------ labels

WORDS = np.array(["cat", "dog", "emu"])[LABELS]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (WORDS, ["cat", "dog", "emu"]),
        (WORDS.astype("S"), ["cat", "dog", "emu"]),
        (WORDS[:, None], ["cat", "dog", "emu"]),
        (LABELS.astype(np.uint8)[:, None], ["0", "1", "2"]),
        (LABELS + 1.0, ["1", "2", "3"]),
        (np.eye(3)[LABELS], ["0", "1", "2"]),
        (np.eye(3, dtype=bool)[LABELS], ["0", "1", "2"]),
        (LABELS == 1, ["False", "True"]),
        (np.array([5, 2**60, 2**63])[LABELS].astype(np.uint64), ["5", str(2**60), str(2**63)]),
    ],
)
def test_labels_of_every_usual_kind(tmp_path, labels, names):
    data = load(save(tmp_path / "a.npz", x=GREY, y=labels))
    assert data.class_names == names
    wanted = (LABELS == 1).astype(int) if labels.dtype == bool and labels.ndim == 1 else LABELS
    assert (data.train.labels == wanted).all()


def test_names_of_classes_beside_the_labels(tmp_path):
    names = np.array(["owl", "ape", "owl"])
    data = load(save(tmp_path / "a.npz", x=GREY, y=LABELS, class_names=names))
    assert data.class_names == ["owl", "ape", "owl (2)"] and (data.train.labels == LABELS).all()
    refused(save(tmp_path / "b.npz", x=GREY, y=LABELS, class_names=names[:2]), "run from 0 to 2", "there are 2 classes")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([[1, 1, 0], [0, 0, 1]] * 6), "3 values an image and not one class"),
        (np.linspace(0, 1, 12), "row 1: the label is 0.0909091"),
        (np.where(LABELS == 2, np.nan, 1.0), "row 2: the label is nan"),
        (LABELS - 1, "labels run from -1 to 1"),
        (LABELS * 0, "has 1 class"),
        (np.arange(12), "12 different values in 12 rows"),
        (np.where(LABELS == 1, "", "cat"), "row 1: the label is empty"),
        (LABELS.astype("datetime64[D]"), "labels of type datetime64"),
        (LABELS.reshape(3, 2, 2), "its shape is (3, 2, 2)"),
    ],
)
def test_bad_labels(tmp_path, labels, said):
    refused(save(tmp_path / "a.npz", x=GREY, y=labels), said)


def test_a_class_of_the_test_split_alone_is_named(tmp_path):
    file = save(tmp_path / "a.npz", x_train=GREY, y_train=LABELS % 2, x_test=GREY, y_test=LABELS)
    refused(file, "class '2' has no image in the training files")


# ------------------------------------------------------------------------------------------ damage


def test_python_objects_are_never_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=GREY, y=np.array(WORDS.tolist(), dtype=object))
    refused(tmp_path / "a.npz", "array 'y'", "Python objects, which could run code", "astype(str)")
    (tmp_path / "b").mkdir()
    np.save(tmp_path / "b" / "images.npy", np.array([GREY, None], dtype=object))
    np.save(tmp_path / "b" / "labels.npy", LABELS)
    refused(tmp_path / "b", "images.npy", "Python objects")


def test_a_file_cut_or_changed_anywhere_is_read_or_refused_in_one_line(tmp_path):
    whole = save(tmp_path / "whole.npz", x=GREY[:, :2, :2], y=LABELS).read_bytes()
    broken = tmp_path / "broken.npz"
    for place in range(0, len(whole), 7):
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]):
            broken.write_bytes(content)
            try:
                load(broken)
            except DataError as error:
                assert len(str(error).splitlines()) == 1 and "broken.npz" in str(error)


def test_places_without_arrays(tmp_path):
    refused(tmp_path, "no .npz or .npy file")
    refused(tmp_path / "nowhere", "no such folder")
    (tmp_path / "a.txt").write_text("no array")
    refused(tmp_path / "a.txt", "no .npz or .npy file")


def test_the_example_is_a_study(tmp_path):
    place = Path(__file__).parent.parent / "examples" / "data"
    runpy.run_path(str(place / "own_arrays.py"))["write"](tmp_path / "digits.npz")
    study = read_study(place / "own_arrays.toml")
    found = run_preflight(study, tmp_path, every_image=True)
    assert (found.data.image_shape, found.data.train, found.data.test) == ((1, 8, 8), 1297, 500)
