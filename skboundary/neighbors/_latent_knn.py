"""LatentKNNClassifier: a network's output averaged with its neighbors' outputs."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.utils import Bunch, _safe_indexing
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skboundary._batching import progress
from skboundary._device import to_numpy
from skboundary._validation import all_or_nothing, check_targets
from skboundary.functional.latent_mixing import merge_lists, mix
from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.neighbors._reports import diagnosis, score_grid
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import encode_labels, resolve_labels
from skboundary.networks._parameters import LATENT_CONSTRAINTS, fill_docstring

# Rows whose latent vectors are held at once: enough to keep the search busy.
_BLOCK = 4096


class _Found(NamedTuple):
    """Rows of X after the network and the search."""

    latent: Tensor  # (n, n_latent)
    logits: Tensor  # (n, n_classes)
    distances: NDArray[Any]  # (n, k)
    indices: NDArray[np.intp]  # (n, k)


@fill_docstring
class LatentKNNClassifier(NetworkHostMixin, ClassifierMixin, BaseEstimator):
    """Average what a network says of a sample with what it says of the sample's neighbors.

    LaSeNN [1]_: neighbors are found among the training samples by the activations of one
    layer, and contribute the network's outputs for them, never their labels. Equation and
    defaults are the paper's: ``w C(x) + (1 - w) / k * (sum of C over the k neighbors)``.

    Read more in the :ref:`User Guide <latent_knn>`.

    Parameters
    ----------
    {estimator}
    {layer}
    {pool}
    n_neighbors : int, default=3
        The number k of neighbors.
    query_weight : float in [0, 1], default=0.88
        The weight w of the sample's own output. 1 is the bare network. Where the network has
        memorized wrong labels, values far below the default pay.
    metric : {"euclidean", "sqeuclidean", "cosine"}, default="euclidean"
        Distance in the latent space. The paper's tables were made with "cosine".
    average : {"proba", "logits"}, default="proba"
        What is averaged. A classifier without probabilities contributes softmax of its
        decision values.
    query_transforms : list of callables, default=None
        Each takes a copy of a batch of X (an array, a CSR matrix, or a DataFrame where the
        classifier takes one) and returns one of the same shape, such as a horizontal flip.
        Neighbors are searched for the transformed rows too; the lists are merged by training
        sample and the k closest stay. The sample's own output is not averaged over transforms.
        Training samples (`kneighbors()`, `diagnose()`) are searched for as they are.
    neighbors : object with `fit` and `kneighbors`, default=None
        Another search, cloned and fitted on the latent vectors; `metric` is then its own
        affair. None is :class:`TorchNearestNeighbors`, which is exact.
    {memory}
    {memory_key}
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
    `n_neighbors`, `query_weight`, `average`, `query_transforms` and `verbose` take effect at
    predict time, without a refit; the others in `fit`.
    The network never runs on the training samples again: their outputs are kept.

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       arXiv 2310.03927.

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

    _parameter_constraints: dict[str, Any] = {
        **LATENT_CONSTRAINTS,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "query_weight": [Interval(Real, 0, 1, closed="both")],
        "metric": [StrOptions({"euclidean", "sqeuclidean", "cosine"})],
        "average": [StrOptions({"proba", "logits"})],
        "query_transforms": [list, tuple, None],
        "neighbors": [HasMethods(["fit", "kneighbors"]), None],
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
        query_transforms: Any = None,
        neighbors: Any = None,
        memory: Any = None,
        memory_key: str | None = None,
        device: Any = "auto",
        batch_size: Any = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.layer = layer
        self.pool = pool
        self.n_neighbors = n_neighbors
        self.query_weight = query_weight
        self.metric = metric
        self.average = average
        self.query_transforms = query_transforms
        self.neighbors = neighbors
        self.memory = memory
        self.memory_key = memory_key
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    def fit(self, X: Any, y: Any = None) -> LatentKNNClassifier:
        """Run the training samples through the network once, and index their latent vectors.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            May be left out for a trained network; `explain` and `diagnose` then know no labels.

        Returns
        -------
        self : LatentKNNClassifier

        Raises
        ------
        ValueError
            For input that is not finite, labels that the network does not know, outputs that
            do not fit the classes, an unknown layer, or fewer samples than neighbors.
        """
        if self.neighbors is not None and self.metric != "euclidean":
            raise ValueError(
                f"metric={self.metric!r} has no effect on neighbors={self.neighbors!r}: set the "
                "metric on that object, and leave metric at its default."
            )
        X, y = self._check_fit(X, y)
        self.n_samples_fit_ = X.shape[0]
        self._check_n_neighbors(self.n_neighbors)
        self.estimator_, self._network = self._as_network(X, y)
        self.device_ = self._network.device
        self.classes_, self._codes = resolve_labels(y, self._network.classes_)
        self._latent, self._logits = self._network.latent_and_logits(X)
        search = self.neighbors
        if search is None:
            search = TorchNearestNeighbors(
                self.n_neighbors, metric=self.metric, device=self.device_
            )
        self.neighbors_ = clone(search, safe=False).fit(to_numpy(self._latent))
        return self

    def predict(self, X: Any) -> NDArray[Any]:
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

    def predict_proba(self, X: Any) -> NDArray[Any]:
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
        return np.concatenate(
            [
                to_numpy(self._mixed(b.logits, b.indices, self.query_weight, self.average))
                for b in self._blocks(X, self.n_neighbors)
            ]
        )

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """Find the nearest training samples in the latent space.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            None asks about the training samples, each without itself.
        n_neighbors : int, default=None
            None is the parameter.
        return_distance : bool, default=True

        Returns
        -------
        distances : ndarray of shape (n_samples, n_neighbors)
            Only when asked for.
        indices : ndarray of shape (n_samples, n_neighbors)
            Rows of the training data.
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        self._validate(n_neighbors=k)
        if X is None:
            return self.neighbors_.kneighbors(None, k, return_distance=return_distance)
        found = self._collect(self._check(X), k)
        return (found.distances, found.indices) if return_distance else found.indices

    def score_samples(self, X: Any) -> NDArray[Any]:
        """Compute minus the distance to the k-th neighbor: higher is more like the training data.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples,)
        """
        return -self.kneighbors(X)[0][:, -1]

    def sweep(
        self,
        X: Any,
        y: Any,
        *,
        n_neighbors: Iterable[int] = (1, 2, 3, 8),
        query_weight: Iterable[float] = (0.0, 0.52, 0.76, 0.88, 0.94, 0.97, 1.0),
        average: Iterable[str] = ("proba",),
        scoring: Any = None,
    ) -> dict[str, Any]:
        """Score every setting in one pass of the network.

        Choose on data that the network has not seen: its predictions of its own training
        samples are near perfect.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
        n_neighbors, query_weight, average : iterable
            Values to combine, each as the parameter allows.
        scoring : str or callable, default=None
            A scikit-learn scorer; None is accuracy.

        Returns
        -------
        results : dict
            In the form of `GridSearchCV.cv_results_` for a single split: `params`, `param_*`,
            `split0_test_score`, `mean_test_score`, `std_test_score`, `rank_test_score`. Equal
            scores share a rank, and the settings are in the order of `ParameterGrid`.

        Raises
        ------
        ValueError
            For a value that the parameter does not take, or no values at all.
        """
        check_is_fitted(self)
        X = self._check(X)
        y = check_targets(self, X, y)
        grid = {
            name: self._values(name, values)
            for name, values in (
                ("n_neighbors", n_neighbors),
                ("query_weight", query_weight),
                ("average", average),
            )
        }
        grid["n_neighbors"] = sorted(set(grid["n_neighbors"]))
        found = self._collect(X, grid["n_neighbors"][-1])

        def proba(n_neighbors: int, query_weight: float, average: str) -> NDArray[Any]:
            near = found.indices[:, :n_neighbors]
            return to_numpy(self._mixed(found.logits, near, query_weight, average))

        return score_grid(proba, grid, self.classes_, X, y, scoring)

    def explain(self, X: Any) -> Bunch:
        """Show the neighbors behind each prediction.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        explanation : Bunch
            `indices`, `distances`, `labels` (as given to fit, None when it got no y) and
            `weights` of shape (n_samples, k); `outputs` (n_samples, k, n_classes) of the
            neighbors; `query_outputs` (n_samples, n_classes) and `query_weight`, those of the
            sample; `proba` (n_samples, n_classes), what `predict_proba` gives. The weights of a
            sample and its neighbors sum to 1.
        """
        check_is_fitted(self)
        found = self._collect(self._check(X), self.n_neighbors)
        w, k = self.query_weight, self.n_neighbors
        mixed = self._mixed(found.logits, found.indices, w, self.average)
        return Bunch(
            indices=found.indices,
            distances=found.distances,
            labels=None if self._codes is None else self.classes_[self._codes[found.indices]],
            outputs=to_numpy(self._neighbor_outputs(found.indices, self.average)),
            weights=np.full(found.indices.shape, (1 - w) / k),
            query_outputs=to_numpy(self._outputs(found.logits, self.average)),
            query_weight=w,
            proba=to_numpy(mixed),
        )

    def diagnose(self, X: Any = None, y: Any = None) -> Bunch:
        """Relate neighbors, distances and mistakes, as section 3.2 of the paper does.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            None takes the training samples, each without itself among its neighbors.
        y : array-like of shape (n_samples,), default=None
            True labels of X; left out with X.

        Returns
        -------
        diagnosis : Bunch
            `purity` (n_samples,): how many of the k neighbors have the sample's label.
            `mean_distance` (n_samples,): to the k neighbors.
            `correlation`, `p_value`: Pearson's, between the two.
            `same_prediction`: share of samples that neighbors leave unchanged.
            `distance_correct`, `distance_wrong`, `distance_changed`: mean of `mean_distance`
            over samples that the bare network predicts rightly, wrongly, and over those whose
            prediction neighbors change (NaN where there are none).
            `changed` (n_samples,): mask of the latter.
            `projections` (n_samples, n_classes): position on the line from the mean of each
            class (0) to the nearest other class mean (1), see `nearest_class` (n_classes,).

        Raises
        ------
        ValueError
            When fit got no y, or X comes without y.
        """
        check_is_fitted(self)
        if self._codes is None:
            raise ValueError("diagnose needs the labels of the training samples: give y to fit.")
        if X is None:
            self._validate_params()
            codes = self._codes
            near = self.neighbors_.kneighbors(None, self.n_neighbors)
            found = _Found(self._latent, self._logits, *near)
        else:
            X = self._check(X)
            y = check_targets(self, X, y)
            if y is None:
                raise ValueError(
                    "diagnose needs the labels of X: give y as well, or neither for the training "
                    "samples."
                )
            codes = encode_labels(y, self.classes_)
            found = self._collect(X, self.n_neighbors)
        mixed = self._mixed(found.logits, found.indices, self.query_weight, self.average)
        metric = getattr(self.neighbors_, "metric", None)  # which may have been set since fit
        squared = getattr(self.neighbors_, "effective_metric_", metric) == "sqeuclidean"
        return diagnosis(
            latent=found.latent,
            codes=codes,
            neighbor_codes=self._codes[found.indices],
            distances=np.sqrt(found.distances) if squared else found.distances,
            bare=to_numpy(found.logits.argmax(1)),
            mixed=to_numpy(mixed.argmax(1)),
            train_latent=self._latent,
            train_codes=self._codes,
            classes=self.classes_,
        )

    def _check(self, X: Any) -> Any:
        self._validate_params()  # n_neighbors and query_weight may have been set since fit
        return self._check_X(X)

    def _validate(self, **params: Any) -> None:
        """Refuse values that the parameters do not take."""
        validate_parameter_constraints(
            self._parameter_constraints, params, caller_name=type(self).__name__
        )

    def _values(self, name: str, values: Any) -> list[Any]:
        """Values of one parameter to sweep over."""
        if isinstance(values, str) or not np.iterable(values):
            raise ValueError(f"{name}={values!r} is no list of values to try: give [{values!r}].")
        values = [*values]
        if not values:
            raise ValueError(f"{name} holds no value to try: leave it out for the default values.")
        for value in values:
            self._validate(**{name: value})
        return values

    def _check_n_neighbors(self, k: int) -> None:
        if k > self.n_samples_fit_:
            raise ValueError(
                f"Expected n_neighbors <= n_samples_fit, but n_neighbors = {k}, "
                f"n_samples_fit = {self.n_samples_fit_}, n_samples = {self.n_samples_fit_}. "
                "Lower n_neighbors or fit on more samples."
            )

    def _blocks(self, X: Any, k: int) -> Iterator[_Found]:
        """Run the network and the search, some rows at a time."""
        self._check_n_neighbors(k)
        n, passes = X.shape[0], 1 + len(self.query_transforms or ())
        with progress(n * passes, "network", self.verbose) as bar:
            for start in range(0, n, _BLOCK):
                rows = _safe_indexing(X, slice(start, start + _BLOCK))
                latent, logits = self._network.latent_and_logits(rows, bar)
                yield _Found(latent, logits, *self._search(rows, latent, k, bar))
                # what `memory` knew did not pass through the network
                bar.update(min(n, start + _BLOCK) * passes - bar.n)

    def _collect(self, X: Any, k: int) -> _Found:
        latent, logits, distances, indices = zip(*self._blocks(X, k), strict=True)
        return _Found(
            torch.cat(latent), torch.cat(logits), np.concatenate(distances), np.concatenate(indices)
        )

    def _search(
        self, rows: Any, latent: Tensor, k: int, bar: Any
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        found = [self.neighbors_.kneighbors(to_numpy(latent), k)]
        for transform in self.query_transforms or ():
            other = self._network.latent(_transformed(transform, rows), bar)
            found.append(self.neighbors_.kneighbors(to_numpy(other), k))
        if len(found) == 1:
            return found[0]
        distances, indices = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        merged = merge_lists(torch.from_numpy(distances), torch.from_numpy(indices), k)
        return to_numpy(merged[0]), to_numpy(merged[1])

    def _outputs(self, logits: Tensor, average: str) -> Tensor:
        return self._network.proba(logits) if average == "proba" else logits

    def _neighbor_outputs(self, indices: NDArray[np.intp], average: str) -> Tensor:
        outputs = self._outputs(self._logits[indices.ravel()], average)
        return outputs.reshape(*indices.shape, -1)

    def _mixed(
        self, logits: Tensor, indices: NDArray[np.intp], query_weight: float, average: str
    ) -> Tensor:
        """Probabilities (n, n_classes) after averaging with the neighbors."""
        neighbors = self._neighbor_outputs(indices, average)
        mixed = mix(self._outputs(logits, average), neighbors, query_weight)
        return mixed if average == "proba" else self._network.proba(mixed)


def _transformed(transform: Any, rows: Any) -> Any:
    """Apply one of `query_transforms` to a copy of rows: it may work in place."""
    other = transform(rows.copy())
    shape, names = getattr(other, "shape", None), getattr(rows, "columns", None)
    other_names = getattr(other, "columns", None)
    if (
        shape is None
        or tuple(shape) != rows.shape
        or (names is not None and (other_names is None or [*other_names] != [*names]))
    ):
        what = type(other).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
        raise ValueError(
            f"query_transforms: {transform!r} turns a {type(rows).__name__} of shape {rows.shape} "
            f"into a {what}; it must keep the shape, and the columns of a DataFrame."
        )
    return other
