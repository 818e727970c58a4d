"""TorchNearestNeighbors: exact nearest neighbors with the API of `NearestNeighbors`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from numbers import Real
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils._param_validation import Interval

from skboundary._device import DeviceLike
from skboundary.neighbors._exact_search import ExactSearch
from skboundary.neighbors._graph import check_mode, graph
from skboundary.neighbors._radius import search_radius_ranges
from skboundary.neighbors._streamed_search import distance_dtype, in_dtype


class TorchNearestNeighbors(ExactSearch):
    """Exact nearest neighbors on the CPU or a GPU: the k nearest, or all within a radius.

    The result equals that of a brute-force search in float64: the same samples, nearest first,
    with ties resolved by the lowest index, whatever the offset and scale of the data. Most of the
    computation is done by float32 and bfloat16 matrix products.

    Read more in the :ref:`User Guide <nearest_neighbors>`.

    Parameters
    ----------
    n_neighbors : int, default=5
        Number of neighbors that `kneighbors` returns by default.

    radius : float, default=1.0
        Distance up to which `radius_neighbors` returns neighbors by default, in the unit of
        `metric`: a squared distance for 'sqeuclidean'.

    metric : {'euclidean', 'sqeuclidean', 'cosine'}, default='euclidean'
        The distance. A zero vector has the cosine distance 1 to every vector.

    device : {'auto'}, str or torch.device, default='auto'
        Device of the search; 'auto' is CUDA, MPS or the CPU, in this order.

    batch_size : {'auto'} or int, default='auto'
        Number of queries compared at a time, up to twice as many in bfloat16. It does not affect
        the result.

    bank : str or path-like, default=None
        A folder that `fit` writes the samples to, and that they are searched in by memory map,
        part by part, so that they need not fit into memory. If it contains samples already,
        because `fit` was interrupted or another object has written them, they must be the first
        of X, and `fit` continues after them. A pickle contains the path.

    n_jobs : int, default=None
        Number of threads of a search on the CPU, at most one for each processor; -1 is all
        processors, -2 all but one. None is the current number of torch
        (``torch.get_num_threads()``). It does not affect the result.

    verbose : int, default=0
        If positive, a search shows a progress bar.

    Attributes
    ----------
    n_samples_fit_ : int
        Number of samples in the index.

    device_ : torch.device
        Device of the samples.

    effective_metric_ : str
        The distance of the index: `metric` at the time of `fit`.

    n_features_in_ : int
        Number of columns seen in `fit`.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only if X has column names that are all strings.

    input_shape_ : tuple of int
        Shape of one sample, ``(n_features_in_,)``.

    See Also
    --------
    TorchKNeighborsTransformer : The graph of the neighbors, as a transformer.
    sklearn.neighbors.NearestNeighbors : More metrics, and trees.

    Notes
    -----
    `fit` stores a reference to X, without copying a memory map, and one float32 copy. After about
    1,000 queries this copy makes way for a smaller table where that is faster, which is found by
    timing both and does not change a result.

    Distances are float32 for float32, float16 and small integers (up to 16 bits), and float64 for
    other dtypes. A distance that exceeds the largest number of that dtype raises an error.

    `metric` and `device` take effect in `fit`, the other parameters when neighbors are searched;
    `partial_fit` and a pickle keep the metric of `fit`.

    Examples
    --------
    >>> from skboundary.neighbors import TorchNearestNeighbors
    >>> X = [[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]
    >>> neighbors = TorchNearestNeighbors(n_neighbors=2, device="cpu").fit(X)
    >>> distances, indices = neighbors.kneighbors([[3.0, 3.0]])
    >>> indices
    array([[1, 0]])
    >>> neighbors.radius_neighbors_graph(radius=5.0).toarray()
    array([[0., 1., 0.],
           [1., 0., 1.],
           [0., 1., 0.]])
    """

    _parameter_constraints: dict[str, Any] = {
        **ExactSearch._parameter_constraints,
        "radius": [Interval(Real, 0, None, closed="both")],
    }

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        radius: float = 1.0,
        metric: str = "euclidean",
        device: DeviceLike = "auto",
        batch_size: str | int = "auto",
        bank: str | PathLike[str] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.metric = metric
        self.device = device
        self.batch_size = batch_size
        self.bank = bank
        self.n_jobs = n_jobs
        self.verbose = verbose

    def radius_neighbors(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:
        """Find all samples within a radius.

        A sample at the distance `radius` is included. Distances are compared with `radius` in
        float64, before they are rounded to the dtype of the result.

        Parameters
        ----------
        X : {array-like, sparse matrix, torch.Tensor} of shape (n_queries, n_features), \
                default=None
            The queries. If None, neighbors of each sample of `fit` are returned; a sample is not
            considered its own neighbor. A dask array is read in blocks.
        radius : float, default=None
            The largest distance; None is the parameter of the estimator.
        return_distance : bool, default=True
            Whether to return the distances.
        sort_results : bool, default=False
            Whether to return the nearest neighbors first, those with the lowest index first among
            equals, instead of the order of indices. Needs `return_distance`.

        Returns
        -------
        distances : ndarray of shape (n_queries,) of arrays
            Distances to the neighbors of each query, only if `return_distance` is True.
        indices : ndarray of shape (n_queries,) of arrays of dtype int64
            Indices of the samples.

        Raises
        ------
        ValueError
            If `radius` is negative or NaN, if `sort_results` is True and `return_distance` is
            not, or if a distance within the radius overflows.
        """
        if sort_results and not return_distance:
            raise ValueError("return_distance must be True if sort_results is True.")
        counts, *found = self._within(X, radius, sort_results)
        ends = np.cumsum(counts)[:-1]
        distances, indices = (_arrays(np.split(part, ends)) for part in found)
        return (distances, indices) if return_distance else indices

    def radius_neighbors_graph(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        mode: str = "connectivity",
        sort_results: bool = False,
    ) -> Any:
        """Compute the sparse graph of all neighbors within a radius.

        Parameters
        ----------
        X : {array-like, sparse matrix, torch.Tensor} of shape (n_queries, n_features), \
                default=None
            As in `radius_neighbors`.
        radius : float, default=None
            As in `radius_neighbors`.
        mode : {'connectivity', 'distance'}, default='connectivity'
            Weight of an edge: 1 or the distance.
        sort_results : bool, default=False
            Whether to store the nearest neighbors of a query first.

        Returns
        -------
        graph : csr_matrix or csr_array of shape (n_queries, `n_samples_fit_`)
            `sparse_interface` of `sklearn.set_config` selects a matrix or an array.

        Raises
        ------
        ValueError
            If `mode` is invalid, and as in `radius_neighbors`.
        """
        check_mode(mode)
        counts, distances, indices = self._within(X, radius, sort_results)
        return graph(counts, distances, indices, self.n_samples_fit_, mode)

    def _within(
        self, X: Any, radius: float | None, sort: bool
    ) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[np.intp]]:
        """Number of neighbors of each query, and distances and indices of all of them."""
        queries = self._check_queries(X)
        self._validate_params()  # parameters may have been set since fit
        radius = _check_radius(self.radius if radius is None else radius)
        with self._threads():
            found = search_radius_ranges(
                self._index,
                self._index.samples if queries is None else queries,
                radius,
                sort=sort,
                **self._settings(itself=queries is None),
            )
        return found.counts.numpy(), *in_dtype(found, distance_dtype(self._index.samples))


def _check_radius(radius: Any) -> float:
    if not isinstance(radius, Real):
        raise TypeError(f"radius must be a number, got {radius!r}.")
    try:
        largest = float(radius)
    except OverflowError:  # of an integer
        largest = math.inf
    if not largest >= 0:
        raise ValueError(f"radius must be at least 0, got {radius!r}.")
    return largest


def _arrays(parts: list[NDArray[Any]]) -> NDArray[np.object_]:
    """Put arrays of different lengths into an array."""
    arrays = np.empty(len(parts), dtype=object)
    for i, part in enumerate(parts):
        arrays[i] = part
    return arrays
