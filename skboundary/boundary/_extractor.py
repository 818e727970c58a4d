"""BoundarySampleExtractor: for each sample a point on the other side of the boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted

from skboundary._callbacks import fit_tasks
from skboundary._device import DeviceLike
from skboundary._random import RandomStateLike
from skboundary._validation import all_or_nothing, check_targets
from skboundary.boundary._boundary_search import BoundarySearchMixin
from skboundary.boundary._drawing import check_drawing, draw_noise_pairs, draw_pairs
from skboundary.boundary._pairs import BoundaryPairs
from skboundary.boundary._returns import RETURNS, names_of
from skboundary.boundary.methods._registry import EFFORT_CONSTRAINT, METHODS
from skboundary.networks._chunks import over_chunks
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import encode_labels
from skboundary.networks._parameters import NETWORK_CONSTRAINTS, fill_docstring


@fill_docstring
class BoundarySampleExtractor(
    BoundarySearchMixin, NetworkHostMixin, TransformerMixin, BaseEstimator
):
    """Find points on the decision boundary of a classifier.

    Each sample gets a partner on the other side of the nearest boundary, or of the boundary to a
    given class: sample by sample in `transform`, for pairs of classes in `extract`.

    Read more in the :ref:`User Guide <boundary_samples>`.

    Parameters
    ----------
    {estimator}
    method : {"auto", "pm", "minimal", "deepdig", "score", "label", "segment", "sparse"}, \
            default="auto"
        "minimal" follows gradients to the nearest boundary point (DeepFool [1]_, refined by
        DDN [2]_). "pm" [6]_ minimizes a perturbation together with its start, so that both ends
        are predicted with `confidence`. "score" and "label" use only scores, or only predicted
        labels, of any classifier; the walk of "label" along the boundary combines ideas of
        HopSkipJump [3]_ and SurFree [4]_. "segment" searches the segment from a sample to the
        nearest training sample predicted as another class, in the latent space (of X if a network
        has no `torch.nn.Linear`). "deepdig" [5]_ trains two generators for each pair of classes,
        which move a sample across the boundary and back, and searches in between; it takes
        seconds a pair, needs a network, and is meant for `extract` rather than `transform`.
        "sparse" changes as few columns as possible, with values of training samples, of any
        classifier; `inner` is then the sample and `outer` its counterfactual [8]_. "auto" is the
        first of "minimal", "score" and "label" that `response_` allows, or "sparse" with
        `categorical`.
    target : {"nearest", "runner_up"} or class label, default="nearest"
        The class beyond the boundary: whichever is nearest, the one with the second largest
        score at the sample, or the given one.
    returns : {"boundary", "perturbation", "distance", "interval", "class_distances"}, \
            default="boundary"
        The output of `transform`: the partner, the partner minus the sample, the norm of this
        difference in one column, a lower bound and this norm in two, or this norm for each class
        as the target (0 for the sample's own). The lower bound is exact for linear models and
        certified by CROWN [7]_ for chains of linear layers and ReLU; elsewhere it is NaN, and a
        `NoLowerBoundWarning` gives the reason. It needs ``norm=2``. Norms depend on the units of
        the columns, see :ref:`pitfalls`.
    effort : {"fast", "balanced", "thorough"} or int, default="balanced"
        The cost of a sample: gradients of "minimal", see the guide; 12, 30 or 300 iterations of
        "pm"; at most 100, 2000 or 10000 queries of "score" and "label". An int limits gradients
        of "minimal" (10 or more) and "pm" (20), queries of "label" (20), "segment" (30) and
        "score" (50). "deepdig" takes no int; its generators train until their success rate stops
        growing, or with "thorough" for the 5000 steps of the paper.
    confidence : float in (0.5, 1), default=0.9
        Probability with which both ends of a pair are predicted by method "pm".
    penalty : float, default=None
        Weight of the norm in method "pm", 1 in the paper. It replaces `confidence`.
    norm : {1, 2, inf, "2sq"}, default=2
        Norm of the perturbation and of all distances; "2sq" is the square of 2. Methods that do
        not support the norm raise a ValueError.
    margin_tol : float, default=1e-3
        Difference of the scores of the two classes at both ends of a pair, in units of the
        logits. It is raised to 8 eps max|logit| where that is more: below, predictions would
        depend on the size of the batch.
    bounds : "data", None or (low, high), default="data"
        Where points may lie: within the range of the training data (of each column for vectors,
        of all elements for other shapes; extended for each sample outside it), anywhere, or
        between numbers or arrays of the shape of a sample, which may be infinite. Equal bounds
        fix a feature. If bounds are set after `fit`, training samples outside them are moved to
        the nearest point inside, and left out if that changes their predicted class.
    generator : callable, default=None
        For method "deepdig": from the shape of a sample to an autoencoder, a module with inputs
        and outputs in [0, 1], without dropout and batch statistics. None is that of the paper,
        `skboundary.functional.deepdig.autoencoder`.
    categorical : list of int or str, default=None
        Positions or names of columns whose values have no order and none in between, for method
        "sparse". In a DataFrame they may hold anything. Takes effect in `fit`.
    immutable : list of int or str, default=None
        Positions or names of columns that keep the value of their sample, with every method but
        "deepdig".
    max_changes : int, default=None
        Columns that method "sparse" may change at most. Samples that need more stay as they are,
        with the status "not_found".
    n_jobs : int, default=None
        Processes of joblib that share the batches of a call, which do not depend on it; None is
        this process. `batch_size` sets how many there are. Under an active `Client` of dask they
        are tasks of its cluster, see :ref:`distributed`.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds training, random directions (the same for all samples) and the draws of `extract`.
    {verbose}

    Attributes
    ----------
    {estimator_}
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels.
    response_ : {"gradient", "score", "label"}
        What searches use of the classifier. Scores that are step functions of X, such as those of
        forests, or that disagree with `predict`, do not count.
    bounds_ : tuple of ndarray, or None
        Lowest and highest values, (n_features,) for vectors and () for other shapes.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    BoundaryCharacterizer : Measures of the boundary between classes.
    SubspaceMargins : Distances to the boundary inside subspaces.

    Notes
    -----
    Samples for which no point is found are returned unchanged, with the distance NaN, and are
    counted in a `BoundaryNotFoundWarning`. A fitted extractor keeps the training samples.

    References
    ----------
    .. [1] S. Moosavi-Dezfooli, A. Fawzi, P. Frossard, "DeepFool: a simple and accurate method to
       fool deep neural networks", CVPR 2016, `arXiv 1511.04599
       <https://arxiv.org/abs/1511.04599>`_.
    .. [2] J. Rony et al., "Decoupling direction and norm for efficient gradient-based L2
       adversarial attacks and defenses", CVPR 2019, `arXiv 1811.09600
       <https://arxiv.org/abs/1811.09600>`_.
    .. [3] J. Chen, M. Jordan, M. Wainwright, "HopSkipJumpAttack: a query-efficient decision-based
       attack", IEEE S&P 2020, `arXiv 1904.02144 <https://arxiv.org/abs/1904.02144>`_.
    .. [4] T. Maho, T. Furon, E. Le Merrer, "SurFree: a fast surrogate-free black-box attack", CVPR
       2021, `arXiv 2011.12807 <https://arxiv.org/abs/2011.12807>`_.
    .. [5] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.
    .. [6] Cai, Zheng, Xiang, Gao, "Borderline sample extraction from a trained classifier", ICLR
       2024 Tiny Papers.
    .. [7] H. Zhang et al., "Efficient neural network robustness certification with general
       activation functions", NeurIPS 2018, `arXiv 1811.00866
       <https://arxiv.org/abs/1811.00866>`_.
    .. [8] D. Brughmans, P. Leyman, D. Martens, "NICE: an algorithm for nearest instance
       counterfactual explanations", Data Mining and Knowledge Discovery 2023, `arXiv 2104.07411
       <https://arxiv.org/abs/2104.07411>`_.

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
        "returns": [StrOptions(set(RETURNS))],
        "effort": EFFORT_CONSTRAINT,
        "confidence": [Interval(Real, 0.5, 1, closed="neither")],
        "penalty": [Interval(Real, 0, None, closed="neither"), None],
        "norm": [Options(Real, {1, 2, np.inf}), StrOptions({"2sq"})],
        "margin_tol": [Interval(Real, 0, None, closed="neither")],
        "bounds": [StrOptions({"data"}), tuple, list, np.ndarray, None],
        "generator": [callable, None],
        "categorical": ["array-like", None],
        "immutable": ["array-like", None],
        "max_changes": [Interval(Integral, 1, None, closed="left"), None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        method: str = "auto",
        target: Any = "nearest",
        returns: str = "boundary",
        effort: str | int = "balanced",
        confidence: float = 0.9,
        penalty: float | None = None,
        norm: Any = 2,
        margin_tol: float = 1e-3,
        bounds: Any = "data",
        generator: Any = None,
        categorical: Any = None,
        immutable: Any = None,
        max_changes: int | None = None,
        n_jobs: int | None = None,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
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
        self.categorical = categorical
        self.immutable = immutable
        self.max_changes = max_changes
        self.n_jobs = n_jobs
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    @fit_tasks(lambda self: self._n_trainings + 1)
    def fit(
        self, X: ArrayLike, y: ArrayLike | None = None, **fit_params: Any
    ) -> BoundarySampleExtractor:
        """Fit the classifier if it is not trained, and determine its response.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Training samples. Their range bounds the search, and methods without gradients start
            from them.
        y : array-like of shape (n_samples,), default=None
            May be left out for a trained classifier. With it, misclassified samples are not used
            as starting points.
        **fit_params : dict
            Metadata for `fit` of `estimator`, such as `sample_weight`, see :ref:`metadata`.

        Returns
        -------
        self : BoundarySampleExtractor

        Raises
        ------
        ValueError
            For input that is not finite, bounds that exclude X, an unknown target class, a
            method that does not support the classifier, or a norm or an effort that the method
            does not support.
        """
        X, y = self._check_fit(X, y)
        self._fit_classifier(X, y, self._route(fit_params, X).fit)
        return self

    @over_chunks(lambda self, X: self._describe(X))
    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Find the partner of each sample across the boundary.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        result : ndarray
            See `returns`: of the shape of X, or (n_samples, 1), (n_samples, 2) or (n_samples,
            n_classes). Points of a DataFrame with columns that hold no numbers are one, too.

        Raises
        ------
        ValueError
            For samples that are not finite, of another shape than in fit, or outside the bounds.
        """
        check_is_fitted(self)
        return self._transform(X)

    def extract_pairs(self, X: ArrayLike, y: ArrayLike | None = None) -> BoundaryPairs:
        """Find a pair of points for each sample, one on either side of the boundary.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Classes to start from. None takes the predicted ones.

        Returns
        -------
        pairs : BoundaryPairs
            In the order of the samples.
        """
        check_is_fitted(self)
        X = self._check(X)
        y = None if y is None else check_targets(self, X, y)
        codes = None if y is None else encode_labels(y, self.classes_)
        return self._for_user(BoundaryPairs(*self._by_blocks(partial(self._pairs, codes), X)))

    def extract(
        self, n_pairs: int, *, source: Any = None, target: Any = None, init: Any = "data"
    ) -> BoundaryPairs:
        """Find pairs of points between classes.

        Parameters
        ----------
        n_pairs : int
        source, target : class label, default=None
            None cycles through all classes that some training sample is predicted as, so that
            all ordered pairs of classes are equally frequent.
        init : {"data", "random", "nearest"} or array-like of shape (n_pairs, ...)
            Where to start: from training samples of the source class, drawn without replacement
            as long as there are any; with "random", from noise inside the bounds for methods that
            use gradients; or from given samples, whose source is their predicted class unless it
            is given. Methods that search between training samples pair the nearest ones; with
            "random" they pair them at random.

        Returns
        -------
        pairs : BoundaryPairs
            Number i belongs to the i-th ordered pair of classes, in cycles.

        Raises
        ------
        ValueError
            For unknown or equal classes, a class that no training sample is predicted as, or less
            than one pair.
        """
        check_is_fitted(self)
        self._validate_params()
        s, t = check_drawing(n_pairs, source, target, init, self.classes_)
        if not isinstance(init, str):
            init = self._check(init)
            if len(init) != n_pairs:
                raise ValueError(
                    f"init has {len(init)} samples, but n_pairs={n_pairs}. Pass one sample "
                    "per pair."
                )
            starts = self._starts(init[:])
            sources = starts.predicted if s is None else np.full(n_pairs, s)
            targets = np.full(n_pairs, -1 if t is None else t)
            return self._for_user(self._find(self._searched(), starts, sources, targets))
        method = self._method()
        noise = init == "random" and not method.n_partners
        if noise:
            drawn = draw_noise_pairs(self._classifier, n_pairs, s, t, self.bounds_)
        else:
            drawn = draw_pairs(self._within(), n_pairs, s, t)
        pairs = self._find(self._searched(), *drawn, random_partners=init == "random")
        return self._for_user(pairs)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Get the names of the columns of the output of `transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns of X; None takes those seen in fit, or x0, x1, ...

        Returns
        -------
        names : ndarray of str
            Those of X; `perturbation_` and those of X; `boundary_distance`; `lower_distance` and
            `upper_distance`; or `distance_` and a class each.
        """
        check_is_fitted(self)
        columns = _check_feature_names_in(self, input_features)
        return names_of(self.returns, columns, self.classes_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True  # boundary points are dense, so X is made dense at once
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
