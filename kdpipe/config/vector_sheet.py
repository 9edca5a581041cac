"""The sheet of ``kdpipe import``: which array of which file is what, where names do not say it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from kdpipe.config.diagnostics import explain, place_of
from kdpipe.config.sections import refuse_repeats
from kdpipe.config.spec import Fraction, Positive, Seed, Spec
from kdpipe.errors import StudyError
from kdpipe.vectors.gather import NetworkSource

_RECORD = ("role", "student", "method", "seed", "label_fraction", "step", "origin")


class SheetNetwork(Spec):
    """A network of vectors: what it is, and where its arrays lie."""

    name: Annotated[str, Field(min_length=1)]
    role: str | None = Field(default=None, description="teacher, plain, distilled or control; may stand in the name")
    student: str | None = None
    method: str | None = None
    seed: Seed | None = None
    label_fraction: Fraction | None = None
    step: Annotated[int, Field(ge=0)] | None = None
    origin: str | None = None
    file: str | None = Field(default=None, description="of its arrays, relative to the sheet")
    layers: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="keys of the file from input to output, or files of one array each"
    )
    logits: str | None = Field(default=None, description="a key of the file, or a file")

    @model_validator(mode="after")
    def _has_arrays(self) -> SheetNetwork:
        if self.file is None and self.layers is None:
            raise ValueError("a network needs file, or layers with a file each")
        refuse_repeats("layers", list(self.layers or ()))
        return self


class VectorSheet(Spec):
    """All of a sheet. Paths are relative to its folder."""

    class_names: list[str] | None = None
    samples: str | None = Field(default=None, description="file with a row a sample: id, label, perhaps text and split")
    ids: str | None = Field(default=None, description="file with the id of each row, for files without")
    ids_are_row_numbers: bool = False
    image_size: Positive | None = None
    networks: Annotated[list[SheetNetwork], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> VectorSheet:
        refuse_repeats("networks", [network.name for network in self.networks])
        return self


def read_sheet(path: Path) -> VectorSheet:
    """Read and validate a sheet.

    Raises:
        StudyError: it cannot be read, or does not say where vectors lie.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return VectorSheet.model_validate(tomllib.loads(text))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: the sheet cannot be read ({error}).") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: not valid TOML: {error}.") from None
    except ValidationError as error:
        raise StudyError(explain(error, VectorSheet, lambda where: place_of(path, text, (), where))) from None


def sources_of(sheet: VectorSheet, folder: Path) -> list[NetworkSource]:
    """The sheet's networks, with paths that start from ``folder``."""
    return [_source(network, folder) for network in sheet.networks]


def _source(network: SheetNetwork, folder: Path) -> NetworkSource:
    said: dict[str, Any] = {name: value for name in _RECORD if (value := getattr(network, name)) is not None}
    if network.file is not None:
        return NetworkSource(network.name, said, folder / network.file, network.layers, network.logits)
    files = [str(folder / layer) for layer in network.layers or ()]
    logits = None if network.logits is None else str(folder / network.logits)
    return NetworkSource(network.name, said, None, files, logits)
