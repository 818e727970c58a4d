"""Starting points and class pairs of `BoundarySampleExtractor.extract`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._inputs import floating, label_code
from skboundary.boundary._training_samples import Starts, TrainingSamples, finite_bounds

Drawn = tuple[Starts, NDArray[np.intp], NDArray[np.intp]]


def check_drawing(
    n_pairs: int, source: Any, target: Any, init: Any, classes: NDArray[Any]
) -> tuple[int | None, int | None]:
    """Check the arguments of `extract`; the positions of source and target among the classes.

    Raises
    ------
    ValueError
        With the argument.
    """
    if not isinstance(n_pairs, Integral) or n_pairs < 1:
        raise ValueError(f"n_pairs={n_pairs!r}: use an integer of at least 1.")
    if isinstance(init, str) and init not in ("data", "random", "nearest"):
        raise ValueError(f"init={init!r}: use 'data', 'random', 'nearest' or an array of samples.")
    s, t = (
        None if label is None else label_code(label, classes, name)
        for label, name in ((source, "source"), (target, "target"))
    )
    if s is not None and s == t:
        raise ValueError(f"source and target are both {source!r}. Use two different classes.")
    return s, t


def draw_pairs(
    classifier: FittedClassifier, n: int, source: int | None, target: int | None
) -> Drawn:
    """Draw n training samples to start from, with their classes and those to reach."""
    training = classifier.training
    classes = np.unique(training.codes[training.usable])
    sources, targets = class_cycle(n, source, target, classes, classifier.classes)
    rng = np.random.default_rng(classifier.seed)
    return training.starts(draw_samples(training, sources, rng)), sources, targets


def draw_noise_pairs(
    classifier: FittedClassifier,
    n: int,
    source: int | None,
    target: int | None,
    bounds: tuple[Any, Any] | None,
) -> Drawn:
    """Draw n points of noise to start from, with the classes to start from and to reach."""
    training = classifier.training
    # noise can start from a class without training samples, if that class is given
    given = [code for code in (source, target) if code is not None]
    classes = np.union1d(training.codes[training.usable], given).astype(np.intp)
    sources, targets = class_cycle(n, source, target, classes, classifier.classes)
    X = draw_noise(training, n, bounds, np.random.default_rng(classifier.seed))
    starts = Starts(X.astype(floating(training.X)), place=np.full(n, -1))
    return starts, sources, targets


def draw_samples(
    training: TrainingSamples, source: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw a training sample of each class (n,); none twice before all of its class."""
    drawn = np.empty(len(source), dtype=np.intp)
    for code in np.unique(source):
        wanted, found = (source == code).nonzero()[0], training.of_class(code)
        drawn[wanted] = np.resize(rng.permutation(found), len(wanted))
    return drawn


def draw_noise(
    training: TrainingSamples, n: int, bounds: tuple[Any, Any] | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw n samples uniformly inside the bounds, or with the mean and deviation of all."""
    shape = n, *training.X.shape[1:]
    if bounds is None:
        X, axis = np.asarray(training.X), 0 if training.X.ndim == 2 else None
        mean, deviation = X.mean(axis, dtype=float), X.std(axis, dtype=float)
        return mean + deviation * rng.standard_normal(shape)
    low, high = finite_bounds(bounds, training.X)
    t = rng.random(shape)
    return (1 - t) * low + t * high  # high - low may overflow


def class_cycle(
    n: int,
    source: int | None,
    target: int | None,
    classes: NDArray[np.intp],
    labels: NDArray[Any],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Assign n pairs to ordered pairs of classes, in cycles.

    Parameters
    ----------
    n : int
    source, target : int or None
        None cycles over all `classes`.
    classes : ndarray of int
        Those that can be started from and reached.
    labels : ndarray
        Names of all classes.

    Returns
    -------
    source, target : ndarray of shape (n,)

    Raises
    ------
    ValueError
        For a class that is not among those, or when there is no pair.
    """
    for name, code in (("source", source), ("target", target)):
        if code is not None and code not in classes:
            raise ValueError(
                f"{name}={labels.tolist()[code]!r} is a class that no training sample is predicted "
                "as (correctly, where fit got y), so there are no samples to start from."
            )
    sources, targets = (classes if c is None else [c] for c in (source, target))
    pairs = np.array([(s, t) for s in sources for t in targets if s != t], dtype=np.intp)
    if not len(pairs):
        raise ValueError(
            f"All training samples are predicted as {labels[classes].tolist()}: there is no pair "
            "of classes, so no boundary to sample."
        )
    chosen = pairs[np.arange(n) % len(pairs)]
    return chosen[:, 0], chosen[:, 1]
