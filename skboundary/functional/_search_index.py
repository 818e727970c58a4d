"""Samples prepared for an exact search: centered float32 strips, and float64 copies on demand.

Squares double the exponent: where they would leave the range of a dtype, all samples are multiplied
by one power of two, which is the same problem exactly.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 8  # scores that share one minimum
GROUPS = 64  # groups in a strip: torch takes minima over this many columns at a time
STRIP = GROUP * GROUPS  # samples of a strip
FLOAT64 = 2**17  # float64 numbers in one temporary, approximately: 1 MB fits the cache
INF = float("inf")
_EXPONENTS = -30, 50  # of the largest number: between them no square leaves float32's range
_NORMS = 2.0**-400, 2.0**400  # norms between them are right although they were squared


class SearchIndex(NamedTuple):
    """Samples prepared for `search`; its table takes as much memory as float32 samples."""

    samples: Tensor  # (n, d): as given, not copied
    table: Tensor  # (n_strips, d, 512) float32: centered samples
    halves: Tensor  # (n_strips, 512) float32: half their squared norms, infinity beyond the last
    center: Tensor  # (d,) float64
    radius: float  # largest norm of a centered sample
    metric: str
    scale: float  # power of two that multiplies samples and queries before anything is squared


def chunk_size(d: int) -> int:
    """How many vectors of d float64 numbers to hold at a time."""
    return max(64, FLOAT64 // d)


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


def vectors_of(samples: Tensor, metric: str, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Give vectors whose half squared L2 distance is wanted (float64 copies), and which are zero.

    Cosine distance is half the squared distance of the normalized vectors; a zero vector
    gets there with an extra 1/2, since ``|u|^2 / 2 + 1 / 2 = 1`` for a normalized u.
    """
    device = "cpu" if samples.device.type == "mps" else samples.device
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
