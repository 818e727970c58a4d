"""Consistency of a network with `predict` and `predict_proba` of its classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._device import to_tensor
from skboundary.exceptions import ProbabilityOutputWarning, warn_caller
from skboundary.networks._protocol import Network

_PROBES = 64
_EQUAL = 1e-4  # probabilities that differ by less are equal
_TIE = 1e-6  # scores that differ by less, relative to the largest, are equal
_ROUNDINGS = 8  # the same for a coarse dtype, in units of its epsilon


def pick_probes(y: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """Select up to 64 of n samples: equally many of each class of y, or evenly spaced without y."""
    if n <= _PROBES:
        return np.arange(n)
    if y is None:
        return np.linspace(0, n - 1, _PROBES).astype(np.intp)
    codes, counts = np.unique(y, return_inverse=True, return_counts=True)[1:]
    # numpy sorts small integers by radix
    by_class = np.argsort(codes.astype(np.min_scalar_type(len(counts))), kind="stable")
    rank = np.arange(n) - np.repeat(counts.cumsum() - counts, counts)  # within its class
    early = np.flatnonzero(rank < _PROBES)
    return np.sort(by_class[early[np.argsort(rank[early], kind="stable")[:_PROBES]]])


def disagreeing(scores: Tensor, predicted: Tensor, eps: float) -> Tensor:
    """Find the samples for which another class has a higher score than the predicted one.

    Parameters
    ----------
    scores : Tensor of shape (n, n_classes)
    predicted : Tensor of shape (n,)
        Positions of the predicted classes.
    eps : float
        Machine epsilon of the scores, `Network.eps`.

    Returns
    -------
    disagree : Tensor of shape (n,) of bool
        False where the two scores are equal up to rounding.
    """
    lead = scores.amax(1) - scores.gather(1, predicted[:, None])[:, 0]
    return lead > _tie(scores, eps)


def check_agreement(
    network: Network, name: str, scores: Tensor, predicted: Any, proba: Any
) -> None:
    """Compare scores with `predict` and `predict_proba` of the classifier.

    Parameters
    ----------
    network : Network
    name : str
        Class of the classifier, for messages.
    scores : Tensor of shape (n, n_classes)
        Logits of the network for n samples.
    predicted : ndarray of shape (n,) or None
        Positions of the predicted classes.
    proba : ndarray of shape (n, n_classes) or None
        Columns follow `Network.classes_`.

    Raises
    ------
    ValueError
        If scores and labels disagree, or probabilities differ. The message gives the share of
        samples that agree, or the largest difference, and what to change.
    """
    if predicted is not None:
        wrong = disagreeing(scores, torch.from_numpy(predicted), network.eps)
        if wrong.any():
            n, agree = len(wrong), int((~wrong).sum())
            raise ValueError(
                f"predict of {name} returns the class with the largest score for {agree} of {n} "
                f"training samples ({agree / n:.0%}), but this estimator uses the scores. Put it "
                "inside the classifier that moves the threshold, not around it: "
                "FixedThresholdClassifier(LatentKNNClassifier(...)). An SVC needs "
                "decision_function_shape='ovr', break_ties=True and probability=False, a skorch "
                f"net threshold=0.5. CalibratedClassifierCV({name}(...)) agrees with its scores."
            )
    if proba is None:
        return
    ours = network.proba(scores)
    if proba.shape != ours.shape:
        gap = f"shape {proba.shape} instead of {tuple(ours.shape)}"
    else:
        difference = float((ours - to_tensor(proba)).abs().max())
        if difference <= max(_EQUAL, _tie(scores, network.eps)):
            return
        gap = f"values that differ by up to {difference:.2g} from those of its outputs"
    raise ValueError(
        f"predict_proba of {name} returns {gap}. It must return probabilities that sum to 1 over "
        "the classes; for a skorch net, see its parameter predict_nonlinearity."
    )


def warn_of_probabilities(network: Network, scores: Tensor, one: int) -> None:
    """Warn if outputs that are declared as logits look like probabilities.

    Parameters
    ----------
    network : Network
    scores : Tensor of shape (n, n_classes)
    one : int
        The column of the second output, or of the only one.
    """
    if network.ends_in_logits and look_like_probabilities(scores, one):
        warn_caller(
            "The network's outputs look like probabilities, and a softmax or sigmoid of "
            "probabilities is nearly uniform. Use FrozenNetwork(module, output='proba'), or "
            "predict_nonlinearity=None in a skorch net.",
            ProbabilityOutputWarning,
        )


def look_like_probabilities(scores: Tensor, one: int = 1) -> bool:
    """Whether scores are probabilities, or minus and plus the half of one of two."""
    if scores.shape[1] == 2 and bool((scores.sum(1) == 0).all()):
        output = 2 * scores[:, one]
        return bool(((output >= 0) & (output <= 1)).all())
    return bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-5).all())


def _tie(scores: Tensor, eps: float) -> float:
    return max(_TIE, _ROUNDINGS * eps) * float(scores.abs().max())
