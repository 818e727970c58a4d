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
from skboundary._device import to_numpy, to_tensor
from skboundary.exceptions import ScoreMismatchWarning, warn_caller
from skboundary.functional.margins import class_margin, pairwise_margin
from skboundary.functional.root_finding import find_root
from skboundary.networks._agreement import disagreeing
from skboundary.networks._black_box import BlackBox, has_scores, predicted_labels
from skboundary.networks._view import NetworkView

Logits = Callable[[Tensor], Tensor]

_PROBES = 256  # rows on which labels and scores are compared
_EQUAL = 1e-3  # probabilities that differ by less are equal
_STEP = 1e-4  # of the range of X: a score that stays the same over it is a step function


class Oracle:
    """A fitted classifier, asked about rows that are tensors.

    Parameters
    ----------
    view : NetworkView
    estimator : fitted classifier
        Its `predict` has the last word where there is no network.
    response : {"gradient", "score", "label"}
        What the classifier offers; with "label" its scores are not asked.
    columns : tuple (str, array), default=None
        Library and names of the columns of a DataFrame, where the classifier was fitted on one.
    forward : callable, default=None
        Differentiable logits, from `NetworkView.function`.

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
        view: NetworkView,
        estimator: Any,
        response: str,
        columns: Any = None,
        forward: Logits | None = None,
    ) -> None:
        self.view, self.estimator, self.response = view, estimator, response
        self.columns = columns
        self.device, self.dtype, self.eps = view.device, view.input_dtype, view.eps
        self.n_classes = len(view.classes_)
        self._has_network = not isinstance(view.model, BlackBox)
        self.n_runs = 1 if self._has_network or response == "label" else 2
        # one dtype for all of a search, whatever the network ends in
        self.forward = None if forward is None else lambda x: forward(x).to(self.dtype)

    def logits(self, x: Tensor) -> Tensor:
        """Scores (n, n_classes) of rows (n, ...), without gradients."""
        if not len(x):  # which a classifier need not take
            return x.new_empty(0, self.n_classes)
        if self.forward is None:
            return self.view.logits(self._rows(x)).to(self.device, self.dtype)
        row_bytes = x[0].numel() * x.element_size()
        size = resolve_batch_size(self.view.batch_size, row_bytes, self.device)
        forward = self.forward
        with torch.no_grad():
            parts = [*map_batches(lambda rows: forward(x[rows]), len(x), size)]
        return torch.cat(parts)

    def labels(self, x: Tensor) -> Tensor:
        """What `predict` says of rows (n, ...), as positions in `classes_`, (n,)."""
        if self._has_network or not len(x):
            return self.logits(x).argmax(1)
        codes = labels_of(self.view, self.estimator, to_numpy(x), self.columns)
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
    return torch.where(target < 0, over_all, pairwise_margin(logits, target.clamp_min(0), source))


def labels_of(view: NetworkView, estimator: Any, X: NDArray[Any], columns: Any) -> NDArray[np.intp]:
    """What `predict` says of rows (n, ...), as positions in `classes_`, (n,)."""
    rows = as_rows(X, columns)
    if isinstance(view.model, BlackBox):
        return np.searchsorted(view.classes_, predicted_labels(estimator, rows))
    return to_numpy(view.logits(rows).argmax(1))


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
    view: NetworkView, estimator: Any, response: str, columns: Any = None
) -> Iterator[Oracle]:
    """Open a classifier for questions, and lend its network where there is one."""
    if not view.differentiable:
        yield Oracle(view, estimator, response, columns)
        return
    with view.function() as forward:
        yield Oracle(view, estimator, response, columns, forward)


def count_nan_gradients(view: NetworkView, X: NDArray[Any]) -> int:
    """Count the rows (n, ...) at which the logits of a network have NaN for a gradient."""
    row_bytes = int(np.prod(X.shape[1:])) * view.dtype.itemsize
    size = resolve_batch_size(view.batch_size, row_bytes, view.device)
    with torch.inference_mode(False), view.function() as forward, torch.enable_grad():

        def step(rows: slice) -> int:
            x = to_tensor(X[rows], device=view.device, dtype=view.input_dtype).requires_grad_()
            (gradient,) = torch.autograd.grad(forward(x).sum(), x)
            return int(gradient.isnan().flatten(1).any(1).sum())

        return sum(map_batches(step, len(X), size))


def find_response(
    view: NetworkView, estimator: Any, X: NDArray[Any], columns: Any, rng: np.random.Generator
) -> str:
    """Find out what a classifier offers: "gradient", "score" or "label".

    Scores that disagree with `predict`, and scores that are step functions (forests), are none:
    a root of theirs is no boundary, or cannot be found by their slope.
    """
    if view.differentiable:
        return "gradient"
    head = view.model.head if isinstance(view.model, BlackBox) else None
    if head is not None and not has_scores(head):
        return "label"
    oracle = Oracle(view, estimator, "score", columns)
    rows, others = rng.choice(len(X), (2, min(len(X), _PROBES)))
    probes = np.concatenate([X[rows], X[rows] / 2 + X[others] / 2])
    axis = 0 if X.ndim == 2 else None
    width = X.max(axis=axis).astype(np.float64) - X.min(axis=axis)
    steps = _STEP * width * rng.choice([-1.0, 1.0], probes.shape)
    x = to_tensor(probes, device=oracle.device, dtype=oracle.dtype)
    moved = to_tensor(probes + steps, device=oracle.device, dtype=oracle.dtype)
    scores = oracle.logits(x)
    wrong = disagreeing(scores, oracle.labels(x), view.eps)
    if wrong.any():
        warn_caller(
            f"predict of {type(estimator).__name__} disagrees with its scores on "
            f"{int(wrong.sum())} of {len(wrong)} rows. What predict says is the truth here: only "
            "the methods that ask for labels serve this classifier.",
            ScoreMismatchWarning,
        )
        return "label"
    smooth = (oracle.logits(moved) != scores).any(1)
    return "score" if smooth.double().mean() > 0.5 and _is_continuous(oracle, x) else "label"


def _is_continuous(oracle: Oracle, x: Tensor) -> bool:
    """Whether two classes can be equally probable between most rows (n, ...) that they divide."""
    labels = oracle.labels(x)
    start, end = torch.arange(len(x) - 1, device=x.device), torch.arange(1, len(x), device=x.device)
    across = labels[start] != labels[end]
    start, end = start[across], end[across]
    width = x[end] - x[start]

    def gap(t: Tensor, rows: Tensor) -> Tensor:
        t = t.reshape(-1, *[1] * (x.ndim - 1))
        p = oracle.view.proba(oracle.logits(x[start[rows]] + t * width[rows]))
        pair = torch.stack([labels[start[rows]], labels[end[rows]]], 1)
        return p.gather(1, pair).diff(dim=1)[:, 0]

    low, every = x.new_zeros(len(start)), torch.arange(len(start), device=x.device)
    if not len(start):
        return True
    root = find_root(
        gap, low, low + 1, gap(low, every), gap(low + 1, every), tol=_EQUAL, max_iter=40
    )
    return bool(root.converged.double().mean() > 0.5)
