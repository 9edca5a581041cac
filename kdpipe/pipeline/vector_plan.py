"""The plan of vectors that were made elsewhere: samples and networks are read, and looked at like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kdpipe.config.sections import VectorsSpec
from kdpipe.config.study import VectorStudy
from kdpipe.config.vector_store import has_reference, store_of, stored
from kdpipe.pipeline.given_plan import given_network, given_networks
from kdpipe.pipeline.planned import NetworksPlan, Planned, plan_pixels
from kdpipe.pipeline.stages.vectors import make_vector_data, make_vector_network, make_vector_probe
from kdpipe.vectors.store import VectorStore
from kdpipe.vocabulary import TEACHER

GIVEN = (make_vector_data, make_vector_probe, make_vector_network)


def plan_vectors(spec: VectorStudy, root: Path, seeds: Sequence[int] | None = None) -> NetworksPlan:
    """Samples and networks of a study of vectors.

    Args:
        root: where relative data paths start.
        seeds: only the students of these seeds.

    Raises:
        DataError: a folder or a network that is not there.
    """
    store = store_of(spec, root)
    data = make_vector_data.plan("data", {"samples": store.samples_key()}, runtime={"folder": str(store.folder)})
    chosen = {"size": spec.data.probe_size, "reference": spec.data.reference_size, "seed": spec.data.split_seed}
    probe = make_vector_probe.plan("probe", chosen, {"data": data})

    def planned(network: VectorsSpec) -> Planned:
        found = stored(store, network)
        stage = make_vector_network.plan(
            spec.network_id(network),
            {"vectors": store.network_key(found)},
            {"data": data},
            batch="vectors",
            runtime={"folder": str(store.folder), "network": network.vectors},
        )
        arch = network.vectors if network.role == TEACHER else network.student
        made = given_network(spec, network, stage, {"arch": arch, "arch_arguments": "{}"})
        return replace(made, weights="", answers=found.has_logits, vectors=True)

    teacher, students, checkpoints = given_networks(spec, seeds, planned)
    pixels = [] if seeds or store.samples.images is None else [plan_pixels(probe)]
    lacking = _lacking(store, [teacher, *students, *checkpoints])
    return NetworksPlan(data, probe, teacher, [], students, checkpoints, pixels, lacking)


def _lacking(store: VectorStore, networks: Sequence[Planned]) -> dict[str, str]:
    """What the vectors come without, and what follows."""
    said = {}
    if store.samples.images is None:
        said["images"] = "No images came with the vectors: there are no known factors of images, and no raw pixels."
    said["networks"] = (
        "The networks themselves are not here: there are no explanations, training curves, parameters or multiply-adds."
    )
    if not has_reference(store):
        said["reference"] = (
            "No samples to fit probes on came with the vectors: measures that are fitted on training samples are left "
            "out."
        )
    silent = [one.network_id for one in networks if not one.answers]
    if silent:
        whose = "any network" if len(silent) == len(networks) else f"{len(silent)} of {len(networks)} networks"
        said["logits"] = (
            f"No logits of {whose} came with the vectors: accuracy, calibration, flips and prediction depth are "
            "missing there."
        )
    return said
