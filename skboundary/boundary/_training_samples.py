"""Training rows by the class they are predicted as: starting points, and partners across."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from torch import Tensor

from skboundary._device import to_tensor
from skboundary.boundary._inputs import data_range, floating, outside
from skboundary.functional.nearest_neighbors import build_index, search


class TrainingSamples(NamedTuple):
    """The training rows of an extractor."""

    X: NDArray[Any]  # (n, ...)
    codes: NDArray[np.intp]  # (n,) classes they are predicted as
    usable: NDArray[np.bool_]  # (n,) predicted rightly, or all where no y was given

    def take(self, index: Any, like: Tensor) -> Tensor:
        """Training samples as a tensor of the dtype and on the device of another."""
        index = index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)
        rows = to_tensor(_safe_indexing(self.X, index.ravel()), device=like.device)
        return rows.to(like.dtype).reshape(*index.shape, *self.X.shape[1:])

    def of_class(self, code: int, *, other: bool = False) -> NDArray[np.intp]:
        """Find the usable rows of a class, or those of all other classes."""
        return ((self.codes != code if other else self.codes == code) & self.usable).nonzero()[0]


def find_partners(
    training: TrainingSamples,
    space: Tensor | None,
    queries: Tensor | None,
    source: NDArray[np.intp],
    target: NDArray[np.intp],
    k: int,
    rng: np.random.Generator | None = None,
) -> NDArray[np.intp]:
    """Find k training samples across the boundary for each of n samples.

    Parameters
    ----------
    training : TrainingSamples
    space : Tensor of shape (n_pool, d) or None
        Where nearness is measured; None draws rows at random, with `rng`.
    queries : Tensor of shape (n, d) or None
        The rows there.
    source, target : ndarray of shape (n,)
        Classes; a target of -1 is any class but the source.
    k : int
    rng : numpy.random.Generator, default=None

    Returns
    -------
    partners : ndarray of shape (n, k)
        Nearest first. -1 where there are too few.
    """
    partners = np.full((len(source), k), -1)
    groups = np.where(target < 0, -1 - source, target)  # any class but s, or the class t
    for group in np.unique(groups):
        rows = (groups == group).nonzero()[0]
        found = training.of_class(group if group >= 0 else -1 - group, other=group < 0)
        n_found = min(k, len(found))
        if not n_found:
            continue
        if space is None or queries is None:
            assert rng is not None
            near = rng.integers(len(found), size=(len(rows), n_found))
        else:
            index = build_index(space[torch.from_numpy(found)])
            near = search(index, queries[torch.from_numpy(rows)], n_found).indices.numpy()
        partners[rows[:, None], np.arange(n_found)] = found[near]
    return partners


def draw_rows(
    training: TrainingSamples, source: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw a training sample of each class (n,); none twice before all of its class."""
    drawn = np.empty(len(source), dtype=np.intp)
    for code in np.unique(source):
        wanted, rows = (source == code).nonzero()[0], training.of_class(code)
        drawn[wanted] = np.resize(rng.permutation(rows), len(wanted))
    return drawn


def draw_noise(
    training: TrainingSamples, n: int, bounds: tuple[Any, Any] | None, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw n samples uniformly inside the bounds, or with the mean and deviation of all."""
    shape = n, *training.X.shape[1:]
    if bounds is None:
        axis = 0 if training.X.ndim == 2 else None
        mean, deviation = training.X.mean(axis, dtype=float), training.X.std(axis, dtype=float)
        return mean + deviation * rng.standard_normal(shape)
    low, high = finite_bounds(bounds, training.X)
    t = rng.random(shape)
    return (1 - t) * low + t * high  # high - low may overflow


def finite_bounds(
    bounds: tuple[NDArray[Any], NDArray[Any]] | None, X: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Put the ends of the range of X in the place of bounds that are infinite."""
    least, largest = data_range(X)
    if bounds is None:
        return least, largest
    with np.errstate(over="ignore"):
        low, high = (np.asarray(bound).astype(floating(X)).astype(float) for bound in bounds)
    low = np.where(np.isfinite(low), low, np.minimum(least, high))
    return low, np.where(np.isfinite(high), high, np.maximum(largest, low))


def within(
    training: TrainingSamples,
    bounds: tuple[NDArray[Any], NDArray[Any]],
    labels: Callable[[NDArray[Any]], NDArray[np.intp]],
) -> TrainingSamples:
    """Move training samples that lie outside of bounds to the nearest point inside.

    Those that are then predicted as another class are not usable. `labels` predicts samples.
    """
    if not outside(training.X, *bounds).any():
        return training
    X = np.clip(training.X, *bounds).astype(floating(training.X))
    return TrainingSamples(X, training.codes, training.usable & (labels(X) == training.codes))


def class_cycle(
    n: int,
    source: int | None,
    target: int | None,
    classes: NDArray[np.intp],
    labels: NDArray[Any],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Deal n pairs out to ordered pairs of classes, round and round.

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
                f"{name}={labels.tolist()[code]!r} is a class that no training row is predicted as "
                "(rightly, where fit got y): there is nothing to start from."
            )
    sources, targets = (classes if c is None else [c] for c in (source, target))
    pairs = np.array([(s, t) for s in sources for t in targets if s != t], dtype=np.intp)
    if not len(pairs):
        raise ValueError(
            f"All training rows are predicted as {labels[classes].tolist()}: there is no pair of "
            "classes, so no boundary to sample."
        )
    chosen = pairs[np.arange(n) % len(pairs)]
    return chosen[:, 0], chosen[:, 1]
