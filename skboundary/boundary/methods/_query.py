"""Methods "label" and "score": searches by predicted labels, or by scores."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from skboundary.boundary._ends import MIDPOINT, Ends
from skboundary.boundary._inputs import data_range
from skboundary.boundary._line_search import margin_on, sides_by_margin
from skboundary.boundary._oracle import Oracle, source_margin
from skboundary.boundary._points import along
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.margins import margin_band
from skboundary.functional.query_search import (
    BoundaryPair,
    label_search,
    score_search,
    segment_search,
)

_RESERVED = 20  # queries that turn a bracket into ends
_BEYOND = 0.02, 10.0  # shares of the segment by which it is prolonged, least and most
_FAR = 2**12  # ranges of the data: farther than any random ray


class Queries(NamedTuple):
    """Effort of a query-based method."""

    budget: int  # queries of a sample at most
    walk: bool = True  # "label" continues along the boundary after the segments to partners
    capped: bool = False  # "score" takes no more than the slope of a smooth score needs


def label(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Search by labels alone: segments to ten partners, then a walk along the boundary."""
    return _search_each_budget(_label, oracle, problem, settings)


def score(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Search by scores: Newton's steps on their finite differences."""
    return _search_each_budget(_score, oracle, problem, settings)


def _search_each_budget(
    search: Callable[..., Ends], oracle: Oracle, problem: Problem, settings: Settings
) -> Ends:
    """Search with the number of queries that is left to each sample, where it is limited.

    They differ only where a search is repeated.
    """
    effort: Queries = settings.effort
    if problem.budget is None:
        return search(oracle, problem, settings, effort)
    parts = {int(n): problem.budget == n for n in problem.budget.unique()}
    ends = Ends(
        problem.x.clone(), problem.x.clone(), problem.target, torch.zeros_like(problem.source)
    )
    for budget, samples in parts.items():
        index = samples.nonzero()[:, 0]
        found = search(oracle, problem.select(index), settings, effort._replace(budget=budget))
        for name in ("inner", "outer", "n_evaluations"):
            getattr(ends, name)[index] = getattr(found, name)
    return ends


def _label(oracle: Oracle, problem: Problem, settings: Settings, effort: Queries) -> Ends:
    flat, starts = _flatten(problem)
    labels = lambda points: oracle.labels(points.view(-1, *problem.x.shape[1:]))
    budget, left = _budgets(oracle, effort.budget)
    if not effort.walk:
        found = segment_search(
            labels, flat, problem.source, target=problem.target, starts=starts, budget=budget
        )
    else:
        found = label_search(
            labels,
            flat,
            problem.source,
            target=problem.target,
            bounds=_flat_bounds(problem),
            starts=starts,
            generator=torch.Generator().manual_seed(problem.seed),
            image_shape=_image_shape(problem),
            budget=budget,
        )
    return _as_ends(oracle, problem, settings, found, left)


def _score(oracle: Oracle, problem: Problem, settings: Settings, effort: Queries) -> Ends:
    flat, starts = _flatten(problem)
    budget = effort.budget
    if effort.capped:
        budget = min(budget, 4 * (flat.shape[1] + 24) + 100)
    budget, left = _budgets(oracle, budget)
    found = score_search(
        lambda points: oracle.logits(points.view(-1, *problem.x.shape[1:])),
        flat,
        problem.source,
        target=problem.target,
        bounds=_flat_bounds(problem),
        starts=starts,
        generator=torch.Generator().manual_seed(problem.seed),
        image_shape=_image_shape(problem),
        budget=budget,
    )
    return _as_ends(oracle, problem, settings, found, left)


def _image_shape(problem: Problem) -> tuple[int, ...] | None:
    """Shape of a sample that has a height and a width as its last axes."""
    shape = tuple(problem.x.shape[1:])
    return shape if len(shape) > 1 and min(shape[-2:]) > 1 else None


def _budgets(oracle: Oracle, budget: int) -> tuple[int, int]:
    """Queries of a sample for a bracket, and for ends; predicting and verifying take the rest."""
    left = budget - 1 - 2 * oracle.n_runs
    if oracle.response == "label":
        return left, left
    left -= MIDPOINT
    return left - min(_RESERVED, left // 2), left


def _flatten(problem: Problem) -> tuple[Tensor, Tensor]:
    """Samples (n, d) and their partners (n, k, d); a missing one is the sample itself."""
    flat = problem.x.flatten(1)
    assert problem.partners is not None  # of the method's entry in the table
    points, exist, _ = problem.partners
    return flat, torch.where(exist[:, :, None], points.flatten(2), flat[:, None])


def _flat_bounds(problem: Problem) -> tuple[Tensor, Tensor] | None:
    """Bounds (n, d), finite ones in place of infinite: searches draw points from the whole box."""
    bounds = problem.bounds()
    if bounds is None:
        return None
    x, (low, high) = problem.x.flatten(1), (bound.flatten(1) for bound in bounds)
    if low.isfinite().all() and high.isfinite().all():
        return low, high
    least, largest = data_range(problem.training.X)
    far = _FAR * float(np.max(largest - least) or 1)
    return low.where(low.isfinite(), x - far), high.where(high.isfinite(), x + far)


def _as_ends(
    oracle: Oracle, problem: Problem, settings: Settings, found: BoundaryPair, budget: int
) -> Ends:
    """Turn a bracket into ends: at the margin `margin_tol` where there is a score.

    The bracket is verified. It is prolonged beyond its outer end only where the margin there is
    too small, and it stays where the ends found by margins lose its classes.
    """
    inner, outer = (side.view_as(problem.x) for side in (found.inner, found.points))
    ends = Ends(inner, outer, problem.target, found.n_forward.clone())
    index = found.success.nonzero()[:, 0]
    if oracle.response == "label" or not len(index):
        return ends
    part = problem.select(index)
    x, source, target = part.x, part.source, part.target
    end, at_x, at_end, band, n_evaluations = _prolong(oracle, part, settings, outer[index])
    n_evaluations += ends.n_evaluations[index]
    sides = sides_by_margin(
        margin_on(oracle, x, end, source, target), at_x, at_end, band, budget - n_evaluations - 2
    )
    near, far = along(x, end, sides.inner), along(x, end, sides.outer)
    at_near, at_far = oracle.labels(torch.cat([near, far])).chunk(2)
    ends.n_evaluations[index] = n_evaluations + sides.n_evaluations + 2
    right = torch.where(target < 0, at_far != source, at_far == target) & (at_near == source)
    inner[index[right]], outer[index[right]] = near[right], far[right]
    return ends


def _prolong(
    oracle: Oracle, problem: Problem, settings: Settings, end: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Move outer ends (n, ...) on where their margin is too small.

    Returns the ends, the margins at the samples and there, the bands, and the evaluations.
    """
    x, source, target = problem.x, problem.source, problem.target
    known, n_runs = oracle.complete(x, problem.known)
    assert known.logits is not None
    logits = known.logits, oracle.logits(end)
    n_evaluations = torch.full_like(source, n_runs + 1)
    band = margin_band(settings.margin_tol, oracle.eps, *logits, ends=(x, end))
    at_x, at_end = (source_margin(side, source, target) for side in logits)
    short = (at_end > -1.5 * band).nonzero()[:, 0]
    # far enough for the score to reach the margin there, by the chord's slope
    extra = (4 * band / at_x)[short].clamp(*_BEYOND)
    beyond = along(x[short], end[short], 1 + extra)
    bounds = problem.bounds(short)
    if bounds is not None:
        beyond = torch.minimum(torch.maximum(beyond, bounds[0]), bounds[1])
    at_beyond = oracle.margin(beyond, source[short], target[short])
    deeper = at_beyond < at_end[short]
    end[short[deeper]], at_end[short[deeper]] = beyond[deeper], at_beyond[deeper]
    n_evaluations[short] += 1
    return end, at_x, at_end, band, n_evaluations
