"""Exact k nearest neighbors: scores by one matrix product, a proof, distances by differences.

Half the squared distance of a query q to a row x is ``|x|^2 / 2 - q.x`` plus a term that all
rows share, so one float32 product with the centered rows ranks them. The rows are cut in strips
so narrow that their scores are still in the cache when the minima of groups of scores are
taken. What ranks near the top is compared again by float64 differences of the rows as given, and
a bound on the product's rounding error says whether any other row could belong there. The few
queries for which it cannot be ruled out are searched once more in float64.

Squares double the exponent: where they would leave the range of a dtype, all rows are multiplied
by one power of two, which is the same problem exactly. Where float64 cannot hold the squares of
one query's differences at any such scale, each difference is scaled by itself.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import NamedTuple

import torch
from torch import Tensor

_GROUP = 8  # scores that share one minimum
_GROUPS = 64  # groups in a strip: torch takes minima that many columns at a time
_STRIP = _GROUP * _GROUPS  # rows of a strip
_COARSE = 3  # coarse groups for each row on the shortlist, so that most of them are passed
_SPARE = 4  # rows on the shortlist beyond k
_SCORES = 2**22  # scores held at a time by a thread of the fast road, about (16 MB)
_SHARE = 64  # fewer queries are not worth a thread of their own, nor a product for each strip
_FLOAT64 = 2**17  # float64 numbers in one temporary, about (1 MB stays in the cache)
_INF = float("inf")
_EXPONENTS = -30, 50  # of the largest number: between them no square leaves float32's range
_NORMS = 2.0**-400, 2.0**400  # norms between them are right although they were squared
_HALVES = 2.0**-900, 2.0**1000  # the same for half squared distances
_LARGEST = torch.finfo(torch.float64).max
_LOST = -1.0  # stands for a half squared distance beyond them


class SearchIndex(NamedTuple):
    """Rows prepared for `search`."""

    rows: Tensor  # (n, d): the rows as given, not copied
    table: Tensor  # (n_strips, d, 512) float32: centered rows
    halves: Tensor  # (n_strips, 512) float32: half their squared norms, infinity beyond the last
    center: Tensor  # (d,) float64
    radius: float  # largest norm of a centered row
    metric: str
    scale: float  # power of two that multiplies rows and queries before anything is squared


class Neighbors(NamedTuple):
    """Nearest rows of each query, nearest first, the lowest index first among equals."""

    distances: Tensor  # (q, k) float64
    indices: Tensor  # (q, k) int64


def build_index(rows: Tensor, metric: str = "euclidean") -> SearchIndex:
    """Prepare rows for `search`.

    Parameters
    ----------
    rows : Tensor of shape (n, d)
        Finite floating numbers. They are not copied.
    metric : {"euclidean", "sqeuclidean", "cosine"}, default="euclidean"
        A zero vector has the cosine distance 1 to every vector.

    Returns
    -------
    index : SearchIndex
        Its table takes as much memory as float32 rows.

    Raises
    ------
    ValueError
        When there is no row or the metric is unknown.

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
    if rows.ndim != 2 or len(rows) == 0:
        raise ValueError(f"rows must have shape (n, d) with n >= 1, got {tuple(rows.shape)}.")
    n, d = rows.shape
    scale = 1.0 if metric == "cosine" else _scale(rows)
    center = _vectors(rows[:1], metric)[0].squeeze(0).zero_()
    for some in rows.split(_step(d)):
        center += _vectors(some, metric, scale)[0].sum(0)
    center /= n
    table = rows.new_zeros(-(-n // _STRIP), d, _STRIP, dtype=torch.float32)
    halves = table.new_full((len(table), _STRIP), _INF)
    largest = 0.0
    for strip, half, some in zip(table, halves, rows.split(_STRIP), strict=True):
        vectors, zero = _vectors(some, metric, scale)
        squares = vectors.sub_(center).square().sum(1)
        largest = max(largest, float(squares.max()))
        strip[:, : len(some)] = vectors.T
        half[: len(some)] = squares.add_(zero) / 2
    return SearchIndex(rows, table, halves, center, math.sqrt(largest), metric, scale)


def search(
    index: SearchIndex,
    queries: Tensor,
    k: int,
    *,
    exclude: Tensor | None = None,
    batch_size: int = 512,
) -> Neighbors:
    """Find the k nearest rows of each query.

    Parameters
    ----------
    index : SearchIndex
    queries : Tensor of shape (q, d)
        On the device of the rows.
    k : int
    exclude : Tensor of shape (q,), dtype int64, default=None
        For each query the index of a row not to return, such as the query itself.
    batch_size : int, default=512
        Queries compared at a time by each thread. It does not change the result.

    Returns
    -------
    neighbors : Neighbors
        In float64, on the device of the rows (on the CPU where that has no float64).

    Raises
    ------
    ValueError
        When k is not between 1 and the number of rows that may be returned, or when a distance
        overflows float64.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_neighbors import build_index, search
    >>> rows = torch.tensor([[0.0], [1.0], [1.0], [5.0]])
    >>> search(build_index(rows), rows, k=1, exclude=torch.arange(4)).indices.T
    tensor([[1, 2, 1, 1]])
    """
    available = len(index.rows) - (exclude is not None)
    if not 1 <= k <= available:
        raise ValueError(f"k must be between 1 and {available}, the number of rows, got {k}.")
    distances, indices, proven = _share_out(index, queries, k, exclude, batch_size)
    left = (~proven).nonzero().squeeze(1)
    for start in range(0, len(left), 128):
        some = left[start : start + 128]
        distances[some], indices[some] = _search_float64(
            index, queries[some], k, None if exclude is None else exclude[some]
        )
    lost = (distances[:, 0] == _LOST).nonzero().squeeze(1)
    if index.metric == "euclidean":
        distances.mul_(2).sqrt_().div_(index.scale)
    elif index.metric == "sqeuclidean":
        distances.mul_(2).div_(index.scale).div_(index.scale)
    for i in lost.tolist():
        norms, indices[i] = _search_scaled(
            index, queries[i], k, None if exclude is None else exclude[i]
        )
        distances[i] = norms if index.metric == "euclidean" else norms.square()
    if distances.isinf().any():
        raise ValueError(
            f"A distance with metric={index.metric!r} is beyond {_LARGEST:.1e}, the largest "
            "float64 number. Divide the rows and the queries by a constant, or use "
            "metric='euclidean' instead of 'sqeuclidean'."
        )
    return Neighbors(distances, indices)


def merge(first: Neighbors, second: Neighbors) -> Neighbors:
    """Merge what two shards of the rows gave for the same queries and the same k.

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
    >>> rows, queries = torch.tensor([[0.0], [7.0], [2.0], [1.0]]), torch.tensor([[1.0]])
    >>> left, right = (search(build_index(part), queries, k=2) for part in rows.split(2))
    >>> merge(left, Neighbors(right.distances, right.indices + 2)).indices
    tensor([[3, 0]])
    """
    k = first.indices.shape[1]
    distances, indices = (torch.cat(pair, 1) for pair in zip(first, second, strict=True))
    return Neighbors(*(found[:, :k] for found in _sort(distances, indices)))


def _sort(distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each line by (distance, index)."""
    indices, order = indices.sort(1)
    distances, nearest = distances.gather(1, order).sort(dim=1, stable=True)
    return distances, indices.gather(1, nearest)


def _step(d: int) -> int:
    """Rows of d float64 numbers to hold at a time."""
    return max(64, _FLOAT64 // d)


def _scale(rows: Tensor) -> float:
    """Give the power of two that brings the largest number near 1 where it is far from it."""
    if not rows.is_floating_point():
        return 1.0
    low, high = rows.aminmax()
    exponent = math.frexp(max(-float(low), float(high)))[1]  # 0 for the number 0
    if _EXPONENTS[0] <= exponent <= _EXPONENTS[1]:
        return 1.0
    return math.ldexp(1.0, -min(max(exponent, -1000), 1000))


def _power_below(size: Tensor) -> Tensor:
    """Give the largest power of two that is not above `size`; 1 for 0 and infinity."""
    mantissa = torch.frexp(size).mantissa
    return (size / (2 * mantissa)).nan_to_num_(nan=1.0)


def _vectors(rows: Tensor, metric: str, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Give vectors whose half squared L2 distance is wanted (float64 copies), and which are zero.

    Cosine distance is half the squared distance of the normalized vectors; a zero vector
    gets there with an extra 1/2, since ``|u|^2 / 2 + 1 / 2 = 1`` for a normalized u.
    """
    device = "cpu" if rows.device.type == "mps" else rows.device
    vectors = rows.to(device, torch.float64, copy=True)
    if scale != 1:
        vectors *= scale
    zero = torch.zeros(len(rows), dtype=torch.bool, device=device)
    if metric == "cosine":
        norms = torch.linalg.vector_norm(vectors, dim=1)
        odd = ~((norms > _NORMS[0]) & (norms < _NORMS[1]))
        if odd.any():
            vectors[odd] /= _power_below(vectors[odd].abs().amax(1))[:, None]
            norms[odd] = torch.linalg.vector_norm(vectors[odd], dim=1)
        zero = norms == 0
        vectors /= norms.masked_fill_(zero, 1.0)[:, None]
    return vectors, zero


def _half_squared(index: SearchIndex, queries: Tensor, zero: Tensor, rows: Tensor) -> Tensor:
    """Half the squared distances of queries (q, d) to their rows (q, m), by differences."""
    q, m = rows.shape
    result = torch.empty(q, m, dtype=torch.float64, device=queries.device)
    step = max(1, _FLOAT64 // (m * queries.shape[1]))
    for start in range(0, q, step):
        part = slice(start, start + step)
        picked = index.rows.index_select(0, rows[part].reshape(-1).to(index.rows.device))
        vectors, row_zero = _vectors(picked, index.metric, index.scale)
        vectors = vectors.view(-1, m, queries.shape[1])
        result[part] = vectors.sub_(queries[part, None]).square_().sum(2).div_(2)
        if index.metric == "cosine":
            result[part].masked_fill_(row_zero.view(-1, m) | zero[part, None], 1.0)
    return result


def _mark_lost(
    index: SearchIndex, queries: Tensor, query: Tensor, row: Tensor, halves: Tensor
) -> None:
    """Overwrite half squared distances (p,) of different vectors that float64 cannot hold.

    Normalized vectors are rounded to 1e-16, so smaller cosine distances mean nothing.
    """
    if index.metric == "cosine":
        return
    lost = (~((halves > _HALVES[0]) & (halves < _HALVES[1]))).nonzero().squeeze(1)
    for some in lost.split(_step(queries.shape[1])):
        first = queries.index_select(0, query[some].to(queries.device))
        second = index.rows.index_select(0, row[some].to(index.rows.device))
        first, second = (_vectors(part, index.metric)[0] for part in (first, second))
        halves[some[(first != second).any(1)]] = _LOST


def _error(dtype: torch.dtype, d: int, squares: Tensor, halves: Tensor) -> Tensor:
    """Bound by how much a score is off D, the half squared distance: ``c (2 |q|^2 + D) + t``.

    With unit roundoff u the sum of d products is wrong by ``4 sqrt(d) u |q| |x|`` at most
    (12 standard deviations of the usual model, and a proven bound up to d = 16), centring
    and storing by less than ``6 u (|q| + |x|)^2``, and a row at D has |x| <= |q| + sqrt(2 D).
    What underflows adds t: numbers below 1 lose less than the smallest normal number each.
    """
    info = torch.finfo(dtype)
    relative = 4 * info.eps * (math.sqrt(d) + 4)
    return relative * (2 * squares + halves) + 4 * (d + 4) * info.tiny


def _strips(n: int, q: int) -> int:
    """Strips of a block of scores: a number with divisors to choose coarse groups from."""
    n_blocks = max(1, round(n * _STRIP * q / _SCORES))
    return 4 * math.ceil(n / (4 * n_blocks))


def _share_out(
    index: SearchIndex, queries: Tensor, k: int, exclude: Tensor | None, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Search by scores, on the CPU with a share of the queries for each of torch's threads.

    The products of one batch are too small, and the steps between them too many, for several
    threads to work on them together.
    """
    threads = torch.get_num_threads() if queries.device.type == "cpu" else 1
    n_shares, stop = min(threads, len(queries) // _SHARE), Event()
    if n_shares <= 1:
        return _search_share(index, queries, k, exclude, batch_size, stop)
    shares = queries.tensor_split(n_shares)
    excludes = [None] * n_shares if exclude is None else exclude.tensor_split(n_shares)
    try:
        with ThreadPoolExecutor(n_shares, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                found = pool.map(
                    lambda part: _search_share(index, part[0], k, part[1], batch_size, stop),
                    zip(shares, excludes, strict=True),
                )
                distances, indices, proven = (
                    torch.cat(parts) for parts in zip(*found, strict=True)
                )
            except BaseException:  # the pool waits for its threads, after Ctrl-C too
                stop.set()
                raise
    finally:
        torch.set_num_threads(threads)  # a thread's own affair, but new threads take the last one
    return distances, indices, proven


@torch.no_grad()
def _search_share(
    index: SearchIndex,
    queries: Tensor,
    k: int,
    exclude: Tensor | None,
    batch_size: int,
    stop: Event,
) -> tuple[Tensor, Tensor, Tensor]:
    """Search batch by batch by scores: half squared distances, rows, and whether proven."""
    # one buffer for all products: the pages of a new one cost as much as the product
    batch_size = min(batch_size, len(queries))
    strips = _strips(len(index.table), batch_size)
    buffer = index.table.new_empty(strips, batch_size, _STRIP)
    found = []
    for start in range(0, len(queries), batch_size):
        part = slice(start, start + batch_size)
        of_part = None if exclude is None else exclude[part]
        found.append(_search_fast(index, queries[part], k, of_part, buffer, stop))
    distances, indices, proven = (torch.cat(parts) for parts in zip(*found, strict=True))
    return distances, indices, proven


def _search_fast(
    index: SearchIndex,
    queries: Tensor,
    k: int,
    exclude: Tensor | None,
    buffer: Tensor,
    stop: Event,
) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest rows among the best float32 scores, and for which queries that is proven."""
    vectors, zero = _vectors(queries, index.metric, index.scale)
    centered = (vectors - index.center).to(index.table.device, torch.float32)
    scores, rows, bound = _shortlist(index, centered, k + _SPARE, exclude, buffer, stop)

    scores, rows, bound = (t.to(vectors.device) for t in (scores, rows, bound))
    squares = centered.to(vectors.device, torch.float64).square().sum(1)
    shift = squares / 2 + zero / 2
    error = partial(_error, torch.float32, queries.shape[1])
    # differences are dear: leave out what is clearly beyond the k-th, nearly all of the spare rows
    likely = scores[:, k - 1] + shift
    limit = likely + 3 * error(squares, likely.clamp(min=0)) - shift
    width = max(k, int((scores <= limit[:, None]).sum(1).max()))
    bound = torch.minimum(bound, scores[:, width:].amin(1)) if width < scores.shape[1] else bound
    scores, rows = scores[:, :width], rows[:, :width]
    missing = scores == _INF
    halves = _half_squared(index, vectors, zero, rows)
    itself = torch.arange(len(rows), device=rows.device)[:, None].expand_as(rows)
    _mark_lost(index, queries, itself.flatten(), rows.flatten(), halves.view(-1))
    halves.masked_fill_(missing, _INF)
    # no overflow, all seen errors within the bound (not so under TF32), and nothing left out
    wrong = (scores + shift[:, None] - halves).abs() - error(squares[:, None], halves)
    halves, rows = (found[:, :k] for found in _sort(halves, rows))
    last = halves[:, -1]
    proven = (squares.sqrt() + index.radius < 1e18) & ((wrong <= 0) | missing).all(1)
    proven &= (bound + shift > last + error(squares, last)) & (halves[:, 0] != _LOST)
    return halves, rows, proven


def _shortlist(
    index: SearchIndex,
    queries: Tensor,
    m: int,
    exclude: Tensor | None,
    buffer: Tensor,
    stop: Event,
) -> tuple[Tensor, Tensor, Tensor]:
    """Best scores of centered queries, and a bound that no score left out is below.

    Returns
    -------
    scores : Tensor of shape (q, m + 1)
        Smallest first; infinity where there are not as many.
    rows : Tensor of shape (q, m + 1)
    bound : Tensor of shape (q,)
    """
    q = len(queries)
    best = queries.new_full((q, m + 1), _INF)
    rows = torch.zeros_like(best, dtype=torch.int64)
    bound = queries.new_full((q,), _INF)
    for start in range(0, len(index.table), len(buffer)):
        block = slice(start, start + len(buffer))
        scores = buffer[: len(index.table[block]), :q]
        minima = _score(index.table[block], index.halves[block], queries, scores, stop)
        if exclude is not None:
            _leave_out(exclude - start * _STRIP, scores, minima)
        coarse = minima.view(q, -1, _coarse_groups(minima.shape[1], m)).amin(1)
        crowded = ((coarse < bound[:, None]).sum(1) > m).nonzero().squeeze(1)
        if len(crowded):
            # m + 1 groups hold m + 1 scores, so the last of their minima bounds the rest
            bound[crowded] = coarse[crowded].topk(m + 1, largest=False).values[:, -1]
        query, group = (coarse < bound[:, None]).nonzero().unbind(1)
        if len(query) == 0:
            continue
        n, step = minima.shape[1], coarse.shape[1]
        query, place, _ = _below(minima, query * n + group, step, n // step, query, bound)
        strip, group = place % n // _GROUPS, place % _GROUPS
        place = strip * buffer.stride(0) + query * _STRIP + group
        query, place, found = _below(buffer, place, _GROUPS, _GROUP, query, bound)
        row = (start + place // buffer.stride(0)) * _STRIP + place % _STRIP
        wide, wide_rows = _append(best, rows, query, found, row)
        best, order = wide.topk(m + 1, largest=False)
        rows = wide_rows.gather(1, order)
        bound = torch.minimum(bound, best[:, -1])
    return best, rows, bound


def _score(
    table: Tensor, halves: Tensor, queries: Tensor, scores: Tensor, stop: Event | None = None
) -> Tensor:
    """Write the scores (n_strips, q, 512) of a block, and give the minima (q, groups).

    Group j of a strip holds every score that leaves the remainder j: such minima vectorize.
    """
    minima = scores.new_empty(len(queries), len(table), _GROUPS)
    if scores.device.type == "cpu" and len(queries) > _SHARE:  # strip by strip, out of the cache
        for strip, half, out, low in zip(
            table, halves, scores, minima.transpose(0, 1), strict=True
        ):
            _go_on(stop)
            torch.addmm(half, queries, strip, alpha=-1, out=out)
            torch.amin(out.view(-1, _GROUP, _GROUPS), 1, out=low)
    else:
        _go_on(stop)
        _score_at_once(table, halves, queries, scores, minima.transpose(0, 1))
    return minima.flatten(1)


def _go_on(stop: Event | None) -> None:
    if stop is not None and stop.is_set():
        raise CancelledError


def _score_at_once(
    table: Tensor, halves: Tensor, queries: Tensor, scores: Tensor, minima: Tensor
) -> None:
    """Do the same for all strips of a block at once, better for accelerators and few queries."""
    queries = queries.expand(len(table), -1, -1)
    torch.baddbmm(halves[:, None], queries, table, alpha=-1, out=scores)
    torch.amin(scores.unflatten(2, (_GROUP, _GROUPS)), 2, out=minima)


def _below(
    values: Tensor, first: Tensor, step: int, count: int, query: Tensor, bound: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, place and value of what is below its query's bound among the members of groups.

    Members are at places `first` of the flat values and at every `step` from there, `count`.
    """
    places = first[:, None] + step * torch.arange(count, device=first.device)
    members = values.view(-1).index_select(0, places.view(-1)).view_as(places)
    group, member = (members < bound[query, None]).nonzero().unbind(1)
    return query[group], places[group, member], members[group, member]


def _leave_out(column: Tensor, scores: Tensor, minima: Tensor) -> None:
    """Raise one score of each query to infinity, where `column` (q,) lies in the block."""
    query = ((column >= 0) & (column < len(scores) * _STRIP)).nonzero().squeeze(1)
    strip, column = column[query] // _STRIP, column[query] % _STRIP
    scores[strip, query, column] = _INF
    group = column % _GROUPS
    members = scores.unflatten(2, (_GROUP, _GROUPS))[strip, query, :, group]
    minima[query, strip * _GROUPS + group] = members.amin(1)


def _coarse_groups(n_groups: int, m: int) -> int:
    """Give a multiple of 64 that divides n_groups, large beside m where it can be."""
    sizes = [size for size in range(64, n_groups + 1, 64) if n_groups % size == 0]
    return next((size for size in sizes if size >= _COARSE * m), n_groups)


def _append(
    values: Tensor, rows: Tensor, query: Tensor, found: Tensor, row: Tensor
) -> tuple[Tensor, Tensor]:
    """Append flat finds, sorted by query, to the lines of `values` and `rows`."""
    counts = torch.bincount(query, minlength=len(values))
    place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
    width = values.shape[1]
    shape = len(values), width + int(counts.max())
    wide, wide_rows = values.new_full(shape, _INF), rows.new_zeros(shape)
    wide[:, :width], wide_rows[:, :width] = values, rows
    wide[query, width + place], wide_rows[query, width + place] = found, row
    return wide, wide_rows


def _search_float64(
    index: SearchIndex, queries: Tensor, k: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Nearest rows by differences with every row that float64 scores cannot rule out."""
    vectors, zero = _vectors(queries, index.metric, index.scale)
    centered = vectors - index.center
    squares = centered.square().sum(1, keepdim=True)
    error = partial(_error, torch.float64, queries.shape[1])
    q = len(queries)
    halves = torch.full((q, k), _INF, dtype=torch.float64, device=vectors.device)
    indices = torch.zeros(q, k, dtype=torch.int64, device=vectors.device)
    step = min(_step(queries.shape[1]), max(1, _FLOAT64 // q))
    for start in range(0, len(index.rows), step):
        rows, row_zero = _vectors(index.rows[start : start + step], index.metric, index.scale)
        rows -= index.center
        shift = (rows.square().sum(1) + row_zero + squares + zero[:, None]) / 2
        scores = torch.addmm(shift, centered, rows.T, alpha=-1)
        if exclude is not None:
            inside = ((exclude >= start) & (exclude < start + step)).nonzero().squeeze(1)
            scores[inside, exclude[inside] - start] = _INF
        limit = halves[:, -1:]
        if len(rows) >= k:
            nearest = scores.topk(k, largest=False).values[:, -1:].clamp_(min=0)
            limit = torch.minimum(limit, nearest + 2 * error(squares, nearest))
        # not above, rather than below: an overflow to NaN stays in
        query, column = (~(scores > limit + error(squares, limit))).nonzero().unbind(1)
        row = start + column
        if exclude is not None:
            query, row = (t[row != exclude[query]] for t in (query, row))
        found = torch.cat(
            [
                _half_squared(index, vectors[i], zero[i], j[:, None]).squeeze(1)
                for i, j in zip(query.split(step), row.split(step), strict=True)
            ]
        )
        _mark_lost(index, queries, query, row, found)
        halves, indices = _sort(*_append(halves, indices, query, found, row))
        halves, indices = halves[:, :k], indices[:, :k]
    return halves, indices


def _search_scaled(
    index: SearchIndex, query: Tensor, k: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """L2 distances to the nearest rows of one query, each row scaled by itself."""
    point = _vectors(query[None], index.metric)[0]
    parts = []
    for some in index.rows.split(_step(len(query))):
        differences = _vectors(some, index.metric)[0].sub_(point)
        power = _power_below(differences.abs().amax(1))
        parts.append(torch.linalg.vector_norm(differences.div_(power[:, None]), dim=1).mul_(power))
    distances = torch.cat(parts)
    if exclude is not None:
        distances[exclude] = _INF
    distances, indices = distances.sort(stable=True)
    return distances[:k], indices[:k]
