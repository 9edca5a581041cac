"""What ``validate`` finds in the data: all that would stop the run at its first stage."""

from __future__ import annotations

import io
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
from conftest import TINY
from PIL import Image
from safetensors.torch import save_file

from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import read_study
from kdpipe.data.dataset import split_dataset
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import no_tick
from kdpipe.errors import DataError, KdpipeError


def study(tmp_path: Path, dataset: str, *overrides: str):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace('dataset = "digits"', f'dataset = "{dataset}"\npath = "{tmp_path}/data"'))
    return read_study(path, overrides)


def grey(shade: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.full((side, side), shade, np.uint8))


def folder(root: Path, classes: int, each: int) -> None:
    for label in range(classes):
        (root / f"c{label:02d}").mkdir(parents=True)
        for i in range(each):
            grey(label).save(root / f"c{label:02d}" / f"{i}.png")


def refused(file, root: Path, *said: str) -> None:
    with pytest.raises(KdpipeError) as error:
        run_preflight(file, root, every_image=True)
    for part in said:
        assert part in str(error.value)


def test_classes_too_small_for_three_splits(tmp_path):
    folder(tmp_path / "data", 20, 6)
    file = study(tmp_path, "folder", "data.probe_size=20", "data.validation_fraction=0.1")
    refused(file, tmp_path, "tiny.toml", ": data: class 'c", "has no image in the validation split")
    raw = SOURCES["folder"].load(file.spec.data, tmp_path, no_tick)
    with pytest.raises(DataError, match="validation split"):  # as the run itself would say
        split_dataset(raw, validation_fraction=0.1, test_fraction=0.3, split_seed=0)


@pytest.mark.parametrize("each_image", [lambda: b"junk", lambda: b""])
def test_an_image_that_cannot_be_read_is_found_wherever_it_lies(tmp_path, each_image):
    folder(tmp_path / "data", 3, 100)
    file = study(tmp_path, "folder")
    run_preflight(file, tmp_path, every_image=True)
    victim = tmp_path / "data" / "c01" / "7.png"
    victim.write_bytes(each_image())
    refused(file, tmp_path, str(victim), "not a readable image")


def test_an_image_of_another_shape_is_found(tmp_path):
    folder(tmp_path / "data", 3, 100)
    grey(0, 9).save(tmp_path / "data" / "c02" / "7.png")
    refused(study(tmp_path, "folder"), tmp_path, "7.png", "9x9 pixels", "data.image_size")
    run_preflight(study(tmp_path, "folder", "data.image_size=8"), tmp_path, every_image=True)


def test_test_images_of_another_shape_are_found(tmp_path):
    folder(tmp_path / "data" / "train", 3, 100)
    for label in range(3):
        (tmp_path / "data" / "test" / f"c{label:02d}").mkdir(parents=True)
        for i in range(30):
            grey(0, 9).save(tmp_path / "data" / "test" / f"c{label:02d}" / f"{i}.png")
    refused(study(tmp_path, "folder"), tmp_path, "test images are 1x9x9", "training images 1x8x8", "data.image_size")


def test_a_test_split_without_a_class_is_found_in_a_table(tmp_path):
    (tmp_path / "data").mkdir()
    for name, labels in (("train", ["cat", "dog", "emu"] * 60), ("test", ["cat", "dog"] * 40)):
        buffer = io.BytesIO()
        grey(0).save(buffer, "PNG")
        content = pa.table({"image": [buffer.getvalue()] * len(labels), "label": labels})
        pq.write_table(content, tmp_path / "data" / f"{name}.parquet")
    refused(study(tmp_path, "parquet"), tmp_path, ": data: class 'emu' has no image in the test split")


class Watched:
    """A reporter that counts."""

    def __init__(self) -> None:
        self.total, self.done, self.title = 0.0, 0.0, ""

    @contextmanager
    def track(self, title: str, total: float):
        self.title, self.total = title, total
        yield self

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount


def test_decoding_is_watched_to_the_end(tmp_path):
    folder(tmp_path / "data" / "train", 3, 100)
    folder(tmp_path / "data" / "test", 3, 60)
    watched = Watched()
    run_preflight(study(tmp_path, "folder"), tmp_path, every_image=True, reporter=watched)
    assert watched.done == watched.total == 480 and "folder" in watched.title


def noise(root: Path, classes: int, each: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    for label in range(classes):
        (root / f"c{label:02d}").mkdir(parents=True)
        for i in range(each):
            Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(root / f"c{label:02d}" / f"{i}.png")


def test_copies_between_splits_and_classes_are_counted(tmp_path):
    data = tmp_path / "data"
    noise(data / "train", 3, 100, 0)
    noise(data / "test", 3, 60, 1)
    file = study(tmp_path, "folder", "data.validation_fraction=0.1")
    assert run_preflight(file, tmp_path, every_image=True).warnings == ()
    found = run_preflight(file, tmp_path, every_image=True)
    assert found.splits.test is None
    taught = [path for at, path in enumerate(sorted((data / "train").rglob("*.png"))) if at in found.splits.train]
    for i in range(10):
        shutil.copy(taught[i], data / "test" / "c00" / f"{i}.png")
    shutil.copy(taught[0], taught[-1])  # one picture in two classes
    warnings = run_preflight(file, tmp_path, every_image=True).warnings
    assert [line.partition(",")[0] for line in warnings] == [
        "10 of 180 test images are training images too",
        "2 of 270 training images stand in several classes",
    ]
    assert run_preflight(file, tmp_path).warnings == ()  # not all were decoded


def test_what_is_left_out_is_noted(tmp_path):
    data = tmp_path / "data"
    for part in ("train", "test", "val", "extra"):
        folder(data / part, 3, 100)
    grey(0).save(data / "train" / "stray.png")
    (data / "train" / "c00" / "notes.txt").write_text("notes")
    notes = "\n".join(run_preflight(study(tmp_path, "folder"), tmp_path).data.notes)
    for said in (
        f"training images: one folder a class in {data}/train",
        f"test images: one folder a class in {data}/test",
        f"{data}/val, as validation images come out of",
        f"{data}/extra, as it is no training or test split",
        f"1 image beside the folders in {data}/train",
        "no images (1 .txt)",
    ):
        assert said in notes


def test_all_bad_images_of_all_splits_are_named_at_once(tmp_path):
    for part in ("train", "test"):
        folder(tmp_path / "data" / part, 3, 100)
    bad = [tmp_path / "data" / part / "c01" / f"{i}.png" for part in ("test", "train") for i in range(4)]
    for path in bad:
        path.write_bytes(b"junk")
    with pytest.raises(DataError) as error:
        run_preflight(study(tmp_path, "folder"), tmp_path, every_image=True)
    assert sorted(line.partition(": ")[0] for line in str(error.value).splitlines()) == sorted(map(str, bad))
    for i in range(20):
        (tmp_path / "data" / "train" / "c02" / f"{i}.png").write_bytes(b"junk")
    refused(study(tmp_path, "folder"), tmp_path, "and 18 more images like these.")


def test_a_checkpoint_that_holds_nan_is_named_with_the_weight(tmp_path):
    network: dict[str, Any] = {"channels": [8, 8, 16, 16], "layers": [1, 1, 1, 1]}
    state = timm.create_model("resnet18", num_classes=10, in_chans=1, **network).state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    with pytest.raises(KdpipeError, match=r"nan.safetensors holds NaN or infinity in layer1.0.conv1.weight"):
        run_preflight(
            read_study(path, [f"teacher.checkpoint={tmp_path}/nan.safetensors", "teacher.stem=default"]), tmp_path
        )


def test_columns_are_in_the_key_of_a_study_that_names_them_and_of_no_other(tmp_path):
    plain = study(tmp_path, "parquet").spec.data
    named = study(tmp_path, "parquet", "data.label_column=animal", "data.image_column=left").spec.data
    assert {"image_column", "label_column"}.isdisjoint(plain.keyed())
    assert named.keyed() == plain.keyed() | {"image_column": "left", "label_column": "animal"}
