"""Steps of gradient-based searches: cross by linearization, refine on the tangent, polish."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from skboundary.functional._margin_problem import Margin, MarginProblem
from skboundary.functional._projection import project
from skboundary.functional._results import BoundaryPoint
from skboundary.functional.margins import class_margin, margin_band, runner_up
from skboundary.functional.root_finding import find_root

_MAX_ITER = 30  # linearizations until a sample has crossed
_OVERSHOOT = 1.02
_STALL = 1e-4  # relative gain below which a search stops
_TRIALS = 3  # step sizes tried for one refinement
_GROWTHS = (1.0, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0, 4.0)  # of a ray without gradients, by factors


def cross_and_refine(
    problem: MarginProblem, n_refine: int, most: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross a boundary by linearizations, then shorten the distance by tangent refinements.

    Parameters
    ----------
    problem : MarginProblem
        Of m samples, its goal not reached at x.
    n_refine : int
        Refinements at most.
    most : Tensor of shape (n_samples,), default=None
        Gradients that a sample may have taken in the end, `MarginProblem.affords`.

    Returns
    -------
    points : Tensor of shape (m, d)
    found : Tensor of shape (m,)
        Whether the goal was reached.
    """
    points, value, gradient = cross(problem, problem.x, most=most)
    index = (gradient != 0).any(1).nonzero()[:, 0]
    points[index] = refine(
        problem.select(index), points[index], value[index], gradient[index], n_refine, most
    )
    return points, value > 0


def cross(
    problem: MarginProblem,
    start: Tensor,
    objective: Margin | None = None,
    most: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step from linearization to linearization of `objective` until the goal is reached.

    A sample that may take no more gradients continues along the ray from x.

    Returns
    -------
    points : Tensor of shape (m, d)
    value, gradient : Tensor of shape (m,), (m, d)
        Of the goal there; the value is minus infinity where it was not reached, and the gradient
        is 0 there and where the ray reached it.
    """
    points, active = start.clone(), problem.indices()
    gradient, value = torch.zeros_like(points), points.new_full((len(points),), -torch.inf)
    objective = objective or problem.goal

    def margin(out: Tensor, index: Tensor) -> Tensor:
        at_goal = problem.goal(out, index)
        return torch.where(at_goal > 0, at_goal, objective(out, index))

    for _ in range(_MAX_ITER):
        active = active[problem.affords(most, active)]
        if not len(active):
            break
        here = points[active]
        out, f, w = problem.derivative(here, active, margin)
        reached = problem.goal(out, active) > 0
        gradient[active[reached]], value[active[reached]] = w[reached], f[reached]
        step = project(
            w,
            problem.aim[active] - f,
            problem.low[active] - here,
            problem.high[active] - here,
            problem.norm,
        )
        moves = ~reached & step.isfinite().all(1) & (step != 0).any(1)
        active, here, step = active[moves], here[moves], step[moves]
        points[active] = problem.clip(here + _OVERSHOOT * step, active)
    if most is not None:
        _prolong(problem, points, value)
    return points, value, gradient


def _prolong(problem: MarginProblem, points: Tensor, value: Tensor) -> None:
    """Move points (m, d) of value minus infinity along the ray from x until they reach the goal.

    Points and values are overwritten.
    """
    index = (value.isinf() & (points != problem.x).any(1)).nonzero()[:, 0]
    direction, t = points[index] - problem.x[index], torch.ones_like(value[index])
    for growth in _GROWTHS:
        if not len(index):
            return
        t *= growth
        there = problem.along(t, direction, index)
        f = problem.value(there, index)
        reached = f > 0
        points[index[reached]], value[index[reached]] = there[reached], f[reached]
        index, direction, t = index[~reached], direction[~reached], t[~reached]


def refine(
    problem: MarginProblem,
    points: Tensor,
    value: Tensor,
    gradient: Tensor,
    n: int,
    most: Tensor | None = None,
) -> Tensor:
    """Turn the direction from x toward the nearest point of the tangent plane, n times at most.

    A refinement is kept when it reaches the goal at a shorter distance; the next step is then
    larger, otherwise smaller. A sample leaves when three step sizes fail or one gains next to
    nothing.
    """
    points, active = points.clone(), problem.indices()
    distance = problem.distance(points, active)
    step = torch.ones_like(distance)
    for i in range(n):
        if i:
            active = active[problem.affords(most, active)]
            if not len(active):
                break
            _, value, gradient = problem.derivative(points[active], active)
        x = problem.x[active]
        direction = points[active] - x
        nearest = project(
            gradient,
            (gradient * direction).sum(1) - value + problem.aim[active] / 10,
            problem.low[active] - x,
            problem.high[active] - x,
            problem.norm,
        )
        before = distance[active]
        units = (normalize(d, p=problem.norm) for d in (direction, nearest))
        _turn(problem, points, distance, step, active, *units)
        active = active[distance[active] < before * (1 - 2 * _STALL)]
        if not len(active):
            break
    return points


def _turn(
    problem: MarginProblem,
    points: Tensor,
    distance: Tensor,
    step: Tensor,
    active: Tensor,
    direction: Tensor,
    nearest: Tensor,
) -> None:
    """Try directions between two unit vectors (m, d) of the samples `active` (m,).

    Points (n, d), distances and step sizes (n,) of those that gain are overwritten.
    """
    trying = torch.arange(len(active), device=active.device)
    for _ in range(_TRIALS):
        index = active[trying]
        turned = direction[trying] + step[index, None] * (nearest - direction)[trying]
        turned = normalize(turned, p=problem.norm)
        limit = distance[index] * (1 - _STALL)
        value = problem.value(problem.along(limit, turned, index), index)
        kept = value > 0
        step[index] *= torch.where(kept, 1.5, 0.4)
        trying, index, turned = trying[~kept], index[kept], turned[kept]
        # half an aim beyond the goal: where the network is linear the root is exact, and at the
        # goal itself rounding would decide whether it is reached
        beyond = problem.aim[index] / 2
        root = find_root(
            lambda t, j: problem.value(problem.along(t, turned[j], index[j]), index[j]) - beyond[j],
            torch.zeros_like(beyond),
            limit[kept],
            problem.at_x[index] - beyond,
            value[kept] - beyond,
            tol=beyond,
            max_iter=3,
        )
        t = torch.where(root.converged, root.t, root.high)
        points[index] = problem.along(t, turned, index)
        distance[index] = problem.distance(points[index], index)
        if not len(trying):
            return


def polish(
    problem: MarginProblem,
    points: Tensor,
    value: Tensor,
    tol: Tensor,
    most: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Move along the segment from x until the goal is zero to within `tol`, or nearly so.

    Parameters
    ----------
    problem : MarginProblem
        Of m samples.
    points : Tensor of shape (m, d)
    value : Tensor of shape (m,)
        The goal there.
    tol : Tensor of shape (m,)
        In units of the logits.
    most : see `cross_and_refine`

    Returns
    -------
    points : Tensor of shape (m, d)
    found : Tensor of shape (m,)
    """
    index = problem.indices()
    short = (value < 0).nonzero()[:, 0]  # a third class is as near
    points, value = points.clone(), value.clone()
    points[short], value[short], _ = cross(problem.select(short), points[short], most=most)
    direction, one = points - problem.x, torch.ones_like(value)
    root = find_root(
        lambda t, i: problem.value(problem.along(t, direction[i], i), i),
        torch.zeros_like(one),
        one,
        problem.at_x,
        value,
        tol=tol,
    )
    t = torch.where(root.converged, root.t, root.high)  # which is known to be across
    return problem.along(t, direction, index), root.converged | (value > 0)


def close_problem(
    problem: MarginProblem,
    points: Tensor,
    at_x: Tensor,
    x: Tensor,
    source: Tensor,
    target: Tensor | None,
    margin_tol: float,
    eps: float,
    most: Tensor | None = None,
) -> BoundaryPoint:
    """Polish points that have reached the goal to a margin of 1 to 2 bands of their class.

    Parameters
    ----------
    problem : MarginProblem
        Of the m samples that have reached it.
    points : Tensor of shape (m, d)
    at_x : Tensor of shape (m, n_classes)
        Logits at their x.
    x, source, target, margin_tol, eps : see `nearest_boundary`
    most : see `cross_and_refine`

    Returns
    -------
    result : BoundaryPoint
        Of all n samples.
    """
    owner = problem.owner
    out = problem.network.logits(points, owner)
    label = source if target is None else target
    if target is None:
        label = label.scatter(0, owner, runner_up(out, source[owner]).label)
    reached = label[owner]
    band = margin_band(margin_tol, eps, at_x, out, ends=(problem.x, points))
    problem = problem._replace(
        goal=lambda out, i: class_margin(out, reached[i]) - 1.5 * band[i],
        at_x=class_margin(at_x, reached) - 1.5 * band,
    )
    points, found = polish(problem, points, problem.goal(out, problem.indices()), band / 2, most)
    success = torch.zeros_like(source, dtype=torch.bool)
    success[owner[found]] = True
    points = x.flatten(1).index_copy(0, owner[found], points[found]).view_as(x)
    return BoundaryPoint(
        points, label, success, problem.network.n_forward, problem.network.n_backward
    )
