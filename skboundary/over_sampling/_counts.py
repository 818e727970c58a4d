"""Counts of the sampler: samples that a class needs, and parents that it provides."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary.exceptions import FewParentsWarning, warn_caller
from skboundary.over_sampling._class_pairs import FOLDS
from skboundary.over_sampling._placement import Rules


def check_counts(
    counts: dict[Any, int], growing: dict[Any, int], neighbors: Any, rules: Rules, *, trained: bool
) -> None:
    """Refuse classes with too few samples for the parameters of the sampler.

    Parameters
    ----------
    counts : dict
        From class to its number of samples.
    growing : dict
        The classes that get samples.
    neighbors : int or object
        The parameter of the sampler, for the message.
    rules : Rules
    trained : bool
        Whether the classifier is not fitted here, so that nothing is cross-validated.

    Raises
    ------
    ValueError
        Names the class, its number of samples, and the parameter to change.
    """
    specific = rules.settings.class_specific
    for label, count in counts.items():
        grows = label in growing
        for least, name, value, applies in (
            (rules.n_neighbors, "neighbors", neighbors, rules.instance_pairing == "nearest"),
            (2, "within_class", rules.within_class, rules.within_class > 0),
        ):
            _check(label, count, least, name, value, grows and applies)
        _check(label, count, FOLDS, "class_specific", specific, not trained and specific)


def _check(label: Any, count: int, least: int, name: str, value: Any, applies: Any) -> None:
    if applies and count < least:
        raise ValueError(
            f"The class {label!r} has {count} samples, but {name}={value!r} needs at least "
            f"{least}. Change {name}, or leave the class out."
        )


def count_parents(
    parents: NDArray[np.intp], y: NDArray[Any], growing: list[Any], codes: NDArray[np.intp]
) -> dict[Any, int]:
    """Count the parents of samples placed toward other classes; warn where they are few.

    Parameters
    ----------
    parents : ndarray of shape (n_new, 2)
    y : ndarray of shape (n_samples,)
    growing : list
        Labels of the classes that got samples.
    codes : ndarray of shape (n_samples,)
        Codes of y.

    Returns
    -------
    n_parents : dict
        From class to the number of its samples that are first parents.
    """
    first, second = parents.T
    across = first[codes[first] != codes[second]]
    n_parents = {}
    for label in growing:
        members, placed = np.flatnonzero(y == label), across[y[across] == label]
        n = n_parents[label] = len(np.unique(placed))
        if len(placed) >= len(members) > 3 * n:
            warn_caller(
                f"{n} of the {len(members)} samples of class {label!r} are the parents of "
                f"{len(placed)} new samples: the others are on the wrong side of the "
                "boundary, or were not paired. Use an estimator that recognizes "
                "more of them (class_weight='balanced'), use instance_pairing='one-to-one', "
                "or raise within_class.",
                FewParentsWarning,
            )
    return n_parents
