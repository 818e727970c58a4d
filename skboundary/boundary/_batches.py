"""How the samples of a call are cut into batches, and these into tasks."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from skboundary._batching import resolve_batch_size
from skboundary.boundary._classifier import SEARCH_NUMBERS, FittedClassifier
from skboundary.boundary.methods._registry import Method

# A search by gradients takes up to 40 times the memory of its batch, which is therefore limited to
# a fifth of that of a single pass.
_SAMPLES_HELD_CPU = 5
_FEWEST = 32  # samples of a black box that are worth a task: its calls have a fixed cost


def batch_size(
    classifier: FittedClassifier, shape: tuple[int, ...], method: Method, n_tasks: int = 1
) -> int:
    """Number of samples in a search batch, for samples (n, ...) of a shape.

    Batches of one call are of equal size, or nearly. Only those of a black box depend on the number
    of tasks: it classifies each sample alone.
    """
    network, n, numbers = classifier.network, shape[0], math.prod(shape[1:])
    if method.pairs_at_once:
        return n
    if classifier.batch_size == "auto" and not network.differentiable:
        size = max(1, SEARCH_NUMBERS // numbers)
        if not network.is_module:
            size = min(size, max(_FEWEST, math.ceil(n / n_tasks)))
    else:
        held = _SAMPLES_HELD_CPU if network.device.type == "cpu" else 1
        sample_bytes = held * numbers * network.dtype.itemsize
        size = resolve_batch_size(classifier.batch_size, sample_bytes, network.device)
    return size if n <= size else math.ceil(n / math.ceil(n / size))


def cut_into_runs(
    source: NDArray[np.intp], target: NDArray[np.intp], method: Method, size: int, n_runs: int
) -> list[NDArray[np.intp]]:
    """Cut samples, in the order of their class pairs, into at most n runs of whole batches.

    The batches do not depend on n, so neither do the results. A method that trains on class pairs
    gets some of these at a time.
    """
    key = source * (target.max(initial=0) + 2) + target
    order = np.argsort(key, kind="stable")
    if not len(key):
        return []
    if method.pairs_at_once:
        pairs = np.unique(key)
        cuts = np.searchsorted(key[order], pairs[method.pairs_at_once :: method.pairs_at_once])
    else:
        batches = np.array_split(np.arange(0, len(key), size), n_runs)
        cuts = np.array([run[0] for run in batches[1:] if len(run)], np.intp)
    return np.split(order, cuts)
