"""Which classes a small class grows toward, and how well the two are told apart."""

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
from torch import Tensor

from skboundary.networks import Network

FOLDS = 3  # of the cross-validation behind pair_accuracy


def find_class_pairs(
    class_pairs: Any,
    minors: list[Any],
    labels: list[Any],
    means: NDArray[Any] | None,
    counts: NDArray[np.intp],
) -> dict[Any, list[Any]]:
    """Find the majors of every minor.

    Parameters
    ----------
    class_pairs : "nearest", "one-to-one" or mapping
        The sampler's parameter.
    minors : list
        Labels of the classes that get samples.
    labels : list
        Labels of all classes in y, sorted.
    means : ndarray of shape (n_classes, n_latent) or None
        Of the classes, in the order of the labels; not needed for two classes.
    counts : ndarray of shape (n_classes,)

    Returns
    -------
    majors : dict
        From the label of each minor to the labels of its majors.

    Raises
    ------
    ValueError
        For a class in `class_pairs` that y does not have, or one paired with itself.
    """
    rows = np.array([labels.index(minor) for minor in minors], dtype=np.intp)
    distances = np.ones((len(rows), len(labels))) if means is None else cdist(means[rows], means)
    # a class is no partner of its own, and smaller ones come after all larger ones
    far = 1 + distances.sum()
    distances[counts <= counts[rows][:, None]] += far
    distances[np.arange(len(rows)), rows] = far * (len(labels) + 2)
    if isinstance(class_pairs, str) and class_pairs == "one-to-one":
        partners = linear_sum_assignment(distances)[1]
    else:
        partners = distances.argmin(1)
    found = {minor: [labels[j]] for minor, j in zip(minors, partners, strict=True)}
    if isinstance(class_pairs, Mapping):
        given = _checked(class_pairs, labels)
        found.update({minor: given[minor] for minor in minors if minor in given})
    return found


def _checked(class_pairs: Mapping[Any, Any], labels: list[Any]) -> dict[Any, list[Any]]:
    given = {}
    for minor, majors in class_pairs.items():
        majors = list(majors) if isinstance(majors, (list, tuple, np.ndarray)) else [majors]
        unknown = [label for label in (minor, *majors) if label not in labels]
        if unknown:
            raise ValueError(
                f"class_pairs names the class {unknown[0]!r}, which is not in y. The classes are "
                f"{labels[:10]}: change class_pairs."
            )
        if minor in majors or not majors:
            raise ValueError(
                f"class_pairs pairs the class {minor!r} with {majors}. Name other classes of y, "
                "at least one: change class_pairs."
            )
        given[minor] = majors
    return given


def out_of_fold_logits(
    as_network: Callable[..., tuple[Any, Network]], X: Any, y: NDArray[Any], seed: int
) -> Tensor:
    """Compute logits (n_samples, n_classes) of rows that the classifier was not fitted on."""
    logits = torch.empty(len(y), len(np.unique(y)), dtype=torch.float64)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(np.zeros(len(y)), y):
        _, network = as_network(_safe_indexing(X, train), y[train], seed)
        logits[torch.from_numpy(test)] = network.logits(_safe_indexing(X, test)).double()
    return logits


def pair_accuracy(logits: Tensor, codes: Tensor, minor: int, major: int) -> float:
    """Share of either class that has the larger logit of the two, averaged."""
    margins = logits[:, minor] - logits[:, major]
    own_side = (margins[codes == minor] > 0, margins[codes == major] < 0)
    return float(sum(side.double().mean() for side in own_side) / 2)
