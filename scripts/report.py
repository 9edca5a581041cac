#!/usr/bin/env python
"""Write docs/RESULTS.md from the committed artifacts: ``scripts/report.py [--check]``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import polars as pl  # noqa: E402

from kdpipe.store import ARTIFACTS, Study, open_study, study_names  # noqa: E402

TARGET = ROOT / "docs" / "RESULTS.md"
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
INTRODUCTION = """# What the committed studies show

Written by `scripts/report.py` from `artifacts/`; nothing here was typed in. Accuracy is that of the last training step
on the whole test set. *Gain* is the mean over seeds of the difference to the plain student of the same seed, which
shares its labels, batches and (but for `second-seed`) its initial weights; in brackets the lowest and the highest seed.
With so few seeds these are estimates, not verdicts: compare every gain with that of `second-seed`, a plain student
from other initial weights. In both studies the teacher had all labels, so a gain may be the teacher's labels as much as
its way of teaching; controls that tell the two apart are not part of these studies.
"""


def markdown(frame: pl.DataFrame) -> str:
    """A frame as a Markdown table."""
    head = "| " + " | ".join(frame.columns) + " |"
    rule = "|" + "|".join("---" if dtype == pl.String else "--:" for dtype in frame.dtypes) + "|"
    rows = ["| " + " | ".join(str(value) for value in row) + " |" for row in frame.iter_rows()]
    return "\n".join([head, rule, *rows])


def gains(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    """Mean, lowest and highest over seeds of ``value``, and of its difference to plain within a seed."""
    keys = ["student", "label_fraction", "seed"]
    plain = frame.filter(role="plain").select(*keys, plain=value)
    return (
        frame.join(plain, keys, how="left")
        .with_columns(gain=pl.col(value) - pl.col("plain"))
        .group_by("role", "student", "method_label", "label_fraction", maintain_order=True)
        .agg(
            pl.len().alias("seeds"),
            *(getattr(pl.col(column), kind)().alias(f"{column}_{kind}")
              for column in (value, "gain") for kind in ("mean", "min", "max")),
        )
    )  # fmt: skip


def spread(row: dict[str, float | None], column: str, form: str, factor: float = 1.0) -> str:
    """``mean (lowest to highest)``."""
    mean, low, high = (row[f"{column}_{kind}"] for kind in ("mean", "min", "max"))
    if mean is None or low is None or high is None:
        return "-"
    parts = [form.format(factor * part) for part in (mean, low, high)]
    return parts[0] if low == high else f"{parts[0]} ({parts[1]} to {parts[2]})"


def accuracies(study: Study) -> str:
    rows = [
        {
            "role": row["role"],
            "student": row["student"],
            "method": row["method_label"],
            "labels": f"{row['label_fraction']:.4g}",
            "seeds": row["seeds"],
            "test accuracy, %": spread(row, "test_accuracy", "{:.1f}", 100),
            "gain, points": "-" if row["role"] in ("teacher", "plain") else spread(row, "gain", "{:+.1f}", 100),
        }
        for row in gains(study.networks.filter(status="trained"), "test_accuracy").iter_rows(named=True)
    ]
    return markdown(pl.DataFrame(rows))


def by_layer(study: Study, measure: str, view: str) -> str:
    """Gain over plain of a measure at every layer of the headline's student and budget, for each method.

    The teacher's value is that of its layer nearest in relative depth.
    """
    chosen = study.record["headline"]
    values = study.frame("layer_measures", measure=measure, view=view)
    layers = study.frame("layers", view=view).select("network_id", "layer", "order", "relative_depth")
    frame = values.join(layers, ["network_id", "layer"]).join(study.networks, "network_id")
    teacher = frame.filter(role="teacher").sort("order")
    mine = frame.filter(student=chosen["student"]).filter(
        (pl.col("label_fraction") - chosen["label_fraction"]).abs() < 1e-6
    )
    rows = []
    for order in sorted(mine["order"].unique()):
        here = mine.filter(order=order)
        depth = here["relative_depth"][0]
        nearest = teacher.sort((pl.col("relative_depth") - depth).abs().round(5), maintain_order=True)
        row = {"layer": here["layer"][0], "depth": f"{depth:.2f}", "teacher": f"{nearest['value'][0]:.3f}"}
        for found in gains(here, "value").iter_rows(named=True):
            if found["role"] == "plain":
                row[found["method_label"]] = spread(found, "value", "{:.3f}")
            else:
                row[f"{found['method_label']}, gain"] = spread(found, "gain", "{:+.3f}")
        rows.append(row)
    return markdown(pl.DataFrame(rows))


def made(study: Study) -> str:
    """Size, time and hardware."""
    size = sum(path.stat().st_size for path in study.folder.iterdir()) / 1e6
    stages = study.timings.get("stages", {})
    hardware = study.timings.get("hardware", {})
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in stages.items())
    where = hardware.get("accelerator") or f"{hardware.get('threads')} threads of {hardware.get('processor')}"
    return f"Artifacts: {size:.1f} MB. Wall time by stage on {where}: {seconds}; {sum(stages.values()):.0f} s in all."


def section(study: Study) -> str:
    data = study.record["data"]
    counts = ", ".join(f"{data[split]:,} {name}" for split, name in SPLITS.items())
    facts = f"{data['dataset']}: {counts} images"
    parts = [
        f"## {study.title} (`{study.name}`)",
        f"{facts}; {data['probe']:,} probe images. {data['note']}".strip(),
        accuracies(study),
        "Silhouette of the true classes on the projected map, by layer of the headline student:",
        by_layer(study, "silhouette", "projection"),
        "kNN accuracy on the channel means, by layer of the headline student:",
        by_layer(study, "knn_accuracy", "gap"),
        made(study),
    ]
    return "\n\n".join(parts)


def main() -> None:
    studies = [open_study(ARTIFACTS / name) for name in study_names(ARTIFACTS)]
    text = "\n\n".join([INTRODUCTION.strip(), *map(section, studies)]) + "\n"
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else "docs/RESULTS.md is out of date: run scripts/report.py")
    TARGET.write_text(text)


if __name__ == "__main__":
    main()
