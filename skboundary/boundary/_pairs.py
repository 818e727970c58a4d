"""Pairs of points on either side of a boundary, and how what a search found becomes such pairs."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary.boundary._oracle import Oracle, lead
from skboundary.functional.margins import runner_up
from skboundary.functional.root_finding import Root, find_root

STATUSES = np.array(["ok", "collapsed", "third_class", "already_target", "not_found"])
OK, COLLAPSED, THIRD_CLASS, ALREADY_TARGET, NOT_FOUND = range(5)

_EQUAL = 1e-4  # |p_s - p_t| at a midpoint is below it
MIDPOINT = 12  # rows that the search for a midpoint may run


@dataclass(frozen=True, eq=False)
class BoundaryPairs:
    """Pairs of points, one on either side of the boundary between two classes.

    Read more in the :ref:`User Guide <boundary_samples>`.

    Parameters
    ----------
    inner : ndarray of shape (n_pairs, ...)
        The point that is predicted as `source`: where its margin is 1 to 2 times `margin_tol`, or
        8 eps max|logit| where that is more; or at PM's confidence.
    outer : ndarray of shape (n_pairs, ...)
        The point that is predicted as `target`.
    midpoint : ndarray of shape (n_pairs, ...)
        On the segment between them, where the two classes are equally probable: to within 1e-4,
        or to within what the rounding of the logits, 8 eps max|logit|, or of larger terms that
        cancel in them makes of it. For a classifier that is only asked for labels the middle.
    distance : ndarray of shape (n_pairs,)
        Between inner and outer, in the extractor's norm; NaN where there is no pair.
    source, target : ndarray of shape (n_pairs,)
        Class labels.
    margin_inner, margin_outer : ndarray of shape (n_pairs,)
        Score of `source` minus score of `target`: positive at `inner`, negative at `outer`. NaN
        for a classifier that is only asked for labels.
    success : ndarray of shape (n_pairs,) of bool
        Status "ok". The others keep whatever point the search left them with.
    status : ndarray of shape (n_pairs,)
        "ok"; "collapsed": PM's penalty was too large for the slope there; "third_class": an end
        is predicted as neither class; "already_target": the start was; "not_found".
    n_evaluations : ndarray of shape (n_pairs,)
        Rows that the classifier ran for a pair, forward or backward, to predict, to search and to
        check; the training of "deepdig" is not counted.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import BoundarySampleExtractor
    >>> X, y = load_iris(return_X_y=True)
    >>> extractor = BoundarySampleExtractor(method="segment", random_state=0).fit(X, y)
    >>> pairs = extractor.extract(6)
    >>> X_border, y_border = pairs.to_dataset()
    >>> bool((extractor.estimator_.predict(X_border) == y_border).all())
    True
    """

    inner: NDArray[Any]
    outer: NDArray[Any]
    midpoint: NDArray[Any]
    distance: NDArray[Any]
    source: NDArray[Any]
    target: NDArray[Any]
    margin_inner: NDArray[Any]
    margin_outer: NDArray[Any]
    success: NDArray[np.bool_]
    status: NDArray[Any]
    n_evaluations: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.success)

    def to_dataset(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Collect the ends of the successful pairs.

        Returns
        -------
        X : ndarray of shape (2 * n_successful, ...)
            All inner points, then all outer points.
        y : ndarray of shape (2 * n_successful,)
            What they are predicted as.
        """
        ok = self.success
        X = np.concatenate([self.inner[ok], self.outer[ok]])
        return X, np.concatenate([self.source[ok], self.target[ok]])


class Ends(NamedTuple):
    """What a method found for each of n rows; a row without a find has both ends at its start."""

    inner: Tensor  # (n, ...)
    outer: Tensor  # (n, ...)
    n_evaluations: Tensor  # (n,)
    collapsed: Tensor | None = None  # (n,) bool
    target: Tensor | None = None  # (n,) classes that were sought; None are those of the problem
    found: Tensor | None = None  # (n,) bool: False is "not_found"; None leaves it to the labels


class Checked(NamedTuple):
    """Ends as they will be returned, and what the classifier says of them."""

    inner: Tensor
    outer: Tensor
    midpoint: Tensor
    target: Tensor  # (n,), known now also where any class would do
    margin_inner: Tensor
    margin_outer: Tensor
    status: Tensor  # (n,) positions in STATUSES
    n_evaluations: Tensor


def check_ends(
    oracle: Oracle,
    ends: Ends,
    source: Tensor,
    target: Tensor,
    dtype: torch.dtype,
    *,
    pairs: bool = True,
    box: tuple[Tensor, Tensor] | None = None,
) -> Checked:
    """Ask the classifier about ends rounded to the dtype of the result, and mark failures.

    Parameters
    ----------
    oracle : Oracle
    ends : Ends
    source, target : Tensor of shape (n,)
        Classes; -1 takes the class that the outer point turns out to have, or the strongest rival
        there where that is the source. Ends may name others.
    dtype : torch.dtype
        Of the rows that will be returned.
    pairs : bool, default=True
        False asks for the outer end alone: a third class may then lie on the way to it, and the
        midpoint is the middle.
    box : (low, high), default=None
        Bounds of the samples, in `dtype`, into which rounded points are put back.

    Returns
    -------
    checked : Checked
    """
    inner, outer = (_put_back(end.to(dtype), box) for end in (ends.inner, ends.outer))
    both = torch.cat([inner, outer]).to(oracle.dtype)
    labels, logits = oracle.inspect(both)
    at_inner, at_outer = labels.chunk(2)
    if ends.target is None:
        reached = torch.where(target < 0, at_outer, target)
        target = torch.where(reached == source, _rival(logits, source), reached)
    else:
        target = ends.target
    pair = torch.stack([source, target], 1)
    finite = torch.isfinite(both.flatten(1)).all(1).view(2, -1).all(0)
    ok = (at_outer == target) & (source != target) & finite
    third = ~(at_outer[:, None] == pair).any(1)
    if pairs:
        ok &= at_inner == source
        third |= ~(at_inner[:, None] == pair).any(1)
    status = torch.where(ok, OK, torch.where(third & finite, THIRD_CLASS, NOT_FOUND))
    if ends.collapsed is not None:
        status[ends.collapsed] = COLLAPSED
    if ends.found is not None:
        status[~ends.found] = NOT_FOUND
    n_evaluations = ends.n_evaluations + 2 * oracle.n_runs
    start, end = both.chunk(2)
    t = start.new_full(source.shape, 0.5)
    margins = torch.full_like(labels, torch.nan, dtype=oracle.dtype)
    if logits is not None:
        margins = lead(logits, source.repeat(2), target.repeat(2))
        if pairs:
            rows = (status == OK).nonzero()[:, 0]
            gaps = _gap(oracle.network.proba(logits), pair.repeat(2, 1)).chunk(2)
            root = _midpoint(oracle, *(v[rows] for v in (start, end, pair, *gaps)))
            t[rows] = root.t
            n_evaluations = n_evaluations.index_add(0, rows, root.n_evaluations)
    middle = _put_back((start + expand(t, start) * (end - start)).to(dtype), box)
    margin_inner, margin_outer = margins.chunk(2)
    return Checked(inner, outer, middle, target, margin_inner, margin_outer, status, n_evaluations)


def _rival(logits: Tensor | None, source: Tensor) -> Tensor:
    """The runner-up (n,) at the outer ends, by labels alone the first class but the source."""
    if logits is None:
        return (source == 0).long()
    return runner_up(logits.chunk(2)[1], source).label


def _put_back(points: Tensor, box: tuple[Tensor, Tensor] | None) -> Tensor:
    if box is None:
        return points
    return torch.minimum(torch.maximum(points, box[0]), box[1]).where(points.isfinite(), points)


def _gap(proba: Tensor, pair: Tensor) -> Tensor:
    """p_s - p_t (n,) of probabilities (n, n_classes)."""
    return -proba.gather(1, pair).diff(dim=1)[:, 0]


def _midpoint(
    oracle: Oracle,
    inner: Tensor,
    outer: Tensor,
    pair: Tensor,
    at_inner: Tensor,
    at_outer: Tensor,
) -> Root:
    """Find where between ends (m, ...), with known gaps, the classes of a pair are as probable."""

    def gap(t: Tensor, rows: Tensor) -> Tensor:
        points = inner[rows] + expand(t, inner) * (outer - inner)[rows]
        return _gap(oracle.network.proba(oracle.logits(points)), pair[rows])

    low = torch.zeros_like(at_inner)
    return find_root(gap, low, low + 1, at_inner, at_outer, tol=_EQUAL / 2, max_iter=MIDPOINT)


def expand(per_row: Tensor, like: Tensor) -> Tensor:
    """Give (n,) trailing axes of size 1, so that it goes with rows (n, ...)."""
    return per_row.reshape(-1, *[1] * (like.ndim - 1))


def norms(difference: Tensor, norm: Any) -> Tensor:
    """Norm (n,) of each row; "2sq" has the distances of 2."""
    order = 2 if norm == "2sq" else norm
    return torch.linalg.vector_norm(difference.flatten(1), ord=order, dim=1)
