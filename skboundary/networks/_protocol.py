"""The protocol `Network`, to which every classifier is reduced."""

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

    `as_network` builds one from any classifier. Samples are arrays, sparse matrices or DataFrames,
    as the classifier accepts them, and are processed in batches. Tensors are returned on the CPU.

    Attributes
    ----------
    name : str
        Class of the classifier or module, for messages.
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels, the columns of logits and probabilities. Known after logits have been
        computed.
    n_latent : int
        Number of latent features. Known after latent vectors have been computed.
    device : torch.device
        Device of the computation.
    dtype : torch.dtype
        Dtype of latent vectors and logits: float32, or float64 if the classifier computes in it.
    input_dtype : torch.dtype
        Dtype of points that a search moves, never half precision.
    eps : float
        Machine epsilon of the coarsest floating dtype involved in the logits. The outputs of a
        network may be coarser than its parameters, for instance under `torch.autocast`, so the
        value is final only after logits have been computed.
    link : callable
        The function of `proba`.
    batch_size : "auto" or int
    verbose : int
    is_module : bool
        Whether a torch module computes the logits, instead of methods of an estimator.
    differentiable : bool
        Whether the logits have gradients with respect to X.
    affine : bool
        Whether the logits are known to be affine in X.
    has_scores : bool
        Whether the classifier has scores, not only labels.
    has_linear : bool
        Whether the module contains an `nn.Linear`, so that ``layer="auto"`` refers to a layer.
    ends_in_logits : bool
        Whether the outputs of the module are the logits, instead of probabilities.
    """

    classes_: NDArray[Any]
    n_latent: int
    device: torch.device
    dtype: torch.dtype
    input_dtype: torch.dtype
    link: Callable[[Tensor], Tensor]
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
        """Latent vectors and logits from one pass."""
        ...

    def n_batches(self, X: Any) -> int:
        """Number of batches in a pass over samples (n_samples, ...), if memory suffices."""
        ...

    def proba(self, logits: Tensor) -> Tensor:
        """Probabilities (n, n_classes) of logits (n, n_classes)."""
        ...

    def labels(self, X: Any) -> Tensor:
        """Positions (n_samples,) in `classes_` of the labels that `predict` returns."""
        ...

    def differentiable_logits(self) -> AbstractContextManager[Logits]:
        """Logits as a differentiable function.

        In the context, the module is in evaluation mode, its parameters are frozen, and other
        threads wait for it.

        Yields
        ------
        logits : callable
            Maps samples (n, ...), a tensor on `device`, to logits (n, n_classes).

        Raises
        ------
        TypeError
            If the classifier is not differentiable.
        """
        ...

    def last_linear(self) -> tuple[Tensor, Tensor] | None:
        """Weight (n_classes, n_latent) and bias (n_classes,) of the layer that `latent` feeds.

        They are copies, with rows in the order of `classes_`; a layer with one output becomes
        minus and plus its half. None if latent vectors are not the input of a linear layer with
        one output per class. Latent vectors and logits must have been computed before.
        """
        ...

    def snapshot(self) -> Network:
        """The network with weights and code as they are now, for several calls in a row.

        A cache makes the digest once instead of in each call.
        """
        ...

    def digest(self, memory_key: str | None = None) -> str:
        """Digest of everything except X that the outputs depend on.

        Parameters
        ----------
        memory_key : str, default=None
            Replaces all code and attributes.

        Returns
        -------
        key : str

        Raises
        ------
        ValueError
            With ``memory_key=None``, if an object cannot be read; the message names it.
        """
        ...
