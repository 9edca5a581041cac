#!/usr/bin/env python
"""Write docs/RESULTS.md from the committed artifacts: ``scripts/report.py [--check]``."""

import json
import math
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import polars as pl

from kdpipe.artifacts.store import ARTIFACTS, Study, open_study, study_names
from kdpipe.vocabulary import (
    CHECKPOINT,
    CONTROL_TEACHER,
    NOT_ASKED,
    REMAINS,
    STUDENT_ROLES,
    UNTRAINED,
    budget_id,
    full_title,
)

STUDIES, TARGET = ROOT / "studies", ROOT / "docs" / "RESULTS.md"
LAYERS = (
    ("silhouette", "projection", "Silhouette of the true classes on the projected map"),
    ("silhouette", "gap", "Silhouette of the true classes on the channel means"),
    ("knn_accuracy", "gap", "kNN accuracy on the channel means"),
)
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
INTRODUCTION = """# What the committed studies show

Written by `scripts/report.py` from `artifacts/`; nothing here was typed in. Accuracy is that of the last training step
on the whole test set. *Gain* is the mean over seeds of the difference to the plain student of the same seed, which
shares its labels, batches and (but for controls with an initialisation of their own) its initial weights; in brackets
the lowest and the highest seed. These are estimates; what has a verdict stands under *Verdicts*. *Against plain* says
only this: *better* or *worse* if every seed lies on that side and the mean gain is larger than the largest that
`second-seed`, a plain student from other initial weights, reached; *within the null spread* if it is not; *mixed* if
seeds disagree.
Where the teacher had all labels, a gain may be the teacher's labels as much as its way of teaching: compare
`own-budget-teacher` and `supervised-on-the-same-images` where a study has them. *Time a step* is the student's own time
and its teacher's pass, as a multiple of the plain student's in the same run.
"""


def markdown(frame: pl.DataFrame) -> str:
    """A frame as a Markdown table."""
    head = "| " + " | ".join(frame.columns) + " |"
    rule = "|" + "|".join("---" if dtype == pl.String else "--:" for dtype in frame.dtypes) + "|"
    rows = ["| " + " | ".join(str(value) for value in row) + " |" for row in frame.iter_rows()]
    return "\n".join([head, rule, *rows])


def label() -> pl.Expr:
    """What a configuration is called: its label in the study and, of a checkpoint, its step."""
    there = pl.concat_str("method_label", pl.lit(" at step "), "checkpoint_step")
    return pl.when(pl.col("role") == CHECKPOINT).then(there).otherwise("method_label").alias("method_label")


def gains(frame: pl.DataFrame, value: str) -> pl.DataFrame:
    """Mean, lowest and highest over seeds of ``value``, and of its difference to plain within a seed."""
    keys = ["student", "budget_id", "seed"]
    plain = frame.filter(role="plain").select(*keys, plain=value)
    return (
        frame.join(plain, keys, how="left")
        .with_columns(gain=pl.col(value) - pl.col("plain"))
        .group_by("role", "student", label(), "budget_id", "label_fraction", maintain_order=True)
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
    """Accuracy and gain of every configuration; those that learn from the plain student's labels by falling gain."""
    found = gains(study.networks.filter(pl.col("role") != UNTRAINED, status="trained"), "test_accuracy")
    alone = ("teacher", "plain", CONTROL_TEACHER)
    nulls = study.methods.filter("null")["method"].to_list()
    null = found.filter(pl.col("method_label").is_in(nulls))
    noise = max((abs(null[f"gain_{kind}"][0]) for kind in ("min", "max")), default=None) if null.height else None
    cost = costs(study)
    rows = [
        {
            "role": row["role"],
            "student": row["student"],
            "method": row["method_label"],
            "labels": f"{row['label_fraction']:.4g}",
            "seeds": row["seeds"],
            "test accuracy, %": spread(row, "test_accuracy", "{:.1f}", 100),
            "gain, points": "-" if row["role"] in alone else spread(row, "gain", "{:+.1f}", 100),
            "against plain": "-" if row["role"] in alone or row["method_label"] in nulls else against(row, noise),
            **cost.get(row["method_label"], dict.fromkeys(COSTS, "-")),
        }
        for row in found.sort("gain_mean", descending=True, nulls_last=False, maintain_order=True).iter_rows(named=True)
    ]
    frame = pl.DataFrame(rows)
    constant = [name for name in ("student", "labels", *COSTS) if frame[name].n_unique() == 1 and frame.height > 8]
    return markdown(frame.drop(constant))


COSTS = ("time a step", "MACs", "parameters")


def costs(study: Study) -> dict[str, dict[str, str]]:
    """What a student costs next to the plain one: time a step with its teacher's pass, inference MACs and parameters."""
    speed = study.timings.get("training", {})
    first, student = study.networks["seed"].min(), pl.col("role").is_in([*STUDENT_ROLES, CHECKPOINT])
    mine = study.networks.filter(student, status="trained", seed=first).with_columns(label())
    plain = mine.filter(role="plain").row(0, named=True)
    base = _step_seconds(speed.get(plain["network_id"], {}), taught=False)
    found = {}
    for row in mine.iter_rows(named=True):
        own = _step_seconds(speed.get(row["network_id"], {}), taught=row["teacher_id"] is not None)
        found[row["method_label"]] = {
            "time a step": f"{own / base:.1f}x" if own and base else "-",
            "MACs": f"{row['macs'] / plain['macs']:.2f}x",
            "parameters": f"{row['params'] / plain['params']:.2f}x",
        }
    return found


def _step_seconds(speed: dict[str, Any], taught: bool) -> float | None:
    parts = speed.get("seconds_a_step")
    if not parts:
        return None
    return sum(value for name, value in parts.items() if taught or name != "teacher")


def against(row: dict[str, Any], noise: float | None) -> str:
    """In words: every seed on one side, and the mean beyond what another initialisation did at most."""
    low, mean, high = row["gain_min"], row["gain_mean"], row["gain_max"]
    if mean is None:
        return "-"
    beyond = noise is None or abs(mean) > noise
    if low > 0 and beyond:
        return "better"
    if high < 0 and beyond:
        return "worse"
    return "within the null spread" if not beyond else "mixed"


def by_layer(study: Study, measure: str, view: str) -> str:
    """A measure at every layer of the headline's student and budget: plain's value, and gains over it.

    The teacher's value is that of its layer nearest in relative depth.
    """
    chosen = study.record["headline"]
    values = study.frame("layer_measures", measure=measure, view=view)
    layers = study.frame("layers", view=view).select("network_id", "layer", "order", "relative_depth")
    frame = values.join(layers, ["network_id", "layer"]).join(study.networks, "network_id")
    teacher = frame.filter(role="teacher").sort("order")
    mine = frame.filter(student=chosen["student"], budget_id=budget_id(chosen["label_fraction"]))
    rows: dict[str, dict[str, str]] = {"teacher": {"method": "teacher"}}
    for order in sorted(mine["order"].unique()):
        here = mine.filter(order=order)
        depth = here["relative_depth"][0]
        name = f"{here['layer'][0]} (depth {depth:.2f})"
        nearest = teacher.sort((pl.col("relative_depth") - depth).abs().round(5), maintain_order=True)
        rows["teacher"][name] = f"{nearest['value'][0]:.3f}"
        for found in gains(here, "value").iter_rows(named=True):
            plain, label = found["role"] == "plain", found["method_label"]
            row = rows.setdefault(label, {"method": label if plain else f"{label}, gain"})
            row[name] = spread(found, "value", "{:.3f}") if plain else spread(found, "gain", "{:+.3f}")
    return markdown(pl.DataFrame(list(rows.values())))


def known_factors(study: Study) -> str:
    """What known factors explain of layers before and after training, of the headline's student at its first seed."""
    chosen, view = study.record["headline"], study.layers["view"].unique().sort()[0]
    networks = study.networks.filter(student=chosen["student"], seed=study.networks["seed"].min())
    trained = networks.filter(pl.col("role").is_in(STUDENT_ROLES))
    named = dict(trained.select("method_label", "network_id").rows())
    labels = {"untrained": f"{chosen['student']}-untrained", "plain": named["plain"]}
    labels[chosen["method"]] = named[chosen["method"]]
    rows = []
    for label, network_id in labels.items():
        found = study.frame("factors", network_id=network_id, view=view)
        for layer in study.frame("layers", network_id=network_id, view=view).sort("order")["layer"]:
            here = found.filter(layer=layer)
            shares = dict(here.select("factor", "explained").rows())
            whole = here.filter(factor="all").row(0, named=True)
            row = {
                "network": label,
                "layer": layer,
                **{name: f"{shares[name]:.2f}" for name in shares if name != "all"},
            }
            row["share of the layer"] = f"{whole['share_of_layer']:.2f}"
            row["kNN: whole / explained / rest"] = " / ".join(
                f"{whole[f'knn_{part}']:.2f}" for part in ("whole", "explained", "residual")
            )
            rows.append(row)
    return markdown(pl.DataFrame(rows))


def verdicts(study: Study) -> str:
    """Every claim for every comparison: the verdict, and the numbers that it rests on."""
    rows, controls = [], study.verdict_controls
    for row in study.verdicts.iter_rows(named=True):
        form, factor = ("{:+.1f}", 100) if row["claim"] in ("accurate", "beats-teacher") else ("{:+.4f}", 1)
        numbers = [row["estimate"], row["low"], row["high"]]
        effect = [None if number is None else form.format(factor * number) for number in numbers]
        cell = {name: row[name] for name in ("claim", "student", "method_label", "budget_id")}
        held = controls.filter(**cell).unique("control", keep="first", maintain_order=True)
        listed = {
            outcome: ", ".join(held.filter(outcome=outcome)["control"]) or "-" for outcome in (REMAINS, NOT_ASKED)
        }
        rows.append(
            {
                "claim": row["claim"] + (" (primary)" if row["primary"] else ""),
                "method": row["method_label"] or "all",
                "labels": f"{row['label_fraction']:.4g}",
                "seeds": row["seeds"],
                "effect (95 % interval)": "-" if None in effect else f"{effect[0]} ({effect[1]} to {effect[2]})",
                "p, corrected": "-" if row["p_corrected"] is None else f"{row['p_corrected']:.3g}",
                "times the null": _times_the_null(row["null_ratio"]),
                "remains after": listed[REMAINS],
                "not asked": listed[NOT_ASKED],
                "verdict": f"**{full_title(row['verdict'], row['title'], row['controls_not_asked'])}**",
            }
        )
    return markdown(pl.DataFrame(rows))


def _times_the_null(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return f"{ratio:.1f}" if math.isfinite(ratio) else "no null spread"


def tuning(study: Study) -> str:
    """How each method's configuration was chosen, and what explains those that end below plain; empty without tuning."""
    path = STUDIES / f"{study.name}-tuning.csv"
    if not path.exists():
        return ""
    table = pl.read_csv(path)
    further = path.with_name(f"{path.stem}-beyond.csv")
    beyond = dict(pl.read_csv(further).select("method", "val_accuracy").rows()) if further.exists() else {}
    lr = table["base_lr"][0]
    rows, best = [], {}
    for method, mine in table.group_by("method", maintain_order=True):
        settings = [{**json.loads(row["parameters"]), **json.loads(row["training"])} for row in mine.rows(named=True)]
        name = next((key for setting in settings for key in setting), "lr")
        values = [setting.get(name, lr) for setting in settings]
        reached = mine["val_accuracy"].to_list()
        best[method[0]] = max(value for value in reached if value is not None)
        tried = (f"{value:g}: {percent(found)}" for value, found in zip(values, reached, strict=True))
        out = percent(beyond[method[0]]) if method[0] in beyond else "-"
        rows.append({"method": method[0], "varied": name, "tried": "; ".join(tried), "one step further": out})
    plain = table.filter(method="plain", training="{}", parameters="{}")["val_accuracy"][0]
    gained = [name for name, value in beyond.items() if value is not None and value > best[name]]
    below = [name for name, value in best.items() if value < plain and name != "plain"]
    return (
        f"Configurations were chosen by `scripts/tune.py` on validation images ({table['steps'][0]} steps, seed "
        f"{table['seed'][0]}): plain among learning rates, the others among weights of their term at learning rate "
        f"{lr:g}, where plain reaches {percent(plain)}, {percent(best['plain'])} at its own best. So **plain is a strong "
        "opponent here**: a method whose term adds nothing still lags behind it by its smaller learning rate. Below "
        f"plain at learning rate {lr:g} stay {', '.join(below)}: that is, their terms do harm within so few steps. "
        "SimKD has no cross-entropy and learns through a projector that starts from nothing; CRD's contrast and "
        "MLKD's alignment of batch and classes (whose size grows with (batch / classes) squared, with weights published "
        "for 100 classes) come nearer to plain the smaller their weight. Where an end of the range was best, one "
        "configuration further out was tried afterwards (`--beyond`; it chose nothing), and would have been better for "
        f"{', '.join(gained)}: **this compares methods at equal effort, not at each one's best**.\n\n"
        + markdown(pl.DataFrame(rows))
    )


def percent(value: float | None) -> str:
    return "diverged" if value is None else f"{100 * value:.1f} %"


def made(study: Study) -> str:
    """Size, time and hardware."""
    size = sum(path.stat().st_size for path in study.folder.iterdir()) / 1e6
    stages = study.timings.get("stages", {})
    hardware = study.timings.get("hardware", {})
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in stages.items())
    where = hardware.get("accelerator") or f"{hardware.get('threads')} threads of {hardware.get('processor')}"
    total = f"{sum(stages.values()):.0f} s in all"
    shared = "networks that train together count as their whole group, which other studies may share"
    return f"Artifacts: {size:.1f} MB. Wall time by stage on {where}: {seconds}; {total} ({shared})."


def section(study: Study) -> str:
    data = study.record["data"]
    counts = ", ".join(f"{data[split]:,} {name}" for split, name in SPLITS.items())
    facts = f"{data['dataset']}: {counts} images"
    views = study.layers["view"].unique()
    parts = [
        f"## {study.title} (`{study.name}`)",
        f"{facts}; {data['probe']:,} probe images. {data['note']}".strip(),
        accuracies(study),
        *filter(None, [tuning(study)]),
        *(
            (
                "Verdicts ([what they mean](EVIDENCE.md)). Effects are areas between silhouette curves over depth "
                "(*compact*; *earlier* without the last layer) or points of accuracy on the probe images.",
                verdicts(study),
            )
            if study.verdicts.height
            else ()
        ),
        *(
            part
            for measure, view, what in LAYERS
            if view in views
            for part in (f"{what}, by layer of the headline student:", by_layer(study, measure, view))
        ),
        *(
            (
                "Known factors in the headline's networks at the first seed, channel means: how well each is read off "
                "the layer linearly (cross-validated R²), how much of the layer's variance they make up together, and "
                "kNN accuracy on the layer, on that part and on the rest.",
                known_factors(study),
            )
            if study.factors.height
            else ()
        ),
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
