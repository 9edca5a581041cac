"""What the first half of a plan comes to: the networks of a study, and the images that they are looked at on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdpipe.config.sections import ArchSpec
from kdpipe.config.study import BaseStudy
from kdpipe.data.sources import SOURCES
from kdpipe.data.sources.base import fingerprint
from kdpipe.engine.stage import Stage
from kdpipe.errors import StudyError
from kdpipe.files import canonical_json
from kdpipe.models.origins import PLACES, contents, origin_of, places
from kdpipe.pipeline.stages.data import make_data, make_probe
from kdpipe.pipeline.stages.embeddings import make_pixels
from kdpipe.pipeline.stages.outputs import LAST
from kdpipe.registry import version_in_key
from kdpipe.vocabulary import PIXELS, UNTRAINED

# Fields of the data section that do not change the decoded splits.
UNKEYED_DATA = {"path", "title", "note", "licence", "augmentation", "probe_size", "reference_size"}


@dataclass(frozen=True)
class Planned:
    """A network of the study and the stage that makes it.

    Attributes:
        student: name of its architecture; ``teacher`` for teachers, ``pixels`` for the raw images.
        shape: under which name the study's preflight has its layers.
        described: what else networks.parquet says of it: its architecture, method and training.
        method: its method's label.
        teacher: the network whose outputs its loss used.
        checkpoint: the step whose weights it has, where those are not the last ones.
        checkpoint_of: the finished student that it became, where it is a checkpoint.
        weights: the file in the stage's output that holds its weights; not one of a file, where it has none.
        answers: whether its logits are known.
        vectors: whether its vectors are there already, so that it is not shown any image.
    """

    network_id: str
    role: str
    stage: Stage
    student: str
    shape: str
    described: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    method: str | None = None
    teacher: Planned | None = None
    label_fraction: float = 1.0
    seed: int = 0
    init_seed: int = 0
    mapped: bool = False
    checkpoint: int | None = None
    checkpoint_of: str | None = None
    weights: str = LAST
    answers: bool = True
    vectors: bool = False


@dataclass(frozen=True)
class NetworksPlan:
    """The first half of a plan: images and networks.

    ``others`` are the teachers of controls, ``checkpoints`` students on their way, ``untrained`` what nobody trained:
    students at their initial weights, and the raw pixels.

    Attributes:
        lacking: what a study of finished networks or vectors does without, each with what follows from it, for people:
            ``training``, ``networks``, ``images``, ``reference`` (samples to fit probes on) or ``logits``.
    """

    data: Stage
    probe: Stage
    teacher: Planned
    others: list[Planned]
    students: list[Planned]
    checkpoints: list[Planned]
    untrained: list[Planned]
    lacking: Mapping[str, str] = field(default_factory=dict)

    @property
    def networks(self) -> list[Planned]:
        return [self.teacher, *self.others, *self.students, *self.checkpoints, *self.untrained]


def plan_pixels(probe: Stage) -> Planned:
    """The raw images, as a network of one layer that nobody trained."""
    stage = make_pixels.plan(PIXELS, {}, {"probe": probe})
    described = {"arch": PIXELS, "arch_arguments": "{}", "method": PIXELS}
    return Planned(
        PIXELS, UNTRAINED, stage, PIXELS, PIXELS, described, label_fraction=0.0, weights=PIXELS, answers=False
    )


def plan_data(spec: BaseStudy, root: Path) -> tuple[Stage, Stage]:
    """The stages of a study's images, and of those that networks are looked at on.

    Args:
        root: where relative data paths start.

    Raises:
        DataError: files that are not there.
        StudyError: a dataset of files without their folder.
    """
    source = SOURCES[spec.data.dataset]
    if source.needs_path and not spec.data.path:
        raise StudyError(f"data.path: dataset {source.name!r} needs the folder that holds it.")
    params = {
        "data": spec.data.keyed(UNKEYED_DATA),
        "content": fingerprint(source, spec.data, root),
        **version_in_key(source),
        **SOURCES.plugin_in_key(source.name),
    }
    data = make_data.plan("data", params, runtime={"path": spec.data.path})
    chosen = {"size": spec.data.probe_size, "reference": spec.data.reference_size, "seed": spec.data.split_seed}
    return data, make_probe.plan("probe", chosen, {"data": data})


def architecture_params(spec: ArchSpec, extra: Collection[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """Key parameters and runtime of a network: files that it comes from count by content, not by path.

    Args:
        extra: fields of the section that are no part of the network itself.

    Raises:
        NetworkError: there is no such file.
    """
    return {"network": spec.keyed({*PLACES, *extra}), **contents(spec)}, places(spec)


def described_architecture(spec: ArchSpec) -> dict[str, str]:
    """What networks.parquet says of an architecture."""
    own = {"arguments": spec.arguments, "stem": spec.stem, "stem_stride": spec.stem_stride}
    return {"arch": origin_of(spec), "arch_arguments": canonical_json(own)}
