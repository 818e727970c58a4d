"""Exact k nearest neighbors: one matrix product, a bound on its error, exact differences.

Where lower bounds of the distances rule out nearly all samples at less cost than this product, they
do so (`_bounded_search`); which of the two serves is found by timing (`_search_methods`) and does
not show in the result. The product:

Half the squared distance of a query q to a sample x is ``|x|^2 / 2 - q.x`` plus a term that all
samples share, so one float32 product with the centered samples ranks them. The samples are cut into
strips so narrow that their scores are still in the cache when the minima of groups of scores are
taken. What ranks near the top is compared again by float64 differences of the samples as given, and
a bound on the product's rounding error decides whether any other sample could belong there. The few
queries for which it cannot be ruled out are searched once more in float64. Where float64 cannot
hold the squares of one query's differences at any scale, each difference is scaled separately.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from functools import partial
from threading import Event
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._bounded_search import search_bounded
from skboundary.functional._exact_distances import (
    LOST,
    distances_of,
    half_squared,
    mark_lost,
    rounding_error,
    search_float64,
    search_scaled,
    sort_neighbors,
)
from skboundary.functional._float64 import float64_device
from skboundary.functional._radius_search import NeighborsWithin, search_radius
from skboundary.functional._search_index import (
    INF,
    STRIP,
    BoundTable,
    Method,
    ProductTable,
    SearchIndex,
    SearchTables,
    build_product_table,
    check_queries,
    chunk_size,
    power_of_two_scale,
    product_table,
    vectors_of,
)
from skboundary.functional._search_methods import bound_table, count_unsettled, method_for
from skboundary.functional._shares import share_out
from skboundary.functional._shortlist import SCORES, n_strips_of_block, shortlist

__all__ = [
    "Neighbors",
    "NeighborsWithin",
    "SearchIndex",
    "build_index",
    "merge",
    "search",
    "search_radius",
]

_Found = tuple[Tensor, Tensor, Tensor]  # half squared distances, indices, which are proven

_SPARE = 4  # samples on the shortlist beyond k
_ALONE = 8  # queries searched together by lower bounds when they have too many candidates
_FEW = 128  # queries searched together in float64
_LARGEST = torch.finfo(torch.float64).max


class Neighbors(NamedTuple):
    """Nearest samples of each query, nearest first, the lowest index first among equals."""

    distances: Tensor  # (q, k) float64
    indices: Tensor  # (q, k) int64


def build_index(samples: Tensor, metric: str = "euclidean") -> SearchIndex:
    """Prepare samples for `search`.

    Parameters
    ----------
    samples : Tensor of shape (n, d)
        Finite floating numbers. They are not copied.
    metric : {"euclidean", "sqeuclidean", "cosine"}, default="euclidean"
        A zero vector has the cosine distance 1 to every vector.

    Returns
    -------
    index : SearchIndex
        Its table takes as much memory as float32 samples.

    Raises
    ------
    ValueError
        When there is no sample or the metric is unknown.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_neighbors import build_index, search
    >>> index = build_index(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]))
    >>> search(index, torch.tensor([[3.0, 5.0]]), k=2).indices
    tensor([[1, 2]])
    """
    if metric not in ("euclidean", "sqeuclidean", "cosine"):
        raise ValueError(f"metric={metric!r}: use 'euclidean', 'sqeuclidean' or 'cosine'.")
    if samples.ndim != 2 or len(samples) == 0:
        raise ValueError(f"samples must have shape (n, d) with n >= 1, got {tuple(samples.shape)}.")
    n = len(samples)
    scale = 1.0 if metric == "cosine" else power_of_two_scale(samples)
    center = vectors_of(samples[:1], metric)[0].squeeze(0).zero_()
    for some in samples.split(chunk_size(samples)):
        center += vectors_of(some, metric, scale)[0].sum(0)
    center /= n
    table, radius = build_product_table(samples, center, metric, scale)
    return SearchIndex(samples, center, radius, metric, scale, SearchTables(table))


def search(
    index: SearchIndex,
    queries: Tensor,
    k: int,
    *,
    exclude: Tensor | None = None,
    batch_size: int = 512,
) -> Neighbors:
    """Find the k nearest samples of each query.

    Parameters
    ----------
    index : SearchIndex
    queries : Tensor of shape (q, d)
        On the device of the samples.
    k : int
    exclude : Tensor of shape (q,), dtype int64, default=None
        For each query the index of a sample not to return, such as the query itself.
    batch_size : int, default=512
        Queries compared at a time by each thread, up to twice as many in bfloat16. It does not
        change the result.

    Returns
    -------
    neighbors : Neighbors
        In float64, on the device of the samples (on the CPU where that has no float64).

    Raises
    ------
    ValueError
        When k is not between 1 and the number of samples that may be returned, when the shapes of
        queries and samples, or queries and `exclude`, do not match, or when a distance overflows
        float64.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_neighbors import build_index, search
    >>> samples = torch.tensor([[0.0], [1.0], [1.0], [5.0]])
    >>> search(build_index(samples), samples, k=1, exclude=torch.arange(4)).indices.T
    tensor([[1, 2, 1, 1]])
    """
    available = len(index.samples) - (exclude is not None)
    if not 1 <= k <= available:
        raise ValueError(f"k must be between 1 and {available}, the number of samples, got {k}.")
    check_queries(index, queries, exclude, batch_size)
    if not len(queries):
        none = torch.empty(0, k, dtype=torch.int64, device=float64_device(queries))
        return Neighbors(none.double(), none)
    distances, indices, proven = _search_fast(index, queries, k, exclude, batch_size)
    left = (~proven).nonzero().squeeze(1)
    for start in range(0, len(left), _FEW):
        some = left[start : start + _FEW]
        distances[some], indices[some] = search_float64(
            index, queries[some], k, None if exclude is None else exclude[some]
        )
    lost = (distances[:, 0] == LOST).nonzero().squeeze(1)
    distances = distances_of(index, distances)
    for i in lost.tolist() if len(lost) else []:  # the list of none is a transfer, too
        norms, indices[i] = search_scaled(
            index, queries[i], k, None if exclude is None else exclude[i]
        )
        distances[i] = norms if index.metric == "euclidean" else norms.square()
    if distances.isinf().any():
        raise ValueError(
            f"A distance with metric={index.metric!r} is beyond {_LARGEST:.1e}, the largest "
            "float64 number. Divide the samples and the queries by a constant, or use "
            "metric='euclidean' instead of 'sqeuclidean'."
        )
    return Neighbors(distances, indices)


def merge(first: Neighbors, second: Neighbors) -> Neighbors:
    """Merge the results of two shards of the samples for the same queries and the same k.

    Parameters
    ----------
    first, second : Neighbors
        Distances and indices of shape (q, k); the indices count over all shards.

    Returns
    -------
    neighbors : Neighbors
        The same as one search over both shards.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_neighbors import Neighbors, build_index, merge, search
    >>> samples, queries = torch.tensor([[0.0], [7.0], [2.0], [1.0]]), torch.tensor([[1.0]])
    >>> left, right = (search(build_index(part), queries, k=2) for part in samples.split(2))
    >>> merge(left, Neighbors(right.distances, right.indices + 2)).indices
    tensor([[3, 0]])
    """
    k = first.indices.shape[1]
    distances, indices = (torch.cat(pair, 1) for pair in zip(first, second, strict=True))
    return Neighbors(*(found[:, :k] for found in sort_neighbors(distances, indices)))


def _search_fast(
    index: SearchIndex, queries: Tensor, k: int, exclude: Tensor | None, batch_size: int
) -> _Found:
    """Search by the method that suits k, and by the full product what that leaves."""

    def run(method: Method | None, some: Tensor, of_some: Tensor | None) -> _Found:
        table = product_table(index) if method is None else bound_table(index, method)
        return _share_out(index, table or product_table(index), some, k, of_some, batch_size)

    method = method_for(index, queries, k, exclude, run)
    distances, indices, proven = run(method, queries, exclude)
    if method is None or proven.all():
        return distances, indices, proven
    left = (~proven).nonzero().squeeze(1)
    # a few are not worth a table: alone they may have more candidates
    alone = index.tables.product is None and len(left) <= _FEW
    if not alone or len(queries) > _ALONE:
        for some in left.split(_ALONE if alone else len(left)):
            of_some = None if exclude is None else exclude[some]
            found = run(method if alone else None, queries[some], of_some)
            distances[some], indices[some], proven[some] = found
    count_unsettled(index, k, len(left), len(queries))
    return distances, indices, proven


def _share_out(
    index: SearchIndex,
    table: ProductTable | BoundTable,
    queries: Tensor,
    k: int,
    exclude: Tensor | None,
    batch_size: int,
) -> _Found:
    """Search by scores, with a share of the queries for each thread."""
    search_share = _search_share if isinstance(table, ProductTable) else search_bounded

    def share(part: Tensor, of_part: Tensor | None, stop: Event) -> _Found:
        return search_share(index, table, part, k, of_part, batch_size, stop)  # type: ignore[arg-type]

    distances, indices, proven = (torch.cat(p) for p in share_out(share, queries, exclude))
    return distances, indices, proven


@torch.no_grad()
def _search_share(
    index: SearchIndex,
    table: ProductTable,
    queries: Tensor,
    k: int,
    exclude: Tensor | None,
    batch_size: int,
    stop: Event,
) -> _Found:
    """Search batch by batch by scores: half squared distances, indices, and whether proven."""
    # one buffer for all products: the pages of a new one cost as much as the product
    batch_size = min(batch_size, len(queries))
    n_scores = SCORES[queries.device.type != "cpu"]
    strips = n_strips_of_block(len(table.strips), batch_size, n_scores)
    buffer = table.strips.new_empty(strips, batch_size, STRIP)
    found = []
    for start in range(0, len(queries), batch_size):
        part = slice(start, start + batch_size)
        of_part = None if exclude is None else exclude[part]
        found.append(_search_batch(index, table, queries[part], k, of_part, buffer, stop))
    distances, indices, proven = (torch.cat(parts) for parts in zip(*found, strict=True))
    return distances, indices, proven


def _search_batch(
    index: SearchIndex,
    table: ProductTable,
    queries: Tensor,
    k: int,
    exclude: Tensor | None,
    buffer: Tensor,
    stop: Event,
) -> _Found:
    """Nearest samples among the best float32 scores, and for which queries that is proven."""
    vectors, zero = vectors_of(queries, index.metric, index.scale)
    centered = (vectors - index.center).to(table.strips.device, torch.float32)
    scores, indices, bound = shortlist(table, centered, k + _SPARE, exclude, buffer, stop)

    scores, indices, bound = (t.to(vectors.device) for t in (scores, indices, bound))
    squares = centered.to(vectors.device, torch.float64).square().sum(1)
    shift = squares / 2 + zero / 2
    error = partial(rounding_error, torch.float32, queries.shape[1])
    # differences are expensive: drop what is clearly beyond the k-th, nearly all spare samples
    likely = scores[:, k - 1] + shift
    limit = likely + 3 * error(squares, likely.clamp(min=0)) - shift
    width = max(k, int((scores <= limit[:, None]).sum(1).max()))
    bound = torch.minimum(bound, scores[:, width:].amin(1)) if width < scores.shape[1] else bound
    scores, indices = scores[:, :width], indices[:, :width]
    missing = scores == INF
    halves = half_squared(index, vectors, zero, indices)
    itself = torch.arange(len(indices), device=indices.device)[:, None].expand_as(indices)
    mark_lost(index, queries, itself.flatten(), indices.flatten(), halves.view(-1))
    halves.masked_fill_(missing, INF)
    # no overflow, all seen errors within the bound (not so under TF32), and nothing left out
    wrong = (scores + shift[:, None] - halves).abs() - error(squares[:, None], halves)
    halves, indices = (found[:, :k] for found in sort_neighbors(halves, indices))
    last = halves[:, -1]
    proven = (squares.sqrt() + index.radius < 1e18) & ((wrong <= 0) | missing).all(1)
    proven &= (bound + shift > last + error(squares, last)) & (halves[:, 0] != LOST)
    return halves, indices, proven
