"""The search of BoundarySampleExtractor: its bounds, targets, options, and distances."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skboundary._device import to_numpy
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._inputs import check_inside, find_bounds, floating, label_code, numbers
from skboundary.boundary._pairs import BoundaryPairs
from skboundary.boundary._returns import check_returns, successful_distances
from skboundary.boundary._solve import SolveOptions, find_pairs, warn_of_failures
from skboundary.boundary._training_samples import Starts
from skboundary.boundary.methods._problem import Settings
from skboundary.boundary.methods._registry import Method, choose_method
from skboundary.functional.margins import runner_up


class BoundarySearchMixin:
    """Searches with the parameters of an extractor, which act without a refit."""

    method: str
    returns: str
    target: Any
    effort: str | int
    confidence: float
    penalty: float | None
    norm: Any
    margin_tol: float
    bounds: Any
    generator: Any
    n_jobs: int | None
    verbose: int
    classes_: NDArray[Any]
    estimator_: Any
    input_shape_: tuple[int, ...]
    response_: str
    _classifier: FittedClassifier
    _range: tuple[NDArray[Any], NDArray[Any]]
    _validate_params: Any
    _check_X: Any

    @property
    def bounds_(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Lowest and highest values; a new value of `bounds` acts at the next call."""
        if isinstance(self.bounds, str):
            return self._range
        return find_bounds(self.bounds, self.input_shape_)

    def _check_bounds(self, X: NDArray[Any]) -> None:
        """Refuse samples outside of the bounds, unless bounds are extended for each of them."""
        bounds = self.bounds_
        if bounds is not None and not isinstance(self.bounds, str):
            check_inside(X, *bounds)

    def _method(self) -> Method:
        """The method of the table, where it supports the norm and the classifier."""
        method = choose_method(self.method, self.norm, self.response_, self.estimator_)
        check_returns(self.returns, self.norm)
        method.settle(self.effort)
        return method

    def _within(self) -> FittedClassifier:
        """The classifier with its training samples inside the bounds."""
        bounds = self.bounds_
        if bounds is None or isinstance(self.bounds, str):
            return self._classifier
        return self._classifier.inside(bounds)

    def _check(self, X: Any) -> Starts:
        """Validate samples, and predict them."""
        self._validate_params()  # all but the classifier and bounds act without a refit
        X = numbers(self._check_X(X))
        self._check_bounds(X)
        X = X.astype(floating(X), copy=False)
        method = self._method()
        return self._classifier.predict(X, latent=method.uses_latent)

    def _aim(
        self, starts: Starts, source: NDArray[np.intp]
    ) -> tuple[Starts, NDArray[np.intp], NDArray[np.intp]]:
        """Samples, their classes, and the class that each is to reach; -1 is any other."""
        n = len(source)
        if self.target == "nearest":
            return starts, source, np.full(n, -1)
        if self.target != "runner_up":
            return starts, source, np.full(n, label_code(self.target, self.classes_, "target"))
        network = self._classifier.network
        if not network.has_scores:
            raise ValueError(
                f"target='runner_up' needs scores, and {network.name} has none: use "
                "target='nearest' or a class."
            )
        logits = starts.logits
        if logits is None:
            logits = self._classifier.logits(starts.X)
            starts = starts._replace(n_runs=starts.n_runs + 1)
        return starts, source, to_numpy(runner_up(logits, torch.from_numpy(source)).label)

    def _find(
        self,
        starts: Starts,
        source: NDArray[np.intp],
        target: NDArray[np.intp],
        *,
        pairs: bool = True,
        random_partners: bool = False,
    ) -> BoundaryPairs:
        method = self._method()
        effort, budget = method.settle(self.effort)
        options = SolveOptions(
            method,
            Settings(
                effort,
                self.confidence,
                self.penalty,
                self.norm,
                self.margin_tol,
                self.generator,
                pairs,
                budget,
            ),
            self.bounds_,
            isinstance(self.bounds, str),
            random_partners,
            self.n_jobs,
            self.verbose,
        )
        classifier = self._within() if method.uses_training else self._classifier
        pairs = find_pairs(classifier, options, starts, source, target)
        return replace(pairs, feature_names=getattr(self, "feature_names_in_", None))

    def _class_distances(self, starts: Starts) -> NDArray[Any]:
        """Distances (n, n_classes) to the boundary of each class, all of them in one search."""
        source = starts.predicted
        index, target = (a.ravel() for a in np.indices((len(source), len(self.classes_))))
        other = target != source[index]
        index, target = index[other], target[other]
        repeated = starts.select(index)
        pairs = self._find(repeated, source[index], target, pairs=False)
        warn_of_failures(self._classifier, pairs, repeated.X)
        distances = np.zeros((len(source), len(self.classes_)), dtype=repeated.X.dtype)
        distances[index, target] = successful_distances(pairs)
        return distances
