"""Training samples of LatentKNNClassifier: outputs of the network and a neighbor search."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import _safe_indexing, gen_batches
from torch import Tensor
from torch.nn.functional import one_hot

from skboundary._bank_folder import BankFolder
from skboundary._batching import joined, progress
from skboundary._device import to_numpy, to_tensor
from skboundary._plain import storable
from skboundary._sample_array import SampleArray
from skboundary.functional.latent_mixing import average_neighbors, class_means, merge_lists, mix
from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.neighbors._protocol import check_found
from skboundary.neighbors._votes import Vote, neighbor_weights
from skboundary.networks import Network
from skboundary.networks._linear_head import linear_head
from skboundary.networks._outputs import Link

BLOCK = 4096  # samples whose latent vectors are in memory at once; enough for an efficient search
_BLOCK_BYTES = 2**26  # of what is computed for them, where the search reads a bank for each block
_STORED_BYTES = 2**25  # of what is read at a time

Transforms = Sequence[Callable[[Any], Any]] | None


class Found(NamedTuple):
    """Outputs of the network for n samples, and their neighbors."""

    latent: Tensor  # (n, n_latent)
    logits: Tensor  # (n, n_classes)
    distances: NDArray[Any]  # (n, k)
    indices: NDArray[np.intp]  # (n, k), in the training samples

    def nearest(self, k: int) -> Found:
        """Keep the k nearest neighbors."""
        return self._replace(distances=self.distances[:, :k], indices=self.indices[:, :k])

    @classmethod
    def joined(cls, parts: Iterable[Found]) -> Found:
        """Concatenate parts of the samples."""
        latent, logits, distances, indices = zip(*parts, strict=True)
        near = np.concatenate(distances), np.concatenate(indices)
        return cls(torch.cat(latent), torch.cat(logits), *near)


@storable
class Stored(NamedTuple):
    """Latent vectors and outputs of the training samples, in memory; a `BankFolder` is the same."""

    latent: NDArray[Any]  # (n_train, n_latent)
    outputs: NDArray[Any]  # (n_train, n_classes): logits


class Bank:
    """Outputs of a network for the training samples, and a search among their latent vectors.

    Parameters
    ----------
    stored : Stored or BankFolder
    search : object with `kneighbors`
        Fitted on the latent vectors.
    link : callable
        Maps logits to probabilities.
    network : Network or None
        None if there is none, and only what is stored can be asked about.
    """

    def __init__(self, stored: Any, search: Any, link: Link, network: Network | None) -> None:
        self.stored, self.search, self.link, self._network = stored, search, link, network

    @property
    def network(self) -> Network:
        """The network; see `check_network`."""
        self.check_network()
        assert self._network is not None
        return self._network

    def check_network(self) -> None:
        """Raise a ValueError if there is no network; it lists the methods that need none."""
        if self._network is None:
            raise ValueError(
                "This classifier has no network, so it cannot take X. Pass latent vectors to "
                "predict_latent, predict_proba_latent or kneighbors_latent, or open its bank with "
                "LatentKNNClassifier.from_bank(folder, estimator)."
            )

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
        block = self.block_size(X, k, transforms)
        for latents, logits in passes(self.network, X, transforms, block, verbose):
            near = merged([self.neighbors(latent, k) for latent in latents], k)
            yield Found(latents[0], logits, *near)

    def block_size(self, X: Any, k: int, transforms: Transforms) -> int:
        """Number of samples searched together: more in a bank, which is read once for them."""
        if isinstance(self.stored, Stored):
            return BLOCK
        latent, outputs = (a[:1].nbytes for a in (self.stored.latent, self.stored.outputs))
        copied = transforms or isinstance(X, SampleArray)
        sample = 8 * math.prod(X.shape[1:]) if copied else 0
        rows = max(1, _BLOCK_BYTES // (latent + (k + 2) * outputs + sample))
        return rows if rows < BLOCK else rows - rows % BLOCK  # the batches are those in memory

    def collect(self, X: Any, k: int, transforms: Transforms, verbose: int) -> Found:
        """Concatenate the blocks."""
        return Found(*joined(self.blocks(X, k, transforms, verbose), X.shape[0]))

    def latent_blocks(self, latent: NDArray[Any], logits: NDArray[Any], k: int) -> Iterator[Found]:
        """Yield what is given, and the k nearest training samples, some samples at a time."""
        for part in gen_batches(len(latent), self.block_size(latent, k, None)):
            z = torch.from_numpy(latent[part])
            yield Found(z, torch.from_numpy(logits[part]), *self.neighbors(z, k))

    def own_blocks(self, k: int) -> Iterator[Found]:
        """Yield what is stored, and the k nearest others of each training sample."""
        distances, indices = self.own_neighbors(k)
        start = 0
        for latent, logits in self.stored_blocks():
            part = slice(start, start := start + len(latent))
            yield Found(latent, logits, distances[part], indices[part])

    def stored_blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield latent vectors and logits of the training samples, some samples at a time."""
        for part in gen_batches(len(self.stored.latent), _rows(self.stored.latent)):
            latent, logits = (
                torch.from_numpy(np.array(array[part]))  # a memory map is read-only
                for array in (self.stored.latent, self.stored.outputs)
            )
            yield latent, logits

    def output_blocks(self, X: Any, verbose: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield latent vectors and logits of X, or of the training samples for None."""
        if X is None:
            yield from self.stored_blocks()
            return
        block = self.block_size(X, 0, None)
        for (latent,), logits in passes(self.network, X, None, block, verbose):
            yield latent, logits

    def head(self, latent: Tensor, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """The layer from latent vectors to logits, see `linear_head`; None without a network."""
        return None if self._network is None else linear_head(self._network, latent, logits)

    def class_means(self, codes: NDArray[np.intp], n_classes: int) -> Tensor:
        """Mean latent vectors (n_classes, n_latent) of the training samples of each class."""
        sums: Any = 0.0
        for part in gen_batches(len(codes), _rows(self.stored.latent)):
            some, of_class = to_tensor(self.stored.latent[part]), torch.from_numpy(codes[part])
            counts = torch.bincount(of_class, minlength=n_classes)[:, None]
            sums = sums + class_means(some, of_class, n_classes).nan_to_num(0.0) * counts
        return sums / torch.bincount(torch.from_numpy(codes), minlength=n_classes)[:, None]

    def holds(self, found: Found) -> NDArray[np.bool_]:
        """Whether samples (n,) are among the training samples, by latent vectors and logits.

        The nearest training sample has the same up to rounding, as batches differ.
        """
        nearest = found.indices[:, 0]
        same = np.ones(len(nearest), dtype=bool)
        for ours, theirs in (
            (found.latent, self.stored.latent[nearest]),
            (found.logits, self.stored.outputs[nearest]),
        ):
            mine = to_numpy(ours)
            largest = np.abs(mine).max(1)
            same &= np.abs(mine - theirs).max(1) <= 64 * np.finfo(mine.dtype).eps * largest
        return same

    def neighbor_outputs(self, indices: NDArray[np.intp], average: str) -> Tensor:
        """Probabilities or logits (n, k, n_classes) of training samples (n, k)."""
        logits = torch.from_numpy(self.stored.outputs[indices.ravel()])
        return self.outputs(logits, average).reshape(*indices.shape, -1)

    def outputs(self, logits: Tensor, average: str) -> Tensor:
        """Probabilities or logits (n, n_classes)."""
        return self.link(logits) if average == "proba" else logits

    def mixed(self, found: Found, vote: Vote) -> Tensor:
        """Probabilities (n, n_classes) after averaging with the neighbors."""
        own = self.outputs(found.logits, vote.average)
        return self.mix(own, self.mean_of_neighbors(found, vote), vote)

    def mix(self, own: Tensor, mean: Tensor, vote: Vote) -> Tensor:
        """Probabilities (n, n_classes) from outputs and means of the neighbors (n, n_classes)."""
        mixed = mix(own, mean[:, None], vote.query_weight)
        # a sum of rounded weights may exceed 1, which scorers refuse
        return mixed.clamp(max=1) if vote.average == "proba" else self.link(mixed)

    def mean_of_neighbors(self, found: Found, vote: Vote) -> Tensor:
        """Weighted mean (n, n_classes) of what the neighbors contribute, some samples at a time."""
        n_classes, dtype = found.logits.shape[1], found.logits.dtype
        parts = []
        rows = _rows(self.stored.outputs, found.indices.shape[1])
        for part in gen_batches(len(found.indices), rows):
            indices = found.indices[part]
            if vote.codes is None:
                neighbors = self.neighbor_outputs(indices, vote.average)
            else:
                neighbors = one_hot(torch.from_numpy(vote.codes[indices]), n_classes).to(dtype)
            weights = neighbor_weights(found.distances[part], vote.weights)
            parts.append(average_neighbors(neighbors, weights))
        return torch.cat(parts)

    def neighbors(self, latent: Tensor, k: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Distances and indices (n, k) of the training samples nearest to latent vectors."""
        if isinstance(self.search, TorchNearestNeighbors):  # the network has checked its outputs
            return self.search._search(latent, k)
        found = self.search.kneighbors(to_numpy(latent), k)
        return check_found(self.search, found, (len(latent), k), len(self.stored.latent))

    def own_neighbors(self, k: int) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """The k nearest training samples of each training sample, without itself."""
        found, n = self.search.kneighbors(None, k), len(self.stored.latent)
        return check_found(self.search, found, (n, k), n)


def _rows(array: Any, times: int = 1) -> int:
    """Number of samples of which something stored is read at a time."""
    return max(1, min(BLOCK, _STORED_BYTES // (times * array[:1].nbytes)))


def fit_search(search: Any, stored: Any) -> Any:
    """Fit a copy of a search on the latent vectors of `Stored` or a `BankFolder`."""
    search = clone(search, safe=False)
    return search._open(stored) if isinstance(stored, BankFolder) else search.fit(stored.latent)


def passes(
    network: Network, X: Any, transforms: Transforms, block: int, verbose: int
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Run X and its transforms, some samples at a time; see `Bank.blocks`.

    Yields
    ------
    latents : list of Tensor of shape (n, n_latent)
        Latent vectors of some samples, and of each of their transforms.
    logits : Tensor of shape (n, n_classes)
    """
    network = network.snapshot()
    n, n_passes = X.shape[0], 1 + len(transforms or ())
    with progress(n * n_passes, "network", verbose) as bar:
        for start in range(0, n, block):
            samples = _safe_indexing(X, slice(start, start + block))
            latent, logits = network.latent_and_logits(samples, bar)
            others = [
                network.latent(_transformed(transform, samples), bar)
                for transform in transforms or ()
            ]
            yield [latent, *others], logits
            # samples in the cache did not pass through the network
            bar.update(min(n, start + block) * n_passes - bar.n)


def merged(
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
    if not callable(transform):
        raise TypeError(f"query_transforms holds {transform!r}, which is not callable.")
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
