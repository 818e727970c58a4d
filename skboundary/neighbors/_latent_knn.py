"""LatentKNNClassifier: outputs of a network averaged over neighbors in a latent space."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral, Real
from os import PathLike
from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted

from skboundary._batching import joined
from skboundary._callbacks import fit_tasks
from skboundary._device import DeviceLike, to_numpy
from skboundary._random import RandomStateLike
from skboundary._validation import all_or_nothing
from skboundary.neighbors._bank import Found
from skboundary.neighbors._label_issues import LabelIssuesMixin
from skboundary.neighbors._latents import LatentsMixin
from skboundary.neighbors._module import ModuleMixin
from skboundary.neighbors._out_of_distribution import OutOfDistributionMixin
from skboundary.neighbors._protocol import NeighborSearch
from skboundary.neighbors._reports import ReportsMixin
from skboundary.neighbors._sharded_search import by_ranges, describe_neighbors
from skboundary.neighbors._storage import StorageMixin
from skboundary.neighbors._sweep import SweepMixin
from skboundary.neighbors._votes import resolve_vote
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import resolve_labels
from skboundary.networks._parameters import LATENT_CONSTRAINTS, fill_docstring


@fill_docstring
class LatentKNNClassifier(
    StorageMixin,
    NetworkHostMixin,
    LatentsMixin,
    SweepMixin,
    ReportsMixin,
    LabelIssuesMixin,
    OutOfDistributionMixin,
    ModuleMixin,
    ClassifierMixin,
    BaseEstimator,
):
    """Average a network's output for a sample with its outputs for nearest training samples.

    In LaSeNN [1]_ the neighbors are the training samples with the nearest activations in one
    layer. They contribute the outputs of the network for them, not their labels. The output is
    ``w C(x) + (1 - w) / k * (sum of C over the k neighbors)``, with the defaults of the paper.
    `weights` and `contribute` cover related methods: kNN-LM [2]_ and the cache of Tip-Adapter
    [3]_ average labels, weighted by similarity.

    Read more in the :ref:`User Guide <latent_knn>`.

    Parameters
    ----------
    {estimator}
    {layer}
    {pool}
    n_neighbors : int, default=3
        The number k of neighbors.
    query_weight : float in [0, 1], default=0.88
        The weight w of the sample's own output; 1 is the base network. If the network has
        memorized wrong labels, values far below the default perform better.
    metric : {"euclidean", "sqeuclidean", "cosine"}, default="euclidean"
        Distance in the latent space; "cosine" in the tables of the paper.
    average : {"proba", "logits"}, default="proba"
        Whether probabilities or logits are averaged. The probabilities of a classifier without
        `predict_proba` are the softmax of its decision values.
    weights : {"uniform", "distance"} or callable, default="uniform"
        Weight of each neighbor among the neighbors. "distance" is the inverse of the distance. A
        callable receives distances, a float64 array (n_samples, k), and returns an array of that
        shape, for instance ``lambda d: np.exp(d.min(1, keepdims=True) - d)``. It sees some samples
        at a time, and only ratios within a sample count.
    contribute : {"outputs", "labels"}, default="outputs"
        Whether neighbors contribute the outputs of the network, or the labels given to `fit`,
        which require `y` and ``average="proba"``.
    query_transforms : list of callables, default=None
        Each receives a copy of a batch of X (an array, a CSR matrix, or a DataFrame if the
        classifier accepts one) and returns one of the same shape, such as a horizontal flip.
        Neighbors of the transformed samples are searched as well; the lists are merged by
        training sample, and the k closest are kept. The sample's own output is not averaged over
        transforms. They do not apply to training samples (`kneighbors()`, `diagnose()`).
    neighbors : object with `fit` and `kneighbors`, default=None
        Another search, a :class:`~skboundary.neighbors.NeighborSearch`, cloned and fitted on the
        latent vectors; its own metric applies. None is :class:`TorchNearestNeighbors`, which is
        exact.
    {memory}
    {memory_key}
    bank : str or path-like, default=None
        A folder that `fit` writes the latent vectors and outputs of the training samples to, part
        by part, and in which they are searched by memory map, so that they need not fit into
        memory. What an interrupted `fit` has written is kept if the network and the samples are
        the same. None keeps them in memory. A pickle contains the path.
    {device}
    {batch_size}
    {random_state}
    {verbose}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels; for a trained network all of its classes.
    {estimator_}
    neighbors_ : object
        The search, fitted on the latent vectors of the training samples.
    n_samples_fit_ : int
        Number of training samples.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    LatentTransformer : The latent vectors themselves.
    TorchNearestNeighbors : The exact search.

    Notes
    -----
    Latent vectors that were computed elsewhere take the place of X in `fit_latent` and in
    `predict_latent`, `predict_proba_latent` and `kneighbors_latent`.

    `n_neighbors`, `query_weight`, `average`, `weights`, `contribute`, `query_transforms` and
    `verbose` take effect at predict time, without a refit; the others in `fit`.
    The outputs of the network for the training samples are stored and not computed again.

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       `arXiv 2310.03927 <https://arxiv.org/abs/2310.03927>`_.
    .. [2] U. Khandelwal et al., "Generalization through memorization: nearest neighbor language
       models", `arXiv 1911.00172 <https://arxiv.org/abs/1911.00172>`_.
    .. [3] R. Zhang et al., "Tip-Adapter: training-free adaption of CLIP for few-shot
       classification", `arXiv 2207.09519 <https://arxiv.org/abs/2207.09519>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentKNNClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LatentKNNClassifier(metric="cosine", random_state=0).fit(X, y)
    >>> clf.predict(X[:2])
    array([0, 0])
    >>> clf.set_params(n_neighbors=5).explain(X[:1]).indices.shape
    (1, 5)
    """

    _callers = ("fit", "partial_fit")  # of metadata
    _parameter_constraints: dict[str, Any] = {
        **LATENT_CONSTRAINTS,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "query_weight": [Interval(Real, 0, 1, closed="both")],
        "metric": [StrOptions({"euclidean", "sqeuclidean", "cosine"})],
        "average": [StrOptions({"proba", "logits"})],
        "weights": [StrOptions({"uniform", "distance"}), callable],
        "contribute": [StrOptions({"outputs", "labels"})],
        "query_transforms": [list, tuple, None],
        "neighbors": [HasMethods(["fit", "kneighbors"]), None],
        "bank": [str, PathLike, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        layer: Any = "auto",
        pool: str | None = None,
        n_neighbors: int = 3,
        query_weight: float = 0.88,
        metric: str = "euclidean",
        average: str = "proba",
        weights: Any = "uniform",
        contribute: str = "outputs",
        query_transforms: Any = None,
        neighbors: NeighborSearch | None = None,
        memory: Any = None,
        memory_key: str | None = None,
        bank: str | PathLike[str] | None = None,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.layer = layer
        self.pool = pool
        self.n_neighbors = n_neighbors
        self.query_weight = query_weight
        self.metric = metric
        self.average = average
        self.weights = weights
        self.contribute = contribute
        self.query_transforms = query_transforms
        self.neighbors = neighbors
        self.memory = memory
        self.memory_key = memory_key
        self.bank = bank
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    @fit_tasks(lambda self: self._n_trainings + 1)
    def fit(
        self, X: ArrayLike, y: ArrayLike | None = None, **fit_params: Any
    ) -> LatentKNNClassifier:
        """Run the training samples through the network once, and index their latent vectors.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Optional for a trained network; `explain` then returns no labels, and `diagnose` is
            not available.
        **fit_params : dict
            Metadata for `fit` of `estimator`, such as `sample_weight`, see :ref:`metadata`.

        Returns
        -------
        self : LatentKNNClassifier

        Raises
        ------
        ValueError
            If X is not finite, if y contains labels that the network does not have, if its outputs
            do not match the classes, if the layer does not exist, if there are fewer samples than
            neighbors, or if ``contribute="labels"`` lacks y or ``average="proba"``. If `bank` was
            written with another network, metric, X or y, or is combined with `neighbors`.
        """
        self._check_search()
        X, y = self._check_fit(X, y)
        resolve_vote(self, y)
        self.n_samples_fit_ = X.shape[0]
        self._check_n_neighbors(self.n_neighbors)
        metadata = self._route(fit_params, X).fit
        self.estimator_, self._network = self._as_network(X, y, fit_params=metadata)
        self.device_ = self._network.device
        self.classes_, self._codes = resolve_labels(y, self._network.classes_)
        return self._store(X)

    @over_chunks(lambda self, X: Output((), self.classes_.dtype))
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    @over_chunks(lambda self, X: Output((len(self.classes_),), self._bank.network.dtype))
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.
        """
        check_is_fitted(self)
        X = self._check(X)
        k, vote = self.n_neighbors, resolve_vote(self, self._codes)
        self._check_n_neighbors(k)
        blocks = self._bank.blocks(X, k, self.query_transforms, self.verbose)
        mixed = ([to_numpy(self._bank.mixed(block, vote))] for block in blocks)
        return joined(mixed, X.shape[0])[0]

    @over_chunks(describe_neighbors, by_ranges)
    def kneighbors(
        self,
        X: ArrayLike | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> Any:
        """Find the nearest training samples in the latent space.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            If None, neighbors of each training sample are returned; a sample is not considered
            its own neighbor.
        n_neighbors : int, default=None
            Number of neighbors; None is the parameter of the estimator.
        return_distance : bool, default=True
            Whether to return the distances.

        Returns
        -------
        distances : ndarray of shape (n_samples, n_neighbors)
            Distances to the neighbors, only if `return_distance` is True.
        indices : ndarray of shape (n_samples, n_neighbors)
            Indices of the training samples.
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        self._validate(n_neighbors=k)
        if X is None:
            distances, indices = self._bank.own_neighbors(k)
        else:
            _, _, distances, indices = self._collect(self._check(X), k)
        return (distances, indices) if return_distance else indices

    def _check(self, X: Any) -> Any:
        self._bank.check_network()  # before X, whose shape is known to a network only
        self._validate_params()  # n_neighbors and query_weight may have been set since fit
        return self._check_X(X)

    def _validate(self, **params: Any) -> None:
        """Raise a ValueError for invalid values of parameters."""
        validate_parameter_constraints(
            self._parameter_constraints, params, caller_name=type(self).__name__
        )

    def _collect(self, X: Any, k: int) -> Found:
        self._check_n_neighbors(k)
        return self._bank.collect(X, k, self.query_transforms, self.verbose)

    def _check_n_neighbors(self, k: int) -> None:
        if k > self.n_samples_fit_:
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {k}, "
                f"n_samples_fit = {self.n_samples_fit_}, n_samples = {self.n_samples_fit_}. "
                "Lower n_neighbors or fit on more samples."
            )
