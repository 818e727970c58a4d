"""BiasedExtrapolationSampler: new samples of small classes, placed by a decision boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from imblearn.over_sampling.base import BaseOverSampler
from imblearn.utils import check_target_type
from numpy.typing import NDArray
from scipy import sparse
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import Interval, StrOptions

from skboundary._device import to_numpy
from skboundary._random import draw_seed, spawn_generators
from skboundary._validation import check_finite, check_input
from skboundary.exceptions import FewParentsWarning, NoCrossingWarning, warn_caller
from skboundary.networks import Network
from skboundary.networks._factory import (
    is_trained,
    takes_frames,
)
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import resolve_labels
from skboundary.networks._parameters import NETWORK_CONSTRAINTS, fill_docstring
from skboundary.over_sampling._class_pairs import (
    FOLDS,
    find_class_pairs,
    out_of_fold_logits,
    pair_accuracy,
)
from skboundary.over_sampling._container import Container
from skboundary.over_sampling._plan import Plan, join, make_rows, plan_class
from skboundary.over_sampling._space import Space


@fill_docstring
class BiasedExtrapolationSampler(NetworkHostMixin, BaseOverSampler):
    """Over-sample small classes with points between them and their neighbors across a boundary.

    Class-specific biased extrapolation [1]_, on decision-boundary re-sampling [2]_: a sample of
    a small class (the minor) is joined with one of a larger class (the major), and the new
    sample is put where the classifier gives the small class a wanted probability. That lies
    beyond the samples of the small class, while SMOTE stays between them.

    Read more in the :ref:`User Guide <biased_extrapolation>`.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module, default=None
        The classifier whose boundary is meant; distances are measured in its latent space (the
        input of its last linear layer or step). A module, a :class:`FrozenNetwork` and a
        :class:`~sklearn.frozen.FrozenEstimator` are used as they are; any other estimator is
        cloned and fitted. None is logistic regression on standardized columns.
    sampling_strategy : float, str, dict or callable, default="auto"
        How many samples each class gets, as everywhere in imbalanced-learn: the ratio wanted of
        two classes, the classes to bring up to the largest ("minority", "not minority",
        "not majority", "all", "auto" = "not majority"), or the number of samples wanted of
        each class.
    class_pairs : {"nearest", "one-to-one"} or dict, default="nearest"
        Toward which class each one grows: the one with the nearest mean among the larger
        classes (among all where none is larger), another one for each with the least sum of
        distances, or ``{minor: major}`` and ``{minor: [major, major]}``. Classes that a dict
        leaves out grow toward the nearest. Several majors get equal shares.
    instance_pairing : {"one-to-one", "nearest", "nearest-major"}, default="one-to-one"
        "one-to-one": in each round every minor gets its nearest selected major that is not
        used in this round. "nearest": a pair is drawn uniformly from all pairs of a selected
        major and one of its `n_neighbors` nearest minors. "nearest-major": from all pairs of a
        minor and one of its `n_neighbors` nearest selected majors. No pair comes twice; where
        more are needed than these, more neighbors are asked.
    n_neighbors : int, default=5
        Neighbors in the "nearest" pairings and within the class; a class with fewer other
        samples uses all of them there.
    bias : {"asymmetric", "bottom", "top", "random", "dbr"}, default="asymmetric"
        Which majors on their own side of the boundary are selected: the least sure of their
        class ("bottom"), the surest ("top") or any ("random"). "asymmetric" selects as "bottom"
        and lets equation 1 choose the probability, which is 0.5 otherwise. "dbr" is [2]_: majors
        surer than 0.9, pairs thinned out over their distances.
    bias_fraction : float in (0, 1], default=0.3
        Share of those majors that is selected.
    gamma : float in [-1, 1], default=-0.4
        Of equation 1; negative moves new samples toward the major class, 0 is "bottom".
    p_max : float in (0, 1], default=1.0
        Of equation 1.
    p_min : float in [0, 0.5), default=0.05
        The probability of equation 1 is clipped to [p_min, 1 - p_min].
    distance_ratio : {"centroid", "segment", "margin"}, default="centroid"
        How equation 1 measures d_normal / d_abnormal: distances of the crossing from the
        means of the two classes, from the two samples, or the mean margins of the samples of
        either class that are least sure.
    placement : {"boundary", "spread"}, default="spread"
        "boundary" puts a sample at the wanted probability, as the paper does, "spread" anywhere
        between the minor and there.
    within_class : float in [0, 1], default=0.5
        Share of the new samples that is put between neighbors of the small class instead, as
        SMOTE does: each between a sample drawn uniformly, with replacement, and one of its
        `n_neighbors` nearest. The paper's is 0.
    class_specific : {"threshold", "proportional"}, default=None
        Bias by pair of classes: "threshold" (Algorithm 1) gives pairs that are told apart
        better than `tau` the bias "random"; "proportional" (Algorithm 2) biases a share
        ``(1 - accuracy) / 0.5`` of a pair's samples and places the rest with "random".
    tau : float in [0, 1], default=0.7
        Balanced accuracy above which two classes count as told apart.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds the random choices, each class by itself, and the training of networks.
    verbose : int, default=0
        When positive, shows the progress of the network over X and over the new samples.

    Attributes
    ----------
    sampling_strategy_ : dict
        From class to the number of its new samples.
    {estimator_}
    classes_ : ndarray of shape (n_classes,)
        Sorted classes of the classifier.
    pairs_ : list of tuple
        Pairs (minor, major) of classes, in the order of the new samples.
    pair_accuracy_ : dict or None
        From a pair to its balanced accuracy, cross-validated for an estimator that was fitted
        here; None without `class_specific`.
    parents_ : ndarray of shape (n_new, 2)
        Rows of X between which each new sample lies: the minor, then the major (within the
        class: another minor).
    n_parents_ : dict
        From class to the number of its samples from which new samples were placed toward
        another class. Samples within the class do not count: there every sample may be a
        parent. A :class:`~skboundary.exceptions.FewParentsWarning` tells where these are fewer
        than a third of the class, though as many new samples as the class has were placed.
    positions_ : ndarray of shape (n_new,)
        Where on that segment, from 0 at the first parent to 1 at the second.
    targets_ : ndarray of shape (n_new,)
        Wanted probability of the minor class against the major class, after clipping to what
        the segment holds; with ``placement="spread"`` the least one. NaN where none was
        wanted: within the class, and for fallbacks.
    probabilities_ : ndarray of shape (n_new,)
        The probability that each new sample has.
    n_fallback_ : int
        How many samples are mere midpoints, because no sample of one of the two classes was
        on its own side of the boundary.
    device_ : torch.device
        Where the network ran.
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    LatentTransformer : The latent space of a network, to resample there.
    imblearn.over_sampling.SMOTE : Interpolation within the small class.

    Notes
    -----
    Pairs are used again only when all are used up, then at a probability drawn uniformly
    between the wanted one and the minor's own. Arrays of integers come back as floats;
    integer columns of a DataFrame are rounded. Sparse rows come back in their format (CSC as
    CSC) and are densified inside.

    References
    ----------
    .. [1] S. Jeong, S. Lee, "Class specific biased extrapolation of images in latent space for
       imbalanced image classification".
    .. [2] H. Lee et al., "Decision boundary re-sampling", IEEE Access 2020.

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

    _parameter_constraints: dict[str, Any] = {
        **BaseOverSampler._parameter_constraints,
        **NETWORK_CONSTRAINTS,
        "class_pairs": [StrOptions({"nearest", "one-to-one"}), Mapping],
        "instance_pairing": [StrOptions({"one-to-one", "nearest", "nearest-major"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "bias": [StrOptions({"random", "bottom", "top", "asymmetric", "dbr"})],
        "bias_fraction": [Interval(Real, 0, 1, closed="right")],
        "gamma": [Interval(Real, -1, 1, closed="both")],
        "p_max": [Interval(Real, 0, 1, closed="right")],
        "p_min": [Interval(Real, 0, 0.5, closed="left")],
        "distance_ratio": [StrOptions({"centroid", "segment", "margin"})],
        "placement": [StrOptions({"boundary", "spread"})],
        "within_class": [Interval(Real, 0, 1, closed="both")],
        "class_specific": [StrOptions({"threshold", "proportional"}), None],
        "tau": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        *,
        estimator: Any = None,
        sampling_strategy: Any = "auto",
        class_pairs: Any = "nearest",
        instance_pairing: str = "one-to-one",
        n_neighbors: int = 5,
        bias: str = "asymmetric",
        bias_fraction: float = 0.3,
        gamma: float = -0.4,
        p_max: float = 1.0,
        p_min: float = 0.05,
        distance_ratio: str = "centroid",
        placement: str = "spread",
        within_class: float = 0.5,
        class_specific: str | None = None,
        tau: float = 0.7,
        device: Any = "auto",
        batch_size: Any = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.estimator = estimator
        self.class_pairs = class_pairs
        self.instance_pairing = instance_pairing
        self.n_neighbors = n_neighbors
        self.bias = bias
        self.bias_fraction = bias_fraction
        self.gamma = gamma
        self.p_max = p_max
        self.p_min = p_min
        self.distance_ratio = distance_ratio
        self.placement = placement
        self.within_class = within_class
        self.class_specific = class_specific
        self.tau = tau
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    def _check_X_y(self, X: Any, y: Any) -> tuple[Any, NDArray[Any], bool]:
        self._refuse_metadata()
        y, binarize_y = check_target_type(y, indicate_one_vs_all=True)
        self._container = Container(X)
        X = check_input(self, X, reset=True)
        check_finite(y, "y")
        check_consistent_length(X, y)
        if X.dtype not in (np.float64, np.float32):
            X = X.astype(np.float32 if X.dtype == np.float16 else np.float64)
        return X, y, binarize_y

    def _fit_resample(self, X: Any, y: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
        labels = np.unique(y).tolist()
        wanted = {c: self.sampling_strategy_[c] for c in labels if self.sampling_strategy_.get(c)}
        self._check_counts(y, wanted)
        container, rows = self._container, X.toarray() if sparse.issparse(X) else X
        by_name = self.estimator is None or takes_frames(self.estimator)
        wrap = container.wrap if by_name else _as_it_is
        seed = draw_seed(self.random_state)
        self.estimator_, network = self._fit_network(wrap(rows), y, seed)
        self.classes_, codes = resolve_labels(y, network.classes_)
        self.device_ = network.device
        assert codes is not None  # as y is given
        space = Space(network, rows, codes, wrap)
        plan = self._plan(space, y, wanted, seed)
        del space.latent  # before as many new rows are made
        self.parents_, self.positions_, self.targets_ = (to_numpy(part) for part in plan[:3])
        self.n_fallback_ = plan.n_fallback
        self.n_parents_ = self._count_parents(y, [*wanted], to_numpy(space.codes))
        if plan.n_fallback:
            warn_caller(
                f"{plan.n_fallback} new samples are midpoints, because the classifier puts no "
                "sample of one of two classes on its own side of the boundary between them. "
                "Another estimator, or other class_pairs, may tell them apart.",
                NoCrossingWarning,
            )
        X_new, probabilities = make_rows(space, plan, container.finish)
        self.probabilities_ = to_numpy(probabilities)
        y_new = np.repeat(np.array([*wanted], dtype=y.dtype), [*map(int, wanted.values())])
        return container.stack(X, X_new), np.concatenate([y, y_new])

    def _count_parents(
        self, y: NDArray[Any], wanted: list[Any], codes: NDArray[np.intp]
    ) -> dict[Any, int]:
        """Count the parents of what was placed toward other classes; warn where they are few."""
        first, second = self.parents_.T
        across = first[codes[first] != codes[second]]
        n_parents = {}
        for label in wanted:
            members, placed = np.flatnonzero(y == label), across[y[across] == label]
            n = n_parents[label] = len(np.unique(placed))
            if len(placed) >= len(members) > 3 * n:
                warn_caller(
                    f"{n} of the {len(members)} samples of class {label!r} are the parents of "
                    f"{len(placed)} new samples: the others lie on the wrong side of the "
                    "boundary, or pairing passes them over. Give an estimator that recognizes "
                    "more of them (class_weight='balanced'), use instance_pairing='one-to-one', "
                    "or raise within_class.",
                    FewParentsWarning,
                )
        return n_parents

    def _check_counts(self, y: NDArray[Any], wanted: dict[Any, int]) -> None:
        """Refuse classes with too few samples for what the parameters ask."""
        k = self.n_neighbors
        for label, count in zip(
            *(part.tolist() for part in np.unique(y, return_counts=True)), strict=True
        ):
            grows = label in wanted
            folds = self.class_specific is not None and not is_trained(self.estimator)
            for least, name, applies in (
                (k, "n_neighbors", grows and self.instance_pairing == "nearest"),
                (2, "within_class", grows and self.within_class > 0),
                (FOLDS, "class_specific", folds),
            ):
                if applies and count < least:
                    raise ValueError(
                        f"The class {label!r} has {count} samples, but "
                        f"{name}={getattr(self, name)!r} needs at least {least}. Change {name}, "
                        "or leave the class out."
                    )

    def _fit_network(self, X: Any, y: NDArray[Any], seed: int) -> tuple[Any, Network]:
        estimator = self.estimator
        if estimator is None:
            if X.ndim > 2:
                raise ValueError(
                    f"X has rows of shape {X.shape[1:]}, but estimator=None takes vectors. Give "
                    "an estimator that takes such rows."
                )
            estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        n_features = getattr(estimator, "n_features_in_", X.shape[1])
        if isinstance(estimator, FrozenEstimator) and n_features != X.shape[1]:
            raise ValueError(
                f"X has {X.shape[1]} features, but estimator was fitted with {n_features}. Give "
                "an estimator that was fitted on the columns of X."
            )
        with config_context(skip_parameter_validation=False):  # imblearn skips nested ones
            return self._as_network(X, y, estimator=estimator, random_state=seed)

    def _plan(self, space: Space, y: NDArray[Any], wanted: dict[Any, int], seed: int) -> Plan:
        """Decide between which rows, and where, all new samples lie."""
        counts = torch.bincount(space.codes, minlength=len(self.classes_)).numpy()
        labels, present = np.unique(y).tolist(), counts.nonzero()[0]
        code_of = dict(zip(labels, present.tolist(), strict=True))
        means = space.means[present].numpy() if len(labels) > 2 else None
        majors = find_class_pairs(self.class_pairs, [*wanted], labels, means, counts[present])
        self.pairs_ = [(minor, major) for minor in wanted for major in majors[minor]]
        pairs = [(code_of[minor], code_of[major]) for minor, major in self.pairs_]
        self.pair_accuracy_ = None
        shares = dict.fromkeys(self.pairs_, 1.0)
        if self.class_specific is not None:
            logits = space.logits
            if not is_trained(self.estimator):
                logits = out_of_fold_logits(self._fit_network, space.wrap(space.X), y, seed)
            accuracies = (pair_accuracy(logits, space.codes, *pair) for pair in pairs)
            self.pair_accuracy_ = dict(zip(self.pairs_, accuracies, strict=True))
            shares = {pair: self._biased_share(a) for pair, a in self.pair_accuracy_.items()}
        generators = spawn_generators(seed, len(self.classes_))
        plans = []
        for minor, n in wanted.items():
            code = code_of[minor]
            biased = {code_of[major]: shares[minor, major] for major in majors[minor]}
            plans.append(plan_class(space, code, biased, n, self, generators[code]))
        return join(plans)

    def _biased_share(self, accuracy: float) -> float:
        if self.class_specific == "threshold":
            return float(accuracy <= self.tau)
        return min(1.0, (1 - accuracy) / 0.5)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True  # densified here, whatever the estimator takes
        return tags


def _as_it_is(rows: Any) -> Any:
    return rows
