"""Method "minimal": gradients to the nearest boundary point."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skboundary.boundary._line_search import along, margin_on, step_back
from skboundary.boundary._oracle import Oracle, lead
from skboundary.boundary._pairs import Ends
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.margins import margin_band
from skboundary.functional.nearest_boundary import nearest_boundary


def minimal(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Find the nearest boundary point, in two legs where a sample is not of the source class."""
    n_evaluations = torch.ones_like(problem.source)
    start, at_start = problem.x.clone(), oracle.labels(problem.x)
    away = (at_start != problem.source).nonzero()[:, 0]
    if len(away):
        start[away], n_evaluations[away] = _cross(
            oracle, problem, settings, away, start[away], at_start[away], problem.source[away]
        )
    outer = start.clone()
    for index, target in (
        ((problem.target < 0).nonzero()[:, 0], None),
        ((problem.target >= 0).nonzero()[:, 0], problem.target),
    ):
        if len(index):
            wanted = None if target is None else target[index]
            outer[index], spent = _cross(
                oracle, problem, settings, index, start[index], problem.source[index], wanted
            )
            n_evaluations[index] += spent
    if not settings.pairs:
        return Ends(start, outer, n_evaluations)
    inner, spent = _inner(oracle, start, outer, problem, settings.margin_tol)
    return Ends(inner, outer, n_evaluations + spent)


def _cross(
    oracle: Oracle,
    problem: Problem,
    settings: Settings,
    index: Tensor,
    start: Tensor,
    source: Tensor,
    target: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Nearest points (m, ...) of another class, and what they cost; the start without a find."""
    crossing = nearest_boundary(
        _forward(oracle),
        start,
        source,
        target=target,
        effort=settings.effort,
        bounds=problem.bounds(index),
        margin_tol=settings.margin_tol,
        eps=oracle.eps,
        norm=settings.norm,
    )
    return crossing.points, crossing.n_forward + crossing.n_backward


def _inner(
    oracle: Oracle, start: Tensor, outer: Tensor, problem: Problem, tol: float
) -> tuple[Tensor, Tensor]:
    """Points (n, ...) on the segments from start to outer where the source still leads."""
    inner, n_evaluations = start.clone(), torch.zeros_like(problem.source)
    index = (start != outer).flatten(1).any(1).nonzero()[:, 0]
    start, outer, source, target = (
        v[index] for v in (start, outer, problem.source, problem.target)
    )
    logits = oracle.logits(torch.cat([start, outer])).chunk(2)
    at_start, at_outer = (lead(out, source, target) for out in logits)
    band = margin_band(tol, oracle.eps, *logits, ends=(start, outer))
    margin = margin_on(oracle, start, outer, source, target)
    back = step_back(margin, torch.ones_like(at_start), at_start, at_outer, band)
    inner[index] = along(start, outer, back.inner)
    n_evaluations[index] = back.n_evaluations + 2
    return inner, n_evaluations


def _forward(oracle: Oracle) -> Callable[[Tensor], Tensor]:
    assert oracle.forward is not None  # choose_method has seen to it
    return oracle.forward
