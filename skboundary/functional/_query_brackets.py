"""Brackets of the boundary on rays from the samples, and the queries that move them.

A query is one point given to the classifier. All samples of a step are queried in one call, and
queries are counted for each sample.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from skboundary.functional._results import BoundaryPair

MAX_NUMBERS = 2**24  # approximate size of the points of one call
COARSE_WIDTH = 0.02  # relative width to which the bracket on a segment is bisected at first
_RESERVED_QUERIES = 12  # kept back to bisect a bracket
_RESERVED_PART = 8  # and at most this part of the budget
_MAX_MISSES = 64  # consecutive coordinates tried in vain before a sample is left


class QueryState:
    """Brackets of all samples, and how many queries are left to each.

    Attributes
    ----------
    margin : callable
        ``margin(points, samples)`` of points (m, d) of samples (m,): negative across the boundary.
    outer, inner : Tensor of shape (n, d)
        The ends of the brackets, `outer` across the boundary; x where there is none.
    radius : Tensor of shape (n,)
        Distance of `outer` from x; infinite where there is no bracket.
    left : Tensor of shape (n,)
        Queries left.
    reserved : int
        Of these, those that are kept back to bisect a bracket.
    """

    def __init__(
        self,
        margin: Callable[[Tensor, Tensor], Tensor],
        x: Tensor,
        bounds: tuple[Tensor, Tensor] | None,
        budget: int,
    ) -> None:
        self.margin, self.x, self.budget = margin, x, budget
        self.bounds = None if bounds is None else tuple(b.expand_as(x) for b in bounds)
        self.outer, self.inner = x.clone(), x.clone()
        self.radius = x.new_full((len(x),), math.inf)
        self._kept = self.outer.clone(), self.inner.clone(), self.radius.clone()
        self.left = torch.full((len(x),), budget, device=x.device)
        self.reserved = min(_RESERVED_QUERIES, budget // _RESERVED_PART)

    def query(self, points: Tensor, samples: Tensor) -> Tensor:
        """Margins (m, q) of points (m, q, d) of samples (m,)."""
        if not len(samples):
            return points.new_zeros(points.shape[:-1])
        self.left[samples] -= points.shape[1]
        margin = self.margin(points.flatten(0, 1), samples.repeat_interleave(points.shape[1]))
        return margin.to(points.dtype).view(points.shape[:-1])

    def crossed(self, points: Tensor, samples: Tensor) -> Tensor:
        """Which of the points (m, d), one of each sample, are across the boundary."""
        return self.query(points[:, None], samples)[:, 0] < 0

    def clip(self, points: Tensor, samples: Tensor) -> Tensor:
        """Points (m, ..., d) clipped to the box of their samples."""
        if self.bounds is None:
            return points
        shape = len(samples), *[1] * (points.ndim - 2), points.shape[-1]
        low, high = (b[samples].view(shape) for b in self.bounds)
        return torch.minimum(torch.maximum(points, low), high)

    def with_budget(self, samples: Tensor, n_queries: int = 1) -> Tensor:
        """Those of the samples that have at least `n_queries` left."""
        return samples[self.left[samples] >= n_queries]

    @property
    def best_radius(self) -> Tensor:
        """Radii (n,) of the nearest brackets so far, as `keep` saved them."""
        return self._kept[2]

    def keep(self, samples: Tensor) -> None:
        """Save the brackets of samples that are nearer than those saved before."""
        nearer = samples[self.radius[samples] < self.best_radius[samples]]
        for kept, now in zip(self._kept, (self.outer, self.inner, self.radius), strict=True):
            kept[nearer] = now[nearer]

    def restore(self, samples: Tensor) -> None:
        """Go back to the saved brackets of samples."""
        for kept, now in zip(self._kept, (self.outer, self.inner, self.radius), strict=True):
            now[samples] = kept[samples]

    def result(self, target: Tensor) -> BoundaryPair:
        """The brackets of all samples."""
        n_forward = self.budget - self.left
        n_backward = torch.zeros_like(n_forward)
        success = self.radius < math.inf
        return BoundaryPair(self.outer, target, success, n_forward, n_backward, self.inner)


def bracket_segments(state: QueryState, starts: Tensor, samples: Tensor, reserved: Tensor) -> None:
    """Bisect the segments from samples (m,) to starts (m, s, d) that can give a nearer bracket.

    The first query of a segment lies just before the best distance so far; only if it is across
    the boundary is the segment bisected, to a relative width of `COARSE_WIDTH`. A sample that has
    a bracket ends with `reserved` (n,) queries left.
    """
    x = state.x[samples]
    difference = starts - x[:, None]
    length = difference.norm(dim=2)
    # starts that equal x are placeholders: they come last and are not queried
    order = (length == 0).byte().argsort(dim=1, stable=True)
    difference = difference.gather(1, order[:, :, None].expand_as(difference))
    length, n_starts = length.gather(1, order), (length > 0).sum(1)
    n = len(samples)
    j = torch.zeros(n, dtype=torch.long, device=x.device)  # the segment of each sample
    low, high = x.new_zeros(n), x.new_zeros(n)
    is_first = torch.ones(n, dtype=torch.bool, device=x.device)  # query of a segment
    while True:
        spare = torch.where(state.radius < math.inf, reserved, 0)[samples]
        i = ((j < n_starts) & (state.left[samples] > spare)).nonzero()[:, 0]
        if not len(i):
            return
        first, sample = is_first[i], samples[i]
        bound = torch.minimum(length[i, j[i]], state.radius[sample] * (1 - COARSE_WIDTH))
        t = torch.where(first, bound, (low[i] + high[i]) / 2)
        unit = difference[i, j[i]] / length[i, j[i], None].clamp(min=1e-30)
        points = x[i] + t[:, None] * unit
        crossed = state.crossed(points, sample)
        low[i] = torch.where(first, 0.0, torch.where(crossed, low[i], t))
        high[i] = torch.where(crossed, t, high[i])
        nearer = crossed.nonzero()[:, 0]
        state.outer[sample[nearer]], state.radius[sample[nearer]] = points[nearer], t[nearer]
        state.inner[sample[nearer]] = x[i[nearer]] + low[i[nearer], None] * unit[nearer]
        before = (~crossed & ~first).nonzero()[:, 0]
        state.inner[sample[before]] = points[before]
        is_first[i] = first & ~crossed
        done = (first & ~crossed) | (~first & (high[i] - low[i] <= COARSE_WIDTH * high[i]))
        j[i] += done
        is_first[i] |= done


def bisect_brackets(
    state: QueryState, samples: Tensor, tol: float | Tensor, gap: Tensor | None = None
) -> None:
    """Bring `inner` and `outer` of samples (m,) together on their ray.

    To the relative width `tol`, a number or (m,). While nothing but x is known to be inside, steps
    inwards grow fourfold from the relative `gap`; bisection follows.
    """
    found = state.radius[samples] < math.inf
    samples = samples[found]
    tol = torch.as_tensor(tol).to(state.x).expand_as(found)[found]
    gap = tol.clone() if gap is None else torch.maximum(gap[found], tol)
    x, outer = state.x[samples], state.outer[samples]
    high, low = state.radius[samples].clone(), (state.inner[samples] - x).norm(dim=1)
    unit = (outer - x) / high[:, None]
    rounding = 16 * torch.finfo(x.dtype).eps * x.norm(dim=1)
    while True:
        wide = high - low > torch.maximum(tol * high, rounding)
        i = (wide & (state.left[samples] > 0)).nonzero()[:, 0]
        if not len(i):
            return
        t = torch.where(low[i] > 0, (low[i] + high[i]) / 2, high[i] * (1 - gap[i].clamp(max=0.5)))
        points = x[i] + t[:, None] * unit[i]
        crossed = state.crossed(points, samples[i])
        inside, outside = samples[i[~crossed]], samples[i[crossed]]
        state.inner[inside], state.outer[outside] = points[~crossed], points[crossed]
        low[i[~crossed]], high[i[crossed]] = t[~crossed], t[crossed]
        state.radius[outside] = t[crossed]
        gap[i] *= 4


def separate_ends(state: QueryState, tol: float) -> None:
    """Bisect all brackets to half of `tol`, then move both ends off the boundary by a quarter.

    An end that lies on the boundary to machine precision has a label that changes with the
    batch it is computed in.
    """
    bisect_brackets(state, torch.arange(len(state.x), device=state.x.device), tol / 2)
    shift = (state.outer - state.x) * tol / 4
    for end, sign in ((state.outer, 1), (state.inner, -1)):
        samples = state.with_budget((state.radius < math.inf).nonzero()[:, 0])
        points = state.clip(end[samples] + sign * shift[samples], samples)
        stays = state.crossed(points, samples) == (sign > 0)
        end[samples[stays]] = points[stays]


def revert_coordinates(state: QueryState, samples: Tensor, n_halvings: int) -> None:
    """Set coordinates of `outer` back to those of x where the point stays across the boundary.

    The largest change first; a change that cannot be reverted wholly is bisected. A sample is left
    after 64 consecutive coordinates of which nothing was reverted.
    """
    x = state.x[samples]
    misses = torch.zeros_like(samples)
    change = state.outer[samples] - x
    order = change.abs().sort(dim=1, descending=True, stable=True).indices
    every = torch.arange(len(samples), device=samples.device)
    for j in order.T:
        whole = change[every, j]
        low, high = torch.zeros_like(whole), torch.ones_like(whole)
        i = every[(whole != 0) & (misses < _MAX_MISSES)]
        for halving in range(n_halvings + 1):
            i = i[state.left[samples[i]] > state.reserved]
            if not len(i):
                break
            t = (low[i] + high[i]) / 2 if halving else low[i]
            moved = change[i]
            moved[torch.arange(len(i), device=i.device), j[i]] = whole[i] * t
            points = x[i] + moved
            crossed = state.crossed(points, samples[i])
            kept = i[crossed]
            change[kept], state.outer[samples[kept]] = moved[crossed], points[crossed]
            high[kept], low[i[~crossed]] = t[crossed], t[~crossed]
            i = i[high[i] > 0]
        misses = torch.where(high < 1, 0, misses + 1)
    state.radius[samples], state.inner[samples] = change.norm(dim=1), x


def revert_coordinates_twice(state: QueryState, samples: Tensor, tol: float) -> Tensor:
    """Revert whole coordinates, then parts of them where that paid.

    Returns
    -------
    pays : Tensor of shape (m,), dtype bool
        Which of the samples (m,) came closer to x by 1 %.
    """
    before = state.radius[samples]
    revert_coordinates(state, samples, 0)
    pays = state.radius[samples] < 0.99 * before
    revert_coordinates(state, samples[pays], 3)
    bisect_brackets(state, samples, tol)
    return state.radius[samples] < 0.99 * before
