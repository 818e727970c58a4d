"""Classifiers without a torch module: scores as logits, and X as the latent space."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor

from skboundary._batching import joined
from skboundary._device import to_tensor
from skboundary._sample_array import SampleArray, blocks
from skboundary.networks._batched import BatchedNetwork
from skboundary.networks._digest import digest
from skboundary.networks._labels import look_up
from skboundary.networks._layers import flatten_latent
from skboundary.networks._outputs import softmax

_SMALLEST = 1e-12  # probability; the logarithm of smaller ones would depend on the dtype


class EstimatorNetwork(BatchedNetwork):
    """A fitted classifier without gradients as a `Network`.

    Logits are the logarithm of `predict_proba` if available, else `decision_function` (for two
    classes minus and plus its half), else the logarithm of the one-hot prediction. The latent
    space is the output of the steps of a pipeline before the classifier.

    Parameters
    ----------
    estimator : fitted classifier, Pipeline or FrozenEstimator
    pool : see `LatentTransformer`
    device : torch.device
    dtype : torch.dtype
    batch_size, verbose : see `LatentTransformer`
    """

    is_module = differentiable = affine = has_linear = ends_in_logits = False
    link = staticmethod(softmax)

    def __init__(
        self,
        estimator: Any,
        *,
        pool: str | None = None,
        device: torch.device,
        dtype: torch.dtype,
        batch_size: Any = "auto",
        verbose: int = 0,
    ) -> None:
        self.estimator, self.pool = estimator, pool
        self.steps, self.head = split(estimator)
        super().__init__(
            classes=self.head.classes_,
            device=device,
            dtype=dtype,
            input_dtype=dtype,
            compute_dtype=dtype,
            batch_size=batch_size,
            verbose=verbose,
        )
        self.eps = torch.finfo(dtype).eps

    @property
    def name(self) -> str:
        """Class of the classifier, for messages."""
        return type(self.head).__name__

    @property
    def has_scores(self) -> bool:
        """Whether the classifier has `predict_proba` or `decision_function`."""
        return hasattr(self.head, "predict_proba") or hasattr(self.head, "decision_function")

    def proba(self, logits: Tensor) -> Tensor:
        """Probabilities (n, n_classes) that belong to logits (n, n_classes)."""
        return softmax(logits)

    def labels(self, X: Any) -> Tensor:
        """Positions (n_samples,) in `classes_` of what `predict` returns."""
        if isinstance(X, (np.ndarray, SampleArray)):
            calls = ([predicted_codes(self.estimator, X[b], self.classes_)] for b in blocks(X))
            (codes,) = joined(calls, len(X))
        else:
            codes = predicted_codes(self.estimator, X, self.classes_)
        return torch.from_numpy(codes)

    def differentiable_logits(self) -> NoReturn:
        """Raise a TypeError: there are no gradients."""
        raise TypeError(f"{self.name} has no gradient with respect to X.")

    def last_linear(self) -> None:
        """None: there is no linear layer."""
        return

    def digest(self, memory_key: str | None = None) -> str:
        """Digest of all that the outputs depend on besides X; see `Network.digest`."""
        parts: dict[str, Any] = {"head": self.head, "steps": self.steps}
        if memory_key is not None:
            parts = {"memory_key": memory_key, "head": type(self.head).__qualname__}
        return digest(**parts, pool=self.pool, dtype=self.dtype)

    def _begin(self, first: Callable[[], Any], latent: bool) -> None:
        pass

    def _forward(
        self, samples: Any, latent: bool, logits: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        for step in self.steps:
            samples = step.transform(samples)
        z = flatten_latent(self._tensor(samples), self.pool) if latent else None
        return z, self._scores(samples) if logits else None

    def _scores(self, samples: Any) -> Tensor:
        if hasattr(self.head, "predict_proba"):
            p = self._tensor(self.head.predict_proba(samples))
        elif hasattr(self.head, "decision_function"):
            scores = self._tensor(self.head.decision_function(samples))
            if scores.ndim == 1:
                return torch.stack([-scores, scores], 1) / 2
            if scores.shape[1] != len(self.head.classes_):
                raise ValueError(
                    f"decision_function of {self.name} has {scores.shape[1]} columns for "
                    f"{len(self.head.classes_)} classes. If it has one for each pair of classes, "
                    "set decision_function_shape='ovr'."
                )
            return scores
        else:
            codes = predicted_codes(self.head, samples, np.asarray(self.head.classes_))
            p = self._tensor(codes[:, None] == np.arange(len(self.head.classes_)))
        return p.clamp_min(_SMALLEST).log()

    def _tensor(self, array: Any) -> Tensor:
        return to_tensor(array, device=self.device, dtype=self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "device": torch.device("cpu")}


def split(estimator: Any) -> tuple[list[Any], Any]:
    """Split a fitted estimator into the steps that transform X and the classifier."""
    steps: list[Any] = []
    while isinstance(estimator, (Pipeline, FrozenEstimator)):
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
            continue
        for _, step in estimator.steps[:-1]:
            # samplers only act in fit
            if step not in (None, "passthrough") and not hasattr(step, "fit_resample"):
                steps.append(step)
        estimator = estimator.steps[-1][1]
    return steps, estimator


def predicted_codes(classifier: Any, X: Any, classes: NDArray[Any]) -> NDArray[np.intp]:
    """Predicted labels as positions (n_samples,) in classes; a column of labels will do.

    Raises
    ------
    ValueError
        If the classifier returns another number of labels, or one that is not among the classes.
    """
    labels, name = np.asarray(classifier.predict(X)), type(classifier).__name__
    if labels.shape not in ((X.shape[0],), (X.shape[0], 1)):
        raise ValueError(
            f"predict of {name} returns an array of shape {labels.shape} for {X.shape[0]} samples; "
            "a classifier returns one label per sample."
        )
    labels = labels.reshape(-1)
    codes = look_up(labels, classes)
    if (codes < 0).any():
        raise ValueError(
            f"predict of {name} returns {labels[codes < 0].tolist()[0]!r}, which is not among its "
            f"classes_ {classes[:10].tolist()}."
        )
    return codes
