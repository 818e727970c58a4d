"""What the estimators of exact neighbors share: stored samples, `kneighbors` and its graph."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import copy
from numbers import Integral
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skboundary._bank_folder import BankFolder
from skboundary._batching import BATCH_BYTES, resolve_batch_size
from skboundary._callbacks import fit_tasks
from skboundary._device import DeviceLike, resolve_device, resolve_dtype, to_numpy, to_tensor
from skboundary._plain import State
from skboundary._random import torch_threads
from skboundary._site import DocLinkMixin
from skboundary._validation import all_or_nothing, check_input
from skboundary.functional.nearest_neighbors import build_index
from skboundary.neighbors._bank_writing import sample_form, write_samples
from skboundary.neighbors._graph import check_mode, graph
from skboundary.neighbors._sharded_search import by_ranges, describe_neighbors
from skboundary.neighbors._streamed_search import (
    BankIndex,
    distance_dtype,
    in_dtype,
    search_batches,
    search_ranges,
)
from skboundary.networks._carrier import StoredStateMixin
from skboundary.networks._chunks import over_chunks

# Batches of queries searched together: queries that need a float64 search share one pass over the
# samples.
_BATCHES_TOGETHER = 16


class ExactSearch(StoredStateMixin, DocLinkMixin, BaseEstimator):
    """Base of the estimators that search for exact neighbors; a subclass has the parameters."""

    _parameter_constraints: dict[str, Any] = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "metric": [StrOptions({"euclidean", "sqeuclidean", "cosine"})],
        "device": [str, torch.device],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "bank": [str, PathLike, None],
        "n_jobs": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Integral, None, -1, closed="right"),
            None,
        ],
        "verbose": ["verbose"],
    }

    n_neighbors: int
    metric: str
    device: DeviceLike
    batch_size: str | int
    bank: str | PathLike[str] | None
    n_jobs: int | None
    verbose: int
    _index: Any  # SearchIndex or BankIndex

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing()
    @fit_tasks()
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Fit the nearest neighbors index.

        Parameters
        ----------
        X : {array-like, sparse matrix, torch.Tensor} of shape (n_samples, n_features)
            Sparse matrices are converted to dense.
        y : object, default=None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X is not two-dimensional, or contains NaN or infinity, or if `bank` holds other
            samples or was written with another metric.
        """
        samples = self._check(X, reset=True)
        self.device_ = resolve_device(self.device)
        self.effective_metric_ = self.metric
        if self.bank is None:
            return self._keep(self._to_device(samples))
        form = sample_form(self, samples)
        bank = BankFolder.open_or_create(self.bank, metric=self.metric, samples=form)
        return self._keep(self._write(bank, samples))

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing()
    def partial_fit(self, X: ArrayLike, y: ArrayLike | None = None) -> Self:
        """Add samples to the index; the first call is equivalent to `fit`.

        Parameters
        ----------
        X : {array-like, sparse matrix, torch.Tensor} of shape (n_samples, n_features)
        y : object, default=None
            Ignored.

        Returns
        -------
        self : object

        Raises
        ------
        ValueError
            If X has another number of columns than the samples in the index, or if another
            process has written to the bank.
        """
        if not hasattr(self, "_index"):
            return self.fit(X)
        new = self._check(X, reset=False)
        if isinstance(self._index, BankIndex):
            bank = self._index.bank.reopened()  # which may hold samples of an interrupted call
            return self._keep(self._write(bank, new, first=self.n_samples_fit_))
        return self._keep(torch.cat([self._index.samples, self._to_device(new)]))

    @over_chunks(describe_neighbors, by_ranges)
    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find the nearest samples.

        Parameters
        ----------
        X : {array-like, sparse matrix, torch.Tensor} of shape (n_queries, n_features), \
                default=None
            The queries. If None, neighbors of each sample of `fit` are returned; a sample is not
            considered its own neighbor.
        n_neighbors : int, default=None
            Number of neighbors; None is the parameter of the estimator.
        return_distance : bool, default=True
            Whether to return the distances.

        Returns
        -------
        distances : ndarray of shape (n_queries, n_neighbors)
            Distances to the neighbors, only if `return_distance` is True.
        indices : ndarray of shape (n_queries, n_neighbors), dtype int64
            Indices of the samples.

        Raises
        ------
        ValueError
            If there are fewer samples than neighbors, or if a distance overflows.
        """
        found = self._search(self._check_queries(X), n_neighbors)
        return found if return_distance else found[1]

    def _search(self, X: Any, n_neighbors: int | None) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Distances and indices for validated queries; None as in `kneighbors`."""
        self._validate_params()  # n_neighbors and batch_size may have been set since fit
        samples = self._index.samples
        queries = samples if X is None else X
        k = self._check_n_neighbors(n_neighbors, queries.shape[0], itself=X is None)
        settings = self._settings(itself=X is None)
        with self._threads():
            if isinstance(self._index, BankIndex):
                found = search_ranges(samples, queries, k, metric=self._index.metric, **settings)
            else:
                found = search_batches(self._index, queries, k, **settings)
        return in_dtype(found, distance_dtype(samples))

    def _threads(self) -> AbstractContextManager[None]:
        """Search with `n_jobs` threads in the block."""
        return torch_threads(self.n_jobs if self.device_.type == "cpu" else None)

    def _settings(self, *, itself: bool) -> dict[str, Any]:
        """How to search, see `search_batches`."""
        batch_size = resolve_batch_size(self.batch_size, 8 * self.n_features_in_, self.device_)
        return dict(
            to_device=self._to_device,
            batch_size=batch_size,
            n_together=batch_size * _BATCHES_TOGETHER,
            itself=itself,
            verbose=self.verbose,
        )

    def kneighbors_graph(
        self, X: ArrayLike | None = None, n_neighbors: int | None = None, mode: str = "connectivity"
    ) -> Any:
        """Compute the sparse graph of the neighbors.

        Parameters
        ----------
        X : {array-like, sparse matrix, torch.Tensor} of shape (n_queries, n_features), \
                default=None
            As in `kneighbors`, but a dask array is read in blocks.
        n_neighbors : int, default=None
            As in `kneighbors`.
        mode : {'connectivity', 'distance'}, default='connectivity'
            Weight of an edge: 1 or the distance.

        Returns
        -------
        graph : csr_matrix or csr_array of shape (n_queries, `n_samples_fit_`)
            The neighbors of a query are nearest first. `sparse_interface` of
            `sklearn.set_config` selects a matrix or an array.

        Raises
        ------
        ValueError
            If `mode` is invalid, or if there are fewer samples than neighbors.
        """
        return self._graph(self._check_queries(X), n_neighbors, mode)

    def _graph(self, X: Any, n_neighbors: int | None, mode: str) -> Any:
        """The graph of validated queries."""
        check_mode(mode)
        distances, indices = self._search(X, n_neighbors)
        counts = np.full(len(indices), indices.shape[1])
        return graph(counts, distances.ravel(), indices.ravel(), self.n_samples_fit_, mode)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _stored_state(self) -> State:
        state = super()._stored_state()
        if "_index" in state:  # the index is as large as the samples and quickly rebuilt
            index = state["_index"]
            state["_index"] = index.bank if isinstance(index, BankIndex) else index.samples
        return state

    def _restore(self, state: State) -> None:
        super()._restore(state)
        samples: Any = state.get("_index")
        if samples is not None:
            self._search_in(samples)

    def _search_in(self, samples: Any) -> None:
        """Search among stored samples, or in a bank, which may be missing until it is used."""
        if isinstance(samples, BankFolder):
            self._keep(samples)
            return
        if samples.ndim != 2 or samples.shape[1] != self.n_features_in_:
            raise ValueError(
                f"its samples have shape {tuple(samples.shape)} instead of "
                f"(n_samples, {self.n_features_in_})"
            )
        self._keep(self._to_device(samples))

    def _without_samples(self) -> Self:
        """A shallow copy that is stored without its samples, for an owner that stores them."""
        copied = copy(self)
        copied.__dict__.pop("_index", None)
        return copied

    def _keep(self, samples: torch.Tensor | BankFolder) -> Self:
        """Search among samples; those of a bank are its latent vectors."""
        if isinstance(samples, BankFolder):
            self._index = BankIndex(samples, self.effective_metric_)
            self.n_samples_fit_ = samples.n_samples
        else:
            self._index = build_index(samples, self.effective_metric_)
            self.n_samples_fit_ = len(samples)
        return self

    def _open(self, bank: BankFolder) -> Self:
        """Search in a bank, as after `fit`."""
        self.device_ = resolve_device(self.device)
        self.effective_metric_ = self.metric
        self.input_shape_ = bank.latent.shape[1:]
        self.n_features_in_ = self.input_shape_[0]
        return self._keep(bank)

    def _write(self, bank: BankFolder, samples: Any, first: int = 0) -> BankFolder:
        """Write samples to a bank in the dtype of the search."""
        dtype = self._search_dtype(samples)
        wider = bank.latent.dtype if bank.n_samples else None

        def compute(some: Any, bar: Any) -> tuple[NDArray[Any], None]:
            array = to_numpy(to_tensor(some, dtype=dtype))
            return array.astype(wider) if wider and np.can_cast(array.dtype, wider) else array, None

        block = max(1, BATCH_BYTES // (8 * self.n_features_in_))
        return write_samples(bank, samples, compute, block=block, first=first)

    def _check_queries(self, X: Any) -> Any:
        """Validate queries; None, for the samples themselves, stays."""
        check_is_fitted(self)
        return None if X is None else self._check(X, reset=False)

    def _check(self, X: Any, *, reset: bool) -> Any:
        X = check_input(self, X, reset=reset)
        if X.ndim != 2:
            raise ValueError(
                f"Found array with dim {X.ndim}, while dim <= 2 is required by "
                f"{type(self).__name__}. Flatten the samples with X.reshape(len(X), -1), or "
                "use the features of a network with LatentTransformer."
            )
        return X

    def _to_device(self, samples: Any) -> torch.Tensor:
        """Convert samples to a tensor; small integers are kept, and cast during the search."""
        if isinstance(samples, torch.Tensor):
            return samples.to(self.device_)
        return to_tensor(samples, device=self.device_, dtype=self._search_dtype(samples))

    def _search_dtype(self, samples: Any) -> torch.dtype | None:
        """Dtype of samples in the index; None keeps small integers."""
        small = np.can_cast(samples.dtype, np.int16)
        return None if small else resolve_dtype(samples, self.device_)

    def _check_n_neighbors(self, n_neighbors: int | None, n_queries: int, *, itself: bool) -> int:
        """Validate the number of neighbors with the messages of scikit-learn."""
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        if not isinstance(k, Integral):
            raise TypeError(f"n_neighbors does not take {type(k)} value, enter integer value")
        if k <= 0:
            raise ValueError(f"Expected n_neighbors > 0. Got {k}")
        if k > self.n_samples_fit_ - itself:
            raise ValueError(
                f"Expected n_neighbors {'<' if itself else '<='} n_samples_fit, but "
                f"n_neighbors = {k}, n_samples_fit = {self.n_samples_fit_}, "
                f"n_samples = {n_queries}"
            )
        return int(k)
