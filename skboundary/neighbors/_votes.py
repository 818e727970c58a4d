"""How the neighbors of LatentKNNClassifier vote: what each contributes, and with which weight."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary.functional.latent_mixing import inverse_distances

Weights = str | Callable[[NDArray[np.float64]], Any]


class Vote(NamedTuple):
    """How the output of a sample is averaged with those of its neighbors."""

    query_weight: float
    average: str
    weights: Weights
    codes: NDArray[np.intp] | None  # classes of the training samples if they contribute labels


def resolve_vote(estimator: Any, codes: NDArray[np.intp] | None, **other: Any) -> Vote:
    """Read the vote from the parameters of an estimator.

    Parameters
    ----------
    estimator : LatentKNNClassifier
    codes : ndarray of shape (n_train,) or None
        Classes of the training samples, None where fit got no y.
    **other : object
        Values that replace those of `query_weight` and `average`.

    Returns
    -------
    vote : Vote

    Raises
    ------
    ValueError
        If ``contribute="labels"`` lacks labels, or is combined with logits.
    """
    names = ("query_weight", "average", "weights")
    params = {name: getattr(estimator, name) for name in names} | other
    if estimator.contribute == "outputs":
        return Vote(**params, codes=None)
    if codes is None:
        raise ValueError(
            "contribute='labels' needs the labels of the training samples: pass y to fit, or set "
            "contribute='outputs'."
        )
    if params["average"] != "proba":
        raise ValueError(
            f"contribute='labels' averages labels with probabilities, and average="
            f"{params['average']!r} are not on their scale. Set average='proba', or "
            "contribute='outputs'."
        )
    return Vote(**params, codes=codes)


def neighbor_weights(distances: NDArray[Any], weights: Weights) -> Tensor | None:
    """Weigh the neighbors of samples by their distances.

    Parameters
    ----------
    distances : ndarray of shape (n, k)
    weights : {"uniform", "distance"} or callable
        A callable gets the distances in float64, so that ``exp(-d)`` keeps its digits.

    Returns
    -------
    weights : Tensor of shape (n, k) or None
        Float64, with the sum 1. None for equal weights.

    Raises
    ------
    ValueError
        For distances below 0 with "distance", and for weights of a callable that are not of the
        shape of the distances, not finite, below 0, or all 0 for a sample.
    """
    if weights == "uniform":
        return None
    distances = distances.astype(np.float64)
    if weights == "distance":
        if distances.min(initial=0) < 0:
            raise ValueError(
                f"weights='distance' divides by distances, but the search returned "
                f"{distances.min():.4g}. Set weights to a callable."
            )
        return _shares(inverse_distances(torch.from_numpy(distances)))
    assert callable(weights)
    given = np.asarray(weights(distances.copy()))  # it may work in place
    if given.shape != distances.shape or given.dtype.kind not in "buif":
        raise ValueError(
            f"weights: {weights!r} returned {given.dtype} of shape {given.shape} for distances of "
            f"shape {distances.shape}; it must return one number for each."
        )
    given = given.astype(np.float64)
    valid = np.isfinite(given).all(1) & (given >= 0).all(1) & (given > 0).any(1)
    if not valid.all():
        sample = int(np.flatnonzero(~valid)[0])
        raise ValueError(
            f"weights: {weights!r} returned {given[sample][:5].tolist()} for the distances "
            f"{distances[sample][:5].tolist()}; weights must be finite, at least 0, and not all "
            "0. Only their ratios count: subtract the smallest distance of each sample before an "
            "exponential."
        )
    return _shares(torch.from_numpy(given))


def _shares(weights: Tensor) -> Tensor:
    """Divide weights by their sum; by their maximum first, as the sum may overflow."""
    shares = weights / weights.amax(1, keepdim=True)
    return shares / shares.sum(1, keepdim=True)
