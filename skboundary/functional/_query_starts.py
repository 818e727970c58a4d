"""The first brackets of query-based searches: segments to the starts, then random rays."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import torch
from torch import Tensor

from skboundary.functional._query_brackets import (
    COARSE_WIDTH,
    QueryState,
    bisect_brackets,
    bracket_segments,
)
from skboundary.functional._query_directions import orthonormal_directions

_SEGMENT_QUERIES = 100  # that segments may cost before a walk begins
_N_RAYS = 48  # for samples whose starts are all of the source class


def find_first_brackets(
    state: QueryState, starts: Tensor, basis: Tensor | None, generator: torch.Generator
) -> None:
    """Find brackets on segments to the starts (n, s, d), or on random rays where these fail."""
    every = torch.arange(len(state.x), device=state.x.device)
    n_queries = min(_SEGMENT_QUERIES, state.budget // 2)
    bracket_segments(state, starts, every, state.left - n_queries)
    lost = state.with_budget(every[state.radius == math.inf])
    directions = orthonormal_directions(state.x, basis, generator, _N_RAYS)
    rays = _random_rays(state, starts, lost, directions, generator)
    bracket_segments(state, rays, lost, torch.full_like(state.left, state.reserved))
    bisect_brackets(state, every, COARSE_WIDTH)


def _random_rays(
    state: QueryState,
    starts: Tensor,
    samples: Tensor,
    directions: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Points (m, s, d) on random rays from samples (m,), in order of distance."""
    x = state.x[samples]
    d = x.shape[1]
    which = torch.arange(_N_RAYS) % len(directions)
    sign = 1 - 2 * (torch.arange(_N_RAYS) // len(directions) % 2)
    unit = (directions[which] * sign[:, None].to(x))[None]
    length = length_scale(state, starts)[samples]
    growth = 2.0 ** torch.arange(_N_RAYS).div(4, rounding_mode="floor").to(x)
    points = x[:, None] + length[:, None, None] * growth[None, :, None] * unit
    if state.bounds is not None:
        share = torch.rand(_N_RAYS, d, dtype=torch.float64, generator=generator).to(x)
        low, high = (b[samples, None] for b in state.bounds)
        points = torch.cat([state.clip(points, samples), low + share * (high - low)], 1)
    return points


def length_scale(state: QueryState, starts: Tensor) -> Tensor:
    """A typical length (n,) in the units of x.

    The mean distance from the starts (n, s, d), or where there are none an eighth of the diagonal
    of the box, of the norm of x, of 1: the first of them that is positive and finite.
    """
    x = state.x
    far = (starts - x[:, None]).norm(dim=2)
    known = [far.sum(1) / (far > 0).sum(1), x.norm(dim=1) / 8, x.new_full((len(x),), 0.125)]
    if state.bounds is not None:
        low, high = state.bounds
        known.insert(1, (high - low).norm(dim=1) / 8)
    length = known[0]
    for other in known[1:]:
        length = torch.where((length > 0) & length.isfinite(), length, other)
    return length
