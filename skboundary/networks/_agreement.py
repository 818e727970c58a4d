"""Whether a network says what `predict` and `predict_proba` of its classifier say."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary.exceptions import ProbabilityOutputWarning, warn_caller
from skboundary.networks._protocol import Network

_PROBES = 64
_EQUAL = 1e-4  # probabilities that differ by less are equal
_TIE = 1e-6  # scores that differ by less, as a share of the largest, are equal
_ROUNDINGS = 8  # the same in a coarse dtype, in units of its epsilon


def pick_probes(y: NDArray[Any] | None, n: int) -> NDArray[np.intp]:
    """Choose up to 64 of n samples: as many of each class of y, or spread evenly without y."""
    if n <= _PROBES:
        return np.arange(n)
    if y is None:
        return np.linspace(0, n - 1, _PROBES).astype(np.intp)
    codes, counts = np.unique(y, return_inverse=True, return_counts=True)[1:]
    by_class = np.argsort(codes, kind="stable")
    turn = np.arange(n) - np.repeat(counts.cumsum() - counts, counts)  # 0: first of its class
    return np.sort(by_class[np.argsort(turn, kind="stable")[:_PROBES]])


def disagreeing(scores: Tensor, predicted: Tensor, eps: float) -> Tensor:
    """Find the samples whose scores put another class above the predicted one.

    Parameters
    ----------
    scores : Tensor of shape (n, n_classes)
    predicted : Tensor of shape (n,)
        Positions of the classes that `predict` names.
    eps : float
        Machine epsilon of the scores, `Network.eps`.

    Returns
    -------
    disagree : Tensor of shape (n,) of bool
        False where the two scores are equal but for rounding.
    """
    lead = scores.amax(1) - scores.gather(1, predicted[:, None])[:, 0]
    return lead > _tie(scores, eps)


def check_agreement(
    network: Network, name: str, scores: Tensor, predicted: Any, proba: Any
) -> None:
    """Compare scores with what `predict` and `predict_proba` of the classifier say.

    Parameters
    ----------
    network : Network
    name : str
        Class of the classifier, for messages.
    scores : Tensor of shape (n, n_classes)
        Logits that the network gives for n samples.
    predicted : ndarray of shape (n,) or None
        Positions of the predicted classes.
    proba : ndarray of shape (n, n_classes) or None
        Columns follow `Network.classes_`.

    Raises
    ------
    ValueError
        That names the share of samples on which scores and labels agree, or the largest
        difference between probabilities, and what to change.
    """
    if predicted is not None:
        wrong = disagreeing(scores, torch.from_numpy(predicted), network.eps)
        if wrong.any():
            n, agree = len(wrong), int((~wrong).sum())
            raise ValueError(
                f"predict of {name} names the class with the largest score for {agree} of {n} "
                f"training samples ({agree / n:.0%}), and the scores are what is used here. Put "
                "this estimator inside the classifier that moves the threshold, not around it: "
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
        difference = float((ours - torch.from_numpy(proba)).abs().max())
        if difference <= max(_EQUAL, _tie(scores, network.eps)):
            return
        gap = f"values up to {difference:.2g} away from those that follow from its outputs"
    raise ValueError(
        f"predict_proba of {name} gives {gap}. It must give probabilities that sum to 1 over the "
        "classes: for a skorch net see its parameter predict_nonlinearity."
    )


def warn_of_probabilities(network: Network, scores: Tensor, one: int) -> None:
    """Warn where outputs that are declared as logits look like probabilities.

    Parameters
    ----------
    network : Network
    scores : Tensor of shape (n, n_classes)
    one : int
        The column that belongs to the second output, or to the only one.
    """
    if not network.ends_in_logits:
        return
    if scores.shape[1] == 2 and bool((scores.sum(1) == 0).all()):  # minus and plus the half
        output = 2 * scores[:, one]
        found = bool(((output >= 0) & (output <= 1)).all())
    else:
        found = bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-5).all())
    if found:
        warn_caller(
            "The network's outputs look like probabilities, and softmax or sigmoid of "
            "probabilities flattens them. Use FrozenNetwork(module, output='proba'), or "
            "predict_nonlinearity=None in a skorch net.",
            ProbabilityOutputWarning,
        )


def _tie(scores: Tensor, eps: float) -> float:
    return max(_TIE, _ROUNDINGS * eps) * float(scores.abs().max())
