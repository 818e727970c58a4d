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
        Points that are not predicted as the source; x itself for samples without success.
    target : Tensor of shape (n,)
        The class predicted at the points. Query-based searches do not determine it; they return
        the given target, or -1 if the target is any class but the source.
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
        Points before the boundary; x itself for samples without success.
    """

    points: Tensor
    target: Tensor
    success: Tensor
    n_forward: Tensor
    n_backward: Tensor
    inner: Tensor
