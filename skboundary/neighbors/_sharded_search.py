"""What `kneighbors` returns for dask arrays."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np

from skboundary._device import to_tensor
from skboundary.networks._chunks import Output, Outputs


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
    if hasattr(search, "_index"):
        wide = str(search._index.samples.dtype).endswith("float64")  # of numpy or torch
        dtypes: Any = (np.float64 if wide else np.float32, np.int64)
    else:  # those of a foreign search, from one search
        latent = to_tensor(estimator._bank.stored.latent[:1])
        dtypes = tuple(array.dtype for array in estimator._bank.neighbors(latent, 1))
    outputs = tuple(Output((k,), dtype) for dtype in dtypes)
    return outputs if return_distance else outputs[1]


def _search_of(estimator: Any) -> Any:
    """The search of a LatentKNNClassifier, or the TorchNearestNeighbors itself."""
    return getattr(estimator, "neighbors_", estimator)
