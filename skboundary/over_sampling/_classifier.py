"""BiasedExtrapolationClassifier: alternate resampling and training of the head."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import time
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_method_params, check_is_fitted

from skboundary._callbacks import fit_tasks, pass_task, task
from skboundary._device import DeviceLike, to_numpy
from skboundary._random import RandomStateLike
from skboundary._validation import all_or_nothing
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._factory import is_trained
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import resolve_labels
from skboundary.networks._parameters import (
    LAYER_CONSTRAINTS,
    NETWORK_CONSTRAINTS,
    fill_docstring,
)
from skboundary.networks._routing import weights_of_last_step
from skboundary.over_sampling._head import check_head, finite_scores, head_has, new_head
from skboundary.over_sampling._history import LatentData, describe_round, full_cost, measure_head
from skboundary.over_sampling._rounds import (
    MAX_SEED,
    draw_samples,
    growing_classes,
    new_sampler,
    plan_rounds,
    remaining_samples,
    stratified_split,
)

_NO_METADATA = "samples that are added in a round have no metadata"


@fill_docstring
class BiasedExtrapolationClassifier(NetworkHostMixin, ClassifierMixin, BaseEstimator):
    """Alternate oversampling in the latent space and training of the classification head.

    The procedure of class-specific biased extrapolation [1]_: a network is trained, and each
    round then adds `growth` times the original number of samples to every minority class in its
    latent space and continues to train the head. Samples are placed by the decision boundary of
    the present head, and their parents are always original samples.

    Read more in the :ref:`User Guide <biased_extrapolation_classifier>`.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module, default=None
        The classifier that provides the latent space. A module, a :class:`FrozenNetwork` and a
        :class:`~sklearn.frozen.FrozenEstimator` are used without refitting; any other estimator
        is cloned and fitted. None trains a small multilayer perceptron on standardized columns.
    {layer}
    sampler : over-sampler of imbalanced-learn or "passthrough", default=None
        Creates the samples. None is :class:`BiasedExtrapolationSampler`, whose
        ``estimator=None`` here means the head. Its `sampling_strategy` determines which
        classes are over-sampled, and up to what number. "passthrough" adds no samples and only
        continues to train the head: the control.
    head : classifier, default=None
        None continues to train the network's last `torch.nn.Linear` (or refits a
        `LogisticRegression` in each round, if `layer` is not the input of that layer). Any
        other classifier is cloned and refitted in each round.
    n_iter : int, default=19
        Maximum number of rounds. A sampler with ``class_specific="threshold"`` in its
        `settings` gives all of them to the pairs of classes whose accuracy is at most `tau` and
        none to the others (Algorithm 1 of [1]_); with "proportional" a pair gets
        ``round(n_iter * (1 - accuracy) / 0.5)`` (Algorithm 2).
    growth : float, default=0.1
        Number of samples added to a minority class in a round, as a share of its original
        number of samples.
    epochs_per_iter : int, default=10
        Number of epochs in a round with `head=None`.
    stopping : {"recall"} or None, default="recall"
        "recall": stop over-sampling a class once the recall of its training samples has reached
        that of the majority classes, and stop when no class is over-sampled any more. None runs
        all `n_iter` rounds, as in the paper.
    validation_fraction : float in [0, 1), default=0.1
        Share of each class held out of the training. It is used for `history_` and for the
        accuracy of the pairs of classes, never for the stopping rule.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds the training, the choice of held-out samples, the order of samples, and a sampler
        or head without a `random_state` of its own.
    verbose : int, default=0
        If positive, prints a line for each round and shows progress bars of the network's
        training and passes.

    Attributes
    ----------
    {classes_}
    estimator_ : estimator
        The trained classifier that provides the latent space.
    head_ : estimator
        The classifier on latent vectors; a fitted `LogisticRegression` with ``head=None``.
    sampler_ : estimator or "passthrough"
        The sampler of the last round that added samples; unfitted where there was none.
    history_ : list of dict
        One entry for the head before any round, and one for each round: "round", "n_added"
        (by class, in this round), "n_samples" (that the head was trained on), "recall" and
        "validation_recall" (by class), "validation_pr_auc" (by class, one against the rest),
        "cost" (total number of samples times epochs of the training) and "seconds" (wall time).
    n_rounds_per_class_ : dict
        From minority class to its planned number of rounds; `n_iter` without `class_specific`.
    pair_accuracy_ : dict or None
        From a pair of classes (minority, majority) to the balanced accuracy behind
        `n_rounds_per_class_`.
    cost_reduction_ : float
        Share of "cost" saved by `class_specific` and `stopping`, compared with `n_iter` rounds
        for every class.
    n_iter_ : int
        The number of rounds.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    BiasedExtrapolationSampler : The sampler in one pass, for a pipeline.

    References
    ----------
    .. [1] S. Jeong, S. Lee, "Class specific biased extrapolation of images in latent space for
       imbalanced image classification", with the iterations of H. Lee et al., "Decision
       boundary re-sampling", IEEE Access, 2020.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skboundary import BiasedExtrapolationClassifier
    >>> X, y = make_classification(400, weights=[0.9], random_state=0)
    >>> clf = BiasedExtrapolationClassifier(random_state=0).fit(X, y)
    >>> clf.history_[-1]["recall"][1] >= clf.history_[0]["recall"][1]
    True
    """

    _parameter_constraints: dict[str, Any] = {
        **NETWORK_CONSTRAINTS,
        **LAYER_CONSTRAINTS,
        "sampler": [HasMethods(["fit_resample"]), StrOptions({"passthrough"}), None],
        "head": [HasMethods(["fit", "predict"]), None],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "growth": [Interval(Real, 0, None, closed="neither")],
        "epochs_per_iter": [Interval(Integral, 1, None, closed="left")],
        "stopping": [StrOptions({"recall"}), None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        layer: Any = "auto",
        sampler: Any = None,
        head: Any = None,
        n_iter: int = 19,
        growth: float = 0.1,
        epochs_per_iter: int = 10,
        stopping: str | None = "recall",
        validation_fraction: float = 0.1,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.layer = layer
        self.sampler = sampler
        self.head = head
        self.n_iter = n_iter
        self.growth = growth
        self.epochs_per_iter = epochs_per_iter
        self.stopping = stopping
        self.validation_fraction = validation_fraction
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    @fit_tasks(lambda self: self._n_trainings + 2)
    def fit(self, X: ArrayLike, y: ArrayLike, **fit_params: Any) -> BiasedExtrapolationClassifier:
        """Fit the network, then alternate resampling and training of the head.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
        **fit_params : dict
            Metadata for `fit` of `estimator`, see :ref:`metadata`; not `sample_weight`.

        Returns
        -------
        self : BiasedExtrapolationClassifier

        Raises
        ------
        ValueError
            For input that is not finite, labels that are not classes of a trained network,
            `sample_weight`, which new samples do not have, and the errors of the sampler.
        TypeError
            For a sampler that is not an over-sampler.
        """
        X, y = self._check_fit(X, y)
        check_head(self.head)
        metadata = self._route(fit_params, X, dict.fromkeys(["head", "sampler"], _NO_METADATA)).fit
        if weights_of_last_step(self.estimator, metadata) is not None:
            raise ValueError(
                f"fit got sample_weight, but {_NO_METADATA}, and the head is trained on all of "
                "them. Fit the estimator with its weights before, and pass it as "
                "FrozenEstimator(estimator): the head then counts each sample once."
            )
        sampler = new_sampler(self.sampler, device=self.device, batch_size=self.batch_size)
        random = check_random_state(self.random_state)
        train, held_out = stratified_split(y, self.validation_fraction, random)
        to_fit = slice(None) if is_trained(self.estimator) else train
        self.estimator_, network = self._as_network(
            _safe_indexing(X, to_fit),
            y[to_fit],
            random_state=random,
            fit_params=_check_method_params(X, metadata, to_fit),
        )
        classes, codes = resolve_labels(y, network.classes_)
        y = classes[codes]
        self._network, self.device_ = network, network.device
        with pass_task("run-network", network.n_batches(X)):
            latent, logits = network.latent_and_logits(X)
        Z = to_numpy(latent)
        head = new_head(
            self.head,
            network,
            latent[train],
            logits[train],
            classes,
            epochs=self.epochs_per_iter,
            seed=random.randint(MAX_SEED),
        )
        self._fit_rounds(
            LatentData(Z[train], y[train]),
            LatentData(Z[held_out], y[held_out]),
            head,
            sampler,
            random,
        )
        return self

    def _consumers(self) -> dict[str, tuple[Any, str]]:
        inner = {"head": (self.head, "fit"), "sampler": (self.sampler, "fit_resample")}
        return super()._consumers() | inner

    @over_chunks(lambda self, X: Output((), self.classes_.dtype))
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        Z = self._latent(X)  # first: it checks that the head is fitted
        return self.head_.predict(Z)

    @available_if(head_has("predict_proba"))
    @over_chunks(lambda self, X: self._describe_proba())
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the head's probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
        """
        Z = self._latent(X)  # first: it checks that the head is fitted
        return finite_scores(self.head_, self.head_.predict_proba(Z))

    @available_if(head_has("decision_function"))
    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the head's decision values.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        Z = self._latent(X)  # first: it checks that the head is fitted
        return finite_scores(self.head_, self.head_.decision_function(Z))

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted class labels."""
        return self.head_.classes_

    def _describe_proba(self) -> Output:
        """What `predict_proba` returns for a sample, by that of the head at zero."""
        zero = to_numpy(torch.zeros(1, self._network.n_latent, dtype=self._network.dtype))
        return Output((len(self.classes_),), self.head_.predict_proba(zero).dtype)

    def _latent(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self, "head_")
        return to_numpy(self._network.latent(self._check_X(X)))

    # ------------------------------------------------------------------------------- rounds

    def _fit_rounds(
        self,
        train: LatentData,
        held_out: LatentData,
        head: Any,
        sampler: Any,
        random: np.random.RandomState,
    ) -> None:
        """Alternate resampling and training of the head; sets the fitted attributes."""
        start, self.sampler_, n_iter = time.perf_counter(), sampler, int(self.n_iter)
        resamples = sampler != "passthrough"
        remaining = remaining_samples(sampler, train.y)
        step = {c: max(1, round(self.growth * (train.y == c).sum())) for c in remaining}
        self.head_, cost = head.start(*train)
        self.n_rounds_per_class_, self.pair_accuracy_ = plan_rounds(
            sampler,
            self.head_,
            train,
            held_out,
            [*remaining],
            n_iter,
            self.validation_fraction,
        )
        will_grow = remaining if resamples else {}
        full = cost + full_cost(len(train.y), will_grow, step, n_iter, head.epochs)
        self.history_: list[dict[str, Any]] = []
        self.n_iter_, pool, added = 0, train, dict.fromkeys(remaining, 0)

        def record() -> None:
            entry = {"round": self.n_iter_, "n_added": added, "n_samples": len(pool.y)}
            entry |= measure_head(self.head_, train, held_out)
            entry |= {"cost": cost, "seconds": time.perf_counter() - start}
            self.history_.append(entry)
            if self.verbose:
                print(describe_round(entry, n_iter))

        record()
        with task("rounds", n_iter):
            while growing := growing_classes(
                self.n_rounds_per_class_, self.n_iter_, self.history_[-1]["recall"], self.stopping
            ):
                with task("round", fitted=True) as last:
                    self.n_iter_ += 1
                    added = dict.fromkeys(remaining, 0)
                    wanted = {c: min(step[c], remaining[c]) for c in growing if remaining[c]}
                    if wanted and resamples:
                        boundary = head.boundary(self.head_, np.unique(train.y))
                        self.sampler_, new = draw_samples(sampler, boundary, train, wanted, random)
                        added |= {c: int((new.y == c).sum()) for c in wanted}
                        remaining = {c: max(0, n - added[c]) for c, n in remaining.items()}
                        pool = pool.joined(new)
                    self.head_, more = head.train(*pool)
                    cost += more
                    record()
                if last.stop:
                    break
        self.cost_reduction_ = 1 - cost / full if full else 0.0

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
