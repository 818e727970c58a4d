"""BoundaryCharacterizer: measures of the boundary between each pair of classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._optional_dependencies import check_pandas_support
from sklearn.utils.validation import check_is_fitted

from skboundary._callbacks import fit_tasks
from skboundary._device import DeviceLike
from skboundary._random import RandomStateLike
from skboundary._validation import all_or_nothing
from skboundary.boundary._characterization import (
    MEASURE_CONSTRAINTS,
    characterize_boundary,
    check_test_set,
    fit_for_measures,
)
from skboundary.boundary._inputs import numbers
from skboundary.networks._digest import digest
from skboundary.networks._frozen import FrozenNetwork
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._parameters import fill_docstring

# Parameters that may change between two calls of fit with warm_start.
_FREE = {"pairs", "n_jobs", "verbose", "warm_start", "random_state"}
# Parameters that are passed to `characterize_boundary` unchanged.
_MEASURING = (
    "pairs",
    "method",
    "init",
    "n_samples",
    "n_partners",
    "max_iter",
    "generator",
    "effort",
    "n_jobs",
    "verbose",
)


@fill_docstring
class BoundaryCharacterizer(NetworkHostMixin, BaseEstimator):
    """Describe the boundary between each ordered pair of classes.

    The measures of DeepDIG [1]_: how often a search between the two classes succeeds, how far
    the boundary is from the data, how often the predicted class changes along it, and how well a
    hyperplane in the latent space separates the classes.

    Read more in the :ref:`User Guide <characterization>`.

    Parameters
    ----------
    {estimator}
    pairs : "all" or list of (source, target), default="all"
        Ordered pairs of class labels.
    method : {"segment", "deepdig", "pm"}, default="segment"
        How to find two points on either side of a boundary, between which a segment is halved:
        a sample of the source class and the nearest one of the target class in the latent space;
        adversarial samples of DeepDIG's generators, which take seconds a pair to train; or the
        ends that perturbation minimization finds.
    init : {"nearest", "random"}, default="nearest"
        The sample of the target class for "segment". "random" draws it.
    n_samples : int, default=100
        Samples of the source class to start from, in each ordered pair.
    n_partners : int, default=10
        Borderline samples with which each of them is connected by a segment to count changes of
        the predicted class. The paper has 50.
    max_iter : int, default=50
        Maximum number of midpoints of a segment.
    generator : callable, default=None
        For "deepdig": from the shape of a sample to an autoencoder, as in
        :class:`BoundarySampleExtractor`.
    effort : {"fast", "balanced", "thorough"} or int, default="balanced"
        How long "deepdig" trains, and "pm" searches.
    warm_start : bool, default=False
        Keep the classifier and the class pairs of an earlier call of `fit` with warm_start, one
        that was interrupted or had fewer pairs, and measure only those that are missing. If
        anything else changed, the data, a weight of a trained network or a parameter other than
        `pairs`, `n_jobs` and `verbose`, all pairs are measured again.
    n_jobs : int, default=None
        Processes of joblib that share the class pairs; None is this process. Under an active
        `Client` of dask class pairs are tasks of its cluster, see :ref:`distributed`.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds training and the draws of samples.
    verbose : int, default=0
        If positive, shows a progress bar over class pairs.

    Attributes
    ----------
    report_ : Bunch of ndarray of shape (n_pairs,)
        One entry per ordered pair, in the order of `pairs`:

        - `source`, `target`: the class labels;
        - `status`: "ok", or "failed" where the task of the pair failed three times on a cluster;
        - `n_segments`: number of segments that were halved; `success_rate`: share of them that
          end where both classes are equally probable to within 1e-4, or as nearly as the rounding
          of the logits, 8 eps max|logit|, allows (between the two classes if only predicted labels
          are used); `third_class_rate`: share on which a midpoint is predicted as neither class;
        - `attempts`, `attempts_success`, `attempts_fail`: mean number of midpoints tried;
        - `yield_over`, `yield_back`: success rates of the generators of "deepdig": the share of
          training samples that the first one moves across the boundary, and the share of these
          adversarial samples that the second one moves back;
        - `oscillation`: the IDC of the paper, the mean share of 50 points on segments between
          borderline samples at which the predicted class changes;
        - `error_rate_*`, `error_distance_*`, `linear_distance_*` on the `train`, `test` and
          `borderline` samples: the share that a linear support vector machine in the latent
          space puts on the wrong side, and D = mean / (1 + mean) of the distances of those, and
          of all, to its hyperplane;
        - `length`: mean length of the halved segments;
        - `distance_source`, `distance_target`, `latent_distance_source`,
          `latent_distance_target`: mean distance of a borderline sample from the nearest
          training sample of either class.

        NaN where there is nothing to measure.
    {estimator_}
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    BoundarySampleExtractor : The borderline samples themselves.
    skboundary.boundary.characterize_boundary : The same as a function.

    References
    ----------
    .. [1] H. Karimi, T. Derr and J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import BoundaryCharacterizer
    >>> X, y = load_iris(return_X_y=True)
    >>> report = BoundaryCharacterizer(n_samples=20, random_state=0).fit(X, y).report_
    >>> report.source.tolist(), report.target.tolist()
    ([0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1])
    >>> bool(report.length[3] < report.length[0])  # versicolor lies nearer to virginica
    True
    """

    _parameter_constraints: dict[str, Any] = {**MEASURE_CONSTRAINTS, "warm_start": ["boolean"]}

    def __init__(
        self,
        estimator: Any = None,
        *,
        pairs: Any = "all",
        method: str = "segment",
        init: str = "nearest",
        n_samples: int = 100,
        n_partners: int = 10,
        max_iter: int = 50,
        generator: Any = None,
        effort: str | int = "balanced",
        warm_start: bool = False,
        n_jobs: int | None = None,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.pairs = pairs
        self.method = method
        self.init = init
        self.n_samples = n_samples
        self.n_partners = n_partners
        self.max_iter = max_iter
        self.generator = generator
        self.effort = effort
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing("_classifier", "_rng", "_cache", "_measured")
    @fit_tasks(lambda self: self._n_trainings + 2)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        X_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        **fit_params: Any,
    ) -> BoundaryCharacterizer:
        """Measure the boundary of each ordered pair of classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training samples. The search starts from those that are predicted correctly.
        y : array-like of shape (n_samples,)
        X_test : array-like of shape (n_test, ...), default=None
            Samples on which linearity is measured, too.
        y_test : array-like of shape (n_test,), default=None
        **fit_params : dict
            Metadata for `fit` of `estimator`, such as `sample_weight`, see :ref:`metadata`.

        Returns
        -------
        self : BoundaryCharacterizer

        Raises
        ------
        ValueError
            For input that is not finite, unknown or equal classes in a pair, less than two
            classes, a method that does not support the classifier, or a classifier whose content
            `warm_start` cannot compare.
        """
        X, y = self._check_fit(X, y)
        X_test, y_test = check_test_set(self, X_test, y_test)
        metadata = self._route(fit_params, X).fit
        measured = self._state(metadata, (X, y), (X_test, y_test)) if self.warm_start else None
        if measured is None or measured != getattr(self, "_measured", None):
            rng = check_random_state(self.random_state)
            params = {"device": self.device, "batch_size": self.batch_size, "random_state": rng}
            classifier = fit_for_measures(
                self.estimator, X, y, self.method, fit_params=metadata, **params
            )
            self._classifier, self._measured = classifier, measured
            self._cache: dict[tuple[int, int], dict[str, float]] = {}
            self._rng = deepcopy(rng)
        else:
            rng = deepcopy(self._rng)
        self.estimator_, self.classes_ = self._classifier.estimator, self._classifier.classes
        self.device_ = self._classifier.network.device
        self.report_ = characterize_boundary(
            self._classifier,
            X,
            y,
            X_test=X_test,
            y_test=y_test,
            random_state=rng,
            cache=self._cache,  # what is finished stays, whatever interrupts the rest
            **{name: getattr(self, name) for name in _MEASURING},
        )
        return self

    def to_frame(self) -> Any:
        """Get the report as a DataFrame, one row per ordered pair of classes.

        Returns
        -------
        frame : pandas.DataFrame

        Raises
        ------
        ImportError
            Where pandas is not installed; `report_` holds the same as arrays.
        """
        check_is_fitted(self)
        return check_pandas_support("BoundaryCharacterizer.to_frame").DataFrame(self.report_)

    def _state(
        self, metadata: dict[str, Any], *sets: tuple[Any, NDArray[Any] | None]
    ) -> tuple[Any, str]:
        """A digest of all that the measures of a class pair depend on.

        A RandomState counts as itself: its state advances with every fit.
        """
        params = {k: v for k, v in self.get_params(deep=False).items() if k not in _FREE}
        if isinstance(self.estimator, FrozenNetwork):  # which holds more than its parameters
            params["estimator"] = self.estimator.get_params(deep=False)
        given = [(X, y) for X, y in sets if X is not None]
        data = [(list(getattr(X, "columns", ())), np.asarray(numbers(X)), y) for X, y in given]
        metadata = {
            name: np.asarray(value) if hasattr(value, "__array__") else value  # of a Series
            for name, value in metadata.items()
        }
        try:
            return self.random_state, digest(parameters=params, data=data, metadata=metadata)
        except ValueError as error:
            reason = str(error).partition(". Give ")[0]  # the remedy there is that of `memory`
            raise ValueError(
                "warm_start=True compares the parameters with those of the last fit, but "
                f"{reason}. Use warm_start=False."
            ) from None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
