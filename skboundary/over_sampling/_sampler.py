"""BiasedExtrapolationSampler: synthetic minority samples placed by a decision boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_target_type
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skboundary._callbacks import fit_tasks, task
from skboundary._device import DeviceLike, to_numpy
from skboundary._plain import State
from skboundary._random import RandomStateLike, draw_seed, spawn_generators
from skboundary._sample_array import SampleArray
from skboundary._validation import all_or_nothing, check_input, check_labels, refuse_masked
from skboundary.exceptions import NoCrossingWarning, warn_caller
from skboundary.networks._factory import is_trained, takes_frames
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import resolve_labels
from skboundary.networks._parameters import NETWORK_CONSTRAINTS, fill_docstring
from skboundary.over_sampling._class_pairs import (
    find_class_pairs,
    out_of_fold_logits,
    pair_accuracy,
)
from skboundary.over_sampling._container import Container
from skboundary.over_sampling._counts import check_counts, count_parents
from skboundary.over_sampling._fitting import default_request, fit_network
from skboundary.over_sampling._geometry import LatentGeometry
from skboundary.over_sampling._neighbors import resolve_neighbors
from skboundary.over_sampling._placement import Rules, plan_class
from skboundary.over_sampling._plan import Plan, join, make_samples
from skboundary.over_sampling._settings import BiasSettings, count_fits, resolve_settings


@fill_docstring
class BiasedExtrapolationSampler(NetworkHostMixin, BaseOverSampler):
    """Over-sample minority classes toward the decision boundary of a classifier.

    Class-specific biased extrapolation [1]_, which extends decision-boundary re-sampling [2]_.
    A minority sample is paired with a sample of a majority class, and the synthetic sample is
    placed between the two, where the classifier assigns the minority class a target
    probability. Synthetic samples therefore lie beyond the samples of the minority class, while
    those of SMOTE lie between them.

    Read more in the :ref:`User Guide <biased_extrapolation>`.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module, default=None
        The classifier whose decision boundary is used. Distances are measured in its latent
        space (the input of its last linear layer or step). A module, a :class:`FrozenNetwork`
        and a :class:`~sklearn.frozen.FrozenEstimator` are used without refitting; any other
        estimator is cloned and fitted. None is logistic regression on standardized columns.
    sampling_strategy : float, str, dict or callable, default="auto"
        Number of samples of each class after resampling, as in imbalanced-learn: the desired
        ratio of two classes, the classes to resample up to the size of the largest ("minority",
        "not minority", "not majority", "all", "auto" = "not majority"), or the desired number
        of samples of each class.
    class_pairs : {"nearest", "one-to-one"} or dict, default="nearest"
        Majority class toward which each minority class is extrapolated. "nearest": the larger
        class with the nearest mean, or the nearest of all classes if none is larger.
        "one-to-one": a different class for each, such that the sum of the distances is least.
        A dict is ``{minority: majority}`` or ``{minority: [majority, majority]}``, with equal
        shares of several classes; classes missing from it use the nearest.
    instance_pairing : {"one-to-one", "nearest", "nearest-majority"}, default="one-to-one"
        How samples are paired. "one-to-one": in each round every minority sample takes its
        nearest selected majority sample not used in this round. "nearest": pairs are drawn
        uniformly from all pairs of a selected majority sample and one of its k nearest minority
        samples. "nearest-majority": from all pairs of a minority sample and one of its k
        nearest selected majority samples. No pair is repeated; k is raised where more pairs are
        needed.
    neighbors : int or object with `fit` and `kneighbors`, default=5
        The number k of neighbors in the "nearest" pairings and within the class, found by exact
        search. Or another nearest neighbor search, such as
        :class:`~skboundary.TorchNearestNeighbors`: it is cloned and fitted on latent
        vectors of one class, k is its `n_neighbors`, and "one-to-one" uses it, too.
    bias : {"asymmetric", "bottom", "top", "random", "dbr"}, default="asymmetric"
        Which of the majority samples on their own side of the boundary are selected: those with
        the lowest ("bottom") or the highest ("top") probability of their class, or any
        ("random"). "asymmetric" selects as "bottom" and takes the target probability from
        equation 1 of [1]_; it is 0.5 otherwise. "dbr" is [2]_: majority samples with a
        probability above 0.9, and pairs spread evenly over their distances.
    placement : {"boundary", "spread"}, default="spread"
        "boundary" places a sample at the target probability, as the paper does; "spread"
        uniformly between the minority sample and that point.
    within_class : float in [0, 1], default=0.5
        Share of the new samples that is placed between neighbors of the minority class instead,
        as in SMOTE: each between a sample drawn uniformly with replacement and one of its k
        nearest. It is 0 in the paper.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds the random choices, with an independent stream for each class, and the training of
        networks.
    verbose : int, default=0
        If positive, shows progress bars of the network over X and over the new samples.
    settings : BiasSettings, default=None
        Finer settings of the bias. None is ``BiasSettings()``, but a grid search over
        ``settings__gamma`` needs the object. :meth:`BiasSettings.paper` returns the paper's
        settings.

    Attributes
    ----------
    sampling_strategy_ : dict
        From class to the number of its new samples.
    {estimator_}
    classes_ : ndarray of shape (n_classes,)
        Sorted classes of the classifier.
    pairs_ : list of tuple
        Pairs (minority, majority) of classes, in the order of the new samples.
    pair_accuracy_ : dict or None
        From a pair of classes to its balanced accuracy, cross-validated for an estimator that
        was fitted here. None without ``settings.class_specific``.
    parents_ : ndarray of shape (n_new, 2)
        Indices of the samples of X between which each new sample lies: the minority sample
        first, then the majority sample (within the class: another minority sample).
    n_parents_ : dict
        From class to the number of its samples that are parents of new samples toward another
        class. A :class:`~skboundary.exceptions.FewParentsWarning` is raised where they are
        fewer than a third of the class, although at least as many new samples as the class has
        were placed. Within the class every sample may be a parent.
    positions_ : ndarray of shape (n_new,)
        Positions on the segments, from 0 at the first parent to 1 at the second.
    targets_ : ndarray of shape (n_new,)
        Target probability of the minority class against the majority class, clipped to what the
        segment attains; with ``placement="spread"`` the lowest one. NaN where there is no
        target: within the class, and for fallbacks.
    probabilities_ : ndarray of shape (n_new,)
        Probability of the minority class against the majority class at each new sample.
    n_fallback_ : int
        Number of new samples that are midpoints of their parents, because no sample of one of
        the two classes is on its own side of the boundary.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    BiasSettings : The finer settings.
    LatentTransformer : The latent space of a network, to resample there.
    imblearn.over_sampling.SMOTE : Interpolation within the minority class.

    Notes
    -----
    Pairs are used again only when all are used up, then at a probability drawn uniformly
    between the target and that of the minority sample. Integer arrays are returned as floats;
    integer columns of a DataFrame are rounded. Sparse matrices are returned in their format, as
    matrices or arrays by ``sparse_interface`` of `sklearn.set_config`, and densified in between.

    References
    ----------
    .. [1] S. Jeong, S. Lee, "Class specific biased extrapolation of images in latent space for
       imbalanced image classification".
    .. [2] H. Lee et al., "Decision boundary re-sampling", IEEE Access, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_classification
    >>> from skboundary import BiasedExtrapolationSampler
    >>> X, y = make_classification(500, weights=[0.9], random_state=0)
    >>> sampler = BiasedExtrapolationSampler(random_state=0)
    >>> X_resampled, y_resampled = sampler.fit_resample(X, y)
    >>> np.bincount(y), np.bincount(y_resampled)
    (array([450,  50]), array([450, 450]))
    >>> sampler.parents_.shape
    (400, 2)
    """

    _callers = ("fit_resample",)  # of metadata
    _parameter_constraints: dict[str, Any] = {
        **BaseOverSampler._parameter_constraints,
        **NETWORK_CONSTRAINTS,
        "class_pairs": [StrOptions({"nearest", "one-to-one"}), Mapping],
        "instance_pairing": [StrOptions({"one-to-one", "nearest", "nearest-majority"})],
        "neighbors": [
            Interval(Integral, 1, None, closed="left"),
            HasMethods(["fit", "kneighbors"]),
        ],
        "bias": [StrOptions({"random", "bottom", "top", "asymmetric", "dbr"})],
        "placement": [StrOptions({"boundary", "spread"})],
        "within_class": [Interval(Real, 0, 1, closed="both")],
        "settings": [BiasSettings, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        sampling_strategy: Any = "auto",
        class_pairs: Any = "nearest",
        instance_pairing: str = "one-to-one",
        neighbors: Any = 5,
        bias: str = "asymmetric",
        placement: str = "spread",
        within_class: float = 0.5,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
        settings: BiasSettings | None = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.estimator = estimator
        self.class_pairs = class_pairs
        self.instance_pairing = instance_pairing
        self.neighbors = neighbors
        self.bias = bias
        self.placement = placement
        self.within_class = within_class
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        self.settings = settings

    @all_or_nothing()
    def fit(self, X: Any, y: Any) -> BiasedExtrapolationSampler:
        """Validate X and y, and fit nothing: use `fit_resample`.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
        y : array-like of shape (n_samples,)

        Returns
        -------
        self : BiasedExtrapolationSampler
        """
        return super().fit(X, y)

    @all_or_nothing()
    def fit_resample(self, X: Any, y: Any, **fit_params: Any) -> tuple[Any, Any]:
        """Add samples to the minority classes.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
        **fit_params : dict
            Metadata for `fit` of `estimator`, such as `sample_weight`, see :ref:`metadata`. The
            default estimator takes `sample_weight`. New samples are placed without weights.

        Returns
        -------
        X_resampled : {ndarray, DataFrame, sparse matrix} of shape (n_samples_new, ...)
            The samples of X, followed by the new ones.
        y_resampled : {ndarray, Series} of shape (n_samples_new,)
        """
        refuse_masked(y, "y")
        y = to_numpy(y) if isinstance(y, torch.Tensor) else y
        if np.ndim(y) == 1:
            check_labels(np.asarray(y))
        return super().fit_resample(X, y, **fit_params)

    def _consumers(self) -> dict[str, tuple[Any, str]]:
        if self.estimator is None:
            return {"estimator": (default_request(), "fit")}
        return super()._consumers()

    def _stored_state(self) -> State:
        state = super()._stored_state()
        state.pop("_container", None)  # of the last X, and set anew for each
        return state

    def _check_X_y(self, X: Any, y: Any) -> tuple[Any, NDArray[Any], bool]:
        y, binarize_y = check_target_type(y, indicate_one_vs_all=True)
        self._container = Container(X)
        X = check_input(self, X, reset=True)
        X = np.asarray(X) if isinstance(X, SampleArray) else X  # which is returned, too
        check_consistent_length(X, y)
        if X.dtype not in (np.float64, np.float32):
            X = X.astype(np.float32 if X.dtype == np.float16 else np.float64)
        return X, y, binarize_y

    @fit_tasks(lambda self: 3 + self._n_trainings * count_fits(self.settings))
    def _fit_resample(self, X: Any, y: NDArray[Any], **fit_params: Any) -> tuple[Any, NDArray[Any]]:
        metadata = self._route(fit_params, X).fit
        labels, numbers = (part.tolist() for part in np.unique(y, return_counts=True))
        counts = dict(zip(labels, numbers, strict=True))
        wanted = {c: self.sampling_strategy_[c] for c in labels if self.sampling_strategy_.get(c)}
        rules = self._rules()
        trained = is_trained(self.estimator)
        check_counts(counts, wanted, self.neighbors, rules, trained=trained)
        container, dense = self._container, X.toarray() if sparse.issparse(X) else X
        by_name = self.estimator is None or takes_frames(self.estimator)
        wrap = container.wrap if by_name else lambda samples: samples
        seed = draw_seed(self.random_state)
        self.estimator_, network = fit_network(self, wrap(dense), y, seed, metadata)
        self.classes_, codes = resolve_labels(y, network.classes_)
        self.device_ = network.device
        assert codes is not None  # as y is given
        geometry = LatentGeometry(network, dense, codes, wrap)
        plan = self._plan(geometry, y, labels, wanted, rules, seed, metadata)
        del geometry.latent  # before as many new samples are made
        self.parents_, self.positions_, self.targets_ = (to_numpy(part) for part in plan[:3])
        self.n_fallback_ = plan.n_fallback
        self.n_parents_ = count_parents(self.parents_, y, [*wanted], to_numpy(geometry.codes))
        if plan.n_fallback:
            warn_caller(
                f"{plan.n_fallback} new samples are midpoints, because the classifier predicts no "
                "sample of one of two classes as that class. Another estimator, or other "
                "class_pairs, may separate them.",
                NoCrossingWarning,
            )
        X_new, probabilities = make_samples(geometry, plan, container.finish)
        self.probabilities_ = to_numpy(probabilities)
        y_new = np.repeat(np.array([*wanted], dtype=y.dtype), [*map(int, wanted.values())])
        return container.stack(X, X_new), np.concatenate([y, y_new])

    def _rules(self) -> Rules:
        n_neighbors, find = resolve_neighbors(self.neighbors)
        return Rules(
            self.instance_pairing,
            n_neighbors,
            find,
            self.bias,
            self.placement,
            self.within_class,
            resolve_settings(self.settings),
        )

    def _plan(
        self,
        geometry: LatentGeometry,
        y: NDArray[Any],
        labels: list[Any],
        wanted: dict[Any, int],
        rules: Rules,
        seed: int,
        metadata: dict[str, Any],
    ) -> Plan:
        """Choose the parents and positions of all new samples."""
        counts = torch.bincount(geometry.codes, minlength=len(self.classes_)).numpy()
        present = counts.nonzero()[0]
        code_of = dict(zip(labels, present.tolist(), strict=True))
        means = geometry.means[present].numpy() if len(labels) > 2 else None
        partners = find_class_pairs(self.class_pairs, [*wanted], labels, means, counts[present])
        self.pairs_ = [(minority, label) for minority in wanted for label in partners[minority]]
        shares = self._biased_shares(geometry, y, code_of, rules.settings, seed, metadata)
        generators = spawn_generators(seed, len(self.classes_))
        plans = []
        with task("class-pairs", len(self.pairs_)):
            for minority, n in wanted.items():
                code = code_of[minority]
                biased = {code_of[label]: shares[minority, label] for label in partners[minority]}
                plans.append(plan_class(geometry, code, biased, n, rules, generators[code]))
        return join(plans)

    def _biased_shares(
        self,
        geometry: LatentGeometry,
        y: NDArray[Any],
        code_of: dict[Any, int],
        settings: BiasSettings,
        seed: int,
        metadata: dict[str, Any],
    ) -> dict[tuple[Any, Any], float]:
        """Share of the samples of each pair of classes that is biased; sets `pair_accuracy_`."""
        self.pair_accuracy_ = None
        if settings.class_specific is None:
            return dict.fromkeys(self.pairs_, 1.0)
        logits = geometry.logits
        if not is_trained(self.estimator):
            fit = partial(fit_network, self)
            logits = out_of_fold_logits(fit, geometry.wrap(geometry.X), y, seed, metadata)
        self.pair_accuracy_ = {
            pair: pair_accuracy(logits, geometry.codes, *(code_of[label] for label in pair))
            for pair in self.pairs_
        }
        if settings.class_specific == "threshold":
            return {pair: float(a <= settings.tau) for pair, a in self.pair_accuracy_.items()}
        return {pair: min(1.0, (1 - a) / 0.5) for pair, a in self.pair_accuracy_.items()}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True  # densified here, whatever the estimator takes
        return tags
