"""What a study lacks, said once on a page: networks that diverged, stages that failed, maps and measures."""

from __future__ import annotations

import polars as pl
import streamlit as st

from kdpipe.app.shared import catalog
from kdpipe.artifacts.store import Study


def lost_networks(networks: pl.DataFrame) -> None:
    """One message about all networks that were not trained to the end; it says so if no student is left."""
    lost = networks.filter(pl.col("status") != "trained")
    lines = [
        f"{label} diverged at step {step}" if status == "diverged" else f"{label} had no teacher, as that one diverged"
        for label, step, status in lost.select("label", "diverged_step", "status").rows()
    ]
    none_left = networks.filter(catalog.TRAINED_STUDENT).is_empty()
    if none_left:
        st.warning("No student was trained to the end, so there is nothing to compare.", icon=":material/warning:")
    elif len(lines) == 1:
        st.warning(f"{lines[0]} and is left out of every mean.", icon=":material/warning:")
    elif lines:
        st.warning(
            f"{len(lines)} networks were not trained to the end and are left out of every mean.",
            icon=":material/warning:",
        )
    if len(lines) > 1 or (lines and none_left):
        with st.expander("Which, and why"):
            st.text("\n".join(lines))


def missing_stages(study: Study) -> None:
    """One message about the stages that failed when the study was made, with the reasons folded away."""
    missing: dict[str, str] = study.record.get("missing") or {}
    if not missing:
        return
    one = len(missing) == 1
    st.warning(
        f"{len(missing)} stage{'' if one else 's'} of this study failed when it was made: what came of "
        f"{'it' if one else 'them'} is missing on all pages.", icon=":material/report:",
    )  # fmt: skip
    with st.expander("What is missing, and why"):
        st.text("\n".join(f"{what}: {why}" for what, why in missing.items()))


def no_maps(study: Study) -> str:
    """What to say where maps are missing, and how to make them: maps need a view that is stored."""
    views = study.layers["view"].unique().to_list()
    view = "" if "projection" in views or not views else f' and `view = "{views[0]}"`'
    return (
        f'This study has no maps: write `projectors = ["tsne"]`{view} under `[maps]` in the study file and use '
        "`kdpipe run` on it again, which keeps the trained networks. All other pages do without."
    )


def no_measures(of: str) -> str:
    """What to say where a kind of measure is missing, and how to make it."""
    return (
        f"This study has no measures of {of} in this view: name some under `[measures]` in the study file, or leave "
        "`names` out for all, and use `kdpipe run` on it again."
    )
