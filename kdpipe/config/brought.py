"""Networks and images that somebody names in a word or two, as the sections of a study file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdpipe.config.sections import DataSpec
from kdpipe.config.study_text import allowed_by, toml_of
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import data_root, peek
from kdpipe.errors import DataError, NetworkError, StudyError
from kdpipe.files import write_atomic
from kdpipe.names import unknown_name
from kdpipe.representation.projectors import PROJECTORS

PROBE = 1000  # images at most
# Nothing is trained here, so most images are looked at, and small classes are in every split.
TESTED, VALIDATED = 0.6, 0.4
FEWEST = 20  # images that anything can be said of
DRAWN = ("tsne", "pca")

ORIGINS = (
    "a .safetensors file that kdpipe wrote, ARCH@FILE.safetensors for timm's ARCH, MODELS.py:FUNCTION@FILE.safetensors "
    "for a network of your own, or a folder of transformers"
)


def origin_of(text: str) -> dict[str, str]:
    """Where a network comes from, as fields of its section; files by their absolute paths.

    Args:
        text: one of :data:`ORIGINS`.

    Raises:
        NetworkError: none of them, or a file that is not there.
    """
    made_by, at, weights = text.rpartition("@")
    fields = {"checkpoint": str(_file(weights, text))} if at and weights else {}
    made_by = made_by if at else text
    if factory := re.fullmatch(r"(.+\.py):([A-Za-z_][A-Za-z0-9_]*)", made_by):
        return {"factory": f"{_file(factory.group(1), text)}:{factory.group(2)}", **fields}
    place = Path(made_by).expanduser()
    if at and not place.exists():
        return {"arch": made_by, **fields}
    if place.is_dir():
        return {"folder": str(place.resolve()), **fields}
    if at:
        raise NetworkError(f"{text}: a network is {ORIGINS}.")
    return {"checkpoint": str(_file(made_by, text))}


def _file(name: str, text: str) -> Path:
    place = Path(name).expanduser()
    if not place.is_file():
        raise NetworkError(f"{text}: there is no file {place}; a network is {ORIGINS}.")
    return place.resolve()


@dataclass(frozen=True)
class Images:
    """Images that networks are looked at on.

    Attributes:
        dataset: a dataset of the registry.
        path: where its files lie; empty for a dataset that needs none.
        image_size: what they are brought to.
    """

    dataset: str
    path: str
    image_size: int | None = None


def write_study(
    folder: Path, name: str, networks: Sequence[Mapping[str, Any]], images: Images, projectors: Sequence[str]
) -> Path:
    """Write a study of finished networks, with numbers of neighbours and a perplexity that its images allow.

    Args:
        folder: where the file goes; made if it is not there.
        networks: their sections.
        projectors: how maps are drawn.

    Raises:
        StudyError: a name that no study may have, a dataset or projector that is not registered.
        DataError: images that cannot be read.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,59}", name):
        raise StudyError(f"name {name!r}: a study's name has lower-case letters, digits, '-' and '_', 60 at most.")
    try:
        source = SOURCES[unknown_name("dataset", images.dataset, SOURCES)]
        drawn = [unknown_name("projector", one, PROJECTORS) for one in projectors]
    except ValueError as error:
        raise StudyError(f"{error}.") from None
    data: dict[str, Any] = {"dataset": images.dataset, "test_fraction": TESTED, "validation_fraction": VALIDATED}
    data |= {"path": images.path} if images.path else {}
    data |= {"image_size": images.image_size} if images.image_size else {}
    try:
        seen = peek(source, DataSpec.model_validate(data), data_root(None))
    except DataError as error:
        raise DataError(str(error).replace("data.image_size", "the image size (--image-size)")) from None
    probe = min(PROBE, seen.test if seen.test is not None else round(TESTED * seen.train))
    if probe < FEWEST:
        raise DataError(f"{probe} test images are too few to look at, of {seen.train + (seen.test or 0)}; give more.")
    study: dict[str, Any] = {
        "name": name,
        "title": f"What distillation changed: {name}",
        "data": {**data, "probe_size": probe},
        **allowed_by(probe, drawn),
        "networks": [dict(network) for network in networks],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{name}.toml", toml_of(study))
    return folder / f"{name}.toml"


def dataset_at(path: Path) -> str:
    """The name of the dataset that reads what lies at ``path``, told by its files.

    Raises:
        DataError: nothing is there, or nothing that images come in.
    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder.")
    if path.is_file():
        return _by_name([path], path)
    if (path / "samples.parquet").is_file() and path.suffix == ".vectors":
        return "vectors"
    if (path / "dataset_dict.json").is_file() or ((path / "dataset_info.json").is_file() and any(path.glob("*.arrow"))):
        return "arrow"
    inside = [one for one in sorted(path.rglob("*")) if one.is_file() and not one.name.startswith(".")]
    if not inside:
        raise DataError(f"{path}: the folder is empty.")
    return _by_name(inside, path)


def _by_name(files: Sequence[Path], path: Path) -> str:
    kinds = {".parquet": "parquet", ".arrow": "arrow", ".npz": "arrays", ".npy": "arrays"}
    found = {kinds[one.suffix.lower()] for one in files if one.suffix.lower() in kinds}
    if len(found) > 1:
        raise DataError(f"{path}: it holds {' and '.join(sorted(found))}; name one of them by --dataset.")
    if not found and path.is_file():
        raise DataError(f"{path}: images come as a folder with a folder for each class, .parquet, .arrow or .npz.")
    return found.pop() if found else "folder"
