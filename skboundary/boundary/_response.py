"""What a fitted classifier offers to a search: gradients, scores or labels."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import to_tensor
from skboundary.boundary._oracle import Oracle
from skboundary.exceptions import ScoreMismatchWarning, warn_caller
from skboundary.functional.root_finding import find_root
from skboundary.networks import Network
from skboundary.networks._agreement import disagreeing

_PROBES = 256  # rows on which labels and scores are compared
_EQUAL = 1e-3  # probabilities that differ by less are equal
_STEP = 1e-4  # of the range of X: a score that stays the same over it is a step function


def count_nan_gradients(network: Network, X: NDArray[Any]) -> int:
    """Count the rows (n, ...) at which the logits of a network have NaN for a gradient."""
    row_bytes = int(np.prod(X.shape[1:])) * network.dtype.itemsize
    size = resolve_batch_size(network.batch_size, row_bytes, network.device)
    with (
        torch.inference_mode(False),
        network.differentiable_logits() as forward,
        torch.enable_grad(),
    ):

        def step(rows: slice) -> int:
            x = to_tensor(
                X[rows], device=network.device, dtype=network.input_dtype
            ).requires_grad_()
            (gradient,) = torch.autograd.grad(forward(x).sum(), x)
            return int(gradient.isnan().flatten(1).any(1).sum())

        return sum(map_batches(step, len(X), size))


def find_response(
    network: Network, estimator: Any, X: NDArray[Any], columns: Any, rng: np.random.Generator
) -> str:
    """Find out what a classifier offers: "gradient", "score" or "label".

    Scores that disagree with `predict`, and scores that are step functions (forests), are none:
    a root of theirs is no boundary, or cannot be found by their slope.
    """
    if network.differentiable:
        return "gradient"
    if not network.has_scores:
        return "label"
    oracle = Oracle(network, estimator, "score", columns)
    rows, others = rng.choice(len(X), (2, min(len(X), _PROBES)))
    probes = np.concatenate([X[rows], X[rows] / 2 + X[others] / 2])
    axis = 0 if X.ndim == 2 else None
    width = X.max(axis=axis).astype(np.float64) - X.min(axis=axis)
    steps = _STEP * width * rng.choice([-1.0, 1.0], probes.shape)
    x = to_tensor(probes, device=oracle.device, dtype=oracle.dtype)
    moved = to_tensor(probes + steps, device=oracle.device, dtype=oracle.dtype)
    scores = oracle.logits(x)
    wrong = disagreeing(scores, oracle.labels(x), network.eps)
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
        p = oracle.network.proba(oracle.logits(x[start[rows]] + t * width[rows]))
        pair = torch.stack([labels[start[rows]], labels[end[rows]]], 1)
        return p.gather(1, pair).diff(dim=1)[:, 0]

    low, every = x.new_zeros(len(start)), torch.arange(len(start), device=x.device)
    if not len(start):
        return True
    root = find_root(
        gap, low, low + 1, gap(low, every), gap(low + 1, every), tol=_EQUAL, max_iter=40
    )
    return bool(root.converged.double().mean() > 0.5)
