"""Image folders as people have them: names of splits, leftovers, formats, names that look the same."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import RawData, fingerprint, no_tick, peek
from kdpipe.errors import DataError

FOLDER = SOURCES["folder"]
CLASSES = ("cat", "dog", "emu")


def request(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path), image_size=None, channels=None)


def load(path: Path) -> RawData:
    return FOLDER.load(request(path), Path(), no_tick)


def classes(place: Path, each: int = 2, names=CLASSES, suffix: str = ".png", shade: int = 0) -> Path:
    """Images of one grey: ten times their label, plus ``shade``."""
    for label, name in enumerate(names):
        (place / name).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            grey = np.full((4, 4), 10 * label + shade, np.uint8)
            Image.fromarray(grey).save(place / name / f"{i}{suffix}")
    return place


def refused(path: Path, *said: str) -> None:
    for ask in (lambda: load(path), lambda: peek(FOLDER, request(path), Path())):
        with pytest.raises(DataError) as error:
            ask()
        message = str(error.value)
        message.encode()  # a screen can print it
        assert len(message.splitlines()) == 1
        for part in said:
            assert part in message


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "valid"),
        ("Train", "Test"),
        ("training", "testing"),
        ("train", "dev"),
        ("training_set", "test_set"),
        ("TRAIN", "validation"),
        ("train", "eval"),
    ],
)
def test_folders_of_splits_are_no_classes(tmp_path, train, test):
    classes(tmp_path / train, each=4)
    classes(tmp_path / test, each=1, shade=5)
    data = load(tmp_path)
    assert data.class_names == list(CLASSES)
    assert np.bincount(data.train.labels).tolist() == [4, 4, 4]
    assert data.test is not None and data.test.images[:, 0, 0, 0].tolist() == [5, 15, 25]
    seen = peek(FOLDER, request(tmp_path), Path())
    assert (seen.class_names, seen.train, seen.test) == (list(CLASSES), 12, 3)


def test_a_test_split_goes_before_one_for_validation(tmp_path):
    for name, shade in (("train", 0), ("val", 3), ("test", 5)):
        classes(tmp_path / name, shade=shade)
    assert load(tmp_path).test.images.min() == 5


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("seg_train", "seg_test"), ("seg_test and seg_train look like splits", "data.path")),
        (("train", "my_test"), ("my_test and train look like splits",)),
        (("test", "other"), ("test look like splits",)),
        (("train", "training"), ("train and training both look like train images",)),
        (("train", "val", "valid"), ("val and valid both look like validation images",)),
    ],
)
def test_splits_that_cannot_be_told_apart_are_named(tmp_path, names, said):
    for name in names:
        classes(tmp_path / name)
    refused(tmp_path, str(tmp_path), *said)


def test_a_class_may_be_called_as_a_split_is(tmp_path):
    classes(tmp_path, names=("bullet_train", "bus", "train"))
    (tmp_path / "bullet_train" / "front").mkdir()
    assert load(tmp_path).class_names == ["bullet_train", "bus", "train"]


def test_images_without_classes_are_no_test_split(tmp_path):
    classes(tmp_path / "train")
    (tmp_path / "test").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "test" / "0.png")
    assert load(tmp_path).test is None
    classes(tmp_path / "valid", each=1)
    assert len(load(tmp_path).test.labels) == 3


def test_a_class_without_test_images_is_named(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "test", names=("cat", "emu"))
    refused(tmp_path, "class 'dog'", "has no folder here", str(tmp_path / "test"))


def test_leftovers_of_other_programs_are_looked_over(tmp_path):
    classes(tmp_path)
    fork = b"\0\x05\x16\x07" + bytes(100)
    for place in ("__MACOSX/cat/._0.png", "cat/._0.png", "@eaDir/0.png", ".thumbs/0.png", "dog/.cache/0.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(fork)
    for place in ("cat/Thumbs.db", "dog/desktop.ini", "emu/notes.txt"):
        (tmp_path / place).write_bytes(b"notes")
    data = load(tmp_path)
    assert data.class_names == list(CLASSES) and np.bincount(data.train.labels).tolist() == [2, 2, 2]


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".gif", ".pgm", ".bmp", ".TIF", ".tga", ".jfif"])
def test_other_formats_are_read(tmp_path, suffix):
    place = classes(tmp_path, each=1)
    for label, name in enumerate(CLASSES):
        picture = Image.fromarray(np.full((4, 4), 10 * label, np.uint8))
        form = {".jfif": "JPEG"}.get(suffix)
        if suffix == ".gif":
            picture = picture.convert("L")
        picture.save(place / name / f"scan{suffix}", form)
    data = FOLDER.load(SimpleNamespace(path=str(place), image_size=None, channels=1), Path(), no_tick)
    assert np.bincount(data.train.labels).tolist() == [2, 2, 2]
    assert np.abs(data.train.images[:, 0, 0, 0].astype(int) - 10 * data.train.labels).max() <= 1


def test_images_that_are_not_read_are_named(tmp_path):
    place = classes(tmp_path)
    (place / "dog" / "a.heic").write_bytes(b"photo")
    (place / "dog" / "b.HEIC").write_bytes(b"photo")
    refused(place, str(place / "dog"), "not read (2 .heic)", "convert")


def test_a_class_of_unknown_files_alone_is_named(tmp_path):
    place = classes(tmp_path)
    (place / "fox").mkdir()
    (place / "fox" / "a.raw").write_bytes(b"photo")
    (place / "fox" / "b").write_bytes(b"photo")
    refused(place, str(place / "fox"), "1 (no suffix), 1 .raw")


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # one name, as Linux and as macOS write it


def test_one_name_written_in_two_ways_is_one_class_in_both_splits(tmp_path):
    classes(tmp_path / "train", names=(COMPOSED, "dog"))
    classes(tmp_path / "test", names=(DECOMPOSED, "dog"), shade=5)
    data = load(tmp_path)
    assert data.class_names == [COMPOSED, "dog"]
    assert data.test.labels.tolist() == [0, 0, 1, 1] and data.test.images[:, 0, 0, 0].tolist() == [5, 5, 15, 15]


@pytest.mark.parametrize("names", [(COMPOSED, DECOMPOSED), ("cat", "cat "), ("big cat", "big  cat")])
def test_classes_that_look_the_same_are_refused(tmp_path, names):
    refused(classes(tmp_path, names=names), "look the same", ascii(names[0]), ascii(names[1]))


def test_names_of_any_letters_are_classes(tmp_path):
    names = ["Cat", "cat", "$5 or $6", "\u732b", "\U0001f600"]
    assert load(classes(tmp_path, names=names)).class_names == sorted(names)


def test_names_that_are_no_utf8(tmp_path):
    classes(tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "new.png")
    os.rename(os.fsencode(tmp_path / "new.png"), os.fsencode(tmp_path / "cat") + b"/\xff.png")
    assert np.bincount(load(tmp_path).train.labels).tolist() == [3, 2, 2]
    assert len(fingerprint(FOLDER, request(tmp_path), Path())) == 64
    Path(os.fsdecode(os.fsencode(tmp_path / "cat") + b"/\xff.png")).write_bytes(b"no image")
    with pytest.raises(DataError, match="not a readable image") as error:
        load(tmp_path)
    str(error.value).encode()
    os.rename(os.fsencode(tmp_path / "dog"), os.fsencode(tmp_path) + b"/\xfe")
    refused(tmp_path, "is not UTF-8; rename it")


def test_linked_folders_are_read_and_a_link_back_up_ends(tmp_path):
    place = classes(tmp_path / "data")
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("L", (4, 4)).save(outside / "linked.png")
    (place / "cat" / "more").symlink_to(outside)
    (place / "cat" / "up").symlink_to(place / "cat")
    (place / "dog" / "up").symlink_to(place)
    assert np.bincount(load(place).train.labels).tolist() == [3, 2, 2]


def test_a_link_to_nothing_is_named(tmp_path):
    place = classes(tmp_path)
    (place / "cat" / "9.png").symlink_to("/nowhere")
    with pytest.raises(DataError, match=r"cat/9.png: not a readable image \(a link to a file that is not there"):
        load(place)


@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "photo.png!d"])
def test_an_image_whose_name_hides_it_is_named(tmp_path, name):
    place = classes(tmp_path)
    (place / "0.png").write_bytes((place / "cat" / "0.png").read_bytes())  # beside the classes it is only noted
    (place / "cat" / name).write_bytes((place / "cat" / "0.png").read_bytes())
    refused(place, str(place / "cat" / name), "an image by its content and not by its name")


def test_one_folder_more_than_needed_is_named(tmp_path):
    classes(tmp_path / "animals" / "train")
    refused(tmp_path, "1 class folders", "if animals holds them, set data.path to it")


def test_splits_of_images_without_classes_are_no_classes(tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "0.png")
    refused(tmp_path, "test and train hold images and no folders of classes")


def test_a_test_split_whose_images_lie_in_one_folder_has_no_labels(tmp_path):
    """Tiny ImageNet: train/<synset>/images, val/images, test/images."""
    for label, name in enumerate(("n01443537", "n01629819", "n01641577")):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        Image.new("L", (4, 4), 10 * label).save(tmp_path / "train" / name / "images" / f"{name}_0.JPEG")
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0 0 1 1")
    for name in ("val", "test"):
        (tmp_path / name / "images").mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / name / "images" / "0.JPEG")
    data = load(tmp_path)
    assert data.test is None and data.class_names == ["n01443537", "n01629819", "n01641577"]
    assert any("test, as it has no classes" in note for note in data.notes)
    (tmp_path / "words.txt").write_text(
        "n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn01629819\tnewt\nn01641577\tnewt\n"
    )
    assert load(tmp_path).class_names == ["goldfish", "newt", "newt (2)"]


@pytest.mark.parametrize("name", ["LOC_synset_mapping.txt", "synset_words.txt"])
def test_synsets_keep_their_own_names_where_one_is_not_listed(tmp_path, name):
    synsets = ("n01440764", "n02102040")
    place = classes(tmp_path, names=synsets)
    (place / name).write_text("n01440764 tench, Tinca tinca\n")
    assert load(place).class_names == list(synsets)
    (place / name).write_text("n02102040 English springer\nn01440764 tench, Tinca tinca\n")
    assert load(place).class_names == ["tench", "English springer"]
