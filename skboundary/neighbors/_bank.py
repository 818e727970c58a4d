"""Training samples of LatentKNNClassifier: outputs of the network and a neighbor search."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from torch import Tensor

from skboundary._batching import progress
from skboundary._device import to_numpy
from skboundary.functional.latent_mixing import merge_lists, mix
from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.networks import Network

# Samples whose latent vectors are in memory at once; enough for an efficient search.
_BLOCK = 4096

Transforms = Sequence[Callable[[Any], Any]] | None


class Found(NamedTuple):
    """Outputs of the network for n samples, and their neighbors."""

    latent: Tensor  # (n, n_latent)
    logits: Tensor  # (n, n_classes)
    distances: NDArray[Any]  # (n, k)
    indices: NDArray[np.intp]  # (n, k), in the training samples


class Bank:
    """Outputs of a network for the training samples, and a search among their latent vectors.

    Parameters
    ----------
    network : Network
    X : array-like of shape (n_train, ...)
    search : object with `fit` and `kneighbors`
        Is fitted on the latent vectors.

    Attributes
    ----------
    latent : Tensor of shape (n_train, n_latent)
    logits, proba : Tensor of shape (n_train, n_classes)
    """

    def __init__(self, network: Network, X: Any, search: Any) -> None:
        self.network = network
        self.latent, self.logits = network.latent_and_logits(X)
        self.proba = network.proba(self.logits)
        self.search = search.fit(to_numpy(self.latent))

    def blocks(self, X: Any, k: int, transforms: Transforms, verbose: int) -> Iterator[Found]:
        """Yield outputs and the k nearest training samples of X, some samples at a time.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        k : int
        transforms : sequence of callables or None
            See `LatentKNNClassifier`.
        verbose : int
            Shows a progress bar over all of X if positive.

        Yields
        ------
        found : Found
        """
        n, passes = X.shape[0], 1 + len(transforms or ())
        network = self.network.snapshot()
        with progress(n * passes, "network", verbose) as bar:
            for start in range(0, n, _BLOCK):
                samples = _safe_indexing(X, slice(start, start + _BLOCK))
                latent, logits = network.latent_and_logits(samples, bar)
                found = [self._neighbors(latent, k)]
                for transform in transforms or ():
                    other = network.latent(_transformed(transform, samples), bar)
                    found.append(self._neighbors(other, k))
                yield Found(latent, logits, *_merged(found, k))
                # samples in the cache did not pass through the network
                bar.update(min(n, start + _BLOCK) * passes - bar.n)

    def collect(self, X: Any, k: int, transforms: Transforms, verbose: int) -> Found:
        """Concatenate the blocks."""
        parts = self.blocks(X, k, transforms, verbose)
        latent, logits, distances, indices = zip(*parts, strict=True)
        return Found(
            torch.cat(latent), torch.cat(logits), np.concatenate(distances), np.concatenate(indices)
        )

    def neighbor_outputs(self, indices: NDArray[np.intp], average: str) -> Tensor:
        """Probabilities or logits (n, k, n_classes) of training samples (n, k)."""
        outputs = self.proba if average == "proba" else self.logits
        return outputs[indices.ravel()].reshape(*indices.shape, -1)

    def outputs(self, logits: Tensor, average: str) -> Tensor:
        """Probabilities or logits (n, n_classes)."""
        return self.network.proba(logits) if average == "proba" else logits

    def mixed(
        self, logits: Tensor, indices: NDArray[np.intp], query_weight: float, average: str
    ) -> Tensor:
        """Probabilities (n, n_classes) after averaging with the neighbors (n, k)."""
        neighbors = self.neighbor_outputs(indices, average)
        mixed = mix(self.outputs(logits, average), neighbors, query_weight)
        return mixed if average == "proba" else self.network.proba(mixed)

    def _neighbors(self, latent: Tensor, k: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
        if isinstance(self.search, TorchNearestNeighbors):  # the network has checked its outputs
            return self.search._search(latent, k)
        return self.search.kneighbors(to_numpy(latent), k)


def _merged(
    found: list[tuple[NDArray[Any], NDArray[np.intp]]], k: int
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Merge the neighbors of transformed samples; keep the k closest distinct ones."""
    if len(found) == 1:
        return found[0]
    distances, indices = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    merged = merge_lists(torch.from_numpy(distances), torch.from_numpy(indices), k)
    return to_numpy(merged[0]), to_numpy(merged[1])


def _transformed(transform: Callable[[Any], Any], samples: Any) -> Any:
    """Apply one of `query_transforms` to a copy of samples, because it may work in place."""
    other = transform(samples.copy())
    shape, names = getattr(other, "shape", None), getattr(samples, "columns", None)
    other_names = getattr(other, "columns", None)
    if (
        shape is None
        or tuple(shape) != samples.shape
        or (names is not None and (other_names is None or [*other_names] != [*names]))
    ):
        what = type(other).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
        raise ValueError(
            f"query_transforms: {transform!r} turns a {type(samples).__name__} of shape "
            f"{samples.shape} into a {what}; it must keep the shape, and the columns of a "
            "DataFrame."
        )
    return other
