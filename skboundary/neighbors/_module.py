"""LatentKNNClassifier as one torch module, for `torch.export` and ONNX."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn.functional import one_hot

from skboundary.functional.latent_mixing import average_neighbors, inverse_distances, mix
from skboundary.neighbors._bank import Bank
from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.neighbors._votes import resolve_vote
from skboundary.networks._standalone import StandaloneNetwork, standalone

_SPARE = 32  # candidates beyond k, since rounding may change the order of scores
_TINY = torch.finfo(torch.float64).tiny


class ModuleMixin:
    """`to_module` of `LatentKNNClassifier`."""

    n_neighbors: int
    query_weight: float
    average: str
    weights: Any
    contribute: str
    query_transforms: Any
    classes_: NDArray[Any]
    neighbors_: Any
    _bank: Bank
    _codes: NDArray[np.intp] | None
    _check_n_neighbors: Callable[[int], None]
    _validate_params: Callable[[], None]

    def to_module(self) -> nn.Module:
        """Convert the fitted classifier to one torch module, for `torch.export` and ONNX.

        The module maps samples, a tensor (n, ...), to the probabilities (n, n_classes) of
        `predict_proba`. It holds copies of the network and of the latent vectors, on the CPU, and
        the parameters of now. In float32 the probabilities are equal up to 1e-6 for samples whose
        k-th and next distance differ by more than 1e-5 of it.

        Returns
        -------
        module : torch.nn.Module

        Raises
        ------
        ValueError
            If part of the classifier is not torch: a classifier that is not a module and cannot be
            converted to one, other steps before it than linear ones, functions as `preprocess` or
            `weights`, `neighbors`, or `query_transforms`.
        """
        check_is_fitted(self)
        self._validate_params()
        self._check_n_neighbors(self.n_neighbors)
        if not isinstance(self.neighbors_, TorchNearestNeighbors):
            raise ValueError(
                f"neighbors={self.neighbors_!r} cannot be part of a torch module, but the exact "
                "search can. Fit with neighbors=None."
            )
        if self.query_transforms:
            raise ValueError(
                "query_transforms take arrays, so they cannot be part of a torch module. Set "
                "query_transforms=None."
            )
        if callable(self.weights):
            raise ValueError(
                f"weights={self.weights!r} takes an array, so it cannot be part of a torch module. "
                "Set weights='uniform' or 'distance'."
            )
        network, stored = standalone(self._bank.network), self._bank.stored
        outputs = self._bank.outputs(torch.from_numpy(np.array(stored.outputs)), self.average)
        codes = resolve_vote(self, self._codes).codes
        if codes is not None:  # the labels are averaged
            outputs = one_hot(torch.from_numpy(codes), len(self.classes_)).to(outputs.dtype)
        return LatentKNNModule(
            network,
            torch.from_numpy(np.array(stored.latent)),
            outputs,
            n_neighbors=self.n_neighbors,
            query_weight=self.query_weight,
            average=self.average,
            weights=self.weights,
            metric=self.neighbors_.effective_metric_,
        )


class LatentKNNModule(nn.Module):
    """Probabilities (n, n_classes) of samples (n, ...): the network, the search and the average.

    The search is a product with all training samples in float64, and differences with the best
    k + 32, so that offset and scale of the latent vectors do not matter.

    Parameters
    ----------
    network : StandaloneNetwork
    latent : Tensor of shape (n_train, n_latent)
    outputs : Tensor of shape (n_train, n_classes)
        What the training samples contribute.
    n_neighbors, query_weight, average, metric : see `LatentKNNClassifier`
    weights : {"uniform", "distance"}
    """

    center: Tensor
    scale: Tensor
    bank: Tensor
    zero: Tensor
    shift: Tensor
    outputs: Tensor

    def __init__(
        self,
        network: StandaloneNetwork,
        latent: Tensor,
        outputs: Tensor,
        *,
        n_neighbors: int,
        query_weight: float,
        average: str,
        weights: str,
        metric: str,
    ) -> None:
        super().__init__()
        self.training = False  # as of all modules in it
        self.network, self.n_neighbors, self.query_weight = network, n_neighbors, query_weight
        self.average, self.weights, self.metric = average, weights, metric
        latent = latent.double()
        center = torch.zeros_like(latent[0]) if metric == "cosine" else latent.mean(0)
        self.register_buffer("center", center)
        self.register_buffer("scale", (latent - center).abs().max().clamp_min(_TINY))
        bank, zero = self._vectors(latent)
        self.register_buffer("bank", bank)
        self.register_buffer("zero", zero)
        self.register_buffer("shift", (bank.square().sum(1) + zero) / 2)
        self.register_buffer("outputs", outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Compute probabilities (n, n_classes) of samples (n, ...)."""
        latent, logits = self.network(x)
        indices, weights = self._neighbors(latent.double())
        own = self.network.link(logits) if self.average == "proba" else logits
        mean = average_neighbors(self.outputs[indices], weights)
        mixed = mix(own, mean[:, None], self.query_weight)
        return mixed if self.average == "proba" else self.network.link(mixed)

    def _vectors(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors whose Euclidean distances are in the order of the metric, but for zero vectors.

        Returns
        -------
        vectors : Tensor of shape (n, n_latent)
        zero : Tensor of shape (n,) of bool
            Vectors that have the cosine distance 1 to all others.
        """
        vectors = (latent - self.center) / self.scale
        zero = (vectors == 0).all(1) & (self.metric == "cosine")
        if self.metric == "cosine":
            vectors = vectors / vectors.norm(dim=1, keepdim=True).clamp_min(_TINY)
        return vectors, zero

    def _neighbors(self, latent: Tensor) -> tuple[Tensor, Tensor | None]:
        """Indices (n, k) of the nearest training samples, and their weights (n, k)."""
        vectors, zero = self._vectors(latent)
        # half the squared distances, less a constant for each query
        scores = self.shift - vectors @ self.bank.T
        width = min(self.n_neighbors + _SPARE, self.bank.shape[0])
        candidates = scores.topk(width, dim=1, largest=False).indices
        halves = (self.bank[candidates] - vectors[:, None]).square().sum(2) / 2
        halves = halves.masked_fill(self.zero[candidates] | zero[:, None], 1.0)
        halves, nearest = halves.topk(self.n_neighbors, dim=1, largest=False)
        indices = candidates.gather(1, nearest)
        if self.weights == "uniform":
            return indices, None
        # only ratios count, so the unit of the distances does not matter
        weights = inverse_distances(halves.sqrt() if self.metric == "euclidean" else halves)
        return indices, weights / weights.sum(1, keepdim=True)
