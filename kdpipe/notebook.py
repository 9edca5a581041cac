"""From a program or a notebook: live networks and arrays as a study, in one call."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from torch import Tensor, nn

from kdpipe.artifacts.store import ARTIFACTS, Study, load_study
from kdpipe.cli.progress import RichReporter, Silent
from kdpipe.config.brought import DRAWN, Images, dataset_at, origin_of, write_study
from kdpipe.config.preflight import run_preflight
from kdpipe.config.study_file import read_study
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import data_root
from kdpipe.engine.cache import Cache
from kdpipe.engine.hardware import describe_hardware, resolve_device
from kdpipe.engine.stage import Context
from kdpipe.errors import KdpipeError, StudyError
from kdpipe.files import new_file, sha256_of
from kdpipe.models.factories import register_module
from kdpipe.pipeline.publish import publish
from kdpipe.pipeline.run_study import run_study
from kdpipe.source import HERE

Network = nn.Module | str | Path | Mapping[str, Any]


def study_of(
    networks: Mapping[str, Network | Sequence[Network]] | Sequence[Mapping[str, Any]],
    data: str | Path | tuple[Any, Any],
    *,
    name: str = "mine",
    image_size: int | None = None,
    projectors: Sequence[str] = DRAWN,
    artifacts: str | Path = ARTIFACTS,
    cache: str | Path = HERE / "cache",
    device: str = "auto",
    progress: bool = True,
) -> Study:
    """Look at finished networks: every layer, measure and map, and what follows from them. Nothing is trained.

    >>> study = kdpipe.study_of(          # doctest: +SKIP
    ...     {"teacher": teacher, "plain": [plain0, plain1], "distilled": [kd0, kd1]}, data=(images, labels)
    ... )

    Args:
        networks: by role (teacher, plain, distilled), one or several, of which the first has seed 0; or sections as in
            a study file, each with its role, and a live module under ``module``. A network is a module, a word as
            ``kdpipe look`` takes it, or such a section.
        data: a folder or file of images, the name of a dataset, or images (N, C, H, W) or (N, H, W, C) with labels
            (N,); what the networks were not trained on.
        name: of the study; one that is there is replaced.
        image_size: side that images are brought to.
        projectors: how maps are drawn.
        artifacts, cache: folders of all studies, and of finished stages.
        progress: show bars.

    Returns:
        the study, as :func:`kdpipe.load_study` opens it; ``kdpipe app`` shows it.

    Raises:
        KdpipeError: in one sentence, what cannot be read, built or looked at.
    """
    cache, artifacts = Path(cache), Path(artifacts)
    file = write_study(cache / "studies", name, list(_sections(networks)), _images(data, image_size, cache), projectors)
    study, root = read_study(file), data_root(None)
    preflight = run_preflight(study, root)
    where = resolve_device(device)
    console = Console() if progress else Console(file=io.StringIO())
    reporter = RichReporter(console) if progress else Silent()
    context = Context(where, root, reporter, cache / "scratch", describe_hardware(where))
    store = Cache(cache)
    store.sweep()
    result = run_study(study.spec, preflight, store, context)
    if lost := [planned for planned in result.plan.networks if not store.has(planned.stage)]:
        raise KdpipeError(result.outcome.failed.get(lost[0].stage.name, f"{lost[0].network_id} could not be read."))
    publish(study.spec, preflight, result, store, artifacts / study.spec.name, dict(context.hardware))
    return load_study(artifacts / study.spec.name)


def _sections(
    networks: Mapping[str, Network | Sequence[Network]] | Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    if not isinstance(networks, Mapping):
        for section in networks:
            yield _section(section)
        return
    for role, given in networks.items():
        several = list(given) if isinstance(given, list | tuple) else [given]
        for seed, network in enumerate(several):
            yield {"role": role, **({"seed": seed} if len(several) > 1 else {}), **_section(network)}


def _section(network: Any) -> dict[str, Any]:
    """A network as a section of a study file; a live module under the name that it is registered by."""
    if isinstance(network, nn.Module):
        return {"factory": register_module(network)}
    if isinstance(network, str | Path):
        return dict(origin_of(str(network)))
    if not isinstance(network, Mapping):
        raise StudyError(
            f"networks: a {type(network).__name__} is no network; give a torch.nn.Module, a file, or a section."
        )
    if any(isinstance(value, Tensor) for value in network.values()):
        raise StudyError("networks: a state dict is no network; load it into its module and give that.")
    section = dict(network)
    if (module := section.pop("module", None)) is not None:
        section["factory"] = register_module(module)
    return section


def _images(data: Any, image_size: int | None, cache: Path) -> Images:
    if isinstance(data, tuple) and len(data) == 2:
        return Images("arrays", str(_kept(*data, cache / "arrays").resolve()), image_size)
    if not isinstance(data, str | Path):
        raise StudyError(f"data: a {type(data).__name__} holds no images; give a folder, a file, or (images, labels).")
    if isinstance(data, str) and data in SOURCES and not os.path.exists(data):
        return Images(data, "", image_size)
    place = Path(data).expanduser()
    return Images(dataset_at(place), str(place.resolve()), image_size)


def _kept(images: Any, labels: Any, folder: Path) -> Path:
    """Arrays as a file, so that the same ones are known again; tensors are taken too."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels, answers = (
        np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in (images, labels)
    )
    if len(pixels) != len(answers):
        raise StudyError(f"data: {len(pixels)} images have {len(answers)} labels; give one for each image.")
    written = folder / "images.npz"
    with new_file(written) as unfinished, unfinished.open("wb") as file:
        np.savez(file, images=pixels, labels=answers)
    kept = folder / f"{sha256_of(written)[:16]}.npz"
    return written.replace(kept)
