#!/usr/bin/env python
"""Give every method of a study the same three configurations, and choose one of them on validation images.

``scripts/tune.py studies/methods.toml --seed 100 --steps 300 --data-root DATA`` trains each method of the
registry three times with a seed that the study does not report, writes all results to
``studies/methods-tuning.csv`` and the winners into the study file's ``methods``. A method varies the weight
of its teacher's term by 1/4, 1 and 4 of the published value; a method without such a weight varies the
learning rate by 1/2, 1 and 2. Controls that are the plain student or KD with one thing changed take what
those got. The test images have no say.

``--beyond`` chooses nothing: where the best of the three lies at an end of its range, it trains one configuration
further out, and writes what came of it to ``studies/methods-tuning-beyond.csv``. That tells whether a method that
does badly was given too strong or too weak a term.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: see kdpipe/cli/main.py

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import polars as pl
import torch
from rich.console import Console

from kdpipe.cli.progress import RichReporter
from kdpipe.config.preflight import run_preflight
from kdpipe.config.sections import MethodSpec
from kdpipe.config.study import StudySpec
from kdpipe.config.study_file import StudyFile, read_study
from kdpipe.engine.cache import Cache
from kdpipe.engine.hardware import describe_hardware, resolve_device
from kdpipe.engine.stage import Context
from kdpipe.methods import METHODS
from kdpipe.pipeline.run_study import run_study
from kdpipe.pipeline.stages.outputs import RESULT

WEIGHTS, RATES = (0.25, 1.0, 4.0), (0.5, 1.0, 2.0)
# Controls that change one thing about another method, and so take its configuration.
FOLLOWS = {
    "second-seed": "plain",
    "plain-long": "plain",
    "supervised-on-the-same-images": "plain",
    "random-teacher": "kd",
    "shuffled-teacher": "kd",
    "own-budget-teacher": "kd",
    "self-distillation": "kd",
}


def weight_of(method: str) -> str | None:
    """The weight of the teacher's term, if the loss has more than one term."""
    fields = METHODS[method].parameters.model_fields
    if "ce_weight" not in fields:
        return None
    return next(name for name in fields if name.endswith("_weight") and name != "ce_weight")


def configurations(method: str, lr: float) -> list[dict[str, Any]]:
    """Three entries for a study's ``methods``."""
    name = weight_of(method)
    if method == "label-smoothing":
        return [_entry(method, {"epsilon": epsilon}, {}, index) for index, epsilon in enumerate((0.05, 0.1, 0.2))]
    if name is None:
        return [_entry(method, {}, {} if rate == 1 else {"lr": lr * rate}, i) for i, rate in enumerate(RATES)]
    published = getattr(METHODS[method].resolved({}), name)
    return [_entry(method, {name: published * factor}, {}, i) for i, factor in enumerate(WEIGHTS)]


def further(table: pl.DataFrame, lr: float) -> list[dict[str, Any]]:
    """One more entry for each method whose best configuration is the first or last of its three."""
    entries = []
    for best in chosen(table):
        method = best["method"]
        if method in FOLLOWS:
            continue
        tried = configurations(method, lr)
        settings = [{**entry["parameters"], **entry["training"]} or {"lr": lr} for entry in tried]
        at = settings.index({**best["parameters"], **best["training"]} or {"lr": lr})
        if at == 1:
            continue
        name, value = next(iter(settings[at].items()))
        out = value * value / settings[1][name]  # the same step again
        entries.append(_entry(method, *(({}, {"lr": out}) if name == "lr" else ({name: out}, {})), len(tried)))
    return entries


def _entry(method: str, parameters: dict[str, Any], training: dict[str, Any], index: int) -> dict[str, Any]:
    return {"method": method, "label": f"{method}.{index}", "parameters": parameters, "training": training}


def tuning_study(
    study: StudyFile, seed: int, steps: int, entries: list[dict[str, Any]] | None = None, lr: float | None = None
) -> StudySpec:
    """The study with every configuration (or those of ``entries``), one unreported seed and fewer steps."""
    if seed in study.that_trains.seeds:
        sys.exit(f"--seed {seed} is one of the seeds that the study reports; choose another.")
    lr = study.that_trains.training.lr if lr is None else lr
    if entries is None:
        entries = [entry for name in METHODS if name not in FOLLOWS for entry in configurations(name, lr)]
    changed = {
        "name": f"{study.spec.name}-tuning",
        "seeds": [seed],
        "methods": [MethodSpec.model_validate(entry) for entry in entries],
        "training": study.that_trains.training.model_copy(update={"steps": steps, "evaluations": 2, "lr": lr}),
        "headline": None,
    }
    return study.that_trains.model_copy(update=changed)


def train_all(study: StudyFile, spec: StudySpec, root: Path, cache: Cache, device: str) -> pl.DataFrame:
    """Validation accuracy of every configuration."""
    preflight = run_preflight(StudyFile(study.path, study.text, (), spec), root)
    reporter = RichReporter(Console(stderr=True))
    context = Context(device, root, reporter, cache.root / "scratch", describe_hardware(device))
    result = run_study(spec, preflight, cache, context, only=["student"])
    rows = []
    methods = {method.name: method for method in spec.methods}
    for planned in result.plan.students:
        assert planned.method is not None
        method = methods[planned.method]
        found = json.loads((cache.path(planned.stage) / RESULT).read_text())
        rows.append(
            {
                "method": method.method,
                "parameters": json.dumps(method.parameters),
                "training": json.dumps(method.training),
                "val_accuracy": found.get("val_accuracy"),
                "status": found["status"],
                "seed": planned.seed,
                "steps": planned.steps,
                "base_lr": spec.training.lr,
            }
        )
    return pl.DataFrame(rows)


def chosen(table: pl.DataFrame) -> list[dict[str, Any]]:
    """The best configuration of each method, and what follows from it, as entries of a study's ``methods``."""
    best = table.filter(status="trained").sort("val_accuracy", descending=True, maintain_order=True)
    best = best.unique("method", keep="first", maintain_order=True)
    found = {
        row["method"]: {"parameters": json.loads(row["parameters"]), "training": json.loads(row["training"])}
        for row in best.iter_rows(named=True)
    }
    # The plain student's training is the study's own, so what it got stands in [training].
    tried = set(table["method"])  # a method may be younger than the table
    sources = {name: FOLLOWS.get(name, name) for name in METHODS}
    return [{"method": name, **found[source]} for name, source in sources.items() if source in tried]


def as_toml(entries: list[dict[str, Any]], lr: float) -> tuple[str, float]:
    """``methods`` of a study file, and the study's learning rate: the plain student's."""
    plain = entries[0]["training"].get("lr", lr)
    lines = []
    for entry in entries:
        own = entry["training"].get("lr", lr)
        fields = [f'method = "{entry["method"]}"']
        changed = {name: value for name, value in entry["parameters"].items() if value != _published(entry, name)}
        if changed:
            fields.append("parameters = { " + ", ".join(f"{n} = {v}" for n, v in changed.items()) + " }")
        if own != plain:
            fields.append(f"training = {{ lr = {own} }}")
        lines.append("    { " + ", ".join(fields) + " }," if len(fields) > 1 else f'    "{entry["method"]}",')
    return "methods = [\n" + "\n".join(lines) + "\n]", plain


def _published(entry: dict[str, Any], name: str) -> Any:
    return getattr(METHODS[entry["method"]].resolved({}), name)


def rewritten(text: str, table: pl.DataFrame) -> str:
    """The study file with the chosen configurations in it."""
    methods, plain = as_toml(chosen(table), table["base_lr"][0])
    text = re.sub(r"^methods = \[.*?^\]", methods, text, flags=re.MULTILINE | re.DOTALL)
    head, mark, rest = text.partition("\n[training]\n")
    return head + mark + re.sub(r"^lr = .*$", f"lr = {plain}", rest, count=1, flags=re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--beyond", action="store_true", help="only one step further than a range whose end was best")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    study = read_study(given.study)
    if given.beyond:
        before = pl.read_csv(given.study.with_name(f"{given.study.stem}-tuning.csv"))
        lr = before["base_lr"][0]
        spec = tuning_study(study, given.seed, given.steps, further(before, lr), lr)
        table = train_all(study, spec, given.data_root, Cache(given.cache), resolve_device(given.device))
        table.write_csv(given.study.with_name(f"{given.study.stem}-tuning-beyond.csv"))
        print(table.sort("method"))
        return
    spec = tuning_study(study, given.seed, given.steps)
    table = train_all(study, spec, given.data_root, Cache(given.cache), resolve_device(given.device))
    table.write_csv(given.study.with_name(f"{given.study.stem}-tuning.csv"))
    given.study.write_text(rewritten(study.text, table))
    print(table.sort("method", "val_accuracy", descending=[False, True]))


if __name__ == "__main__":
    main()
