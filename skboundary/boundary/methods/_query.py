"""Methods "label" and "score": searches by predicted labels, or by scores."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor

from skboundary.boundary._line_search import along, margin_on, sides_by_margin
from skboundary.boundary._oracle import Oracle, lead
from skboundary.boundary._pairs import MIDPOINT, Ends
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.margins import margin_band
from skboundary.functional.query_search import (
    BoundaryPair,
    label_search,
    score_search,
    segment_search,
)

BUDGET = {"fast": 100, "balanced": 2000, "thorough": 10000}  # queries of a sample
_CLOSE = 20  # of them are kept back to turn a bracket into ends
_BEYOND = 0.02, 10.0  # of the way to the bracket: how far it is followed, least and most


def label(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Search by labels alone: segments to ten partners, then a walk along the boundary."""
    flat, starts = _flatten(problem)
    said = lambda points: oracle.labels(points.view(-1, *problem.x.shape[1:]))
    budget, left = _shares(oracle, BUDGET[settings.effort])
    if settings.effort == "fast":
        found = segment_search(
            said, flat, problem.source, target=problem.target, starts=starts, budget=budget
        )
    else:
        found = label_search(
            said,
            flat,
            problem.source,
            target=problem.target,
            bounds=_flat_bounds(problem),
            starts=starts,
            generator=torch.Generator().manual_seed(problem.seed),
            budget=budget,
        )
    return _as_ends(oracle, problem, settings, found, left)


def score(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Search by scores: Newton's steps on their finite differences."""
    flat, starts = _flatten(problem)
    budget = BUDGET[settings.effort]
    if settings.effort == "balanced":  # a smooth score needs no more queries than its slope
        budget = min(budget, 4 * (flat.shape[1] + 24) + 100)
    budget, left = _shares(oracle, budget)
    found = score_search(
        lambda points: oracle.logits(points.view(-1, *problem.x.shape[1:])),
        flat,
        problem.source,
        target=problem.target,
        bounds=_flat_bounds(problem),
        starts=starts,
        generator=torch.Generator().manual_seed(problem.seed),
        budget=budget,
    )
    return _as_ends(oracle, problem, settings, found, left)


def _shares(oracle: Oracle, budget: int) -> tuple[int, int]:
    """Queries of a sample to find a bracket, and to find ends: predicting and verifying take
    the rest."""
    left = budget - 1 - 2 * oracle.n_runs
    if oracle.response == "label":
        return left, left
    left -= MIDPOINT
    return left - _CLOSE, left


def _flatten(problem: Problem) -> tuple[Tensor, Tensor]:
    """Samples (n, d) and their partners (n, k, d); a missing one is the sample itself."""
    flat = problem.x.flatten(1)
    partners = problem.training.take(problem.partners.clamp_min(0), problem.x).flatten(2)
    return flat, torch.where((problem.partners < 0)[:, :, None], flat[:, None], partners)


def _flat_bounds(problem: Problem) -> tuple[Tensor, Tensor] | None:
    bounds = problem.bounds()
    return None if bounds is None else (bounds[0].flatten(1), bounds[1].flatten(1))


def _as_ends(
    oracle: Oracle, problem: Problem, settings: Settings, found: BoundaryPair, budget: int
) -> Ends:
    """Turn a bracket into ends: at the wanted margin where there is a score.

    The bracket is verified. It is followed beyond its outer end only where the margin there is
    short of the wanted one, and it stays where the ends found by margins lose its classes.
    """
    inner, outer = (side.view_as(problem.x) for side in (found.inner, found.points))
    index = found.success.nonzero()[:, 0]
    n_evaluations = found.n_forward.clone()
    if oracle.response == "label" or not len(index):
        return Ends(inner, outer, n_evaluations)
    x, source, target = problem.x[index], problem.source[index], problem.target[index]
    end = outer[index]
    logits = oracle.logits(torch.cat([x, end])).chunk(2)
    band = margin_band(settings.margin_tol, oracle.eps, *logits, ends=(x, end))
    at_x, at_end = (lead(out, source, target) for out in logits)
    short = (at_end > -1.5 * band).nonzero()[:, 0]
    # far enough for the score to reach the margin there, by the chord's slope
    extra = (4 * band / at_x)[short].clamp(*_BEYOND)
    beyond = along(x[short], end[short], 1 + extra)
    bounds = problem.bounds(index[short])
    if bounds is not None:
        beyond = torch.minimum(torch.maximum(beyond, bounds[0]), bounds[1])
    at_beyond = oracle.margin(beyond, source[short], target[short])
    deeper = at_beyond < at_end[short]
    end[short[deeper]], at_end[short[deeper]] = beyond[deeper], at_beyond[deeper]
    n_evaluations[index] += 2
    n_evaluations[index[short]] += 1

    sides = sides_by_margin(
        margin_on(oracle, x, end, source, target),
        at_x,
        at_end,
        band,
        budget - n_evaluations[index] - 2,
    )
    near, far = along(x, end, sides.inner), along(x, end, sides.outer)
    at_near, at_far = oracle.labels(torch.cat([near, far])).chunk(2)
    n_evaluations[index] += sides.n_evaluations + 2
    right = torch.where(target < 0, at_far != source, at_far == target) & (at_near == source)
    inner[index[right]], outer[index[right]] = near[right], far[right]
    return Ends(inner, outer, n_evaluations)
