"""All pairs of images at once: distances a tile at a time on any torch device, and what is gathered from them.

A distance is the same both ways, so a tile of rows I and columns J serves J's rows too and is computed
once. One matrix product gives a tile; it rounds, so what depends on the order of near points is settled
afterwards by differences, for those pairs alone that rounding could have put in the wrong order.
Memory: a few tiles, and what is gathered for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdpipe.measures.distances import Points, exact_squared, row_slices
from kdpipe.measures.registry import Array

TILE = 2048
# Candidates beyond k: enough that rounding seldom asks for a second look at a row.
SPARE = 8
# Distances that rounding may have changed by more than this share of themselves are computed again.
_TOLERANCE = 1e-4
# Below this share of within-class scatter, float32 would lose digits of the distances within classes.
_COLLAPSED = 1e-2


@dataclass(frozen=True)
class Tiles:
    """Squared distances between all rows of ``of``, divided by ``of.scale`` squared, tile by tile.

    Attributes:
        rows: (N, d) centred, on the device, in the precision of the matrix product.
        identical: (N,) index of the first row identical to each, or None if no two are.
    """

    of: Points
    rows: Tensor
    norms: Tensor
    identical: Tensor | None

    @classmethod
    def of_points(cls, of: Points, device: str | torch.device = "cpu", double: bool = False) -> Tiles:
        """``double``: multiply in float64, where distances within classes are what matters and are small."""
        rows = torch.from_numpy(of.in_precision(np.float64 if double else np.float32)).to(device)
        identical = torch.from_numpy(of.first).to(device) if of.has_duplicates else None
        return cls(of, rows, rows.square().sum(1), identical)

    def __iter__(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows I, columns J (never left of I) and the tile (|I|, |J|): never negative, 0 between identical rows.

        The tile is the receiver's to change. On the diagonal of the whole it is 0.
        """
        n = len(self.rows)
        for top in range(0, n, TILE):
            here = slice(top, min(top + TILE, n))
            for left in range(top, n, TILE):
                there = slice(left, min(left + TILE, n))
                squared = torch.addmm(self.norms[there], self.rows[here], self.rows[there].T, alpha=-2)
                squared += self.norms[here, None]
                squared.clamp_(min=0)
                if self.identical is not None:
                    squared.masked_fill_(self.identical[here, None] == self.identical[there], 0)
                if left == top:
                    squared.fill_diagonal_(0)
                yield here, there, squared

    def rounding(self, rows: Array, squared: Array) -> Array:
        """How far a squared distance (B, ...) of ``rows`` (B,) may be from the truth after cancellation.

        A point at distance r of x has a norm of at most |x| + r, hence 2|x|^2 + 2r^2 under the root. The sum
        of d terms of one sign rounds d times by up to eps / 2, at random: .3 sqrt(d) eps; this is thrice that.
        """
        epsilon = torch.finfo(self.rows.dtype).eps * max(np.sqrt(self.rows.shape[1]), 4.0)
        norms = self.norms.cpu().numpy().astype(np.float64)[rows]
        return np.asarray(epsilon * (3 * norms.reshape(-1, *[1] * (squared.ndim - 1)) + 2 * squared))


class Nearest:
    """The nearest candidates of each row, gathered from tiles."""

    def __init__(self, tiles: Tiles, k: int) -> None:
        n = len(tiles.rows)
        self.tiles, self.k = tiles, k
        self.kept = min(k + SPARE, n - 1)
        self.squared = torch.full((n, self.kept), torch.inf, dtype=tiles.rows.dtype, device=tiles.rows.device)
        self.indices = torch.full((n, self.kept), -1, dtype=torch.int64, device=tiles.rows.device)

    def see(self, here: slice, there: slice, squared: Tensor) -> None:
        """Take in a tile, with infinity from each row to itself."""
        self._merge(here, there.start, squared)
        if there.start != here.start:
            self._merge(there, here.start, squared.T.contiguous())

    def _merge(self, rows: slice, start: int, squared: Tensor) -> None:
        near, where = self._candidates(self.squared[rows], squared)
        squared = torch.cat([self.squared[rows], near], 1)
        indices = torch.cat([self.indices[rows], where + start], 1)
        self.squared[rows], best = squared.topk(self.kept, largest=False, sorted=False)
        self.indices[rows] = indices.gather(1, best)

    def _candidates(self, known: Tensor, squared: Tensor) -> tuple[Tensor, Tensor]:
        """What of a tile may be among a row's nearest, and its columns: few, once the nearest so far are near."""
        farthest = known.amax(1, keepdim=True)
        if torch.isfinite(farthest).all():
            row, column = (squared < farthest).nonzero(as_tuple=True)
            counts = torch.bincount(row, minlength=len(squared))
            widest = int(counts.max())
            if widest < 4 * self.kept:
                place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
                near = squared.new_full((len(squared), widest), torch.inf)
                where = column.new_zeros(len(squared), widest)
                near[row, place], where[row, place] = squared[row, column], column
                return near, where
        return squared.topk(min(self.kept, squared.shape[1]), largest=False, sorted=False)

    def settled(self) -> tuple[Array, Array]:
        """Indices (N, k) int32, nearest first and ties to the smaller index, and distances (N, k) float32."""
        n, k, of = len(self.squared), self.k, self.tiles.of
        indices, distances = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
        candidates, rounded = self.indices.cpu().numpy(), self.squared.cpu().numpy().astype(np.float64)
        for part in row_slices(n, self.kept):
            rows = np.arange(part.start, part.stop)
            nearest, squared = _in_order(self.tiles, rows, candidates[part], rounded[part], k)
            indices[part], distances[part] = nearest, np.sqrt(squared) * of.scale
        return indices, distances


def _in_order(tiles: Tiles, rows: Array, candidates: Array, rounded: Array, k: int) -> tuple[Array, Array]:
    """The k nearest (B, k) of ``candidates`` (B, m) and their squared distances.

    Neighbours in the list that rounding could have exchanged are compared by exact distances; a row for
    which it could have kept a nearer point off the list is done again with every point in question.
    """
    order = np.argsort(rounded, axis=1, kind="stable")
    candidates, rounded = np.take_along_axis(candidates, order, 1), np.take_along_axis(rounded, order, 1)
    bound = tiles.rounding(rows, rounded)
    doubtful = bound > _TOLERANCE * rounded
    close = rounded[:, 1:] - bound[:, 1:] <= rounded[:, :-1] + bound[:, :-1]
    doubtful[:, 1:] |= close
    doubtful[:, :-1] |= close
    row, column = np.nonzero(doubtful)
    squared = rounded.copy()
    if len(row):
        squared[row, column] = exact_squared(tiles.of, rows[row], candidates[row, column][:, None])[:, 0]
    order = np.lexsort((candidates, squared), axis=-1)[:, :k]
    indices, nearest = np.take_along_axis(candidates, order, 1), np.take_along_axis(squared, order, 1)
    if candidates.shape[1] == len(tiles.of) - 1:
        return indices, nearest
    limit = nearest[:, -1] + 2 * tiles.rounding(rows, nearest[:, -1])
    for again in np.flatnonzero(rounded[:, -1] <= limit):
        indices[again], nearest[again] = _done_again(tiles, int(rows[again]), float(limit[again]), k)
    return indices, nearest


def _done_again(tiles: Tiles, row: int, limit: float, k: int) -> tuple[Array, Array]:
    """One row's neighbours among all points at most ``limit`` away; identical points are measured once."""
    of = tiles.of
    squared = tiles.norms + tiles.norms[row] - 2 * (tiles.rows @ tiles.rows[row])
    squared[row] = torch.inf
    if tiles.identical is not None:
        same = tiles.identical == tiles.identical[row]
        same[row] = False
        squared[same] = 0
    candidates = np.flatnonzero(squared.cpu().numpy() <= limit)
    distinct, which = np.unique(of.first[candidates], return_inverse=True)
    exact = exact_squared(of, np.full(len(distinct), row), distinct[:, None])[:, 0][which]
    order = np.lexsort((candidates, exact))[:k]
    return candidates[order], exact[order]


@dataclass(frozen=True)
class ClassSums:
    """For each row the sums over each class: of distances, and of exp(-squared distance / temperature).

    Attributes:
        distances: (N, K) float64, a row's own place counts 0.
        affinities: (N, K) float64 without the row itself.
        temperature: the mean squared distance between different rows, in the units of X squared.
    """

    distances: Array
    affinities: Array
    temperature: float


def all_pairs(
    of: Points, memberships: Sequence[Array], k: int, device: str | torch.device = "cpu"
) -> tuple[list[ClassSums], tuple[Array, Array] | None]:
    """Everything that is asked of the distances between all rows, from one pass.

    Args:
        memberships: class of each row (N,), as 0 to K - 1, once for each labelling.
        k: neighbours to find; 0 for none.

    Returns:
        sums for each labelling, and neighbours as :func:`nearest_neighbours` gives them.
    """
    tiles = Tiles.of_points(of, device)
    members, widths = _members(memberships, tiles.rows)
    if any(_collapsed(tiles, part) for part in members.split(widths)):
        tiles = Tiles.of_points(of, device, double=True)
        members = members.double()
    nearest = Nearest(tiles, k) if k else None
    mean = 2 * float(tiles.norms.double().sum()) / (len(of) - 1)
    sums = torch.zeros(2, *members.shape, dtype=torch.float64, device=members.device)
    for here, there, squared in tiles:
        if memberships:
            _add(sums[0], here, there, squared.sqrt(), members)
        if here.start == there.start:
            squared.fill_diagonal_(torch.inf)
        if nearest:
            nearest.see(here, there, squared)
        if memberships and mean > 0:
            _add(sums[1], here, there, squared.div_(-mean).exp_(), members)
    found = nearest.settled() if nearest else None
    distances, affinities = (part.T.cpu().numpy() for part in sums)
    parts = [slice(stop - width, stop) for stop, width in zip(np.cumsum(widths), widths, strict=True)]
    return [ClassSums(distances[:, p] * of.scale, affinities[:, p], mean * of.scale**2) for p in parts], found


def _add(sums: Tensor, here: slice, there: slice, tile: Tensor, members: Tensor) -> None:
    """Add a tile's rows and columns to the sums (sum of K, N); this way round the products are many times faster."""
    sums[:, here] += members[:, there] @ tile.T
    if here.start != there.start:
        sums[:, there] += members[:, here] @ tile


def _members(memberships: Sequence[Array], like: Tensor) -> tuple[Tensor, list[int]]:
    """All labellings side by side, as 0 and 1 (sum of K, N), and each one's K."""
    if not memberships:
        return like.new_zeros(0, len(like)), []
    parts = [torch.nn.functional.one_hot(torch.from_numpy(m.astype(np.int64))).T for m in memberships]
    return torch.cat(parts).to(like).contiguous(), [len(part) for part in parts]


def _collapsed(tiles: Tiles, members: Tensor) -> bool:
    """Whether the scatter within classes is but a small share of all scatter."""
    whole, counts = float(tiles.norms.sum()), members.sum(1)
    means = members @ tiles.rows / counts[:, None]
    between = float((counts * means.square().sum(1)).sum())
    return whole > 0 and 1 - between / whole < _COLLAPSED
