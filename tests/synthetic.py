"""A small made-up study with the structure of a real one, written through the real store.

Nothing is trained: accuracies, maps and measures are drawn from a seeded generator, so that the app
can be tested in seconds without torch. Classes separate with depth, sooner in distilled networks, so
the pages have something to show.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import write_study
from kdpipe.config.sections import EvidenceSpec
from kdpipe.pipeline.conclusions import conclusions
from kdpipe.vocabulary import FACTORS, TEACHER, UNTRAINED, budget_id

LAYERS = ("layer1", "layer2", "layer3", "layer4")
TITLES = {
    "plain": "Plain student",
    "second-seed": "Plain, second initialisation",
    "random-teacher": "KD from an untrained teacher",
    "own-budget-teacher": "KD from a teacher with the student's labels",
    "fitnet": "FitNet hints",
}
EXPLAIN = ("label-smoothing", "random-teacher")
ADVANCE = {"teacher": 0.25, "plain": 0.0, "distilled": 0.15, "control": 0.0, "checkpoint": -0.1}
ADVANCE |= {"untrained": -0.6, "control-teacher": 0.0}
RIGHTS = {True: "right", False: "wrong"}


@dataclass(frozen=True)
class Recipe:
    """What the made-up study consists of."""

    name: str = "toy"
    samples: int = 120
    classes: int = 10
    seeds: Sequence[int] = (0, 1, 2)
    fractions: Sequence[float] = (0.1, 1.0)
    methods: Sequence[str] = ("kd", "rkd")
    controls: Mapping[str, str] = field(default_factory=lambda: {"second-seed": "second-seed"})  # label: method
    checkpoints: Sequence[int] = ()  # steps at which plain students are looked at too
    other_teachers: bool = False
    baselines: bool = True
    second_student: bool = False  # every student again, twice as dear and a little better
    student_layers: Sequence[str] = LAYERS
    maps: bool = True
    diverged: bool = True
    image_side: int = 8
    views: Sequence[str] = ("gap", "projection")
    map_view: str = "projection"
    projectors: Sequence[str] = ("tsne", "ivis", "pca")
    all_diverged: bool = False
    lost: Sequence[tuple[str, int]] = ()  # (method label, seed) that diverged on the first budget
    missing: Mapping[str, str] = field(default_factory=dict)
    note: str = "Probe images are drawn from the test set."


def write_toy_study(root: Path, recipe: Recipe = Recipe()) -> Path:
    """Write the study into ``root/<name>`` and return that folder."""
    networks = _networks(recipe)
    samples = _samples(recipe)
    frames = {
        "networks": networks,
        "samples": samples,
        "methods": _methods(recipe),
        "measures": _measures(),
        "history": _history(networks),
        **_layer_tables(recipe, networks, samples),
    }
    frames = {name: _typed(name, frame) for name, frame in frames.items()}
    frames |= conclusions(frames, _record(recipe))
    timings = {"stages": {"train": 12.5, "maps": 3.0}, "hardware": {"cpu": "made up"}, "training": _speeds(networks)}
    write_study(root / recipe.name, _record(recipe), frames, timings)
    return root / recipe.name


def _speeds(networks: pl.DataFrame) -> dict[str, Any]:
    """Seeds trained together, each network with its share; as an older version wrote it for the second seed."""
    speeds: dict[str, Any] = {}
    students = networks.filter(pl.col("role").is_in(["teacher", "plain", "distilled", "control", "control-teacher"]))
    for row in students.to_dicts():
        together = 1 if row["student"] == "teacher" else 4
        took = 10.0 + row["seed"] + together
        speed = {"seconds": took, "steps": 200, "students_together": together, "images_per_second": 12800 / took}
        speed |= {"processor": "made up", "accelerator": None, "cores": 2, "threads": 1, "half": False}
        if row["seed"] != 1:
            parts = {"data": 0.001, "teacher": 0.004, "student": 0.01, "loss": 0.001 + 0.002 * (row["role"] != "plain")}
            speed |= {"seconds_a_step": parts, "shares": {"data": 0.05, "teacher": 0.15, "student": 0.7, "loss": 0.1}}
        speeds[row["network_id"]] = speed
    return speeds


def _typed(name: str, frame: pl.DataFrame) -> pl.DataFrame:
    schema = TABLES[name].schema
    return frame.select(pl.col(column).cast(dtype) for column, dtype in schema.items())


def _record(recipe: Recipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "title": f"Made-up study {recipe.name}",
        "description": "A **made-up** study: numbers are drawn, nothing was trained.",
        "study_hash": hashlib.sha256(str(recipe).encode()).hexdigest()[:16],
        "study": {
            "name": recipe.name,
            "seeds": list(recipe.seeds),
            "evidence": EvidenceSpec(resamples=200).model_dump(mode="json"),
            "measures": {"k": 20, "second_k": 5},
        },
        "versions": {"kdpipe": "0.1.0", "torch": "2.14"},
        "data": {
            "dataset": "made-up digits",
            "licence": "CC0",
            "note": recipe.note,
            "sha256": "0" * 64,
            "class_names": _class_names(recipe),
            "image_shape": [1, recipe.image_side, recipe.image_side],
            "train": 1000,
            "validation": 100,
            "test": 500,
            "probe": recipe.samples,
        },
        "headline": {
            "student": "small",
            "method": recipe.methods[0] if recipe.methods else "plain",
            "label_fraction": recipe.fractions[0],
        },
        "missing": dict(recipe.missing),
    }


def _class_names(recipe: Recipe) -> list[str]:
    return [str(index) if recipe.classes <= 10 else f"class {index}" for index in range(recipe.classes)]


# ------------------------------------------------------------------------------------- networks


def _networks(recipe: Recipe) -> pl.DataFrame:
    rows = [_network(recipe, "teacher", "supervised", "supervised", 1.0, 0, accuracy=0.97)]
    if recipe.other_teachers:
        rows.append(_other_teacher(rows[0], "teacher-untrained", "untrained", 0.0, 0, 0.1))
        of = [(fraction, seed) for fraction in recipe.fractions for seed in recipe.seeds]
        rows += [_other_teacher(rows[0], f"teacher-l{f:g}-s{seed}", "supervised", f, seed, 0.9) for f, seed in of]
    for fraction in recipe.fractions:
        base = 0.75 + 0.15 * fraction
        for seed in recipe.seeds:
            jitter = 0.01 * np.sin(7 * seed + 10 * fraction)
            plain = _network(recipe, "plain", "plain", "plain", fraction, seed, base + jitter)
            rows.append(plain)
            rows += [_checkpoint(plain, step) for step in recipe.checkpoints]
            for label, method in recipe.controls.items():
                accuracy = 0.2 if method == "random-teacher" else base - jitter
                rows.append(_network(recipe, "control", method, label, fraction, seed, accuracy))
            for step, method in enumerate(recipe.methods):
                accuracy = base + 0.06 - 0.08 * step / len(recipe.methods) + jitter + 0.002 * np.sin(5 * seed + step)
                rows.append(_network(recipe, "distilled", method, method, fraction, seed, accuracy))
    if recipe.baselines:
        first = {**rows[0], "role": UNTRAINED, "mapped": False, "label_fraction": 0.0, "test_accuracy": 0.1}
        first["budget_id"] = budget_id(0)
        untrained = {"network_id": "small-untrained", "student": "small", "method": "untrained"}
        pixels = {"network_id": "pixels", "student": "pixels", "arch": "pixels", "method": "pixels"}
        rows.append({**first, **untrained, "method_label": "plain-untrained"})
        rows.append({**first, **pixels, "method_label": "pixels", "test_accuracy": None, "params": 0, "macs": 0})
    if recipe.second_student:
        rows += [_larger(row) for row in rows if row["student"] == "small" and row["role"] != UNTRAINED]
    if recipe.all_diverged:
        rows = [_diverged(row) if row["role"] not in (TEACHER, UNTRAINED) else row for row in rows]
        return pl.DataFrame(rows, infer_schema_length=None)
    lost = {(label, seed, recipe.fractions[0]) for label, seed in recipe.lost}
    rows = [_diverged(r) if (r["method_label"], r["seed"], r["label_fraction"]) in lost else r for r in rows]
    if recipe.diverged:
        rows.append(_network(recipe, "distilled", recipe.methods[0], recipe.methods[0], recipe.fractions[0], 99, None))
    return pl.DataFrame(rows, infer_schema_length=None)


def _larger(row: dict[str, Any]) -> dict[str, Any]:
    names = ("network_id", "checkpoint_of")
    name: dict[str, Any] = {one: row[one] and row[one].replace("small", "large", 1) for one in names}
    name |= {"student": "large", "mapped": False}
    size = {"arch": "resnet18", "params": 2 * row["params"], "macs": 2 * row["macs"]}
    return {**row, **name, **size, "test_accuracy": row["test_accuracy"] + 0.01}


def _diverged(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: None for name in row if name.endswith("accuracy") or name == "selected_step"}
    return {**row, **numbers, "status": "diverged", "diverged_step": 31, "mapped": False}


def _checkpoint(plain: dict[str, Any], step: int) -> dict[str, Any]:
    accuracy = plain["test_accuracy"] * (1 - float(np.exp(-step / 40)))
    name = {"network_id": f"{plain['network_id']}-at{step}", "checkpoint_of": plain["network_id"]}
    now = {"checkpoint_step": step, "val_accuracy": accuracy, "test_accuracy": accuracy, "mapped": False}
    return {**plain, **name, **now, "role": "checkpoint"}


def _other_teacher(
    teacher: dict[str, Any], network_id: str, method: str, fraction: float, seed: int, accuracy: float
) -> dict[str, Any]:
    name = {"network_id": network_id, "role": "control-teacher", "method": method, "method_label": method}
    now = {"label_fraction": fraction, "seed": seed, "test_accuracy": accuracy, "mapped": False}
    return {**teacher, **name, **now, "budget_id": budget_id(fraction)}


def _network(
    recipe: Recipe, role: str, method: str, label: str, fraction: float, seed: int, accuracy: float | None
) -> dict[str, Any]:
    teacher = role == "teacher"
    first, second = recipe.seeds[0], recipe.seeds[:2][-1]
    mapped = recipe.maps and accuracy is not None and (teacher or seed == first or (role == "plain" and seed == second))
    return {
        "network_id": "teacher" if teacher else f"small-{label}-f{fraction:g}-s{seed}",
        "role": role,
        "student": "teacher" if teacher else "small",
        "arch": "resnet18" if teacher else "resnet10t",
        "arch_arguments": "{}",
        "method": method,
        "method_label": label,
        "method_parameters": json.dumps({"temperature": 4.0} if method == "kd" else {}),
        "training": "{}",
        "teacher_id": "teacher" if role == "distilled" else None,
        "teacher_label_fraction": 1.0 if role == "distilled" else None,
        "budget_id": budget_id(fraction),
        "label_fraction": fraction,
        "labelled_images": int(1000 * fraction),
        "unlabelled": role == "distilled",
        "seed": seed,
        "init_seed": seed + 1000 * (role == "control"),
        "data_seed": seed,
        "label_seed": seed,
        "checkpoint_of": None,
        "checkpoint_step": 200,
        "params": 11_000_000 if teacher else 1_200_000,
        "macs": 40_000_000 if teacher else 6_000_000,
        "mapped": mapped,
        "status": "trained" if accuracy is not None else "diverged",
        "diverged_step": None if accuracy is not None else 31,
        "val_accuracy": accuracy,
        "test_accuracy": accuracy,
        "selected_step": None if accuracy is None else 180,
        "selected_val_accuracy": accuracy,
        "selected_test_accuracy": accuracy,
    }


def _history(networks: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for network in networks.iter_rows(named=True):
        terms = ["loss", "loss/cross_entropy"] + (["loss/kd"] if network["role"] == "distilled" else [])
        last = network["diverged_step"] or 200
        for step in range(20, last + 1, 20):
            decay = float(np.exp(-step / 80))
            rows += [(network["network_id"], step, term, decay * (1.5 - 0.4 * i)) for i, term in enumerate(terms)]
            rows.append((network["network_id"], step, "lr", 0.1 * (1 - step / 220)))
            if network["val_accuracy"] is not None:
                rows.append((network["network_id"], step, "val_accuracy", network["val_accuracy"] * (1 - decay)))
    return pl.DataFrame(rows, schema=["network_id", "step", "quantity", "value"], orient="row")


def _methods(recipe: Recipe) -> pl.DataFrame:
    names = list({"plain": 0, **dict.fromkeys(recipe.controls.values()), **dict.fromkeys(recipe.methods)})
    return pl.DataFrame(
        {
            "method": names,
            "title": [TITLES.get(name, name.upper() if len(name) < 4 else name.capitalize()) for name in names],
            "formula": [f"L = {name}" for name in names],
            "summary": [f"Made-up words about {name}." for name in names],
            "citation": ["Nobody (2024)"] * len(names),
            "defaults": ["{}"] * len(names),
            "role": [_role(recipe, name) for name in names],
            "explains": ["instead" if name in EXPLAIN else None for name in names],
            "control_of": [None] * len(names),
            "null": [name == "second-seed" for name in names],
        },
        schema_overrides={"explains": pl.String, "control_of": pl.String},
    )


def _role(recipe: Recipe, method: str) -> str:
    return "plain" if method == "plain" else "distilled" if method in recipe.methods else "control"


def _measures() -> pl.DataFrame:
    rows = [
        ("silhouette", "layer", "Silhouette", "How much closer a class is to itself.", -1.0, 1.0),
        ("knn_accuracy", "layer", "kNN accuracy", "Do the nearest images share the class?", 0.0, 1.0),
        ("dark_knowledge", "layer", "Dark knowledge", "Are classes near that the teacher finds alike?", -1.0, 1.0),
        ("trustworthiness", "map", "Trustworthiness", "Are neighbours on the map true ones?", 0.0, 1.0),
        ("continuity", "map", "Continuity", "Are true neighbours near on the map?", 0.0, 1.0),
        ("knn_recall", "map", "Neighbours kept", "Share of true neighbours kept.", 0.0, 1.0),
        ("cka", "pair", "CKA", "How alike two layers order the images.", None, 1.0),
        ("mutual_knn", "pair", "Shared neighbours", "Share of nearest images that two layers agree on.", 0.0, 1.0),
    ]
    return pl.DataFrame(
        [(*row[:4], "Nobody (2024)", "higher", *row[4:], "known", "N d") for row in rows],
        schema=["measure", "of", "title", "summary", "citation", "direction", "low", "high", "chance", "cost"],
        orient="row",
    )


# --------------------------------------------------------------------------------------- samples


def _samples(recipe: Recipe) -> pl.DataFrame:
    names = _class_names(recipe)
    labels = [index % recipe.classes for index in range(recipe.samples)]
    return pl.DataFrame(
        {
            "sample_id": list(range(recipe.samples)),
            "label": labels,
            "class_name": [names[label] for label in labels],
            "display_rank": list(range(recipe.samples)),
            "image": [_webp(index, label, recipe.image_side) for index, label in enumerate(labels)],
            **{name: np.random.default_rng(1).random(recipe.samples) for name in FACTORS},
        }
    )


def _webp(index: int, label: int, side: int) -> bytes:
    """A bright bar whose place tells the class, under noise that tells the image."""
    pixels = np.random.default_rng(index).integers(0, 60, (side, side), dtype=np.uint8)
    pixels[:, label * side // 10 % side] = 230
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------- layers


def _layer_tables(recipe: Recipe, networks: pl.DataFrame, samples: pl.DataFrame) -> dict[str, pl.DataFrame]:
    parts: dict[str, list[pl.DataFrame]] = {}
    rng = np.random.default_rng(0)
    for network in networks.filter(pl.col("status") == "trained").iter_rows(named=True):
        pixels = network["student"] == "pixels"
        if not pixels:
            for name, frame in _of_network(recipe, network, samples, rng).items():
                parts.setdefault(name, []).append(frame)
        layers = LAYERS if network["student"] == "teacher" else tuple(recipe.student_layers)
        layers = ("pixels",) if pixels else layers
        for order, layer in enumerate(layers):
            depth = order / max(len(layers) - 1, 1)
            signal = 0.15 + 0.75 * min(depth + ADVANCE[network["role"]], 1.0)
            for view in recipe.views:
                on = {"network_id": network["network_id"], "layer": layer, "view": view}
                for name, frame in _one_layer(recipe, on, order, depth, signal, samples, rng).items():
                    parts.setdefault(name, []).append(frame)
                if network["mapped"]:
                    points = _points(samples, signal, rng)
                    parts.setdefault("neighbours", []).append(_neighbours(on, samples, points))
                    if view == recipe.map_view:
                        for name, frame in _maps(recipe, on, samples, points, signal, rng).items():
                            parts.setdefault(name, []).append(frame)
    tables = {name: pl.concat(frames) for name, frames in parts.items()}
    tables["similarity"] = _similarity(networks, recipe)
    tables |= _flips(networks, samples, tables["predictions"])
    for name in ("maps", "map_measures", "neighbours", "neighbour_credit", "explanations", "answers"):
        tables.setdefault(name, TABLES[name].schema.to_frame())
    return tables


def _of_network(
    recipe: Recipe, network: dict[str, Any], samples: pl.DataFrame, rng: np.random.Generator
) -> dict[str, pl.DataFrame]:
    """What a network has once: answers, their measures, and heat-maps."""
    who = {"network_id": network["network_id"]}
    numbers = {"ece": 0.05, "prediction_depth": 0.4, "vote_entropy": 0.3}
    heat = rng.integers(0, 256, (samples.height, 4, 4), dtype=np.uint8)
    shown = {"class_index": samples["label"], "side": [4] * samples.height, "heatmap": [h.tobytes() for h in heat]}
    found = {
        "predictions": _predictions(recipe, network, samples, rng),
        "network_measures": pl.DataFrame(
            [{**who, "measure": n, "value": v, "chance": None} for n, v in numbers.items()]
        ),
    }
    if network["mapped"]:
        explained = pl.DataFrame({"sample_id": samples["sample_id"], "cosine": rng.random(samples.height), **shown})
        found["explanations"] = explained.with_columns(pl.lit(who["network_id"]).alias("network_id"))
    if network["role"] in ("distilled", "control") and network["student"] != "teacher":
        shares = {"churn": 0.1, "kappa": 0.85, "fixed": 0.06, "broken": 0.02}
        rows = [{**who, "other_id": "teacher", "measure": n, "value": v, "chance": None} for n, v in shares.items()]
        found["answers"] = pl.DataFrame(rows)
    return found


def _predictions(
    recipe: Recipe, network: dict[str, Any], samples: pl.DataFrame, rng: np.random.Generator
) -> pl.DataFrame:
    labels = samples["label"].to_numpy()
    right = rng.random(len(labels)) < network["test_accuracy"]
    others = (labels + 1 + rng.integers(0, recipe.classes - 1, len(labels))) % recipe.classes
    predicted = np.where(right, labels, others)
    logits = rng.normal(0, 0.1, (len(labels), recipe.classes))
    logits[np.arange(len(labels)), predicted] += 4
    confidence = np.exp(logits).max(1) / np.exp(logits).sum(1)
    margin = logits[np.arange(len(labels)), labels] - np.where(right, 0.1, 4)
    return pl.DataFrame(
        {
            "network_id": [network["network_id"]] * len(labels),
            "sample_id": samples["sample_id"],
            "predicted": predicted,
            "confidence": confidence,
            "margin": margin,
            "correct": predicted == labels,
            "prediction_depth": rng.integers(0, min(4, len(recipe.student_layers)), len(labels)),
            "vote_entropy": rng.random(len(labels)),
            "logits": logits.tolist(),
        }
    )


def _one_layer(
    recipe: Recipe,
    on: dict[str, str],
    order: int,
    depth: float,
    signal: float,
    samples: pl.DataFrame,
    rng: np.random.Generator,
) -> dict[str, pl.DataFrame]:
    rows = samples.height
    layer = {**on, "order": order, "relative_depth": depth, "mac_share": depth, "shape": [16, 4, 4], "dim": 256}
    values = {"silhouette": signal - 0.3 + rng.normal(0, 0.02), "knn_accuracy": signal + rng.normal(0, 0.02)}
    chance = {"silhouette": 0.0, "knn_accuracy": 1 / recipe.classes, "dark_knowledge": 0.0}
    measured = [
        {**on, "measure": name, "value": value, "low": value - 0.03, "high": value + 0.03}
        | {"interval_over": "probe images", "chance": chance[name]}
        for name, value in {**values, "dark_knowledge": 0.8 * signal}.items()
    ]
    by_class = [
        {**on, "measure": name, "label": label, "value": value + rng.normal(0, 0.05)}
        for name, value in values.items()
        for label in range(recipe.classes)
    ]
    vote = samples["label"].to_numpy()
    explained = [
        {**on, "factor": name, "explained": 0.8 * (1 - depth), "residual": -0.001, "chance": -0.01}
        | dict.fromkeys(
            ("share_of_layer", "knn_explained", "knn_residual", "knn_whole"), signal if name == "all" else None
        )
        for name in (*FACTORS, "all")
    ]
    taught = {"neighbour_credit": _credit(on, samples, rng)} if "plain" not in on["network_id"] else {}
    return {
        **(taught if on["network_id"].startswith("small-") and "untrained" not in on["network_id"] else {}),
        "factors": pl.DataFrame(explained, infer_schema_length=None),
        "layers": pl.DataFrame([layer]),
        "layer_measures": pl.DataFrame(measured),
        "class_measures": pl.DataFrame(by_class),
        "sample_measures": pl.DataFrame(
            {"sample_id": samples["sample_id"], "silhouette": rng.normal(signal - 0.3, 0.1, rows), "knn_vote": vote}
        ).with_columns(
            knn_correct=True,
            knn_correct_second=True,
            silhouette_standardised=pl.col("silhouette") - 0.02,
            knn_correct_standardised=True,
            **{name: pl.lit(value) for name, value in on.items()},
        ),
    }


def _flips(networks: pl.DataFrame, samples: pl.DataFrame, predictions: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """What became of each image, counted from the predictions that the study has."""
    answers = samples.select("sample_id", "label").join(predictions, "sample_id")
    said = {name[0]: frame for name, frame in answers.partition_by("network_id", as_dict=True).items()}
    students = networks.filter(pl.col("role").is_in(["distilled", "control"]), student="small", status="trained")
    images = [_images(trio, said) for trio in _trios(networks, students) if set(trio) <= said.keys()]
    if not images:
        return {name: TABLES[name].schema.to_frame() for name in ("flips", "sample_flips")}
    together = pl.concat(images)
    keys = ["network_id", "plain_id", "teacher_id"]
    ledgers = [_counted(group, None) for _, group in together.group_by(keys, maintain_order=True)]
    ledgers += [
        _counted(group, label) for (*_, label), group in together.group_by([*keys, "label"], maintain_order=True)
    ]
    return {"flips": pl.DataFrame(ledgers, infer_schema_length=None), "sample_flips": together}


def _trios(networks: pl.DataFrame, students: pl.DataFrame) -> list[tuple[str, str, str]]:
    plain = {(r["label_fraction"], r["seed"]): r["network_id"] for r in networks.filter(role="plain").to_dicts()}
    return [
        (row["network_id"], plain.get((row["label_fraction"], row["seed"]), ""), row["teacher_id"] or "teacher")
        for row in students.to_dicts()
    ]


def _images(trio: tuple[str, str, str], said: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    own, plain, teacher = (said[name].sort("sample_id") for name in trio)
    shared = (own["predicted"] == teacher["predicted"]) & ~teacher["correct"]
    names = {(True, True): "kept", (False, True): "fixed", (True, False): "broken", (False, False): "wrong"}
    return own.select("sample_id", "label").with_columns(
        **{name: pl.lit(value) for name, value in zip(("network_id", "plain_id", "teacher_id"), trio, strict=True)},
        outcome=pl.Series([names[pair] for pair in zip(plain["correct"], own["correct"], strict=True)]),
        teacher_correct=teacher["correct"],
        inherited=shared & (plain["predicted"] != teacher["predicted"]),
        same_error=shared,
        plain_same_error=(plain["predicted"] == teacher["predicted"]) & ~teacher["correct"],
        rights=pl.Series(
            [
                "_".join(RIGHTS[right] for right in rights)
                for rights in zip(teacher["correct"], plain["correct"], own["correct"], strict=True)
            ]
        ),
    )


def _counted(images: pl.DataFrame, label: int | None) -> dict[str, Any]:
    known = images.select("network_id", "plain_id", "teacher_id").row(0, named=True)
    names = [name for name in TABLES["flips"].columns if "_" in name and set(name.split("_")) <= set(RIGHTS.values())]
    outcomes = {name: int((images["outcome"] == name).sum()) for name in ("fixed", "broken")}
    shared = {name: int(images[name].sum()) for name in ("inherited", "same_error", "plain_same_error")}
    counts = {name: int((images["rights"] == name).sum()) for name in names}
    changed, fewer = sum(outcomes.values()), min(outcomes.values())
    tail = sum(comb(changed, few) for few in range(fewer + 1)) / 2**changed
    found = {"images": images.height, **counts, **outcomes, **shared, "p_value": min(1.0, 2 * tail)}
    return {**known, "label": label, **found}


def _credit(on: dict[str, str], samples: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    counts = {"kept": 6, "gained": 3, "lost": 2, "invented": 3}
    columns = {
        f"{kind}_{whose}": rng.integers(0, most + 1, samples.height)
        for kind, most in counts.items()
        for whose in ("same", "other")
    }
    frame = pl.DataFrame({"sample_id": samples["sample_id"], **columns}).with_columns(
        plain_id=pl.lit("small-plain-f0.1-s0")
    )
    return frame.with_columns(**{name: pl.lit(value) for name, value in on.items()})


def _points(samples: pl.DataFrame, signal: float, rng: np.random.Generator) -> np.ndarray:
    """Class centres on a circle, nearer to each other where the layer tells classes apart less."""
    angle = 2 * np.pi * samples["label"].to_numpy() / 10
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 10 * signal
    return centres + rng.normal(0, 2.5 - signal, (samples.height, 2))


def _neighbours(on: dict[str, str], samples: pl.DataFrame, points: np.ndarray) -> pl.DataFrame:
    distance = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    ids = np.argsort(distance, axis=1)[:, :15].astype(np.uint16)
    frame = pl.DataFrame({"sample_id": samples["sample_id"], "ids": ids.tolist()})
    return frame.with_columns(pl.col("ids").cast(pl.List(pl.UInt16())), *(pl.lit(v).alias(k) for k, v in on.items()))


def _maps(
    recipe: Recipe,
    on: dict[str, str],
    samples: pl.DataFrame,
    points: np.ndarray,
    signal: float,
    rng: np.random.Generator,
) -> dict[str, pl.DataFrame]:
    maps, scores = [], []
    for projector in recipe.projectors:
        perplexity = 30.0 if projector == "tsne" else None
        shaken = points + rng.normal(0, 0.4, points.shape)
        of = {**on, "projector": projector, "layout": "independent", "perplexity": perplexity, "map_seed": 0}
        literals = [pl.lit(v, dtype=TABLES["maps"].columns[k].dtype).alias(k) for k, v in of.items()]
        maps.append(
            pl.DataFrame(
                {
                    "sample_id": samples["sample_id"],
                    "x": shaken[:, 0],
                    "y": shaken[:, 1],
                    "misplacement": rng.beta(2, 5, samples.height),
                    "false_neighbours": rng.beta(2, 8, samples.height),
                    "missing_neighbours": rng.beta(2, 8, samples.height),
                }
            ).with_columns(literals)
        )
        floors = {"trustworthiness": 0.51, "continuity": 0.5, "knn_recall": 0.12}
        rows = [{"measure": name, "value": 0.6 + 0.35 * signal, "chance": floor} for name, floor in floors.items()]
        scores.append(pl.DataFrame(rows).with_columns(literals))
    return {"maps": pl.concat(maps), "map_measures": pl.concat(scores)}


def _similarity(networks: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """As the pipeline pairs networks: CKA of all layers, another measure (at chance first) at the same depth."""
    rows = []
    trained = networks.filter((pl.col("status") == "trained") & (pl.col("student") != "pixels"))
    of = {row["network_id"]: row for row in trained.iter_rows(named=True)}
    for one, other in _pairs(list(of.values())):
        network, whom = of[one], of[other]
        close = 0.9 if network["role"] == "distilled" else 0.75
        close += 0.01 * network["seed"] * (network["role"] != "teacher") * (network["seed"] < 90)
        own, others = (LAYERS if row["student"] == "teacher" else recipe.student_layers for row in (network, whom))
        for i, layer in enumerate(own):
            steps = [abs(i * max(len(others) - 1, 1) - j * (len(own) - 1)) for j in range(len(others))]
            for j, far in enumerate(step / max(len(others) - 1, 1) for step in steps):
                on = (one, layer, other, others[j], "gap")
                rows.append((*on, "cka", close - 0.15 * far, 0.0))
                if j == steps.index(min(steps)):  # the earlier of two as near, as in the pipeline
                    rows.append((*on, "mutual_knn", 0.1 + 0.5 * close * (i > 0), 0.2))
    return pl.DataFrame(rows, schema=list(TABLES["similarity"].columns), orient="row")


def _pairs(networks: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Every network with the teacher, students with plain of their seed, plain with plain of the first seed."""
    plain = {
        (row["student"], row["label_fraction"], row["seed"]): row["network_id"]
        for row in networks if row["role"] == "plain"
    }  # fmt: skip
    found = []
    for row in networks:
        if row["role"] != "teacher":
            found.append((row["network_id"], "teacher"))
        own = plain.get((row["student"], row["label_fraction"], row["seed"]))
        if row["role"] in ("distilled", "control") and own:
            found.append((row["network_id"], own))
        first = [name for kind, name in plain.items() if kind[:2] == (row["student"], row["label_fraction"])]
        if row["role"] == "plain" and first[0] != row["network_id"]:
            found.append((row["network_id"], first[0]))
    return found


MANY = Recipe(
    name="many",
    samples=20,
    fractions=(0.1,),
    methods=("kd", "fitnet", "kd-unlabelled", *(f"method-{i}" for i in range(27))),
    controls={
        "second-seed": "second-seed",
        "random-teacher": "random-teacher",
        "own-budget-teacher": "own-budget-teacher",
        "fitnet-own-budget-teacher": "fitnet",
        "plain-slow": "plain",
    },
    checkpoints=(20, 100),
    other_teachers=True,
    maps=False,
    diverged=False,
    views=("gap",),
)
"""Thirty methods, controls of every kind, checkpoints and other teachers, in one view and without maps."""
