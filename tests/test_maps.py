"""Maps: what each projector must keep, that a seed settles it, and what is said when one fails."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from kdpipe.errors import MapError
from kdpipe.measures import displacement, knn_recall, map_pass, nearest_neighbours, trustworthiness
from kdpipe.representation import ivis, ivis_worker
from kdpipe.representation import tsne as t_sne
from kdpipe.representation.alignment import align
from kdpipe.representation.ivis_worker import IvisOptions
from kdpipe.representation.map_jobs import MapJob, PcaOptions, TsneOptions, principal_components
from kdpipe.representation.projectors import PROJECTORS, pca
from kdpipe.representation.tsne import tsne

ROOT = Path(ivis.__file__).parents[2]


def blobs(n: int = 200, d: int = 30, classes: int = 4, seed: int = 0):
    random = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return (4 * random.normal(size=(classes, d))[y] + random.normal(size=(n, d))).astype(np.float32), y


# ----------------------------------------------------------------------------- preparation, PCA


@pytest.mark.parametrize("shape", [(100, 20), (20, 100), (100, 80)])
def test_prepared_points_are_scikit_learns_pca_up_to_sign(shape):
    X = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
    ours = principal_components(X, 10)
    theirs = PCA(10, svd_solver="full").fit_transform(X)
    assert ours.dtype == np.float32
    assert np.abs(ours) == pytest.approx(np.abs(theirs), abs=1e-4)


def test_signs_do_not_depend_on_the_order_of_the_images_and_follow_the_largest_loading():
    X, _ = blobs()
    order = np.random.default_rng(0).permutation(len(X))
    assert principal_components(X[order]) == pytest.approx(principal_components(X)[order], abs=1e-4)
    line = np.linspace(-1, 1, 30)[:, None] * [1.0, -3.0]
    assert principal_components(line)[:, 0] == pytest.approx(-np.sqrt(10) * np.linspace(-1, 1, 30), abs=1e-6)


def test_prepared_points_keep_at_most_fifty_dimensions_and_no_empty_ones():
    X, _ = blobs(d=80)
    assert principal_components(X).shape == (200, 50)
    assert principal_components(X[:, :3] @ np.ones((3, 9))).shape == (200, 1)
    assert pca(MapJob(X[:, :1], PcaOptions())).shape == (200, 2)


# ------------------------------------------------------------------------------------------ t-SNE


def test_tsne_keeps_the_neighbours_of_blobs():
    X, y = blobs()
    points = principal_components(X)
    layout = tsne(MapJob(points, TsneOptions(perplexity=15)))
    kept = map_pass(X, layout)
    assert kept.trustworthiness > 0.9
    assert kept.continuity > 0.9
    assert (y[nearest_neighbours(layout, 10)[0]] == y[:, None]).mean() > 0.99


def test_tsne_is_settled_by_its_seed_and_takes_known_neighbours():
    points = principal_components(blobs()[0])
    options = TsneOptions(perplexity=10)
    known = nearest_neighbours(points, 60)
    first = tsne(MapJob(points, options))
    assert np.array_equal(first, tsne(MapJob(points, options, known)))
    assert not np.array_equal(first, tsne(MapJob(points, TsneOptions(perplexity=10, seed=1))))


def test_tsne_survives_many_duplicates():
    X, _ = blobs()
    X[:80] = 0
    assert np.isfinite(tsne(MapJob(principal_components(X), TsneOptions(perplexity=10)))).all()


def relatives(count: int = 3):
    """One rolled sheet, each time shaken on its own, turned into a width of its own, and scaled."""
    random = np.random.default_rng(1)
    along = random.uniform(0, 12, 200)
    sheet = np.stack([along * np.cos(along), along * np.sin(along), random.uniform(0, 20, 200)], axis=1) / 4
    layers = []
    for i in range(count):
        turn = np.linalg.qr(random.normal(size=(20 + i, 3)))[0]
        layers.append((3.0**i * (sheet + 0.2 * random.normal(size=sheet.shape)) @ turn.T).astype(np.float32))
    return layers


def test_maps_from_a_shared_start_lie_nearer_and_keep_as_many_neighbours():
    options = TsneOptions(perplexity=10)
    layers = relatives()
    jobs = [MapJob(principal_components(X), options) for X in layers]
    shared = t_sne.consensus(jobs)
    alone = [tsne(job) for job in jobs]
    together = [tsne(replace(job, start=shared)) for job in jobs]
    pairs = list(itertools.combinations(range(len(jobs)), 2))
    apart, near = (np.mean([displacement(found[i], found[j]) for i, j in pairs]) for found in (alone, together))
    assert near < 0.6 * apart
    kept = [np.mean([knn_recall(X, L) for X, L in zip(layers, found, strict=True)]) for found in (alone, together)]
    assert kept[1] > 0.95 * kept[0]


def test_every_layer_counts_the_same_in_the_shared_map_whatever_its_scale():
    options = TsneOptions(perplexity=10)
    X = relatives(1)[0]
    one, other = (t_sne.affinities(MapJob(principal_components(scale * X), options)) for scale in (1, 1000))
    assert abs(one - other).max() < 1e-4 * one.max()


def test_a_shared_start_is_settled_by_its_seed_and_other_seeds_move_it_little():
    job = MapJob(principal_components(relatives(1)[0]), TsneOptions(perplexity=10))
    start = tsne(job)
    first = tsne(replace(job, start=start))
    assert np.array_equal(first, tsne(replace(job, start=start)))
    moved = tsne(replace(job, start=start, options=TsneOptions(perplexity=10, seed=1)))
    assert 0 < displacement(moved, first) < 0.2
    assert displacement(tsne(replace(job, options=TsneOptions(perplexity=10, seed=1))), first) > 0.2


def test_affinities_are_a_symmetric_distribution():
    found = t_sne.affinities(MapJob(principal_components(blobs()[0]), TsneOptions(perplexity=10)))
    assert found.sum() == pytest.approx(1)
    assert abs(found - found.T).max() < 1e-12


# -------------------------------------------------------------------------------------- alignment


def rms(values):
    return np.sqrt(np.square(values).mean())


@pytest.mark.parametrize("mirror", [1, -1])
def test_align_recovers_a_rotated_mirrored_scaled_and_shifted_copy(mirror):
    reference = np.random.default_rng(0).normal(size=(50, 2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]]) @ np.diag([1, mirror])
    found = align(7 * reference @ turn + [3, -2], reference)
    assert found.layout == pytest.approx(reference, abs=1e-6)
    assert found.moved == pytest.approx(np.zeros(50), abs=1e-7)


def test_displacement_is_in_rms_radii_and_at_most_one():
    random = np.random.default_rng(0)
    reference = 30 * random.normal(size=(2000, 2))
    noise = random.normal(size=(2000, 2))
    assert rms(align(reference + 3 * noise, reference).moved) == pytest.approx(0.1, abs=0.01)
    assert 0.95 < rms(align(noise, reference).moved) <= 1


def test_alignment_does_not_change_who_is_near_whom():
    X, _ = blobs()
    moved = align(X[:, :2], X[:, 2:4]).layout
    assert trustworthiness(X, moved) == pytest.approx(trustworthiness(X, X[:, :2]), abs=1e-6)


# ---------------------------------------------------------------------------------- clear errors


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tsne(MapJob(blobs(n=80)[0], TsneOptions())), "more than 90 images; there are 80"),
        (lambda: tsne(MapJob(np.ones((200, 3)), TsneOptions())), "same vector"),
        (
            lambda: tsne(MapJob(blobs()[0], TsneOptions(), nearest_neighbours(blobs()[0], 10))),
            "needs 90 neighbours",
        ),
        (lambda: principal_components(np.full((50, 5), 0.1)), "same vector"),
        (lambda: principal_components(np.full((50, 5), np.nan)), "NaN"),
        (lambda: align(np.ones((5, 2)), np.ones((6, 2))), "same points"),
        (lambda: align(np.ones((5, 2)), np.eye(5)[:, :2]), "all in one place"),
        (lambda: align(np.full((5, 2), np.nan), np.eye(5)[:, :2]), "NaN"),
    ],
)
def test_what_cannot_be_mapped_is_refused_in_one_sentence(call, says):
    with pytest.raises(MapError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_a_projector_draws_many_and_reports_the_one_that_fails(tmp_path):
    X, _ = blobs()
    seen = []
    jobs = {"good": MapJob(X, TsneOptions(perplexity=5)), "few": MapJob(X[:10], TsneOptions(perplexity=5))}
    layouts = PROJECTORS["tsne"].layouts(jobs, tmp_path, lambda name, result: seen.append(name))
    assert seen == ["good", "few"]
    assert layouts["good"].shape == (200, 2)
    assert isinstance(layouts["few"], MapError)
    assert "'few'" in str(layouts["few"])
    assert PROJECTORS["pca"].layouts({"a": MapJob(X, PcaOptions())}, tmp_path, None)["a"].shape == (200, 2)


def test_a_missing_ivis_is_named_with_the_extra_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(ivis, "find_spec", lambda name: None if name == "ivis" else object())
    with pytest.raises(MapError, match=r"need ivis: pip install 'kdpipe\[precompute\]'"):
        ivis.ivis_layouts({}, tmp_path)


def worker_that(monkeypatch, code: str) -> None:
    """Put a script in the place of the worker."""
    run = subprocess.Popen
    monkeypatch.setattr(
        ivis.subprocess, "Popen", lambda command, **rest: run([sys.executable, "-c", code, command[-1]], **rest)
    )
    monkeypatch.setattr(ivis, "find_spec", lambda name: object())


def test_a_killed_worker_keeps_what_was_drawn_and_names_what_was_not(monkeypatch, tmp_path):
    worker_that(
        monkeypatch,
        "import sys, os, numpy; numpy.save(sys.argv[1] + '/a.npy', numpy.ones((9, 2)));"
        'print(\'noise\'); print(\'{"name": "a", "layout": "a.npy"}\', flush=True); os.kill(os.getpid(), 9)',
    )
    job = MapJob(blobs(n=60)[0], IvisOptions())
    layouts = ivis.ivis_layouts({"a": job, "b": job}, tmp_path)
    assert layouts["a"].shape == (9, 2)
    assert f"'b' was not drawn: its process was killed by signal {signal.SIGKILL.value}" in str(layouts["b"])
    assert not list(tmp_path.iterdir())


def test_a_crashed_worker_is_reported_with_its_last_words(monkeypatch, tmp_path):
    worker_that(monkeypatch, "import sys; sys.exit('no such wheel')")
    layouts = ivis.ivis_layouts({"a": MapJob(blobs(n=60)[0], IvisOptions())}, tmp_path)
    assert "exit code 1; its last words: no such wheel" in str(layouts["a"])


def test_jobs_that_cannot_be_written_do_not_start_a_worker(monkeypatch, tmp_path):
    worker_that(monkeypatch, "raise SystemExit('started')")
    X, _ = blobs(n=12)
    layouts = ivis.ivis_layouts({"few": MapJob(X, IvisOptions()), "wrong": MapJob(X, PcaOptions())}, tmp_path)
    assert "k is 15 and there are 12 rows" in str(layouts["few"])
    assert "not IvisOptions" in str(layouts["wrong"])


@pytest.mark.parametrize(
    ("module", "without"),
    [("kdpipe.representation.projectors", "tensorflow"), ("kdpipe.representation.ivis_worker", "torch")],
)
def test_torch_and_tensorflow_stay_apart(module, without):
    code = f"import sys, {module}; sys.exit({without!r} in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


# ------------------------------------------------------------------------------------------- ivis


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """One worker, three maps: one that fails, then the same one twice. X, layouts, and the order they came in."""
    if find_spec("ivis") is None:
        pytest.skip("needs ivis")
    X, _ = blobs(n=150)
    points, order = principal_components(X), []
    known = nearest_neighbours(points, 20)
    same = MapJob(points, IvisOptions(epochs=30, batch_size=32), known)
    jobs = {"same vectors": MapJob(np.ones_like(points), IvisOptions(), known), "a/1": same, "a/2": same}
    folder = tmp_path_factory.mktemp("ivis")
    layouts = ivis.ivis_layouts(jobs, folder, lambda name, result: order.append(name))
    assert not list(folder.iterdir())
    return X, layouts, order


@pytest.mark.ivis
def test_ivis_keeps_neighbours_far_above_the_floor(drawn):
    X, layouts, _ = drawn
    assert layouts["a/1"].shape == (150, 2)
    assert trustworthiness(X, layouts["a/1"]) > 0.75


@pytest.mark.ivis
def test_ivis_gives_the_same_bits_for_the_same_seed(drawn):
    _, layouts, _ = drawn
    assert np.array_equal(layouts["a/1"], layouts["a/2"])


@pytest.mark.ivis
def test_an_ivis_map_that_fails_is_named_and_takes_no_other_with_it(drawn):
    _, layouts, order = drawn
    assert order == ["same vectors", "a/1", "a/2"]
    assert isinstance(layouts["same vectors"], MapError)
    assert "ivis map 'same vectors' was not drawn: ValueError: every image" in str(layouts["same vectors"])


def test_the_worker_refuses_a_k_for_which_ivis_would_never_end():
    with pytest.raises(ValueError, match="k = 9 needs"):
        ivis_worker.check_k(10, 9, 9)
