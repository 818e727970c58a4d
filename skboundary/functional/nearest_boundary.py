"""The nearest point of a decision boundary, by gradients: linearize, cross, refine, polish."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._linearization import close_problem, cross, cross_and_refine, refine
from skboundary.functional._margin_problem import MarginProblem, open_problem
from skboundary.functional._projection import NORMS
from skboundary.functional._results import BoundaryPoint
from skboundary.functional._shapes import shapes
from skboundary.functional.ddn import decoupled_steps
from skboundary.functional.margins import pairwise_margin

__all__ = ["EFFORTS", "BoundaryPoint", "Effort", "nearest_boundary"]

_FEW_GRADIENTS, _MANY_GRADIENTS = 8, 50  # from which on 3 and 4 rivals are crossed
_RESERVE = 10  # share of the gradients, a tenth, that a last crossing may take
_MAX_RATIO = 1.3  # to the nearest rival's distance: rivals beyond are not refined


class Effort(NamedTuple):
    """What the search for one sample may cost."""

    n_rivals: int  # classes whose boundary is sought, where no target is given
    n_refine: int  # tangent refinements for each
    n_steps: int  # decoupled direction and norm steps from the best
    n_gradients: int | Tensor | None = None  # of a sample in all; the steps then take what is left

    @classmethod
    def within(cls, n_gradients: int, most: Tensor | None = None) -> Effort:
        """The search that suits a number of gradients, of which some samples may have `most`."""
        left = n_gradients if most is None else most
        if n_gradients >= _MANY_GRADIENTS:
            return cls(4, 6, 1, left)
        return cls(2 if n_gradients < _FEW_GRADIENTS else 3, 2, 1, left)


class _Limits(NamedTuple):
    """Gradients (n,) that samples may have taken after a part of the search, if limited."""

    rivals: Tensor | None
    steps: Tensor | None
    all: Tensor | None

    @classmethod
    def of(cls, effort: Effort, n_rivals: int, x: Tensor) -> _Limits:
        if effort.n_gradients is None:
            return cls(None, None, None)
        most = torch.as_tensor(effort.n_gradients, device=x.device).expand(len(x))
        steps = most - (most // _RESERVE).clamp(min=1)
        rivals = steps // 2 if effort.n_steps else steps
        return cls(rivals - n_rivals + 1, steps, most)  # all rivals take a gradient at a time


LEAST_GRADIENTS = 5
EFFORTS = {"fast": Effort(1, 8, 0), "balanced": Effort(3, 2, 16), "thorough": Effort(4, 4, 32)}


@shapes(x="n ...", source="n", target="n")
def nearest_boundary(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    effort: str | int | Effort = "balanced",
    margin_tol: float = 1e-3,
    eps: float | None = None,
    norm: float = 2,
) -> BoundaryPoint:
    """Find for each sample the nearest point that is predicted as another class.

    Incremental DeepFool [1]_ in the box crosses the boundary to each of the strongest rivals,
    tangent refinements shorten the distance, the nearest point continues with decoupled direction
    and norm steps [2]_, and a root search on the segment from x ends at a margin of 1 to 2 bands,
    `margins.margin_band`: nearer to zero the label would depend on rounding, and thus on the batch
    that the point is predicted in. Where rounding keeps the search from such a margin, the point
    is the nearest one that is known to be beyond the boundary.

    Parameters
    ----------
    logits : callable
        Maps points (m, ...) to logits (m, n_classes); differentiable, independent for each point.
    x : Tensor of shape (n, ...)
    source : Tensor of shape (n,)
        The class that each sample is predicted as. Samples predicted otherwise are reported as
        unsuccessful.
    target : Tensor of shape (n,), default=None
        The target class; None is the nearest other class.
    bounds : (low, high), default=None
        Tensors that broadcast to x, in its units; the box that holds x and the points.
    effort : {"fast", "balanced", "thorough"}, int or Effort, default="balanced"
        Up to 8, 16 and 32 gradients per sample after the boundary to each of 1, 3 and 4 rivals is
        crossed: see `EFFORTS`. An int of at least 5 is the number of gradients that a sample may
        take in all.
    margin_tol : float, default=1e-3
        Smallest margin of the points, in units of the logits, where `margins.margin_band` does not
        demand more.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that involved in the logits; None is that of x.
    norm : {1, 2, inf}, default=2
        Of the distance. Steps to a plane are the shortest ones in this norm, of length ``|margin|``
        over the dual norm of the gradient; the decoupled steps end on the sphere around x in the
        norm 2, and in the ball in the others [3]_.

    Returns
    -------
    result : BoundaryPoint

    Raises
    ------
    ValueError
        For another norm, an unknown effort or one below 5, a target equal to its source, bounds
        that exclude x, or shapes that do not match.

    References
    ----------
    .. [1] S. Moosavi-Dezfooli, A. Fawzi, P. Frossard, "DeepFool: a simple and accurate method to
       fool deep neural networks", CVPR 2016, `arXiv 1511.04599
       <https://arxiv.org/abs/1511.04599>`_, algorithm 2.
    .. [2] J. Rony et al., "Decoupling direction and norm for efficient gradient-based L2
       adversarial attacks and defenses", CVPR 2019, `arXiv 1811.09600
       <https://arxiv.org/abs/1811.09600>`_, algorithm 1.
    .. [3] M. Pintor et al., "Fast minimum-norm adversarial attacks through adaptive norm
       constraints", NeurIPS 2021, `arXiv 2102.12827 <https://arxiv.org/abs/2102.12827>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.nearest_boundary import nearest_boundary
    >>> logits = lambda x: torch.stack([-x[:, 0], x[:, 0]], 1)
    >>> found = nearest_boundary(logits, torch.tensor([[-3.0, 4.0]]), torch.tensor([0]))
    >>> found.points.round(decimals=2).tolist(), found.success.tolist()
    ([[0.0, 4.0]], [True])
    """
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r}: use one of {list(NORMS)}.")
    budget = _resolve_effort(effort)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    problem, at_x = open_problem(logits, x, source, target, bounds, margin_tol, eps, norm)
    n_rivals = min(budget.n_rivals, at_x.shape[1] - 1) if target is None else 1
    limits = _Limits.of(budget, n_rivals, x)
    if target is None:
        own = source[problem.owner]
        rivals = at_x.scatter(1, own[:, None], -float("inf")).topk(n_rivals).indices
        points, found = _nearest_rival(problem, own, rivals, budget.n_refine, limits.rivals)
    else:
        points, found = cross_and_refine(problem, budget.n_refine, limits.rivals)
    if limits.steps is not None:  # what a share was too small for, with what is left
        missed = (~found).nonzero()[:, 0]
        points[missed], found[missed] = cross_and_refine(problem.select(missed), 0, limits.steps)
    index = found.nonzero()[:, 0]
    problem, points, at_x = problem.select(index), points[index], at_x[index]
    if budget.n_steps:
        label = (source if target is None else target)[problem.owner]
        n_steps: int | Tensor = budget.n_steps
        if limits.steps is not None:
            n_steps = (limits.steps - problem.network.n_backward)[problem.owner].clamp(min=0)
        points = decoupled_steps(problem, points, label, target is not None, n_steps)
    return close_problem(problem, points, at_x, x, source, target, margin_tol, eps, limits.all)


def _resolve_effort(effort: str | int | Effort) -> Effort:
    if isinstance(effort, Effort):
        return effort
    if isinstance(effort, str) and effort in EFFORTS:
        return EFFORTS[effort]
    if isinstance(effort, Integral) and effort >= LEAST_GRADIENTS:
        return Effort.within(int(effort))
    raise ValueError(
        f"effort={effort!r}: use one of {sorted(EFFORTS)}, or the number of gradients per sample, "
        f"at least {LEAST_GRADIENTS}."
    )


def _nearest_rival(
    problem: MarginProblem, source: Tensor, rivals: Tensor, n_refine: int, most: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The nearest of the points found by a search for each of the rivals (m, n_rivals)."""
    m, n_rivals = rivals.shape
    if n_rivals == 1:  # the strongest rival of the moment
        return cross_and_refine(problem, n_refine, most)
    many, rival = problem.indices().repeat_interleave(n_rivals), rivals.flatten()

    def lead(out: Tensor, index: Tensor) -> Tensor:
        return pairwise_margin(out, rival[index], source[many[index]])

    inner = problem.select(many)
    points, value, gradient = cross(inner, inner.x, lead, most)
    distance = inner.distance(points, inner.indices()).where(value > 0, torch.inf).view(m, n_rivals)
    near = (distance < _MAX_RATIO * distance.amin(1, keepdim=True)).flatten()
    near = (near & (gradient != 0).any(1)).nonzero()[:, 0]
    points[near] = refine(
        inner.select(near), points[near], value[near], gradient[near], n_refine, most
    )
    distance = inner.distance(points, inner.indices()).where(value > 0, torch.inf).view(m, n_rivals)
    # ties are resolved by the lowest index, so that rounding does not choose
    best = (distance <= distance.amin(1, keepdim=True) * (1 + 1e-6)).byte().argmax(1)
    return points.unflatten(0, (m, n_rivals))[problem.indices(), best], distance.isfinite().any(1)
