"""Measures of the rounds of BiasedExtrapolationClassifier: recall, precision, cost."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from skboundary._device import to_numpy
from skboundary.networks._agreement import disagreeing
from skboundary.networks._estimator_network import EstimatorNetwork
from skboundary.networks._labels import encode_labels


class LatentData(NamedTuple):
    """Latent vectors (n, n_latent) and labels (n,)."""

    Z: NDArray[Any]
    y: NDArray[Any]

    def joined(self, other: LatentData) -> LatentData:
        """Concatenate two sets of samples."""
        return LatentData(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


def describe_round(entry: dict[str, Any], n_iter: int) -> str:
    """Describe an entry of `history_` in one line."""

    def by_class(values: dict[Any, Any], form: str) -> str:
        return ", ".join(f"{value:{form}} of class {c}" for c, value in values.items())

    added = {c: n for c, n in entry["n_added"].items() if n}
    what = f"added {by_class(added, 'd')}" if added else "added no samples"
    return (
        f"Round {entry['round']} of at most {n_iter} {what}: {entry['n_samples']} samples. "
        f"Training recall is {by_class(entry['recall'], '.3f')}, after {entry['seconds']:.1f} s."
    )


def measure_head(head: Any, train: LatentData, held_out: LatentData) -> dict[str, Any]:
    """Measure a fitted head on training and on held-out samples, by class."""
    return {
        "recall": recall_by_class(head, train),
        "validation_recall": recall_by_class(head, held_out),
        "validation_pr_auc": pr_auc_by_class(head, held_out),
    }


def recall_by_class(head: Any, data: LatentData) -> dict[Any, float]:
    """Compute the recall of each class that has samples."""
    correct = head.predict(data.Z) == data.y if len(data.y) else data.y
    return {c: float(correct[data.y == c].mean()) for c in np.unique(data.y).tolist()}


def pr_auc_by_class(head: Any, data: LatentData) -> dict[Any, float]:
    """Compute the average precision of each class against all others."""
    present = np.unique(data.y)
    if len(present) < 2:
        return {}
    columns = class_scores(head, data.Z, present).T
    return {
        c: float(average_precision_score(data.y == c, column))
        for c, column in zip(present.tolist(), columns, strict=True)
    }


def class_scores(head: Any, Z: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Compute the head's score of each class: log-probabilities or decision values.

    Parameters
    ----------
    head : classifier
        Fitted.
    Z : ndarray of shape (n, n_latent)
    classes : ndarray of shape (n_classes,)
        Some classes of the head.

    Returns
    -------
    scores : ndarray of shape (n, n_classes)

    Raises
    ------
    ValueError
        When the scores belong to pairs of classes.
    """
    cpu = torch.device("cpu")
    network = EstimatorNetwork(head, device=cpu, dtype=torch.float64, batch_size=len(Z))
    found = network.logits(Z)
    if len(head.classes_) > 2:  # a threshold between two classes may be moved
        predicted = torch.from_numpy(encode_labels(head.predict(Z), network.classes_))
        share = disagreeing(found, predicted, network.eps).double().mean()
        if share > 0.5:
            raise ValueError(
                f"predict of {type(head).__name__} returns the class with the largest score for "
                f"{1 - share:.0%} of the samples only. Scores of pairs of classes are not "
                "supported: set decision_function_shape='ovr'."
            )
    return to_numpy(found)[:, np.searchsorted(network.classes_, classes)]


def full_cost(
    n_samples: int,
    remaining: dict[Any, int],
    step: dict[Any, int],
    n_iter: int,
    epochs: int,
) -> int:
    """Compute the cost of `n_iter` rounds in which every class grows.

    Parameters
    ----------
    n_samples : int
        Number of original samples.
    remaining : dict
        From class to the number of samples that it may get in total.
    step : dict
        From class to the number of samples that it gets in a round.
    n_iter, epochs : int
        Number of rounds, and of epochs in a round.

    Returns
    -------
    cost : int
        Samples times epochs.
    """
    rounds = np.arange(1, n_iter + 1)
    none = np.zeros(n_iter, dtype=int)
    added = sum((np.minimum(rounds * step[c], remaining[c]) for c in remaining), none)
    return int(epochs * (n_samples + added).sum())
