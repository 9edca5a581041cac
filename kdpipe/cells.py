"""From a study's tables to the cells that evidence judges: which students belong side by side, and their values.

A cell is one student, one method and one budget of labels, with plain students of the same seeds and every control
that can explain its gain. Frames in, arrays out; no network is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kdpipe.methods import METHODS

Frames = Mapping[str, pl.DataFrame]
Array = NDArray[Any]
Kind = Literal["instead", "without"]
MATCHED = "matched-accuracy"
# Who may stand in for a teacher, and what kind of control that makes of a method.
STAND_INS: Mapping[str, Kind] = {"untrained": "instead", "self": "instead", "own-budget": "without"}
STUDENT = ~pl.col("student").is_in(["teacher", "pixels"])


@dataclass(frozen=True)
class Group:
    """Networks that differ in their seed alone: seed -> network_id."""

    label: str
    method: str
    role: str
    unlabelled: bool
    ids: Mapping[int, str]


@dataclass(frozen=True)
class Named:
    """A control of a cell.

    Attributes:
        why_not: a clause that says why it was not held against the cell, or None.
    """

    name: str
    kind: Kind
    ids: Mapping[int, str] = field(default_factory=dict)
    why_not: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a cell stands in its study, and who belongs to it.

    Attributes:
        seeds: those of which both the plain and the distilled student were trained to the end.
        null: plain from other initial weights, at the same seeds; where the study has none, plain of the next seed.
        fair_teacher: it is no distillation of the study's own but a control whose teacher had the student's labels and
            no more: whether it outperforms that teacher is all that is asked of it.
    """

    student: str
    method_label: str
    label_fraction: float
    seeds: tuple[int, ...]
    distilled: Group
    plain: Group
    null: Mapping[int, str] | None
    controls: tuple[Named, ...]
    primary: bool = False
    fair_teacher: bool = False

    def ids(self, group: Mapping[int, str]) -> list[str]:
        return [group[seed] for seed in self.seeds]


class Values:
    """Per-image values of a study's networks, looked up by name."""

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self.labels = frames["samples"].sort("sample_id")["label"].to_numpy()

    @cached_property
    def _layers(self) -> dict[tuple[str, str], pl.DataFrame]:
        keys = ["network_id", "view"]
        parts = self.frames["layers"].sort("order").partition_by(keys, as_dict=True)
        return {(str(name), str(view)): part for (name, view), part in parts.items()}

    @cached_property
    def _samples(self) -> dict[tuple[str, str], pl.DataFrame]:
        """Sample measures of a network in a view, sorted by layer and image."""
        order = self.frames["layers"].select("network_id", "view", "layer", "order")
        joined = self.frames["sample_measures"].join(order, ["network_id", "view", "layer"])
        parts = joined.sort("order", "sample_id").partition_by("network_id", "view", as_dict=True)
        return {(str(name), str(view)): part for (name, view), part in parts.items()}

    @cached_property
    def _answers(self) -> dict[str, pl.DataFrame]:
        parts = self.frames["predictions"].sort("sample_id").partition_by("network_id", as_dict=True)
        return {str(name): part for (name,), part in parts.items()}

    def depth(self, network_id: str, view: str) -> Array:
        """Relative depth (L,) of a network's layers."""
        return self._layers[network_id, view]["relative_depth"].to_numpy().astype(np.float64)

    def has(self, network_ids: Sequence[str], view: str, column: str) -> bool:
        """Whether ``column`` was measured on every layer of all these networks in ``view``."""
        found = [self._samples.get((name, view)) for name in network_ids]
        return all(part is not None and not part[column].null_count() for part in found)

    def of_layers(self, network_ids: Sequence[str], view: str, column: str) -> Array:
        """(S, L, N) of a column of sample_measures."""
        return np.stack([self._of_layers(name, view, column) for name in network_ids])

    def _of_layers(self, network_id: str, view: str, column: str) -> Array:
        values = self._samples[network_id, view][column].cast(pl.Float64).to_numpy()
        return np.asarray(values.reshape(-1, len(self.labels)))

    def correct(self, network_ids: Sequence[str]) -> Array:
        """(S, N) 1 where a network's answer is right."""
        return np.stack([self._answers[name]["correct"].cast(pl.Float64).to_numpy() for name in network_ids])

    def prediction_depth(self, network_ids: Sequence[str]) -> Array:
        """(S, N) relative depth at which an image is settled; one step beyond the last layer if it never is."""
        return np.stack([self._settled(name) for name in network_ids])

    def _settled(self, network_id: str) -> Array:
        view = "gap" if (network_id, "gap") in self._layers else "projection"
        depth = self.depth(network_id, view)
        beyond = 2 * depth[-1] - depth[-2] if len(depth) > 1 else depth[-1]
        order = self._answers[network_id]["prediction_depth"].fill_null(len(depth)).to_numpy()
        return np.asarray(np.append(depth, beyond)[order])


def places(frames: Frames, headline: Mapping[str, Any]) -> list[Place]:
    """All cells of a study in its order: every distilled student with a plain companion, at each budget.

    Args:
        headline: student, method (as labelled) and label_fraction of the primary cell.
    """
    trained = frames["networks"].filter(pl.col("status") == "trained")
    whole = pl.col("network_id").is_in(measured(frames))
    students = trained.filter(STUDENT & whole & pl.col("role").is_in(["plain", "distilled", "control"]))
    keys = ["student", "label_fraction"]
    found = []
    for (student, fraction), part in students.partition_by(keys, as_dict=True, maintain_order=True).items():
        groups = _groups(part)
        plain = next((group for group in groups if group.role == "plain"), None)
        if plain is None:
            continue
        records = {row["method"]: row for row in frames["methods"].iter_rows(named=True)}
        fair = [g for g in groups if g.role == "control" and _kind(g, records, trained)[0] == "without"]
        for group in [*(group for group in groups if group.role == "distilled"), *fair]:
            seeds = tuple(sorted(plain.ids.keys() & group.ids.keys()))
            if not seeds:
                continue
            wanted = (headline["student"], headline["method"])
            primary = (student, group.label) == wanted and abs(float(fraction) - headline["label_fraction"]) < 1e-6
            found.append(
                Place(
                    str(student),
                    group.label,
                    float(fraction),
                    seeds,
                    group,
                    plain,
                    _null(groups, plain, seeds),
                    () if group in fair else tuple(_controls(records, trained, groups, group, plain, seeds)),
                    primary,
                    fair_teacher=group in fair,
                )
            )
    return found


def measured(frames: Frames) -> list[str]:
    """Networks with answers and with finite values of both endpoints on every one of their layers.

    What a failed stage left without them takes part in nothing; its seed is then named as missing.
    """
    images, on = frames["samples"].height, ["network_id", "layer", "view"]
    finite = pl.col("silhouette").is_finite() & pl.col("knn_correct").is_not_null()
    rows = frames["sample_measures"].filter(finite).group_by(on).len().filter(pl.col("len") == images)
    layers = frames["layers"].group_by("network_id").len(name="layers")
    found = rows.group_by("network_id").len(name="found").join(layers, "network_id")
    answered = frames["predictions"]["network_id"].unique()
    whole = found.filter((pl.col("found") == pl.col("layers")) & pl.col("network_id").is_in(answered.to_list()))
    return whole["network_id"].to_list()


def _groups(students: pl.DataFrame) -> list[Group]:
    parts = students.partition_by("method_label", maintain_order=True)
    return [
        Group(
            label=part["method_label"][0],
            method=part["method"][0],
            role=part["role"][0],
            unlabelled=part["unlabelled"][0],
            ids=dict(part.select("seed", "network_id").rows()),
        )
        for part in parts
    ]


def _null(groups: Sequence[Group], plain: Group, seeds: Sequence[int]) -> Mapping[int, str] | None:
    """What stands against plain where nothing but chance differs."""
    second = next((group for group in groups if group.method == "second-seed"), None)
    if second is not None and set(seeds) <= second.ids.keys():
        return second.ids
    if len(seeds) < 2:
        return None
    return {seed: plain.ids[after] for seed, after in zip(seeds, [*seeds[1:], seeds[0]], strict=True)}


def _controls(
    records: Mapping[str, Mapping[str, Any]],
    trained: pl.DataFrame,
    groups: Sequence[Group],
    cell: Group,
    plain: Group,
    seeds: Sequence[int],
) -> Iterator[Named]:
    """Controls that could explain this cell's gain: those that ran, and why others could not be held against it."""
    labels = dict(trained.select("network_id", "labelled_images").iter_rows())
    own = max(labels[name] for name in plain.ids.values())
    yield from _not_run(groups, cell, trained)
    for group in groups:
        if group.role != "control":
            continue
        kind, of = _kind(group, records, trained)
        if kind is None or of not in (None, cell.method) or (of and group.unlabelled != cell.unlabelled):
            continue
        if max(labels[name] for name in group.ids.values()) > own and not cell.unlabelled:
            continue  # it saw labels that the distilled student's images did not have: an upper bound, no explanation
        lacking = sorted(set(seeds) - group.ids.keys())
        why_not = f"it is missing at seed {lacking[0]}" if lacking else None
        yield Named(group.label, kind, {} if lacking else group.ids, why_not)


def _not_run(groups: Sequence[Group], cell: Group, trained: pl.DataFrame) -> Iterator[Named]:
    """Controls that could explain this cell's gain and that the study does not have.

    Of a method with controls of its own in the registry these are asked; of others, the method itself with stand-ins
    for its teacher.
    """
    had = {group.method for group in groups if group.role == "control"}
    why_not = "it is not in the study"
    of_its_own = any(record.control_of == cell.method for record in METHODS.values()) and not cell.unlabelled
    for name, record in METHODS.items():
        fits = record.control_of is None or (record.control_of == cell.method and of_its_own)
        if record.explains and fits and name not in had and (cell.unlabelled or not record.reveals_labels):
            yield Named(name, record.explains, why_not=why_not)
    mine = [g for g in groups if (g.role, g.method, g.unlabelled) == ("control", cell.method, cell.unlabelled)]
    stand_ins = {_stand_in(group, trained) for group in mine}
    for teacher, kind in STAND_INS.items():
        if not of_its_own and teacher not in stand_ins:
            name = f"{cell.method}-{teacher}-teacher" + "-unlabelled" * cell.unlabelled
            yield Named(name, kind, why_not=why_not)


def _kind(
    group: Group, records: Mapping[str, Mapping[str, Any]], trained: pl.DataFrame
) -> tuple[Kind | None, str | None]:
    """How a control can explain a gain, and the method it is a variant of.

    A distillation with a stand-in for its teacher is a control of its own method: without the labels that its
    teacher brought, if the stand-in had the student's own budget; else something in the place of a teacher.
    """
    record = records.get(group.method, {})
    if record.get("role") != "distilled":
        return record.get("explains"), record.get("control_of")
    stand_in = _stand_in(group, trained)  # without one it differs in its batches or steps: no rule is made for that
    return (None, None) if stand_in is None else (STAND_INS[stand_in], group.method)


def _stand_in(group: Group, trained: pl.DataFrame) -> str | None:
    """Who taught a control in the place of the study's teacher, in the words of a study file."""
    first = trained.filter(pl.col("network_id") == next(iter(group.ids.values()))).row(0, named=True)
    teacher = trained.filter(pl.col("network_id") == (first["teacher_id"] or ""))
    if teacher.is_empty() or teacher["role"][0] == "teacher":
        return None
    if teacher["student"][0] != "teacher":
        return "self"
    return "own-budget" if teacher["label_fraction"][0] > 0 else "untrained"


@dataclass(frozen=True)
class Stop:
    """A student at an accuracy on its way: between two of its checkpoints, ``share`` of the way to the later one."""

    before: str
    after: str
    share: float

    def of(self, values: Callable[[str], Array]) -> Array:
        if self.before == self.after:
            return values(self.before)
        return (1 - self.share) * values(self.before) + self.share * values(self.after)


@dataclass(frozen=True)
class Matched:
    """For each seed, the distilled and the plain student where both are as accurate as the worse of them ends."""

    pairs: tuple[tuple[Stop, Stop], ...]

    def arm(self, values: Callable[[str], Array], plain: Array) -> Array:
        """What stands for the control (S, ...): plain's values, plus what distilled is ahead at equal accuracy.

        So this control minus plain, as of all controls that withhold something, is the gain that is left.
        """
        left = np.stack([distilled.of(values) - other.of(values) for distilled, other in self.pairs])
        return np.asarray(plain + left)

    @property
    def ids(self) -> list[str]:
        return [name for pair in self.pairs for stop in pair for name in (stop.before, stop.after)]


def matched_accuracy(frames: Frames, place: Place) -> Matched | str:
    """Both arms at the accuracy at which the less accurate one ends, seed by seed, or why that cannot be had."""
    whole = frames["networks"].filter(pl.col("network_id").is_in(measured(frames)))
    networks = {row["network_id"]: row for row in whole.iter_rows(named=True)}
    pairs = []
    for seed in place.seeds:
        ends = [networks[group.ids[seed]] for group in (place.distilled, place.plain)]
        goal = min(end["test_accuracy"] for end in ends)
        stops = []
        for end in ends:
            found = _stop(_on_its_way(whole, end), end, goal)
            if found is None:
                return f"no checkpoints of {end['method_label']} lie around its accuracy at seed {seed}"
            stops.append(found)
        pairs.append((stops[0], stops[1]))
    return Matched(tuple(pairs))


def _on_its_way(networks: pl.DataFrame, end: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(network_id, test accuracy) of a student's checkpoints and its end, in the order of steps."""
    same = [pl.col(name) == end[name] for name in ("student", "seed", "method", "method_parameters", "training")]
    label = pl.col("method_label").str.replace(r"-at\d+$", "") == end["method_label"]
    budget = (pl.col("label_fraction") - end["label_fraction"]).abs() < 1e-6
    known = pl.col("test_accuracy").is_not_null() & pl.col("role").is_in(["checkpoint", end["role"]])
    mine = networks.filter(*same, label, budget, known)
    return list(mine.sort("checkpoint_step").select("network_id", "test_accuracy").iter_rows())


def _stop(way: Sequence[tuple[str, float]], end: Mapping[str, Any], goal: float) -> Stop | None:
    """Where a student first crosses an accuracy; its end, if that is where it ends."""
    if end["test_accuracy"] == goal:
        return Stop(end["network_id"], end["network_id"], 1.0)
    for (one, low), (two, high) in pairwise(way):
        if min(low, high) <= goal <= max(low, high):
            return Stop(one, two, 1.0 if low == high else (goal - low) / (high - low))
    return None
