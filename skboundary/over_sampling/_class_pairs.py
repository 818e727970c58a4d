"""Pairs of minority and majority classes, and how separable they are."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params
from torch import Tensor

from skboundary._callbacks import task
from skboundary.networks import Network

FOLDS = 3  # of the cross-validation behind pair_accuracy


def find_class_pairs(
    class_pairs: Any,
    minority_classes: list[Any],
    labels: list[Any],
    means: NDArray[Any] | None,
    counts: NDArray[np.intp],
) -> dict[Any, list[Any]]:
    """Find the majority classes of every minority class.

    Parameters
    ----------
    class_pairs : "nearest", "one-to-one" or mapping
        The parameter of the sampler.
    minority_classes : list
        Labels of the classes that get samples.
    labels : list
        Labels of all classes in y, sorted.
    means : ndarray of shape (n_classes, n_latent) or None
        Class means in the order of the labels; not needed for two classes.
    counts : ndarray of shape (n_classes,)
        Number of samples of each class.

    Returns
    -------
    majority_classes : dict
        From the label of each minority class to the labels of its majority classes.

    Raises
    ------
    ValueError
        For a class in `class_pairs` that is not in y, or that is paired with itself.
    """
    index = np.array([labels.index(label) for label in minority_classes], dtype=np.intp)
    distances = np.ones((len(index), len(labels))) if means is None else cdist(means[index], means)
    # a class is not its own partner, and smaller classes come after all larger ones
    far = 1 + distances.sum()
    distances[counts <= counts[index][:, None]] += far
    distances[np.arange(len(index)), index] = far * (len(labels) + 2)
    if isinstance(class_pairs, str) and class_pairs == "one-to-one":
        partners = linear_sum_assignment(distances)[1]
    else:
        partners = distances.argmin(1)
    found = {label: [labels[j]] for label, j in zip(minority_classes, partners, strict=True)}
    if isinstance(class_pairs, Mapping):
        given = _checked(class_pairs, labels)
        found.update({label: given[label] for label in minority_classes if label in given})
    return found


def _checked(class_pairs: Mapping[Any, Any], labels: list[Any]) -> dict[Any, list[Any]]:
    given = {}
    for minority, majority in class_pairs.items():
        partners = [*majority] if isinstance(majority, (list, tuple, np.ndarray)) else [majority]
        unknown = [label for label in (minority, *partners) if label not in labels]
        if unknown:
            raise ValueError(
                f"class_pairs names the class {unknown[0]!r}, which is not in y. The classes are "
                f"{labels[:10]}: change class_pairs."
            )
        if minority in partners or not partners:
            raise ValueError(
                f"class_pairs pairs the class {minority!r} with {partners}. Name at least one "
                "other class of y: change class_pairs."
            )
        given[minority] = partners
    return given


def out_of_fold_logits(
    as_network: Callable[..., tuple[Any, Network]],
    X: Any,
    y: NDArray[Any],
    seed: int,
    metadata: dict[str, Any],
) -> Tensor:
    """Compute cross-validated logits (n_samples, n_classes).

    Parameters
    ----------
    as_network : callable
        Fits the classifier: ``as_network(X, y, seed, metadata) -> (estimator_, network)``.
    X : array-like of shape (n_samples, ...)
    y : ndarray of shape (n_samples,)
    seed : int
    metadata : dict
        Further arguments of `fit`, such as `sample_weight`.

    Returns
    -------
    logits : Tensor of shape (n_samples, n_classes)
        Each sample's from a classifier that was not fitted on it, float64.
    """
    logits = torch.empty(len(y), len(np.unique(y)), dtype=torch.float64)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with task("cross-validate", FOLDS):
        for train, test in folds.split(np.zeros(len(y)), y):
            of_train = _check_method_params(X, metadata, train)
            with task("fold", 1):
                _, network = as_network(_safe_indexing(X, train), y[train], seed, of_train)
            logits[torch.from_numpy(test)] = network.logits(_safe_indexing(X, test)).double()
    return logits


def pair_accuracy(logits: Tensor, codes: Tensor, minority: int, majority: int) -> float:
    """Compute the balanced accuracy of the classifier on two classes, by their two logits.

    Parameters
    ----------
    logits : Tensor of shape (n_samples, n_classes)
    codes : Tensor of shape (n_samples,)
        True classes as columns of the logits.
    minority, majority : int
        Codes of the two classes.

    Returns
    -------
    accuracy : float
    """
    margins = logits[:, minority] - logits[:, majority]
    own_side = (margins[codes == minority] > 0, margins[codes == majority] < 0)
    return float(sum(side.double().mean() for side in own_side) / 2)
