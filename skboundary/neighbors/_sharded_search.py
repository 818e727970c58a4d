"""Search of a bank by tasks of a cluster: a range of its samples each, and an exact merge."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skboundary._device import to_numpy, to_tensor
from skboundary.functional.nearest_neighbors import Neighbors, SearchIndex, merge
from skboundary.neighbors._streamed_search import (
    BankIndex,
    build_range,
    distance_dtype,
    in_dtype,
    merged_metric,
    no_neighbors,
    search_batches,
)
from skboundary.networks._chunks import Chunk, Output, Outputs
from skboundary.networks._travel import receive

_RANGE_BYTES = 2**26  # of the samples of a range, in float32
_INDICES = 2  # that a worker keeps


def describe_neighbors(
    estimator: Any, X: Any, n_neighbors: int | None = None, return_distance: bool = True
) -> Outputs:
    """What `kneighbors` returns for a sample."""
    search = _search_of(estimator)
    k = estimator.n_neighbors if n_neighbors is None else n_neighbors
    if search is estimator:
        search._check_n_neighbors(k, search.n_samples_fit_, itself=False)
    else:
        estimator._validate(n_neighbors=k)
        estimator._check_n_neighbors(k)
    if isinstance(getattr(search, "_index", None), (BankIndex, SearchIndex)):
        dtypes: Any = (distance_dtype(search._index.samples), np.int64)
    else:  # those of a foreign search, from one search
        latent = to_tensor(estimator._bank.stored.latent[:1])
        dtypes = tuple(array.dtype for array in estimator._bank.neighbors(latent, 1))
    outputs = tuple(Output((k,), dtype) for dtype in dtypes)
    return outputs if return_distance else outputs[1]


def by_ranges(estimator: Any, chunk: Chunk) -> Any:
    """Divide `kneighbors` of a chunk into tasks for ranges of the bank.

    Parameters
    ----------
    estimator : TorchNearestNeighbors or LatentKNNClassifier
    chunk : Chunk

    Returns
    -------
    result : Delayed or None
        None where one task is enough, or several lists of neighbors are merged by sample.
    """
    from dask import delayed

    search, options = _search_of(estimator), dict(chunk.options)
    ranges = _ranges(search)
    if len(ranges) < 2 or getattr(estimator, "query_transforms", None):
        return None
    with_distance = options.pop("return_distance", True)
    k = options.pop("n_neighbors", None) or estimator.n_neighbors
    vectors = Output(search._index.samples.shape[1:], search._index.samples.dtype)
    queries = chunk._replace(options={}, outputs=vectors).task(queries_of)
    found = []
    for part in ranges:
        near = min(k, part.stop - part.start)
        lists = Output((near,), np.dtype(np.float64)), Output((near,), np.dtype(np.int64))
        task = chunk._replace(
            options={"k": near, "start": part.start, "stop": part.stop},
            block=queries,
            what=f"{chunk.what} in samples {part.start} to {part.stop - 1} of the bank",
            outputs=lists,
        )
        found.append(task.task(search_range))
    return delayed(merge_ranges, pure=False)(chunk.path, queries, found, k, with_distance)


def queries_of(estimator: Any, X: NDArray[Any]) -> NDArray[Any]:
    """Vectors (n, d) that are searched for samples (n, ...)."""
    if _search_of(estimator) is estimator:
        return to_numpy(estimator._to_device(estimator._check(X, reset=False)))
    return to_numpy(estimator._bank.network.latent(estimator._check(X)))


def search_range(
    estimator: Any, queries: NDArray[Any], k: int, start: int, stop: int
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Distances, squared where that is exact, and indices (n, k) among a range of the bank."""
    search = _search_of(estimator)
    index = _index_of(search, start, stop, _metric(search, queries))
    with search._threads():
        found = search_batches(index, queries, k, **search._settings(itself=False))
    return found.distances.double().numpy(), found.indices.numpy() + start


def merge_ranges(
    path: str, queries: NDArray[Any], lists: list[Any], k: int, with_distance: bool
) -> Any:
    """Merge the lists of all ranges as one search would: nearest first, ties by lowest index."""
    search = _search_of(receive(path))
    best = no_neighbors(len(queries), k, search.n_samples_fit_)
    for distances, indices in lists:
        best = merge(best, Neighbors(to_tensor(distances), to_tensor(indices)))
    if _metric(search, queries) != search._index.metric:
        best = Neighbors(best.distances.sqrt(), best.indices)
    result = in_dtype(best, distance_dtype(search._index.samples))
    return result if with_distance else result[1]


def _search_of(estimator: Any) -> Any:
    """The search of a LatentKNNClassifier, or the TorchNearestNeighbors itself."""
    return getattr(estimator, "neighbors_", estimator)


def _ranges(search: Any) -> list[slice]:
    """Ranges of the samples of a search in a bank; none if they are in memory."""
    if not isinstance(getattr(search, "_index", None), BankIndex):
        return []
    n, d = search._index.samples.shape
    return [*gen_batches(n, max(1, _RANGE_BYTES // (4 * d)))]


@lru_cache(maxsize=_INDICES)
def _index_of(search: Any, start: int, stop: int, metric: str) -> SearchIndex:
    return build_range(search._index.samples, slice(start, stop), metric, search._to_device)


def _metric(search: Any, queries: Any) -> str:
    """The metric by which lists are merged; the bank is read once to find it."""
    own, of_bank = search._index.metric, _metric_of_bank(search)
    return own if of_bank == own else merged_metric(own, search._index.samples[:1], queries)


@lru_cache(maxsize=_INDICES)
def _metric_of_bank(search: Any) -> str:
    samples = search._index.samples
    return merged_metric(search._index.metric, samples, samples[:1])
