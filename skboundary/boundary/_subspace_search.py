"""Searches for the boundary inside subspaces, batch by batch: by gradients and by labels."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from torch import Tensor

from skboundary._batching import joined, map_batches, resolve_batch_size
from skboundary._device import move, to_tensor
from skboundary._validation import sample_shape
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._oracle import NanWatch
from skboundary.boundary._training_samples import TrainingSamples, find_partners
from skboundary.functional.query_search import label_search
from skboundary.functional.subspace_deepfool import subspace_deepfool
from skboundary.functional.subspaces import Subspaces, WholeSpace
from skboundary.networks import Network

# A search holds the activations of its pass and ten gradients: so many times its sample. On a CPU
# fewer are searched together, for the activations of a layer to stay in the cache.
_SAMPLES_HELD, _SAMPLES_HELD_CPU = 32, 64
_BATCHES = 16  # so many times that many searches are advanced in turn, so that batches remain full
_STARTS = 15  # samples of other classes that a search by labels starts from
_NUMBERS = 2**22  # numbers in the starts of a batch
_QUERIES_PER_STEP = 20  # in place of one step along a gradient


def place(subspaces: Subspaces, device: torch.device) -> Subspaces:
    """Bring the bases to a device."""
    kind: Any = type(subspaces)
    return kind(*(t.to(device) for t in subspaces))  # type: ignore[attr-defined]


def gradient_margins(
    network: Network,
    X: Any,
    subspaces: Subspaces,
    *,
    overshoot: float,
    max_iter: int,
    verbose: int,
) -> tuple[Tensor, Tensor]:
    """Search along gradients, for all pairs of a sample and a subspace.

    Parameters
    ----------
    network : Network
        Differentiable.
    X : array-like of shape (n, ...)
    subspaces : Subspaces
    overshoot, max_iter, verbose : see `SubspaceMargins`

    Returns
    -------
    distance, flipped : Tensor of shape (n, n_subspaces)
    """
    n, device, dtype = subspaces.n_subspaces, network.device, network.input_dtype
    sample_bytes = math.prod(sample_shape(X)) * dtype.itemsize
    held = _SAMPLES_HELD_CPU if device.type == "cpu" else _SAMPLES_HELD
    size = resolve_batch_size(network.batch_size, held * sample_bytes, device)
    size = size // n * n or size  # whole samples, whose first gradient is shared by all subspaces
    subspaces = place(subspaces, device)

    def step(pairs: slice) -> tuple[Tensor, Tensor]:
        nonlocal size
        if pairs.stop < n_pairs:  # halved together when memory runs out
            size = -(-(pairs.stop - pairs.start) // _BATCHES)
        pair = torch.arange(pairs.start, pairs.stop, device=device)
        first, last = pairs.start // n, (pairs.stop - 1) // n
        x = to_tensor(_safe_indexing(X, slice(first, last + 1)), device=device, dtype=dtype)
        found = subspace_deepfool(
            lambda points: nan.note(logits(points)),
            x,
            subspaces,
            pair // n - first,
            pair % n,
            overshoot=overshoot,
            max_iter=max_iter,
            batch_size=size,
            eps=network.eps,
        )
        nan.refuse(network.name)
        return move((found.distance, found.flipped), torch.device("cpu"))

    nan = NanWatch()
    n_pairs, together = X.shape[0] * n, _BATCHES * size
    with network.differentiable_logits() as logits:
        parts = map_batches(step, n_pairs, together, verbose=verbose, desc="margins")
        distance, flipped = joined(parts, n_pairs)
    return distance.view(-1, n), flipped.view(-1, n)


def label_margins(
    classifier: FittedClassifier,
    X: NDArray[Any],
    subspaces: Subspaces,
    *,
    overshoot: float,
    max_iter: int,
    verbose: int,
) -> tuple[Tensor, Tensor]:
    """Search by labels, one subspace after the other.

    Parameters
    ----------
    classifier : FittedClassifier
        The nearest of its training samples of other classes are projected on x plus the subspace.
    X : ndarray of shape (n, ...)
    subspaces : Subspaces
    overshoot, max_iter, verbose : see `SubspaceMargins`

    Returns
    -------
    distance, flipped : Tensor of shape (n, n_subspaces)
        The distance is infinite where no other class was found.
    """
    training, device = classifier.training, classifier.network.device
    source = classifier.labels(X)
    flat = to_tensor(X).flatten(1).to(classifier.network.input_dtype)
    partners = _nearest_others(training, flat, source)
    size = classifier.batch_size
    if size == "auto":
        size = max(1, _NUMBERS // (flat.shape[1] * _STARTS))
    subspaces = place(subspaces, device)
    like = flat[:1].to(device)
    bases = [_basis(subspaces, s, like) for s in range(subspaces.n_subspaces)]
    with classifier.open("label") as oracle:

        def label(points: Tensor) -> Tensor:
            return oracle.labels(points.view(-1, *X.shape[1:]))

        def step(batch: slice) -> tuple[Tensor, Tensor]:
            x, codes, starts = move(
                (flat[batch], torch.from_numpy(source[batch]), training.take(partners[batch])),
                oracle.device,
            )
            starts = starts.to(x.dtype).flatten(2)
            found = [
                label_search(
                    label,
                    x,
                    codes,
                    starts=starts,
                    generator=torch.Generator().manual_seed(classifier.seed),
                    basis=basis,
                    budget=_QUERIES_PER_STEP * max_iter,
                )
                for basis in bases
            ]
            success = torch.stack([pair.success for pair in found], 1)
            length = torch.stack([(pair.points - x).norm(dim=1) for pair in found], 1)
            oracle.nan.refuse(oracle.network.name)
            distance = torch.where(success, (1 + overshoot) * length, torch.inf)
            return move((distance, success), torch.device("cpu"))

        parts = map_batches(step, len(X), size, verbose=verbose, desc="margins")
        distance, flipped = joined(parts, len(X))
    return distance, flipped


def _nearest_others(
    training: TrainingSamples, flat: Tensor, source: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Nearest training samples (n, k) that are predicted as another class, correctly or not."""
    every = training._replace(usable=np.full(len(training.X), True))
    space = to_tensor(training.X).flatten(1).to(flat.dtype)
    k = min(_STARTS, len(training.X))
    return find_partners(every, space, flat, source, np.full(len(flat), -1), k)


def _basis(subspaces: Subspaces, s: int, like: Tensor) -> Tensor | None:
    """Basis vectors (k, d) of a subspace, None for the whole space; `like` is a sample (1, d)."""
    if isinstance(subspaces, WholeSpace):
        return None
    k = subspaces.coordinates(like, torch.tensor([s], device=like.device)).shape[1]
    unit = torch.eye(k, dtype=like.dtype, device=like.device)
    vectors = subspaces.expand(unit, torch.full((k,), s, device=like.device))
    return vectors[vectors.any(1)]
