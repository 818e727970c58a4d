"""Exact search batch by batch, and range by range among samples on disk, with the same result.

Each range is searched with an index of its own, and lists are merged by (distance, index). One
index orders by half squared distances, of which two may have the same root, so ranges are searched
by squared distances and roots are taken last. This takes numbers whose squares float64 can hold;
where there are others, euclidean distances are merged, which differ from those of one index by
rounding only.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from torch import Tensor

from skboundary._bank_folder import BankFolder
from skboundary._batching import joined, map_batches, progress
from skboundary._device import move, to_tensor
from skboundary._part_array import PartArray
from skboundary.functional.nearest_neighbors import (
    Neighbors,
    NeighborsWithin,
    SearchIndex,
    build_index,
    merge,
    search,
)

_RANGE_BYTES = 2**25  # of the table of a range
# Numbers of these magnitudes, and 0, differ by 0 or so much that neither the square nor that of
# differences multiplied by a power of two leaves the range in which `search` uses squares.
_MAGNITUDES = 2.0**-190, 2.0**190


class BankIndex(NamedTuple):
    """What takes the place of a `SearchIndex` where the samples are latent vectors of a bank."""

    bank: BankFolder
    metric: str

    @property
    def samples(self) -> PartArray:
        return self.bank.latent


def search_batches(
    index: SearchIndex,
    queries: Any,
    k: int,
    *,
    to_device: Callable[[Any], Tensor],
    batch_size: int,
    n_together: int,
    itself: bool,
    verbose: int = 0,
) -> Neighbors:
    """Find the k nearest samples of each query in an index.

    Parameters
    ----------
    index : SearchIndex
    queries : array-like or Tensor of shape (q, d)
        Read by slices.
    k : int
    to_device : callable
        Converts samples or queries to a tensor.
    batch_size, n_together : int
        See `functional.nearest_neighbors.search`; queries searched in one call.
    itself : bool
        Whether query i is sample i, which is not returned.
    verbose : int, default=0
        If positive, shows a progress bar.

    Returns
    -------
    neighbors : Neighbors
        On the CPU.
    """

    def step(part: slice) -> Neighbors:
        batch = to_device(queries[part])
        exclude = torch.arange(part.start, part.stop, device=batch.device) if itself else None
        near = search(index, batch, k, exclude=exclude, batch_size=batch_size)
        return move(near, torch.device("cpu"))

    n_queries = queries.shape[0]
    parts = map_batches(step, n_queries, n_together, verbose=verbose, desc="neighbors")
    return Neighbors(*joined(parts, n_queries))


def search_ranges(
    samples: PartArray,
    queries: Any,
    k: int,
    *,
    metric: str,
    to_device: Callable[[Any], Tensor],
    batch_size: int,
    n_together: int,
    itself: bool,
    verbose: int = 0,
) -> Neighbors:
    """Find the k nearest samples of each query among samples on disk.

    Parameters
    ----------
    samples : PartArray of shape (n, d)
    metric : {"euclidean", "sqeuclidean", "cosine"}
    queries, k, to_device, batch_size, n_together, itself, verbose : object
        See `search_batches`.

    Returns
    -------
    neighbors : Neighbors
        On the CPU.

    Raises
    ------
    ValueError
        If a sample is not finite.
    """
    q, merged = queries.shape[0], merged_metric(metric, samples, queries)
    best, parts = no_neighbors(q, k, len(samples)), ranges(samples)
    with progress(q * len(parts), "neighbors", verbose) as bar:
        for inside in parts:
            index = build_range(samples, inside, merged, to_device)

            def step(batch: slice, index: SearchIndex = index, first: int = inside.start) -> Any:
                found = []
                for part, exclude in _split(batch, first, len(index.samples), itself):
                    near = min(k, len(index.samples) - (exclude is not None))
                    if near:
                        query = to_device(queries[part])
                        without = None if exclude is None else exclude.to(query.device)
                        of_part = search(index, query, near, exclude=without, batch_size=batch_size)
                        found.append((part, *move(of_part, torch.device("cpu"))))
                return found

            for found in map_batches(step, q, n_together, bar=bar):
                for part, distances, indices in found:
                    new = Neighbors(distances, indices + inside.start)
                    known = Neighbors(best.distances[part], best.indices[part])
                    best.distances[part], best.indices[part] = merge(known, new)
    return best if merged == metric else Neighbors(best.distances.sqrt_(), best.indices)


def merged_metric(metric: str, samples: Any, queries: Any) -> str:
    """The metric by which lists of ranges are merged, see above."""
    rooted = metric == "euclidean" and all(map(_can_be_squared, (samples, queries)))
    return "sqeuclidean" if rooted else metric


def no_neighbors(q: int, k: int, n: int) -> Neighbors:
    """Lists (q, k) that the neighbors among any n samples replace."""
    distances = torch.full((q, k), torch.inf, dtype=torch.float64)
    return Neighbors(distances, torch.full((q, k), n, dtype=torch.int64))


def build_range(
    samples: PartArray, inside: slice, metric: str, to_device: Callable[[Any], Tensor]
) -> SearchIndex:
    """Index a range of samples on disk.

    Raises
    ------
    ValueError
        If a sample is not finite.
    """
    some = to_device(samples[inside])
    if some.is_floating_point() and not some.isfinite().all():
        raise ValueError(
            f"The bank holds NaN or infinity among its samples {inside.start} to "
            f"{inside.stop - 1}: it was changed or damaged."
        )
    return build_index(some, metric)


def distance_dtype(samples: Any) -> type:
    """Dtype of distances from samples, an array or tensor."""
    return np.float64 if str(samples.dtype).endswith("float64") else np.float32


def in_dtype(
    found: Neighbors | NeighborsWithin, dtype: type
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Distances in a dtype, and indices.

    Raises
    ------
    ValueError
        If a distance is beyond the numbers of the dtype.
    """
    distances, indices = found.distances.numpy(), found.indices.numpy()
    largest, limit = distances.max(initial=0), np.finfo(dtype).max
    if largest > limit:
        raise ValueError(
            f"A distance of {largest:.2g} is beyond {limit:.2g}, the largest number of "
            f"{np.dtype(dtype)}, the dtype of X. Fit on X as float64, or divide it by a "
            "constant."
        )
    return distances.astype(dtype, copy=False), indices


def ranges(samples: PartArray) -> list[slice]:
    """Ranges whose table is of limited size."""
    size = 4 * samples.shape[1]  # of one sample, in float32
    return [*gen_batches(len(samples), max(1, _RANGE_BYTES // size))]


def _split(batch: slice, first: int, n: int, itself: bool) -> Iterator[tuple[slice, Tensor | None]]:
    """Split queries into those that are among the n samples of a range and others.

    Yields
    ------
    part : slice
    exclude : Tensor or None
        Position of each query in the range.
    """
    if not itself:
        yield batch, None
        return
    start, stop = (min(max(i, batch.start), batch.stop) for i in (first, first + n))
    if batch.start < start:
        yield slice(batch.start, start), None
    if start < stop:
        yield slice(start, stop), torch.arange(start - first, stop - first)
    if stop < batch.stop:
        yield slice(stop, batch.stop), None


def _can_be_squared(array: Any) -> bool:
    """Whether float64 holds the squares of all differences of these numbers, see above."""
    if to_tensor(array[:1]).dtype != torch.float64:
        return True
    low, high = _MAGNITUDES
    for part in gen_batches(array.shape[0], max(1, _RANGE_BYTES // (8 * array.shape[1]))):
        size = to_tensor(array[part]).abs()
        if ((size > high) | ((size < low) & (size > 0))).any():
            return False
    return True
