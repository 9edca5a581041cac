from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kdpipe.evidence
from kdpipe.evidence import (
    ENDPOINTS,
    MEANINGS,
    Advance,
    Arms,
    Cell,
    Contrast,
    ControlContrast,
    EndpointEstimates,
    Estimates,
    Finding,
    Resamples,
    Rules,
    Verdict,
    abc,
    advance,
    benjamini_hochberg,
    contrast,
    correct_primary,
    decide,
    early_abc,
    estimate,
    hedges_dz,
    judge,
    judge_grid,
    null_ratio,
    pigeonhole_bootstrap,
    shape_abc,
    sign_flip,
)
from kdpipe.measures.class_structure import class_balanced_mean

pytestmark = pytest.mark.filterwarnings("error")

DEPTH = np.linspace(0, 1, 4)
LABELS = np.array([0, 0, 0, 1, 1, 2] * 4)
RISING = (0.0, 0.1, 0.2, 0.3)
AHEAD = (0.1, 0.2, 0.3, 0.3)
HIGHER = (0.1, 0.2, 0.3, 0.4)
LATE = (0.0, 0.0, 0.1, 0.3)
EPSILON = {"silhouette": 0.004, "knn_accuracy": 0.004}


def values(curve, seed: int = 0, seeds: int = 8, spread: float = 0.01):
    """Images around a curve, with a spread of seeds and of images that the measures of real networks have."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(seeds, 1, 1)) + random.normal(size=(1, 1, len(LABELS)))
    noise = noise + random.normal(size=(seeds, len(curve), len(LABELS)))
    return np.array(curve)[:, None] + spread * noise


def arms(distilled=AHEAD, plain=RISING, second_seed=RISING, seeds: int = 8, spread: float = 0.01, **controls):
    made = partial(values, seeds=seeds, spread=spread)
    return Arms(
        made(distilled, 1),
        made(plain, 2),
        None if second_seed is None else made(second_seed, 3),
        {name: made(curve, 4 + at) for at, (name, curve) in enumerate(controls.items())},
    )


def cell(*more, knn=None, kinds=None, rules=None, epsilon=None, **curves) -> Cell:
    silhouettes = arms(*more, **curves)
    return Cell(
        DEPTH,
        LABELS,
        silhouettes,
        silhouettes if knn is None else knn,
        epsilon or EPSILON,
        {name: (kinds or {}).get(name, "instead") for name in silhouettes.controls},
        rules or Rules(),
    )


# ------------------------------------------------------------- every verdict, from values of images


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (cell(), "supported"),
        (cell(label_smoothing=RISING), "supported"),
        (cell(knn=arms(RISING)), "supported for compactness only"),
        (cell(HIGHER), "better but not earlier"),
        (cell(supervised=AHEAD, smoothing=RISING), "explained by supervised"),
        (cell(own_budget=RISING, kinds={"own_budget": "without"}), "explained by own_budget"),
        (cell(own_budget=AHEAD, kinds={"own_budget": "without"}), "supported"),
        (cell(longer=AHEAD, smoothing=AHEAD), "explained by longer and smoothing"),
        (cell(LATE), "reversed"),
        (cell(RISING, spread=0.001), "no difference larger than 0.004"),
        (cell(RISING, spread=0.05), "inconclusive"),
        (cell(seeds=7), "estimate only"),
        (cell(seeds=1), "estimate only"),
        (cell((0.2, 0.2, 0.2, 0.2)), "not computable"),
        (cell(AHEAD, (0.2, 0.2, 0.2, 0.2)), "not computable"),
        (cell((0.3, 0.1, 0.2, 0.4)), "not computable"),
        (cell(AHEAD, (0.0, 0.1, 0.05, 0.2)), "not computable"),
    ],
)
def test_every_verdict_is_reached(given, verdict):
    found = judge(given)
    assert found.title == verdict
    assert found.correction == "holm"
    assert found.because
    assert "\n" not in found.because


def test_the_cases_above_are_all_verdicts_there_are():
    assert set(MEANINGS) == set(get_args(Verdict))
    assert len(set(MEANINGS.values())) == len(MEANINGS) == 10
    assert all(meaning.endswith(".") and "\n" not in meaning for meaning in MEANINGS.values())
    assert set(get_args(Finding)) - {"higher"} <= set(get_args(Verdict))


def test_reasons_say_what_kept_a_cell_from_more():
    assert judge(cell((0.2, 0.2, 0.2, 0.2))).because.startswith("the distilled curve is flat: its range")
    assert judge(cell(AHEAD, (0.0, 0.1, 0.05, 0.2))).because.startswith("the plain curve is not monotone")
    assert judge(cell(seeds=7)).because.startswith("7 seeds; the early area is 0.0")
    assert "but not against supervised" in judge(cell(supervised=AHEAD)).because
    assert judge(cell(knn=arms(RISING))).because.startswith("kNN accuracy is inconclusive: the early area is")
    flat = judge(cell(knn=arms((1, 1, 1, 1), (1, 1, 1, 1))))
    assert flat.verdict == "supported for compactness only"
    assert flat.because.startswith("kNN accuracy is not computable: the distilled curve is flat")


def test_a_gain_in_neighbours_alone_changes_no_verdict_but_is_told():
    found = judge(cell(RISING, spread=0.001, knn=arms()))
    assert found.verdict == "no difference"
    assert found.findings == {"silhouette": "no difference", "knn_accuracy": "higher"}


def test_a_gain_in_neighbours_that_a_control_accounts_for_bears_nothing_out():
    silhouettes, neighbours = arms(smoothing=RISING), arms(smoothing=AHEAD)
    found = judge(Cell(DEPTH, LABELS, silhouettes, neighbours, EPSILON, {"smoothing": "instead"}))
    assert found.findings == {"silhouette": "higher", "knn_accuracy": "explained"}
    assert found.verdict == "supported for compactness only"


def test_curves_that_are_missing_are_told_before_the_number_of_seeds():
    whole = arms(seeds=3)
    gap = replace(whole, plain=np.where(np.arange(4)[:, None] == 2, np.nan, whole.plain))
    for of, says in (
        (Cell(DEPTH, LABELS, gap, whole, EPSILON), "the plain curve has missing values"),
        (Cell(DEPTH, LABELS, None, whole, EPSILON), "the endpoint was not measured"),
        (Cell(DEPTH, LABELS, None, None, EPSILON), "the endpoint was not measured"),
    ):
        found = judge(of)
        assert (found.verdict, found.because) == ("not computable", says)
        assert found.estimates.silhouette.abc is found.estimates.silhouette.advance is None
    missing = judge(Cell(DEPTH, LABELS, arms(), None, EPSILON))
    assert missing.verdict == "supported for compactness only"
    assert missing.because == "kNN accuracy is not computable: the endpoint was not measured"


@pytest.mark.parametrize(
    ("layers", "says"), [(1, "one layer is no curve"), (2, "two layers leave no area before the last")]
)
@pytest.mark.parametrize("seeds", [2, 8])
def test_one_or_two_layers_are_not_computable(layers, says, seeds):
    few = arms(AHEAD[:layers], RISING[:layers], RISING[:layers], seeds=seeds, longer=RISING[:layers])
    found = judge(Cell(DEPTH[:layers], LABELS, few, few, EPSILON, {"longer": "instead"}))
    assert (found.verdict, found.because) == ("not computable", says)
    estimates = found.estimates.silhouette
    assert estimates.early_abc is estimates.shape_abc is estimates.p is None
    assert (estimates.abc is None) == (layers == 1)
    assert layers == 1 or estimates.abc.p is None


# --------------------------------------------------------------------------- what was estimated


@pytest.mark.parametrize("name", ENDPOINTS)
def test_every_number_is_what_the_functions_give(name):
    """Each number of an endpoint against the functions on curves of means, class by class or over all images."""
    endpoint = ENDPOINTS[name]
    given = cell(knn=arms(AHEAD, HIGHER, longer=RISING), longer=RISING)
    of = given.arms(name)
    drawn = Resamples.draw(LABELS, 8)
    found = getattr(estimate(given, drawn), name)

    def curves(arm):
        average = partial(class_balanced_mean, y=LABELS) if endpoint.balanced else np.mean
        return np.array([[average(layer) for layer in network] for network in arm])

    distilled, plain, second = (curves(arm) for arm in (of.distilled, of.plain, of.second_seed))
    for function in (abc, early_abc, shape_abc):
        record = getattr(found, function.__name__)
        statistic = partial(function, DEPTH)
        per_seed = statistic(distilled, plain)
        assert record.per_seed == pytest.approx(per_seed)
        assert record.estimate == pytest.approx(per_seed.mean())
        interval = pigeonhole_bootstrap(of.distilled, of.plain, drawn, statistic, endpoint.balanced)
        assert (record.low, record.high) == pytest.approx(interval)
        assert record.p == sign_flip(per_seed)
        assert record.d_z == pytest.approx(hedges_dz(per_seed))
        assert record.null_estimate == pytest.approx(statistic(second, plain).mean())
        assert record.null_ratio == pytest.approx(null_ratio(per_seed, statistic(second, plain)))
    reached = [np.nan if value is None else value for value in found.advance.per_seed]
    np.testing.assert_allclose(reached, advance(DEPTH, distilled, plain), atol=1e-12)
    control = found.controls[0]
    left = early_abc(DEPTH, distilled, curves(of.controls["longer"]))
    assert (control.name, control.kind, control.estimate) == ("longer", "instead", pytest.approx(left.mean()))
    assert control.per_seed == pytest.approx(left)
    interval = pigeonhole_bootstrap(
        of.distilled, of.controls["longer"], drawn, partial(early_abc, DEPTH), endpoint.balanced
    )
    assert (control.low, control.high) == pytest.approx(interval)
    assert found.p == found.early_abc.p
    assert found.seeds == 8


def test_the_endpoints_are_those_fixed_beforehand():
    assert ENDPOINTS["silhouette"].view == "projection"
    assert ENDPOINTS["silhouette"].balanced
    assert ENDPOINTS["knn_accuracy"].view == "gap"
    assert not ENDPOINTS["knn_accuracy"].balanced
    assert Rules() == Rules(alpha=0.05, least_seeds=8, level=0.95, fall_tolerance=0.1)


def test_a_control_without_an_ingredient_is_held_against_plain():
    given = cell(own_budget=LATE, kinds={"own_budget": "without"})
    control = estimate(given).silhouette.controls[0]
    expected = early_abc(DEPTH, LATE, RISING)
    assert control.estimate == pytest.approx(expected, abs=0.01)
    assert not control.survived


def test_advance_counts_who_never_gets_there():
    of = arms(HIGHER)
    never = of.distilled.copy()
    never[:3] -= 0.2
    found = estimate(Cell(DEPTH, LABELS, replace(of, distilled=never), of, EPSILON)).silhouette.advance
    assert found.never == 3
    assert found.per_seed[:3] == (None, None, None)
    assert found.estimate == pytest.approx(np.mean(found.per_seed[3:]))
    never[:] = np.minimum(never, 0.15)
    found = estimate(Cell(DEPTH, LABELS, replace(of, distilled=never), of, EPSILON)).silhouette.advance
    assert found == Advance(None, (None,) * 8, 8)


@pytest.mark.parametrize("seeds", range(1, 8))
def test_few_seeds_give_numbers_and_no_p(seeds):
    found = judge(cell(seeds=seeds, longer=RISING))
    estimates = found.estimates.silhouette
    assert found.p_corrected == {"silhouette": None, "knn_accuracy": None}
    for record in (estimates.abc, estimates.early_abc, estimates.shape_abc):
        assert record.p is None
        assert len(record.per_seed) == seeds
        assert record.low < record.estimate < record.high
        assert (record.d_z is None) == (seeds < 3)
    assert estimates.controls[0].low < estimates.controls[0].estimate


@pytest.mark.parametrize("curve", [(0.2, 0.2, 0.2, 0.2), (0.3, 0.1, 0.2, 0.4), (0.3, 0.2, 0.1, 0.0)])
def test_curves_that_cannot_tell_have_areas_and_never_a_p(curve):
    found = estimate(cell(curve)).silhouette
    assert found.not_computable
    assert found.shape_abc is found.p is found.abc.p is None
    assert found.early_abc.estimate == pytest.approx(early_abc(DEPTH, curve, RISING), abs=0.01)
    assert found.early_abc.low < found.early_abc.high


def test_a_single_seed_may_dip_but_must_have_a_range():
    of = arms(spread=0.001)
    dip = of.distilled.copy()
    dip[3, 2] -= 0.15
    assert estimate(Cell(DEPTH, LABELS, replace(of, distilled=dip), of, EPSILON)).silhouette.not_computable is None
    dip[3] = 0.1
    found = estimate(Cell(DEPTH, LABELS, replace(of, distilled=dip), of, EPSILON)).silhouette
    assert found.not_computable == "the distilled curve is flat at 1 of 8 seeds"


def test_without_a_second_seed_there_is_no_null():
    found = estimate(cell(second_seed=None)).silhouette
    assert found.early_abc.null_estimate is found.early_abc.null_ratio is None
    flat = estimate(cell(second_seed=(0.1, 0.1, 0.1, 0.1), spread=0.0)).silhouette
    assert flat.shape_abc.null_ratio is None
    assert flat.early_abc.null_estimate == pytest.approx(early_abc(DEPTH, [0.1] * 4, RISING))


def test_correct_votes_may_be_booleans():
    random = np.random.default_rng(0)
    votes = Arms(
        *(
            random.random((8, 4, len(LABELS))) < np.array(c)[:, None]
            for c in ((0.6, 0.7, 0.8, 0.9), (0.2, 0.4, 0.6, 0.9))
        )
    )
    assert votes.plain.dtype == bool
    found = judge(Cell(DEPTH, LABELS, arms(), votes, EPSILON))
    assert found.verdict == "supported"


def test_resamples_are_shared_and_must_be_of_the_same_images_and_seeds():
    drawn = Resamples.draw(LABELS, 8)
    assert judge(cell(), drawn) == judge(cell(), drawn) == judge(cell())
    with pytest.raises(ValueError, match="other labels"):
        judge(cell(), Resamples.draw(LABELS[::-1], 8))
    with pytest.raises(ValueError, match="7 seeds"):
        judge(cell(), Resamples.draw(LABELS, 7))


def test_one_contrast_of_prediction_depths():
    random = np.random.default_rng(0)
    first, plain, second = random.random((3, 8, len(LABELS)))
    drawn = Resamples.draw(LABELS, 8)
    found = contrast(first, plain, drawn, null=(second, plain), balanced=False)
    per_seed = (first - plain).mean(axis=1)
    assert found.per_seed == pytest.approx(per_seed)
    assert found.p == sign_flip(per_seed)
    assert found.null_estimate == pytest.approx((second - plain).mean())
    assert (found.low, found.high) == pytest.approx(pigeonhole_bootstrap(first, plain, drawn, balanced=False))
    few = contrast(first[:3], plain[:3], Resamples.draw(LABELS, 3))
    assert few.p is few.null_ratio is None


# ---------------------------------------------------------------------------- the rules by themselves


def record(low: float = 0.01, high: float = 0.03, p: float | None = 0.0078125) -> Contrast:
    return Contrast((low + high) / 2, (0.02,) * 8, low, high, p, 1.0, 0.001, 5.0)


def control(low: float, name: str = "longer") -> ControlContrast:
    return ControlContrast(name, "instead", 0.01, (0.01,) * 8, low, 0.02, low > 0)


def endpoint(name, early=None, shape=None, controls=(), seeds=8, refused=None, epsilon=0.004) -> EndpointEstimates:
    early, shape = early or record(), shape or record()
    shape = None if refused else shape
    return EndpointEstimates(ENDPOINTS[name], seeds, epsilon, refused, early, early, shape, None, controls)


def ruled(silhouette=None, knn=None, p=(0.0156, 0.0156), **rules) -> str:
    estimates = Estimates(silhouette or endpoint("silhouette"), knn or endpoint("knn_accuracy"), Rules(**rules))
    corrected = dict(zip(ENDPOINTS, p, strict=True))
    return decide(estimates, corrected, "holm").verdict


def of_silhouette(**more) -> EndpointEstimates:
    return endpoint("silhouette", **more)


def of_knn(**more) -> EndpointEstimates:
    return endpoint("knn_accuracy", **more)


NOT_ABOVE = record(low=-0.01)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (ruled(), "supported"),
        # Order: what comes first hides what comes later.
        (ruled(of_silhouette(seeds=7, refused="is flat")), "estimate only"),
        (ruled(of_silhouette(seeds=7, early=record(-0.003, 0.003))), "estimate only"),
        (ruled(of_silhouette(refused="is flat", early=record(-0.003, 0.003))), "not computable"),
        (ruled(of_silhouette(refused="is flat", early=record(-0.03, -0.01))), "not computable"),
        (ruled(of_silhouette(early=record(0.001, 0.003))), "no difference"),
        (ruled(of_silhouette(early=record(-0.003, -0.001))), "no difference"),
        (ruled(of_silhouette(controls=(control(-0.01),), shape=NOT_ABOVE)), "explained"),
        (ruled(of_silhouette(shape=NOT_ABOVE), of_knn(early=NOT_ABOVE)), "better but not earlier"),
        # Bounds.
        (ruled(of_silhouette(early=record(-0.004, 0.004))), "no difference"),
        (ruled(of_silhouette(early=record(-0.0041, 0.003))), "inconclusive"),
        (ruled(of_silhouette(early=record(-0.003, 0.0041))), "inconclusive"),
        (ruled(of_silhouette(early=record(-0.03, -0.0001))), "reversed"),
        (ruled(of_silhouette(early=record(-0.03, 0.0))), "inconclusive"),
        (ruled(of_silhouette(early=record(0.0, 0.03))), "inconclusive"),
        (ruled(of_silhouette(early=record(0.0, 0.0), epsilon=0.0)), "no difference"),
        (ruled(of_silhouette(shape=record(low=0.0))), "better but not earlier"),
        (ruled(of_silhouette(shape=record(low=1e-9))), "supported"),
        (ruled(of_silhouette(controls=(control(0.0),))), "explained"),
        (ruled(of_silhouette(controls=(control(1e-9),))), "supported"),
        (ruled(of_silhouette(seeds=8)), "supported"),
        (ruled(of_silhouette(seeds=8), least_seeds=9), "estimate only"),
        (ruled(p=(0.05, 0.01)), "inconclusive"),
        (ruled(p=(0.0499, 0.01)), "supported"),
        (ruled(p=(None, 0.01)), "inconclusive"),
        (ruled(p=(0.02, 0.02), alpha=0.01), "inconclusive"),
        # The p of a fall is small too: the interval must be above 0.
        (ruled(of_silhouette(early=NOT_ABOVE)), "inconclusive"),
        # The second endpoint.
        (ruled(p=(0.01, 0.05)), "supported for compactness only"),
        (ruled(p=(0.01, None)), "supported for compactness only"),
        (ruled(knn=of_knn(early=NOT_ABOVE)), "supported for compactness only"),
        (ruled(knn=of_knn(early=record(-0.03, -0.01))), "supported for compactness only"),
        (ruled(knn=of_knn(refused="is flat")), "supported for compactness only"),
        (ruled(knn=of_knn(controls=(control(-0.01),))), "supported for compactness only"),
        (ruled(knn=of_knn(shape=NOT_ABOVE)), "supported"),
        (ruled(of_silhouette(early=NOT_ABOVE), p=(0.01, 0.01)), "inconclusive"),
    ],
)
def test_rules_in_their_order_and_at_their_bounds(verdict, expected):
    assert verdict == expected


BOUNDS = st.sampled_from([-0.1, -0.004, -0.001, 0.0, 0.001, 0.004, 0.1])
P = st.sampled_from([None, 0.0, 0.0156, 0.05, 1.0])


@st.composite
def endpoints(draw, name):
    intervals = [sorted((draw(BOUNDS), draw(BOUNDS))) for _ in range(3)]
    refused = draw(st.sampled_from([None, None, None, "is flat"]))
    early, shape = record(*intervals[0]), record(*intervals[1])
    return endpoint(name, early, shape, (control(intervals[2][0]),), draw(st.sampled_from([7, 8, 8, 8])), refused)


@given(endpoints("silhouette"), endpoints("knn_accuracy"), P, P)
def test_whatever_is_given_there_is_one_verdict_and_its_conditions_hold(silhouette, knn, p_silhouette, p_knn):
    found = decide(Estimates(silhouette, knn, Rules()), {"silhouette": p_silhouette, "knn_accuracy": p_knn}, "holm")
    assert found.verdict in MEANINGS
    assert bool(found.explained_by) == (found.verdict == "explained")
    early, shape = silhouette.early_abc, silhouette.shape_abc
    gained = early.low > 0 and p_silhouette is not None and p_silhouette < 0.05
    if found.verdict in ("explained", "better but not earlier", "supported for compactness only", "supported"):
        assert silhouette.seeds == 8
        assert silhouette.not_computable is None
        assert gained
        assert early.high > 0.004
    if found.verdict in ("supported for compactness only", "supported"):
        assert shape.low > 0
        assert silhouette.controls[0].survived
    if found.verdict == "supported":
        assert knn.early_abc.low > 0
        assert p_knn is not None
        assert p_knn < 0.05
        assert knn.controls[0].survived
    if found.verdict == "inconclusive":
        assert not gained


# ------------------------------------------------------------------------------------ corrections


def test_the_primary_cell_is_corrected_by_holm_over_its_two_endpoints():
    found = judge(cell())
    assert found.estimates.p_values == {"silhouette": 0.0078125, "knn_accuracy": 0.0078125}
    assert found.p_corrected == {"silhouette": 0.015625, "knn_accuracy": 0.015625}


def test_an_endpoint_that_cannot_be_tested_stays_in_the_family():
    found = judge(cell(knn=arms((1, 1, 1, 1), (1, 1, 1, 1))))
    assert found.p_corrected == {"silhouette": 0.015625, "knn_accuracy": None}
    assert correct_primary(estimate(cell(seeds=7))) == {"silhouette": None, "knn_accuracy": None}


def test_a_grid_is_corrected_by_benjamini_and_hochberg_over_all_that_was_tested():
    noisy = estimate(cell(RISING, spread=0.05))
    cells = [estimate(cell()), noisy, estimate(cell(seeds=7)), estimate(cell((0.2, 0.2, 0.2, 0.2)))]
    cells[3] = replace(cells[3], knn_accuracy=cells[2].knn_accuracy)
    found = judge_grid(cells)
    verdicts = [judgement.verdict for judgement in found]
    assert verdicts == ["supported", "inconclusive", "estimate only", "not computable"]
    # Two of 1/128 among four: 4 / 2 times 1/128.
    assert found[0].p_corrected == {"silhouette": 2 / 128, "knn_accuracy": 2 / 128}
    together = benjamini_hochberg([1 / 128, 1 / 128, *noisy.p_values.values()])
    assert tuple(found[1].p_corrected.values()) == pytest.approx(tuple(together[2:]))
    assert found[2].p_corrected == found[3].p_corrected == {"silhouette": None, "knn_accuracy": None}
    assert {judgement.correction for judgement in found} == {"benjamini-hochberg"}
    assert judge_grid([]) == []
    assert judge_grid(cells[2:3])[0].verdict == "estimate only"


def test_many_cells_without_effect_take_a_lone_significance_away():
    lone = estimate(cell())
    noise = [estimate(cell(RISING, spread=0.05))] * 10
    assert judge_grid([lone])[0].verdict == "supported"
    assert judge_grid([lone, *noise])[0].verdict == "inconclusive"


# -------------------------------------------------------------------------------------- invariance


def test_what_must_not_change_a_verdict():
    given = cell(longer=RISING)
    expected = judge(given)
    order = np.random.default_rng(0).permutation(8)

    def through(change, labels=LABELS, depth=DEPTH, epsilon=EPSILON):
        of = given.silhouette
        changed = Arms(
            change(of.distilled),
            change(of.plain),
            change(of.second_seed),
            {n: change(v) for n, v in of.controls.items()},
        )
        return judge(Cell(depth, labels, changed, changed, epsilon, given.kinds))

    images = np.random.default_rng(0).permutation(len(LABELS))
    ten = {name: 10 * value for name, value in EPSILON.items()}
    for found in (
        through(lambda arm: arm[order]),
        through(lambda arm: arm[..., images], LABELS[images]),
        through(lambda arm: arm, 7 - 2 * LABELS),
        through(lambda arm: arm + 3),
        through(lambda arm: 10 * arm, epsilon=ten),
        through(lambda arm: arm, depth=10 * DEPTH + 5, epsilon=ten),
        through(lambda arm: arm.astype(np.float32)),
    ):
        assert found.verdict == expected.verdict == "supported"
        assert found.p_corrected == expected.p_corrected
        of_now, of_then = found.estimates.silhouette, expected.estimates.silhouette
        assert of_now.early_abc.d_z == pytest.approx(of_then.early_abc.d_z, rel=1e-4)
        assert of_now.early_abc.null_ratio == pytest.approx(of_then.early_abc.null_ratio, rel=1e-4)


def test_exchanging_the_arms_turns_the_numbers_round():
    one, other = estimate(cell(AHEAD, RISING, None)), estimate(cell(AHEAD, RISING, None))
    of = cell(AHEAD, RISING, None).silhouette
    turned = Arms(of.plain, of.distilled)
    other = estimate(Cell(DEPTH, LABELS, turned, turned, EPSILON))
    for name in ("abc", "early_abc", "shape_abc"):
        before, after = getattr(one.silhouette, name), getattr(other.silhouette, name)
        assert after.estimate == pytest.approx(-before.estimate)
        assert (after.low, after.high) == pytest.approx((-before.high, -before.low))
        assert after.p == before.p
    assert judge(Cell(DEPTH, LABELS, turned, turned, EPSILON)).verdict == "reversed"


# ------------------------------------------------------------------------------------- what is refused

GOOD = arms(longer=RISING)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Cell(DEPTH[::-1], LABELS, None, None, EPSILON), "rising"),
        (lambda: Cell(DEPTH, LABELS[:0], None, None, EPSILON), "at least one image"),
        (lambda: Cell(DEPTH, LABELS, None, None, {"silhouette": 0.1}), "finite number, not below 0, for knn_accuracy"),
        (lambda: Cell(DEPTH, LABELS, None, None, EPSILON | {"silhouette": -0.1}), "not below 0, for silhouette"),
        (lambda: Cell(DEPTH, LABELS, GOOD, GOOD, EPSILON), r"Controls of silhouette are \['longer'\], kinds .* \[\]"),
        (lambda: Cell(DEPTH, LABELS, arms(), None, EPSILON, {"longer": "instead"}), "kinds are given for"),
        (lambda: Cell(DEPTH[:3], LABELS, arms(), None, EPSILON), r"\(8 seeds, 3 layers, 24 images\), not \(8, 4, 24\)"),
        (lambda: Cell(DEPTH, LABELS[:9], arms(), None, EPSILON), "9 images"),
        (
            lambda: Cell(DEPTH, LABELS, replace(arms(), distilled=arms().distilled[:7]), None, EPSILON),
            "of distilled must",
        ),
        (
            lambda: Cell(DEPTH, LABELS, replace(arms(), second_seed=arms().plain[:, 0]), None, EPSILON),
            "of second_seed must",
        ),
        (lambda: Cell(DEPTH, LABELS, arms(), arms(seeds=7), EPSILON), "same seeds"),
        (lambda: Cell(DEPTH, LABELS, arms(seeds=0), None, EPSILON), "must be of shape"),
        (
            lambda: Cell(DEPTH, LABELS, replace(arms(), second_seed=np.nan * arms().plain), None, EPSILON),
            "second_seed holds NaN",
        ),
        (
            lambda: Cell(
                DEPTH, LABELS, replace(arms(), controls={"plain": arms().plain}), None, EPSILON, {"plain": "instead"}
            ),
            "cannot be called plain",
        ),
        (lambda: Rules(alpha=0.0), "cannot be"),
        (lambda: Rules(least_seeds=1), "cannot be"),
        (lambda: Rules(level=1.0), "cannot be"),
        (lambda: Rules(fall_tolerance=-0.1), "cannot be"),
    ],
)
def test_what_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_the_instrument_needs_no_more_than_numpy_and_scipy():
    """And the simulation the measures; the package itself neither torch nor scikit-learn."""
    folder = Path(kdpipe.evidence.__file__).parent
    allowed = {"__future__", "collections", "dataclasses", "functools", "typing", "numpy", "scipy"}
    allowed |= {"kdpipe.evidence", "kdpipe.relative_depth", "kdpipe.vocabulary"}
    for path in folder.glob("*.py"):
        names = [node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names += [
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        ]
        more = {"kdpipe.measures"} if path.name == "simulation.py" else set()
        roots = {".".join(name.split(".")[: 2 if name.startswith("kdpipe") else 1]) for name in names}
        assert roots <= allowed | more, path.name
    program = "import sys, kdpipe.evidence; sys.exit(bool({'torch', 'sklearn', 'streamlit'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=folder.parent.parent).returncode == 0
