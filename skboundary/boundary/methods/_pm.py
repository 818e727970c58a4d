"""Method "pm": a perturbation minimized together with its start."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from skboundary.boundary._ends import Ends
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._points import expand, norms
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.margins import class_margin, margin_band, runner_up
from skboundary.functional.nearest_boundary import Effort, nearest_boundary
from skboundary.functional.perturbation_minimization import (
    PMStart,
    fast_start,
    minimize_perturbation,
    penalty_for,
)

_RIVALS = Effort(n_rivals=3, n_refine=2, n_steps=0)  # to find out which class is the nearest


def pm(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Minimize a perturbation together with its start: equation (1) of the paper."""
    before = None  # gradients before the iterations
    if problem.budget is not None:
        before = (problem.budget - 2 * settings.effort).clamp(min=0)
    target, n_evaluations, n_gradients = _nearest_class(oracle, problem, settings, before)
    start = fast_start(
        oracle.gradient_logits,
        problem.x,
        problem.source,
        target=target,
        bounds=problem.bounds(),
        confidence=settings.confidence,
        margin_tol=settings.margin_tol,
        eps=oracle.eps,
        n_gradients=None if before is None else before - n_gradients,
    )
    n_evaluations += start.n_forward + start.n_backward
    n_gradients += start.n_backward
    inner, outer = problem.x.clone(), problem.x.clone()
    collapsed = torch.zeros_like(start.success)
    index = start.success.nonzero()[:, 0]
    if len(index):
        inner[index], outer[index], collapsed[index], spent = _minimized(
            oracle, problem, settings, index, target[index], start
        )
        n_evaluations[index] += spent
        n_gradients[index] += 2 * settings.effort
    # a penalty that follows from the confidence is not what the user could lower
    found = start.success if settings.penalty is not None else start.success & ~collapsed
    return Ends(inner, outer, target, n_evaluations, collapsed, found, n_gradients)


def _nearest_class(
    oracle: Oracle, problem: Problem, settings: Settings, most: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The class (n,) that each sample is to reach, and evaluations and gradients to find it.

    Where any will do, the one whose boundary is the nearest in the box, or the runner-up. Half of
    `most` (n,) gradients are there for it.
    """
    target, n_evaluations = problem.target.clone(), torch.zeros_like(problem.target)
    n_gradients = n_evaluations.clone()
    index = (target < 0).nonzero()[:, 0]
    if len(index):
        x, source = problem.x[index], problem.source[index]
        known = None if problem.known is None else problem.known.select(index)
        nearest = nearest_boundary(
            oracle.gradient_logits,
            x,
            source,
            effort=_RIVALS._replace(n_gradients=None if most is None else most[index] // 2),
            bounds=problem.bounds(index),
            margin_tol=settings.margin_tol,
            eps=oracle.eps,
        )
        at_x, n_runs = oracle.complete(x, known)
        assert at_x.logits is not None
        rival = runner_up(at_x.logits, source).label
        target[index] = torch.where(nearest.success, nearest.target, rival)
        n_evaluations[index] = nearest.n_forward + nearest.n_backward + n_runs
        n_gradients[index] = nearest.n_backward
    return target, n_evaluations, n_gradients


def _minimized(
    oracle: Oracle,
    problem: Problem,
    settings: Settings,
    index: Tensor,
    target: Tensor,
    start: PMStart,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Minimize equation (1) from the starts of some samples, which stay where they are better.

    Returns inner, outer, which pairs collapsed, and the samples that the classifier ran.
    """
    z, delta, gradient = (part[index] for part in start[:3])
    size = delta.flatten(1).norm(dim=1)
    penalty: float | Tensor
    if settings.penalty is None:
        # the slope along the way that the box leaves
        cosine = torch.cosine_similarity(gradient.flatten(1), delta.flatten(1))
        penalty = penalty_for(
            settings.confidence, gradient * expand(cosine, gradient), settings.norm
        )
    else:
        penalty = settings.penalty
    pairs = minimize_perturbation(
        oracle.gradient_logits,
        z,
        problem.source[index],
        target=target,
        delta=delta,
        bounds=problem.bounds(index),
        penalty=penalty,
        norm=settings.norm,
        n_iter=settings.effort,
        betas=(0.5, 0.9),
        learning_rate=1.5 * size / delta[0].numel() ** 0.5,
        margin_tol=settings.margin_tol,
        eps=oracle.eps,
    )
    # keep a start that is optimal already, as for a linear network
    ends = torch.stack([z, z + delta, pairs.inner, pairs.points])
    labels = torch.stack([problem.source[index], target] * 2)
    values, right = _objective(oracle, ends, labels, penalty, settings)
    better = values[0] < values[1]
    if settings.penalty is None:
        better |= pairs.collapsed | ~right[1]
    stays = right[0] & better
    inner, outer = (torch.where(expand(stays, z), ends[i], ends[i + 2]) for i in (0, 1))
    return inner, outer, pairs.collapsed & ~stays, pairs.n_forward + pairs.n_backward + 4


def _objective(
    oracle: Oracle, ends: Tensor, labels: Tensor, penalty: float | Tensor, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Equation (1) of two candidates for each of n pairs, (2, n), and whether labels are right.

    Candidates are inner, outer, inner, outer: ends (4, n, ...) with their labels (4, n).
    """
    logits = oracle.logits(ends.flatten(0, 1))
    losses = cross_entropy(logits, labels.flatten(), reduction="none").view(2, 2, -1).sum(1)
    size = norms((ends[1::2] - ends[::2]).flatten(0, 1), settings.norm).view(2, -1)
    size = size.square() if settings.norm == "2sq" else size
    band = margin_band(settings.margin_tol, oracle.eps, logits)
    right = (class_margin(logits, labels.flatten()) >= band).view(2, 2, -1).all(1)
    return losses + penalty * size, right
