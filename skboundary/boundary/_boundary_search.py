"""The search of BoundarySampleExtractor: its bounds, targets, options, and distances."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skboundary._batching import joined, progress
from skboundary._device import to_numpy
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._inputs import check_inside, find_bounds, floating, label_code, numbers
from skboundary.boundary._pairs import BoundaryPairs
from skboundary.boundary._returns import check_returns, partners, successful_distances
from skboundary.boundary._solve import SolveOptions, batch_size, find_pairs
from skboundary.boundary._training_samples import Starts
from skboundary.boundary.methods._problem import Settings
from skboundary.boundary.methods._registry import Method, choose_method
from skboundary.functional.margins import runner_up

_BLOCK_BYTES = 2**24  # in the samples that are searched from at a time, or one batch

Search = Callable[[FittedClassifier, Starts, slice], Sequence[NDArray[Any]]]


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

    def _check(self, X: Any) -> Any:
        """Validate samples, which become an array or a SampleArray."""
        self._validate_params()  # all but the classifier and bounds act without a refit
        X = numbers(self._check_X(X))
        self._check_bounds(X)
        return X

    def _starts(self, X: NDArray[Any]) -> Starts:
        """Predict samples (n, ...), which become floats."""
        X = X.astype(floating(X), copy=False)
        return self._classifier.predict(X, latent=self._method().uses_latent)

    def _by_blocks(self, search: Search, X: Any, n_searches: int = 1) -> list[NDArray[Any]]:
        """Search from some samples at a time, which bounds the memory.

        Parameters
        ----------
        search : callable
            Maps a classifier, samples to start from and their slice to arrays (m, ...).
        X : array or SampleArray of shape (n, ...)
        n_searches : int, default=1
            Searches from each sample.

        Returns
        -------
        arrays : list of ndarray of shape (n, ...)
        """
        method, n = self._method(), len(X)
        size = batch_size(self._classifier, X.shape, method)
        if method.batched:
            sample_bytes = math.prod(X.shape[1:]) * np.dtype(floating(X)).itemsize
            size = max(1, max(size, _BLOCK_BYTES // sample_bytes) // n_searches)
        classifier = self._searched()
        with progress(n, "samples", self.verbose if size < n else 0) as bar:

            def parts() -> Iterator[Sequence[NDArray[Any]]]:
                for start in range(0, n, size):
                    part = slice(start, min(start + size, n))
                    yield search(classifier, self._starts(X[part]), part)
                    bar.update(part.stop - start)

            return joined(parts(), n)

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

    def _searched(self) -> FittedClassifier:
        """The classifier for a search, with training samples if the method looks at them."""
        if self._method().uses_training:
            return self._within()
        return self._classifier.without_samples()  # which other processes need not get

    def _find(
        self,
        classifier: FittedClassifier,
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
        pairs = find_pairs(classifier, options, starts, source, target)
        return replace(pairs, feature_names=getattr(self, "feature_names_in_", None))

    def _partners(
        self, classifier: FittedClassifier, starts: Starts, part: slice
    ) -> tuple[NDArray[Any], ...]:
        """What `transform` returns for each sample, the status of the search, and its classes."""
        starts, source, target = self._aim(starts, starts.predicted)
        pairs = self._find(classifier, starts, source, target, pairs=False)
        if self.returns == "boundary":
            found = partners(pairs)
        elif self.returns == "perturbation":
            found = partners(pairs) - starts.X
        else:
            found = successful_distances(pairs)[:, None]
        return found, pairs.status, source, target

    def _pairs(
        self,
        codes: NDArray[np.intp] | None,
        classifier: FittedClassifier,
        starts: Starts,
        part: slice,
    ) -> list[NDArray[Any]]:
        """The arrays of `BoundaryPairs`, from given classes or from predicted ones."""
        starts = starts._replace(place=np.arange(part.start, part.stop))
        source = starts.predicted if codes is None else codes[part]
        pairs = self._find(classifier, *self._aim(starts, source))
        return [getattr(pairs, field.name) for field in fields(pairs)[:-1]]

    def _class_distances(
        self, classifier: FittedClassifier, starts: Starts, part: slice
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Distances (n, n_classes) to the boundary of each class, and the statuses of searches."""
        source = starts.predicted
        index, target = (a.ravel() for a in np.indices((len(source), len(self.classes_))))
        other = target != source[index]
        index, target = index[other], target[other]
        repeated = starts.select(index)
        pairs = self._find(classifier, repeated, source[index], target, pairs=False)
        distances = np.zeros((len(source), len(self.classes_)), dtype=repeated.X.dtype)
        distances[index, target] = successful_distances(pairs)
        return distances, pairs.status.reshape(len(source), -1)
