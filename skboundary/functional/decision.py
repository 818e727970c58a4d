"""The nearest boundary point of a classifier without gradients, from its labels or scores.

Every search keeps a bracket per row, `outer` across the boundary and `inner` before it, on one
ray from x. A question is one row handed to the classifier; all rows of a step are asked in one
call, and each row counts its own. Directions are drawn once a step and shared by all rows, so
that what a row gets does not depend on the rows beside it.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional.criteria import class_margin

_NUMBERS = 2**24  # numbers in the points of one call, about
_COARSE = 0.02  # relative width at which a segment's bracket leaves the contest
_CONTEST = 100  # questions that segments may cost before a longer search begins
_RESERVE = 12  # questions kept back to close a bracket
_N_RAYS = 48  # random rays for rows whose starts are all on their own side


class Bracket(NamedTuple):
    """What a search found, row by row."""

    outer: Tensor  # (n, d): labelled target, or anything but the source; x without success
    inner: Tensor  # (n, d): not so labelled, between x and outer; x without success
    success: Tensor  # (n,) bool
    n_evaluations: Tensor  # (n,) int64: questions asked


class _Search:
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

    def result(self) -> Bracket:
        return Bracket(self.outer, self.inner, self.radius < math.inf, self.budget - self.left)


def segment_search(
    label: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    starts: Tensor,
    *,
    target: Tensor | None = None,
    budget: int = 100,
    tol: float = 1e-3,
) -> Bracket:
    """Find the closest boundary crossing on the segments from each row to its starts.

    The first start is bisected. Of every other start one question is asked: is its segment
    across the boundary just before the best distance so far? Only those that are get bisected.

    Parameters
    ----------
    label : callable
        From points (m, d) to integer codes (m,).
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Codes of x.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first.
    target : Tensor of shape (n,), default=None
        Codes to be reached. None takes any but the source.
    budget : int, default=100
        Questions a row may ask.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to the distance of `outer` from x.

    Returns
    -------
    bracket : Bracket
        Without success where no start is of another class.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.decision import segment_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    >>> label = lambda points: (points.sum(1) > 1).long()
    >>> segment_search(label, x, torch.tensor([0]), starts).outer.round(decimals=2)
    tensor([[1., 0.]])
    """
    search = _Search(_label_margin(label, source, target), x, None, budget)
    everyone = torch.arange(len(x), device=x.device)
    _contest(search, starts, everyone, search.left.clamp(max=_RESERVE))
    _settle(search, tol)
    return search.result()


def label_search(
    label: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    starts: Tensor,
    *,
    generator: torch.Generator,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    basis: Tensor | None = None,
    budget: int = 2000,
    tol: float = 1e-3,
) -> Bracket:
    """Find the nearest boundary point from labels alone.

    Segments to the starts give a first bracket. From there each row walks along the boundary:
    labels around its point, in orthonormal directions across the ray from x, vote for the side
    on which the boundary comes closer; on the circle over the diameter from x to the point,
    where every point is nearer to x than the last one, an angle is searched that is still across
    the boundary; the ray there is bisected. Between the steps coordinates are set back to those
    of x or halfway there, one by one, for as long as that pays: it does where the boundary
    follows the axes, as in trees.

    Parameters
    ----------
    label : callable
        From points (m, d) to integer codes (m,).
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Codes of x.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first. Rows for which none is of another class try
        random rays of growing length.
    generator : torch.Generator
        On the CPU.
    target : Tensor of shape (n,), default=None
        Codes to be reached. None takes any but the source.
    bounds : tuple of two Tensors that broadcast to x, default=None
        The box that points may not leave; it holds x and the starts.
    basis : Tensor of shape (k, d), default=None
        Orthonormal rows: the search stays in x plus their span, starts are projected on it.
        Not with bounds.
    budget : int, default=2000
        Questions a row may ask.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to the distance of `outer` from x.

    Returns
    -------
    bracket : Bracket
        A row that finds no other class after 100 questions or so has no success.

    Raises
    ------
    ValueError
        When bounds and a basis are given together.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.decision import label_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0]]])
    >>> label = lambda points: (points.sum(1) > 1).long()
    >>> generator = torch.Generator().manual_seed(0)
    >>> found = label_search(label, x, torch.tensor([0]), starts, generator=generator)
    >>> found.outer.round(decimals=2)
    tensor([[0.5000, 0.5000]])
    """
    if bounds is not None and basis is not None:
        raise ValueError("bounds and a basis exclude each other: give one of them as None.")
    n, d = x.shape
    if basis is not None:
        starts = x[:, None] + (starts - x[:, None]) @ basis.T @ basis
    search = _Search(_label_margin(label, source, target), x, bounds, budget)
    _begin(search, starts, basis, generator)
    _descend(search, basis, generator, max(1, budget // 16), 0.5, tol, axes=basis is None)
    return search.result()


def score_search(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    starts: Tensor,
    *,
    generator: torch.Generator,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    budget: int = 2000,
    tol: float = 1e-3,
    step: float = 0.1,
) -> Bracket:
    """Find the nearest boundary point from scores, by finite differences.

    Newton's step from x on the differences of the scores shows the nearest class. From the
    boundary there each row walks as in `label_search`, along the gradient instead of a vote.

    Parameters
    ----------
    score : callable
        From points (m, d) to finite scores (m, n_classes), the largest of which wins.
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Columns that win at x.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first.
    generator : torch.Generator
        On the CPU.
    target : Tensor of shape (n,), default=None
        Columns that shall win. None takes any but the source.
    bounds : tuple of two Tensors that broadcast to x, default=None
        The box that points may not leave; it holds x and the starts.
    budget : int, default=2000
        Questions a row may ask.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to the distance of `outer` from x.
    step : float, default=0.1
        Length of the differences, relative to the distance from the boundary.

    Returns
    -------
    bracket : Bracket

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.decision import score_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0]]])
    >>> score = lambda points: torch.stack([points[:, 0] * 0, points.sum(1) - 1], 1)
    >>> generator = torch.Generator().manual_seed(0)
    >>> found = score_search(score, x, torch.tensor([0]), starts, generator=generator)
    >>> found.outer.round(decimals=2)
    tensor([[0.5000, 0.5000]])
    """
    n, d = x.shape
    search = _Search(_score_margin(score, source, target), x, bounds, budget)
    if budget >= 2 * d:
        near = _newton(search, score, source, target, starts, step)
        starts = torch.cat([near, starts], 1)
    _begin(search, starts, None, generator)
    _descend(search, None, generator, max(1, budget // 4), step, tol, axes=False)
    return search.result()


def _newton(
    search: _Search,
    score: Callable[[Tensor], Tensor],
    source: Tensor,
    target: Tensor | None,
    starts: Tensor,
    step: float,
) -> Tensor:
    """Just beyond where the linearised scores of the nearest three classes, or the target's,
    meet that of the source: (n, 2 or 6, d)."""
    x, (n, d) = search.x, search.x.shape
    h = step * ((starts[:, 0] - x).norm(dim=1) if starts.shape[1] else x.norm(dim=1).clamp(min=1))
    h = h[:, None].expand(n, d)
    if search.bounds is not None:
        h = torch.where(x + h > search.bounds[1], -h, h)
    at_x = score(x)
    slope = torch.cat([
        score((x[i, None] + torch.diag_embed(h[i])).flatten(0, 1)).view(len(i), d, -1)
        for i in torch.arange(n, device=x.device).split(max(1, _NUMBERS // d**2))
    ])
    slope = (slope - at_x[:, None]) / h[:, :, None]
    search.left -= d + 1
    everyone = torch.arange(n, device=x.device)
    normal = (slope - slope[everyone, :, source][:, :, None]).transpose(1, 2)
    lead = at_x[everyone, source][:, None] - at_x
    distance = (lead / normal.norm(dim=2)).nan_to_num(torch.inf)
    distance[everyone, source] = torch.inf
    chosen = distance.argsort(dim=1, stable=True)[:, :3] if target is None else target[:, None]
    normal = normal.gather(1, chosen[:, :, None].expand(-1, -1, d))
    ray = lead.gather(1, chosen)[:, :, None] * normal / normal.square().sum(2, keepdim=True)
    ray = ray.nan_to_num(0.0, 0.0, 0.0)
    return search.clip(x[:, None] + torch.cat([1.02 * ray, 1.5 * ray], 1), everyone)


def _begin(
    search: _Search, starts: Tensor, basis: Tensor | None, generator: torch.Generator
) -> None:
    """First brackets: from the starts, and from random rays where those lead nowhere."""
    everyone = torch.arange(len(search.x), device=search.x.device)
    _contest(search, starts, everyone, (search.left - _CONTEST).clamp(min=_RESERVE))
    lost = search.able(everyone[search.radius == math.inf])
    directions = _orthonormal(search.x, basis, generator, _N_RAYS)
    rays = _rays(search, starts, lost, directions, generator)
    _contest(search, rays, lost, torch.full_like(search.left, _RESERVE))
    _close(search, everyone, _COARSE)


def _descend(
    search: _Search,
    basis: Tensor | None,
    generator: torch.Generator,
    n_directions: int,
    reach: float,
    tol: float,
    *,
    axes: bool,
) -> None:
    """Walk, and set coordinates back where that pays, until the budget is used up."""
    walker = _Walker(
        search, torch.full_like(search.radius, 0.5), torch.full_like(search.radius, reach)
    )
    axes_pay = torch.full_like(search.left, axes, dtype=torch.bool)
    found = (search.radius < math.inf).nonzero()[:, 0]
    for step in range(search.budget):
        directions = _orthonormal(search.x, basis, generator, n_directions)
        rows = search.able(found, len(directions) + 2 * _RESERVE)
        if not len(rows):
            break
        walker.step(rows, directions, tol)
        if step % 6 == 5:
            rows = search.able(rows[axes_pay[rows]], _RESERVE)
            axes_pay[rows] = _reset_twice(search, rows, tol)
    rows = search.able(found[axes_pay[found]], _RESERVE)
    _reset_twice(search, rows, tol)
    _settle(search, tol)


def _label_margin(
    label: Callable[[Tensor], Tensor], source: Tensor, target: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Plus one across the boundary and minus one before it."""
    if target is None:
        return lambda points, rows: (label(points) != source[rows]) * 2 - 1
    return lambda points, rows: (label(points) == target[rows]) * 2 - 1


def _score_margin(
    score: Callable[[Tensor], Tensor], source: Tensor, target: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Score of the target over the best of the others, or of the best other over the source.

    Zero, a tie, goes to the class with the lower number, as argmax has it.
    """

    def margin(points: Tensor, rows: Tensor) -> Tensor:
        scores = score(points)
        code = (source if target is None else target)[rows]
        value = -class_margin(scores, code) if target is None else class_margin(scores, code)
        across = (scores.argmax(1) == code) == (target is not None)
        return torch.where((value == 0) & across, torch.finfo(value.dtype).tiny, value)

    return margin


def _orthonormal(
    x: Tensor, basis: Tensor | None, generator: torch.Generator, n: int
) -> Tensor:
    """Random orthonormal directions, n at most, of the whole space or of the span of a basis."""
    k = x.shape[1] if basis is None else len(basis)
    normal = torch.randn(k, min(n, k), dtype=torch.float64, generator=generator)
    directions = torch.linalg.qr(normal)[0].T.to(x)
    return directions if basis is None else directions @ basis


def _contest(search: _Search, starts: Tensor, rows: Tensor, keep: Tensor) -> None:
    """Bisect the segments of `rows` to their starts (len(rows), s, d) as far as they can win.

    A row that has a bracket ends with `keep` (n,) questions left.
    """
    x = search.x[rows]
    difference = starts - x[:, None]
    length = difference.norm(dim=2)
    n, s = length.shape
    j = torch.zeros(n, dtype=torch.long, device=x.device)
    low, high = x.new_zeros(n), x.new_zeros(n)
    asks_first = torch.ones(n, dtype=torch.bool, device=x.device)
    while True:
        spare = torch.where(search.radius < math.inf, keep, 0)[rows]
        i = ((j < s) & (search.left[rows] > spare)).nonzero()[:, 0]
        if not len(i):
            return
        first, row = asks_first[i], rows[i]
        bound = torch.minimum(length[i, j[i]], search.radius[row] * (1 - _COARSE))
        t = torch.where(first, bound, (low[i] + high[i]) / 2)
        unit = difference[i, j[i]] / length[i, j[i], None].clamp(min=1e-30)
        points = x[i] + t[:, None] * unit
        crossed = search.crossed(points, row)
        low[i] = torch.where(first, 0.0, torch.where(crossed, low[i], t))
        high[i] = torch.where(crossed, t, high[i])
        won = crossed.nonzero()[:, 0]
        search.outer[row[won]], search.radius[row[won]] = points[won], t[won]
        bracketed = row[won]
        search.inner[bracketed] = x[i[won]] + low[i[won], None] * unit[won]
        again = (~crossed & ~first).nonzero()[:, 0]
        search.inner[row[again]] = points[again]
        asks_first[i] = first & ~crossed
        done = (first & ~crossed) | (~first & (high[i] - low[i] <= _COARSE * high[i]))
        j[i] += done
        asks_first[i] |= done


def _close(search: _Search, rows: Tensor, tol: float, gap: Tensor | None = None) -> None:
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


def _settle(search: _Search, tol: float) -> None:
    """Close all brackets to half of `tol`, then move both ends off the boundary by a quarter.

    An end that lies on the boundary to machine precision has a label that changes with the
    batch it is computed in.
    """
    _close(search, torch.arange(len(search.x), device=search.x.device), tol / 2)
    shift = (search.outer - search.x) * tol / 4
    for end, sign in ((search.outer, 1), (search.inner, -1)):
        rows = search.able((search.radius < math.inf).nonzero()[:, 0])
        points = search.clip(end[rows] + sign * shift[rows], rows)
        stays = search.crossed(points, rows) == (sign > 0)
        end[rows[stays]] = points[stays]


class _Walker(NamedTuple):
    """Steps along the boundary towards the point that is nearest to x."""

    search: _Search
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
        _close(search, rows[gained], tol, (angle * (worse - angle))[gained])

    def _vote(self, rows: Tensor, ray: Tensor, directions: Tensor) -> Tensor:
        """Unit vectors across the rays along which the boundary comes closer; 0 if no vote is."""
        search, result = self.search, torch.zeros_like(ray)
        size = max(1, _NUMBERS // directions.numel())
        for part in torch.arange(len(rows), device=rows.device).split(size):
            row, u = rows[part], ray[part, None]
            centre = ((search.outer[row] + search.inner[row]) / 2)[:, None]
            around = directions - (u * directions).sum(2, keepdim=True) * u
            reach = (self.reach[row] * search.radius[row])[:, None, None]
            points = search.clip(centre + reach * around, row)
            votes = search.ask(points, row)
            votes -= votes.mean(1, keepdim=True)
            vote = (votes[:, :, None] * (points - centre)).sum(1)
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
            i = i[search.left[rows[i]] > _RESERVE]
            if not len(i):
                break
            cos, sin = angle[i].cos()[:, None], angle[i].sin()[:, None]
            direction = cos * ray[i] + sin * across[i]
            points = search.clip(x[i] + cos * radius[i, None] * direction, rows[i])
            distance = (points - x[i]).norm(dim=1)
            crossed = search.crossed(points, rows[i]) & (distance < search.radius[rows[i]])
            better = rows[i[crossed]]
            search.outer[better], search.radius[better] = points[crossed], distance[crossed]
            search.inner[better] = x[i[crossed]]
            good[i[crossed]], bad[i[~crossed]] = angle[i[crossed]], angle[i[~crossed]]
            g, b = good[i], bad[i]
            angle[i] = torch.where(g == 0, b / 2, torch.where(b.isinf(), 2 * g, (g + b) / 2))
            open_ = ((g == 0) | (b - g > 0.25 * g)) & (angle[i] < 1.5) & (angle[i] > 1e-3)
            i = i[open_]
        return good, torch.where(bad.isinf(), 2 * good, bad)


def _reset_twice(search: _Search, rows: Tensor, tol: float) -> Tensor:
    """Two passes over the coordinates of rows; which rows they brought 1 % closer to x."""
    before = search.radius[rows]
    _reset(search, rows, 0)
    _reset(search, rows, 3)
    _close(search, rows, tol)
    return search.radius[rows] < 0.99 * before


def _reset(search: _Search, rows: Tensor, halvings: int) -> None:
    """Set coordinates of `outer` back to those of x, the largest change first, as long as the
    point stays across the boundary; what does not go back wholly goes by bisection."""
    x = search.x[rows]
    change = search.outer[rows] - x
    order = change.abs().sort(dim=1, descending=True, stable=True).indices
    for j in order.T:
        everyone = torch.arange(len(rows), device=rows.device)
        whole = change[everyone, j]
        low, high = torch.zeros_like(whole), torch.ones_like(whole)
        i = everyone[whole != 0]
        for halving in range(halvings + 1):
            i = i[search.left[rows[i]] > _RESERVE]
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
    search.radius[rows] = change.norm(dim=1)
    search.inner[rows] = torch.where((search.radius[rows] > 0)[:, None], x, search.inner[rows])


def _rays(
    search: _Search, starts: Tensor, rows: Tensor, directions: Tensor, generator: torch.Generator
) -> Tensor:
    """Points on random rays from the rows, (len(rows), s, d), in order of distance."""
    x = search.x[rows]
    d = x.shape[1]
    which = torch.arange(_N_RAYS) % len(directions)
    sign = 1 - 2 * (torch.arange(_N_RAYS) // len(directions) % 2)
    unit = (directions[which] * sign[:, None].to(x))[None]
    if starts.shape[1]:
        length = (starts[rows] - x[:, None]).norm(dim=2).mean(1).clamp(min=1e-3)
    else:
        length = x.norm(dim=1).clamp(min=1.0) / 8
    growth = 2.0 ** torch.arange(_N_RAYS).div(4, rounding_mode="floor").to(x)
    points = x[:, None] + length[:, None, None] * growth[None, :, None] * unit
    if search.bounds is not None:
        share = torch.rand(_N_RAYS, d, dtype=torch.float64, generator=generator).to(x)
        low, high = (b[rows, None] for b in search.bounds)
        points = torch.cat([search.clip(points, rows), low + share * (high - low)], 1)
    return points
