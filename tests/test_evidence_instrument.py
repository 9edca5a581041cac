"""The instrument on layers whose truth is known: silhouettes and kNN votes are measured, not made up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from kdpipe.evidence import (
    Arms,
    Cell,
    Components,
    Resamples,
    Rules,
    contrast,
    estimate,
    holm,
    judge,
    simulation,
    variance_components,
)
from kdpipe.evidence.simulation import (
    World,
    advance_of,
    better_everywhere,
    crossed_values,
    data_effect,
    detectable_area,
    simulate,
)
from kdpipe.measures.class_structure import layer_pass, silhouette
from kdpipe.measures.neighbourhood import knn_accuracy

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("one_thread")]

WORLD = World()
DRAWN = Resamples.draw(WORLD.labels, WORLD.seeds)
FLAT = World(rising=(0.05,) * 5, shared=0.001, own=0.0005)
SEEDS = range(3)
# Several tests judge the same cells, each simulated once.
advanced, identical = cache(simulation.advanced), cache(simulation.identical)


def verdicts(cells) -> set[str]:
    return {judge(cell, DRAWN).title for cell in cells}


def turned(cell: Cell) -> Cell:
    """Distilled and plain students in each other's place."""

    def exchanged(arms: Arms) -> Arms:
        return Arms(arms.plain, arms.distilled)

    return replace(cell, silhouette=exchanged(cell.silhouette), knn_accuracy=exchanged(cell.knn_accuracy), kinds={})


# ---------------------------------------------------------------------------------- planted effects


def test_students_one_layer_ahead_are_found_to_be_so():
    for seed in SEEDS:
        found = judge(advanced(seed), DRAWN)
        assert found.verdict == "supported"
        estimates = found.estimates.silhouette
        # One of five layers, less what noise at the plateau takes.
        assert estimates.advance.estimate == pytest.approx(0.25, abs=0.06)
        # Three steps of .04 by trapezoids of .25.
        assert estimates.early_abc.estimate == pytest.approx(0.04 * 0.75, abs=0.005)
        assert estimates.early_abc.p == 0.0078125
        assert estimates.early_abc.null_ratio > 3
        assert [control.survived for control in estimates.controls] == [True, True]


def test_better_everywhere_is_not_earlier():
    assert verdicts(better_everywhere(seed) for seed in SEEDS) == {"better but not earlier"}
    assert verdicts(better_everywhere(seed, shift=0.02, factor=1.5) for seed in SEEDS) == {"better but not earlier"}


def test_what_the_images_did_is_not_credited_to_distillation():
    for seed in SEEDS:
        found = judge(data_effect(seed), DRAWN)
        assert found.title == "explained by supervised-on-the-same-images"
        assert {control.name: control.survived for control in found.estimates.silhouette.controls} == {
            "supervised-on-the-same-images": False,
            "label-smoothing": True,
        }


def test_extra_labels_through_the_teacher_are_not_credited_to_distillation():
    aims = {"distilled": WORLD.advanced, "plain": WORLD.rising, "own-budget-teacher": WORLD.rising}
    cells = [simulate(WORLD, aims, seed, {"own-budget-teacher": "without"}) for seed in SEEDS]
    assert verdicts(cells) == {"explained by own-budget-teacher"}


def test_students_one_layer_behind_are_reversed():
    assert verdicts(turned(advanced(seed)) for seed in SEEDS) == {"reversed"}


def test_no_difference_is_said_only_of_what_was_measured_finely_enough():
    wide = {"silhouette": 0.01, "knn_accuracy": 0.1}
    assert verdicts(replace(identical(seed), epsilon=wide) for seed in SEEDS) == {"no difference larger than 0.01"}
    narrow = {"silhouette": 0.0005, "knn_accuracy": 0.0005}
    assert verdicts(replace(identical(seed), epsilon=narrow) for seed in SEEDS) == {"inconclusive"}


def test_compactness_alone_is_told_apart():
    """Tighter classes on one view, the other view as it was."""
    aims = {"distilled": WORLD.advanced, "plain": WORLD.rising}
    cells = [replace(simulate(WORLD, aims, s), knn_accuracy=identical(s).knn_accuracy) for s in SEEDS]
    assert verdicts(cells) == {"supported for compactness only"}


def test_seven_seeds_and_flat_layers_give_no_verdict():
    few = World(seeds=7)
    assert judge(advanced(0, few)).title == "estimate only"
    flat = judge(replace(identical(0, FLAT), epsilon={"silhouette": 0.01, "knn_accuracy": 0.01}))
    assert flat.verdict == "not computable"
    assert "is flat" in flat.because
    dipping = World(rising=(0.0, 0.08, 0.04, 0.12, 0.16))
    assert "is not monotone" in judge(identical(0, dipping)).because


@pytest.mark.parametrize("world", [World(seeds=12), World(images=300), World(classes=3), World(persistence=0.9)])
def test_other_worlds_give_the_same_verdicts(world):
    assert judge(advanced(0, world)).verdict == "supported"
    assert judge(data_effect(0, world)).verdict == "explained"
    assert judge(better_everywhere(0, world)).verdict == "better but not earlier"


# -------------------------------------------------------------------------------------- no effect


@pytest.mark.slow
def test_identical_distributions_are_seldom_significant():
    """Of 200 no more than a test of size .05 rejects, nor fewer than one of its two endpoints alone at 6 / 256."""
    significant, found, world = 0, Counter(), World(images=150)
    drawn = Resamples.draw(world.labels, world.seeds)
    for seed in range(200):
        judgement = judge(identical(seed, world), drawn)
        significant += min(judgement.p_corrected.values()) < 0.05
        found[judgement.verdict] += 1
    assert binom.ppf(0.05, 200, 6 / 256) <= significant <= binom.ppf(0.99, 200, 0.05)
    assert found["supported"] + found["supported for compactness only"] == 0
    assert found["reversed"] <= 12


# ------------------------------------------------------------------------------------ the simulation


def test_values_are_the_measures_and_layers_are_where_they_were_aimed():
    world = World(seeds=2, shared=0.0, own=0.0)
    cell = advanced(0, world)
    assert cell.silhouette.plain.shape == (2, 5, 200)
    assert set(np.unique(cell.knn_accuracy.plain)) == {0, 1}
    curves = estimate(cell)
    many = np.mean([identical(seed, world).silhouette.plain for seed in range(8)], axis=(0, 1, 3))
    assert many == pytest.approx(world.rising, abs=0.008)
    assert curves.silhouette.early_abc.estimate == pytest.approx(0.03, abs=0.006)


def test_one_seed_gives_one_cell():
    again = simulation.advanced(3, World(seeds=2))
    for arm, values in simulation.advanced(3, World(seeds=2)).silhouette.named().items():
        np.testing.assert_array_equal(values, again.silhouette.named()[arm])
    assert (identical(4).silhouette.plain != identical(3).silhouette.plain).any()


def test_some_images_are_difficult_for_every_network():
    """What makes the design crossed: without it, images would be as good as new for each seed."""
    shared = variance_components(identical(0).silhouette.plain[:, 2])
    apart = variance_components(identical(0, World(persistence=0.0)).silhouette.plain[:, 2])
    assert shared.image > 0.7 * shared.both
    assert apart.image < 0.2 * apart.both


def test_layers_are_those_that_the_measures_see(monkeypatch):
    """Every value against the measures themselves, on the layer that was drawn."""
    seen = []
    monkeypatch.setattr(simulation, "layer_pass", lambda X, *more: seen.append(X) or layer_pass(X, *more))
    world = World(seeds=1, images=60)
    cell = simulation.identical(0, world)
    assert len(seen) == 2 * 5  # two arms, five layers
    for at, layer in enumerate(seen[:5]):
        assert cell.silhouette.distilled[0, at].mean() == pytest.approx(silhouette(layer, world.labels), abs=1e-6)
        assert cell.knn_accuracy.distilled[0, at].mean() == pytest.approx(knn_accuracy(layer, world.labels))


# ------------------------------------------------------------------------------------------- power


def test_the_advance_that_an_area_stands_for_worked_by_hand():
    """A straight curve, moved by a layer at most, gains as much at all layers but the last."""
    depth = np.linspace(0, 1, 5)
    assert advance_of(depth, depth, 0.075) == pytest.approx(0.1)
    assert advance_of(depth, 3 + 2 * depth, 0.15) == pytest.approx(0.1)
    assert advance_of(depth, depth, 0.0) == 0
    # Moved by all its depth it is 1 everywhere: .75 less the triangle below it.
    assert advance_of(depth, depth, 0.75 - 0.28125) == pytest.approx(1, abs=1e-3)
    assert advance_of(depth, depth, 0.5) == np.inf


def test_the_detectable_area_is_found_four_times_in_five():
    """Against the estimates and the correction that verdicts rest on, on fresh values."""
    components, rules = Components(0.5, 2.0, 2.0), Rules()
    area = detectable_area(components, seeds=9, images=80, simulations=300)
    random, drawn = np.random.default_rng(9), Resamples.draw(np.zeros(80, int), 9)
    found = 0
    for _ in range(300):
        values = crossed_values(components, 9, 80, random) + area
        alone = contrast(values, 0 * values, drawn, rules=rules)
        found += alone.low > 0 and holm([alone.p, 1.0])[0] < rules.alpha
    assert found / 300 == pytest.approx(0.8, abs=0.07)


def test_what_seeds_and_images_are_good_for():
    """Six seeds never reach the p that Holm asks of two; images help against images, seeds against seeds."""
    assert detectable_area(Components(1, 1, 1), seeds=6, images=50, simulations=20) == np.inf
    by_images = [detectable_area(Components(0.01, 1, 1), 8, images, simulations=60) for images in (50, 200, 800)]
    assert by_images[0] > 1.6 * by_images[1] > 2.5 * by_images[2]
    by_seeds = [detectable_area(Components(1, 0.1, 0.1), seeds, 50, simulations=60) for seeds in (7, 9, 14)]
    assert by_seeds[0] > 1.1 * by_seeds[1] > 1.2 * by_seeds[2]
