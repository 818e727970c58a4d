"""Encoded labels: positions among the classes of a trained network, detected in fit."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary.exceptions import EncodedLabelsWarning, warn_caller


def resolve_labels(
    y: NDArray[Any] | None, classes: NDArray[Any], *, strict: bool = True
) -> tuple[NDArray[Any], NDArray[np.intp] | None]:
    """Decide in fit whether y contains labels or positions among the classes of a network.

    Positions are integers from 0 to n_classes - 1 that are not all classes themselves:
    `VotingClassifier`, `StackingClassifier` and `cross_val_predict` pass such encoded labels to
    the classifiers inside them. An estimator that was fitted with positions predicts positions,
    so it stores the first result as its `classes_`, uses it for all class labels, and looks up
    later labels in it with `encode_labels`.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or None
    classes : ndarray of shape (n_classes,)
        Sorted, `Network.classes_`.
    strict : bool, default=True
        Whether an unknown label raises an error.

    Returns
    -------
    classes_ : ndarray of shape (n_classes,)
        `classes`, or ``np.arange(n_classes)`` if y contains positions.
    codes : ndarray of shape (n_samples,) or None
        The position of each label, -1 for an unknown one; None without y.

    Raises
    ------
    ValueError
        For an unknown label; the message names it, the classes, and the parameter to change.
    """
    if y is None:
        return classes, None
    codes = look_up(y, classes)
    unknown = y[codes < 0]
    if not len(unknown):
        return classes, codes
    if y.dtype.kind in "iu" and y.min() >= 0 and y.max() < len(classes):
        warn_caller(
            f"y holds {unknown[0].item()!r}, which is not one of the classes "
            f"{classes[:10].tolist()}. Its integers are interpreted as positions among them: "
            f"{y[0].item()!r} stands for {classes.tolist()[y[0]]!r}. Predictions will be positions "
            "as well. Pass labels to fit to predict labels.",
            EncodedLabelsWarning,
        )
        return np.arange(len(classes)), y.astype(np.intp)
    if not strict:
        return classes, codes
    raise ValueError(
        f"{_unknown(unknown, classes)} Name the outputs of a network with "
        "FrozenNetwork(module, classes=...), or give an estimator that was trained on all "
        "classes of y."
    )


def encode_labels(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Find each label among the `classes_` of a fitted estimator.

    Numbers and Booleans compare as in Python: True equals the label 1.

    Raises
    ------
    ValueError
        For an unknown label; the message names it and the classes.
    """
    codes = look_up(y, classes)
    if (codes < 0).any():
        raise ValueError(_unknown(y[codes < 0], classes))
    return codes


def look_up(y: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.intp]:
    """Find the position of each label among the classes, -1 where it is unknown."""
    position = {label: i for i, label in enumerate(classes.tolist())}
    if y.dtype == object:  # whose labels may not be comparable
        return np.array([position.get(label, -1) for label in y.tolist()], dtype=np.intp)
    # not searchsorted, which compares "1" with 1 as strings
    labels, codes = np.unique(y, return_inverse=True)
    return np.array([position.get(label, -1) for label in labels.tolist()], dtype=np.intp)[codes]


def _unknown(labels: NDArray[Any], classes: NDArray[Any]) -> str:
    return (
        f"y holds {labels[:1].tolist()[0]!r}, which is not one of the {len(classes)} classes "
        f"{classes[:10].tolist()}."
    )
