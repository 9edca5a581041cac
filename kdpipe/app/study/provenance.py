"""What a study is made of and how it was made: facts, files, times, and how to cite and open it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import altair as alt
import polars as pl

from kdpipe.app.shared.charts import CANVAS, Layered
from kdpipe.app.shell.software import package, year
from kdpipe.app.shell.theme import PETROFF, SAME
from kdpipe.app.shell.words import verbatim
from kdpipe.artifacts.schema import TABLES
from kdpipe.artifacts.store import STUDY_FILE, TIMINGS_FILE, Study
from kdpipe.vocabulary import ROLES

MOST_ZIPPED = 500_000_000  # bytes; beyond, a zip made in memory would be the server's last
# What fills a table that a study may lack.
FILLS = {
    "explanations": "`explanations = true` under `[measures]`, and networks that Grad-CAM can look into",
    "factors": "`factors = true` under `[measures]`",
    "maps": "`projectors` under `[maps]`",
    "map_measures": "`projectors` under `[maps]`",
    "neighbours": "`projectors` under `[maps]`: neighbours are kept of mapped networks",
    "neighbour_credit": "a method that distils from the study's teacher",
    "similarity": "measures of pairs among `names` under `[measures]`",
    "class_measures": "measures that have a value for one class, such as `silhouette`, under `[measures]`",
    "specification": "`specifications = true` under `[measures]`",
    "flips": "a distilled student with plain of its own seed",
    "slices": "a distilled student with plain of its own seed",
    "calibration": "a distilled student with plain of its own seed",
    "gains": "a distilled student with plain of its own seed",
    "method_ranks": "a student that was trained to the end",
    "seed_credit": "`projectors` under `[maps]`, and plain students of two seeds",
    "sample_flips": "a distilled student with plain of its own seed",
    "comparisons": "a distilled student with plain of its own seed",
    "verdicts": "a distilled student with plain of its own seed",
    "findings": "a distilled student with plain of its own seed",
    "verdict_controls": "a distilled student with plain of its own seed",
}
PAPER = """@misc{lee2021visualizing,
  title         = {Visualizing the embedding space to explain the effect of knowledge distillation},
  author        = {Lee, Hyun Seung and Wallraven, Christian},
  year          = {2021},
  eprint        = {2110.04483},
  archiveprefix = {arXiv},
}"""


# ------------------------------------------------------------------------------- facts


def made_with(study: Study) -> list[tuple[str, str]]:
    """Identity, versions and hardware as (what, Markdown); what the record lacks is left out."""
    record, hardware = study.record, study.timings.get("hardware") or {}
    versions = dict(record.get("versions") or {})
    own = versions.pop("kdpipe", None)
    facts = [
        ("Name", f"`{study.name}`"),
        ("Study hash", f"`{study.hash}`: stands in every table's footer and below every figure"),
        ("kdpipe", _made_by(record, str(own)) if own else ""),
        ("Libraries", ", ".join(f"{verbatim(name)} {verbatim(str(said))}" for name, said in sorted(versions.items()))),
        ("Plug-ins", "; ".join(map(_plugin, record.get("plugins") or []))),
        ("Hardware", _machine(hardware)),
        ("When", "not recorded, so that the same run gives the same files; times and hardware stand apart"),
    ]
    return [(what, said) for what, said in facts if said]


def _made_by(record: Mapping[str, Any], version: str) -> str:
    told = f"{verbatim(version)}{_at_commit(record.get('commit'))}, artifact schema {record.get('schema_version')}"
    if judge := record.get("judged_with"):
        told += f"; judged again by {verbatim(str(judge.get('kdpipe')))}{_at_commit(judge.get('commit'))}"
    return told


def _plugin(plugin: Mapping[str, Any]) -> str:
    brought = ", ".join(verbatim(str(record)) for record in plugin.get("records") or [])
    return f"{verbatim(str(plugin.get('name')))} (`{plugin.get('identity')}`) with {brought}"


def _at_commit(commit: str | None) -> str:
    if not commit:
        return ""
    digits, _, changed = commit.partition("+")
    return f", commit `{digits[:12]}`" + (" with changes that are in no commit" if changed else "")


def _machine(hardware: Mapping[str, Any]) -> str:
    parts = [hardware.get("processor") or hardware.get("cpu"), hardware.get("system")]
    if hardware.get("cores"):
        parts.append(f"{hardware['cores']} cores")
    if hardware.get("threads"):
        parts.append(f"{hardware['threads']} thread{'s' * (hardware['threads'] != 1)} for the analysis")
    if hardware:
        parts.append(str(hardware.get("accelerator") or "no accelerator"))
    return ", ".join(verbatim(str(part)) for part in parts if part)


def data_facts(study: Study) -> list[tuple[str, str]]:
    """The dataset as (what, Markdown), without the note on its source, which stands wherever numbers are."""
    data = study.record.get("data") or {}
    asked = (study.record.get("study") or {}).get("data") or {}
    shape = data.get("image_shape") or []
    counts = [f"{data[part]:,} {words}" for part, words in _PARTS.items() if isinstance(data.get(part), int)]
    facts = [
        ("Dataset", verbatim(str(data.get("dataset", "")))),
        ("Images", f"{' by '.join(map(str, shape))} (channels, height, width)" if shape else ""),
        ("Classes", str(len(data.get("class_names") or []) or "")),
        ("Parts", ", ".join(counts)),
        ("Augmentation", verbatim(str(asked.get("augmentation") or ""))),
        ("Split seed", str(asked["split_seed"]) if "split_seed" in asked else ""),
        ("Licence", verbatim(str(data.get("licence") or ""))),
        ("sha256 of the data", f"`{data['sha256']}`" if data.get("sha256") else ""),
    ]
    return [(what, said) for what, said in facts if said]


_PARTS = {
    "train": "to train",
    "validation": "to validate",
    "test": "to test",
    "probe": "probe images (of the test images)",
}


def as_list(facts: list[tuple[str, str]]) -> str:
    """Facts as a Markdown list."""
    return "\n".join(f"- **{what}**: {said}" for what, said in facts)


def by_role(networks: pl.DataFrame) -> pl.DataFrame:
    """A row a kind of network; lost ones diverged or had no teacher; parameters are empty where nobody knows them."""
    rows = networks.group_by("rank", "role", "series", "student", "budget", maintain_order=True).agg(
        networks=pl.len(), seeds=pl.col("seed").n_unique(), lost=(pl.col("status") != "trained").sum(),
        mapped=pl.col("mapped").sum(), parameters=pl.col("params").replace(0, None).first(),
    )  # fmt: skip
    return rows.drop("rank").rename({"series": "kind", "budget": "labels"})


# ------------------------------------------------------------------------------- files


def files(study: Study) -> pl.DataFrame:
    """A row a table: what a row is, rows, bytes, sha256, as the study's catalog says."""
    catalogued = study.record["files"]
    rows = [
        (name, table.row, entry.get("rows"), entry.get("bytes"), entry.get("sha256"))
        for name, table in TABLES.items()
        if (entry := catalogued.get(table.file)) is not None
    ]
    schema = {"table": pl.String, "a row is": pl.String, "rows": pl.Int64, "bytes": pl.Int64, "sha256": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def empty_tables(study: Study) -> list[tuple[str, str]]:
    """Tables without a row, each with what fills it."""
    counted = files(study).filter(pl.col("rows") == 0)["table"].to_list()
    return [(name, FILLS.get(name, "another study")) for name in counted]


def columns_of(name: str) -> pl.DataFrame:
    """The columns of a table as the schema declares them."""
    table = TABLES[name]
    rows = [
        (column, str(about.dtype), about.about, column in table.key, about.nullable)
        for column, about in table.columns.items()
    ]
    return pl.DataFrame(rows, schema=["column", "type", "what it is", "key", "may be empty"], orient="row")


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The table as CSV can hold it: lists as text with spaces between, bytes as base64."""
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    raw = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    return frame.with_columns(
        *(pl.col(name).list.eval(pl.element().cast(pl.String)).list.join(" ") for name in lists),
        *(pl.col(name).bin.encode("base64") for name in raw),
    )


def csv_of(study: Study, name: str) -> bytes:
    """A table as CSV, read when it is asked for."""
    return flat(study.frame(name)).write_csv().encode()


def parquet_of(study: Study, name: str) -> bytes:
    """A table's file as it lies there, so that its sha256 is that of the catalog."""
    study.scan(name)
    return (study.folder / TABLES[name].file).read_bytes()


def first_rows(study: Study, name: str, count: int = 20) -> pl.DataFrame:
    """The first rows, without pictures."""
    head = study.collect(name, study.scan(name).head(count))
    return head.drop([column for column, dtype in head.schema.items() if dtype == pl.Binary])


def zipped(study: Study) -> bytes:
    """The whole folder in one file, not packed again: Parquet is."""
    buffer = io.BytesIO()
    names = [STUDY_FILE, TIMINGS_FILE, *(table.file for table in TABLES.values())]
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            if (study.folder / name).is_file():
                archive.write(study.folder / name, f"{study.name}/{name}")
    return buffer.getvalue()


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{int(count)} bytes"
        count /= 1000
    return f"{count:.3g} GB"


# ------------------------------------------------------------------------------- times


def stages(study: Study) -> pl.DataFrame:
    """Seconds by kind of stage, the longest first, with the time in words."""
    found = [(name, float(seconds)) for name, seconds in (study.timings.get("stages") or {}).items()]
    frame = pl.DataFrame(found, schema={"stage": pl.String, "seconds": pl.Float64}, orient="row")
    frame = frame.sort("seconds", descending=True)
    return frame.with_columns(
        time=pl.Series([duration(seconds) for seconds in frame["seconds"]], dtype=pl.String),
        share=pl.col("seconds") / pl.max_horizontal(pl.col("seconds").sum(), 1e-9),
    )


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"


def stage_bars(rows: pl.DataFrame) -> Layered:
    """A bar a stage with its time at its end; rows of :func:`stages`."""
    longest = float(rows["seconds"].max() or 1.0)  # type: ignore[arg-type]
    axis = alt.Axis(labelOverlap=False, labelFlush=False, labelLimit=160)
    x = alt.X("seconds:Q", title="seconds", scale=alt.Scale(domain=[0, 1.15 * longest]),
              axis=alt.Axis(tickCount=alt.ExprRef("width < 400 ? 4 : 8")))  # fmt: skip
    tooltip = [alt.Tooltip("stage:N"), alt.Tooltip("time:N"), alt.Tooltip("share:Q", format=".1%")]
    base = alt.Chart(rows).encode(
        y=alt.Y("stage:N", sort=rows["stage"].to_list(), title=None, axis=axis), x=x, tooltip=tooltip
    )
    words = base.mark_text(align="left", dx=5, color=PETROFF[8]).encode(text=alt.Text("time:N"))
    return alt.layer(base.mark_bar(color=SAME), words).properties(height=60 + 21 * rows.height, usermeta=CANVAS)


# ------------------------------------------------------------------------------- citing and opening


def citation(study: Study) -> str:
    """A BibTeX entry of the software that made the study, with the study's name and hash."""
    told = package()
    version = str((study.record.get("versions") or {}).get("kdpipe") or told["version"])
    fields = {
        "title": f"{told['name']}: {told['summary'].rstrip('.')}" if told["summary"] else told["name"],
        "author": f"{{{told['author']}}}" if told["author"] else "",
        "year": year(),
        "version": version,
        "license": told["licence"],
        "url": told["url"],
        "note": f"Study {_tex(study.name)}, hash {_tex(study.hash)}",
    }
    width = max(map(len, fields))
    lines = [f"  {name.ljust(width)} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join(["@software{kdpipe,", *lines, "}"])


def _tex(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def in_python(study: Study) -> dict[str, str]:
    """How to open the study with kdpipe, polars and pandas: a piece of code each, that runs in the repository."""
    measures = [name for name in ("knn_accuracy", "silhouette") if name in study.measures["measure"].to_list()]
    measure = measures[0] if measures else "knn_accuracy"
    views = study.layers["view"].unique().sort().to_list()
    view, place = (views[0] if views else "gap"), f"artifacts/{study.name}"
    return {
        "kdpipe (checks every file against its sha256)": (
            "import kdpipe\n\n"
            f"study = kdpipe.load_study({json.dumps(study.name)})  # or the path of an unpacked zip\n"
            'study.networks.select("network_id", "role", "seed", "test_accuracy")\n'
            f'study.frame("layer_measures", measure="{measure}", view="{view}")  # filtered while it is read\n'
            'study.scan("predictions")  # a lazy frame of polars'
        ),
        "polars": (
            "import polars as pl\n\n"
            f'networks = pl.read_parquet("{place}/networks.parquet")\n'
            f'measures = pl.scan_parquet("{place}/layer_measures.parquet")\n'
            f'rows = measures.filter(measure="{measure}", view="{view}").collect()\n'
            'by_layer = rows.join(networks, on="network_id").group_by("role", "method_label", "layer")\n'
            'by_layer.agg(pl.col("value").mean())'
        ),
        "pandas": (
            "import pandas as pd\n\n"
            f'networks = pd.read_parquet("{place}/networks.parquet")\n'
            f'filters = [("measure", "==", "{measure}"), ("view", "==", "{view}")]\n'
            f'rows = pd.read_parquet("{place}/layer_measures.parquet", filters=filters)\n'
            'rows.merge(networks, on="network_id").groupby(["role", "method_label", "layer"])["value"].mean()'
        ),
    }


def networks_in_words(study: Study) -> str:
    """How many networks of each role."""
    counts = dict(study.networks.group_by("role").len().rows())
    ordered = [role for role in ROLES if role in counts] + [r for r in counts if r not in ROLES]
    named = ", ".join(f"{counts[role]} {verbatim(role)}" for role in ordered)
    return f"{sum(counts.values())} networks: {named}."
