"""Methods that only ask: the segment to a training row, and searches by labels or scores."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor

from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends, expand
from skboundary.boundary._segment import between
from skboundary.boundary._task import Settings, Task
from skboundary.functional.decision import (
    Bracket,
    label_search,
    score_search,
    segment_search,
)

BUDGET = {"fast": 100, "balanced": 2000, "thorough": 10000}  # questions for a row
_BEYOND = 0.02  # of the way to the bracket: how far it is followed at least


def segment(oracle: Oracle, task: Task, settings: Settings) -> Ends:
    """Look on the segment from each row to its partner, a training row of another class."""
    rows = (task.partners[:, 0] >= 0).nonzero()[:, 0]
    inner, outer = task.x.clone(), task.x.clone()
    n_evaluations = torch.zeros_like(task.source)
    if len(rows):
        ends = task.pool.take(task.partners[rows, 0], task.x)
        found = between(
            oracle, task.x[rows], ends, task.source[rows], task.target[rows], settings.margin_tol
        )
        inner[rows], outer[rows], n_evaluations[rows] = found[:3]
    return Ends(inner, outer, n_evaluations)


def label(oracle: Oracle, task: Task, settings: Settings) -> Ends:
    """Search by labels alone: segments to ten partners, then a walk along the boundary."""
    flat, starts = _flatten(task)
    said = lambda points: oracle.labels(points.view(-1, *task.x.shape[1:]))
    target = None if (task.target < 0).all() else task.target
    budget = BUDGET[settings.effort]
    if settings.effort == "fast":
        found = segment_search(said, flat, task.source, starts, target=target, budget=budget)
    else:
        found = label_search(
            said, flat, task.source, starts, target=target, budget=budget,
            generator=torch.Generator().manual_seed(task.seed), bounds=_flat_bounds(task),
        )  # fmt: skip
    return _as_ends(oracle, task, settings, found)


def score(oracle: Oracle, task: Task, settings: Settings) -> Ends:
    """Search by scores: Newton's steps on their finite differences."""
    flat, starts = _flatten(task)
    budget = BUDGET[settings.effort]
    if settings.effort == "balanced":  # a smooth score is not better known by asking more
        budget = min(budget, 4 * (flat.shape[1] + 24) + 100)
    found = score_search(
        lambda points: oracle.logits(points.view(-1, *task.x.shape[1:])),
        flat, task.source, starts,
        target=None if (task.target < 0).all() else task.target,
        generator=torch.Generator().manual_seed(task.seed), bounds=_flat_bounds(task),
        budget=budget,
    )  # fmt: skip
    return _as_ends(oracle, task, settings, found)


def _flatten(task: Task) -> tuple[Tensor, Tensor]:
    """Rows (n, d) and their partners (n, k, d); one that is missing is the row itself."""
    flat = task.x.flatten(1)
    partners = task.pool.take(task.partners.clamp_min(0), task.x).flatten(2)
    return flat, torch.where((task.partners < 0)[:, :, None], flat[:, None], partners)


def _flat_bounds(task: Task) -> tuple[Tensor, Tensor] | None:
    bounds = task.bounds()
    return None if bounds is None else (bounds[0].flatten(1), bounds[1].flatten(1))


def _as_ends(oracle: Oracle, task: Task, settings: Settings, found: Bracket) -> Ends:
    """Turn a bracket into ends: at the wanted margin where there is a score."""
    inner, outer = (side.view_as(task.x) for side in (found.inner, found.outer))
    if oracle.response == "label":
        return Ends(inner, outer, found.n_evaluations)
    # far enough beyond the bracket for the score to reach the margin there, by the chord's slope
    lead = oracle.margin(task.x, task.source, task.target)
    extra = (4 * settings.margin_tol / lead).clamp(_BEYOND, 1)
    beyond = task.x + expand(1 + extra, outer) * (outer - task.x)
    if task.low is not None and task.high is not None:
        beyond = torch.minimum(torch.maximum(beyond, task.low), task.high)
    ends = between(oracle, task.x, beyond, task.source, task.target, settings.margin_tol)
    return ends._replace(n_evaluations=ends.n_evaluations + found.n_evaluations + 1)
