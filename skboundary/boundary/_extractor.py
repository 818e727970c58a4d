"""BoundarySampleExtractor: for each row its partner on the other side of the boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from skboundary._device import to_numpy
from skboundary._random import draw_seed
from skboundary._validation import all_or_nothing, check_targets
from skboundary.boundary._inputs import (
    check_inside,
    columns_of,
    data_range,
    find_bounds,
    floating,
    label_code,
    numbers,
)
from skboundary.boundary._oracle import labels_of
from skboundary.boundary._pairs import BoundaryPairs, norms
from skboundary.boundary._response import count_nan_gradients, find_response
from skboundary.boundary._solve import Model, SolveOptions, find_pairs
from skboundary.boundary._training_samples import (
    TrainingSamples,
    class_cycle,
    draw_noise,
    draw_rows,
    within,
)
from skboundary.boundary.methods._problem import Settings
from skboundary.boundary.methods._registry import METHODS, choose_method
from skboundary.exceptions import BoundaryNotFoundWarning, warn_caller
from skboundary.functional.margins import runner_up
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import encode_labels, resolve_labels
from skboundary.networks._parameters import NETWORK_CONSTRAINTS, fill_docstring


@fill_docstring
class BoundarySampleExtractor(NetworkHostMixin, TransformerMixin, BaseEstimator):
    """Find the points where a classifier changes its mind.

    Each row gets a partner on the other side of the nearest boundary, or of the boundary to a
    class that is named: row by row in `transform`, for pairs of classes in `extract`.

    Read more in the :ref:`User Guide <boundary_samples>`.

    Parameters
    ----------
    {estimator}
    method : {"auto", "pm", "minimal", "deepdig", "score", "label", "segment"}, default="auto"
        "minimal" follows gradients to the nearest boundary point, and "pm" minimizes a
        perturbation together with its start, so that both ends are predicted with `confidence`.
        "score" and "label" do with the scores, or the labels alone, of any classifier. "segment"
        looks on the segment from a row to its nearest training row, in the latent space (of X
        where a network has no `torch.nn.Linear`), that is predicted as another class. "deepdig"
        trains two generators for each pair of classes, which carry a row over the boundary and
        back, and looks in between: seconds a pair, for networks, and for `extract` rather than
        `transform`. "auto" is the first of "minimal", "score" and "label" that `response_` allows.
    target : {"nearest", "runner_up"} or class label, default="nearest"
        The class beyond the boundary: whichever is nearest, the one with the second largest
        score at the row, or the one that is named.
    returns : {"boundary", "perturbation", "distance", "class_distances"}, default="boundary"
        What `transform` gives: the partner, the partner minus the row, the norm of that in one
        column, or such a norm for each class in turn (0 for the row's own).
    effort : {"fast", "balanced", "thorough"}, default="balanced"
        How much is spent on a row: gradients of "minimal", see the guide; 12, 30 or 300 steps
        for "pm"; at most 100, 2000 or 10000 questions for "score" and "label". The generators of
        "deepdig" train until their yield stops growing, "thorough" the paper's 5000 steps.
    confidence : float in (0.5, 1), default=0.9
        Probability with which both ends of a pair of method "pm" are predicted.
    penalty : float, default=None
        Weight of the norm in method "pm", as in the paper (which has 1), in place of
        `confidence`.
    norm : {1, 2, inf, "2sq"}, default=2
        Of the perturbation; "2sq" is the square of 2. A method that has it not says so.
    margin_tol : float, default=1e-3
        The score by which the classes differ at both ends of a pair. Much smaller ones drown in
        rounding errors: predictions would then depend on the size of the batch.
    bounds : "data", None or (low, high), default="data"
        Where points may lie: in the range of the training data (of each column for vectors, of
        all elements for images and the like; of a row that lies outside too), anywhere, or
        between numbers or arrays of the shape of a row, finite or not. Equal ones keep a feature.
        Training rows outside bounds that are set after `fit` are moved to the nearest point
        inside, and left out where that changes their class.
    generator : callable, default=None
        For method "deepdig": from the shape of a row to an autoencoder, a module that takes and
        gives values in [0, 1], without dropout and batch statistics. None is that of the paper,
        `skboundary.functional.deepdig.autoencoder`.
    n_jobs : int, default=None
        Processes between which class pairs are divided, through joblib. None computes all pairs
        in one batch job here.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds training, random directions (the same for all rows) and the draws of `extract`.
    {verbose}

    Attributes
    ----------
    {estimator_}
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    response_ : {"gradient", "score", "label"}
        What the classifier offers. Scores that are step functions of X, as those of forests are,
        or that disagree with `predict`, do not count.
    bounds_ : tuple of ndarray, or None
        Lowest and highest values, (n_features,) for vectors and () for other rows.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    LatentKNNClassifier : A network averaged with what it says of the nearest training rows.

    Notes
    -----
    A row for which no point is found keeps its values, has the distance NaN, and is counted in
    a `BoundaryNotFoundWarning`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import BoundarySampleExtractor
    >>> X, y = load_iris(return_X_y=True)
    >>> extractor = BoundarySampleExtractor(random_state=0).fit(X, y)
    >>> border = extractor.transform(X)
    >>> bool((extractor.estimator_.predict(border) != extractor.estimator_.predict(X)).all())
    True
    """

    _parameter_constraints: dict[str, Any] = {
        **NETWORK_CONSTRAINTS,
        "method": [StrOptions({"auto", *METHODS})],
        "target": [str, Real, np.bool_],
        "returns": [StrOptions({"boundary", "perturbation", "distance", "class_distances"})],
        "effort": [StrOptions({"fast", "balanced", "thorough"})],
        "confidence": [Interval(Real, 0.5, 1, closed="neither")],
        "penalty": [Interval(Real, 0, None, closed="neither"), None],
        "norm": [Options(Real, {1, 2, np.inf}), StrOptions({"2sq"})],
        "margin_tol": [Interval(Real, 0, None, closed="neither")],
        "bounds": [StrOptions({"data"}), tuple, list, np.ndarray, None],
        "generator": [callable, None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        method: str = "auto",
        target: Any = "nearest",
        returns: str = "boundary",
        effort: str = "balanced",
        confidence: float = 0.9,
        penalty: float | None = None,
        norm: Any = 2,
        margin_tol: float = 1e-3,
        bounds: Any = "data",
        generator: Any = None,
        n_jobs: int | None = None,
        device: Any = "auto",
        batch_size: Any = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.target = target
        self.returns = returns
        self.effort = effort
        self.confidence = confidence
        self.penalty = penalty
        self.norm = norm
        self.margin_tol = margin_tol
        self.bounds = bounds
        self.generator = generator
        self.n_jobs = n_jobs
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    def fit(self, X: Any, y: Any = None) -> BoundarySampleExtractor:
        """Train the classifier where it has to be, and find out what it offers.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Their range bounds the search, and methods without gradients start from them.
        y : array-like of shape (n_samples,), default=None
            May be left out for a trained classifier; with it, misclassified rows are no starting
            points.

        Returns
        -------
        self : BoundarySampleExtractor

        Raises
        ------
        ValueError
            For input that is not finite, bounds that exclude X, an unknown target class, or a
            method or norm that the classifier or the method does not have.
        """
        X, y = self._check_fit(X, y)
        rows = numbers(X)
        rng = check_random_state(self.random_state)
        self.estimator_, network = self._as_network(
            rows if sparse.issparse(X) else X, y, random_state=rng, latent=False, labels=True
        )
        network.verbose = 0  # progress is told here, by rows
        if not network.is_module and network.batch_size == "auto":
            network.batch_size = 2**31  # a black box gets all rows of a step in one call
        self.device_ = network.device
        self.classes_, given = resolve_labels(y, network.classes_)
        columns, X = columns_of(self.estimator_, X), rows
        self._range = data_range(X)
        self._check_bounds(X)
        seed = draw_seed(rng)
        codes = labels_of(network, self.estimator_, X, columns)
        usable = np.full(len(X), True) if given is None else given == codes
        try:
            self.response_ = find_response(
                network, self.estimator_, X, columns, np.random.default_rng(seed)
            )
        except ValueError as error:
            raise ValueError(
                f"{type(self.estimator_).__name__} refuses points between the samples of X, where "
                f"the boundary lies ({error}). Encode columns that hold categories before."
            ) from error
        training = TrainingSamples(X, codes, usable)
        self._model = Model(
            network, self.estimator_, self.response_, columns, training, None, seed, self.classes_
        )
        method = choose_method(self.method, self.norm, self.response_, self.estimator_)
        if self.target not in ("nearest", "runner_up"):
            label_code(self.target, self.classes_, "target")
        if method.n_partners and method.space == "latent":
            self._model = self._model._replace(latent=self._model.latent_of(X))
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Find the partner of each row across the boundary.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        result : ndarray
            As `returns` says: of the shape of X, (n_samples, 1) or (n_samples, n_classes).

        Raises
        ------
        ValueError
            For rows that are not finite, of another shape than in fit, or outside the bounds.
        """
        check_is_fitted(self)
        X, source = self._check(X)
        rowwise = self.returns in ("boundary", "perturbation")
        if rowwise and X.ndim > 2 and _get_output_config("transform", self)["dense"] != "default":
            raise ValueError(
                f"Rows of shape {X.shape[1:]} do not go into a DataFrame: use "
                "set_output(transform='default'), or returns='distance' or 'class_distances'."
            )
        if self.returns == "class_distances":
            return self._class_distances(X, source)
        pairs = self._find(X, source, self._targets(X, source), pairs=False)
        self._warn(pairs, X)
        failed = ~pairs.success
        partner = pairs.outer
        partner[failed] = X[failed]
        if self.returns == "boundary":
            return partner
        if self.returns == "perturbation":
            return partner - X
        distances = _lengths(partner - X, self.norm)
        distances[failed] = np.nan
        return distances[:, None]

    def extract_pairs(self, X: Any, y: Any = None) -> BoundaryPairs:
        """Find a pair of points for each row, one on either side of the boundary.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Classes to start from. None takes what the rows are predicted as.

        Returns
        -------
        pairs : BoundaryPairs
            In the order of the rows.
        """
        check_is_fitted(self)
        X, predicted = self._check(X)
        y = None if y is None else check_targets(self, X, y)
        source = predicted if y is None else encode_labels(y, self.classes_)
        n_asked = 1 + (self.target == "runner_up")
        return self._find(X, source, self._targets(X, source), n_asked=n_asked)

    def extract(
        self, n_pairs: int, *, source: Any = None, target: Any = None, init: Any = "data"
    ) -> BoundaryPairs:
        """Find pairs of points between classes.

        Parameters
        ----------
        n_pairs : int
        source, target : class label, default=None
            None cycles over all classes that some training row is predicted as, so that ordered
            pairs of classes take turns.
        init : {"data", "random", "nearest"} or array-like of shape (n_pairs, ...)
            Where to start: from training rows of the source class, drawn without replacement
            until there are no more; from noise inside the bounds, where a method has gradients;
            or from given rows, whose source is what they are predicted as unless it is named.
            Methods that look between training rows pair the nearest ones; with "random" they
            pair them at random.

        Returns
        -------
        pairs : BoundaryPairs
            Number i belongs to the i-th ordered pair of classes, counted round and round.

        Raises
        ------
        ValueError
            For unknown or equal classes, a class that no training row is predicted as, or less
            than one pair.
        """
        check_is_fitted(self)
        self._validate_params()
        if not isinstance(n_pairs, Integral) or n_pairs < 1:
            raise ValueError(f"n_pairs={n_pairs!r}: give the number of pairs, 1 or more.")
        if isinstance(init, str) and init not in ("data", "random", "nearest"):
            raise ValueError(f"init={init!r}: use 'data', 'random', 'nearest' or an array of rows.")
        s, t = (
            None if label is None else label_code(label, self.classes_, name)
            for label, name in ((source, "source"), (target, "target"))
        )
        if s is not None and s == t:
            raise ValueError(f"source and target are both {source!r}: name two classes.")
        method = choose_method(self.method, self.norm, self.response_, self.estimator_)
        rng = np.random.default_rng(self._model.seed)
        if not isinstance(init, str):
            X, predicted = self._check(init)
            if len(X) != n_pairs:
                raise ValueError(f"init holds {len(X)} rows for n_pairs={n_pairs}.")
            starts = predicted if s is None else np.full(n_pairs, s)
            return self._find(X, starts, np.full(n_pairs, -1 if t is None else t), n_asked=1)
        noise = init == "random" and not method.n_partners
        training = self._model.training if noise else self._within().training
        classes = (
            np.arange(len(self.classes_)) if noise else np.unique(training.codes[training.usable])
        )
        starts, targets = class_cycle(n_pairs, s, t, classes, self.classes_)
        if noise:
            X = draw_noise(training, n_pairs, self.bounds_, rng)
        else:
            X = training.X[draw_rows(training, starts, rng)]
        X = X.astype(floating(training.X))
        return self._find(X, starts, targets, random_partners=init == "random")

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Name the columns that `transform` gives.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns of X; None takes those seen in fit, or x0, x1, ...

        Returns
        -------
        names : ndarray of str
            Those of X; "perturbation_" and those of X; "boundary_distance"; or "distance_" and
            a class each.
        """
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        if self.returns == "boundary":
            return names
        if self.returns == "perturbation":
            return np.array([f"perturbation_{name}" for name in names], dtype=object)
        if self.returns == "distance":
            return np.array(["boundary_distance"], dtype=object)
        return np.array([f"distance_{label}" for label in self.classes_], dtype=object)

    @property
    def bounds_(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Lowest and highest values; a new value of `bounds` acts at the next call."""
        if isinstance(self.bounds, str):
            return self._range
        return find_bounds(self.bounds, self.input_shape_)

    def _check_bounds(self, X: NDArray[Any]) -> None:
        """Refuse samples outside of the bounds, unless those are widened for each of them."""
        bounds = self.bounds_
        if bounds is not None and not isinstance(self.bounds, str):
            check_inside(X, *bounds)

    def _within(self) -> Model:
        """Look at the model with its training samples inside the bounds."""
        model, bounds = self._model, self.bounds_
        if bounds is None or isinstance(self.bounds, str):
            return model
        network, estimator, _, columns = model[:4]
        training = within(
            model.training, bounds, lambda X: labels_of(network, estimator, X, columns)
        )
        return (
            model if training is model.training else model._replace(training=training, latent=None)
        )

    def _check(self, X: Any) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Validate rows, and say what they are predicted as."""
        self._validate_params()  # all but the classifier and bounds act without a refit
        X = self._check_X(X)
        X = numbers(X)
        self._check_bounds(X)
        network, estimator, _, columns = self._model[:4]
        X = X.astype(floating(X), copy=False)
        return X, labels_of(network, estimator, X, columns)

    def _targets(self, X: NDArray[Any], source: NDArray[np.intp]) -> NDArray[np.intp]:
        """Say which class each row is to reach; -1 is any."""
        if self.target == "nearest":
            return np.full(len(X), -1)
        if self.target != "runner_up":
            return np.full(len(X), label_code(self.target, self.classes_, "target"))
        network = self._model.network
        if not network.has_scores:
            raise ValueError(
                f"target='runner_up' asks for scores, and {network.name} has none: "
                "use target='nearest' or a class."
            )
        logits = self._model.logits_of(X)
        return to_numpy(runner_up(logits, torch.from_numpy(source)).label)

    def _find(
        self,
        X: NDArray[Any],
        source: NDArray[np.intp],
        target: NDArray[np.intp],
        *,
        pairs: bool = True,
        random_partners: bool = False,
        n_asked: int = 0,
    ) -> BoundaryPairs:
        method = choose_method(self.method, self.norm, self.response_, self.estimator_)
        settings = Settings(
            self.effort,
            self.confidence,
            self.penalty,
            self.norm,
            self.margin_tol,
            self.generator,
            pairs,
        )
        options = SolveOptions(
            method,
            settings,
            self.bounds_,
            isinstance(self.bounds, str),
            random_partners,
            n_asked,
            self.n_jobs,
            self.verbose,
        )
        model = self._within() if method.pooled else self._model
        return find_pairs(model, options, X, source, target)

    def _class_distances(self, X: NDArray[Any], source: NDArray[np.intp]) -> NDArray[Any]:
        """Distances (n, n_classes) to the boundary of each class, all of them in one search."""
        n, n_classes = len(X), len(self.classes_)
        rows, target = (a.ravel() for a in np.indices((n, n_classes)))
        other = target != source[rows]
        rows, target = rows[other], target[other]
        pairs = self._find(X[rows], source[rows], target, pairs=False)
        self._warn(pairs, X[rows])
        distances = np.zeros((n, n_classes), dtype=X.dtype)
        distances[rows, target] = np.where(
            pairs.success, _lengths(pairs.outer - X[rows], self.norm), np.nan
        )
        return distances

    def _warn(self, pairs: BoundaryPairs, X: NDArray[Any]) -> None:
        """Count rows without a boundary point, and say why where that is known."""
        failed = ~pairs.success
        if not failed.any():
            return
        status, counts = np.unique(pairs.status[failed], return_counts=True)
        counted = ", ".join(f"{name}: {n}" for name, n in zip(status, counts, strict=True))
        why, (network, estimator), training = "", self._model[:2], self._model.training
        if network.differentiable:
            n = count_nan_gradients(network, X[pairs.status == "not_found"])
            why = f" The gradient is NaN at {n} of them." if n else ""
        said = np.unique(training.codes)
        if len(said) == 1:
            why += (
                f" {type(estimator).__name__} predicts all training rows as "
                f"{self.classes_.tolist()[said[0]]!r}: it may be constant."
            )
        warn_caller(
            f"No boundary point was found for {counts.sum()} of {len(pairs)} rows ({counted}). "
            f"They keep their values, and have the distance NaN.{why}",
            BoundaryNotFoundWarning,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True  # boundary points are dense, so rows become it at once
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _lengths(perturbations: NDArray[Any], norm: Any) -> NDArray[Any]:
    return to_numpy(norms(torch.from_numpy(perturbations), norm))
