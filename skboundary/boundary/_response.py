"""The response of a fitted classifier that a search can use: gradient, score or label."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import to_tensor
from skboundary.boundary._columns import Columns
from skboundary.boundary._inputs import data_range
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._points import along
from skboundary.exceptions import ScoreMismatchWarning, warn_caller
from skboundary.functional.margins import pairwise_margin
from skboundary.functional.root_finding import find_root
from skboundary.networks import Network
from skboundary.networks._agreement import disagreeing

_PROBES = 256  # samples on which labels and scores are compared
_EQUAL = 1e-3  # probabilities that differ by less are equal
_STEP = 1e-4  # of the range of X: a score that stays the same over it is a step function


def count_nan_gradients(network: Network, X: Any, index: NDArray[np.intp]) -> int:
    """Count those of some samples of X at which the gradient of a network's logits is NaN."""
    sample_bytes = int(np.prod(X.shape[1:])) * network.dtype.itemsize
    size = resolve_batch_size(network.batch_size, sample_bytes, network.device)
    with (
        torch.inference_mode(False),
        network.differentiable_logits() as forward,
        torch.enable_grad(),
    ):

        def step(batch: slice) -> int:
            x = to_tensor(X[index[batch]], device=network.device, dtype=network.input_dtype)
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(forward(x).sum(), x)
            return int(gradient.isnan().flatten(1).any(1).sum())

        return sum(map_batches(step, len(index), size))


def find_response(
    network: Network, name: str, X: Any, columns: Columns | None, rng: np.random.Generator
) -> str:
    """Determine the response of a classifier of the class `name`: "gradient", "score" or "label".

    Scores that disagree with `predict`, and scores that are step functions (forests), do not
    count: their roots are not on the boundary, or cannot be found by their slope.
    """
    if network.differentiable:
        return "gradient"
    if not network.has_scores:
        return "label"
    oracle = Oracle(network, "score", columns)
    index, others = rng.choice(len(X), (2, min(len(X), _PROBES)))
    probes = np.concatenate([X[index], X[index] / 2 + X[others] / 2])
    low, high = data_range(X)
    steps = _STEP * (high - low) * rng.choice([-1.0, 1.0], probes.shape)
    x = to_tensor(probes, device=oracle.device, dtype=oracle.dtype)
    moved = to_tensor(probes + steps, device=oracle.device, dtype=oracle.dtype)
    scores, labels = oracle.logits(x), oracle.labels(x)
    wrong = disagreeing(scores, labels, network.eps)
    if wrong.any():
        warn_caller(
            f"predict of {name} disagrees with its scores on {int(wrong.sum())} of {len(wrong)} "
            "samples. predict takes precedence: only methods that use predicted labels "
            "are available.",
            ScoreMismatchWarning,
        )
        return "label"
    smooth = (oracle.logits(moved) != scores).any(1).double().mean() > 0.5
    return "score" if smooth and _is_continuous(oracle, x, labels) else "label"


def _is_continuous(oracle: Oracle, x: Tensor, labels: Tensor) -> bool:
    """Whether two classes can be equally probable between most samples (n, ...) of two classes."""
    start, end = torch.arange(len(x) - 1, device=x.device), torch.arange(1, len(x), device=x.device)
    across = labels[start] != labels[end]
    start, end = start[across], end[across]
    if not len(start):
        return True

    def gap(t: Tensor, index: Tensor) -> Tensor:
        points = along(x[start[index]], x[end[index]], t)
        proba = oracle.network.proba(oracle.logits(points))
        return pairwise_margin(proba, labels[start[index]], labels[end[index]])

    low, index = x.new_zeros(len(start)), torch.arange(len(start), device=x.device)
    at_ends = gap(low, index), gap(low + 1, index)
    root = find_root(gap, low, low + 1, *at_ends, tol=_EQUAL, max_iter=40)
    return bool(root.converged.double().mean() > 0.5)
