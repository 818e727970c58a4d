"""Walks along the boundary toward the point that is nearest to a row."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._query_brackets import (
    COARSE,
    NUMBERS,
    RESERVE,
    Search,
    close,
    contest,
    reset,
    settle,
)

CONTEST = 100  # questions that segments may cost before a walk begins
_N_RAYS = 48  # random rays for rows whose starts are all on their own side
_LATE = 5  # the last fifth of the budget belongs to the best walk
_REST = 0.995  # a step that leaves more than this of the radius is none
_N_RESTS = 3  # so many of them running end a walk
_GAIN = 1e-6  # least relative gain of a turn
_TRIAL = 4  # steps after which a walk must be
_PROMISE = 1.1  # within so much of the best radius
_ALIKE = 0.9  # cosine from which a start lies where a walk has been


def begin(search: Search, starts: Tensor, basis: Tensor | None, generator: torch.Generator) -> None:
    """First brackets: from the starts, and from random rays where those lead nowhere."""
    everyone = torch.arange(len(search.x), device=search.x.device)
    contest(search, starts, everyone, (search.left - CONTEST).clamp(min=RESERVE))
    lost = search.able(everyone[search.radius == math.inf])
    directions = orthonormal(search.x, basis, generator, _N_RAYS)
    more = rays(search, starts, lost, directions, generator)
    contest(search, more, lost, torch.full_like(search.left, RESERVE))
    close(search, everyone, COARSE)


def descend(
    search: Search,
    starts: Tensor,
    basis: Tensor | None,
    generator: torch.Generator,
    n_directions: int,
    reach: float,
    tol: float,
    *,
    axes: bool,
) -> None:
    """Walk until the budget is used up or nothing is left to try.

    Where a walk has come to rest, coordinates are set back as long as that pays; then another
    one begins at the start whose direction is least like those of earlier ends. With the last
    fifth of its budget, or when its starts are used up, a row goes on from its best point.
    """
    walker = Walker(search, torch.full_like(search.radius, 0.5), search.radius * 0 + reach)
    rows = (search.radius < math.inf).nonzero()[:, 0]
    search.keep(rows)
    steps, rests = torch.zeros_like(search.left), torch.zeros_like(search.left)
    axes_pay = torch.full_like(search.left, axes, dtype=torch.bool)
    final = torch.zeros_like(axes_pay)
    units = starts - search.x[:, None]
    length = units.norm(dim=2)
    units /= length[:, :, None].clamp(min=1e-30)
    likeness = torch.where(length > 0, -1.0, 1.0).to(units)  # none begins at x itself
    late = search.budget // _LATE
    for _ in range(search.budget):
        directions = orthonormal(search.x, basis, generator, n_directions)
        rows = search.able(rows, len(directions) + 2 * RESERVE)
        if not len(rows):
            break
        before = search.radius[rows]
        walker.step(rows, directions, tol)
        steps[rows] += 1
        rests[rows] = torch.where(search.radius[rows] > _REST * before, rests[rows] + 1, 0)
        still = rows[(rests[rows] == _N_RESTS) & axes_pay[rows]]
        axes_pay[still] = reset_twice(search, still, tol)
        rests[still[axes_pay[still]]] = 0

        at_rest = rests[rows] >= torch.where(final[rows], 2 * _N_RESTS, _N_RESTS)
        hopeless = (steps[rows] >= _TRIAL) & (search.radius[rows] > _PROMISE * search.best[rows])
        ended = at_rest | hopeless | (~final[rows] & (search.left[rows] < late))
        ended, rows = rows[ended], rows[~ended]
        search.keep(ended)
        ended = ended[~final[ended]]
        steps[ended], rests[ended] = 0, 0
        new = _begin_again(search, starts, units, likeness, ended[search.left[ended] >= late])
        final[ended], final[new] = True, False
        last = ended[final[ended]]
        search.restore(last)
        walker.angle[new], walker.reach[new] = 0.5, reach
        walker.angle[last], walker.reach[last] = 0.2, reach / 4
        rows = torch.cat([rows, last, new[search.radius[new] < math.inf]]).sort().values
    found = (search.best < math.inf).nonzero()[:, 0]
    search.keep(found)
    search.restore(found)
    reset_twice(search, search.able(found[axes_pay[found]], RESERVE), tol)
    settle(search, tol)


def _begin_again(
    search: Search, starts: Tensor, units: Tensor, likeness: Tensor, rows: Tensor
) -> Tensor:
    """Begin a walk of rows at the start least like their ends so far; rows that had one left."""
    if not starts.shape[1] or not len(rows):
        return rows[:0]
    end = (search.outer[rows] - search.x[rows]) / search.radius[rows, None]
    likeness[rows] = torch.maximum(likeness[rows], (units[rows] * end[:, None]).sum(2))
    least, j = likeness[rows].min(1)
    rows, j = rows[least < _ALIKE], j[least < _ALIKE]
    likeness[rows, j] = 1.0
    search.radius[rows] = math.inf
    contest(search, starts[rows, j][:, None], rows, torch.full_like(search.left, RESERVE))
    close(search, rows, COARSE)
    return rows


class Walker(NamedTuple):
    """Steps along the boundary toward the point that is nearest to x."""

    search: Search
    angle: Tensor  # (n,): the last angle that was across the boundary, tried first
    reach: Tensor  # (n,): distance of the votes, relative to the radius

    def step(self, rows: Tensor, directions: Tensor, tol: float) -> None:
        """One step of rows: votes, an angle, a ray."""
        search = self.search
        x, radius = search.x[rows], search.radius[rows]
        ray = (search.outer[rows] - x) / radius[:, None]
        across = self._vote(rows, ray, directions)
        angle, worse = self._turn(rows, ray, across)
        gained = angle > 0
        self.angle[rows] = torch.where(gained, angle.clamp(max=1.0), self.angle[rows] / 2)
        self.reach[rows] = torch.where(gained, self.reach[rows], self.reach[rows] / 2)
        close(search, rows[gained], tol, (angle * (worse - angle))[gained])

    def _vote(self, rows: Tensor, ray: Tensor, directions: Tensor) -> Tensor:
        """Unit vectors across the rays along which the boundary comes closer; 0 if no vote is."""
        search, result = self.search, torch.zeros_like(ray)
        size = max(1, NUMBERS // directions.numel())
        for part in torch.arange(len(rows), device=rows.device).split(size):
            row, u = rows[part], ray[part, None]
            center = ((search.outer[row] + search.inner[row]) / 2)[:, None]
            around = directions - (u * directions).sum(2, keepdim=True) * u
            reach = (self.reach[row] * search.radius[row])[:, None, None]
            points = search.clip(center + reach * around, row)
            votes = search.ask(points, row)
            votes -= votes.mean(1, keepdim=True)
            vote = (votes[:, :, None] * (points - center)).sum(1)
            result[part] = vote - (vote * u[:, 0]).sum(1, keepdim=True) * u[:, 0]
        return result / result.norm(dim=1, keepdim=True).clamp(min=1e-30)

    def _turn(self, rows: Tensor, ray: Tensor, across: Tensor) -> tuple[Tensor, Tensor]:
        """Angles on the circles over [x, outer] that are across the boundary, and ones that are
        not. Doubled or halved from the last angle, then bisected to a quarter."""
        search, angle = self.search, self.angle[rows].clone()
        x, radius = search.x[rows], search.radius[rows].clone()
        good, bad = torch.zeros_like(angle), torch.full_like(angle, math.inf)
        i = across.any(1).nonzero()[:, 0]
        for _ in range(9):
            i = i[search.left[rows[i]] > RESERVE]
            if not len(i):
                break
            cos, sin = angle[i].cos()[:, None], angle[i].sin()[:, None]
            direction = cos * ray[i] + sin * across[i]
            points = search.clip(x[i] + cos * radius[i, None] * direction, rows[i])
            distance = (points - x[i]).norm(dim=1)
            nearer = distance < (1 - _GAIN) * search.radius[rows[i]]  # by more than rounding
            crossed = search.crossed(points, rows[i]) & nearer
            better = rows[i[crossed]]
            search.outer[better], search.radius[better] = points[crossed], distance[crossed]
            search.inner[better] = x[i[crossed]]
            good[i[crossed]], bad[i[~crossed]] = angle[i[crossed]], angle[i[~crossed]]
            g, b = good[i], bad[i]
            angle[i] = torch.where(g == 0, b / 2, torch.where(b.isinf(), 2 * g, (g + b) / 2))
            open_ = ((g == 0) | (b - g > 0.25 * g)) & (angle[i] < 1.5) & (angle[i] > 1e-3)
            i = i[open_]
        return good, torch.where(bad.isinf(), 2 * good, bad)


def reset_twice(search: Search, rows: Tensor, tol: float) -> Tensor:
    """Two passes over the coordinates of rows; which rows they brought 1 % closer to x."""
    before = search.radius[rows]
    reset(search, rows, 0)
    pays = search.radius[rows] < 0.99 * before
    reset(search, rows[pays], 3)
    close(search, rows, tol)
    return search.radius[rows] < 0.99 * before


def rays(
    search: Search, starts: Tensor, rows: Tensor, directions: Tensor, generator: torch.Generator
) -> Tensor:
    """Points on random rays from the rows, (len(rows), s, d), in order of distance."""
    x = search.x[rows]
    d = x.shape[1]
    which = torch.arange(_N_RAYS) % len(directions)
    sign = 1 - 2 * (torch.arange(_N_RAYS) // len(directions) % 2)
    unit = (directions[which] * sign[:, None].to(x))[None]
    length = reach(search, starts)[rows]
    growth = 2.0 ** torch.arange(_N_RAYS).div(4, rounding_mode="floor").to(x)
    points = x[:, None] + length[:, None, None] * growth[None, :, None] * unit
    if search.bounds is not None:
        share = torch.rand(_N_RAYS, d, dtype=torch.float64, generator=generator).to(x)
        low, high = (b[rows, None] for b in search.bounds)
        points = torch.cat([search.clip(points, rows), low + share * (high - low)], 1)
    return points


def reach(search: Search, starts: Tensor) -> Tensor:
    """A length (n,) in the units of x: the mean distance from the starts (n, s, d), or where there
    are none an eighth of the diagonal of the box, of the norm of x, of 1: the first that is known.
    """
    x = search.x
    far = (starts - x[:, None]).norm(dim=2)
    known = [far.sum(1) / (far > 0).sum(1), x.norm(dim=1) / 8, x.new_full((len(x),), 0.125)]
    if search.bounds is not None:
        low, high = search.bounds
        known.insert(1, (high - low).norm(dim=1) / 8)
    length = known[0]
    for other in known[1:]:
        length = torch.where((length > 0) & length.isfinite(), length, other)
    return length


def orthonormal(x: Tensor, basis: Tensor | None, generator: torch.Generator, n: int) -> Tensor:
    """Random orthonormal directions, n at most, of the whole space or of the span of a basis."""
    k = x.shape[1] if basis is None else len(basis)
    normal = torch.randn(k, min(n, k), dtype=torch.float64, generator=generator)
    directions = torch.linalg.qr(normal)[0].T.to(x)
    return directions if basis is None else directions @ basis
