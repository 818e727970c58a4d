"""Distances by float64 differences, and the search for queries that float32 cannot settle."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from skboundary.functional._search_index import (
    INF,
    SearchIndex,
    chunk_size,
    float64_numbers,
    power_below,
    vectors_of,
)

LOST = -1.0  # a half squared distance beyond the range of float64
_HALVES = 2.0**-900, 2.0**1000  # half squared distances between them are right


def sort_neighbors(distances: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Sort each row by (distance, index)."""
    indices, order = indices.sort(1)
    distances, nearest = distances.gather(1, order).sort(dim=1, stable=True)
    return distances, indices.gather(1, nearest)


def half_squared(index: SearchIndex, queries: Tensor, zero: Tensor, indices: Tensor) -> Tensor:
    """Half the squared distances of queries (q, d) to samples `indices` (q, m), by differences."""
    q, m = indices.shape
    result = torch.empty(q, m, dtype=torch.float64, device=queries.device)
    step = max(1, float64_numbers(queries.device) // (m * queries.shape[1]))
    for start in range(0, q, step):
        part = slice(start, start + step)
        picked = index.samples.index_select(0, indices[part].reshape(-1).to(index.samples.device))
        vectors, sample_zero = vectors_of(picked, index.metric, index.scale)
        vectors = vectors.view(-1, m, queries.shape[1])
        squares = vectors.sub_(queries[part, None]).square_()
        if squares.shape[:2] == (1, 1):  # torch divides one sum among threads, not one of several
            squares = squares.expand(2, -1, -1)
        result[part] = squares.sum(2)[: len(vectors)].div_(2)
        if index.metric == "cosine":
            result[part].masked_fill_(sample_zero.view(-1, m) | zero[part, None], 1.0)
    return result


def mark_lost(
    index: SearchIndex, queries: Tensor, query: Tensor, sample: Tensor, halves: Tensor
) -> None:
    """Overwrite half squared distances (p,) of different vectors that float64 cannot hold.

    Normalized vectors are rounded to 1e-16, so smaller cosine distances mean nothing.
    """
    if index.metric == "cosine":
        return
    lost = (~((halves > _HALVES[0]) & (halves < _HALVES[1]))).nonzero().squeeze(1)
    for some in lost.split(chunk_size(queries)):
        first = queries.index_select(0, query[some].to(queries.device))
        second = index.samples.index_select(0, sample[some].to(index.samples.device))
        first, second = (vectors_of(part, index.metric)[0] for part in (first, second))
        halves[some[(first != second).any(1)]] = LOST


def distances_of(index: SearchIndex, halves: Tensor) -> Tensor:
    """Turn half squared distances into distances, in place."""
    if index.metric == "euclidean":
        return halves.mul_(2).sqrt_().div_(index.scale)
    if index.metric == "sqeuclidean":
        return halves.mul_(2).div_(index.scale).div_(index.scale)
    return halves


def scaled_norms(differences: Tensor) -> Tensor:
    """Norms (m,) of differences (m, d), each scaled separately; overwrites them."""
    power = power_below(differences.abs().amax(1))
    return torch.linalg.vector_norm(differences.div_(power[:, None]), dim=1).mul_(power)


def rounding_error(dtype: torch.dtype, d: int, squares: Tensor, halves: Tensor) -> Tensor:
    """Bound by how much a score is off D, the half squared distance: ``c (2 |q|^2 + D) + t``.

    With unit roundoff u the sum of d products is wrong by ``4 sqrt(d) u |q| |x|`` at most
    (12 standard deviations of the usual model, and a proven bound up to d = 16), centering
    and storing by less than ``6 u (|q| + |x|)^2``, and a sample at D has |x| <= |q| + sqrt(2 D).
    What underflows adds t: numbers below 1 lose less than the smallest normal number each.
    """
    info = torch.finfo(dtype)
    relative = 4 * info.eps * (math.sqrt(d) + 4)
    return relative * (2 * squares + halves) + 4 * (d + 4) * info.tiny


def append(
    values: Tensor, indices: Tensor, query: Tensor, found: Tensor, index: Tensor
) -> tuple[Tensor, Tensor]:
    """Append flat results, sorted by query, to the rows of `values` and `indices`."""
    counts = torch.bincount(query, minlength=len(values))
    place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
    width = values.shape[1]
    shape = len(values), width + int(counts.max())
    wide, wide_indices = values.new_full(shape, INF), indices.new_zeros(shape)
    wide[:, :width], wide_indices[:, :width] = values, indices
    wide[query, width + place], wide_indices[query, width + place] = found, index
    return wide, wide_indices


def search_float64(
    index: SearchIndex, queries: Tensor, k: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Nearest samples by differences with every sample that float64 scores cannot rule out."""
    vectors, zero = vectors_of(queries, index.metric, index.scale)
    centered = vectors - index.center
    squares = centered.square().sum(1, keepdim=True)
    error = partial(rounding_error, torch.float64, queries.shape[1])
    q = len(queries)
    halves = torch.full((q, k), INF, dtype=torch.float64, device=vectors.device)
    indices = torch.zeros(q, k, dtype=torch.int64, device=vectors.device)
    step = min(chunk_size(queries), max(1, float64_numbers(queries.device) // q))
    for start in range(0, len(index.samples), step):
        samples, sample_zero = vectors_of(
            index.samples[start : start + step], index.metric, index.scale
        )
        samples -= index.center
        shift = (samples.square().sum(1) + sample_zero + squares + zero[:, None]) / 2
        scores = torch.addmm(shift, centered, samples.T, alpha=-1)
        if exclude is not None:
            inside = ((exclude >= start) & (exclude < start + step)).nonzero().squeeze(1)
            scores[inside, exclude[inside] - start] = INF
        limit = halves[:, -1:]
        if len(samples) >= k:
            nearest = scores.topk(k, largest=False).values[:, -1:].clamp_(min=0)
            limit = torch.minimum(limit, nearest + 2 * error(squares, nearest))
        # not above, rather than below: an overflow to NaN stays in
        query, column = (~(scores > limit + error(squares, limit))).nonzero().unbind(1)
        sample = start + column
        if exclude is not None:
            query, sample = (t[sample != exclude[query]] for t in (query, sample))
        found = torch.cat(
            [
                half_squared(index, vectors[i], zero[i], j[:, None]).squeeze(1)
                for i, j in zip(query.split(step), sample.split(step), strict=True)
            ]
        )
        mark_lost(index, queries, query, sample, found)
        halves, indices = sort_neighbors(*append(halves, indices, query, found, sample))
        halves, indices = halves[:, :k], indices[:, :k]
    return halves, indices


def search_scaled(
    index: SearchIndex, query: Tensor, k: int, exclude: Tensor | None
) -> tuple[Tensor, Tensor]:
    """L2 distances to the nearest samples of one query, each difference scaled separately."""
    point = vectors_of(query[None], index.metric)[0]
    chunks = index.samples.split(chunk_size(index.samples))
    distances = torch.cat(
        [scaled_norms(vectors_of(some, index.metric)[0].sub_(point)) for some in chunks]
    )
    if exclude is not None:
        distances[exclude] = INF
    distances, indices = distances.sort(stable=True)
    return distances[:k], indices[:k]
