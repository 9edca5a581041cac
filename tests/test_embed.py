"""Embeddings: what the two views keep, and what a file of vectors gives back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdpipe.errors import ArtifactError
from kdpipe.representation.embed import gap, projection, read_embedding, write_embedding


def test_gap_is_the_mean_over_positions():
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert gap(maps).tolist() == [[5.5, 17.5]]


def test_a_small_map_is_left_as_it_is():
    maps = torch.randn(3, 8, 8, 8)
    assert torch.equal(projection(maps), maps.flatten(1))


def test_a_projection_is_fixed_linear_and_keeps_distances():
    maps = torch.randn(40, 32, 12, 12, generator=torch.Generator().manual_seed(0))
    out = projection(maps)
    assert out.shape == (40, 512)
    torch.testing.assert_close(projection(maps[7:9]), out[7:9], rtol=1e-4, atol=1e-3)  # each row for itself
    torch.testing.assert_close(projection(2 * maps[:5] - maps[5:10]), 2 * out[:5] - out[5:10], rtol=1e-4, atol=1e-2)
    ratio = torch.pdist(out) / torch.pdist(maps.flatten(1))
    assert abs(ratio.mean() - 1) < 0.05 and ratio.std() < 0.06


def test_vectors_come_back_within_half_precision(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    write_embedding(tmp_path / "e.parquet", vectors, np.arange(20, dtype=np.int32))
    back = read_embedding(tmp_path / "e.parquet")
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, vectors, rtol=1e-3)
    assert (back == vectors.astype(np.float16)).all()


@pytest.mark.parametrize("largest", [1.0, 32_769.0, 65_504.0, 65_535.0, 65_536.0, -1e6, 1e30])
def test_large_values_come_back_as_well(tmp_path, largest):
    vectors = np.linspace(0, largest, 30, dtype=np.float32).reshape(10, 3)
    write_embedding(tmp_path / "e.parquet", vectors, np.arange(10, dtype=np.int32))
    np.testing.assert_allclose(read_embedding(tmp_path / "e.parquet"), vectors, rtol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    vectors = np.zeros((3, 2), np.float32)
    vectors[1, 1] = value
    with pytest.raises(ArtifactError, match=r"e\.parquet: .* diverged"):
        write_embedding(tmp_path / "e.parquet", vectors, np.arange(3, dtype=np.int32))
    assert not list(tmp_path.iterdir())
