"""A network's card: Markdown with Hugging Face's front matter, every number read from the study's artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from kdpipe.artifacts.store import Study, code_version
from kdpipe.pipeline.delivery.losses import slices_lost
from kdpipe.vocabulary import CHECKPOINT, DISTILLED, LEAST_SEEDS, PLAIN, ROLES

Row = Mapping[str, Any]


def card_text(study: Study, row: Row, files: Sequence[str]) -> str:
    """The card of a network.

    Args:
        row: of the table networks.
        files: sections in Markdown about the files that go with the card, and how to load them.
    """
    sections = [
        _front_matter(study, row),
        f"# {row['network_id']}\n\n{_opening(study, row)}",
        _network(study, row),
        _method(study, row),
        _accuracy(study, row),
        _calibration(study, row),
        slices_lost(study, row),
        _data(study),
        _limitations(study, row),
        *files,
        _origin(study),
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _front_matter(study: Study, row: Row) -> str:
    """What Hugging Face reads. It names no licence: that of the weights is for whoever publishes them to choose."""
    data = study.record["data"]
    results = [
        {"type": "accuracy", "name": "accuracy on the test images, last step", "value": _rounded(row["test_accuracy"])}
    ]
    entry = {
        "name": row["network_id"],
        "results": [
            {
                "task": {"type": "image-classification"},
                "dataset": {"name": data["dataset"], "type": study.record["study"]["data"]["dataset"]},
                "metrics": results,
            }
        ],
    }
    fields: dict[str, Any] = {
        "library_name": "kdpipe",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "knowledge-distillation", "kdpipe", row["method"], row["arch"]],
        **({"model-index": [entry]} if row["test_accuracy"] is not None else {}),
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]  # YAML reads JSON
    return "\n".join(["---", *lines, "---"])


def _opening(study: Study, row: Row) -> str:
    taught = f" Its teacher was `{row['teacher_id']}`, which is not needed to use it." if row["teacher_id"] else ""
    return (
        f"A `{row['arch']}` for images of {len(study.record['data']['class_names'])} classes; in its study it is "
        f"{_article(row['role'])} network: {ROLES[row['role']]}.{taught}"
    )


def _article(role: str) -> str:
    return f"{'an' if role[0] in 'aeiou' else 'a'} *{role}*"


# ------------------------------------------------------------------------------- what it is and how it came about


def _network(study: Study, row: Row) -> str:
    channels, height, width = study.record["data"]["image_shape"]
    takes = f"images of {height} x {width} pixels and {channels} {'channel' if channels == 1 else 'channels'}"
    return (
        "## Network\n\n"
        f"- Architecture: `{row['arch']}`, {_settings(row['arch_arguments'])}\n"
        f"- Size: {_size(study, row)}\n"
        f"- Takes: {takes}\n"
        f"- Answers: logits, in this order: {', '.join(study.record['data']['class_names'])}"
    )


def _size(study: Study, row: Row) -> str:
    size = f"{row['params']:,} parameters, {row['macs']:,} multiply-accumulates an image"
    teacher = _teacher(study, row)
    if teacher is None or row["network_id"] == teacher["network_id"]:
        return size
    size += f"; its teacher has {teacher['params'] / row['params']:.3g} times as many parameters"
    return size + (
        f" and {teacher['macs'] / row['macs']:.3g} times as many multiply-accumulates" if row["macs"] else ""
    )


def _settings(text: str) -> str:
    """A JSON object's fields that say something: ``channels = [8, 8]``."""
    found: dict[str, Any] = json.loads(text)
    flat = {**found.pop("arguments", {}), **found}
    if flat.get("stem") == "default":
        flat = {name: value for name, value in flat.items() if name not in ("stem", "stem_stride")}
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in flat.items()) or "timm's own settings"


def _method(study: Study, row: Row) -> str:
    lines = []
    known = study.frame("methods", method=row["method"]).rows(named=True)
    if known:
        method = known[0]
        lines.append(f"- Method: {method['title']} (`{row['method']}`). {method['summary']}")
        lines += [f"- Loss, with the default parameters: {method['formula']}"] if method["formula"] else []
        lines += [f"- Source: {method['citation']}"] if method["citation"] else []
    else:
        lines.append(f"- Method: `{row['method']}`")
    if parameters := json.loads(row["method_parameters"]):
        lines.append(f"- Parameters: {_named(parameters)}")
    teacher = _teacher(study, row)
    if row["teacher_id"] and teacher is not None:
        labels = row["teacher_label_fraction"]
        share = "" if labels is None else f", with {_percent(labels)} of the training labels"
        lines.append(
            f"- Teacher: `{teacher['network_id']}`, a `{teacher['arch']}`{share}; test accuracy "
            f"{_percent(teacher['test_accuracy'])}"
        )
    lines.append(f"- Trained on: {_trained_on(row)}")
    if training := study.record["study"].get("training"):
        settings = {**training, **json.loads(row["training"])}
        shown = {name: settings[name] for name in _TRAINING if settings.get(name) is not None}
        lines.append(f"- Training: {_named(shown)}")
    lines.append(
        f"- Seeds: {row['seed']} in the study; initial weights {row['init_seed']}, batches {row['data_seed']}, "
        f"labelled images {row['label_seed']}"
    )
    return "## How it was trained\n\n" + "\n".join(lines)


def _trained_on(row: Row) -> str:
    if not row["labelled_images"]:
        return "nothing in this study, which took it as it was"
    images = f"{row['labelled_images']:,} labelled images, {_percent(row['label_fraction'])} of the training labels"
    return f"{images}{', and unlabelled ones for the method' if row['unlabelled'] else ''}"


_TRAINING = ("steps", "batch_size", "lr", "schedule", "weight_decay", "momentum")


def _named(values: Row) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())


# ------------------------------------------------------------------------------- how good it is


def _accuracy(study: Study, row: Row) -> str:
    if row["test_accuracy"] is None:
        return "## Accuracy\n\nThe study does not know how often this network is right."
    lines = ["| network | last step | best validation step |", "|---|--:|--:|"]
    for name, one in _compared(study, row):
        best = one["selected_test_accuracy"]
        step = "" if best is None else f"{_percent(best)} (step {one['selected_step']})"
        lines.append(f"| {name} | {_percent(one['test_accuracy'])} | {step or '–'} |")
    text = (
        f"## Accuracy\n\nOn {study.record['data']['test']:,} test images. The files hold the last step's weights.\n\n"
    )
    return text + "\n".join(lines) + _spread(study, row)


def _spread(study: Study, row: Row) -> str:
    """The same method at the study's other seeds, so that a lucky one is seen."""
    alike = study.networks.filter(
        pl.col("role") == row["role"],
        pl.col("student") == row["student"],
        pl.col("method_label") == row["method_label"],
        pl.col("budget_id") == row["budget_id"],
        pl.col("test_accuracy").is_not_null(),
    )["test_accuracy"]
    if len(alike) < 2:
        return "\n\nOne seed alone: how far another would lie from it, the study does not know."
    low, high = float(alike.min()), float(alike.max())  # type: ignore[arg-type]
    return f"\n\nOver the study's {len(alike)} seeds of this method: {_percent(low)} to {_percent(high)}, mean " + (
        f"{_percent(float(alike.mean()))}."  # type: ignore[arg-type]
    )


def _calibration(study: Study, row: Row) -> str:
    measures = study.frame("measures").filter(pl.col("measure").str.starts_with("ece"))
    values = study.frame("network_measures").filter(pl.col("measure").str.starts_with("ece"))
    names = values.filter(network_id=row["network_id"])["measure"].to_list()
    if not names:
        return ""
    titles = dict(measures.select("measure", "title").iter_rows())
    lines = [
        f"| network | {' | '.join(str(titles.get(name, name)) for name in names)} |",
        "|---|" + "--:|" * len(names),
    ]
    for who, one in _compared(study, row):
        own = dict(values.filter(network_id=one["network_id"]).select("measure", "value").iter_rows())
        lines.append(f"| {who} | {' | '.join(f'{own[name]:.3f}' if name in own else '–' for name in names)} |")
    after = ""
    if names == ["ece"]:
        after = " Its logits are as trained: the study has fitted no temperature, so there is no error after one."
    text = f"Expected calibration error on {study.record['data']['probe']:,} probe images, of 0 to 1, lower is better."
    return f"## Calibration\n\n{text}{after}\n\n" + "\n".join(lines) + _leaning(study, row)


def _leaning(study: Study, row: Row) -> str:
    bins = study.frame("calibration", who="student", student=row["student"], method_label=row["method_label"])
    bins = bins.filter(budget_id=row["budget_id"], seed=row["seed"])
    if not bins.height or row["role"] == CHECKPOINT:
        return ""
    gap = float(bins.select(((pl.col("confidence") - pl.col("accuracy")) * pl.col("share")).sum()).item())
    if abs(gap) < 0.005:
        return "\n\nOn average it is as sure as it is right."
    return f"\n\nOn average it is {100 * abs(gap):.1f} points {'surer' if gap > 0 else 'less sure'} than it is right."


def _compared(study: Study, row: Row) -> Iterator[tuple[str, Row]]:
    """The network itself, the plain student of its seed, and its teacher."""
    yield "**this network**", row
    if row["role"] != PLAIN:
        plain = study.networks.filter(role=PLAIN, student=row["student"], budget_id=row["budget_id"], seed=row["seed"])
        if plain.height:
            yield "the same student without distillation", plain.row(0, named=True)
    teacher = _teacher(study, row)
    if teacher is not None and teacher["network_id"] != row["network_id"]:
        yield "its teacher" if row["teacher_id"] else "the study's teacher", teacher


def _teacher(study: Study, row: Row) -> Row | None:
    """Its own teacher; of a network without one, the study's."""
    networks = study.networks
    own = networks.filter(network_id=row["teacher_id"]) if row["teacher_id"] else networks.filter(role="teacher")
    return own.row(0, named=True) if own.height else None


# ------------------------------------------------------------------------------- what it rests on


def _data(study: Study) -> str:
    data = study.record["data"]
    counts = f"{data['train']:,} training, {data['validation']:,} validation and {data['test']:,} test images"
    note = f"\n- Note: {data['note']}" if data["note"] else ""
    return (
        f"## Data\n\n- {data['dataset']}: {counts}\n- Licence of the data: {data['licence']}\n"
        f"- sha256 of the data: `{data['sha256']}`{note}"
    )


def _limitations(study: Study, row: Row) -> str:
    data, lines = study.record["data"], []
    lines.append(
        f"It knows {len(data['class_names'])} classes and answers one of them to every image, whatever it shows. No "
        "image of another source than the data above was tried."
    )
    lines.append(
        f"Calibration and slices rest on {data['probe']:,} of the {data['test']:,} test images: small slices are noisy."
    )
    seeds = study.networks.filter(
        role=row["role"], student=row["student"], method_label=row["method_label"], budget_id=row["budget_id"]
    )["seed"].n_unique()
    if row["role"] == DISTILLED and seeds < LEAST_SEEDS:
        lines.append(
            f"The study has {seeds} {'seed' if seeds == 1 else 'seeds'} of this method; it takes {LEAST_SEEDS} before "
            "kdpipe says that a method helps."
        )
    if row["labelled_images"] and row["label_fraction"] < 1:
        lines.append(f"It was trained with {_percent(row['label_fraction'])} of the labels that there are.")
    lines.append("The licence of these weights is for whoever publishes them to choose; the data's stands above.")
    return "## Limitations\n\n" + "\n".join(f"- {line}" for line in lines)


def _origin(study: Study) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in study.record["versions"].items())
    lines = [
        f"- Study: {study.title} (`{study.name}`, run `{study.hash}`)",
        f"- Written by: kdpipe {code_version(study.record)}",
        f"- Versions: {versions}",
    ]
    return "## Where these numbers come from\n\nEvery number was read from the study's artifacts.\n\n" + "\n".join(
        lines
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.4g} %"


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)
