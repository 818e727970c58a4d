"""The two ends of a pair as a method found them, and as the classifier confirms them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.boundary._oracle import Oracle, source_margin
from skboundary.boundary._pairs import COLLAPSED, NOT_FOUND, OK, THIRD_CLASS
from skboundary.boundary._points import along
from skboundary.functional.margins import pairwise_margin, runner_up
from skboundary.functional.root_finding import Root, find_root

_EQUAL = 1e-4  # |p_s - p_t| at a midpoint is below it
MIDPOINT = 12  # evaluations of the search for a midpoint at most

Box = tuple[Tensor, Tensor]


class Limits(NamedTuple):
    """Samples and their bounds in the dtype of the result, for ends that a search has rounded."""

    x: Tensor  # (n, ...)
    box: Box | None = None  # broadcastable to x

    def select(self, index: Tensor) -> Limits:
        """Those of some of the samples."""
        box = self.box
        return Limits(self.x[index], None if box is None else (box[0][index], box[1][index]))

    def restore(self, points: Tensor) -> Tensor:
        """Points (n, ...) in the dtype of x: values that equal those of x, or lie in the box."""
        rounded = points.to(self.x.dtype).where(points != self.x.to(points.dtype), self.x)
        if self.box is None:
            return rounded
        low, high = self.box
        inside = torch.minimum(torch.maximum(rounded, low), high)
        return inside.where(rounded.isfinite(), rounded)


class Ends(NamedTuple):
    """What a method found for each of n samples; without a find both ends are the sample."""

    inner: Tensor  # (n, ...)
    outer: Tensor  # (n, ...)
    target: Tensor  # (n,) classes that were sought; -1 is any other than the source
    n_evaluations: Tensor  # (n,)
    collapsed: Tensor | None = None  # (n,) bool
    found: Tensor | None = None  # (n,) bool: False is "not_found"; None leaves it to the labels
    n_gradients: Tensor | None = None  # (n,) those among the evaluations, where they are limited


class Verified(NamedTuple):
    """Ends as they will be returned, and what the classifier predicts there."""

    inner: Tensor
    outer: Tensor
    midpoint: Tensor
    target: Tensor  # (n,) known now also where any class would do
    margin_inner: Tensor
    margin_outer: Tensor
    status: Tensor  # (n,) positions in STATUSES
    n_evaluations: Tensor


def verify(
    oracle: Oracle,
    ends: Ends,
    source: Tensor,
    limits: Limits,
    *,
    pairs: bool = True,
) -> Verified:
    """Run ends, rounded to the dtype of the result, through the classifier, and mark failures.

    Parameters
    ----------
    oracle : Oracle
    ends : Ends
        A target of -1 becomes the class that the outer end is predicted as, or the strongest
        rival there where that is the source.
    source : Tensor of shape (n,)
    limits : Limits
        Ends are restored to them.
    pairs : bool, default=True
        False verifies the outer end alone: a third class may then lie before it, and the
        midpoint is the middle.

    Returns
    -------
    verified : Verified
    """
    inner, outer = limits.restore(ends.inner), limits.restore(ends.outer)
    points = torch.stack([inner, outer] if pairs else [outer]).to(oracle.dtype)
    labels, logits = oracle.inspect(points.flatten(0, 1))
    labels = labels.view(points.shape[:2])
    if logits is not None:
        logits = logits.view(*labels.shape, logits.shape[-1])
    target = _reached(ends.target, source, labels[-1], None if logits is None else logits[-1])
    status = _status(ends, points, labels, source, target)
    n_evaluations = ends.n_evaluations + len(points) * oracle.n_runs
    t = torch.full_like(source, 0.5, dtype=oracle.dtype)
    margin_inner = margin_outer = torch.full_like(t, torch.nan)
    if logits is not None:
        margin_outer = source_margin(logits[-1], source, target)
    if logits is not None and pairs:
        margin_inner = source_margin(logits[0], source, target)
        index = (status == OK).nonzero()[:, 0]
        root = _midpoint(oracle, points[:, index], logits[:, index], source[index], target[index])
        t[index] = root.t
        n_evaluations = n_evaluations.index_add(0, index, root.n_evaluations)
    start, end = (side.to(oracle.dtype) for side in (inner, outer))
    middle = limits.restore(along(start, end, t))
    return Verified(inner, outer, middle, target, margin_inner, margin_outer, status, n_evaluations)


def _reached(target: Tensor, source: Tensor, labels: Tensor, logits: Tensor | None) -> Tensor:
    """Classes (n,) that the outer ends belong to, by their labels where any class would do."""
    reached = torch.where(target < 0, torch.where(labels < 0, source, labels), target)
    if logits is None:  # the first class but the source
        rival = (source == 0).long()
    else:
        rival = runner_up(logits, source).label
    return torch.where(reached == source, rival, reached)


def _status(ends: Ends, points: Tensor, labels: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Statuses (n,) of ends by the labels (1 or 2, n) of the outer end, or of both."""
    wanted = torch.stack([source, target])[-len(labels) :]
    finite = points.isfinite().flatten(2).all(2).all(0) & (labels >= 0).all(0)
    ok = (labels == wanted).all(0) & (source != target) & finite
    third = ((labels != source) & (labels != target)).any(0)
    status = torch.where(ok, OK, torch.where(third & finite, THIRD_CLASS, NOT_FOUND))
    if ends.collapsed is not None:
        status[ends.collapsed] = COLLAPSED
    if ends.found is not None:
        status[~ends.found] = NOT_FOUND
    return status


def _midpoint(
    oracle: Oracle, points: Tensor, logits: Tensor, source: Tensor, target: Tensor
) -> Root:
    """Find where the two classes are equally probable between ends (2, n, ...) of known logits."""

    def gap(t: Tensor, index: Tensor) -> Tensor:
        middle = along(points[0, index], points[1, index], t)
        proba = oracle.network.proba(oracle.logits(middle))
        return pairwise_margin(proba, source[index], target[index])

    start, end = (pairwise_margin(oracle.network.proba(side), source, target) for side in logits)
    low = torch.zeros_like(start)
    return find_root(gap, low, low + 1, start, end, tol=_EQUAL / 2, max_iter=MIDPOINT)
