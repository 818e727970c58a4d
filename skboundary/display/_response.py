"""Predicted classes and their probabilities, from any classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skboundary._batching import BATCH_BYTES
from skboundary._device import to_numpy
from skboundary.boundary._columns import as_container, columns_of
from skboundary.boundary._inputs import floating, numbers
from skboundary.neighbors import LatentKNNClassifier
from skboundary.networks import FrozenNetwork
from skboundary.networks._labels import encode_labels

_ARGMAX = (FrozenNetwork, LatentKNNClassifier)  # `predict` returns the most probable class


def samples_of(X: Any) -> NDArray[Any]:
    """Samples of any container as floats, float32 if they are.

    Raises
    ------
    ValueError
        For columns that do not hold numbers.
    """
    X = numbers(to_numpy(X) if isinstance(X, torch.Tensor) else X)
    return X.astype(floating(X), copy=False)


def name_of(estimator: Any) -> str:
    """Class of a classifier, of a frozen network that of the module."""
    model = estimator.module if isinstance(estimator, FrozenNetwork) else estimator
    return type(model).__name__


class Response:
    """A fitted classifier as a function from samples to classes and their probabilities.

    Parameters
    ----------
    estimator : fitted classifier or torch.nn.Module
        With `predict`, and `predict_proba` or `decision_function` if it has them.
    X : array-like of shape (n_samples, ...)
        Some samples as the classifier takes them.

    Raises
    ------
    ValueError
        For an object that does not predict classes.
    NotFittedError
        For an estimator that is not fitted.
    """

    def __init__(self, estimator: Any, X: Any) -> None:
        if isinstance(estimator, torch.nn.Module):
            estimator = FrozenNetwork(estimator)
        if isinstance(estimator, FrozenNetwork) and not hasattr(estimator, "classes_"):
            estimator = clone(estimator).fit(samples_of(X[:1]))  # a clone shares the module
        if hasattr(estimator, "__sklearn_tags__"):
            check_is_fitted(estimator)
        if not hasattr(estimator, "predict") or not hasattr(estimator, "classes_"):
            raise ValueError(
                f"{type(estimator).__name__} has no predict or no classes_. Give a fitted "
                "classifier or a torch.nn.Module."
            )
        self.estimator, self.name = estimator, name_of(estimator)
        self.classes = np.asarray(estimator.classes_)
        self._columns = columns_of(estimator, X)

    def __call__(self, X: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any] | None]:
        """Predict samples (n, ...).

        Returns
        -------
        codes : ndarray of shape (n,)
            Positions in `classes`.
        confidence : ndarray of shape (n,) or None
            Probability of that class; the softmax of decision values where there are no
            probabilities, None if there are no decision values either.
        """
        step = max(1, BATCH_BYTES // max(X[:1].nbytes, 1))
        parts = [self._batch(X[start : start + step]) for start in range(0, len(X), step)]
        codes, confidence = zip(*parts, strict=True)
        known = confidence[0] is not None
        return np.concatenate(codes), np.concatenate(confidence) if known else None

    def _batch(self, X: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[Any] | None]:
        samples = as_container(X, self._columns)
        proba = self._proba(samples)
        if proba is not None and isinstance(self.estimator, _ARGMAX):
            codes = proba.argmax(1)
        else:
            codes = encode_labels(np.asarray(self.estimator.predict(samples)), self.classes)
        return codes, None if proba is None else proba[np.arange(len(codes)), codes]

    def _proba(self, samples: Any) -> NDArray[Any] | None:
        """Probabilities (n, n_classes), None if there are no values for every class."""
        if hasattr(self.estimator, "predict_proba"):
            return np.asarray(self.estimator.predict_proba(samples))
        if not hasattr(self.estimator, "decision_function"):
            return None
        scores = np.asarray(self.estimator.decision_function(samples))
        if scores.ndim == 1:
            return np.column_stack([expit(-scores), expit(scores)])
        return softmax(scores, axis=1) if scores.shape[1] == len(self.classes) else None
