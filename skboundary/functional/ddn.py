"""Decoupled direction and norm (DDN): a short perturbation by steps on the cross-entropy."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from skboundary.functional._linearization import close_problem, cross_and_refine
from skboundary.functional._margin_problem import MarginProblem, open_problem
from skboundary.functional._projection import shrink
from skboundary.functional._results import BoundaryPoint
from skboundary.functional._shapes import shapes

__all__ = ["BoundaryPoint", "ddn"]


@shapes(x="n ...", source="n", target="n")
def ddn(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    n_steps: int = 100,
    margin_tol: float = 1e-3,
    eps: float | None = None,
) -> BoundaryPoint:
    """Find for each sample a near point of another class by decoupled direction and norm steps.

    Each step of DDN [1]_ moves along the normalized gradient of the cross-entropy and then puts
    the point on a sphere around x, which shrinks while the class has changed and grows while it
    has not. The paper begins at x with a radius of 1, for pixels in [0, 1]. Here linearizations
    cross the boundary first, so that the search does not depend on the unit of x, and a root search
    on the segment from x ends it at a margin of 1 to 2 bands, as in `nearest_boundary`.

    Parameters
    ----------
    logits : callable
        Maps points (m, ...) to logits (m, n_classes); differentiable, independent for each point.
    x : Tensor of shape (n, ...)
    source : Tensor of shape (n,)
        The class that each sample is predicted as. Samples predicted otherwise are reported as
        unsuccessful.
    target : Tensor of shape (n,), default=None
        The target class; None is any other class.
    bounds : (low, high), default=None
        Tensors that broadcast to x, in its units; the box that holds x and the points.
    n_steps : int, default=100
        Gradients per sample after the boundary is crossed.
    margin_tol : float, default=1e-3
        Smallest margin of the points, in units of the logits, where `margins.margin_band` does not
        demand more.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that involved in the logits; None is that of x.

    Returns
    -------
    result : BoundaryPoint

    Raises
    ------
    ValueError
        For a target equal to its source, bounds that exclude x, or shapes that do not match.

    References
    ----------
    .. [1] J. Rony et al., "Decoupling direction and norm for efficient gradient-based L2
       adversarial attacks and defenses", CVPR 2019, `arXiv 1811.09600
       <https://arxiv.org/abs/1811.09600>`_, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.ddn import ddn
    >>> logits = lambda x: torch.stack([4 - x.square().sum(1), x.square().sum(1) - 4], 1)
    >>> ddn(logits, torch.tensor([[0.3, 0.4]]), torch.tensor([0])).points.round(decimals=2)
    tensor([[1.2000, 1.6000]])
    """
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    problem, at_x = open_problem(logits, x, source, target, bounds, margin_tol, eps)
    points, found = cross_and_refine(problem, 0)
    index = found.nonzero()[:, 0]
    problem, points, at_x = problem.select(index), points[index], at_x[index]
    label = (source if target is None else target)[problem.owner]
    points = decoupled_steps(problem, points, label, target is not None, n_steps)
    return close_problem(problem, points, at_x, x, source, target, margin_tol, eps)


def decoupled_steps(
    problem: MarginProblem, points: Tensor, label: Tensor, targeted: bool, n_steps: int | Tensor
) -> Tensor:
    """Shorten the distance of points that reach a goal, by steps on the cross-entropy.

    Starting where the goal is reached, the steps can be few: their length falls from 1 to .02 of
    the first distance, the change of the radius from 10 to 1 percent, by cosine.

    Parameters
    ----------
    problem : MarginProblem
        Of m samples.
    points : Tensor of shape (m, d)
        Where the goal is reached.
    label : Tensor of shape (m,)
        The class to leave, or to reach when `targeted`.
    targeted : bool
    n_steps : int or Tensor of shape (m,)
        Gradients of each sample.

    Returns
    -------
    points : Tensor of shape (m, d)
        For each sample the nearest point seen that reaches the goal.
    """
    sign = -1.0 if targeted else 1.0
    n_steps = torch.as_tensor(n_steps).to(points).expand(len(points))
    ends = n_steps.unique().tolist()  # where samples leave
    index = every = problem.indices()
    best, distance = points.clone(), problem.distance(points, every)
    radius, now, first = distance.clone(), points.clone(), (points - problem.x).norm(dim=1)

    def loss(out: Tensor, index: Tensor) -> Tensor:
        return sign * cross_entropy(out, label[index], reduction="none")

    def keep(index: Tensor, reached: Tensor) -> None:
        length = problem.distance(now[index], index)
        shorter = reached & (length < distance[index] * (1 - 1e-6))  # not by rounding alone
        best[index] = torch.where(shorter[:, None], now[index], best[index])
        distance[index] = torch.where(shorter, length, distance[index])

    for i in range(int(max(ends, default=0))):
        if i in ends:
            index = (n_steps > i).nonzero()[:, 0]
        out, _, gradient = problem.derivative(now[index], index, loss)
        reached = problem.goal(out, index) > 0
        keep(index, reached)
        cosine = (1 + (math.pi * i / n_steps[index]).cos()) / 2
        length = first[index] * (0.02 + 0.98 * cosine)
        delta = now[index] - problem.x[index] + length[:, None] * normalize(gradient)
        change = 0.01 + 0.09 * cosine
        radius[index] *= 1 + change * (1 - 2 * reached.to(change.dtype))
        now[index] = problem.clip(
            problem.x[index] + shrink(delta, radius[index], problem.norm), index
        )
    keep(every, problem.value(now, every) > 0)
    return best
