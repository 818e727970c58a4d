"""Methods that follow gradients: the nearest boundary point, and PM's pairs."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends, expand, norms
from skboundary.boundary._segment import step_back
from skboundary.boundary._task import Settings, Task
from skboundary.functional.criteria import class_margin, runner_up
from skboundary.functional.linearize import nearest_boundary
from skboundary.functional.perturbation import fast_start, minimize_perturbation, penalty_for

_PM_STEPS = {"fast": 12, "balanced": 30, "thorough": 300}


def minimal(oracle: Oracle, task: Task, settings: Settings) -> Ends:
    """Find the nearest boundary point; from a row of another class than the source in two legs."""
    n_evaluations = torch.zeros_like(task.source)
    start, at_start = task.x.clone(), oracle.labels(task.x)
    away = (at_start != task.source).nonzero()[:, 0]
    if len(away):
        start[away], n_evaluations[away] = _cross(
            oracle, task, settings, away, start[away], at_start[away], task.source[away]
        )
    outer = start.clone()
    for rows, target in (
        ((task.target < 0).nonzero()[:, 0], None),
        ((task.target >= 0).nonzero()[:, 0], task.target),
    ):
        if len(rows):
            wanted = None if target is None else target[rows]
            outer[rows], spent = _cross(
                oracle, task, settings, rows, start[rows], task.source[rows], wanted
            )
            n_evaluations[rows] += spent
    if not settings.pairs:
        return Ends(start, outer, n_evaluations)
    inner, spent = _inner(oracle, start, outer, task, settings.margin_tol)
    return Ends(inner, outer, n_evaluations + spent)


def _cross(
    oracle: Oracle,
    task: Task,
    settings: Settings,
    rows: Tensor,
    start: Tensor,
    source: Tensor,
    target: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Nearest points (m, ...) of another class, and what they cost; the start without a find."""
    crossing = nearest_boundary(
        _forward(oracle), start, source, target=target, effort=settings.effort,
        bounds=task.bounds(rows), margin_tol=settings.margin_tol, norm=settings.norm,
    )  # fmt: skip
    return crossing.points, crossing.n_forward + crossing.n_backward


def _inner(
    oracle: Oracle, start: Tensor, outer: Tensor, task: Task, tol: float
) -> tuple[Tensor, Tensor]:
    """Points (n, ...) on the segments from start to outer where the source still leads."""
    width = outer - start

    def margin(t: Tensor, rows: Tensor) -> Tensor:
        points = start[rows] + expand(t, width) * width[rows]
        return oracle.margin(points, task.source[rows], task.target[rows])

    one, every = start.new_ones(len(start)), torch.arange(len(start), device=start.device)
    back = step_back(margin, one, margin(0 * one, every), margin(one, every), tol)
    return start + expand(back.inner, width) * width, back.n_evaluations + 2


def pm(oracle: Oracle, task: Task, settings: Settings) -> Ends:
    """Minimise a perturbation together with its start: equation (1) of the paper."""
    forward, bounds, target = _forward(oracle), task.bounds(), task.target.clone()
    n_evaluations = torch.zeros_like(target)
    rows = (target < 0).nonzero()[:, 0]
    if len(rows):
        x, source = task.x[rows], task.source[rows]
        nearest = nearest_boundary(
            forward, x, source, effort="fast", bounds=task.bounds(rows),
            margin_tol=settings.margin_tol,
        )  # fmt: skip
        rival = runner_up(oracle.logits(x), source).label
        target[rows] = torch.where(nearest.success, nearest.target, rival)
        n_evaluations[rows] = nearest.n_forward + nearest.n_backward + 1
    start = fast_start(
        forward, task.x, task.source, target, confidence=settings.confidence, bounds=bounds,
        margin_tol=settings.margin_tol,
    )  # fmt: skip
    penalty: float | Tensor = (
        penalty_for(settings.confidence, start.gradient, settings.norm)
        if settings.penalty is None
        else settings.penalty
    )
    size = start.delta.flatten(1).norm(dim=1)
    pairs = minimize_perturbation(
        forward, start.z, start.delta, task.source, target, penalty=penalty, norm=settings.norm,
        n_iter=_PM_STEPS[settings.effort], betas=(0.5, 0.9),
        learning_rate=1.5 * size / start.delta[0].numel() ** 0.5, bounds=bounds,
        margin_tol=settings.margin_tol,
    )  # fmt: skip
    # a start that is the optimum already, as it is where the network is linear, stays
    started = start.z, start.z + start.delta
    ends = torch.stack([*started, pairs.inner, pairs.outer])
    labels = torch.stack([task.source, target] * 2)
    values, right = _objective(oracle, ends, labels, penalty, settings)
    stays = expand(right[0] & (values[0] < values[1]), task.x)
    inner, outer = (torch.where(stays, ends[i], ends[i + 2]) for i in (0, 1))
    for part in (start, pairs):
        n_evaluations += part.n_forward + part.n_backward
    return Ends(inner, outer, n_evaluations + 4, pairs.collapsed & ~stays.flatten())


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
    right = (class_margin(logits, labels.flatten()) >= settings.margin_tol).view(2, 2, -1).all(1)
    return losses + penalty * size, right


def _forward(oracle: Oracle) -> Callable[[Tensor], Tensor]:
    assert oracle.forward is not None  # choose_method has seen to it
    return oracle.forward
