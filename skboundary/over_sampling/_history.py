"""What the rounds of BiasedExtrapolationClassifier are measured by."""

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


class Rows(NamedTuple):
    """Latent vectors (n, n_latent) and labels (n,)."""

    Z: NDArray[Any]
    y: NDArray[Any]


def sentence(entry: dict[str, Any], n_iter: int) -> str:
    """Tell what a round did, in a line."""

    def by_class(values: dict[Any, Any], form: str) -> str:
        return ", ".join(f"{value:{form}} of class {c}" for c, value in values.items())

    added = {c: n for c, n in entry["n_added"].items() if n}
    what = f"added {by_class(added, 'd')}" if added else "added no samples"
    return (
        f"Round {entry['round']} of at most {n_iter} {what}: {entry['n_samples']} samples. "
        f"Training recall is {by_class(entry['recall'], '.3f')}, after {entry['seconds']:.1f} s."
    )


def recall(head: Any, rows: Rows) -> dict[Any, float]:
    """By class, the share of its rows that are recognized."""
    hit = head.predict(rows.Z) == rows.y if len(rows.y) else rows.y
    return {c: float(hit[rows.y == c].mean()) for c in np.unique(rows.y).tolist()}


def pr_auc(head: Any, rows: Rows) -> dict[Any, float]:
    """By class, the average precision of its score against all other classes."""
    present = np.unique(rows.y)
    if len(present) < 2:
        return {}
    columns = scores(head, rows.Z, present).T
    return {
        c: float(average_precision_score(rows.y == c, column))
        for c, column in zip(present.tolist(), columns, strict=True)
    }


def scores(head: Any, Z: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """What the head says of each class (n, n_classes): log-probabilities or decision values.

    Raises
    ------
    ValueError
        For scores that belong to pairs of classes.
    """
    cpu = torch.device("cpu")
    network = EstimatorNetwork(head, device=cpu, dtype=torch.float64, batch_size=len(Z))
    found = network.logits(Z)
    if len(head.classes_) > 2:  # a threshold may be moved between two
        predicted = torch.from_numpy(encode_labels(head.predict(Z), network.classes_))
        share = disagreeing(found, predicted, network.eps).double().mean()
        if share > 0.5:
            raise ValueError(
                f"predict of {type(head).__name__} names the class with the largest score for "
                f"{1 - share:.0%} of the samples. Scores of pairs of classes are none of classes: "
                "set decision_function_shape='ovr'."
            )
    return to_numpy(found)[:, np.searchsorted(network.classes_, classes)]


def full_cost(
    n_rows: int, room: dict[Any, int], step: dict[Any, int], n_iter: int, epochs: int
) -> int:
    """What `n_iter` rounds for every class would cost."""
    rounds = np.arange(1, n_iter + 1)
    added = sum((np.minimum(rounds * step[c], room[c]) for c in room), np.zeros(n_iter, dtype=int))
    return int(epochs * (n_rows + added).sum())
