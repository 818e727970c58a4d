"""BiasedExtrapolationClassifier: add a few samples, retrain the head, and again."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import time
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from imblearn.utils import check_sampling_strategy
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.utils import _safe_indexing, check_random_state
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skboundary._device import to_numpy, to_tensor
from skboundary._validation import all_or_nothing
from skboundary.functional.latent_mixing import class_means
from skboundary.networks import Network
from skboundary.networks._factory import is_trained
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import resolve_labels
from skboundary.networks._parameters import (
    LAYER_CONSTRAINTS,
    NETWORK_CONSTRAINTS,
    fill_docstring,
)
from skboundary.over_sampling._class_pairs import find_class_pairs, pair_accuracy
from skboundary.over_sampling._head import ContinuedHead, RefittedHead, seeded
from skboundary.over_sampling._history import Rows, full_cost, pr_auc, recall, scores, sentence
from skboundary.over_sampling._sampler import BiasedExtrapolationSampler

_MAX_SEED = 2**31 - 1


def _head_has(method: str) -> Callable[[Any], bool]:
    """Whether the head, fitted or to be fitted, has a method; `head=None` has them all."""

    def check(self: Any) -> bool:
        head = getattr(self, "head_", self.head)
        return head is None or hasattr(head, method)

    return check


@fill_docstring
class BiasedExtrapolationClassifier(NetworkHostMixin, ClassifierMixin, BaseEstimator):
    """Alternate between adding minority samples in the latent space and retraining the head.

    The procedure of class-specific biased extrapolation [1]_: train the network, go to its
    latent space, then in each round add `growth` times the ORIGINAL number of samples to every
    minority class and train the head on. The boundary between which samples are placed is that
    of the head as it stands, and parents are always original samples.

    Read more in the :ref:`User Guide <biased_extrapolation_classifier>`.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module, default=None
        The classifier that gives the latent space. A module, a :class:`FrozenNetwork` and a
        :class:`~sklearn.frozen.FrozenEstimator` are used as they are; any other estimator is
        cloned and fitted. None trains a small multilayer perceptron on standardized columns.
    {layer}
    sampler : over-sampler of imbalanced-learn or "passthrough", default=None
        What makes the samples. None is :class:`BiasedExtrapolationSampler`, whose `estimator`
        None here means the head. Its `sampling_strategy` says which classes grow, and at most
        to what number. "passthrough" adds none: the head alone is trained on, which is the
        control to beat.
    head : classifier, default=None
        None goes on training the network's last `torch.nn.Linear` (a `LogisticRegression`,
        refitted each round, where `layer` is not the input of that). Any other classifier is
        cloned and refitted each round.
    n_iter : int, default=19
        The number of rounds, at most. A sampler with ``class_specific="threshold"`` gives them
        to the pairs of classes whose accuracy is at most its `tau` and none to the others
        (Algorithm 1 of [1]_), with "proportional" a pair gets
        ``round(n_iter * (1 - accuracy) / 0.5)`` (Algorithm 2).
    growth : float, default=0.1
        Samples that a round adds to a minority class, as a share of its original number.
    epochs_per_iter : int, default=10
        Epochs that `head=None` trains in a round.
    stopping : {"recall"} or None, default="recall"
        "recall": a class grows no more once the recall of its training samples has reached
        that of the majority classes, and rounds end when no class grows. None: all `n_iter`
        rounds, as in the paper.
    validation_fraction : float in [0, 1), default=0.1
        Share of each class that is kept from training. It serves `history_`, and the accuracy
        of the pairs of classes, never the stopping rule.
    {device}
    {batch_size}
    random_state : int, RandomState instance or None, default=None
        Seeds the training, the validation rows, the order of rows, and a sampler or head that
        has no `random_state` of its own.
    verbose : int, default=0
        When positive, prints a line for each round and shows the progress of the network's
        training and passes.

    Attributes
    ----------
    {classes_}
    estimator_ : estimator
        The trained classifier that gives the latent space.
    head_ : estimator
        The classifier on latent vectors; a fitted `LogisticRegression` with ``head=None``.
    sampler_ : estimator or "passthrough"
        The sampler of the last round that added samples; unfitted where there was none.
    history_ : list of dict
        One entry for the head before any round, and one for each round: "round", "n_added"
        (by class, in this round), "n_samples" (that the head was trained on), "recall" and
        "validation_recall" (by class), "validation_pr_auc" (by class, one against the rest),
        "cost" (rows that the head was trained on, times epochs, so far) and "seconds".
    rounds_ : dict
        By minority class the rounds that it was given; `n_iter` without `class_specific`.
    pair_accuracy_ : dict or None
        By pair of classes (minor, major) the balanced accuracy that decided them.
    saved_ : float
        The share of "cost" that `class_specific` and `stopping` saved beside `n_iter` rounds for
        every class.
    n_iter_ : int
        The number of rounds.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    BiasedExtrapolationSampler : The same samples in one pass, for a pipeline.

    References
    ----------
    .. [1] "Class-specific biased extrapolation of images in latent space", with the iterating
       procedure of decision-boundary re-sampling (IEEE Access 2020).

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
        device: Any = "auto",
        batch_size: Any = "auto",
        random_state: Any = None,
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
    def fit(self, X: Any, y: Any) -> BiasedExtrapolationClassifier:
        """Train the network, then go round.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)

        Returns
        -------
        self : BiasedExtrapolationClassifier

        Raises
        ------
        ValueError
            For input that is not finite, labels that a trained network does not know, and
            whatever the sampler itself refuses.
        TypeError
            For a sampler that is no over-sampler.
        """
        X, y = self._check_fit(X, y)
        if self.head is not None and not is_classifier(self.head):
            raise ValueError(
                f"head={type(self.head).__name__} is no classifier. Give one, or None to go on "
                "training the network's last layer."
            )
        sampler = self._new_sampler()
        random = check_random_state(self.random_state)
        kept, held = _split(y, self.validation_fraction, random)
        to_fit = slice(None) if is_trained(self.estimator) else kept
        self.estimator_, network = self._as_network(
            _safe_indexing(X, to_fit), y[to_fit], random_state=random
        )
        classes, codes = resolve_labels(y, network.classes_)
        y = classes[codes]
        self._network, self.device_ = network, network.device
        latent, logits = network.latent_and_logits(X)
        Z = to_numpy(latent)
        rows, held_rows = Rows(Z[kept], y[kept]), Rows(Z[held], y[held])
        head = self._new_head(latent[kept], logits[kept], classes, random)
        self._go_round(rows, held_rows, head, sampler, random)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        Z = self._latent(X)  # first: it checks that there is a head
        return self.head_.predict(Z)

    @available_if(_head_has("predict_proba"))
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Compute the head's probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
        """
        Z = self._latent(X)  # first: it checks that there is a head
        return self.head_.predict_proba(Z)

    @available_if(_head_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray[Any]:
        """Compute the head's decision values.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
        """
        Z = self._latent(X)  # first: it checks that there is a head
        return self.head_.decision_function(Z)

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted class labels."""
        return self.head_.classes_

    def _latent(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self, "head_")
        return to_numpy(self._network.latent(self._check_X(X)))

    # ----------------------------------------------------------------------------- the rounds

    def _go_round(
        self, rows: Rows, held: Rows, head: Any, sampler: Any, random: np.random.RandomState
    ) -> None:
        start, self.sampler_ = time.perf_counter(), sampler
        room = _room(sampler, rows.y)
        step = {c: max(1, round(self.growth * (rows.y == c).sum())) for c in room}
        self.head_, cost = head.start(*rows)
        self.rounds_, self.pair_accuracy_ = self._plan(room, rows, held, sampler)
        epochs = head.epochs if isinstance(head, ContinuedHead) else 1
        will_grow = room if sampler != "passthrough" else {}
        full = cost + full_cost(len(rows.y), will_grow, step, self.n_iter, epochs)
        self.history_: list[dict[str, Any]] = []
        self.n_iter_, pool, added = 0, rows, dict.fromkeys(room, 0)
        while True:
            self.history_.append(
                {
                    "round": self.n_iter_,
                    "n_added": added,
                    "n_samples": len(pool.y),
                    "recall": recall(self.head_, rows),
                    "validation_recall": recall(self.head_, held),
                    "validation_pr_auc": pr_auc(self.head_, held),
                    "cost": cost,
                    "seconds": time.perf_counter() - start,
                }
            )
            if self.verbose:
                print(sentence(self.history_[-1], self.n_iter))
            growing = self._growing()
            if not growing:
                break
            self.n_iter_ += 1
            added = dict.fromkeys(room, 0)
            wanted = {c: min(step[c], room[c]) for c in growing if room[c]}
            if wanted and self.sampler != "passthrough":
                new = self._draw(rows, wanted, head, sampler, random)
                added |= {c: int((new.y == c).sum()) for c in wanted}
                room = {c: max(0, n - added[c]) for c, n in room.items()}
                pool = Rows(np.concatenate([pool.Z, new.Z]), np.concatenate([pool.y, new.y]))
            self.head_, more = head.train(*pool)
            cost += more
        self.saved_ = 1 - cost / full if full else 0.0

    def _plan(
        self, room: dict[Any, int], rows: Rows, held: Rows, sampler: Any
    ) -> tuple[dict[Any, int], dict[Any, float] | None]:
        """Rounds of each minority class, and the accuracy of the pairs that decided them."""
        kind = getattr(sampler, "class_specific", None)
        if kind is None:
            return dict.fromkeys(room, self.n_iter), None
        present, codes = np.unique(rows.y, return_inverse=True)
        labels = present.tolist()
        means = to_numpy(class_means(to_tensor(rows.Z), to_tensor(codes), len(labels)))
        majors = find_class_pairs(sampler.class_pairs, [*room], labels, means, np.bincount(codes))
        pairs = [(minor, major) for minor in majors for major in majors[minor]]
        for label in sorted({label for pair in pairs for label in pair}):
            if label not in held.y:
                raise ValueError(
                    f"class_specific={kind!r} judges pairs of classes on held-out rows, and class "
                    f"{label!s} has none with validation_fraction={self.validation_fraction}. "
                    "Raise it, or use class_specific=None."
                )
        logits = torch.from_numpy(scores(self.head_, held.Z, present))
        held_codes = torch.from_numpy(np.searchsorted(present, held.y))
        accuracy = {
            pair: pair_accuracy(logits, held_codes, *map(labels.index, pair)) for pair in pairs
        }
        worst = {c: min(a for pair, a in accuracy.items() if pair[0] == c) for c in room}
        if kind == "threshold":
            return {c: self.n_iter * (a <= sampler.tau) for c, a in worst.items()}, accuracy
        return {c: round(self.n_iter * min(1, 2 * (1 - a))) for c, a in worst.items()}, accuracy

    def _growing(self) -> list[Any]:
        """Minority classes that take part in the next round."""
        left = [c for c, n in self.rounds_.items() if n > self.n_iter_]
        reached = self.history_[-1]["recall"]
        majors = [r for c, r in reached.items() if c not in self.rounds_] or [1.0]
        if self.stopping is None or self.n_iter_ == 0:
            return left
        return [c for c in left if reached[c] < np.mean(majors)]

    def _draw(
        self, rows: Rows, wanted: dict[Any, int], head: Any, sampler: Any, random: Any
    ) -> Rows:
        """Draw the samples of one round; their parents are the original rows."""
        sampler = seeded(clone(sampler), random.randint(_MAX_SEED))
        totals = {c: n + int((rows.y == c).sum()) for c, n in wanted.items()}
        sampler.set_params(sampling_strategy=totals)
        if isinstance(sampler, BiasedExtrapolationSampler):
            sampler.set_params(class_specific=None)  # it has decided the rounds already
            if sampler.estimator is None:
                sampler.set_params(estimator=FrozenEstimator(self._boundary(head, rows.y)))
        # in another order each time: which minors come first must not always be the same
        order = random.permutation(len(rows.y))
        Z, y = sampler.fit_resample(rows.Z[order], rows.y[order])
        self.sampler_ = sampler
        return Rows(Z[len(order) :].astype(rows.Z.dtype), y[len(order) :])

    def _boundary(self, head: Any, y: NDArray[Any]) -> Any:
        """The head as it stands, for the classes that there are samples of."""
        return head.restricted_to(np.unique(y)) if isinstance(head, ContinuedHead) else self.head_

    def _new_sampler(self) -> Any:
        if self.sampler == "passthrough":
            return self.sampler
        if self.sampler is None:
            return BiasedExtrapolationSampler(device=self.device, batch_size=self.batch_size)
        if getattr(self.sampler, "_sampling_type", None) != "over-sampling":
            raise TypeError(
                f"sampler={type(self.sampler).__name__} is no over-sampler, and here only samples "
                "are added. Use one of imblearn.over_sampling, or 'passthrough'."
            )
        return clone(self.sampler)

    def _new_head(self, latent: Tensor, logits: Tensor, classes: NDArray[Any], random: Any) -> Any:
        seed = random.randint(_MAX_SEED)
        last = self._network.last_linear() if self.head is None else None
        if last is not None and _is_last(latent, *last, logits, self._network):
            generator = torch.Generator().manual_seed(seed)
            return ContinuedHead(*last, classes, latent, self.epochs_per_iter, generator)
        head = LogisticRegression(max_iter=1000) if self.head is None else self.head
        return RefittedHead(head, seed)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


# ---------------------------------------------------------------------------- rows and classes


def _is_last(Z: Tensor, weight: Tensor, bias: Tensor, logits: Tensor, network: Network) -> bool:
    """Whether the network's outputs are those of its linear layer, up to rounding."""
    expected = Z @ weight.T + bias
    band = 8 * network.eps * float((Z.abs() @ weight.T.abs() + bias.abs()).max())
    if not network.ends_in_logits:
        return bool((expected.softmax(1) - logits.softmax(1)).abs().max() <= band + 1e-4)
    off = expected - logits
    return bool((off - off.mean(1, keepdim=True)).abs().max() <= band)


def _split(y: NDArray[Any], fraction: float, random: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of the rows to train on and of those held out: a share of each class."""
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        held[rows[: int(fraction * len(rows))]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def _room(sampler: Any, y: NDArray[Any]) -> dict[Any, int]:
    """By minority class, how many samples it may still get."""
    strategy = "auto" if sampler == "passthrough" else sampler.sampling_strategy
    counts = check_sampling_strategy(strategy, y, "over-sampling")
    return {np.asarray(c).item(): int(n) for c, n in counts.items() if n > 0}
