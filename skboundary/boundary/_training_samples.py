"""Training samples by predicted class: starting points, and partners across the boundary."""

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
from skboundary._plain import storable
from skboundary._sample_array import blocks
from skboundary.boundary._inputs import data_range, floating, outside
from skboundary.boundary._oracle import Outputs
from skboundary.functional.nearest_neighbors import build_index, search


class Starts(NamedTuple):
    """Samples that a search starts from, with those outputs of the classifier that are known."""

    X: NDArray[Any]  # (n, ...)
    codes: NDArray[np.intp] | None = None  # (n,) predicted classes
    logits: Tensor | None = None  # (n, n_classes)
    latent: Tensor | None = None  # (n, n_latent)
    n_runs: int = 0  # times that the classifier has run each of them
    place: NDArray[np.intp] | None = None  # (n,) `index` of their pairs, where not 0 to n - 1

    @property
    def predicted(self) -> NDArray[np.intp]:
        """Predicted classes (n,) of samples that were predicted."""
        assert self.codes is not None
        return self.codes

    def select(self, index: NDArray[np.intp]) -> Starts:
        """Some of the samples."""
        return Starts(
            self.X[index],
            None if self.codes is None else self.codes[index],
            None if self.logits is None else self.logits[index],
            None if self.latent is None else self.latent[index],
            self.n_runs,
            None if self.place is None else self.place[index],
        )


@storable
class TrainingSamples(NamedTuple):
    """The training samples of a classifier."""

    X: Any  # (n, ...) array or SampleArray
    codes: NDArray[np.intp]  # (n,) predicted classes
    usable: NDArray[np.bool_]  # (n,) predicted rightly, or all where no y was given
    logits: Tensor | None = None  # (n, n_classes), where a method needs them
    latent: Tensor | None = None  # (n, n_latent), where a method measures distances in it

    def take(self, index: NDArray[np.intp]) -> Tensor:
        """Some of the samples as a tensor on the CPU, in their dtype."""
        samples = to_tensor(_safe_indexing(self.X, index.ravel()))
        return samples.reshape(*index.shape, *self.X.shape[1:])

    def outputs(self, index: NDArray[np.intp]) -> Outputs:
        """Known outputs at some of the samples, on the CPU."""
        at = torch.from_numpy(index)
        labels = torch.from_numpy(self.codes)[at]
        return Outputs(labels, None if self.logits is None else self.logits[at])

    def starts(self, index: NDArray[np.intp]) -> Starts:
        """Some of the samples to start from."""
        known = Starts(self.X, self.codes, self.logits, self.latent).select(index)
        return known._replace(X=known.X.astype(floating(self.X)), place=index)

    def of_class(self, code: int, *, other: bool = False) -> NDArray[np.intp]:
        """Find the usable samples of a class, or those of all other classes."""
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
    space : Tensor of shape (n_training, d) or None
        Where nearness is measured; None draws samples at random, with `rng`.
    queries : Tensor of shape (n, d) or None
        The samples there.
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
        members = (groups == group).nonzero()[0]
        found = training.of_class(group if group >= 0 else -1 - group, other=group < 0)
        n_found = min(k, len(found))
        if not n_found:
            continue
        if space is None or queries is None:
            assert rng is not None
            near = rng.integers(len(found), size=(len(members), n_found))
        else:
            index = build_index(space[torch.from_numpy(found)])
            near = search(index, queries[torch.from_numpy(members)], n_found).indices.numpy()
        partners[members[:, None], np.arange(n_found)] = found[near]
    return partners


def finite_bounds(
    bounds: tuple[NDArray[Any], NDArray[Any]] | None, X: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Replace bounds that are infinite by the ends of the range of X."""
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
    if not any(outside(training.X[part], *bounds).any() for part in blocks(training.X)):
        return training
    X = np.clip(np.asarray(training.X), *bounds).astype(floating(training.X))
    return TrainingSamples(X, training.codes, training.usable & (labels(X) == training.codes))
