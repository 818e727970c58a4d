"""Samples prepared for an exact search: centered float32 strips, and float64 copies on demand.

Squares double the exponent: where they would leave the range of a dtype, all samples are multiplied
by one power of two, which is the same problem exactly.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from threading import RLock
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from skboundary.functional._float64 import float64_device

GROUP = 8  # scores that share one minimum
GROUPS = 64  # groups in a strip: torch takes minima over this many columns at a time
STRIP = GROUP * GROUPS  # samples of a strip
_FLOAT64 = 2**18, 2**25  # float64 numbers of one temporary, about: on the CPU, elsewhere
INF = float("inf")
_EXPONENTS = -30, 50  # of the largest number: between them no square leaves float32's range
_NORMS = 2.0**-400, 2.0**400  # norms between them are right although they were squared


class Method(NamedTuple):
    """A search by lower bounds: what its product is made of."""

    n_axes: int | None  # leading directions; None for all columns, without a basis
    dtype: torch.dtype


class ProductTable(NamedTuple):
    """Samples as a factor of the float32 product of all columns."""

    strips: Tensor  # (n_strips, d, 512) float32: centered samples
    halves: Tensor  # (n_strips, 512) float32: half their squared norms, infinity beyond the last


class BoundTable(NamedTuple):
    """Samples as a factor of the product that gives lower bounds."""

    strips: Tensor  # (n_strips, c, 512): minus coordinates, half squared norm, ones
    axes: Tensor | None  # (d, m) float64, orthonormal
    unit: float  # power of two that brings the radius to at most 1
    rounding: float  # largest relative rounding error of a sample
    zero_half: float  # what zero vectors add to a score under the cosine distance, at most
    inverse_norms: Tensor | None  # (n,) for the cosine distance; 0 for zero vectors


class SearchTables:
    """Tables held by an index, and the method chosen for each k (None: the full product)."""

    def __init__(self, product: ProductTable | None) -> None:
        self.lock = RLock()
        self.product = product
        self.bounds: dict[Method, BoundTable | None] = {}
        self.methods: dict[int, Method | None] = {}
        self.searched: dict[int, int] = {}  # queries before a method is chosen
        self.choosing: set[int] = set()
        self.unsettled: dict[int, tuple[int, int]] = {}  # queries left to the product, of how many
        self.axes: Tensor | None = None  # leading directions (d, m)


class SearchIndex(NamedTuple):
    """Samples prepared for `search`.

    Its tables take as much memory as float32 samples at most, except while methods are compared.
    """

    samples: Tensor  # (n, d): as given, not copied
    center: Tensor  # (d,) float64
    radius: float  # largest norm of a centered sample
    metric: str
    scale: float  # power of two that multiplies samples and queries before anything is squared
    tables: SearchTables


def build_product_table(
    samples: Tensor, center: Tensor, metric: str, scale: float
) -> tuple[ProductTable, float]:
    """Build the table of all columns; return it and the largest norm of a centered sample."""
    n, d = samples.shape
    strips = samples.new_zeros(-(-n // STRIP), d, STRIP, dtype=torch.float32)
    halves = strips.new_full((len(strips), STRIP), INF)
    step = max(1, float64_numbers(samples.device) // (STRIP * d))  # strips at a time
    # one number in place: small tensors that stay would divide the memory freed between them
    largest = center.new_zeros(())
    for start, some in enumerate(samples.split(step * STRIP)):
        vectors, zero = vectors_of(some, metric, scale)
        squares = vectors.sub_(center).square().sum(1)
        torch.maximum(largest, squares.max(), out=largest)
        part = slice(start * step, (start + 1) * step)
        halves[part].view(-1)[: len(some)] = squares.add_(zero) / 2
        vectors = pad(vectors, (0, 0, 0, -len(some) % STRIP))
        strips[part] = vectors.view(-1, STRIP, d).transpose(1, 2)
    return ProductTable(strips, halves), math.sqrt(largest)


def product_table(index: SearchIndex) -> ProductTable:
    """Return the table of all columns, built again if it was dropped."""
    with index.tables.lock:
        if index.tables.product is None:
            parts = index.samples, index.center, index.metric, index.scale
            index.tables.product = build_product_table(*parts)[0]
        return index.tables.product


def float64_numbers(device: torch.device) -> int:
    """How many float64 numbers to hold in a temporary: few stay in the cache of a CPU.

    On an accelerator the launch of a step takes longer than its work on so few.
    """
    return _FLOAT64[device.type != "cpu"]


def chunk_size(samples: Tensor) -> int:
    """How many of the samples to hold in float64 at a time."""
    return max(64, float64_numbers(samples.device) // samples.shape[1])


def power_of_two_scale(samples: Tensor) -> float:
    """Give the power of two that brings the largest number near 1 where it is far from it."""
    if not samples.is_floating_point():
        return 1.0
    low, high = samples.aminmax()
    exponent = math.frexp(max(-float(low), float(high)))[1]  # 0 for the number 0
    if _EXPONENTS[0] <= exponent <= _EXPONENTS[1]:
        return 1.0
    return math.ldexp(1.0, -min(max(exponent, -1000), 1000))


def power_below(size: Tensor) -> Tensor:
    """Give the largest power of two that is not above `size`; 1 for 0 and infinity."""
    mantissa = torch.frexp(size).mantissa
    return (size / (2 * mantissa)).nan_to_num_(nan=1.0)


def check_queries(
    index: SearchIndex, queries: Tensor, exclude: Tensor | None, batch_size: int
) -> None:
    """Raise a ValueError for queries that a search cannot take, or for their options."""
    d = index.samples.shape[1]
    if queries.ndim != 2 or queries.shape[1] != d:
        raise ValueError(f"queries has shape {tuple(queries.shape)}, expected (q, {d}).")
    if exclude is not None and exclude.shape != (len(queries),):
        raise ValueError(
            f"exclude has shape {tuple(exclude.shape)}, but there are {len(queries)} queries."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")


def vectors_of(samples: Tensor, metric: str, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Give vectors whose half squared L2 distance is wanted (float64 copies), and which are zero.

    Cosine distance is half the squared distance of the normalized vectors; a zero vector
    gets there with an extra 1/2, since ``|u|^2 / 2 + 1 / 2 = 1`` for a normalized u.
    """
    device = float64_device(samples)
    vectors = samples.to(device, torch.float64, copy=True)
    if scale != 1:
        vectors *= scale
    zero = torch.zeros(len(samples), dtype=torch.bool, device=device)
    if metric == "cosine":
        norms = torch.linalg.vector_norm(vectors, dim=1)
        odd = ~((norms > _NORMS[0]) & (norms < _NORMS[1]))
        if odd.any():
            vectors[odd] /= power_below(vectors[odd].abs().amax(1))[:, None]
            norms[odd] = torch.linalg.vector_norm(vectors[odd], dim=1)
        zero = norms == 0
        vectors /= norms.masked_fill_(zero, 1.0)[:, None]
    return vectors, zero
