"""Odd datasets with a known truth: folders, tables and arrays as people have them, and worse.

Every image of class k is of one grey, ``SHADES[k]``, so whether its label is right can be seen. A maker puts a dataset
into a folder and returns what must come out of it, unless it is refused.
"""

from __future__ import annotations

import datetime
import decimal
import io
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SHADES = (20, 70, 120, 170, 220)
NAMES = [
    "cat", "Dog", "\U0001f600 smile", "猫", "שלום", "قطة", "$5 or $6", "*a* _b_ [c](d)", "<b>bold</b>", ":smile:",
    "a.b.c", "-dash", "n01440764", "train", "test", "0", "007", "with space", "x" * 120, "CON", "#1", "naïve",
    "a'b\"c", "tab\tname",
]  # fmt: skip


@dataclass
class Truth:
    """What a dataset holds.

    Attributes:
        train: how many images of each class, by its shade.
        test: likewise of the test split; None where there is none.
        spare: images that may be left out if a note says so.
        doubtful: whether it may be refused; else it must be read.
    """

    source: str
    train: dict[int, int] = field(default_factory=dict)
    test: dict[int, int] | None = None
    spare: int = 0
    doubtful: bool = False
    path: str = ""


def grey(shade: int, form: str, rng: Random) -> bytes:
    """An image of one grey in a format, of a random mode."""
    image = Image.new("L", (8, 8), shade)
    modes = {
        "PNG": ["L", "RGB", "RGBA", "LA", "P", "I;16"],
        "JPEG": ["L", "RGB", "CMYK"],
        "GIF": ["L"],
        "BMP": ["L", "RGB"],
    }
    modes |= {"TIFF": ["L", "RGB", "I;16"], "WEBP": ["RGB", "RGBA"], "PPM": ["L", "RGB"]}
    mode = rng.choice(modes[form])
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), shade * 257, np.uint16))
    elif mode == "CMYK":
        image = image.convert("RGB").convert("CMYK")
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


FORMS = {
    ".png": "PNG",
    ".PNG": "PNG",
    ".jpg": "JPEG",
    ".JPEG": "JPEG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".webp": "WEBP",
    ".pgm": "PPM",
}
TRAINS, TESTS = (
    ["train", "Train", "training", "TRAIN", "training_set"],
    ["test", "val", "Valid", "dev", "eval", "validation"],
)

# ------------------------------------------------------------------------------------------ folders


def odd_folder(root: Path, rng: Random) -> Truth:
    names = rng.sample(NAMES, rng.randint(2, 4))
    truth = Truth("folder")
    split = rng.random() < 0.5
    places = {"train": root / rng.choice(TRAINS), "test": root / rng.choice(TESTS)} if split else {"train": root}
    truth.doubtful = not split and bool({"train", "test"} & set(names))  # a class, or a split of subfolders
    for part, place in places.items():
        counts = {}
        for label, name in enumerate(names):
            home = place / name
            home.mkdir(parents=True)
            counts[SHADES[label]] = rng.randint(2, 5)
            for i in range(counts[SHADES[label]]):
                suffix = rng.choice(list(FORMS))
                below = home / rng.choice(["", "", "a", "a/b"])
                below.mkdir(parents=True, exist_ok=True)
                (below / f"{i}{suffix}").write_bytes(grey(SHADES[label], FORMS[suffix], rng))
        setattr(truth, part, counts)
    home = places["train"] / names[0]
    for oddity in rng.sample(FOLDER_ODDITIES, rng.randint(0, 2)):
        oddity(root, home, truth, rng)
    return truth


def _leftovers(root: Path, home: Path, truth: Truth, rng: Random) -> None:
    for place in (
        root / "__MACOSX" / "cat" / "._0.png",
        home / "._0.png",
        home / "Thumbs.db",
        root / ".hidden" / "0.png",
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"\0leftover")


def _stray_image(root: Path, home: Path, truth: Truth, rng: Random) -> None:
    (root / "stray.png").write_bytes(grey(1, "PNG", rng))
    truth.spare += 1


def _linked_folder(root: Path, home: Path, truth: Truth, rng: Random) -> None:
    outside = root.parent / f"{root.name}-outside"
    outside.mkdir()
    (outside / "linked.png").write_bytes(grey(SHADES[0], "PNG", rng))
    (home / "link").symlink_to(outside)
    (home / "loop").symlink_to(home)
    truth.train[SHADES[0]] += 1


def _put(name: str, content: bytes | None) -> Callable[[Path, Path, Truth, Random], None]:
    """A file in the first class that may make the dataset refused; without content, a link to nothing."""

    def oddity(root: Path, home: Path, truth: Truth, rng: Random) -> None:
        if content is None:
            (home / name).symlink_to("/nowhere/at/all")
        else:
            (home / name).write_bytes(content)
        truth.doubtful = True

    return oddity


def _empty_class(root: Path, home: Path, truth: Truth, rng: Random) -> None:
    (home.parent / "nothing in it").mkdir()
    truth.doubtful = True


def _pipe(root: Path, home: Path, truth: Truth, rng: Random) -> None:
    os.mkfifo(home / "pipe.png")


def _second_spelling(root: Path, home: Path, truth: Truth, rng: Random) -> None:
    for name in ("caf\u00e9", "cafe\u0301"):
        (home.parent / name).mkdir()
        (home.parent / name / "0.png").write_bytes(grey(1, "PNG", rng))
    truth.doubtful = True


FOLDER_ODDITIES = [
    _leftovers, _stray_image, _linked_folder, _empty_class, _pipe, _second_spelling,
    _put("junk.png", b"junk"), _put("empty.jpg", b""), _put("pointer.png", b"version https://git-lfs.github.com/spec/v1\n"),
    _put("broken.png", None), _put("a.heic", b"photo"), _put("without_suffix", grey(20, "PNG", Random(0))),
    _put("cut.jpg", grey(20, "JPEG", Random(0))[:60]), _put("a.jpg_large", grey(20, "JPEG", Random(0))),
]  # fmt: skip

# ------------------------------------------------------------------------------------------- tables


def odd_table(root: Path, rng: Random) -> Truth:
    suffix = rng.choice(["parquet", "arrow"])
    truth = Truth(suffix)
    names = rng.sample(NAMES, rng.randint(2, 4))
    layout = rng.choice(
        [
            "data/{split}-{i:05d}-of-00002",
            "{split}/{i:04d}",
            "plain_text/{split}/{i:04d}",
            "{split}_{i}",
            "odd {split} ü {i}",
        ]
    )
    kind, image = rng.choice(LABELS), rng.choice(IMAGES)
    truth.doubtful = kind in DOUBTFUL or image == "path"
    parts = [
        ("train", rng.choice(["train", "training", "Train"])),
        ("test", rng.choice(["test", "validation", "val", "dev"])),
    ]
    for part, word in parts[: rng.randint(1, 2)]:
        counts: dict[int, int] = {}
        for shard in range(2):
            labels = [k for k in range(len(names)) for _ in range(rng.randint(2, 3))]
            rng.shuffle(labels)
            order = rng.sample(range(len(names)), len(names))
            content = _table(labels, names, order, kind, image, rng)
            _write(root / f"{layout.format(split=word, i=shard)}.{suffix}", content)
            for label in labels:
                counts[SHADES[label]] = counts.get(SHADES[label], 0) + 1
        setattr(truth, part, counts)
    return truth


LABELS = [
    "names", "text", "large_text", "categories", "integers", "bytes_of_8_bits", "floats", "truths", "fractions",
    "lists", "one_hot", "struct", "dates", "decimals", "some_empty", "some_nan", "all_null", "binary",
]  # fmt: skip
DOUBTFUL = {
    "fractions",
    "lists",
    "one_hot",
    "struct",
    "dates",
    "decimals",
    "some_empty",
    "some_nan",
    "all_null",
    "binary",
    "truths",
}
IMAGES = ["struct", "binary", "large_binary", "path", "struct and mask"]


def _labels(labels: list[int], names: list[str], order: list[int], kind: str) -> pa.Array:
    words = [names[k] for k in labels]
    makers: dict[str, Callable[[], Any]] = {
        "names": lambda: pa.array([order.index(k) for k in labels]),
        "text": lambda: pa.array(words),
        "large_text": lambda: pa.array(words, pa.large_string()),
        "categories": lambda: pa.array(words).dictionary_encode(),
        "integers": lambda: pa.array([7 * k for k in labels]),
        "bytes_of_8_bits": lambda: pa.array(labels, pa.uint8()),
        "floats": lambda: pa.array([float(k) for k in labels]),
        "truths": lambda: pa.array([k == 0 for k in labels]),
        "fractions": lambda: pa.array([k + 0.5 for k in labels]),
        "lists": lambda: pa.array([[k] for k in labels]),
        "one_hot": lambda: pa.array([[int(k == j) for j in range(len(names))] for k in labels]),
        "struct": lambda: pa.array([{"fine": k} for k in labels]),
        "dates": lambda: pa.array([datetime.date(2026, 1, 1 + k) for k in labels]),
        "decimals": lambda: pa.array([decimal.Decimal(k) for k in labels]),
        "some_empty": lambda: pa.array([None if i == 1 else word for i, word in enumerate(words)]),
        "some_nan": lambda: pa.array([math.nan if i == 1 else float(k) for i, k in enumerate(labels)]),
        "all_null": lambda: pa.nulls(len(labels)),
        "binary": lambda: pa.array([word.encode() for word in words]),
    }
    return makers[kind]()


def _table(labels: list[int], names: list[str], order: list[int], kind: str, image: str, rng: Random) -> pa.Table:
    data = [grey(SHADES[k], rng.choice(["PNG", "JPEG"]), rng) for k in labels]
    pair = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns: dict[str, Any] = {"id": pa.array([10**12 + i for i in range(len(labels))])}
    if image in {"binary", "large_binary"}:
        columns["image"] = pa.array(data, pa.binary() if image == "binary" else pa.large_binary())
    elif image == "path":
        columns["image"] = pa.array([{"bytes": None, "path": f"{i}.png"} for i in range(len(data))], pair)
    else:
        columns["image"] = pa.array([{"bytes": content, "path": None} for content in data], pair)
    if image == "struct and mask":
        columns["mask"] = pa.array([{"bytes": grey(1, "PNG", rng), "path": None} for _ in data], pair)
    columns["label"] = _labels(labels, names, order, kind)
    made = pa.table({name: columns[name] for name in rng.sample(list(columns), len(columns))})
    if kind != "names":
        return made
    features = {"image": {"_type": "Image"}, "label": {"names": [names[k] for k in order], "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _write(path: Path, content: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(content, path, row_group_size=3)
    else:
        with pa.ipc.new_stream(str(path), content.schema) as writer:
            writer.write_table(content, max_chunksize=3)


# ------------------------------------------------------------------------------------------- arrays


def odd_arrays(root: Path, rng: Random) -> Truth:
    truth = Truth("arrays", path="a.npz")
    image, label = rng.choice([("x", "y"), ("images", "labels"), ("X", "Y"), ("img", "target")])
    pattern = rng.choice(["{name}_{split}", "{split}_{name}", "{split}/{name}"])
    numbers, shape, kind = rng.choice(list(NUMBERS)), rng.choice(list(SHAPES)), rng.choice(list(CLASSES))
    truth.doubtful = (
        numbers in {"signed", "standardised", "complex"}
        or shape in {"flat", "four", "both"}
        or kind in {"several", "objects"}
    )
    arrays, classes = {}, rng.randint(2, 4)
    for part, word in [("train", "train"), ("test", rng.choice(["test", "val"]))][: rng.randint(1, 2)]:
        labels = np.array([k for k in range(classes) for _ in range(rng.randint(3, 4))])
        rng.shuffle(labels)
        pixels = np.broadcast_to(np.array(SHADES)[labels][:, None, None], (len(labels), 5, 6))
        arrays[pattern.format(name=image, split=word)] = NUMBERS[numbers](SHAPES[shape](pixels))
        arrays[pattern.format(name=label, split=word)] = CLASSES[kind](labels)
        setattr(truth, part, {SHADES[k]: int((labels == k).sum()) for k in range(classes)})
    if rng.random() < 0.3:
        arrays["weights"] = np.ones(3)
    np.savez(root / "a.npz", **arrays)
    return truth


NUMBERS: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda x: x.astype(np.uint8),
    "integers": lambda x: x.astype(np.int64),
    "sixteen": lambda x: x.astype(np.uint16) * 257,
    "shares": lambda x: x / 255.0,
    "half": lambda x: (x / 255.0).astype(np.float16),
    "whole": lambda x: x.astype(np.float32),
    "signed": lambda x: x.astype(np.int16) - 128,
    "standardised": lambda x: (x - 127.0) / 60.0,
    "complex": lambda x: x * 1j,
}
SHAPES: dict[str, Callable[[Any], Any]] = {
    "grey": lambda x: x,
    "grey last": lambda x: x[..., None],
    "colours last": lambda x: np.repeat(x[..., None], 3, 3),
    "colours first": lambda x: np.repeat(x[:, None], 3, 1),
    "flat": lambda x: x.reshape(len(x), -1),
    "four": lambda x: np.repeat(x[..., None], 4, 3),
    "both": lambda x: np.repeat(x[:, :3, :, None], 3, 3),
}
CLASSES: dict[str, Callable[[Any], Any]] = {
    "numbers": lambda y: y,
    "column": lambda y: y[:, None].astype(np.uint8),
    "words": lambda y: np.array(NAMES)[y],
    "one-hot": lambda y: np.eye(5)[y],
    "floats": lambda y: y.astype(np.float32),
    "several": lambda y: np.ones((len(y), 3)),
    "objects": lambda y: np.array(NAMES, dtype=object)[y],
}

MAKERS = (odd_folder, odd_table, odd_arrays)
