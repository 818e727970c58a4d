"""The protocol that every classifier is reduced to."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Logits = Callable[[Tensor], Tensor]


class Network(Protocol):
    """A fitted classifier as a function with a latent space.

    `as_network` makes one of any classifier. Samples are whatever the classifier takes: arrays,
    sparse matrices, DataFrames. They are processed in batches. Tensors come back on the CPU.

    Attributes
    ----------
    name : str
        Class of the classifier or module, for messages.
    classes_ : ndarray of shape (n_classes,)
        Sorted; the columns of logits and probabilities. Known once logits were computed.
    n_latent : int
        Number of latent features. Known once latent vectors were computed.
    device : torch.device
        Where the classifier is computed.
    dtype : torch.dtype
        Of latent vectors and logits: float32, or float64 where the classifier computes in it.
    input_dtype : torch.dtype
        Of points that a search moves, never a half precision.
    eps : float
        Machine epsilon of the coarsest floating dtype that takes part in the logits. A network
        may end in a coarser dtype than that of its parameters, under `torch.autocast` for
        instance, so it is certain only once logits were computed.
    batch_size : "auto" or int
    verbose : int
    is_module : bool
        Whether a torch module computes it, or else `predict` and the scores of an estimator.
    differentiable : bool
        Whether the logits have gradients with respect to X.
    affine : bool
        Whether the logits are known to be affine in X.
    has_scores : bool
        Whether the classifier has more than labels.
    has_linear : bool
        Whether a module holds an `nn.Linear`, so that ``layer="auto"`` means a layer.
    ends_in_logits : bool
        Whether a module's own outputs are the logits, not logarithms of its probabilities.
    """

    classes_: NDArray[Any]
    n_latent: int
    device: torch.device
    dtype: torch.dtype
    input_dtype: torch.dtype
    batch_size: Any
    verbose: int

    @property
    def name(self) -> str: ...

    @property
    def eps(self) -> float: ...

    @property
    def is_module(self) -> bool: ...

    @property
    def differentiable(self) -> bool: ...

    @property
    def affine(self) -> bool: ...

    @property
    def has_scores(self) -> bool: ...

    @property
    def has_linear(self) -> bool: ...

    @property
    def ends_in_logits(self) -> bool: ...

    def latent(self, X: Any, bar: Any = None) -> Tensor:
        """Latent vectors (n_samples, n_latent); `bar` as in `map_batches`."""
        ...

    def logits(self, X: Any, index: NDArray[np.intp] | None = None) -> Tensor:
        """Logits (n_samples, n_classes), of the samples at `index` if given."""
        ...

    def latent_and_logits(
        self, X: Any, bar: Any = None, index: NDArray[np.intp] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        ...

    def proba(self, logits: Tensor) -> Tensor:
        """Probabilities (n, n_classes) that belong to logits (n, n_classes)."""
        ...

    def labels(self, X: Any) -> Tensor:
        """Positions (n_samples,) in `classes_` of what `predict` of the classifier returns."""
        ...

    def differentiable_logits(self) -> AbstractContextManager[Logits]:
        """Logits as a differentiable function.

        Within the context the module is in evaluation mode, its parameters are frozen, and it is
        locked for other threads.

        Yields
        ------
        logits : callable
            From samples (n, ...), a tensor on `device`, to logits (n, n_classes).

        Raises
        ------
        TypeError
            When the classifier is not differentiable.
        """
        ...

    def last_linear(self) -> tuple[Tensor, Tensor] | None:
        """Weight (n_classes, n_latent) and bias (n_classes,) of the layer that `latent` feeds.

        Copies, rows as in `classes_`; the layer of a network with one output becomes minus and
        plus its half. None where latent vectors are not the input of a linear layer with one
        output for each class. Latent vectors and logits must have been computed before.
        """
        ...

    def snapshot(self) -> Network:
        """The network with weights and code as they are now, for several calls in a row.

        A cache makes the digest once instead of in each call.
        """
        ...

    def digest(self, memory_key: str | None = None) -> str:
        """Digest of all that the outputs depend on besides X.

        Parameters
        ----------
        memory_key : str, default=None
            Stands for all code and all attributes.

        Returns
        -------
        key : str

        Raises
        ------
        ValueError
            For ``memory_key=None``, when something cannot be read; names it.
        """
        ...
