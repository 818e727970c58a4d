"""What a search for the boundary may ask of a classifier: labels, scores, gradients."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import to_numpy
from skboundary.functional.margins import class_margin, pairwise_margin
from skboundary.networks import Network

Logits = Callable[[Tensor], Tensor]


class Oracle:
    """A fitted classifier, asked about rows that are tensors.

    Parameters
    ----------
    network : Network
    estimator : fitted classifier
        Its `predict` has the last word where there is no network.
    response : {"gradient", "score", "label"}
        What the classifier offers; with "label" its scores are not asked.
    columns : tuple (str, array), default=None
        Library and names of the columns of a DataFrame, where the classifier was fitted on one.
    forward : callable, default=None
        Differentiable logits, from `Network.differentiable_logits`.

    Attributes
    ----------
    device, dtype : of the rows, and of the logits
    eps : float
        Machine epsilon of the coarsest dtype that takes part in the logits.
    n_classes : int
    n_runs : int
        Rows that the classifier runs for one that `inspect` is asked about.
    """

    def __init__(
        self,
        network: Network,
        estimator: Any,
        response: str,
        columns: Any = None,
        forward: Logits | None = None,
    ) -> None:
        self.network, self.estimator, self.response = network, estimator, response
        self.columns = columns
        self.device, self.dtype, self.eps = network.device, network.input_dtype, network.eps
        self.n_classes = len(network.classes_)
        self._has_network = network.is_module
        self.n_runs = 1 if self._has_network or response == "label" else 2
        # one dtype for all of a search, whatever the network ends in
        self.forward = None if forward is None else lambda x: forward(x).to(self.dtype)

    def logits(self, x: Tensor) -> Tensor:
        """Scores (n, n_classes) of rows (n, ...), without gradients."""
        if not len(x):  # which a classifier need not take
            return x.new_empty(0, self.n_classes)
        if self.forward is None:
            return self.network.logits(self._rows(x)).to(self.device, self.dtype)
        row_bytes = x[0].numel() * x.element_size()
        size = resolve_batch_size(self.network.batch_size, row_bytes, self.device)
        forward = self.forward
        with torch.no_grad():
            parts = [*map_batches(lambda rows: forward(x[rows]), len(x), size)]
        return torch.cat(parts)

    def labels(self, x: Tensor) -> Tensor:
        """What `predict` says of rows (n, ...), as positions in `classes_`, (n,)."""
        if self._has_network or not len(x):
            return self.logits(x).argmax(1)
        codes = labels_of(self.network, self.estimator, to_numpy(x), self.columns)
        return torch.from_numpy(codes).to(self.device)

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Labels (n,) of rows, and their scores (n, n_classes) where those count."""
        if self._has_network:
            logits = self.logits(x)
            return logits.argmax(1), None if self.response == "label" else logits
        return self.labels(x), None if self.response == "label" else self.logits(x)

    def margin(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Lead (n,) of the class `source` over `target`, over its best rival where that is -1."""
        return lead(self.logits(x), source, target)

    def _rows(self, x: Tensor) -> Any:
        return as_rows(to_numpy(x), self.columns)


def lead(logits: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Lead (n,) of the class `source` over `target`, over its best rival where that is -1."""
    over_all = class_margin(logits, source)
    return torch.where(target < 0, over_all, pairwise_margin(logits, source, target.clamp_min(0)))


def labels_of(network: Network, estimator: Any, X: NDArray[Any], columns: Any) -> NDArray[np.intp]:
    """What `predict` says of rows (n, ...), as positions in `classes_`, (n,)."""
    rows = as_rows(X, columns)
    return to_numpy(network.labels(rows))


def as_rows(X: NDArray[Any], columns: tuple[str, Any] | None) -> Any:
    """Put rows (n, d) into a DataFrame where the classifier was fitted on one.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
    columns : tuple (str, array) or None
        "pandas" or "polars", and the names.

    Returns
    -------
    rows : ndarray or DataFrame
    """
    if columns is None:
        return X
    from sklearn.utils._set_output import ADAPTERS_MANAGER

    library, names = columns
    return ADAPTERS_MANAGER.adapters[library].create_container(X, X, names)


@contextmanager
def consult(
    network: Network, estimator: Any, response: str, columns: Any = None
) -> Iterator[Oracle]:
    """Open a classifier for questions, and lend its network where there is one."""
    if not network.differentiable:
        yield Oracle(network, estimator, response, columns)
        return
    with network.differentiable_logits() as forward:
        yield Oracle(network, estimator, response, columns, forward)
