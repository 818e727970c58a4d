"""Rounds of BiasedExtrapolationClassifier: how many each class gets, and their samples."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from imblearn.utils import check_sampling_strategy
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from skboundary._device import to_numpy, to_tensor
from skboundary.functional.latent_mixing import class_means
from skboundary.over_sampling._class_pairs import find_class_pairs, pair_accuracy
from skboundary.over_sampling._head import seeded
from skboundary.over_sampling._history import LatentData, class_scores
from skboundary.over_sampling._sampler import BiasedExtrapolationSampler
from skboundary.over_sampling._settings import resolve_settings

MAX_SEED = 2**31 - 1


def new_sampler(sampler: Any, **params: Any) -> Any:
    """Clone the sampler; None is a `BiasedExtrapolationSampler` with these parameters.

    Raises
    ------
    TypeError
        For one that is not an over-sampler.
    """
    if sampler == "passthrough":
        return sampler
    if sampler is None:
        return BiasedExtrapolationSampler(**params)
    if getattr(sampler, "_sampling_type", None) != "over-sampling":
        raise TypeError(
            f"sampler={type(sampler).__name__} is not an over-sampler; only samples can "
            "be added. Use one of imblearn.over_sampling, or 'passthrough'."
        )
    return clone(sampler)


def stratified_split(
    y: NDArray[Any], fraction: float, random: np.random.RandomState
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split samples into training and held-out samples, a share of each class.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
    fraction : float in [0, 1)
        Share of each class that is held out, rounded down.
    random : RandomState

    Returns
    -------
    train, held_out : ndarray
        Indices, ascending.
    """
    held_out = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        members = random.permutation(np.flatnonzero(y == label))
        held_out[members[: int(fraction * len(members))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def remaining_samples(sampler: Any, y: NDArray[Any]) -> dict[Any, int]:
    """Return the number of samples that the sampler may add to each minority class."""
    strategy = "auto" if sampler == "passthrough" else sampler.sampling_strategy
    counts = check_sampling_strategy(strategy, y, "over-sampling")
    return {np.asarray(c).item(): int(n) for c, n in counts.items() if n > 0}


def plan_rounds(
    sampler: Any,
    head: Any,
    train: LatentData,
    held_out: LatentData,
    growing: list[Any],
    n_iter: int,
    validation_fraction: float,
) -> tuple[dict[Any, int], dict[Any, float] | None]:
    """Plan the number of rounds of each minority class, by Algorithms 1 and 2 of the paper.

    Parameters
    ----------
    sampler : over-sampler or "passthrough"
    head : classifier
        Fitted to `train`.
    train, held_out : LatentData
        The classes are paired on `train`, and the pairs are judged on `held_out`.
    growing : list
        Labels of the minority classes.
    n_iter : int
        Maximum number of rounds.
    validation_fraction : float
        The parameter of the classifier, for the message.

    Returns
    -------
    n_rounds : dict
        From class to its number of rounds.
    accuracy : dict or None
        From a pair of classes to its balanced accuracy; None without `class_specific`.

    Raises
    ------
    ValueError
        When a class of a pair has no held-out sample.
    """
    ours = isinstance(sampler, BiasedExtrapolationSampler)
    settings = resolve_settings(sampler.settings if ours else None)
    kind = settings.class_specific
    if kind is None:
        return dict.fromkeys(growing, n_iter), None
    present, codes = np.unique(train.y, return_inverse=True)
    labels = present.tolist()
    means = to_numpy(class_means(to_tensor(train.Z), to_tensor(codes), len(labels)))
    partners = find_class_pairs(sampler.class_pairs, growing, labels, means, np.bincount(codes))
    pairs = [(minority, majority) for minority in partners for majority in partners[minority]]
    for label in sorted({label for pair in pairs for label in pair}):
        if label not in held_out.y:
            raise ValueError(
                f"class_specific={kind!r} evaluates pairs of classes on held-out samples, and "
                f"class {label!s} has none with validation_fraction={validation_fraction}. "
                "Raise it, or use class_specific=None."
            )
    logits = torch.from_numpy(class_scores(head, held_out.Z, present))
    held_codes = torch.from_numpy(np.searchsorted(present, held_out.y))
    accuracy = {pair: pair_accuracy(logits, held_codes, *map(labels.index, pair)) for pair in pairs}
    worst = {c: min(a for pair, a in accuracy.items() if pair[0] == c) for c in growing}
    if kind == "threshold":
        return {c: n_iter * (a <= settings.tau) for c, a in worst.items()}, accuracy
    return {c: round(n_iter * min(1, 2 * (1 - a))) for c, a in worst.items()}, accuracy


def growing_classes(
    n_rounds: dict[Any, int], done: int, recall: dict[Any, float], stopping: str | None
) -> list[Any]:
    """Return the minority classes that get samples in the next round.

    Parameters
    ----------
    n_rounds : dict
        From minority class to its number of rounds.
    done : int
        Number of rounds so far.
    recall : dict
        From class to its present recall.
    stopping : {"recall"} or None
        Whether classes with the mean recall of the majority classes are left out, after round 0.

    Returns
    -------
    growing : list
    """
    growing = [c for c, n in n_rounds.items() if n > done]
    if stopping is None or done == 0:
        return growing
    majority = [r for c, r in recall.items() if c not in n_rounds] or [1.0]
    return [c for c in growing if recall[c] < np.mean(majority)]


def draw_samples(
    sampler: Any,
    boundary: Any,
    train: LatentData,
    wanted: dict[Any, int],
    random: np.random.RandomState,
) -> tuple[Any, LatentData]:
    """Draw the samples of one round, whose parents are the original samples.

    Parameters
    ----------
    sampler : over-sampler
        Cloned.
    boundary : classifier
        The present head, for a `BiasedExtrapolationSampler` without an estimator.
    train : LatentData
        The original samples.
    wanted : dict
        From class to the number of its new samples.
    random : RandomState

    Returns
    -------
    sampler : over-sampler
        The fitted clone.
    new : LatentData
    """
    sampler = seeded(clone(sampler), random.randint(MAX_SEED))
    totals = {c: n + int((train.y == c).sum()) for c, n in wanted.items()}
    sampler.set_params(sampling_strategy=totals)
    if isinstance(sampler, BiasedExtrapolationSampler):
        if sampler.settings is not None:  # the number of rounds depends on the pair already
            sampler.set_params(settings__class_specific=None)
        if sampler.estimator is None:
            sampler.set_params(estimator=FrozenEstimator(boundary))
    # in a new order each time: the first minority samples must not always be the same
    order = random.permutation(len(train.y))
    Z, y = sampler.fit_resample(train.Z[order], train.y[order])
    return sampler, LatentData(Z[len(order) :].astype(train.Z.dtype), y[len(order) :])
