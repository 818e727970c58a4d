"""Sparse graphs of neighbors."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import _align_api_if_sparse


def check_mode(mode: str) -> None:
    """Raise a ValueError for a `mode` of graphs that does not exist."""
    if mode not in ("connectivity", "distance"):
        raise ValueError(f"mode must be 'connectivity' or 'distance', got {mode!r}.")


def graph(
    counts: NDArray[np.intp],
    distances: NDArray[Any],
    indices: NDArray[np.intp],
    n_samples: int,
    mode: str,
) -> Any:
    """Join the neighbors of queries in a sparse graph.

    Parameters
    ----------
    counts : ndarray of shape (n_queries,)
        Number of neighbors of each query.
    distances, indices : ndarray of shape (n_edges,)
        Those of the first query first.
    n_samples : int
    mode : {"connectivity", "distance"}
        Whether weights are 1 or the distances.

    Returns
    -------
    graph : csr_matrix or csr_array of shape (n_queries, n_samples)
        As `sparse_interface` of `sklearn.set_config` says.
    """
    weights = distances if mode == "distance" else np.ones_like(distances)
    ends = np.concatenate([[0], np.cumsum(counts)])
    # a matrix, unlike an array, has indices of 32 bits where they suffice, as some estimators need
    edges = sparse.csr_matrix((weights, indices, ends), shape=(len(counts), n_samples))
    return _align_api_if_sparse(edges)
