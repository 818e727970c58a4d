"""What every boundary search returns: points, and what finding them took."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BoundaryPoint(NamedTuple):
    """Points just beyond a decision boundary, one for each sample.

    Attributes
    ----------
    points : Tensor of shape (n, ...)
        Points that are not predicted as the source; x itself where there is no success.
    target : Tensor of shape (n,)
        The class predicted at the points. Query-based searches, which need not learn it, give the
        class that was wanted, or -1 where any class but the source was.
    success : Tensor of shape (n,), dtype bool
    n_forward : Tensor of shape (n,), dtype int64
        Points at which the classifier was evaluated for each sample.
    n_backward : Tensor of shape (n,), dtype int64
        Gradients that were taken for each sample.
    """

    points: Tensor
    target: Tensor
    success: Tensor
    n_forward: Tensor
    n_backward: Tensor


class BoundaryPair(NamedTuple):
    """Points on both sides of a decision boundary, one pair for each sample.

    Attributes
    ----------
    points, target, success, n_forward, n_backward : Tensor
        As in `BoundaryPoint`.
    inner : Tensor of shape (n, ...)
        Points before the boundary; x itself where there is no success.
    """

    points: Tensor
    target: Tensor
    success: Tensor
    n_forward: Tensor
    n_backward: Tensor
    inner: Tensor
