"""Walks along the boundary toward the point that is nearest to a sample."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import torch
from torch import Tensor

from skboundary.functional._query_brackets import (
    COARSE_WIDTH,
    MAX_NUMBERS,
    QueryState,
    bisect_brackets,
    bracket_segments,
    revert_coordinates_twice,
    separate_ends,
)
from skboundary.functional._query_directions import Directions

_FINAL_PART = 5  # the last fifth of the budget continues from the best point
_STALL_RATIO = 0.995  # a step that leaves more than this of the radius has stalled
_N_STALLS = 3  # consecutive ones that end a walk
_MIN_GAIN = 1e-6  # least relative gain of a point on the circle
_TRIAL_STEPS = 4  # after which a walk is dropped
_RESTART_RATIO = 1.1  # unless its radius is within this ratio of the best
_SIMILARITY = 0.9  # cosine from which a start lies where a walk has ended before
_FIRST_ANGLE, _FINAL_ANGLE = 0.5, 0.2  # first angle of a step, at a start and at the best point
_N_ANGLES = 9  # angles tried in one step
_BRACKETS_PER_SPREAD = 4  # width of a bracket relative to the offset of the queries around it


class BoundaryWalk:
    """Walks of all samples in one batch, one at a time for each sample.

    A walk begins at a start and takes steps along the boundary. When it stalls, coordinates are
    reverted as long as the distance decreases; then another walk begins at the start whose
    direction is least similar to those of earlier ends. With the last fifth of its budget, or when
    its starts are used up, a sample continues from its best point: its final walk.

    Parameters
    ----------
    state : QueryState
        With first brackets.
    starts : Tensor of shape (n, s, d)
    directions : Directions
        Those queried in the steps.
    spread : float
        Distance of the queries from the boundary point, relative to the radius.
    tol : float
        Relative width of the brackets.
    revert : bool
        Whether coordinates are reverted at all.
    """

    def __init__(
        self,
        state: QueryState,
        starts: Tensor,
        directions: Directions,
        *,
        spread: float,
        tol: float,
        revert: bool,
    ) -> None:
        self.state, self.starts, self.directions, self.tol = state, starts, directions, tol
        self.first_spread = spread
        # per sample, (n,): of the step
        self.angle = torch.full_like(state.radius, _FIRST_ANGLE)  # the last one that was across
        self.spread = torch.full_like(state.radius, spread)
        # per sample, (n,): of the walk
        self.n_steps, self.n_stalls = torch.zeros_like(state.left), torch.zeros_like(state.left)
        self.revert_pays = torch.full_like(state.left, revert, dtype=torch.bool)
        self.is_final = torch.zeros_like(self.revert_pays)
        # per start, (n, s, d) and (n, s): its direction, and its largest cosine with an end
        self.units = starts - state.x[:, None]
        length = self.units.norm(dim=2)
        self.units /= length[:, :, None].clamp(min=1e-30)
        self.similarity = torch.where(length > 0, -1.0, 1.0).to(self.units)  # none begins at x

    def run(self) -> None:
        """Walk until the budget is used up or nothing is left to try."""
        state = self.state
        samples = (state.radius < math.inf).nonzero()[:, 0]
        state.keep(samples)
        for _ in range(state.budget):
            samples = state.with_budget(samples, self.directions.n + 2 * state.reserved)
            if not len(samples):
                break
            self._advance(samples, self.directions.draw())
            ended = self._has_ended(samples)
            again = self._begin_next(samples[ended])
            samples = torch.cat([samples[~ended], again]).sort().values
        found = (state.best_radius < math.inf).nonzero()[:, 0]
        state.keep(found)
        state.restore(found)
        revertible = state.with_budget(found[self.revert_pays[found]], state.reserved)
        revert_coordinates_twice(state, revertible, self.tol)
        separate_ends(state, self.tol)

    def _advance(self, samples: Tensor, directions: Tensor) -> None:
        """One step of each sample; coordinates are reverted where walks have stalled."""
        state, before = self.state, self.state.radius[samples]
        self._step(samples, directions)
        self.n_steps[samples] += 1
        stalled = state.radius[samples] > _STALL_RATIO * before
        self.n_stalls[samples] = torch.where(stalled, self.n_stalls[samples] + 1, 0)
        still = samples[(self.n_stalls[samples] == _N_STALLS) & self.revert_pays[samples]]
        self.revert_pays[still] = revert_coordinates_twice(state, still, self.tol)
        self.n_stalls[still[self.revert_pays[still]]] = 0

    def _has_ended(self, samples: Tensor) -> Tensor:
        """Which walks (m,) have stalled, are too far from the best, or have to become final."""
        state, final = self.state, self.is_final[samples]
        stalled = self.n_stalls[samples] >= torch.where(final, 2 * _N_STALLS, _N_STALLS)
        far = state.radius[samples] > _RESTART_RATIO * state.best_radius[samples]
        late = state.left[samples] < state.budget // _FINAL_PART
        return stalled | ((self.n_steps[samples] >= _TRIAL_STEPS) & far) | (~final & late)

    def _begin_next(self, ended: Tensor) -> Tensor:
        """Begin the next walk of samples; those that have one."""
        state = self.state
        state.keep(ended)
        ended = ended[~self.is_final[ended]]
        self.n_steps[ended], self.n_stalls[ended] = 0, 0
        early = ended[state.left[ended] >= state.budget // _FINAL_PART]
        new = self._begin_at_start(early)
        self.is_final[ended], self.is_final[new] = True, False
        last = ended[self.is_final[ended]]
        state.restore(last)
        self.angle[new], self.spread[new] = _FIRST_ANGLE, self.first_spread
        self.angle[last], self.spread[last] = _FINAL_ANGLE, self.first_spread / 4
        return torch.cat([last, new[state.radius[new] < math.inf]])

    def _begin_at_start(self, samples: Tensor) -> Tensor:
        """Bracket the start least similar to the ends so far; the samples that had one left."""
        if not self.starts.shape[1] or not len(samples):
            return samples[:0]
        state, similarity = self.state, self.similarity
        end = (state.outer[samples] - state.x[samples]) / state.radius[samples, None]
        cosine = (self.units[samples] * end[:, None]).sum(2)
        similarity[samples] = torch.maximum(similarity[samples], cosine)
        least, j = similarity[samples].min(1)
        samples, j = samples[least < _SIMILARITY], j[least < _SIMILARITY]
        similarity[samples, j] = 1.0
        state.radius[samples] = math.inf
        reserved = torch.full_like(state.left, state.reserved)
        bracket_segments(state, self.starts[samples, j][:, None], samples, reserved)
        bisect_brackets(state, samples, COARSE_WIDTH)
        return samples

    def _step(self, samples: Tensor, directions: Tensor) -> None:
        """One step: estimate a direction, search an angle, bisect the ray there."""
        state = self.state
        ray = (state.outer[samples] - state.x[samples]) / state.radius[samples, None]
        direction = self._estimate_direction(samples, ray, directions)
        angle, worse = self._search_angle(samples, ray, direction)
        gained = angle > 0
        self.angle[samples] = torch.where(gained, angle.clamp(max=1.0), self.angle[samples] / 2)
        spread = self.spread[samples]
        self.spread[samples] = torch.where(gained, spread, spread / 2)
        gap = (angle * (worse - angle))[gained]
        # a boundary across a random direction is at this share of the radius from the next queries
        tol = self.spread[samples] / (_BRACKETS_PER_SPREAD * math.sqrt(directions.shape[1]))
        bisect_brackets(state, samples[gained], tol[gained].clamp(min=self.tol), gap)

    def _estimate_direction(self, samples: Tensor, ray: Tensor, directions: Tensor) -> Tensor:
        """Unit vectors (m, d) across the rays along which the boundary comes closer, or 0.

        The margins at points around the boundary point are the weights of their directions.
        """
        state, result = self.state, torch.zeros_like(ray)
        size = max(1, MAX_NUMBERS // directions.numel())
        for part in torch.arange(len(samples), device=samples.device).split(size):
            sample, u = samples[part], ray[part, None]
            center = ((state.outer[sample] + state.inner[sample]) / 2)[:, None]
            around = directions - (u * directions).sum(2, keepdim=True) * u
            spread = (self.spread[sample] * state.radius[sample])[:, None, None]
            points = state.clip(center + spread * around, sample)
            margins = state.query(points, sample)
            margins -= margins.mean(1, keepdim=True)
            downhill = (margins[:, :, None] * (center - points)).sum(1)
            result[part] = downhill - (downhill * u[:, 0]).sum(1, keepdim=True) * u[:, 0]
        return result / result.norm(dim=1, keepdim=True).clamp(min=1e-30)

    def _search_angle(
        self, samples: Tensor, ray: Tensor, direction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Angles on the circles over [x, outer] that are across the boundary, and ones that are
        not. Doubled or halved from the last angle, then bisected to a quarter."""
        state, angle = self.state, self.angle[samples].clone()
        x, radius = state.x[samples], state.radius[samples].clone()
        good, bad = torch.zeros_like(angle), torch.full_like(angle, math.inf)
        i = direction.any(1).nonzero()[:, 0]
        for _ in range(_N_ANGLES):
            i = i[state.left[samples[i]] > state.reserved]
            if not len(i):
                break
            cos, sin = angle[i].cos()[:, None], angle[i].sin()[:, None]
            turned = cos * ray[i] + sin * direction[i]
            points = state.clip(x[i] + cos * radius[i, None] * turned, samples[i])
            distance = (points - x[i]).norm(dim=1)
            nearer = distance < (1 - _MIN_GAIN) * state.radius[samples[i]]  # not by rounding alone
            crossed = state.crossed(points, samples[i]) & nearer
            better = samples[i[crossed]]
            state.outer[better], state.radius[better] = points[crossed], distance[crossed]
            state.inner[better] = x[i[crossed]]
            good[i[crossed]], bad[i[~crossed]] = angle[i[crossed]], angle[i[~crossed]]
            g, b = good[i], bad[i]
            angle[i] = torch.where(g == 0, b / 2, torch.where(b.isinf(), 2 * g, (g + b) / 2))
            is_open = ((g == 0) | (b - g > 0.25 * g)) & (angle[i] < 1.5) & (angle[i] > 1e-3)
            i = i[is_open]
        return good, torch.where(bad.isinf(), 2 * good, bad)
