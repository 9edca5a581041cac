#!/usr/bin/env python
"""Published accuracies beside those of finished studies: ``scripts/ledger.py [FOLDER ...] [--output FILE] [--check]``.

Every number of ours is read from artifacts, every published one from studies/cifar100/published.csv, which says where
it stands. What was not run is a dash.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import polars as pl
from scipy.stats import ttest_1samp

from kdpipe.artifacts.store import ARTIFACTS, Study, open_study, study_names
from kdpipe.config.study_file import load_spec
from kdpipe.errors import KdpipeError
from kdpipe.methods import METHODS

STUDIES = ROOT / "studies" / "cifar100"
PUBLISHED, TARGET = STUDIES / "published.csv", ROOT / "docs" / "LEDGER.md"
DASH = "–"
INTRODUCTION = """# Ledger

Written by `scripts/ledger.py` from `studies/cifar100/published.csv` and finished studies; nothing here was typed in.

Test accuracy on CIFAR-100 in per cent. *Paper* is what the paper in the last column reports (Tian et al. at the last
epoch; others do not all say), read at the link. *Ours* is the mean over seeds at the last epoch, *interval* its 95 %
interval (Student's t over seeds, so it needs two). *Best epoch* is the mean test accuracy at the epoch with the best
accuracy on held-out training images, never on test images. A dash is what was not run.
"""
# Fields of a study, and of its data, that do not change what its networks learn.
_OF_DATA = ("title", "note", "licence", "probe_size", "reference_size")
_ASIDE = ("title", "description", "maps", "measures", "headline", "evidence", "views", "seeds", "checkpoints")


def published() -> pl.DataFrame:
    """Published accuracies: study, method, accuracy, paper, read_at."""
    return pl.read_csv(PUBLISHED)


def ours(study: Study) -> dict[str, list[dict[str, Any]]]:
    """The finished networks of a study by their label; teachers, whose students are compared, under ``teacher``."""
    found: dict[str, list[dict[str, Any]]] = {}
    compared = pl.col("role").is_in(["teacher", "plain", "distilled"])
    for row in study.networks.filter(compared, status="trained").to_dicts():
        label = "teacher" if row["role"] == "teacher" else row["method_label"]
        found.setdefault(label, []).append(row)
    return found


def cells(networks: list[dict[str, Any]]) -> tuple[str, str, str, str]:
    """Mean at the last epoch, its interval, mean at the best epoch, and how many seeds."""
    last = [100 * row["test_accuracy"] for row in networks]
    best = [100 * row["selected_test_accuracy"] for row in networks if row["selected_test_accuracy"] is not None]
    interval = DASH
    if len(last) > 1 and max(last) > min(last):
        low, high = ttest_1samp(last, 0.0).confidence_interval(0.95)
        interval = f"{max(low, 0.0):.2f} to {min(high, 100.0):.2f}"
    chosen = f"{sum(best) / len(best):.2f}" if len(best) == len(last) else DASH
    return f"{sum(last) / len(last):.2f}", interval, chosen, str(len(last))


def departures(study: Study, name: str) -> list[str]:
    """In which fields a finished study is not the one of its file, and so not the published recipe."""
    path = STUDIES / f"{name.removeprefix('cifar100-')}.toml"
    asked, done = (_learned(resolved) for resolved in (load_spec(path).model_dump(mode="json"), study.record["study"]))
    common = asked["methods"].keys() & done["methods"].keys()  # a study may have fewer methods, or more
    for resolved in (asked, done):
        resolved["methods"] = {name: resolved["methods"][name] for name in common}
    return list(_differences(asked, done))


def _learned(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What networks of a resolved study learn from, its students and methods by name."""
    kept = {field: value for field, value in resolved.items() if field not in _ASIDE}
    kept["students"] = {student["name"]: student for student in resolved["students"]}
    kept["methods"] = {method["label"] or method["method"]: _spelt_out(method) for method in resolved["methods"]}
    kept["data"] = {field: value for field, value in resolved["data"].items() if field not in _OF_DATA}
    return kept


def _spelt_out(method: Mapping[str, Any]) -> dict[str, Any]:
    """A method of a study with the parameters that it leaves at their defaults."""
    record = METHODS.get(method["method"])  # one of a plug-in stands in no file here
    chosen = method["parameters"]
    return {**method, "parameters": record.resolved(chosen).model_dump(mode="json") if record else chosen}


def _differences(asked: Mapping[str, Any], done: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Fields in which two tables differ, with the value of the second."""
    for field in sorted({*asked, *done}):
        mine, its = asked.get(field), done.get(field)
        if isinstance(mine, dict) and isinstance(its, dict):
            yield from _differences(mine, its, f"{place}{field}.")
        elif mine != its:
            yield f"`{place}{field} = {its}`"


def ledger(studies: Mapping[str, Study]) -> str:
    """The whole document."""
    lines = [
        "| pair | method | paper | ours | interval | best epoch | seeds | reported by |",
        "|---|---|--:|--:|---|--:|--:|---|",
    ]
    notes: list[str] = []
    for row in published().iter_rows(named=True):
        name, (teacher, _, student) = row["study"], row["study"].removeprefix("cifar100-").rpartition("-")
        done, mark = (DASH,) * 4, ""
        if name in studies:
            other = departures(studies[name], name)
            mark = "\\*" if other else ""
            note = f"\\* {teacher} to {student}: another recipe than the published one, {', '.join(other)}."
            if other and note not in notes:
                notes.append(note)
            if networks := ours(studies[name]).get(row["method"]):
                done = cells(networks)
        said = [f"{teacher} to {student}{mark}", row["method"], f"{row['accuracy']:.2f}", *done]
        lines.append(f"| {' | '.join(said)} | [{row['paper']}]({row['read_at']}) |")
    return "\n".join([INTRODUCTION, *lines, *(f"\n{note}" for note in notes), ""])


def finished(folders: list[Path]) -> dict[str, Study]:
    """The studies of the table among those in some folders of artifacts, by name."""
    wanted = set(published()["study"])
    found = {}
    for folder in folders:
        for name in study_names(folder):
            if name in wanted:
                found[name] = open_study(folder / name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[ARTIFACTS], help="of artifacts")
    parser.add_argument("--output", type=Path, help="write there, not to the screen")
    parser.add_argument("--check", action="store_true", help="only say whether docs/LEDGER.md is up to date")
    chosen = parser.parse_args()
    try:
        text = ledger(finished(chosen.folders))
    except KdpipeError as error:
        sys.exit(str(error))
    if chosen.check:
        remedy = "docs/LEDGER.md is out of date: run scripts/ledger.py --output docs/LEDGER.md"
        sys.exit(0 if TARGET.read_text() == text else remedy)
    if chosen.output:
        chosen.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
