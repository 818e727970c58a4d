"""Exact search through lower bounds: the candidates that a bound leaves, compared by differences.

The samples of the smallest scores are compared first. The k-th of their distances limits the scores
of all samples that are nearer, and every sample within that limit is compared as well, so that
nothing is left to prove. Differences are taken in float32 where it holds the samples, with a bound
on their error; only what that leaves open, hardly more than k samples, is compared in float64.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from threading import Event
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._exact_distances import (
    LOST,
    append,
    half_squared,
    mark_lost,
    sort_neighbors,
)
from skboundary.functional._lower_bounds import (
    as_key,
    as_keys,
    bound_queries,
    difference_dtype,
    infinite_key,
    product_error,
    score_limit,
)
from skboundary.functional._search_index import (
    GROUP,
    GROUPS,
    INF,
    STRIP,
    BoundTable,
    SearchIndex,
    vectors_of,
)
from skboundary.functional._shortlist import (
    go_on,
    groups_below,
    leave_out,
    n_strips_of_block,
    samples_below,
)

_BUFFER = 2**25  # bytes of scores held at a time by a thread, about
_NUMBERS = 2**17  # of the queries of a batch that is larger than asked for
_BATCH = 128  # queries for which the table is read at least once
_FEW = 64  # fewer queries are not worth a product for each strip
_WIDE = 8  # minima that share one coarse minimum
_SEEDS = 8  # samples compared first, beyond k
_CROWD = 8  # of the groups of samples, one in so many may be within the limit; more for few queries
_CROWDED = 64, 2**19  # fewer where a batch has more such groups in all
_CHECKED, _STRIDE = 64, 1021  # queries of which a score is computed twice, and between the samples
_PAIRS = 4096  # pairs compared at a time in float64
_DIFFERENCES = 2**18  # numbers of one temporary, about
_LARGEST = 1e15  # norms whose products are far from overflowing


class _Differences(NamedTuple):
    """Queries in the dtype of the differences, and how wrong the norms of these may be."""

    queries: Tensor  # (q, d)
    zero: Tensor  # (q,)
    relative: float
    absolute: float
    floor: float  # what squares that underflow may take away

    def upper(self, norms: Tensor) -> Tensor:
        """Half squared distances, at most."""
        norms = (norms.double() + self.floor) * (1 + self.relative) + self.absolute
        return norms.square() / 2

    def reach(self, halves: Tensor) -> Tensor:
        """Norms of samples that may be within half squared distances."""
        return ((2 * halves).sqrt() + self.absolute) * (1 + self.relative)


@torch.no_grad()
def search_bounded(
    index: SearchIndex,
    table: BoundTable,
    queries: Tensor,
    k: int,
    exclude: Tensor | None,
    batch_size: int,
    stop: Event,
) -> tuple[Tensor, Tensor, Tensor]:
    """Search batch by batch: half squared distances, indices, and which queries are settled."""
    n_strips = len(table.strips)
    n_scores = _BUFFER // table.strips.element_size()
    most = batch_size * 4 // table.strips.element_size()  # the bytes of float32 scores
    most = min(most, max(batch_size, _NUMBERS // queries.shape[1]))
    most = min(most, max(_BATCH, n_scores // (n_strips * STRIP)))
    batch_size = -(-len(queries) // -(-len(queries) // most))  # equal parts: a short one is slow
    strips = n_strips_of_block(n_strips, batch_size, n_scores)
    buffer = table.strips.new_empty(strips, batch_size, STRIP)
    excludes = [None] * len(queries) if exclude is None else exclude.split(batch_size)
    found = [
        _Batch(index, table, part, k).search(of_part, buffer, stop)
        for part, of_part in zip(queries.split(batch_size), excludes, strict=False)
    ]
    halves, indices, settled = (torch.cat(parts) for parts in zip(*found, strict=True))
    return halves, indices, settled


class _Batch:
    """Queries searched together: what has been compared, and what may still be nearer."""

    def __init__(self, index: SearchIndex, table: BoundTable, queries: Tensor, k: int) -> None:
        self.index, self.table, self.queries, self.k = index, table, queries, k
        self.vectors, self.zero = vectors_of(queries, index.metric, index.scale)
        centered = self.vectors - index.center
        size = torch.linalg.vector_norm(centered, dim=1) + index.radius
        self.settled = size * table.unit < _LARGEST
        self.bound = bound_queries(
            table, centered.masked_fill_(~self.settled[:, None], 0.0), self.zero
        )
        self.differences = _differences(index, self.vectors, self.zero)
        self.norms = self.differences.queries.new_full((len(queries), k), INF)
        self.indices = torch.zeros_like(self.norms, dtype=torch.int64)

    def search(
        self, exclude: Tensor | None, buffer: Tensor, stop: Event
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compare block by block what may be among the k nearest; order it in float64."""
        dtype, last = buffer.dtype, infinite_key(buffer.dtype)
        for start in range(0, len(self.table.strips), len(buffer)):
            strips = self.table.strips[start : start + len(buffer)]
            scores = buffer[: len(strips), : len(self.queries)]
            minima = _score(strips, self.bound.left, scores, stop)
            if start == 0:
                self.settled &= _as_precise(strips, self.bound.left, scores)
            if exclude is not None:
                leave_out(exclude - start * STRIP, as_keys(scores), minima, last)
            coarse = minima.view(len(minima), _WIDE, -1).amin(1)
            compared = torch.full_like(coarse[:, 0], torch.iinfo(coarse.dtype).min)
            if start == 0:
                compared = _smallest(coarse, self.k + _SEEDS, last)
                self._compare(buffer, minima, coarse, start, None, compared)
            limit = as_key(self._limit(), dtype)
            limit = limit.clamp_(max=last - 1) + 1
            self._compare(buffer, minima, coarse, start, compared, limit)
        return self._result()

    def _limit(self) -> Tensor:
        """Bound the scores of samples no farther than the k nearest compared."""
        halves = self.differences.upper(self.norms[:, : self.k].amax(1))
        return score_limit(self.table, self.bound, self.zero, halves)

    def _compare(
        self,
        buffer: Tensor,
        minima: Tensor,
        coarse: Tensor,
        start: int,
        compared: Tensor | None,
        limit: Tensor,
    ) -> None:
        """Compare the samples of a block whose keys are below a limit and not compared before."""
        if compared is not None:
            limit = torch.where(limit > compared, limit, torch.iinfo(limit.dtype).min)
        query, group = (coarse < limit[:, None]).nonzero().unbind(1)
        query, place = groups_below(minima, coarse.shape[1], query, group, limit)
        # a product costs as much as more pairs if it is for few queries
        share = min(_CROWD, max(2, len(self.queries) // 4))
        share = share if len(query) < _CROWDED[1] else _CROWDED[0]
        most = 8 * (self.k + _SEEDS) + len(self.index.samples) // (GROUP * share)
        crowded = torch.bincount(query, minlength=len(minima)) > most
        if crowded.any():
            self.settled &= ~crowded
            query, place = (part[~crowded[query]] for part in (query, place))
        query, sample, keys = samples_below(as_keys(buffer), minima.shape[1], query, place, limit)
        if compared is not None:
            new = keys >= compared[query]
            query, sample, keys = (part[new] for part in (query, sample, keys))
        if len(query) == 0:
            return
        sample = sample + start * STRIP
        norms = _norms(self.index, self.table, self.differences, query, sample)
        norms, indices = append(self.norms, self.indices, query, norms, sample)
        norms, order = norms.sort(1)
        halves = self.differences.upper(norms[:, self.k - 1])
        near = norms <= self.differences.reach(halves)[:, None]
        width = max(self.k, int(near.sum(1).max()))
        self.norms = norms[:, :width].contiguous()
        self.indices = indices.gather(1, order[:, :width])

    def _result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Order what has been compared by float64 differences."""
        k, n = self.k, len(self.queries)
        nearest = self.indices[:, :k].contiguous()
        halves = half_squared(self.index, self.vectors, self.zero, nearest)
        itself = torch.arange(n, device=nearest.device)[:, None].expand_as(nearest)
        mark_lost(self.index, self.queries, itself.flatten(), nearest.flatten(), halves.view(-1))
        upper = self.differences.upper(self.norms[:, k - 1])
        near = self.norms[:, k:] <= self.differences.reach(upper)[:, None]
        query, column = near.nonzero().unbind(1)
        if len(query):
            sample = self.indices[query, k + column]
            found = torch.cat(
                [
                    half_squared(self.index, self.vectors[i], self.zero[i], j[:, None])
                    for i, j in zip(query.split(_PAIRS), sample.split(_PAIRS), strict=True)
                ]
            ).squeeze(1)
            mark_lost(self.index, self.queries, query, sample, found)
            halves, nearest = append(halves, nearest, query, found, sample)
        halves, nearest = (part[:, :k] for part in sort_neighbors(halves, nearest))
        settled = self.settled & upper.isfinite() & (halves[:, 0] != LOST)
        return halves, nearest, settled


def _score(strips: Tensor, left: Tensor, scores: Tensor, stop: Event) -> Tensor:
    """Write the scores (n_strips, q, 512) of a block, and return the keys of minima of groups."""
    keys = as_keys(scores)
    minima = keys.new_empty(len(left), -(-len(strips) // _WIDE) * _WIDE, GROUPS)
    minima[:, len(strips) :] = infinite_key(scores.dtype)
    filled = minima[:, : len(strips)].transpose(0, 1)
    if scores.device.type == "cpu" and len(left) >= _FEW:
        # one strip at a time, whose scores are still in the cache for the minima
        for strip, out, key, low in zip(strips, scores, keys, filled, strict=True):
            go_on(stop)
            torch.mm(left, strip, out=out)
            torch.amin(key.view(-1, GROUP, GROUPS), 1, out=low)
    else:
        go_on(stop)
        torch.bmm(left.expand(len(strips), -1, -1), strips, out=scores)
        torch.amin(keys.unflatten(2, (GROUP, GROUPS)), 2, out=filled)
    return minima.flatten(1)


def _as_precise(strips: Tensor, left: Tensor, scores: Tensor) -> Tensor:
    """Whether the product is as precise as its dtype, by one score of some queries.

    It is not where torch is told to compute float32 products in TF32 or bfloat16.
    """
    query = torch.arange(0, len(left), -(-len(left) // _CHECKED), device=left.device)
    sample = query * _STRIDE % (len(strips) * STRIP)
    strip, column = sample // STRIP, sample % STRIP
    products = strips[strip, :, column].double() * left[query].double()
    exact = products.sum(1)
    error = (scores[strip, query, column].double() - exact).abs()
    allowed = product_error(strips.shape[1]) * products.abs().sum(1)
    allowed += torch.finfo(scores.dtype).eps * exact.abs()
    return ~(error > allowed).any()  # infinite beyond the last sample


def _smallest(coarse: Tensor, n: int, last: int) -> Tensor:
    """Limit below which at least n samples of each query lie, or all."""
    if n > coarse.shape[1]:
        return torch.full_like(coarse[:, 0], last)
    return coarse.topk(n, largest=False).values[:, -1].clamp_(max=last - 1) + 1


def _differences(index: SearchIndex, vectors: Tensor, zero: Tensor) -> _Differences:
    """Bound the errors of norms of differences of d numbers.

    Samples and queries in the dtype of the samples are as given, so a difference is wrong by one
    rounding; normalized ones are wrong by a few.
    """
    dtype, d = difference_dtype(index.samples), vectors.shape[1]
    info = torch.finfo(dtype)
    absolute = math.sqrt(d) * 8 * info.tiny + (4 * info.eps if index.metric == "cosine" else 0.0)
    floor = math.sqrt(d * info.tiny) * 2
    return _Differences(vectors.to(dtype), zero, 2 * (d + 8) * info.eps, absolute, floor)


def _norms(
    index: SearchIndex, table: BoundTable, differences: _Differences, query: Tensor, sample: Tensor
) -> Tensor:
    """Norms of the differences of pairs of a query and a sample."""
    dtype, inverse = differences.queries.dtype, table.inverse_norms
    result = torch.empty(len(query), dtype=dtype, device=query.device)
    step = max(1, _DIFFERENCES // index.samples.shape[1])
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        pairs = index.samples.index_select(0, sample[part]).to(dtype)
        if index.scale != 1:
            pairs *= index.scale
        if inverse is not None:
            pairs *= inverse.index_select(0, sample[part])[:, None]
        pairs -= differences.queries.index_select(0, query[part])
        torch.linalg.vector_norm(pairs, dim=1, out=result[part])
    if inverse is not None:
        zero = (inverse.index_select(0, sample) == 0) | differences.zero.index_select(0, query)
        result.masked_fill_(zero, math.sqrt(2))
    return result
