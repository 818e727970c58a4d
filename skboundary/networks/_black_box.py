"""A classifier that is no network: scores in place of logits, X in place of a latent space."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._device import to_tensor
from skboundary.networks._digest import digest
from skboundary.networks._layers import flatten_latent
from skboundary.networks._lift import softmax

_LEAST = 1e-12  # probability: the logarithm of less would depend on the dtype


class BlackBox:
    """Latent vectors and scores of any object with `predict`.

    Logits are the logarithm of `predict_proba` where there is one, else `decision_function`
    (two classes: minus and plus its half), else the logarithm of the one-hot prediction.

    Parameters
    ----------
    head : fitted classifier
    steps : list of transformers
        The steps before it; their output is the latent space.
    pool : see `LatentTransformer`
    device : torch.device
    dtype : torch.dtype
    """

    probed = True
    link = staticmethod(softmax)

    def __init__(
        self, head: Any, *, steps: Any, pool: str | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.head, self.steps, self.pool = head, list(steps), pool
        self.device = device
        self.dtype = self.input_dtype = self.compute_dtype = dtype
        self.eps = torch.finfo(dtype).eps

    @property
    def name(self) -> str:
        """Class of the classifier, for messages."""
        return type(self.head).__name__

    def run(self, rows: Any, *, latent: bool, logits: bool) -> tuple[Tensor | None, Tensor | None]:
        """Latent vectors (n, n_latent) and logits (n, n_classes), each when asked for."""
        for step in self.steps:
            rows = step.transform(rows)
        z = flatten_latent(self._tensor(rows), self.pool) if latent else None
        return z, self._logits(rows) if logits else None

    def digest(self, memory_key: str | None = None) -> str:
        """Name what this model computes; see `TorchModel.digest`."""
        parts: dict[str, Any] = {"head": self.head, "steps": self.steps}
        if memory_key is not None:
            parts = {"memory_key": memory_key, "head": type(self.head).__qualname__}
        return digest(**parts, pool=self.pool, dtype=self.dtype)

    def _logits(self, rows: Any) -> Tensor:
        if hasattr(self.head, "predict_proba"):
            p = self._tensor(self.head.predict_proba(rows))
        elif hasattr(self.head, "decision_function"):
            scores = self._tensor(self.head.decision_function(rows))
            if scores.ndim == 1:
                return torch.stack([-scores, scores], 1) / 2
            if scores.shape[1] != len(self.head.classes_):
                raise ValueError(
                    f"decision_function of {type(self.head).__name__} has {scores.shape[1]} "
                    f"columns for {len(self.head.classes_)} classes. Where it has one for each "
                    "pair of classes set decision_function_shape='ovr'."
                )
            return scores
        else:
            labels = predicted_labels(self.head, rows)
            p = self._tensor(labels[:, None] == self.head.classes_)
        return p.clamp_min(_LEAST).log()

    def _tensor(self, array: Any) -> Tensor:
        return to_tensor(array, device=self.device, dtype=self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "device": torch.device("cpu")}


def predicted_labels(classifier: Any, rows: Any) -> NDArray[Any]:
    """Labels (n,) that a classifier predicts, also where it gives them as a column."""
    labels = np.asarray(classifier.predict(rows))
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def has_scores(head: Any) -> bool:
    """Whether a classifier gives more than labels."""
    return hasattr(head, "predict_proba") or hasattr(head, "decision_function")
