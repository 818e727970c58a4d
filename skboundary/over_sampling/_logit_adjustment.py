"""LogitAdjustedClassifier: a classifier corrected for the shares of the classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_method_params, check_is_fitted

from skboundary._callbacks import fit_tasks, pass_task, task
from skboundary._device import DeviceLike, to_numpy
from skboundary._random import RandomStateLike
from skboundary._validation import all_or_nothing, check_targets, named
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._factory import is_trained
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import encode_labels, resolve_labels
from skboundary.networks._parameters import NETWORK_CONSTRAINTS, fill_docstring
from skboundary.networks._routing import Routed, folds_of, weights_of_last_step

_TAUS = np.linspace(0, 3, 61)  # what tau="auto" chooses from; 1 is among them


@fill_docstring
class LogitAdjustedClassifier(NetworkHostMixin, ClassifierMixin, BaseEstimator):
    r"""Subtract the logarithms of the class shares from the logits of a classifier.

    Post-hoc logit adjustment [1]_ predicts :math:`\arg\max_c f_c(x) - \tau \log \pi_c` (equation
    10), where :math:`f` are the logits and :math:`\pi` the shares of the classes in training. With
    :math:`\tau = 1` and calibrated probabilities this minimizes the balanced error, the mean of
    the error rates of the classes. Nothing is resampled and no network is changed.

    Read more in the :ref:`User Guide <logit_adjustment>`.

    Parameters
    ----------
    {estimator}
    tau : float or "auto", default=1.0
        Strength of the correction; 0 is the classifier itself. "auto" chooses the value with the
        largest balanced accuracy, among equals the one nearest to 1: for an estimator that is
        fitted here by cross-validation, or on `X_val` if `fit` is given one; for a trained network
        on `X_val` alone.
    prior : array-like of shape (n_classes,), default=None
        Share of each class in the data that the classifier was trained on, in the order of
        `classes_`. None takes the shares in the y of `fit`, with the `sample_weight` that the
        classifier is fitted with.
    cv : int, cross-validation generator or iterable, default=5
        The folds of ``tau="auto"``. An int is lowered to the number of samples of the rarest class.
    {device}
    {batch_size}
    {random_state}
    {verbose}

    Attributes
    ----------
    {classes_}
    {estimator_}
    prior_ : ndarray of shape (n_classes,)
        Shares of the classes; their sum is 1.
    tau_ : float
        Strength of the correction.
    {device_}
    {input_shape_}
    {n_features_in_}
    {feature_names_in_}

    See Also
    --------
    BiasedExtrapolationSampler : Synthetic samples of minority classes instead.
    sklearn.model_selection.TunedThresholdClassifierCV : A tuned threshold for two classes.

    Notes
    -----
    The logits of a classifier without a module are the logarithms of its `predict_proba`, or its
    decision values, which are no logarithms of probabilities: with them, choose `tau` by "auto".

    References
    ----------
    .. [1] A. K. Menon et al., "Long-tail learning via logit adjustment",
       https://arxiv.org/abs/2007.07314

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.metrics import balanced_accuracy_score
    >>> from skboundary import LogitAdjustedClassifier
    >>> X, y = make_classification(2000, weights=[0.95], class_sep=0.5, random_state=0)
    >>> clf = LogitAdjustedClassifier(LogisticRegression()).fit(X[:1000], y[:1000])
    >>> print(f"{balanced_accuracy_score(y[1000:], clf.estimator_.predict(X[1000:])):.2f}")
    0.81
    >>> print(f"{balanced_accuracy_score(y[1000:], clf.predict(X[1000:])):.2f}")
    0.88
    """

    _parameter_constraints: dict[str, Any] = {
        **NETWORK_CONSTRAINTS,
        "tau": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "prior": ["array-like", None],
        "cv": ["cv_object"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        tau: float | str = 1.0,
        prior: Any = None,
        cv: Any = 5,
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
        random_state: RandomStateLike = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.tau = tau
        self.prior = prior
        self.cv = cv
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    @fit_tasks(lambda self: self._n_trainings + (self.tau == "auto"))
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        **fit_params: Any,
    ) -> LogitAdjustedClassifier:
        """Fit the classifier unless it is trained, and determine the correction.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Optional for a trained network with a `prior`.
        X_val : array-like of shape (n_val, ...), default=None
            Samples for ``tau="auto"`` that the classifier is not trained on.
        y_val : array-like of shape (n_val,), default=None
            Their labels.
        **fit_params : dict
            Metadata, see :ref:`metadata`: `sample_weight` for `fit` of `estimator`, which also
            weighs samples in the shares of the classes and in the balanced accuracy of the folds,
            and `groups` for `cv`.

        Returns
        -------
        self : LogitAdjustedClassifier

        Raises
        ------
        ValueError
            If a class has no share, if `prior` does not match the classes, or if there are no
            samples to choose `tau` on, or too few.
        """
        given = X_val is not None
        if given != (y_val is not None):
            raise ValueError("Give X_val and y_val together, or neither.")
        if given and self.tau != "auto":
            raise ValueError(
                f"X_val has no effect with tau={self.tau}: set tau='auto', or omit X_val."
            )
        X, y = self._check_fit(X, y)
        routed = self._route(fit_params, X, self._idle(given))
        self.estimator_, self._network = self._as_network(X, y, fit_params=routed.fit)
        self.device_ = self._network.device
        self.classes_, codes = resolve_labels(y, self._network.classes_)
        weight = weights_of_last_step(self.estimator, routed.fit)
        weight = None if weight is None else np.broadcast_to(weight, X.shape[0])
        self.prior_ = self._shares(codes, weight)
        if self.tau != "auto":
            self.tau_ = float(self.tau)
        elif given:
            with named("val"):
                X_val = self._check_X(X_val)
                labels = check_targets(self, X_val, y_val)
                assert labels is not None
                true = encode_labels(labels, self.classes_)
            with pass_task("choose-tau", self._network.n_batches(X_val)):
                logits = self._network.logits(X_val)
            self.tau_ = self._best_tau(to_numpy(logits), true)
        elif is_trained(self.estimator):
            raise ValueError(
                "tau='auto' with a trained network needs samples that it was not trained on: pass "
                "X_val and y_val to fit."
            )
        else:
            assert codes is not None  # a classifier that is fitted here requires y
            test, logits = self._logits_of_folds(X, y, codes, routed)
            of_test = None if weight is None else weight[test]
            self.tau_ = self._best_tau(logits, codes[test], of_test)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the adjusted logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes, the logit of the second minus that of the first.
        """
        logits = to_numpy(self._adjusted(X))
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    @over_chunks(lambda self, X: Output((len(self.classes_),), self._network.dtype))
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the softmax of the adjusted logits.

        With ``tau=1`` these are the probabilities of the classes if all were equally frequent.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.
        """
        return to_numpy(torch.softmax(self._adjusted(X), 1))

    @over_chunks(lambda self, X: Output((), self.classes_.dtype))
    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        codes = to_numpy(self._adjusted(X).argmax(1))
        return self.classes_[codes]

    def _adjusted(self, X: Any) -> torch.Tensor:
        check_is_fitted(self)
        logits = self._network.logits(self._check_X(X))
        return logits - self.tau_ * torch.from_numpy(np.log(self.prior_)).to(logits.dtype)

    def _consumers(self) -> dict[str, tuple[Any, str]]:
        return super()._consumers() | {"splitter": (self.cv, "split")}

    def _idle(self, validated: bool) -> dict[str, str]:
        """What a call does not use of those that metadata can be routed to, with the reason."""
        if self.tau != "auto":
            return {"splitter": f"tau={self.tau} is not chosen"}
        return {"splitter": "tau is chosen on X_val"} if validated else {}

    def _shares(self, codes: NDArray[np.intp] | None, weight: Any) -> NDArray[Any]:
        """Shares of the classes, from `prior` or from the codes of y."""
        n_classes = len(self.classes_)
        if self.prior is not None:
            prior = np.asarray(self.prior, dtype=np.float64)
            if prior.shape != (n_classes,) or not (np.isfinite(prior) & (prior > 0)).all():
                raise ValueError(
                    f"prior={self.prior!r} must hold a positive number for each of the "
                    f"{n_classes} classes {self.classes_[:10].tolist()}."
                )
            return prior / prior.sum()
        if codes is None:
            raise ValueError("The shares of the classes are unknown: pass y to fit, or set prior.")
        counts = np.bincount(codes, weight, minlength=n_classes)
        if not (counts > 0).all():
            raise ValueError(
                f"The class {self.classes_[counts.argmin()].item()!r} of the network has no sample "
                "of positive weight in y, so its share is unknown. Set prior."
            )
        return counts / counts.sum()

    def _logits_of_folds(
        self, X: Any, y: Any, codes: NDArray[np.intp], routed: Routed
    ) -> tuple[NDArray[np.intp], NDArray[Any]]:
        """Samples of the folds, and logits of each by a classifier fitted on other samples."""
        cv, counts = self.cv, np.bincount(codes)
        if isinstance(cv, Integral):
            if counts.min() < 2:
                raise ValueError(
                    f"The class {self.classes_[counts.argmin()].item()!r} has a single sample, so "
                    "tau='auto' cannot cross-validate. Set tau to a number, or pass X_val and "
                    "y_val to fit."
                )
            cv = min(cv, counts.min())
        tests, logits = [], []
        folds = folds_of(cv, X, codes, **routed.split)
        with task("choose-tau", len(folds)):
            for train, test in folds:
                missing = np.setdiff1d(codes, codes[train])
                if len(missing):
                    raise ValueError(
                        f"A training fold of cv={self.cv!r} has no sample of the class "
                        f"{self.classes_[missing[0]].item()!r}. Use a splitter that is "
                        "stratified, such as StratifiedGroupKFold()."
                    )
                metadata = _check_method_params(X, routed.fit, train)
                with task("fold", 1):
                    _, network = self._as_network(
                        _safe_indexing(X, train), y[train], fit_params=metadata
                    )
                logits.append(to_numpy(network.logits(_safe_indexing(X, test))))
                tests.append(test)
        return np.concatenate(tests), np.concatenate(logits)

    def _best_tau(self, logits: NDArray[Any], codes: NDArray[np.intp], weight: Any = None) -> float:
        """The tau of the largest balanced accuracy, among equals the one nearest to 1."""
        weight = np.ones(len(codes)) if weight is None else weight
        total = np.bincount(codes, weight, minlength=len(self.classes_))
        total[total == 0] = 1  # a class that counts nothing
        weight = weight / total[codes]  # each class in y counts the same
        accuracy = []
        for tau in _TAUS:
            predicted = (logits - tau * np.log(self.prior_)).argmax(1)
            accuracy.append(weight[predicted == codes].sum())
        best = np.flatnonzero(np.isclose(accuracy, np.max(accuracy), rtol=1e-12))
        return float(_TAUS[best[np.abs(_TAUS[best] - 1).argmin()]])
