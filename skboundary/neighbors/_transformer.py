"""TorchKNeighborsTransformer: graphs of exact neighbors for other estimators."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from os import PathLike
from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from skboundary._device import DeviceLike
from skboundary.neighbors._exact_search import ExactSearch


class TorchKNeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ExactSearch):
    """Transform X into a sparse graph of exact nearest neighbors.

    The graph is that of :class:`sklearn.neighbors.KNeighborsTransformer`, computed by the search of
    :class:`TorchNearestNeighbors`. Estimators with ``metric="precomputed"`` or
    ``affinity="precomputed_nearest_neighbors"`` take it in place of samples.

    Read more in the :ref:`User Guide <neighbor_graphs>`.

    Parameters
    ----------
    mode : {'distance', 'connectivity'}, default='distance'
        Weight of an edge: the distance, or 1.

    n_neighbors : int, default=5
        Number of neighbors of each sample. Each training sample is its own neighbor, so the graph
        has ``n_neighbors + 1`` neighbors with ``mode='distance'``, as that of scikit-learn.

    metric : {'euclidean', 'sqeuclidean', 'cosine'}, default='euclidean'
        The distance. A zero vector has the cosine distance 1 to every vector, itself included.

    device : {'auto'}, str or torch.device, default='auto'
        Device of the search; 'auto' is CUDA, MPS or the CPU, in this order.

    batch_size : {'auto'} or int, default='auto'
        Number of queries compared at a time. It does not affect the result.

    bank : str or path-like, default=None
        A folder for the samples, as in :class:`TorchNearestNeighbors`.

    n_jobs : int, default=None
        Number of threads of a search on the CPU, as in :class:`TorchNearestNeighbors`. It does not
        affect the result.

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
    TorchNearestNeighbors : The search, and graphs of all neighbors within a radius.
    sklearn.neighbors.KNeighborsTransformer : More metrics, and trees.

    Notes
    -----
    `metric` and `device` take effect in `fit`, the other parameters in `transform`.

    Examples
    --------
    >>> from sklearn.cluster import SpectralClustering
    >>> from sklearn.pipeline import make_pipeline
    >>> from skboundary import TorchKNeighborsTransformer
    >>> X = [[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]]
    >>> graph = TorchKNeighborsTransformer(n_neighbors=1, device="cpu").fit_transform(X)
    >>> graph.toarray()[:2]
    array([[0., 1., 0., 0., 0., 0.],
           [1., 0., 0., 0., 0., 0.]])
    >>> clusters = make_pipeline(
    ...     TorchKNeighborsTransformer(n_neighbors=2),
    ...     SpectralClustering(2, affinity="precomputed_nearest_neighbors", n_neighbors=2),
    ... )
    >>> labels = clusters.fit_predict(X)
    """

    _parameter_constraints: dict[str, Any] = {
        **ExactSearch._parameter_constraints,
        "mode": [StrOptions({"distance", "connectivity"})],
    }

    def __init__(
        self,
        *,
        mode: str = "distance",
        n_neighbors: int = 5,
        metric: str = "euclidean",
        device: DeviceLike = "auto",
        batch_size: str | int = "auto",
        bank: str | PathLike[str] | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.mode = mode
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.device = device
        self.batch_size = batch_size
        self.bank = bank
        self.n_jobs = n_jobs
        self.verbose = verbose

    def transform(self, X: ArrayLike) -> Any:
        """Compute the graph of the nearest training samples of X.

        Parameters
        ----------
        X : {array-like, sparse matrix, torch.Tensor} of shape (n_samples, n_features)
            A dask array is read in blocks.

        Returns
        -------
        graph : csr_matrix or csr_array of shape (n_samples, `n_samples_fit_`)
            The neighbors of a sample are nearest first. `sparse_interface` of
            `sklearn.set_config` selects a matrix or an array.

        Raises
        ------
        ValueError
            If there are fewer training samples than neighbors.
        """
        check_is_fitted(self)
        self._validate_params()  # n_neighbors and mode may have been set since fit
        X, one_more = self._check(X, reset=False), self.mode == "distance"
        n_neighbors = self._check_n_neighbors(self.n_neighbors, X.shape[0], itself=one_more)
        return self._graph(X, n_neighbors + one_more, self.mode)

    @property
    def _n_features_out(self) -> int:
        return self.n_samples_fit_
