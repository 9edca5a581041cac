from __future__ import annotations

import itertools
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from kdpipe.evidence import (
    Components,
    Resamples,
    benjamini_hochberg,
    bootstrap,
    early_abc,
    hedges_dz,
    holm,
    image_weights,
    null_ratio,
    pigeonhole_bootstrap,
    shape_abc,
    sign_flip,
    variance_components,
)
from kdpipe.evidence.bootstrap import tail
from kdpipe.evidence.simulation import crossed_values, least_significant_shift
from kdpipe.measures.class_structure import class_balanced_mean

pytestmark = pytest.mark.filterwarnings("error")

DEPTH = np.array([0.0, 0.4, 0.7, 1.0])
EARLY = partial(early_abc, DEPTH)
# Fourteen images in three classes of unequal size.
LABELS = np.array([0, 0, 1, 2, 2, 2, 2, 1, 0, 2, 2, 1, 2, 2])
ROWS = st.integers(3, 9).flatmap(lambda n: arrays(np.float64, n, elements=st.integers(-50, 50).map(float)))


def arms(seeds: int = 5, layers: int = 4, seed: int = 0, labels=LABELS):
    random = np.random.default_rng(seed)
    plain = random.normal(size=(seeds, layers, len(labels))) + np.arange(layers)[:, None]
    return plain + random.normal(0.3, 0.5, size=plain.shape), plain


# ------------------------------------------------------------------------------------------- draws


def test_images_are_drawn_within_their_class_and_seeds_apart_from_them():
    drawn = Resamples.draw(LABELS, seeds=5, resamples=400)
    assert drawn.seed_counts.shape == (400, 5)
    assert (drawn.seed_counts.sum(axis=1) == 5).all()
    for label in np.unique(LABELS):
        assert (drawn.image_counts[:, label == LABELS].sum(axis=1) == (label == LABELS).sum()).all()
    together = np.corrcoef(drawn.seed_counts[:, 0], drawn.image_counts[:, LABELS == 2][:, 0])[0, 1]
    assert abs(together) < 4 / np.sqrt(400)


def test_each_image_is_drawn_as_a_multinomial_draws_it():
    drawn = Resamples.draw(np.zeros(10, int), seeds=3, resamples=20_000)
    for counts, n in ((drawn.image_counts, 10), (drawn.seed_counts, 3)):
        # Five standard errors of a mean, and at most of a covariance: the fourth moment of a Poisson count is 4.
        luck, values = 5 / np.sqrt(20_000), counts.astype(float)
        assert values.mean(axis=0) == pytest.approx(np.ones(n), abs=luck)
        assert np.cov(values.T) == pytest.approx(np.eye(n) - 1 / n, abs=np.sqrt(3) * luck)


def test_draws_are_the_same_for_one_seed_whatever_the_block(monkeypatch):
    whole = Resamples.draw(LABELS, 5, resamples=100)
    means = whole.means(arms()[0])
    monkeypatch.setattr(bootstrap, "BLOCK_VALUES", 60)
    blocks = Resamples.draw(LABELS, 5, resamples=100)
    np.testing.assert_array_equal(blocks.image_counts, whole.image_counts)
    np.testing.assert_array_equal(blocks.seed_counts, whole.seed_counts)
    np.testing.assert_allclose(blocks.means(arms()[0]), means, atol=1e-13)
    assert (Resamples.draw(LABELS, 5, resamples=100, seed=1).image_counts != whole.image_counts).any()


def test_counts_hold_more_than_a_byte():
    drawn = Resamples.draw(np.zeros(70_000, int), seeds=1, resamples=2)
    assert (drawn.image_counts.sum(axis=1, dtype=int) == 70_000).all()


@pytest.mark.parametrize("balanced", [True, False])
def test_means_are_those_of_the_images_drawn_written_out(balanced):
    """Against copying the images as often as they were drawn."""
    values, _ = arms()
    drawn = Resamples.draw(LABELS, 5, resamples=30)
    means = drawn.means(values, balanced)
    assert means.shape == (30, 5, 4)
    for r in range(30):
        rows = np.repeat(np.arange(len(LABELS)), drawn.image_counts[r])
        for s, layer in np.ndindex(5, 4):
            picked = values[s, layer, rows]
            expected = class_balanced_mean(picked, LABELS[rows]) if balanced else picked.mean()
            assert means[r, s, layer] == pytest.approx(expected, abs=1e-12)


def test_weights_worked_by_hand():
    assert image_weights([0, 0, 0, 7]) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert image_weights([0, 0, 0, 7], balanced=False) == pytest.approx([1 / 4] * 4)


# --------------------------------------------------------------------------------------- intervals


def test_an_interval_of_two_seeds_worked_by_hand():
    """Images all alike: the mean is 0, 2 or 4, with chances 1/4, 1/2, 1/4."""
    first = np.repeat([[0.0], [4.0]], 6, axis=1)
    drawn = Resamples.draw(np.zeros(6, int), 2)
    assert pigeonhole_bootstrap(first, 0 * first, drawn, level=0.9, expand=False) == pytest.approx((0, 4))
    assert pigeonhole_bootstrap(first, 0 * first, drawn, level=0.4, expand=False) == pytest.approx((2, 2))


def test_both_arms_stay_paired():
    """What differs between seeds and images, but not between arms, is no uncertainty of their difference."""
    first, plain = arms(seed=3)
    drawn = Resamples.draw(LABELS, 5)
    assert pigeonhole_bootstrap(plain + 2, plain, drawn, EARLY) == pytest.approx((1.4, 1.4))
    low, high = pigeonhole_bootstrap(first, plain, drawn, EARLY)
    shuffled_low, shuffled_high = pigeonhole_bootstrap(first, plain[::-1, :, ::-1], drawn, EARLY)
    assert high - low < 0.7 * (shuffled_high - shuffled_low)


def test_strata_keep_the_spread_between_classes_out():
    values = np.broadcast_to(10.0 * LABELS, (5, 4, len(LABELS)))
    drawn = Resamples.draw(LABELS, 5)
    assert pigeonhole_bootstrap(values, 0 * values, drawn, EARLY) == pytest.approx((7, 7))
    without = Resamples.draw(0 * LABELS, 5)
    low, high = pigeonhole_bootstrap(values, 0 * values, without, EARLY)
    assert high - low > 2


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-5, 5))
def test_intervals_of_areas_follow_shift_scale_and_sign(seed, factor, shift):
    first, plain = arms(seed=seed)
    drawn = Resamples.draw(LABELS, 5, resamples=200)
    low, high = pigeonhole_bootstrap(first, plain, drawn, EARLY)
    assert low <= high
    moved = pigeonhole_bootstrap(factor * first + shift, factor * plain, drawn, EARLY)
    assert moved == pytest.approx((factor * low + 0.7 * shift, factor * high + 0.7 * shift), rel=1e-6, abs=1e-8)
    assert pigeonhole_bootstrap(plain, first, drawn, EARLY) == pytest.approx((-high, -low), rel=1e-9)
    wider = pigeonhole_bootstrap(first, plain, drawn, EARLY, level=0.99)
    assert wider[0] <= low
    assert wider[1] >= high


def test_an_interval_equals_writing_every_resample_out():
    first, plain = arms(seed=5)
    drawn = Resamples.draw(LABELS, 5, resamples=60)
    statistics = []
    for r in range(60):
        images = np.repeat(np.arange(len(LABELS)), drawn.image_counts[r])
        seeds = np.repeat(np.arange(5), drawn.seed_counts[r])
        curves = [
            [[class_balanced_mean(arm[s, layer, images], LABELS[images]) for layer in range(4)] for s in seeds]
            for arm in (first, plain)
        ]
        statistics.append(np.mean(shape_abc(DEPTH, *curves)))
    found = pigeonhole_bootstrap(first, plain, drawn, partial(shape_abc, DEPTH), level=0.8, expand=False)
    expected = np.quantile(statistics, 0.1, method="lower"), np.quantile(statistics, 0.9, method="higher")
    assert found == pytest.approx(expected, abs=1e-12)


def test_values_without_layers_are_taken_as_they_are():
    random = np.random.default_rng(0)
    depths, plain = random.normal(size=(2, 5, len(LABELS)))
    drawn = Resamples.draw(LABELS, 5)
    of_scalars = pigeonhole_bootstrap(depths, plain, drawn, balanced=False)
    of_layers = pigeonhole_bootstrap(
        depths[:, None], plain[:, None], drawn, lambda a, b: (a - b)[..., 0], balanced=False
    )
    assert of_scalars == of_layers


def test_an_undefined_statistic_opens_the_interval_instead_of_being_passed_over():
    drawn = Resamples.draw(np.zeros(6, int), 4, resamples=1000)
    statistic = np.random.default_rng(0).normal(size=(1000, 4))
    low, high = drawn.interval(statistic)
    statistic[:10] = np.nan
    assert drawn.interval(statistic, expand=False) == pytest.approx((low, high), abs=0.3)
    statistic[:100] = np.nan
    assert drawn.interval(statistic) == (-np.inf, np.inf)
    assert drawn.interval(np.full((1000, 4), np.nan)) == (-np.inf, np.inf)


def test_a_seed_that_is_undefined_counts_only_where_it_was_drawn():
    drawn = Resamples.draw(np.zeros(6, int), 2, resamples=1000)
    statistic = np.ones((1000, 2))
    statistic[:, 1] = np.nan
    assert drawn.interval(statistic, level=0.1, expand=False) == (-np.inf, np.inf)
    only_first = drawn.seed_counts[:, 1] == 0
    part = Resamples(drawn.labels, drawn.seed_counts[only_first], drawn.image_counts[only_first])
    assert part.interval(statistic[only_first], expand=False) == (1, 1)


def test_the_tail_is_hesterbergs_where_seeds_make_the_spread_and_the_usual_one_where_they_do_not():
    seeds_alone = np.broadcast_to(np.arange(8.0), (500, 8))
    expected = stats.norm.cdf(np.sqrt(8 / 7) * stats.t.ppf(0.025, 7))
    assert tail(seeds_alone, 0.95) == pytest.approx(expected)
    assert 0.005 < expected < 0.006
    images_alone = np.repeat(np.random.default_rng(0).normal(size=(500, 1)), 8, axis=1)
    assert tail(images_alone, 0.95) == pytest.approx(0.025)
    assert tail(seeds_alone + 3 * images_alone, 0.95) == pytest.approx(0.025, abs=0.01)
    assert expected < tail(seeds_alone + images_alone, 0.95) < 0.025
    assert tail(seeds_alone[:, :1], 0.95) == tail(np.full((5, 3), np.nan), 0.95) == pytest.approx(0.025)


DESIGNS = {
    "seeds": Components(seed=1.0, image=1.0, both=0.5),
    "images": Components(seed=0.02, image=1.0, both=0.3),
    "as much of both": Components(seed=0.1, image=1.0, both=1.0),
}


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(("seeds", "least"), [(5, 0.90), (8, 0.93), (16, 0.93)])
def test_intervals_cover_the_truth_as_often_as_they_say(design, seeds, least):
    """600 crossed designs: what 95 % intervals of 8 seeds cover. Images taken as independent cells would not."""
    random, n = np.random.default_rng(1), 600
    designs = [crossed_values(DESIGNS[design], seeds, 100, random) for _ in range(n)]
    drawn = Resamples.draw(np.arange(100) % 4, seeds, resamples=1000)
    means = drawn.means(np.stack(designs, axis=1))
    low, high = np.array([drawn.interval(means[:, :, at]) for at in range(n)]).T
    assert least <= np.mean((low <= 0) & (high >= 0)) <= 0.99
    # Too short on either side alone would show here, where a claim is made.
    assert max(np.mean(low > 0), np.mean(high < 0)) < 0.75 * (1 - least)
    as_cells = [1.96 * values.std() / np.sqrt(values.size) for values in designs]
    assert np.mean(np.abs([values.mean() for values in designs]) <= as_cells) < 0.75


def test_the_spread_of_resamples_is_owens():
    """Variance (S-1)/S of the seeds', the images', and the interaction's about three times."""
    random = np.random.default_rng(0)
    seeds, images, n = 10, 50, 60
    drawn = Resamples.draw(np.zeros(images, int), seeds, resamples=1500)

    def variance(components: Components) -> float:
        values = np.stack([crossed_values(components, seeds, images, random) for _ in range(n)], axis=1)
        means = drawn.means(values) * drawn.seed_counts[:, :, None]
        return float((means.sum(axis=1) / seeds).var(axis=0).mean())

    assert variance(Components(1, 0, 0)) == pytest.approx(0.9 / seeds, rel=0.25)
    assert variance(Components(0, 1, 0)) == pytest.approx(1 / images, rel=0.15)
    assert variance(Components(0, 0, 1)) == pytest.approx(3 / (seeds * images), rel=0.2)


def test_two_thousand_images_by_eight_seeds_and_layers_take_little_memory():
    first, plain = np.random.default_rng(0).normal(size=(2, 8, 8, 2000))
    drawn = Resamples.draw(np.arange(2000) % 10, 8)
    tracemalloc.start()
    pigeonhole_bootstrap(first, plain, drawn, partial(early_abc, np.linspace(0, 1, 8)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


# --------------------------------------------------------------------------------------- sign flip


def enumerated(differences) -> float:
    values = np.asarray(differences, float)
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    return float((np.abs(signs @ values) >= abs(values.sum()) * (1 - 1e-12)).mean())


@pytest.mark.parametrize(("seeds", "p"), [(2, 0.5), (3, 0.25), (5, 0.0625), (8, 0.0078125), (12, 2**-11), (16, 2**-15)])
def test_equal_signs_give_the_least_p_there_is(seeds, p):
    differences = np.random.default_rng(0).uniform(1, 2, seeds)
    assert sign_flip(differences) == p
    assert sign_flip(-differences) == p


def test_sign_flip_worked_by_hand():
    # Of 8 sums of +-1 +-2 +-4 only 7 and -7 are at least 7 from 0; 5, 7 and their opposites are at least 5.
    assert sign_flip([1, 2, 4]) == 2 / 8
    assert sign_flip([-1, 2, 4]) == 4 / 8
    assert sign_flip([1, 1, -2]) == 1
    assert sign_flip([0, 0, 0]) == 1


# Sums near 0 that tie but for rounding, after a division by the largest.
@example(np.array([11.0, 18, 16, 27, -28, -37, 38, -44]), -1e-9)
@example(np.array([6.0, 15, 18, 18, -25, -33, 47, -47]), 0.1)
@example(np.array([12.0, 21, 21, 21, -30, 1, -45]), 0.1)
@given(ROWS, st.sampled_from([-1e-9, 1e9, 0.1, -3]))
def test_sign_flip_equals_the_enumeration_and_ignores_sign_scale_and_order(differences, factor):
    p = sign_flip(differences)
    assume(abs(differences.sum()) > 0)
    assert p == enumerated(differences)
    assert sign_flip(factor * differences) == p
    assert sign_flip(np.sort(differences)) == p


def test_sign_flip_keeps_its_level_over_all_data_it_may_be_given():
    """Over all sign patterns of one set of sizes, p <= a happens with a chance of at most a."""
    sizes = np.random.default_rng(0).exponential(size=8)
    signs = np.array(list(itertools.product((1, -1), repeat=8)))
    found = np.array([sign_flip(row) for row in signs[:128] * sizes])  # the other half is its mirror image
    for alpha in (0.01, 0.025, 0.05, 0.2):
        assert (found <= alpha).mean() <= alpha
    assert (found <= 0.05).mean() > 0.03


def test_more_seeds_than_can_be_gone_through_are_sampled_from_a_fixed_stream():
    differences = np.random.default_rng(1).normal(0.4, 1, size=18)
    p = sign_flip(differences)
    assert p == sign_flip(differences)
    signs = 1 - 2 * ((np.arange(2**18)[:, None] >> np.arange(18)) & 1)
    exact = (np.abs(signs @ differences) >= abs(differences.sum())).mean()
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 2**16))


@given(ROWS, st.sampled_from([0.025, 0.05, 0.25, 0.5]))
def test_the_least_significant_shift_is_where_the_p_value_turns(differences, alpha):
    shift = least_significant_shift(differences, alpha)
    if 2 * 0.5 ** len(differences) > alpha:
        assert shift == np.inf
        return
    assert sign_flip(differences + shift + 1e-6) <= alpha
    # Just below it, p is above alpha; so it is unless the differences are small there and the other side's.
    below = differences + shift - 1e-6
    assert below.sum() < 0 or sign_flip(below) > alpha


# ------------------------------------------------------------------------------ corrections, sizes


def test_corrections_worked_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.0078125, 0.0078125]).tolist() == [0.015625, 0.015625]
    assert holm([0.02, 0.9]).tolist() == [0.04, 0.9]
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([0.3]).tolist() == [0.3]
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_corrections_keep_the_order_and_lie_between_p_and_bonferroni(values, random):
    order = list(range(len(values)))
    random.shuffle(order)
    p = np.array(values)
    for correct in (holm, benjamini_hochberg):
        found = correct(p)
        assert (found >= p - 1e-15).all()
        assert (found <= np.minimum(len(p) * p, 1) + 1e-12).all()
        assert (np.diff(found[np.argsort(p)]) >= 0).all()
        assert correct(p[order]) == pytest.approx(found[order])
    assert (benjamini_hochberg(p) <= holm(p) + 1e-12).all()


def test_hedges_worked_by_hand():
    # Mean 2, standard deviation 1, two degrees of freedom: J = G(1) / G(1/2).
    assert hedges_dz([1, 2, 3]) == pytest.approx(2 / np.sqrt(np.pi))
    assert hedges_dz([-1, -2, -3]) == pytest.approx(-2 / np.sqrt(np.pi))
    assert hedges_dz(np.arange(-4.0, 5.0)) == 0
    # The usual approximation of J.
    differences = np.random.default_rng(0).normal(1, 1, 8)
    expected = differences.mean() / differences.std(ddof=1) * (1 - 3 / (4 * 7 - 1))
    assert hedges_dz(differences) == pytest.approx(expected, rel=2e-3)


def test_hedges_is_unbiased_for_few_seeds():
    random = np.random.default_rng(0)
    found = [hedges_dz(row) for row in random.normal(0.7, 1, size=(20_000, 5))]
    assert np.mean(found) == pytest.approx(0.7, abs=4 * np.std(found) / np.sqrt(20_000))


def test_equal_differences_have_a_defined_size():
    assert hedges_dz([0, 0, 0, 0]) == 0
    assert hedges_dz([0.1] * 8) == np.inf
    assert hedges_dz([-0.1] * 7) == -np.inf
    assert hedges_dz([0.1 + 0.2, 0.3, 0.3]) == np.inf  # 0.30000000000000004


def test_the_ratio_to_the_null_worked_by_hand():
    assert null_ratio([2, 4], [3, -3]) == 1
    assert null_ratio([2, 4], [-3, 3, -3, 3]) == 1
    assert null_ratio([-6], [3, 3]) == -2  # which of two plain students comes first is arbitrary
    assert null_ratio([1, 2], [0, 0]) == np.inf
    assert null_ratio([-1, -2], [0, 0]) == -np.inf
    assert null_ratio([1, -1], [0, 0]) == 0


@given(ROWS, st.floats(0.01, 100))
def test_sizes_have_no_unit(differences, factor):
    assume(np.ptp(differences) > 0)
    null = differences[::-1] + 1
    assert hedges_dz(factor * differences) == pytest.approx(hedges_dz(differences))
    assert hedges_dz(-differences) == pytest.approx(-hedges_dz(differences))
    assert null_ratio(factor * differences, factor * null) == pytest.approx(null_ratio(differences, null))
    assert null_ratio(differences, -null) == null_ratio(differences, null)


def test_components_worked_by_hand():
    # Rows differ by 2, columns by 1, nothing is left.
    found = variance_components([[0, 1], [2, 3]])
    assert (found.seed, found.image, found.both) == pytest.approx((np.sqrt(2), np.sqrt(0.5), 0))
    # Nothing but interaction: mean square 4; what is left for rows and columns would be negative.
    found = variance_components([[1, -1], [-1, 1]])
    assert (found.seed, found.image, found.both) == pytest.approx((0, 0, 2))


def test_components_are_found_again():
    truth = Components(0.3, 1.0, 2.0)
    random = np.random.default_rng(0)
    squares = [
        np.square(list(vars(variance_components(crossed_values(truth, 30, 60, random))).values())) for _ in range(60)
    ]
    luck = 4 * np.std(squares, axis=0) / np.sqrt(60)
    assert (np.abs(np.mean(squares, axis=0) - [0.09, 1, 4]) < luck).all()
    assert (luck < [0.04, 0.2, 0.2]).all()


# ------------------------------------------------------------------------------------- what is refused

DRAWN = Resamples.draw(LABELS, 5, resamples=10)
VALUES = np.zeros((5, 4, len(LABELS)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Resamples.draw([], 3), "at least one image"),
        (lambda: Resamples.draw([[0, 1]], 3), "at least one image"),
        (lambda: Resamples.draw(LABELS, 0), "must be positive: 0"),
        (lambda: Resamples.draw(LABELS, 3, resamples=0), "must be positive"),
        (lambda: DRAWN.means(VALUES[:4]), r"\(5 seeds, ..., 14 images\), not \(4, 4, 14\)"),
        (lambda: DRAWN.means(VALUES[:, :, :9]), "14 images"),
        (lambda: DRAWN.means(VALUES[0, 0]), "5 seeds"),
        (lambda: DRAWN.means(np.where(np.arange(14) == 3, np.nan, VALUES)), "NaN"),
        (lambda: DRAWN.interval(np.zeros((10, 4))), r"needs shape \(10, 5\)"),
        (lambda: DRAWN.interval(np.zeros((10, 5)), level=1.0), "between 0 and 1"),
        (lambda: pigeonhole_bootstrap(VALUES, VALUES[:, :1], DRAWN, EARLY), "differ in shape"),
        (lambda: sign_flip([0.5]), "at least 2"),
        (lambda: sign_flip([[0.5, 1.0]]), "row of at least 2"),
        (lambda: sign_flip([0.5, np.nan]), "finite"),
        (lambda: hedges_dz([1, 2]), "at least 3"),
        (lambda: null_ratio([], [1]), "at least 1"),
        (lambda: null_ratio([1], []), "at least 1"),
        (lambda: holm([]), "between 0 and 1"),
        (lambda: holm([0.5, 1.1]), "between 0 and 1"),
        (lambda: holm([0.5, np.nan]), "between 0 and 1"),
        (lambda: benjamini_hochberg([-0.1]), "between 0 and 1"),
        (lambda: variance_components([[1, 2]]), "two seeds by two images"),
        (lambda: variance_components([[1, 2], [3, np.inf]]), "finite"),
    ],
)
def test_what_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)
