"""Known factors on images worked out by hand; how much of them a layer holds before and after they are taken out."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.linear_model import LinearRegression, RidgeCV

from kdpipe.measures import distances, factors
from kdpipe.measures.factors import (
    FACTORS,
    PENALTIES,
    brightness,
    colourfulness,
    contrast,
    edge_density,
    explained_share,
    folds_of,
    hue,
    residual_share,
    split,
)

OF_PIXELS = [name for name, factor in FACTORS.items() if factor.takes == "images"]
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def painted(*pixels, width: int = 2):
    """One image (1, 3, H, width) of the pixels given row by row."""
    return np.array(pixels, np.uint8).reshape(1, -1, width, 3).transpose(0, 3, 1, 2)


def noise_images(n: int = 20, size: int = 8, seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8)


# ---------------------------------------------------------------------------------- brightness ...


def test_brightness_and_contrast_by_hand():
    halves = painted(WHITE, BLACK, WHITE, BLACK)
    assert brightness(halves) == pytest.approx([0.5])
    assert contrast(halves) == pytest.approx([0.5])
    assert brightness(painted(RED, GREEN, BLUE, BLACK)) == pytest.approx([1 / 4])
    assert brightness(painted(RED, RED)) == pytest.approx([0.299])
    assert contrast(painted(RED, BLUE)) == pytest.approx([(0.299 - 0.114) / 2])
    assert contrast(painted((7, 80, 33), (7, 80, 33))).tolist() == [0]


def test_a_grey_image_reads_the_same_in_one_channel_and_in_three_and_has_no_colour():
    grey = noise_images()[:, :1]
    repeated = np.repeat(grey, 3, axis=1)
    for factor in (FACTORS[name] for name in OF_PIXELS):
        assert (factor.function(grey) == factor.function(repeated)).all()
    assert brightness(grey) == pytest.approx(grey.mean(axis=(1, 2, 3)) / 255)
    assert (hue(grey) == 0).all()
    assert (colourfulness(grey) == 0).all()


@pytest.mark.parametrize(
    ("colour", "degrees"),
    [(RED, 0), ((255, 255, 0), 60), (GREEN, 120), ((0, 255, 255), 180), (BLUE, 240), ((255, 0, 255), 300)],
)
def test_hue_of_the_pure_colours(colour, degrees):
    radians = np.deg2rad(degrees)
    assert hue(painted(colour, colour))[0] == pytest.approx([np.cos(radians), np.sin(radians)], abs=1e-12)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_hue_of_one_colour_is_that_of_the_colour_model_to_within_its_hexagon(colour):
    found = hue(painted(colour, colour))[0]
    if len(set(colour)) == 1:
        assert found.tolist() == [0, 0]
    else:
        angle = 2 * np.pi * colorsys.rgb_to_hsv(*colour)[0]
        assert np.hypot(*found) == pytest.approx(1)
        assert found @ [np.cos(angle), np.sin(angle)] > np.cos(np.deg2rad(1.2))


def test_hue_is_circular_and_weighted_by_colour():
    either_side_of_red = hue(painted((255, 20, 0), (255, 0, 20)))[0]
    assert either_side_of_red[0] > 0.99
    assert either_side_of_red[1] == pytest.approx(0, abs=1e-12)
    assert hue(painted(RED, (0, 255, 255)))[0] == pytest.approx([0, 0], abs=1e-12)
    assert hue(painted(RED, WHITE, BLACK, RED))[0] == pytest.approx([1, 0])
    assert np.hypot(*hue(painted(RED, GREEN))[0]) == pytest.approx(0.5)
    assert hue(painted((90, 30, 30), (200, 200, 200)))[0] == pytest.approx([1, 0])


def test_colourfulness_equals_its_formula():
    images = noise_images().astype(float)
    rg, yb = images[:, 0] - images[:, 1], (images[:, 0] + images[:, 1]) / 2 - images[:, 2]
    for i, found in enumerate(colourfulness(noise_images())):
        spread = np.sqrt(np.var(rg[i]) + np.var(yb[i]))
        assert found == pytest.approx(spread + 0.3 * np.sqrt(np.mean(rg[i]) ** 2 + np.mean(yb[i]) ** 2))
    # Red and black halves: rg 255 or 0, yb 127.5 or 0.
    by_hand = np.hypot(127.5, 63.75) + 0.3 * np.hypot(127.5, 63.75)
    assert colourfulness(painted(RED, BLACK)) == pytest.approx([by_hand])


def test_edges_equal_scipys_image_by_image():
    images = noise_images()
    luma = np.einsum("c,bchw->bhw", [0.299, 0.587, 0.114], images) / 255
    expected = [np.hypot(ndimage.sobel(one, 0), ndimage.sobel(one, 1)).mean() / 4 for one in luma]
    assert edge_density(images) == pytest.approx(expected)


def test_edges_by_hand():
    step = np.zeros((1, 1, 6, 8), np.uint8)
    step[..., 4:] = 255
    assert edge_density(step) == pytest.approx([2 / 8])  # two columns of eight see the full step
    assert edge_density(step.transpose(0, 1, 3, 2)) == pytest.approx([2 / 8])
    assert edge_density(np.full((2, 3, 5, 5), 77, np.uint8)).tolist() == [0, 0]
    assert edge_density(painted(RED, width=1)).tolist() == [0]


@pytest.mark.parametrize("name", OF_PIXELS)
def test_factors_are_per_image_whatever_the_block_and_ignore_mirroring(name, monkeypatch):
    images, function = noise_images(n=11), FACTORS[name].function
    whole = function(images)
    assert len(whole) == 11
    assert np.isfinite(whole).all()
    assert function(images[::-1])[::-1] == pytest.approx(whole)
    assert function(images[..., ::-1]) == pytest.approx(whole)
    assert abs(function(images[:, [2, 1, 0]]) - whole).max() > 1e-3
    monkeypatch.setattr(distances, "BLOCK_VALUES", 500)
    assert function(images) == pytest.approx(whole, abs=1e-12)


# ----------------------------------------------------------------------------- read off a layer


def layer(n: int = 150, d: int = 12, seed: int = 0, strength: float = 0.5):
    """X (N, d) with a factor planted along one direction, the factor (N,), and labels of a class along another."""
    random = np.random.default_rng(seed)
    f, y = random.normal(size=n), random.integers(0, 2, n)
    X = random.normal(size=(n, d)) + strength * np.outer(f, random.normal(size=d))
    X[:, 0] += 6 * y
    return X, f, y


@pytest.mark.parametrize(("n", "d"), [(150, 12), (60, 200)])
@pytest.mark.parametrize("columns", [1, 2])
def test_explained_share_equals_scikit_learns_ridge_on_the_same_folds(n, d, columns):
    X, f, _ = layer(n, d)
    target = np.column_stack([f, X[:, 1] ** 2])[:, :columns]
    folds, left, total = folds_of(n), 0.0, 0.0
    for fold in range(factors.FOLDS):
        train, test = folds != fold, folds == fold
        largest = np.linalg.norm(X[train] - X[train].mean(axis=0), 2) ** 2
        model = RidgeCV(alphas=PENALTIES * largest).fit(X[train], target[train])
        left += np.square(target[test] - model.predict(X[test]).reshape(-1, columns)).sum()
        total += np.square(target[test] - target[train].mean(axis=0)).sum()
    assert explained_share(X, target) == pytest.approx(1 - left / total, abs=1e-6)


def test_a_factor_that_the_layer_holds_is_explained_and_noise_is_not():
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 6))
    f = X @ random.normal(size=6)
    assert explained_share(X, f) > 0.9999
    # R² of n images, half noise: standard error 2 R (1 - R²) / sqrt(n).
    luck = 4 * 2 * np.sqrt(0.5) * 0.5 / np.sqrt(400)
    assert explained_share(X, f + f.std() * random.normal(size=400)) == pytest.approx(0.5, abs=luck)
    assert -0.05 < explained_share(X, random.normal(size=400)) < 0.02
    wide = random.normal(size=(60, 300))
    assert np.mean([explained_share(wide, random.normal(size=60)) for _ in range(8)]) < 0.02


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_explained_share_ignores_rotation_translation_and_scale(seed):
    X, f, _ = layer(n=60, d=8, seed=seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(8, 8)))[0]
    value = explained_share(X, f)
    assert explained_share(3 * X @ turn + 2, 5 - 1e30 * f) == pytest.approx(value, abs=1e-6)
    assert explained_share(1e30 * X, 1e-30 * f) == pytest.approx(value, abs=1e-6)
    assert explained_share(np.hstack([X, 0 * X]), f) == pytest.approx(value, abs=1e-6)


def test_beside_a_column_that_dwarfs_the_others_they_are_not_seen():
    """Penalties are shares of the largest eigenvalue, so that a stretched column is all there is."""
    X, f, _ = layer(n=60, d=8)
    other = np.random.default_rng(1).normal(size=(60, 1))
    assert explained_share(np.hstack([X, 1e9 * other]), f) == pytest.approx(explained_share(other, f), abs=1e-6)
    assert explained_share(np.hstack([X, 1e9 * other]), other) > 0.9999


def test_where_a_circular_factor_starts_does_not_matter():
    X, f, _ = layer()
    angle = f + X[:, 0]
    circle, turned = (np.column_stack([np.cos(a), np.sin(a)]) for a in (angle, angle + 1))
    assert explained_share(X, turned) == pytest.approx(explained_share(X, circle), abs=1e-9)
    assert explained_share(X, circle[:, 0]) != pytest.approx(explained_share(X, turned[:, 0]), abs=1e-3)


def test_the_mean_of_the_training_part_scores_zero():
    X, f, _ = layer()
    for constant in (0.0, 0.1):
        assert explained_share(np.full_like(X, constant), f) == 0
        assert explained_share(X, np.full_like(f, constant)) == 0
    assert explained_share(X, hue(noise_images(150)[:, :1])) == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_layers_and_factors_of_any_number_type_are_read(dtype):
    X, f, _ = layer()
    value = explained_share((10 * X).astype(dtype), (100 * f).astype(dtype))
    assert value == pytest.approx(explained_share(X, f), abs=0.02)


def test_ten_images_in_one_column_with_duplicates_give_a_number():
    X = np.repeat(np.arange(5.0), 2)[:, None]
    assert np.isfinite(explained_share(X, X[:, 0]))
    assert np.isfinite(split(X, X[::-1])).all()


# ------------------------------------------------------------------------------------ taken out


def test_the_parts_add_up_and_equal_scikit_learns_slopes_of_the_other_folds():
    X, f, _ = layer()
    F = np.column_stack([f, np.random.default_rng(1).normal(size=150) * 1e6 + 1e6])
    explained, residual = split(X, F)
    assert explained + residual + X.mean(axis=0) == pytest.approx(X, abs=1e-9)
    folds = folds_of(150)
    for fold in range(factors.FOLDS):
        model = LinearRegression().fit(F[folds != fold], X[folds != fold])
        expected = (F[folds == fold] - F.mean(axis=0)) @ model.coef_.T
        assert explained[folds == fold] == pytest.approx(expected, abs=1e-8)


def test_an_images_slopes_do_not_know_the_image():
    X, f, _ = layer()
    changed = X.copy()
    changed[7] += 1000
    assert split(changed, f)[0][7] == pytest.approx(split(X, f)[0][7], abs=1e-9)
    assert abs(split(changed, f)[0] - split(X, f)[0]).max() > 1


def test_what_is_taken_out_cannot_be_read_again_and_the_rest_can():
    for seed in range(3):
        X, f, y = layer(n=300, d=40, seed=seed)
        assert explained_share(X, f) > 0.8
        assert residual_share(X, f, f) < 0.02
        assert explained_share(split(X, f)[0], f) > 0.99
        assert residual_share(X, f, y) > 0.8
        assert explained_share(split(X, f)[0], y) < 0.05


def test_a_wide_layer_of_noise_does_not_give_a_factor_away_through_its_slopes():
    random = np.random.default_rng(0)
    values = [residual_share(random.normal(size=(200, 150)), f, f) for f in random.normal(size=(5, 200))]
    assert max(values) < 0.03


def test_a_residual_keeps_what_is_not_linear_in_the_factor():
    random = np.random.default_rng(0)
    f = random.normal(size=400)
    X = np.column_stack([f, f**2, random.normal(size=400)])
    assert residual_share(X, f, f**2) > 0.95
    assert residual_share(X, np.column_stack([f, f**2]), f**2) < 0.02


def test_constant_and_repeated_factors_take_out_nothing_more():
    X, f, _ = layer()
    explained = split(X, f)[0]
    repeated = np.column_stack([f, np.full_like(f, 0.1), 3 - 2 * f])
    assert split(X, repeated)[0] == pytest.approx(explained, abs=1e-9)
    assert (split(X, np.full_like(f, 0.1))[0] == 0).all()
    assert split(X * 1e30, f * 1e-30)[0] == pytest.approx(explained * 1e30, rel=1e-6, abs=1e21)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_split_follows_rotation_and_scale_of_the_layer_and_ignores_units_of_the_factors(seed):
    X, f, _ = layer(n=40, d=5, seed=seed)
    F = np.column_stack([f, np.random.default_rng(seed).normal(size=40)])
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
    explained, residual = split(X, F)
    turned, left = split(2 * X @ turn + 3, F * [100, -0.01] + 5)
    assert turned == pytest.approx(2 * explained @ turn, abs=1e-8)
    assert left == pytest.approx(2 * residual @ turn, abs=1e-8)


# ------------------------------------------------------------------------------- what is refused


X0, F0, _ = layer(n=20)
IMAGES = noise_images(n=2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: brightness(IMAGES / 255), "uint8"),
        (lambda: hue(IMAGES[0]), "uint8"),
        (lambda: contrast(IMAGES[:, :2]), "1 or 3"),
        (lambda: edge_density(IMAGES[:0]), "uint8"),
        (lambda: colourfulness(IMAGES.transpose(0, 2, 3, 1)), "1 or 3"),
        (lambda: explained_share(X0[:9], F0[:9]), "at least 10 rows"),
        (lambda: explained_share(X0, F0[:9]), "each of the 20 images"),
        (lambda: explained_share(X0, F0[:, None, None]), "each of the 20 images"),
        (lambda: explained_share(X0, np.empty((20, 0))), "each of the 20 images"),
        (lambda: explained_share(X0, F0 * np.nan), "factor holds NaN"),
        (lambda: explained_share(X0 * np.inf, F0), "NaN"),
        (lambda: split(X0, np.ones((20, 10))), "10 factors need at least 22 images"),
        (lambda: residual_share(X0, F0[:9], F0), "each of the 20 images"),
        (lambda: residual_share(X0, F0, F0[:9]), "each of the 20 images"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(call, says):
    with pytest.raises(ValueError, match=says) as raised:
        call()
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("classes", [2, 7])
def test_the_teachers_doubt_is_in_bits_from_none_to_that_of_a_guess(classes):
    entropy = FACTORS["teacher_entropy"].function
    logits = np.random.default_rng(0).normal(size=(20, classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert entropy(logits) == pytest.approx(-(p * np.log2(p)).sum(axis=1))
    assert entropy(logits + 17) == pytest.approx(entropy(logits))
    assert entropy(np.zeros((3, classes))) == pytest.approx(np.full(3, np.log2(classes)))
    assert entropy(100 * np.eye(classes)) == pytest.approx(np.zeros(classes), abs=1e-9)
