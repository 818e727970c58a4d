"""Lower bounds of half squared distances by a narrow or coarse matrix product.

An orthonormal basis P of m directions splits a centered query q and sample x. With r the norm of
what lies outside P, the inequality of Cauchy and Schwarz gives ``q.x <= Pq.Px + r_q r_x``, hence

    |q - x|^2 / 2  >=  |q|^2 / 2 + |x|^2 / 2 - Pq.Px - r_q r_x ,

a product of a few more than m columns. Without P (all columns, no r) the two sides are equal. In
bfloat16 or float32 the right-hand side is a score with an error that `score_limit` bounds for every
sample within a given distance, so no sample with a larger score is that near.

Scores are not negative except for rounding, so their bits read as integers are in their order, all
negative ones below the others; integers are compared several times faster than bfloat16 numbers.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._search_index import (
    INF,
    STRIP,
    BoundTable,
    Method,
    SearchIndex,
    chunk_size,
    vectors_of,
)

_BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
_PARTS = {torch.bfloat16: 3, torch.float32: 1}  # columns that sum to half a squared norm
_RESIDUAL = {torch.bfloat16: 2.0**-25, torch.float32: 2.0**-24}  # what they leave of it
_TINY = 2.0**-126  # smaller numbers may be flushed to zero
_SAMPLE = 2048  # samples from which the leading directions are found
_OVERSAMPLING, _ITERATIONS = 8, 3  # of the subspace iteration
_NORMS = 2.0**-100, 2.0**100  # norms whose inverse is a normal float32 number


class BoundQueries(NamedTuple):
    """Queries as the other factor."""

    left: Tensor  # (q, c)
    norms: Tensor  # (q,) float64, in the unit of the table
    rounding: Tensor  # (q,) relative rounding error


def difference_dtype(samples: Tensor) -> torch.dtype:
    """Float32 where it holds the samples as they are, else float64."""
    wide = samples.dtype in (torch.float64, torch.int32, torch.int64)
    return torch.float64 if wide else torch.float32


def slack(d: int) -> float:
    """Bound the relative error of float64 coordinates and of the basis."""
    return 1e-11 + d * 2.0**-50


def centered_vectors(index: SearchIndex, samples: Tensor) -> Tensor:
    """Centered vectors in float32, without float64 copies of all of them."""
    parts = samples.split(chunk_size(samples))
    vectors = (vectors_of(part, index.metric, index.scale)[0] for part in parts)
    return torch.cat([part.sub_(index.center).float() for part in vectors])


def leading_axes(index: SearchIndex, m: int) -> Tensor:
    """Directions of most variance (d, m), the largest first, by subspace iteration."""
    some = index.samples[:: max(1, len(index.samples) // _SAMPLE)]
    centered = centered_vectors(index, some)
    centered /= centered.abs().max().clamp_(min=_TINY)
    generator = torch.Generator().manual_seed(0)
    width = min(m + _OVERSAMPLING, centered.shape[1])
    basis = torch.randn(centered.shape[1], width, generator=generator).to(centered.device)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(centered.T @ (centered @ basis)).Q
    inside = centered @ basis
    turn = torch.linalg.eigh((inside.T @ inside).double()).eigenvectors
    return torch.linalg.qr(basis.double() @ turn.flip(1)[:, :m]).Q.contiguous()


def n_columns(d: int, method: Method) -> int:
    """Columns of the table of a method for samples of d numbers."""
    width = d if method.n_axes is None else min(method.n_axes, d) + 1
    return width + 2 * _PARTS[method.dtype]


def build_bound_table(
    index: SearchIndex, method: Method, axes: Tensor | None = None
) -> BoundTable | None:
    """Build the table of a method; None where the norms of samples are beyond float32.

    `axes` are the leading directions, at least as many as the method takes.
    """
    n, dtype = len(index.samples), method.dtype
    axes = None if axes is None or method.n_axes is None else axes[:, : method.n_axes].contiguous()
    inverse_norms = None
    if index.metric == "cosine":
        inverse_norms = _inverse_norms(index)
        if inverse_norms is None:
            return None
    unit = math.ldexp(1.0, -math.frexp(index.radius)[1])
    parts, rounding, any_zero = _PARTS[dtype], 0.0, False
    columns = n_columns(index.samples.shape[1], method)
    width = columns - 2 * parts
    strips = torch.zeros(-(-n // STRIP), columns, STRIP, dtype=dtype, device=index.center.device)
    strips[:, width + parts :] = 1
    strips[-1, width] = INF  # beyond the last sample
    for strip, some in zip(strips, index.samples.split(STRIP), strict=True):
        vectors, zero = vectors_of(some, index.metric, index.scale)
        vectors.sub_(index.center).mul_(unit)
        coordinates, squares = _coordinates(vectors, axes)
        low = coordinates.to(dtype)
        rounding = max(rounding, float(_rounding(coordinates, low, squares.sqrt()).max()))
        any_zero |= bool(zero.any())
        strip[:width, : len(some)] = -low.T
        halves = (squares + zero * unit**2) / 2
        strip[width : width + parts, : len(some)] = _split_sum(halves, dtype).T
    zero_half = unit**2 / 2 if any_zero else 0.0
    strips[-1, width + 1 : width + parts, n - STRIP * (len(strips) - 1) :] = 0
    return BoundTable(strips, axes, unit, rounding, zero_half, inverse_norms)


def bound_queries(table: BoundTable, centered: Tensor, zero: Tensor) -> BoundQueries:
    """Prepare centered float64 queries (q, d) of which some are `zero` vectors."""
    dtype = table.strips.dtype
    vectors = centered * table.unit
    coordinates, squares = _coordinates(vectors, table.axes)
    low, norms = coordinates.to(dtype), squares.sqrt()
    ones = low.new_ones(len(low), _PARTS[dtype])
    halves = _split_sum((squares + zero * table.unit**2) / 2, dtype)
    left = torch.cat((low, ones, halves), 1)
    return BoundQueries(left, norms, _rounding(coordinates, low, norms))


def product_error(c: int) -> float:
    """Bound the error of a sum of c products in float32, relative to the sum of their sizes."""
    return 2.02 * c * 2.0**-24


def score_limit(table: BoundTable, bound: BoundQueries, zero: Tensor, halves: Tensor) -> Tensor:
    """Bound the scores of samples at half squared distances of at most `halves` (float64).

    Such a sample has a norm of at most ``|q| + sqrt(2 D)``. The terms are the rounding of both
    factors, of the sum of c products and of the half squared norms, the float64 operations before,
    and numbers flushed to zero.
    """
    c, d = table.strips.shape[1], len(table.axes) if table.axes is not None else 0
    halves, (_, norms, rounding) = halves * table.unit**2, bound
    far = norms + (2 * halves).sqrt()
    product = norms * far
    ends = (norms.square() + far.square() + zero * table.unit**2) / 2 + table.zero_half
    error = (rounding + table.rounding * (1 + rounding)) * product
    grown = (1 + rounding) * (1 + table.rounding)
    error += product_error(c) * (grown * product + 1.01 * ends)
    error += _RESIDUAL[table.strips.dtype] * ends + slack(max(c, d)) * (norms + far).square()
    error += 8 * c * _TINY * (1 + norms)
    return (halves + error).nan_to_num_(nan=INF)


def as_key(limit: Tensor, dtype: torch.dtype) -> Tensor:
    """Bits of the smallest number of `dtype` that is not below a limit >= 0."""
    rounded = limit.to(dtype)
    return rounded.view(_BITS[dtype]) + (rounded.double() < limit)


def infinite_key(dtype: torch.dtype) -> int:
    """Bits of infinity."""
    return int(torch.tensor(INF, dtype=dtype).view(_BITS[dtype]))


def as_keys(scores: Tensor) -> Tensor:
    """Bits of scores."""
    return scores.view(_BITS[scores.dtype])


def _coordinates(vectors: Tensor, axes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Coordinates along the axes and the norm of the rest; and squared norms.

    The norm of the rest is never too small by rounding; too large a one only loosens the bound.
    """
    squares = vectors.square().sum(1)
    if axes is None:
        return vectors, squares
    inside = vectors @ axes
    rest = (squares - inside.square().sum(1)).clamp_(min=0) + slack(vectors.shape[1]) * squares
    return torch.cat((inside, rest.sqrt_()[:, None]), 1), squares


def _rounding(coordinates: Tensor, low: Tensor, norms: Tensor) -> Tensor:
    """Relative rounding errors, beyond what counts as flushed to zero."""
    lost = torch.linalg.vector_norm(coordinates - low, dim=1)
    floor = _TINY * math.sqrt(coordinates.shape[1])
    return (lost - floor).clamp_(min=0).div_(norms.clamp(min=_TINY)).mul_(1 + 1e-6)


def _split_sum(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Columns of `dtype` that sum to the values but for a residual."""
    columns = []
    for _ in range(_PARTS[dtype]):
        columns.append(values.to(dtype))
        values = (values - columns[-1]).nan_to_num_(0.0, 0.0, 0.0)
    return torch.stack(columns, 1)


def _inverse_norms(index: SearchIndex) -> Tensor | None:
    """Inverse norms of the samples as given, 0 for zero vectors; None if they are extreme."""
    norms = index.samples.new_empty(len(index.samples), dtype=torch.float64)
    for some, part in zip(index.samples.split(STRIP), norms.split(STRIP), strict=True):
        torch.linalg.vector_norm(some.double(), dim=1, out=part)
    usual = ((norms > _NORMS[0]) & (norms < _NORMS[1])) | (norms == 0)
    if not usual.all():
        return None
    inverse = norms.reciprocal().masked_fill_(norms == 0, 0.0)
    return inverse.to(difference_dtype(index.samples))
