"""Brackets of the boundary on rays from the rows, and the questions that move them.

A question is one point handed to the classifier; all rows of a step are asked in one call, and
each row counts its own.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NUMBERS = 2**24  # numbers in the points of one call, about
COARSE = 0.02  # relative width at which a segment's bracket leaves the contest
RESERVE = 12  # questions kept back to close a bracket
_MISSES = 64  # coordinates tried in vain before a row gives up


class Bracket(NamedTuple):
    """What a search found, row by row."""

    outer: Tensor  # (n, d): labeled target, or anything but the source; x without success
    inner: Tensor  # (n, d): not so labeled, between x and outer; x without success
    success: Tensor  # (n,) bool
    n_evaluations: Tensor  # (n,) int64: questions asked


class Search:
    """Brackets of all rows, and an oracle that counts the questions of each."""

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

    def ask(self, points: Tensor, rows: Tensor) -> Tensor:
        """Margins of points (m, q, d) of rows (m,), as (m, q): positive across the boundary."""
        if not len(rows):
            return points.new_zeros(points.shape[:-1])
        self.left[rows] -= points.shape[1]
        margin = self.margin(points.flatten(0, 1), rows.repeat_interleave(points.shape[1]))
        return margin.to(points.dtype).view(points.shape[:-1])

    def crossed(self, points: Tensor, rows: Tensor) -> Tensor:
        """Which of the points (m, d), one of each row, are across the boundary."""
        return self.ask(points[:, None], rows)[:, 0] > 0

    def clip(self, points: Tensor, rows: Tensor) -> Tensor:
        """Points (m, ..., d) put into the box of their rows."""
        if self.bounds is None:
            return points
        shape = len(rows), *[1] * (points.ndim - 2), points.shape[-1]
        low, high = (b[rows].view(shape) for b in self.bounds)
        return torch.minimum(torch.maximum(points, low), high)

    def able(self, rows: Tensor, questions: int = 1) -> Tensor:
        """Those rows that may ask so many questions."""
        return rows[self.left[rows] >= questions]

    @property
    def best(self) -> Tensor:
        """Radii (n,) of the brackets that were kept."""
        return self._kept[2]

    def keep(self, rows: Tensor) -> None:
        """Note the brackets of rows that are nearer than those noted."""
        nearer = rows[self.radius[rows] < self.best[rows]]
        for kept, now in zip(self._kept, (self.outer, self.inner, self.radius), strict=True):
            kept[nearer] = now[nearer]

    def restore(self, rows: Tensor) -> None:
        """Go back to the brackets of rows that were noted."""
        for kept, now in zip(self._kept, (self.outer, self.inner, self.radius), strict=True):
            now[rows] = kept[rows]

    def result(self) -> Bracket:
        """What all rows have found."""
        return Bracket(self.outer, self.inner, self.radius < math.inf, self.budget - self.left)


def contest(search: Search, starts: Tensor, rows: Tensor, keep: Tensor) -> None:
    """Bisect the segments of `rows` to their starts (len(rows), s, d) as far as they can win.

    A row that has a bracket ends with `keep` (n,) questions left.
    """
    x = search.x[rows]
    difference = starts - x[:, None]
    length = difference.norm(dim=2)
    # a start that is x itself is none: these come last and are not asked about
    order = (length == 0).byte().argsort(dim=1, stable=True)
    difference = difference.gather(1, order[:, :, None].expand_as(difference))
    length, s = length.gather(1, order), (length > 0).sum(1)
    n = len(rows)
    j = torch.zeros(n, dtype=torch.long, device=x.device)
    low, high = x.new_zeros(n), x.new_zeros(n)
    asks_first = torch.ones(n, dtype=torch.bool, device=x.device)
    while True:
        spare = torch.where(search.radius < math.inf, keep, 0)[rows]
        i = ((j < s) & (search.left[rows] > spare)).nonzero()[:, 0]
        if not len(i):
            return
        first, row = asks_first[i], rows[i]
        bound = torch.minimum(length[i, j[i]], search.radius[row] * (1 - COARSE))
        t = torch.where(first, bound, (low[i] + high[i]) / 2)
        unit = difference[i, j[i]] / length[i, j[i], None].clamp(min=1e-30)
        points = x[i] + t[:, None] * unit
        crossed = search.crossed(points, row)
        low[i] = torch.where(first, 0.0, torch.where(crossed, low[i], t))
        high[i] = torch.where(crossed, t, high[i])
        won = crossed.nonzero()[:, 0]
        search.outer[row[won]], search.radius[row[won]] = points[won], t[won]
        search.inner[row[won]] = x[i[won]] + low[i[won], None] * unit[won]
        before = (~crossed & ~first).nonzero()[:, 0]
        search.inner[row[before]] = points[before]
        asks_first[i] = first & ~crossed
        done = (first & ~crossed) | (~first & (high[i] - low[i] <= COARSE * high[i]))
        j[i] += done
        asks_first[i] |= done


def close(search: Search, rows: Tensor, tol: float, gap: Tensor | None = None) -> None:
    """Bring `inner` and `outer` of rows together on their ray: steps inwards that grow
    fourfold from the relative `gap` while nothing but x is known to be inside, bisection then."""
    found = search.radius[rows] < math.inf
    rows = rows[found]
    gap = search.x.new_full((len(rows),), tol) if gap is None else gap[found].clamp(min=tol)
    x, outer = search.x[rows], search.outer[rows]
    high, low = search.radius[rows].clone(), (search.inner[rows] - x).norm(dim=1)
    unit = (outer - x) / high[:, None]
    rounding = 16 * torch.finfo(x.dtype).eps * x.norm(dim=1)
    while True:
        wide = high - low > torch.maximum(tol * high, rounding)
        i = (wide & (search.left[rows] > 0)).nonzero()[:, 0]
        if not len(i):
            return
        t = torch.where(low[i] > 0, (low[i] + high[i]) / 2, high[i] * (1 - gap[i].clamp(max=0.5)))
        points = x[i] + t[:, None] * unit[i]
        crossed = search.crossed(points, rows[i])
        inside, outside = rows[i[~crossed]], rows[i[crossed]]
        search.inner[inside], search.outer[outside] = points[~crossed], points[crossed]
        low[i[~crossed]], high[i[crossed]] = t[~crossed], t[crossed]
        search.radius[outside] = t[crossed]
        gap[i] *= 4


def settle(search: Search, tol: float) -> None:
    """Close all brackets to half of `tol`, then move both ends off the boundary by a quarter.

    An end that lies on the boundary to machine precision has a label that changes with the
    batch it is computed in.
    """
    close(search, torch.arange(len(search.x), device=search.x.device), tol / 2)
    shift = (search.outer - search.x) * tol / 4
    for end, sign in ((search.outer, 1), (search.inner, -1)):
        rows = search.able((search.radius < math.inf).nonzero()[:, 0])
        points = search.clip(end[rows] + sign * shift[rows], rows)
        stays = search.crossed(points, rows) == (sign > 0)
        end[rows[stays]] = points[stays]


def reset(search: Search, rows: Tensor, halvings: int) -> None:
    """Set coordinates of `outer` back to those of x where the point stays across the boundary.

    The largest change first; what does not go back wholly goes by bisection. A row is left after
    64 coordinates running of which nothing went back.
    """
    x = search.x[rows]
    misses = torch.zeros_like(rows)
    change = search.outer[rows] - x
    order = change.abs().sort(dim=1, descending=True, stable=True).indices
    for j in order.T:
        everyone = torch.arange(len(rows), device=rows.device)
        whole = change[everyone, j]
        low, high = torch.zeros_like(whole), torch.ones_like(whole)
        i = everyone[(whole != 0) & (misses < _MISSES)]
        for halving in range(halvings + 1):
            i = i[search.left[rows[i]] > RESERVE]
            if not len(i):
                break
            t = (low[i] + high[i]) / 2 if halving else low[i]
            moved = change[i]
            moved[torch.arange(len(i)), j[i]] = whole[i] * t
            points = x[i] + moved
            crossed = search.crossed(points, rows[i])
            kept = i[crossed]
            change[kept], search.outer[rows[kept]] = moved[crossed], points[crossed]
            high[kept], low[i[~crossed]] = t[crossed], t[~crossed]
            i = i[high[i] > 0]
        misses = torch.where(high < 1, 0, misses + 1)
    search.radius[rows], search.inner[rows] = change.norm(dim=1), x
