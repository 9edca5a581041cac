"""torchvision's datasets from small files in torchvision's own layouts, read by torchvision itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import RawData, fingerprint, inspect, no_tick, peek
from kdpipe.errors import DataError


def request(**more) -> SimpleNamespace:
    return SimpleNamespace(**{**dict.fromkeys(("path", "image_size", "channels")), **more})


def load(name: str, root: Path, **more) -> RawData:
    data = SOURCES[name].load(request(**more), root, no_tick)
    for look in (peek, inspect):
        seen = look(SOURCES[name], request(**more), root)
        assert seen.image_shape == data.train.images.shape[1:] and seen.class_names == data.class_names
        assert seen.train_labels.tolist() == data.train.labels.tolist()
        assert (seen.test_labels is None) == (data.test is None)
    assert len(fingerprint(SOURCES[name], request(**more), root)) == 64
    return data


def picture(path: Path, shade: int, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade, shade)).save(path)


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def shades(data: RawData) -> tuple[list[int], list[int]]:
    """Grey of each training and each test image, to the nearest ten (JPEG moves it by little)."""
    splits = [data.train] if data.test is None else [data.train, data.test]
    train, *test = ([round(float(image.mean()) / 10) * 10 for image in split.images] for split in splits)
    return train, test[0] if test else []


# ----------------------------------------------------------------------------------------- of files


def food101(root: Path) -> None:
    for split, images in (
        ("train", {"pie": ["pie/1", "pie/2"], "soup": ["soup/1"]}),
        ("test", {"pie": ["pie/3"], "soup": ["soup/2"]}),
    ):
        written(root / "food-101" / "meta" / f"{split}.json", json.dumps(images))
    for name, shade in (("pie/1", 10), ("pie/2", 20), ("soup/1", 30), ("pie/3", 40), ("soup/2", 50)):
        picture(root / "food-101" / "images" / f"{name}.jpg", shade)


def dtd(root: Path) -> None:
    for split, names in (
        ("train", "dots/a.jpg\ndots/b.jpg\nlines/a.jpg"),
        ("val", "dots/a.jpg"),
        ("test", "dots/c.jpg\nlines/b.jpg"),
    ):
        written(root / "dtd" / "dtd" / "labels" / f"{split}1.txt", names)
    for name, shade in (("dots/a", 10), ("dots/b", 20), ("lines/a", 30), ("dots/c", 40), ("lines/b", 50)):
        picture(root / "dtd" / "dtd" / "images" / f"{name}.jpg", shade)


def imagenette(root: Path) -> None:
    place = root / "imagenette2-160"
    for name, shade in (
        ("train/n01440764/a", 10),
        ("train/n01440764/b", 20),
        ("train/n02102040/a", 30),
        ("val/n01440764/c", 40),
        ("val/n02102040/c", 50),
    ):
        picture(place / f"{name}.JPEG", shade)


def fgvc_aircraft(root: Path) -> None:
    place = root / "fgvc-aircraft-2013b" / "data"
    written(place / "variants.txt", "707\nA320\n")
    written(place / "images_variant_trainval.txt", "1 707\n2 707\n3 A320\n")
    written(place / "images_variant_test.txt", "4 707\n5 A320\n")
    for number in range(1, 6):
        picture(place / "images" / f"{number}.jpg", 10 * number)


def oxford_pets(root: Path) -> None:
    place = root / "oxford-iiit-pet"
    written(place / "annotations" / "trainval.txt", "Sphynx_1 1 1 1\nSphynx_2 1 1 1\nbeagle_1 2 2 1\n")
    written(place / "annotations" / "test.txt", "Sphynx_3 1 1 1\nbeagle_2 2 2 1\n")
    for name, shade in (("Sphynx_1", 10), ("Sphynx_2", 20), ("beagle_1", 30), ("Sphynx_3", 40), ("beagle_2", 50)):
        picture(place / "images" / f"{name}.jpg", shade)


def gtsrb(root: Path) -> None:
    place = root / "gtsrb" / "GTSRB"
    for name, shade in (("00000/a", 10), ("00000/b", 20), ("00001/a", 30)):
        picture(place / "Training" / f"{name}.ppm", shade)
    written(root / "gtsrb" / "GT-final_test.csv", "Filename;ClassId\n0.ppm;0\n1.ppm;1\n")
    for number in range(2):
        picture(place / "Final_Test" / "Images" / f"{number}.ppm", 40 + 10 * number)


OF_FILES: list[tuple[str, Callable[[Path], None], list[str]]] = [
    ("food101", food101, ["pie", "soup"]),
    ("dtd", dtd, ["dots", "lines"]),
    ("imagenette", imagenette, ["tench", "English springer"]),
    ("fgvc-aircraft", fgvc_aircraft, ["707", "A320"]),
    ("oxford-pets", oxford_pets, ["Sphynx", "Beagle"]),
    ("gtsrb", gtsrb, ["0", "1"]),
]


@pytest.mark.parametrize(("name", "make", "classes"), OF_FILES)
def test_images_labels_and_names_belong_together(tmp_path, name, make, classes):
    make(tmp_path / "torchvision")
    data = load(name, tmp_path)
    assert data.class_names == classes
    assert shades(data) == ([10, 20, 30], [40, 50])
    assert data.train.labels.tolist() == [0, 0, 1] and data.test.labels.tolist() == [0, 1]
    assert load(name, tmp_path, image_size=4, channels=1).train.images.shape == (3, 1, 4, 4)


@pytest.mark.parametrize(("name", "make", "classes"), OF_FILES)
def test_a_damaged_image_is_one_sentence(tmp_path, name, make, classes):
    make(tmp_path / "torchvision")
    victim = sorted(path for path in tmp_path.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".ppm"})[0]
    victim.write_bytes(b"junk")
    with pytest.raises(DataError, match="not a readable image") as error:
        load(name, tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_dataset_in_one_set_has_no_test_split(tmp_path):
    for name, shade in (("Forest/1", 10), ("Forest/2", 20), ("River/1", 30)):
        picture(tmp_path / "torchvision" / "eurosat" / "2750" / f"{name}.jpg", shade)
    data = load("eurosat", tmp_path)
    assert data.test is None and data.class_names == ["Forest", "River"] and shades(data)[0] == [10, 20, 30]


# ---------------------------------------------------------------------------------------- in arrays


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_sets_like_mnist(tmp_path, name, folder):
    place = tmp_path / "torchvision" / folder / "raw"
    place.mkdir(parents=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        (place / f"{prefix}-images-idx3-ubyte").write_bytes(idx(IMAGES[:count]))
        (place / f"{prefix}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 10).astype(np.uint8)))
    data = load(name, tmp_path)
    assert (data.train.images[:, 0] == IMAGES).all() and (data.test.images[:, 0] == IMAGES[:10]).all()
    assert len(data.class_names) == 10 and data.train.labels.tolist() == [*range(10), *range(10)]


@pytest.mark.parametrize(("split", "first"), [("letters", 1), ("balanced", 0)])
def test_emnist_stands_upright_and_has_no_class_without_images(tmp_path, split, first):
    """Its files hold columns as rows; EMNIST's letters are numbered from 1 on, and torchvision calls 0 ``N/A``."""
    place = tmp_path / "torchvision" / "EMNIST" / "raw"
    place.mkdir(parents=True)
    labels = (np.arange(20) % 3 + first).astype(np.uint8)
    for part in ("train", "test"):
        (place / f"emnist-{split}-{part}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (place / f"emnist-{split}-{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    data = load(f"emnist-{split}", tmp_path)
    assert (data.train.images[:, 0] == IMAGES.swapaxes(1, 2)).all()
    assert data.class_names == (["a", "b", "c"] if split == "letters" else ["0", "1", "2"])
    assert data.train.labels.tolist() == (np.arange(20) % 3).tolist()


def test_every_record_opens_a_class_of_torchvision():
    from torchvision import datasets

    records = [SOURCES[name] for name in SOURCES if getattr(SOURCES[name].load, "func", None) is not None]
    described = [source.load.args[0] for source in records if source.load.func.__module__.endswith(".vision")]
    assert len(described) > 15
    for of in described:
        assert isinstance(getattr(datasets, of.name), type)
