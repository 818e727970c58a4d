"""The nearest point of a decision boundary: linearise, cross, refine along the tangent, polish."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from skboundary.functional._margin_problem import Margin, Passes, Search
from skboundary.functional.ddn import decoupled_steps
from skboundary.functional.margins import (
    class_margin,
    margin_band,
    pairwise_margin,
    runner_up,
)
from skboundary.functional.root_finding import find_root

_MAX_ITER = 30  # linearisations until a row has crossed
_OVERSHOOT = 1.02
_HOPELESS = 1.3  # times the nearest rival's distance: too far to be refined
_STALL = 1e-4  # relative gain that is too small to go on for


class Effort(NamedTuple):
    """What one row may cost."""

    n_rivals: int  # classes whose boundary is sought, where no target is given
    n_refine: int  # tangent refinements for each
    n_steps: int  # decoupled direction and norm steps from the best


EFFORTS = {"fast": Effort(1, 8, 0), "balanced": Effort(3, 2, 16), "thorough": Effort(4, 4, 32)}


class Crossing(NamedTuple):
    """Points just beyond a decision boundary; a row without success keeps its x."""

    points: Tensor  # (n, ...)
    target: Tensor  # (n,): the class predicted at the point
    success: Tensor  # (n,)
    n_forward: Tensor  # (n,): rows that went through the network
    n_backward: Tensor  # (n,): gradients taken


def nearest_boundary(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    effort: str | Effort = "balanced",
    bounds: tuple[Tensor, Tensor] | None = None,
    margin_tol: float = 1e-3,
    eps: float | None = None,
    norm: float = 2,
) -> Crossing:
    """Find near each row the nearest point that is of another class.

    Incremental DeepFool in the box crosses the boundary to each of the strongest rivals, tangent
    refinements shorten the way, the best continues with decoupled direction and norm steps, and
    a root search on the segment from x ends at a margin of 1 to 2 bands, `criteria.margin_band`:
    nearer to zero the label would depend on rounding, that is on the batch that the point is
    predicted in. Where rounding keeps the search from such a margin, the point is the nearest
    that is known to be beyond it.

    Parameters
    ----------
    logits : callable
        From rows (m, ...) to logits (m, n_classes), differentiable, each row by itself.
    x : Tensor of shape (n, ...)
    source : Tensor of shape (n,)
        The class that each row is predicted as. A row that is not has no success.
    target : Tensor of shape (n,), default=None
        The class wanted; None takes the nearest.
    effort : {"fast", "balanced", "thorough"} or Effort, default="balanced"
        Up to 8, 16 and 32 gradients a row after the boundary to each of 1, 3 and 4 rivals is
        crossed: see `EFFORTS`.
    bounds : (low, high), default=None
        Tensors that broadcast to x; the box that holds x and the points.
    margin_tol : float, default=1e-3
        In units of the logits.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that takes part in the logits; None is that of x.
    norm : {2}, default=2

    Returns
    -------
    crossing : Crossing

    Raises
    ------
    ValueError
        For another norm, an unknown effort, a target equal to its source, or bounds that exclude
        x.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_boundary import nearest_boundary
    >>> logits = lambda x: torch.stack([-x[:, 0], x[:, 0]], 1)
    >>> crossing = nearest_boundary(logits, torch.tensor([[-3.0, 4.0]]), torch.tensor([0]))
    >>> crossing.points.round(decimals=2).tolist(), crossing.success.tolist()
    ([[0.0, 4.0]], [True])
    """
    if norm != 2:
        raise ValueError(f"norm={norm!r}: the nearest boundary point is found for norm=2 only.")
    if isinstance(effort, str) and effort not in EFFORTS:
        raise ValueError(f"effort={effort!r}: use one of {sorted(EFFORTS)}.")
    if target is not None:
        check_classes(source, target)
    budget = EFFORTS[effort] if isinstance(effort, str) else effort
    passes, flat = Passes(logits, x), x.flatten(1)
    everyone = torch.arange(len(x), device=x.device)
    start = passes.logits(flat, everyone)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    label, band = (source if target is None else target), margin_band(margin_tol, eps, start)

    def goal(out: Tensor, rows: Tensor) -> Tensor:
        margin = class_margin(out, label[rows])
        return (-margin if target is None else margin) - 1.5 * band[rows]

    rows = (class_margin(start, source) > 0).nonzero()[:, 0]
    search = Search(
        passes, flat, everyone, *box(x, bounds), 10 * band, goal, goal(start, everyone)
    ).select(rows)
    if target is None:
        rivals = start[rows].scatter(1, source[rows, None], -float("inf"))
        rivals = rivals.topk(min(budget.n_rivals, start.shape[1] - 1)).indices
        points, found = _nearest_of(search, source[rows], rivals, budget.n_refine)
    else:
        points, found = descend(search, None, budget.n_refine)
    found = found.nonzero()[:, 0]
    search, points, rows = search.select(found), points[found], rows[found]
    if budget.n_steps:
        points = decoupled_steps(search, points, label[rows], target is not None, budget.n_steps)
    out = passes.logits(points, rows)
    if target is None:
        label = label.scatter(0, rows, runner_up(out, source[rows]).label)
    band = margin_band(margin_tol, eps, start[rows], out, ends=(flat[rows], points))
    search = search._replace(
        goal=lambda out, i: class_margin(out, label[rows[i]]) - 1.5 * band[i],
        at_x=class_margin(start[rows], label[rows]) - 1.5 * band,
    )
    points, found = _polish(search, points, search.goal(out, search.rows()), band / 2)
    success = torch.zeros_like(everyone, dtype=torch.bool)
    success[rows[found]] = True
    flat = flat.index_copy(0, rows[found], points[found])
    return Crossing(flat.view_as(x), label, success, passes.forward, passes.backward)


def check_classes(source: Tensor, target: Tensor) -> None:
    """Refuse a target that equals its source.

    Parameters
    ----------
    source, target : Tensor of shape (n,)

    Raises
    ------
    ValueError
        With the number of the row.
    """
    if (target == source).any():
        row = int((target == source).nonzero()[0, 0])
        raise ValueError(f"target and source of row {row} are both {int(source[row])}.")


def box(x: Tensor, bounds: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Spread bounds over flat rows.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
    bounds : (low, high) or None
        Tensors that broadcast to x.

    Returns
    -------
    low, high : Tensor of shape (n, d)

    Raises
    ------
    ValueError
        Where x lies outside.
    """
    flat = x.flatten(1)
    if bounds is None:
        return torch.full_like(flat, -float("inf")), torch.full_like(flat, float("inf"))
    low, high = (torch.as_tensor(b).to(x).expand_as(x).flatten(1) for b in bounds)
    outside = ((flat < low) | (flat > high)).any(1)
    if outside.any():
        row = int(outside.nonzero()[0, 0])
        raise ValueError(f"Row {row} of x lies outside the bounds; widen them to hold every row.")
    return low, high


def project(w: Tensor, c: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Find the shortest d with w.d = c in a box that holds 0.

    It is ``d = clip(mu w, low, high)``. For c > 0, w.d is concave and piecewise linear in mu, so
    that Newton's method from the unbounded solution never goes too far and ends at the root.

    Parameters
    ----------
    w : Tensor of shape (n, d)
    c : Tensor of shape (n,)
    low, high : Tensor of shape (n, d)

    Returns
    -------
    d : Tensor of shape (n, d)
        As far toward the plane as the box allows where they do not meet.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_boundary import project
    >>> low, high = torch.tensor([[-9.0, -9.0]]), torch.tensor([[1.0, 9.0]])
    >>> project(torch.tensor([[1.0, 1.0]]), torch.tensor([6.0]), low, high)
    tensor([[1., 5.]])
    """
    w = torch.where((c < 0)[:, None], -w, w)
    square, reach = w.square(), torch.where(w > 0, high, low) / w
    reach = reach.where(w != 0, torch.inf)  # also 0 / 0
    mu = c.abs() / square.sum(1)
    if reach.isinf().all():
        return mu[:, None] * w
    for _ in range(20):
        slope = (square * (reach > mu[:, None])).sum(1)
        missing = c.abs() - (square * torch.minimum(reach, mu[:, None])).sum(1)
        open_ = missing > 1e-6 * c.abs()
        if not open_.any():
            break
        mu = mu + torch.where(open_ & (slope > 0), missing / slope, 0)  # each row until it is done
    return torch.minimum(reach, mu[:, None]) * w


def _nearest_of(
    search: Search, source: Tensor, rivals: Tensor, n_refine: int
) -> tuple[Tensor, Tensor]:
    """The nearest of the points found by a search for each of the rivals (m, n_rivals)."""
    m, n_rivals = rivals.shape
    if n_rivals == 1:  # the strongest rival of the moment
        return descend(search, None, n_refine)
    many, rival = search.rows().repeat_interleave(n_rivals), rivals.flatten()

    def seek(out: Tensor, rows: Tensor) -> Tensor:
        return pairwise_margin(out, source[many[rows]], rival[rows])

    inner = search.select(many)
    points, value, gradient = _cross(inner, inner.x, seek)
    distance = (points - inner.x).norm(dim=1).where(value > 0, torch.inf).view(m, n_rivals)
    near = (distance < _HOPELESS * distance.amin(1, keepdim=True)).flatten().nonzero()[:, 0]
    points[near] = _refine(inner.select(near), points[near], value[near], gradient[near], n_refine)
    distance = (points - inner.x).norm(dim=1).where(value > 0, torch.inf).view(m, n_rivals)
    # the first of equals, so that rounding does not choose
    best = (distance <= distance.amin(1, keepdim=True) * (1 + 1e-6)).byte().argmax(1)
    return points.view(m, n_rivals, -1)[search.rows(), best], distance.isfinite().any(1)


def descend(search: Search, seek: Margin | None, n_refine: int) -> tuple[Tensor, Tensor]:
    """Cross a boundary by linearisations, then shorten the way by tangent refinements.

    Parameters
    ----------
    search : Search
        Of m rows, its goal not reached at x.
    seek : callable or None
        A margin to linearise until the goal is reached; None takes the goal itself.
    n_refine : int
        Refinements at most.

    Returns
    -------
    points : Tensor of shape (m, d)
    found : Tensor of shape (m,)
        Whether the goal was reached.
    """
    points, value, gradient = _cross(search, search.x, seek)
    found = value > 0
    rows = found.nonzero()[:, 0]
    points[rows] = _refine(search.select(rows), points[rows], value[rows], gradient[rows], n_refine)
    return points, found


def _cross(
    search: Search, start: Tensor, seek: Margin | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Step from linearisation to linearisation of `seek` until the goal is reached.

    Returns
    -------
    points : Tensor of shape (m, d)
    value, gradient : Tensor of shape (m,), (m, d)
        Of the goal there; the value of a row that did not arrive is minus infinity.
    """
    points, active = start.clone(), search.rows()
    gradient, value = torch.zeros_like(points), points.new_full((len(points),), -torch.inf)
    seek = seek or search.goal

    def margin(out: Tensor, rows: Tensor) -> Tensor:
        at_goal = search.goal(out, rows)
        return torch.where(at_goal > 0, at_goal, seek(out, rows))

    for _ in range(_MAX_ITER):
        if not len(active):
            break
        here = points[active]
        out, f, w = search.derivative(here, active, margin)
        there = search.goal(out, active) > 0
        gradient[active[there]], value[active[there]] = w[there], f[there]
        step = project(
            w, search.aim[active] - f, search.low[active] - here, search.high[active] - here
        )
        goes = ~there & step.isfinite().all(1) & (step != 0).any(1)
        active, here, step = active[goes], here[goes], step[goes]
        points[active] = search.clip(here + _OVERSHOOT * step, active)
    return points, value, gradient


def _refine(search: Search, points: Tensor, value: Tensor, gradient: Tensor, n: int) -> Tensor:
    """Turn the way from x toward the nearest point of the tangent plane, n times at most.

    A turn is kept when the goal is reached at a shorter distance; the next is then bolder,
    otherwise smaller. A row leaves when three turns fail or one gains next to nothing.
    """
    points, active = points.clone(), search.rows()
    distance = (points - search.x).norm(dim=1)
    turn = torch.ones_like(distance)
    for i in range(n):
        if i:
            _, value, gradient = search.derivative(points[active], active)
        way = points[active] - search.x[active]
        foot = project(
            gradient,
            (gradient * way).sum(1) - value + search.aim[active] / 10,
            search.low[active] - search.x[active],
            search.high[active] - search.x[active],
        )
        way, foot = normalize(way), normalize(foot)
        before, trying = distance[active], torch.arange(len(active), device=active.device)
        for _ in range(3):
            rows = active[trying]
            direction = normalize(way[trying] + turn[rows, None] * (foot - way)[trying])
            reach = distance[rows] * (1 - _STALL)
            margin = search.margin(search.along(reach, direction, rows), rows)
            kept = margin > 0
            turn[rows] *= torch.where(kept, 1.5, 0.4)
            trying, rows, direction = trying[~kept], rows[kept], direction[kept]
            # half an aim beyond the goal: where the network is linear the root is exact, and at
            # the goal itself rounding would say whether it is reached
            beyond = search.aim[rows] / 2
            root = find_root(
                lambda t, j: (
                    search.margin(search.along(t, direction[j], rows[j]), rows[j]) - beyond[j]
                ),
                torch.zeros_like(beyond),
                reach[kept],
                search.at_x[rows] - beyond,
                margin[kept] - beyond,
                tol=beyond,
                max_iter=3,
            )
            t = torch.where(root.converged, root.t, root.high)
            points[rows] = search.along(t, direction, rows)
            distance[rows] = (points[rows] - search.x[rows]).norm(dim=1)
            if not len(trying):
                break
        active = active[distance[active] < before * (1 - 2 * _STALL)]
        if not len(active):
            break
    return points


def _polish(search: Search, points: Tensor, margin: Tensor, tol: Tensor) -> tuple[Tensor, Tensor]:
    """Move along the way from x until the goal is zero to within `tol`, or as near as it gets.

    Parameters
    ----------
    search : Search
        Of m rows.
    points : Tensor of shape (m, d)
    margin : Tensor of shape (m,)
        The goal there.
    tol : Tensor of shape (m,)

    Returns
    -------
    points : Tensor of shape (m, d)
    found : Tensor of shape (m,)
    """
    rows = search.rows()
    short = (margin < 0).nonzero()[:, 0]  # a third class is as near
    points, margin = points.clone(), margin.clone()
    points[short], margin[short], _ = _cross(search.select(short), points[short])
    way, one = points - search.x, torch.ones_like(margin)
    root = find_root(
        lambda t, i: search.margin(search.along(t, way[i], i), i),
        torch.zeros_like(one),
        one,
        search.at_x,
        margin,
        tol=tol,
    )
    t = torch.where(root.converged, root.t, root.high)  # which is known to be across
    return search.along(t, way, rows), root.converged | (margin > 0)
