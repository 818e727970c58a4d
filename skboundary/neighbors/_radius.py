"""All samples within a radius, batch by batch, and range by range among samples on disk."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skboundary._batching import map_batches, progress
from skboundary._device import move
from skboundary.functional.nearest_neighbors import NeighborsWithin, SearchIndex, search_radius
from skboundary.neighbors._streamed_search import BankIndex, build_range, ranges


def search_radius_ranges(
    index: SearchIndex | BankIndex,
    queries: Any,
    radius: float,
    *,
    sort: bool,
    to_device: Callable[[Any], Tensor],
    batch_size: int,
    n_together: int,
    itself: bool,
    verbose: int = 0,
) -> NeighborsWithin:
    """Find all samples within a radius of each query.

    Parameters
    ----------
    index : SearchIndex or BankIndex
    queries : array-like or Tensor of shape (q, d)
        Read by slices.
    radius : float
    sort : bool
        Whether the neighbors of a query are in the order of distances, else in that of indices.
    to_device, batch_size, n_together, itself, verbose : object
        See `search_batches`.

    Returns
    -------
    neighbors : NeighborsWithin
        On the CPU.

    Raises
    ------
    ValueError
        If a sample in a bank is not finite.
    """
    n_queries = queries.shape[0]
    samples: Any = index.samples
    in_bank = isinstance(index, BankIndex)
    parts = ranges(samples) if in_bank else [slice(0, len(samples))]
    found = []
    with progress(n_queries * len(parts), "neighbors", verbose) as bar:
        for inside in parts:
            some = build_range(samples, inside, index.metric, to_device) if in_bank else index

            def step(batch: slice, index: Any = some, first: int = inside.start) -> Any:
                query = to_device(queries[batch])
                numbers = torch.arange(batch.start, batch.stop, device=query.device) - first
                exclude = numbers if itself else None
                near = search_radius(index, query, radius, exclude=exclude, batch_size=batch_size)
                counts, distances, indices = move(near, torch.device("cpu"))
                return counts, distances, indices + first

            of_range = zip(*map_batches(step, n_queries, n_together, bar=bar), strict=True)
            found.append(NeighborsWithin(*map(torch.cat, of_range)))
    return _merged(found, sort)


def _merged(found: list[NeighborsWithin], sort: bool) -> NeighborsWithin:
    """Merge the neighbors in consecutive ranges of samples, and sort them by distance if asked."""
    if len(found) == 1 and not sort:
        return found[0]
    query = np.concatenate([np.repeat(np.arange(len(part.counts)), part.counts) for part in found])
    distances, indices = (torch.cat(part) for part in list(zip(*found, strict=True))[1:])
    keys = (distances.numpy(), query) if sort else (query,)
    order = torch.from_numpy(np.lexsort(keys))  # stable: the lowest index first among equals
    counts = torch.stack([part.counts for part in found]).sum(0)
    return NeighborsWithin(counts, distances[order], indices[order])
