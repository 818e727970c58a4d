"""A fitted classifier together with its training samples, for the estimators of this package."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skboundary._callbacks import pass_task
from skboundary._device import to_numpy, to_tensor
from skboundary._plain import storable
from skboundary._random import draw_seed
from skboundary.boundary._columns import Columns, Levels, as_container, columns_of
from skboundary.boundary._inputs import numbers
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._response import find_response
from skboundary.boundary._training_samples import Starts, TrainingSamples, within
from skboundary.networks import Network, as_network
from skboundary.networks._labels import resolve_labels

SEARCH_NUMBERS = 2**22  # in the samples that go through a black box at a time


@storable
@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A fitted classifier, the response that searches use, and its training samples.

    Parameters
    ----------
    network : Network
    estimator : fitted classifier
    classes : ndarray of shape (n_classes,)
        By position; not those of the network where `fit` was given positions.
    columns : Columns or None
        Those of the DataFrame on which the classifier was fitted.
    batch_size : "auto" or int
        Number of samples in a search batch.
    seed : int
    response : {"gradient", "score", "label"}
    training : TrainingSamples
        None at all where `fit` was not to keep them.
    """

    network: Network
    estimator: Any
    classes: NDArray[Any]
    columns: Columns | None
    batch_size: Any
    seed: int
    response: str
    training: TrainingSamples

    @classmethod
    def fit(
        cls,
        estimator: Any,
        X: Any,
        y: NDArray[Any] | None,
        *,
        random_state: np.random.RandomState,
        response: str | None = None,
        keep_samples: bool = True,
        latent: bool = False,
        levels: Levels | None = None,
        **params: Any,
    ) -> FittedClassifier:
        """Fit the classifier if it is not trained, and determine its response.

        Parameters
        ----------
        estimator : see `as_network`
        X : array-like of shape (n_samples, ...)
        y : ndarray of shape (n_samples,) or None
            With it, misclassified samples are not usable.
        random_state : RandomState
        response : {"gradient", "score", "label"}, default=None
            What searches will use. None probes the classifier.
        keep_samples : bool, default=True
            Whether searches start from training samples, or compare with them.
        latent : bool, default=False
            Keep their latent vectors and logits, too.
        levels : Levels, default=None
            Categories of the columns of a DataFrame that do not hold numbers.
        **params
            `device`, `batch_size` and `verbose` of the host, and `fit_params`.

        Returns
        -------
        classifier : FittedClassifier

        Raises
        ------
        ValueError
            See `as_network`; for columns that do not hold numbers, and for a classifier that
            refuses points between its training samples.
        """
        samples = numbers(X, levels) if keep_samples else np.empty((0, *X.shape[1:]))
        estimator, network = as_network(
            estimator, X, y, random_state=random_state, latent=False, labels=True, **params
        )
        batch_size = network.batch_size
        if not network.is_module and batch_size == "auto":
            # black boxes get all samples of a step in one call, unless they are many
            network.batch_size = max(1, SEARCH_NUMBERS // math.prod(X.shape[1:]))
        classes, codes = resolve_labels(y, network.classes_)
        columns, seed = columns_of(estimator, X, levels), draw_seed(random_state)
        nothing = _no_samples(samples)
        classifier = cls(
            network, estimator, classes, columns, batch_size, seed, response or "", nothing
        )
        if not keep_samples:
            network.verbose = 0
            return classifier
        with pass_task("run-network", network.n_batches(samples)):
            known = classifier.predict(samples, latent=latent)
        network.verbose = 0  # searches show progress
        usable = np.full(len(samples), True) if codes is None else codes == known.predicted
        training = TrainingSamples(samples, known.predicted, usable)
        if latent:
            training = training._replace(logits=known.logits, latent=known.latent)
        if response is None:
            response = classifier._find_response(samples)
        return replace(classifier, response=response, training=training)

    def predict(self, X: NDArray[Any], *, latent: bool = False) -> Starts:
        """Run samples (n, ...) through the classifier once, for all that this pass gives."""
        network, samples = self.network, as_container(X, self.columns)
        if not network.is_module:
            z = self.latent(X) if latent else None
            return Starts(X, to_numpy(network.labels(samples)), None, z, 1)
        if latent and network.has_linear:
            z, logits = network.latent_and_logits(samples)
        else:
            logits, z = network.logits(samples), self.latent(X) if latent else None
        return Starts(X, to_numpy(logits.argmax(1)), logits, z, 1)

    def labels(self, X: NDArray[Any]) -> NDArray[np.intp]:
        """Predicted classes (n,) of samples (n, ...), as positions in `classes`."""
        return to_numpy(self.network.labels(as_container(X, self.columns)))

    def logits(self, X: NDArray[Any]) -> Tensor:
        """Logits (n, n_classes) of samples (n, ...)."""
        return self.network.logits(as_container(X, self.columns))

    def latent(self, X: NDArray[Any]) -> Tensor:
        """Latent vectors (n, n_latent); the samples themselves for a network without a layer."""
        if self.network.is_module and not self.network.has_linear:
            return to_tensor(X).flatten(1).to(self.network.dtype)
        return self.network.latent(as_container(X, self.columns))

    def training_latent(self) -> Tensor:
        """Latent vectors (n, n_latent) of the training samples."""
        training = self.training
        return self.latent(training.X) if training.latent is None else training.latent

    def without_samples(self) -> FittedClassifier:
        """This classifier alone, for searches that start from no training samples."""
        return replace(self, training=_no_samples(self.training.X))

    def inside(self, bounds: tuple[NDArray[Any], NDArray[Any]]) -> FittedClassifier:
        """This classifier, its training samples moved into bounds."""
        training = within(self.training, bounds, self.labels)
        return self if training is self.training else replace(self, training=training)

    @contextmanager
    def open(self, response: str | None = None) -> Iterator[Oracle]:
        """Open the classifier for a search, which may use less than all of the response.

        The network is locked during this, see `Network.differentiable_logits`.
        """
        response = self.response if response is None else response
        if not self.network.differentiable:
            yield Oracle(self.network, response, self.columns)
            return
        with self.network.differentiable_logits() as forward:
            yield Oracle(self.network, response, self.columns, forward)

    def _find_response(self, X: NDArray[Any]) -> str:
        name = type(self.estimator).__name__
        try:
            rng = np.random.default_rng(self.seed)
            return find_response(self.network, name, X, self.columns, rng)
        except ValueError as error:
            raise ValueError(
                f"{name} refuses points between the samples of X, where the boundary lies "
                f"({error}). Encode columns that hold categories before."
            ) from error


def _no_samples(X: Any) -> TrainingSamples:
    return TrainingSamples(X[:0], np.empty(0, np.intp), np.empty(0, bool))
