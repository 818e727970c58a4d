"""SubspaceMargins: the distance to the decision boundary inside chosen subspaces."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from skboundary._callbacks import fit_tasks
from skboundary._device import DeviceLike, to_numpy
from skboundary._random import RandomStateLike, spawn_generators
from skboundary._validation import all_or_nothing
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._inputs import numbers
from skboundary.boundary._subspace_search import gradient_margins, label_margins
from skboundary.boundary._subspaces import make_subspaces
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._factory import is_trained
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._parameters import NETWORK_CONSTRAINTS, fill_docstring


@fill_docstring
class SubspaceMargins(NetworkHostMixin, TransformerMixin, BaseEstimator):
    """Measure the distance to the decision boundary inside subspaces.

    For each sample and each subspace, the length of the smallest perturbation inside the subspace
    with which DeepFool changes the predicted class, as in "Hold me tight!" [1]_. Margins are
    small along directions that the classifier is sensitive to, and large along those to which it
    is invariant.

    Read more in the :ref:`User Guide <subspace_margins>`.

    Parameters
    ----------
    {estimator}
    subspaces : {"auto", "dct", "pca", "random"}, None or array-like, default="auto"
        "dct" slides a window over the frequencies of an image, from low to high along the
        diagonal; the last two axes of X are height and width, and each channel has its own
        directions. "pca" slides it over the principal components of the training samples, by
        decreasing variance, and "random" over random orthonormal directions. "auto" is "dct" for
        images and "pca" for vectors. None is the whole space. An array of shape (n_subspaces, k,
        n_features), or a list of arrays (k_i, n_features), gives bases, whose vectors need not
        be orthonormal.
    window : int, default=None
        Frequencies along each axis, or components, in a subspace. None is the paper's: 8
        frequencies, 16 from 128 pixels on, a third of the image at most; for components,
        such that ten windows cover all.
    step : int, default=None
        Distance by which the window slides. None is the paper's: 1 for 28 pixels, 2 for 32 (a
        sixteenth of the image), 16 from 128 pixels on.
    n_components : int, default=None
        For "pca" and "random". None is all; for "random" 640 at most.
    method : {"gradient", "label"}, default="gradient"
        "gradient" needs a network, or a model that can be written as one. "label" uses only
        `predict`, with 20 queries for each of `max_iter` steps, and supports every classifier.
    overshoot : float, default=0.02
        Share by which a perturbation is lengthened before the class is predicted; part of the
        margin, as in the paper.
    censored : {"keep", "inf", "nan"}, default="keep"
        The margin if no boundary was found within `max_iter` steps: the length of the path so far
        (infinite if the gradient vanishes in the subspace, and with "label"), infinity or NaN.
    max_iter : int, default=100
        Steps of a search.
    {device}
    batch_size : "auto" or int, default="auto"
        Number of searches in a batch, each a pair of a sample and a subspace; with method "label"
        number of samples, one subspace after the other. Halved when memory runs out.
    random_state : int, RandomState instance or None, default=None
        Seeds the training of the default network and of skorch nets, and random directions.
    {verbose}

    Attributes
    ----------
    {classes_}
    {estimator_}
    n_subspaces_ : int
        Number of subspaces.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    BoundarySampleExtractor : The nearest boundary points in the whole space.

    References
    ----------
    .. [1] G. Ortiz-Jimenez, A. Modas, S. Moosavi-Dezfooli, P. Frossard, "Hold me tight!
       Influence of discriminative features on deep network boundaries", `arXiv 2002.06349
       <https://arxiv.org/abs/2002.06349>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skboundary import SubspaceMargins
    >>> X, y = load_iris(return_X_y=True)
    >>> margins = SubspaceMargins(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> margins.transform(X[:2]).shape
    (2, 4)
    >>> margins.spectrum(X).median.round()
    array([1., 3., 2., 5.])
    """

    _parameter_constraints: dict[str, Any] = {
        **NETWORK_CONSTRAINTS,
        "subspaces": [StrOptions({"auto", "dct", "pca", "random"}), "array-like", None],
        "window": [Interval(Integral, 1, None, closed="left"), None],
        "step": [Interval(Integral, 1, None, closed="left"), None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "method": [StrOptions({"gradient", "label"})],
        "overshoot": [Interval(Real, 0, np.inf, closed="left")],
        "censored": [StrOptions({"keep", "inf", "nan"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        subspaces: Any = "auto",
        window: int | None = None,
        step: int | None = None,
        n_components: int | None = None,
        method: str = "gradient",
        overshoot: float = 0.02,
        censored: str = "keep",
        max_iter: int = 100,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.subspaces = subspaces
        self.window = window
        self.step = step
        self.n_components = n_components
        self.method = method
        self.overshoot = overshoot
        self.censored = censored
        self.max_iter = max_iter
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    @fit_tasks(lambda self: self._n_trainings + (self.method == "label"))
    def fit(self, X: ArrayLike, y: ArrayLike | None = None, **fit_params: Any) -> SubspaceMargins:
        """Fit the classifier if it is not trained, and make the subspaces.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Used only if the classifier is fitted here.
        **fit_params : dict
            Metadata for `fit` of `estimator`, such as `sample_weight`, see :ref:`metadata`.

        Returns
        -------
        self : SubspaceMargins

        Raises
        ------
        TypeError
            For a classifier without gradients.
        ValueError
            For input that is not finite, a missing y, or subspaces that do not match X.
        """
        X, y = self._check_fit(X, None if is_trained(self.estimator) else y)
        classifier = self._classifier = FittedClassifier.fit(
            self.estimator,
            X,
            y,
            response=self.method,
            keep_samples=self.method == "label",
            fit_params=self._route(fit_params, X).fit,
            device=self.device,
            batch_size=self.batch_size,
            random_state=check_random_state(self.random_state),
            verbose=self.verbose,
        )
        self._refuse_without_gradient()
        self.estimator_, self.device_ = classifier.estimator, classifier.network.device
        self.classes_ = classifier.network.classes_
        self._subspaces, self._names = make_subspaces(
            self.subspaces,
            X,
            classifier.network.input_dtype,
            window=self.window,
            step=self.step,
            n_components=self.n_components,
            generator=spawn_generators(classifier.seed, 1)[0],
        )
        self.n_subspaces_ = self._subspaces.n_subspaces
        return self

    @over_chunks(lambda self, X: Output((self.n_subspaces_,), self._classifier.network.input_dtype))
    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Measure the margins of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        margins : ndarray of shape (n_samples, n_subspaces)
            Euclidean distances in the units of X, in the dtype of the computation.

        Raises
        ------
        ValueError
            For input that is not finite, samples of another shape than in fit, or "label" where
            fit had "gradient".
        TypeError
            For "gradient" and a classifier without gradients.
        """
        check_is_fitted(self)
        return self._censor(*self._search(X))

    def spectrum(
        self, X: ArrayLike, *, quantiles: Sequence[float] = (0.05, 0.25, 0.75, 0.95)
    ) -> Bunch:
        """Summarize the margins of samples for each subspace: the curves of the paper.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        quantiles : sequence of float in [0, 1], default=(0.05, 0.25, 0.75, 0.95)

        Returns
        -------
        spectrum : Bunch
            `median` (n_subspaces,) and `quantiles` (n_quantiles, n_subspaces) of the margins,
            censored ones as `censored` sets them, without NaN; `censored` (n_subspaces,), the
            share of samples without a boundary; `margins` and `flipped` (n_samples, n_subspaces),
            the latter true where a boundary was found; `names` (n_subspaces,).

        Raises
        ------
        ValueError
            For quantiles outside [0, 1], and as in `transform`.
        """
        check_is_fitted(self)
        levels = np.asarray(quantiles, dtype=float).ravel()
        if not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(f"quantiles={quantiles!r}: give numbers in [0, 1].")
        distance, flipped = self._search(X)
        margins = self._censor(distance, flipped)
        median, *others = _quantiles(margins, [0.5, *levels])
        return Bunch(
            median=median,
            quantiles=np.array(others).reshape(-1, self.n_subspaces_),
            censored=1 - flipped.mean(0),
            margins=margins,
            flipped=flipped,
            names=self._names,
        )

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Get the names of the subspaces.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Only validated.

        Returns
        -------
        names : ndarray of shape (n_subspaces,)
            Such as "dct_0_7" and "pca_0_2" for the first and last frequency or component,
            "subspace_0" for a given basis, and "whole_space".
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        return self._names

    def _search(self, X: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Distances (n, n_subspaces), and whether they reached the boundary."""
        self._validate_params()  # those of the search act without a refit
        X = self._check_X(X)
        X = numbers(X) if hasattr(X, "columns") else X
        params: Any = {
            "overshoot": self.overshoot,
            "max_iter": self.max_iter,
            "verbose": self.verbose,
        }
        if self.method == "gradient":
            self._refuse_without_gradient()
            found = gradient_margins(self._classifier.network, X, self._subspaces, **params)
        elif not len(self._classifier.training.X):
            raise ValueError(
                "method='label' starts from the training samples, which fit keeps for that method "
                "only. Call fit again."
            )
        else:
            found = label_margins(self._classifier, numbers(X), self._subspaces, **params)
        return to_numpy(found[0]), to_numpy(found[1])

    def _censor(self, distance: NDArray[Any], flipped: NDArray[np.bool_]) -> NDArray[Any]:
        if self.censored == "keep":
            return distance
        return np.where(flipped, distance, distance.dtype.type(self.censored))

    def _refuse_without_gradient(self) -> None:
        if self.method == "gradient" and not self._classifier.network.differentiable:
            raise TypeError(
                f"{type(self._classifier.estimator).__name__} has no gradient with respect to X, "
                "which method='gradient' needs. Use method='label'."
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags


def _quantiles(margins: NDArray[Any], levels: list[float]) -> NDArray[Any]:
    """Quantiles (n_levels, n_subspaces) of what is not NaN; infinity may be among them."""
    out = np.full((len(levels), margins.shape[1]), np.nan, dtype=margins.dtype)
    for j, column in enumerate(margins.T):
        column = np.sort(column[~np.isnan(column)])
        if len(column):
            place = np.asarray(levels) * (len(column) - 1)
            low, high = column[np.floor(place).astype(int)], column[np.ceil(place).astype(int)]
            with np.errstate(invalid="ignore"):  # between infinity and infinity
                between = low + (high - low) * (place % 1)
            out[:, j] = np.where(low == high, low, between)
    return out
