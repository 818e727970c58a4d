"""Method "minimal": gradients to the nearest boundary point."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor

from skboundary.boundary._ends import Ends
from skboundary.boundary._line_search import margin_on, step_back
from skboundary.boundary._oracle import Oracle, source_margin
from skboundary.boundary._points import along
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.margins import margin_band
from skboundary.functional.nearest_boundary import nearest_boundary


def minimal(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Find the nearest boundary point, in two legs where a sample is not of the source class."""
    at_x, n_runs = oracle.complete(problem.x, problem.known)
    assert at_x.logits is not None
    n_evaluations = torch.full_like(problem.source, n_runs)
    n_gradients = torch.zeros_like(n_evaluations)
    start, at_start = problem.x.clone(), at_x.logits
    away = (at_x.labels != problem.source).nonzero()[:, 0]
    if len(away):
        half = problem if problem.budget is None else problem._replace(budget=problem.budget // 2)
        start[away], n_forward, n_backward = _cross(
            oracle, half, settings, away, start[away], at_x.labels[away], problem.source[away]
        )
        n_evaluations[away] += n_forward + n_backward
        n_gradients[away] = n_backward
        if problem.budget is not None:
            problem = problem._replace(budget=problem.budget - n_gradients)
        if settings.pairs:
            at_start = at_start.index_copy(0, away, oracle.logits(start[away]))
            n_evaluations[away] += 1
    outer = start.clone()
    for index, target in (
        ((problem.target < 0).nonzero()[:, 0], None),
        ((problem.target >= 0).nonzero()[:, 0], problem.target),
    ):
        if len(index):
            wanted = None if target is None else target[index]
            outer[index], n_forward, n_backward = _cross(
                oracle, problem, settings, index, start[index], problem.source[index], wanted
            )
            n_evaluations[index] += n_forward + n_backward
            n_gradients[index] += n_backward
    inner = start
    if settings.pairs:
        inner, spent = _inner(oracle, start, at_start, outer, problem, settings.margin_tol)
        n_evaluations += spent
    return Ends(inner, outer, problem.target, n_evaluations, n_gradients=n_gradients)


def _cross(
    oracle: Oracle,
    problem: Problem,
    settings: Settings,
    index: Tensor,
    start: Tensor,
    source: Tensor,
    target: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest points (m, ...) of another class, forward and backward passes for them.

    The point is the start where none is found.
    """
    effort = settings.effort
    if problem.budget is not None:
        effort = effort._replace(n_gradients=problem.budget[index])
    crossing = nearest_boundary(
        oracle.gradient_logits,
        start,
        source,
        target=target,
        effort=effort,
        bounds=problem.bounds(index),
        margin_tol=settings.margin_tol,
        eps=oracle.eps,
        norm=settings.norm,
    )
    return crossing.points, crossing.n_forward, crossing.n_backward


def _inner(
    oracle: Oracle, start: Tensor, at_start: Tensor, outer: Tensor, problem: Problem, tol: float
) -> tuple[Tensor, Tensor]:
    """Points (n, ...) on the segments from start to outer where the source still leads."""
    inner, n_evaluations = start.clone(), torch.zeros_like(problem.source)
    index = (start != outer).flatten(1).any(1).nonzero()[:, 0]
    start, outer, source, target = (
        v[index] for v in (start, outer, problem.source, problem.target)
    )
    logits = at_start[index], oracle.logits(outer)
    first, last = (source_margin(side, source, target) for side in logits)
    band = margin_band(tol, oracle.eps, *logits, ends=(start, outer))
    margin = margin_on(oracle, start, outer, source, target)
    back = step_back(margin, torch.ones_like(first), first, last, band)
    inner[index] = along(start, outer, back.inner)
    n_evaluations[index] = back.n_evaluations + 1
    return inner, n_evaluations
