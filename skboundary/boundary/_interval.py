"""Distances to the boundary from both sides: certified lower bounds beside those of points."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import to_numpy, to_tensor
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._inputs import floating
from skboundary.exceptions import NoLowerBoundWarning, warn_caller
from skboundary.functional.certified_distance import certified_distance
from skboundary.networks._relu_chain import Layer, NotAChainError, relu_chain


def lower_bounds(
    classifier: FittedClassifier,
    X: Any,
    source: NDArray[np.intp],
    target: NDArray[np.intp],
) -> NDArray[Any]:
    """Certified lower bounds (n,) of the distances of samples (n, ...) to the boundary.

    They are computed in float64 and rounded down to the dtype of points. NaN, with a warning that
    gives the reason, where the classifier is no chain of linear layers and ReLU; and for samples
    whose source is their target. Targets are all -1, any class but the source, or all classes.
    """
    bounds: NDArray[Any] = np.full(len(X), np.nan, floating(X))
    device = classifier.network.device
    device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    try:
        layers = relu_chain(classifier.network, X.shape[1:], device)
    except NotAChainError as reason:
        warn_caller(
            f"There is no certified lower bound of the distances: {reason}. The first column is "
            "NaN.",
            NoLowerBoundWarning,
        )
        return bounds
    index = (source != target).nonzero()[0]

    def step(batch: slice) -> NDArray[Any]:
        part = index[batch]
        x = to_tensor(X[part], device=device, dtype=torch.float64).flatten(1)
        own, wanted = (to_tensor(codes[part], device=device) for codes in (source, target))
        some = wanted if (target >= 0).all() else None
        return to_numpy(certified_distance(layers, x, own, target=some))

    size = resolve_batch_size(classifier.batch_size, _sample_bytes(layers), device)
    found = [*map_batches(step, len(index), size)]
    bounds[index] = _round_down(np.concatenate([np.empty(0), *found]), bounds.dtype)
    return bounds


def _sample_bytes(layers: Sequence[Layer]) -> int:
    """Memory of the slopes of all bounds of the widest layer, in float64."""
    widths = [weight.shape[1] for weight, _ in layers]
    rows = [2 * w for w in widths[1:]] + [len(layers[-1][1])]
    return 8 * max(r * max(widths[: k + 1]) for k, r in enumerate(rows))


def _round_down(values: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    rounded = values.astype(dtype)
    return np.where(rounded > values, np.nextafter(rounded, dtype.type(0)), rounded)
