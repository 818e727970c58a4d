"""All samples within a radius: scores with a bound on their error, then exact differences.

Half the squared distance of a query to a sample is computed by the float32 product of all samples,
as in `nearest_neighbors`. Where it exceeds that of the radius by more than the rounding error, the
sample is out; all others are compared by float64 differences of the samples as given, or by scaled
ones where float64 cannot hold the squares of differences. Batches whose float32 products may
overflow, or are computed at a lower precision, are scored in float64.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._exact_distances import (
    LOST,
    distances_of,
    half_squared,
    mark_lost,
    rounding_error,
    scaled_norms,
)
from skboundary.functional._float64 import float64_device
from skboundary.functional._search_index import (
    INF,
    STRIP,
    ProductTable,
    SearchIndex,
    check_queries,
    chunk_size,
    float64_numbers,
    product_table,
    vectors_of,
)
from skboundary.functional._shares import share_out
from skboundary.functional._shortlist import below, go_on, n_strips_of_block

# About how many are in memory at a time: of a thread of the CPU (4 MB, 512 kB), elsewhere.
_SCORES = 2**20, 2**25
_NUMBERS = 2**16, 2**23  # of the differences of some pairs
_LARGEST = 1e18  # norms whose float32 squares are far from overflowing
_CHECKED, _STRIDE = 64, 1021  # queries of which a score is computed twice, and between the samples
_ROUNDING = 1 + 2.0**-48  # of a root and the division by the scale


class NeighborsWithin(NamedTuple):
    """Samples within a radius; those of the first query first, in the order of indices."""

    counts: Tensor  # (q,) int64: number of neighbors of each query
    distances: Tensor  # (m,) float64
    indices: Tensor  # (m,) int64


def search_radius(
    index: SearchIndex,
    queries: Tensor,
    radius: float,
    *,
    exclude: Tensor | None = None,
    batch_size: int = 512,
) -> NeighborsWithin:
    """Find all samples whose distance from a query, computed in float64, is at most `radius`.

    Parameters
    ----------
    index : SearchIndex
    queries : Tensor of shape (q, d)
        On the device of the samples.
    radius : float
        In the unit of the metric: a squared distance for "sqeuclidean".
    exclude : Tensor of shape (q,), dtype int64, default=None
        For each query the index of a sample not to return, such as the query itself.
    batch_size : int, default=512
        Queries compared at a time by each thread. It does not change the result.

    Returns
    -------
    neighbors : NeighborsWithin
        On the device of the samples (on the CPU where that has no float64).

    Raises
    ------
    ValueError
        When the radius is negative or NaN, or when the shapes of queries and samples, or queries
        and `exclude`, do not match.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_neighbors import build_index, search_radius
    >>> samples = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> counts, distances, indices = search_radius(build_index(samples), samples[:2], 5.0)
    >>> counts, indices
    (tensor([2, 3]), tensor([0, 1, 0, 1, 2]))
    """
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0, got {radius!r}.")
    check_queries(index, queries, exclude, batch_size)
    if not len(queries):
        none = torch.empty(0, dtype=torch.int64, device=float64_device(queries))
        return NeighborsWithin(none, none.double(), none)
    table = product_table(index)

    def share(part: Tensor, of_part: Tensor | None, stop: Event) -> tuple[Tensor, Tensor, Tensor]:
        size = min(batch_size, len(part))
        n_scores = _SCORES[part.device.type != "cpu"]
        strips = n_strips_of_block(len(table.strips), size, n_scores)
        buffer = table.strips.new_empty(strips, size, STRIP)
        batches = part.split(size)
        excludes = [None] * len(batches) if of_part is None else of_part.split(size)
        found = [
            _search_batch(index, table, some, radius, of_some, buffer, stop)
            for some, of_some in zip(batches, excludes, strict=True)
        ]
        counts, distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return counts, distances, indices

    return NeighborsWithin(*(torch.cat(parts) for parts in share_out(share, queries, exclude)))


@torch.no_grad()
def _search_batch(
    index: SearchIndex,
    table: ProductTable,
    queries: Tensor,
    radius: float,
    exclude: Tensor | None,
    buffer: Tensor,
    stop: Event,
) -> tuple[Tensor, Tensor, Tensor]:
    vectors, zero = vectors_of(queries, index.metric, index.scale)
    exclude = None if exclude is None else exclude.to(vectors.device)
    found = []
    for query, sample in _candidates(index, table, vectors, zero, radius, buffer, stop):
        if exclude is not None:
            others = sample != exclude[query]
            query, sample = query[others], sample[others]
        distances = _distances(index, queries, vectors, zero, query, sample)
        near = distances <= radius
        found.append((query[near], sample[near], distances[near]))
    query, sample, distances = (torch.cat(parts) for parts in zip(*found, strict=True))
    counts = torch.bincount(query, minlength=len(queries))
    order = (query * len(index.samples) + sample).argsort()
    return counts, distances[order], sample[order]


def _candidates(
    index: SearchIndex,
    table: ProductTable,
    vectors: Tensor,
    zero: Tensor,
    radius: float,
    buffer: Tensor,
    stop: Event,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of a query and a sample that scores cannot rule out, block by block."""
    centered = vectors - index.center
    squares = centered.square().sum(1)
    half = torch.full_like(squares, _half_squared_radius(index, radius))
    if (squares.sqrt() + index.radius < _LARGEST).all():
        queries = centered.to(table.strips.device, torch.float32)
        error = rounding_error(torch.float32, vectors.shape[1], squares, half)
        limit = (half + error - (squares + zero) / 2).to(queries)
        limit = torch.nextafter(limit, torch.full_like(limit, INF))
        unchecked = True
        for scores, query, sample in below(table, queries, limit, buffer, stop):
            if unchecked and not _are_precise(table, centered, squares, scores):
                break
            unchecked = False
            yield query.to(vectors.device), sample.to(vectors.device)
        else:
            return
    yield from _float64_candidates(index, centered, squares, zero, half, stop)


def _are_precise(table: ProductTable, centered: Tensor, squares: Tensor, scores: Tensor) -> bool:
    """Whether float32 products are as precise as their dtype, by one score of some queries.

    They are not where torch is told to compute them in TF32 or bfloat16.
    """
    query = torch.arange(0, len(centered), -(-len(centered) // _CHECKED), device=scores.device)
    place = query * _STRIDE % (len(scores) * STRIP)
    strip, column = place // STRIP, place % STRIP
    own = query.to(centered.device)
    products = table.strips[strip, :, column].to(centered) * centered[own]
    exact = table.halves[strip, column].to(centered) - products.sum(1)
    found = scores[strip, query, column].to(centered)
    halves = exact + squares[own] / 2
    allowed = rounding_error(torch.float32, centered.shape[1], squares[own], halves)
    return not bool(((found - exact).abs() > allowed).any())  # NaN beyond the last sample


def _float64_candidates(
    index: SearchIndex, centered: Tensor, squares: Tensor, zero: Tensor, half: Tensor, stop: Event
) -> Iterator[tuple[Tensor, Tensor]]:
    n, d = index.samples.shape
    limit = (half + rounding_error(torch.float64, d, squares, half))[:, None]
    step = min(chunk_size(centered), max(1, float64_numbers(centered.device) // len(centered)))
    for start in range(0, n, step):
        go_on(stop)
        samples, sample_zero = vectors_of(
            index.samples[start : start + step], index.metric, index.scale
        )
        samples -= index.center
        shift = (samples.square().sum(1) + sample_zero + (squares + zero)[:, None]) / 2
        scores = torch.addmm(shift, centered, samples.T, alpha=-1)
        # not above, rather than below: an overflow to NaN stays in
        query, column = (~(scores > limit)).nonzero().unbind(1)
        yield query, start + column


def _half_squared_radius(index: SearchIndex, radius: float) -> float:
    """Half the squared distance at the radius, or slightly more."""
    if index.metric == "cosine":
        return radius * _ROUNDING
    scaled = radius * index.scale
    return scaled * (scaled if index.metric == "euclidean" else index.scale) / 2 * _ROUNDING


def _distances(
    index: SearchIndex,
    queries: Tensor,
    vectors: Tensor,
    zero: Tensor,
    query: Tensor,
    sample: Tensor,
) -> Tensor:
    """Distances (m,) of pairs of a query and a sample by differences."""
    halves = torch.empty(len(query), dtype=torch.float64, device=vectors.device)
    step = max(1, _NUMBERS[vectors.device.type != "cpu"] // vectors.shape[1])
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        i, j = query[part], sample[part, None]
        halves[part] = half_squared(index, vectors.index_select(0, i), zero[i], j)[:, 0]
    mark_lost(index, queries, query, sample, halves)
    lost = (halves == LOST).nonzero().squeeze(1)
    distances = distances_of(index, halves)
    for some in lost.split(step) if len(lost) else ():
        pairs = (index.samples, sample[some]), (queries, query[some])
        first, second = (vectors_of(x[i.to(x.device)], index.metric)[0] for x, i in pairs)
        norms = scaled_norms(first.sub_(second))
        distances[some] = norms if index.metric == "euclidean" else norms.square()
    return distances
