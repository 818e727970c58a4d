"""LatentKNNClassifierCV: neighbors whose number, weight, distance and layer are chosen in fit."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.metrics import get_scorer
from sklearn.model_selection import ParameterGrid, train_test_split
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_method_params, check_is_fitted

from skboundary._callbacks import fit_tasks, task
from skboundary._device import DeviceLike
from skboundary._random import RandomStateLike
from skboundary._validation import all_or_nothing, check_targets, named
from skboundary.neighbors._choice import (
    Grid,
    Trained,
    as_cv_results,
    best_of,
    find_in,
    grid_of,
    leave_out,
    make_spaces,
    score_grid,
    warn_of_seen_samples,
)
from skboundary.neighbors._latent_knn import LatentKNNClassifier
from skboundary.neighbors._votes import resolve_vote
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._factory import is_trained
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import encode_labels, resolve_labels
from skboundary.networks._parameters import LATENT_CONSTRAINTS, fill_docstring
from skboundary.networks._routing import Routed, folds_of
from skboundary.networks._several_layers import several_layers

_CHOSEN = ("n_neighbors", "query_weight", "average", "metric", "layer")


@fill_docstring
class LatentKNNClassifierCV(NetworkHostMixin, ClassifierMixin, BaseEstimator):
    """LatentKNNClassifier with parameters that are chosen on samples the network has not seen.

    All combinations of the values are scored in one pass of the network, also for several layers:
    by cross-validation, on a part of the samples (`validation_fraction`), or on the samples
    `X_val` of `fit`, which a trained network requires. Of equal scores, the largest `query_weight`
    wins, the setting nearest to the base network, and then the first.

    Read more in the :ref:`User Guide <latent_knn_cv>`.

    Parameters
    ----------
    {estimator}
    layer : str, int, callable, or list of them, default="auto"
        One or several latent spaces, as in :class:`LatentTransformer`.
    {pool}
    n_neighbors : iterable of int, default=(1, 3, 10, 30, 100)
        Numbers of neighbors. Those above the number of training samples are left out.
    query_weight : iterable of float, default=(0., .1, .25, .5, .75, .88, 1.)
        Weights of the sample's own output; 1 is the base network.
    average : iterable of {"proba", "logits"}, default=("proba",)
        What is averaged.
    metric : iterable of str, default=("euclidean", "cosine")
        Distances in the latent space, as in :class:`LatentKNNClassifier`.
    scoring : str or callable, default=None
        A scikit-learn scorer; None is accuracy.
    cv : int, cross-validation generator or iterable, default=5
        The folds where there are neither `X_val` nor `validation_fraction`. The estimator is
        trained in each.
    validation_fraction : float in (0, 1), default=None
        Share of the samples to choose on instead of folds, stratified: one training.
    refit : bool, default=True
        With `validation_fraction`, whether to train again on all samples after the choice. False
        keeps the network, and neighbors among the samples that it was trained on.
    weights : {"uniform", "distance"} or callable, default="uniform"
        As in :class:`LatentKNNClassifier`, for all settings.
    contribute : {"outputs", "labels"}, default="outputs"
        As in :class:`LatentKNNClassifier`, for all settings.
    query_transforms : list of callables, default=None
        As in :class:`LatentKNNClassifier`, for all settings.
    {memory}
    {memory_key}
    {device}
    {batch_size}
    {random_state}
    {verbose}

    Attributes
    ----------
    best_estimator_ : LatentKNNClassifier
        With the chosen parameters, for `explain`, `kneighbors`, `label_issues`.
    best_params_ : dict
        The chosen `n_neighbors`, `query_weight`, `average`, `metric` and `layer`.
    best_score_ : float
        Their mean score.
    cv_results_ : dict
        Scores of all settings, as in :class:`~sklearn.model_selection.GridSearchCV`.
    scores_ : ndarray of shape (n_splits, n_averages, n_layers, n_metrics, n_numbers, n_weights)
        The same scores. Numbers of neighbors are in increasing order, without those left out.
    {classes_}
    {estimator_}
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    LatentKNNClassifier.sweep : Scores of the settings of a fitted classifier.

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       `arXiv 2310.03927 <https://arxiv.org/abs/2310.03927>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentKNNClassifierCV
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LatentKNNClassifierCV(validation_fraction=0.3, random_state=0).fit(X, y)
    >>> sorted(clf.best_params_)
    ['average', 'layer', 'metric', 'n_neighbors', 'query_weight']
    >>> clf.predict(X[:2])
    array([0, 0])
    """

    _parameter_constraints: dict[str, Any] = {
        **LATENT_CONSTRAINTS,
        "layer": [*LATENT_CONSTRAINTS["layer"], list, tuple],
        "n_neighbors": "no_validation",
        "query_weight": "no_validation",
        "average": "no_validation",
        "metric": "no_validation",
        "scoring": [str, callable, None],
        "cv": ["cv_object"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
        "refit": ["boolean"],
        **{
            name: LatentKNNClassifier._parameter_constraints[name]
            for name in ("weights", "contribute", "query_transforms")
        },
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        layer: Any = "auto",
        pool: str | None = None,
        n_neighbors: Any = (1, 3, 10, 30, 100),
        query_weight: Any = (0.0, 0.1, 0.25, 0.5, 0.75, 0.88, 1.0),
        average: Any = ("proba",),
        metric: Any = ("euclidean", "cosine"),
        scoring: Any = None,
        cv: Any = 5,
        validation_fraction: float | None = None,
        refit: bool = True,
        weights: Any = "uniform",
        contribute: str = "outputs",
        query_transforms: Any = None,
        memory: Any = None,
        memory_key: str | None = None,
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
        self.average = average
        self.metric = metric
        self.scoring = scoring
        self.cv = cv
        self.validation_fraction = validation_fraction
        self.refit = refit
        self.weights = weights
        self.contribute = contribute
        self.query_transforms = query_transforms
        self.memory = memory
        self.memory_key = memory_key
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    @fit_tasks(lambda self: 2)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        **fit_params: Any,
    ) -> LatentKNNClassifierCV:
        """Choose the parameters, and index the training samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training samples: the neighbors are among them alone.
        y : array-like of shape (n_samples,), default=None
            Optional for a trained network.
        X_val : array-like of shape (n_val, ...), default=None
            Samples to choose on, which are in no training. Required for a trained network.
        y_val : array-like of shape (n_val,), default=None
            Their labels.
        **fit_params : dict
            Metadata, see :ref:`metadata`: `sample_weight` for `fit` of `estimator` and for the
            scores, except on `X_val`, and `groups` for `cv`.

        Returns
        -------
        self : LatentKNNClassifierCV

        Raises
        ------
        ValueError
            If a trained network has no `X_val`, if a value is not allowed for its parameter, if no
            number of neighbors is small enough, or if a score is NaN; and as in
            :meth:`LatentKNNClassifier.fit`.

        Warns
        -----
        SeenSamplesWarning
            If `X_val` seems to have been seen in training.
        """
        if (X_val is None) != (y_val is None):
            raise ValueError("Give X_val and y_val together, or neither.")
        grid = self._grid()
        X, y = self._check_fit(X, y)
        routed = self._route(fit_params, X, self._idle(X_val))
        if X_val is not None:
            with named("val"):
                X_val = self._check_X(X_val)
                y_val = check_targets(self, X_val, y_val)
            scores, trained = self._choose_on(X, y, X_val, y_val, grid, routed)
        elif is_trained(self.estimator):
            raise ValueError(
                "X may be what the trained network was trained on, where it is right with any "
                "label, so query_weight=1 would always be chosen. Pass other samples as X_val and "
                "y_val to fit, or give an estimator that is fitted here."
            )
        else:
            scores, trained = self._choose_within(X, y, grid, routed)
        self._set_best(grid, scores)
        with task("fit-best-estimator", 2 * (trained is None)):
            if trained is None:
                best = {name: [value] for name, value in self.best_params_.items()}
                trained = self._train(X, y, best, routed.fit)
            self.best_estimator_ = trained.fitted(self._classifier(), X)
        self.classes_ = self.best_estimator_.classes_
        self.estimator_ = self.best_estimator_.estimator_
        self.device_ = self.best_estimator_.device_
        return self

    @over_chunks(lambda self, X: Output((), self.classes_.dtype))
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict classes with the chosen parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    @over_chunks(lambda self, X: Output((len(self.classes_),), self.best_estimator_._network.dtype))
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Predict class probabilities with the chosen parameters.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.
        """
        check_is_fitted(self)
        return self.best_estimator_.predict_proba(self._check_X(X))

    def _grid(self) -> Grid:
        """The values to combine, each as a list."""
        given = {name: getattr(self, name) for name in _CHOSEN}
        if not isinstance(self.layer, (list, tuple)):
            given["layer"] = [self.layer]
        return grid_of(given, LatentKNNClassifier()._validate)

    def _consumers(self) -> dict[str, tuple[Any, str]]:
        scorer = get_scorer(self.scoring or "accuracy")
        return super()._consumers() | {"splitter": (self.cv, "split"), "scorer": (scorer, "score")}

    def _idle(self, X_val: Any) -> dict[str, str]:
        """What a call does not use of those that metadata can be routed to, with the reason."""
        if X_val is not None:
            return dict.fromkeys(["splitter", "scorer"], "X_val has none")
        if self.validation_fraction is not None:
            return {"splitter": f"validation_fraction={self.validation_fraction} makes no folds"}
        return {}

    def _choose_on(
        self, X: Any, y: Any, X_val: Any, y_val: Any, grid: Grid, routed: Routed
    ) -> tuple[NDArray[np.float64], Trained]:
        """Score the settings on given samples, after one training."""
        leave_out(grid, X.shape[0])
        with task("choose", self._n_trainings + 2):
            trained = self._train(X, y, grid, routed.fit)
            with named("val"):
                codes = encode_labels(y_val, trained.classes)
            return self._score(trained, grid, X_val, y_val, codes)[None], trained

    def _choose_within(
        self, X: Any, y: Any, grid: Grid, routed: Routed
    ) -> tuple[NDArray[np.float64], Trained | None]:
        """Score the settings on parts of the samples; a training that is kept is returned."""
        share, seed = self.validation_fraction, self.random_state
        if share is None:
            splits = folds_of(self.cv, X, y, **routed.split)
        else:
            index = np.arange(X.shape[0])
            splits = [train_test_split(index, test_size=share, stratify=y, random_state=seed)]
        leave_out(grid, min(len(train) for train, _ in splits))
        scores = []
        with task("choose", len(splits)):
            for train, other in splits:
                of_train = _check_method_params(X, routed.fit, train)
                of_other = _check_method_params(X, routed.score, other)
                with task("split", 3):
                    trained = self._train(_safe_indexing(X, train), y[train], grid, of_train)
                    X_other, y_other = _safe_indexing(X, other), y[other]
                    scores.append(self._score(trained, grid, X_other, y_other, **of_other))
        return np.array(scores), None if share is None or self.refit else trained

    def _train(self, X: Any, y: Any, grid: Grid, fit_params: dict[str, Any]) -> Trained:
        layers = grid["layer"]
        estimator, network = self._as_network(X, y, layer=layers[0], fit_params=fit_params)
        classes, codes = resolve_labels(y, network.classes_)
        if len(layers) > 1:
            network = several_layers(network, layers)
        spaces, _ = make_spaces(network, X, layers, grid["metric"])
        return Trained(estimator, network, spaces, classes, codes)

    def _score(
        self,
        trained: Trained,
        grid: Grid,
        X: Any,
        y: NDArray[Any],
        codes: NDArray[np.intp] | None = None,
        **metadata: Any,
    ) -> NDArray[np.float64]:
        """Scores (n_settings,) on other samples, which are examined if their codes are given."""
        k = grid["n_neighbors"][-1]
        found = find_in(trained.spaces, trained.network, X, k, self.query_transforms, self.verbose)
        if codes is not None:
            warn_of_seen_samples(trained.spaces, found, codes)
        vote_of = partial(resolve_vote, self, trained.codes)
        data = trained.classes, X, y, self.scoring
        return score_grid(grid, trained.spaces, found, vote_of, *data, **metadata)

    def _set_best(self, grid: Grid, scores: NDArray[np.float64]) -> None:
        if np.isnan(scores).any():
            setting = ParameterGrid(grid)[int(np.isnan(scores).any(0).argmax())]
            raise ValueError(
                f"scoring={self.scoring!r} gives NaN for {setting}. Choose another scoring, or "
                "samples on which it is defined."
            )
        self.cv_results_ = as_cv_results(grid, scores)
        self.scores_ = scores.reshape(-1, *(len(grid[name]) for name in sorted(grid)))
        best = best_of(self.cv_results_)
        self.best_params_ = self.cv_results_["params"][best]
        self.best_score_ = float(self.cv_results_["mean_test_score"][best])

    def _classifier(self) -> LatentKNNClassifier:
        """The classifier with the chosen parameters, before fit."""
        own = LatentKNNClassifier().get_params(deep=False)
        shared = {name: getattr(self, name) for name in own if hasattr(self, name)}
        return LatentKNNClassifier(**{**shared, **self.best_params_})
