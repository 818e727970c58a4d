"""BoundaryCharacterizer: the boundary between each pair of classes in a few comparable figures."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._optional_dependencies import check_pandas_support
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skboundary._batching import progress
from skboundary._random import draw_seed
from skboundary._validation import all_or_nothing, check_targets
from skboundary.boundary._extractor import BoundarySampleExtractor
from skboundary.boundary._inputs import label_code, numbers
from skboundary.boundary._pair_report import COLUMNS, Plan, Sets, measure
from skboundary.networks._digest import digest
from skboundary.networks._frozen import FrozenNetwork
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import encode_labels
from skboundary.networks._parameters import NETWORK_CONSTRAINTS, fill_docstring

# Parameters that may change between two calls of fit with warm_start.
_FREE = {"pairs", "n_jobs", "verbose", "warm_start", "random_state"}
_SHARE = {"deepdig": 16}  # ordered class pairs in a job, 2 for the others: both directions


@fill_docstring
class BoundaryCharacterizer(NetworkHostMixin, BaseEstimator):
    """Describe the boundary between each ordered pair of classes.

    How often a search between the two classes succeeds, how far the boundary is from the data,
    how often the classifier changes its mind along it, and how well a hyperplane of the latent
    space would do in its place: the measures of DeepDIG [1]_.

    Read more in the :ref:`User Guide <characterization>`.

    Parameters
    ----------
    {estimator}
    pairs : "all" or list of (source, target), default="all"
        Ordered pairs of class labels.
    method : {"segment", "deepdig", "pm"}, default="segment"
        What lies on the two sides of a boundary before segments are halved: a row of the source
        class and the nearest one of the target class in the latent space; what DeepDIG's
        generators make of a row, which costs seconds a pair; or the ends that perturbation
        minimization finds.
    init : {"nearest", "random"}, default="nearest"
        The row of the target class for "segment". "random" draws it.
    n_samples : int, default=100
        Rows of the source class to start from, in each ordered pair.
    n_partners : int, default=10
        Others to which the segments from a borderline sample lead, on which changes of the
        prediction are counted. The paper has 50.
    max_iter : int, default=50
        Midpoints of a segment that are tried at most.
    generator : callable, default=None
        For "deepdig": from the shape of a row to an autoencoder, as in
        :class:`BoundarySampleExtractor`.
    effort : {"fast", "balanced", "thorough"}, default="balanced"
        How long "deepdig" trains, and "pm" searches.
    warm_start : bool, default=False
        Keep the classifier and the class pairs of an earlier call of `fit` with warm_start, one
        that was interrupted or that asked for fewer pairs, and measure only those that are
        missing. Where anything else changed, the data, a weight of a trained network or a
        parameter other than `pairs`, `n_jobs` and `verbose`, all pairs are measured anew.
    n_jobs : int, default=None
        Processes between which class pairs are divided, through joblib.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds training and the draws of rows.
    verbose : int, default=0
        A progress bar over class pairs when positive.

    Attributes
    ----------
    report_ : Bunch of ndarray of shape (n_pairs,)
        One entry per ordered pair, in the order of `pairs`:

        - `source`, `target`: the class labels;
        - `n_segments`: segments that were halved, `success_rate`: the share of them that ends
          where both classes are equally probable to within 1e-4, or to within what the rounding
          of the logits, 8 eps max|logit|, makes of it (for a classifier that is only asked for
          labels: between the two classes), `third_class_rate`: the share on which a midpoint is
          predicted as neither;
        - `attempts`, `attempts_success`, `attempts_fail`: mean number of midpoints tried;
        - `yield_over`, `yield_back`: the share of training rows that the first generator of
          "deepdig" carries over the boundary, and of those the share that the second brings back;
        - `oscillation`: the IDC of the paper, the mean share of 50 points on segments between
          borderline samples at which the prediction changes;
        - `error_rate_*`, `error_distance_*`, `linear_distance_*` on the `train`, `test` and
          `borderline` samples: the share that a linear support vector machine in the latent
          space puts on the wrong side, and D = mean / (1 + mean) of the distances of those, and
          of all, to its hyperplane;
        - `length`: mean length of the halved segments;
        - `distance_source`, `distance_target`, `latent_distance_source`,
          `latent_distance_target`: mean distance of a borderline sample from the nearest
          training row of either class.

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

    References
    ----------
    .. [1] H. Karimi, T. Derr and J. Tang, "Characterizing the decision boundary of deep neural
       networks", arXiv 1912.11460.

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

    _parameter_constraints: dict[str, Any] = {
        **NETWORK_CONSTRAINTS,
        "pairs": [StrOptions({"all"}), list, tuple],
        "method": [StrOptions({"segment", "deepdig", "pm"})],
        "init": [StrOptions({"nearest", "random"})],
        "n_samples": [Interval(Integral, 1, None, closed="left")],
        "n_partners": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "generator": [callable, None],
        "effort": [StrOptions({"fast", "balanced", "thorough"})],
        "warm_start": ["boolean"],
        "n_jobs": [Integral, None],
    }

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
        effort: str = "balanced",
        warm_start: bool = False,
        n_jobs: int | None = None,
        device: Any = "auto",
        batch_size: Any = "auto",
        random_state: Any = None,
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
    @all_or_nothing("_extractor", "_seed", "_found", "_measured")
    def fit(
        self, X: Any, y: Any, *, X_test: Any = None, y_test: Any = None
    ) -> BoundaryCharacterizer:
        """Measure the boundary of each ordered pair of classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training rows: those that are predicted rightly are where the search starts.
        y : array-like of shape (n_samples,)
        X_test : array-like of shape (n_test, ...), default=None
            Rows on which linearity is measured too.
        y_test : array-like of shape (n_test,), default=None

        Returns
        -------
        self : BoundaryCharacterizer

        Raises
        ------
        ValueError
            For input that is not finite, unknown or equal classes in a pair, less than two
            classes, a method that the classifier does not offer, or a classifier whose content
            `warm_start` cannot compare.
        """
        X, y = self._check_fit(X, y)
        test = self._check_test_set(X_test, y_test)
        measured = self._state((X, y), test) if self.warm_start else None
        if measured is None or measured != getattr(self, "_measured", None):
            rng = check_random_state(self.random_state)
            extractor = BoundarySampleExtractor(
                self.estimator,
                method=self.method,
                generator=self.generator,
                effort=self.effort,
                device=self.device,
                batch_size=self.batch_size,
                random_state=rng,
            ).fit(X, y)
            found: dict[tuple[int, int], dict[str, float]] = {}
            self._extractor, self._seed, self._found, self._measured = (
                extractor,
                draw_seed(rng),
                found,
                measured,
            )
        extractor = self._extractor
        self.estimator_, self.classes_ = extractor.estimator_, extractor.classes_
        self.device_ = extractor.device_
        codes, latent = encode_labels(y, self.classes_), extractor._model.space("latent")
        pairs = self._resolve_pairs(np.unique(codes))
        latent_test, codes_test = latent[:0], codes[:0]
        if test is not None:
            latent_test = extractor._model.latent_of(numbers(test[0]))
            codes_test = encode_labels(test[1], self.classes_)
        sets = Sets(numbers(X), codes, latent, latent_test, codes_test)
        missing = [pair for pair in pairs if pair not in self._found]
        missing.sort(key=lambda pair: (min(pair), max(pair), pair))
        size = _SHARE.get(self.method, 2)
        plan = Plan(
            self.method, self.init, self.n_samples, self.n_partners, self.max_iter, self._seed
        )
        jobs = (
            delayed(measure)(extractor, plan, sets, missing[i : i + size])
            for i in range(0, len(missing), size)
        )
        # what is finished stays, whatever interrupts the rest
        with progress(len(missing), "class pairs", self.verbose) as bar:
            for rows in Parallel(n_jobs=self.n_jobs, return_as="generator")(jobs):
                self._found.update(rows)
                bar.update(len(rows))
        s, t = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        self.report_ = Bunch(source=self.classes_[s], target=self.classes_[t])
        for name in COLUMNS:
            self.report_[name] = np.array([self._found[pair][name] for pair in pairs])
        return self

    def to_frame(self) -> Any:
        """Give the report as a DataFrame, one row per ordered pair of classes.

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

    def _resolve_pairs(self, present: NDArray[np.intp]) -> list[tuple[int, int]]:
        """Ordered pairs as positions in `classes_`."""
        if isinstance(self.pairs, str):
            if len(present) < 2:
                raise ValueError(
                    f"y holds 1 class, {self.classes_[present[0]]!r}: there is no boundary to "
                    "characterise. Give rows of at least 2 classes."
                )
            return [(int(s), int(t)) for s in present for t in present if s != t]
        pairs = []
        for pair in self.pairs:
            if np.ndim(pair) != 1 or len(pair) != 2:
                raise ValueError(f"pairs holds {pair!r}: give (source, target), two class labels.")
            s, t = (label_code(label, self.classes_, "pairs") for label in pair)
            if s == t:
                raise ValueError(f"pairs holds {pair!r}: source and target must differ.")
            pairs.append((s, t))
        return pairs

    def _check_test_set(self, X: Any, y: Any) -> tuple[Any, NDArray[Any]] | None:
        """Validate the test rows, where there are any."""
        if (X is None) != (y is None):
            raise ValueError("X_test and y_test go together: give both or neither.")
        if X is None:
            return None
        X = self._check_X(X)
        y = check_targets(self, X, y)
        assert y is not None
        return X, y

    def _state(self, *sets: tuple[Any, NDArray[Any]] | None) -> tuple[Any, str]:
        """All that the figures of a class pair depend on, to be compared.

        A RandomState counts as itself: its state advances with every fit.
        """
        params = {k: v for k, v in self.get_params(deep=False).items() if k not in _FREE}
        if isinstance(self.estimator, FrozenNetwork):  # which holds more than its parameters
            params["estimator"] = self.estimator.get_params(deep=False)
        data = [(list(getattr(X, "columns", ())), numbers(X), y) for X, y in filter(None, sets)]
        try:
            return self.random_state, digest(parameters=params, data=data)
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
