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
from scipy import sparse
from sklearn.utils import check_random_state
from sklearn.utils._set_output import _get_output_config

from skboundary._batching import joined, progress
from skboundary._device import DeviceLike, to_numpy
from skboundary._random import RandomStateLike
from skboundary.boundary._batches import batch_size
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._columns import as_container, find_levels, mark_columns
from skboundary.boundary._inputs import (
    check_inside,
    data_range,
    find_bounds,
    floating,
    label_code,
    numbers,
)
from skboundary.boundary._interval import lower_bounds
from skboundary.boundary._pairs import BoundaryPairs
from skboundary.boundary._returns import check_returns, partners, successful_distances
from skboundary.boundary._solve import SolveOptions, find_pairs, warn_of_failures
from skboundary.boundary._table import Table
from skboundary.boundary._training_samples import Starts
from skboundary.boundary.methods._problem import Settings
from skboundary.boundary.methods._registry import METHODS, Method, choose_method
from skboundary.functional.margins import runner_up
from skboundary.networks._chunks import Output

_BLOCK_BYTES = 2**24  # in the samples that are searched from at a time, or one batch

Search = Callable[[FittedClassifier, Starts, slice], Sequence[NDArray[Any]]]


class BoundarySearchMixin:
    """Searches with the parameters of an extractor, which act without a refit."""

    estimator: Any
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
    categorical: Any
    immutable: Any
    max_changes: int | None
    n_jobs: int | None
    device: DeviceLike
    batch_size: int | str
    random_state: RandomStateLike
    verbose: int
    classes_: NDArray[Any]
    device_: torch.device
    estimator_: Any
    input_shape_: tuple[int, ...]
    response_: str
    _classifier: FittedClassifier
    _categorical: NDArray[np.bool_]
    _range: tuple[NDArray[Any], NDArray[Any]]
    _validate_params: Any
    _check_X: Any

    def _fit_classifier(self, X: Any, y: NDArray[Any] | None, fit_params: dict[str, Any]) -> None:
        """Fit the classifier if it is not trained, and check the parameters of searches."""
        self._categorical = self._mark(self.categorical, "categorical")
        method = METHODS.get(self.method)  # None is "auto", which needs no latent vectors
        classifier = self._classifier = FittedClassifier.fit(
            self.estimator,
            numbers(X) if sparse.issparse(X) else X,
            y,
            response="label" if self._categorical.any() else None,
            latent=method is not None and method.uses_latent,
            levels=find_levels(X, self._categorical),
            fit_params=fit_params,
            device=self.device,
            batch_size=self.batch_size,
            random_state=check_random_state(self.random_state),
            verbose=self.verbose,
        )
        self.estimator_, self.classes_ = classifier.estimator, classifier.classes
        self.device_, self.response_ = classifier.network.device, classifier.response
        self._range = data_range(classifier.training.X)
        self._check_bounds(classifier.training.X)
        self._method()
        if self.target not in ("nearest", "runner_up"):
            label_code(self.target, self.classes_, "target")

    def _transform(self, X: Any) -> Any:
        """Compute for samples X what `returns` names."""
        given, X = X, self._check(X)
        per_value = self.returns in ("boundary", "perturbation")
        if per_value and X.ndim > 2 and _get_output_config("transform", self)["dense"] != "default":
            raise ValueError(
                f"Samples of shape {X.shape[1:]} do not fit into a DataFrame: use "
                "set_output(transform='default'), or returns='distance' or 'class_distances'."
            )
        if self.returns == "class_distances":
            others = max(1, len(self.classes_) - 1)
            result, status = self._by_blocks(self._class_distances, X, others)
        else:
            result, status, *aim = self._by_blocks(self._partners, X)
        warn_of_failures(self._classifier, status, X)
        if self.returns == "interval":
            result = np.column_stack([lower_bounds(self._classifier, X, *aim), result])
        return self._put_back(result, given) if self.returns == "boundary" else result

    @property
    def bounds_(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Lowest and highest values; a new value of `bounds` acts at the next call."""
        if isinstance(self.bounds, str):
            return self._range
        bounds = find_bounds(self.bounds, self.input_shape_)
        if bounds is None or not self._categorical.any():
            return bounds
        low, high = bounds
        return np.where(self._categorical, -np.inf, low), np.where(self._categorical, np.inf, high)

    def _check_bounds(self, X: NDArray[Any]) -> None:
        """Refuse samples outside of the bounds, unless bounds are extended for each of them."""
        bounds = self.bounds_
        if bounds is not None and not isinstance(self.bounds, str):
            check_inside(X, *bounds)

    def _method(self) -> Method:
        """The method of the table, where it supports the norm and the classifier."""
        table = self._table()
        method = choose_method(self.method, self.norm, self.response_, self.estimator_, table)
        check_returns(self.returns, self.norm, bool(self._categorical.any()), self._has_levels())
        method.settle(self.effort)
        return method

    def _table(self) -> Table | None:
        """Rules for columns, where there are any."""
        given = self.immutable is not None or self.max_changes is not None
        if not given and not self._categorical.any():
            return None
        immutable = self._mark(self.immutable, "immutable")
        return Table(self._categorical, immutable, self.max_changes)

    def _mark(self, wanted: Any, name: str) -> NDArray[np.bool_]:
        """Mark the columns (d,) that a parameter gives by position or by name."""
        if wanted is not None and len(self.input_shape_) != 1:
            raise ValueError(
                f"{name}={wanted!r} names columns, but samples have the shape {self.input_shape_}. "
                f"Use {name}=None."
            )
        names = getattr(self, "feature_names_in_", None)
        return mark_columns(wanted, name, self.input_shape_[0], names)

    def _has_levels(self) -> bool:
        """Whether some columns do not hold numbers."""
        columns = self._classifier.columns
        return columns is not None and bool(columns.levels)

    def _within(self) -> FittedClassifier:
        """The classifier with its training samples inside the bounds."""
        bounds = self.bounds_
        if bounds is None or isinstance(self.bounds, str):
            return self._classifier
        return self._classifier.inside(bounds)

    def _check(self, X: Any) -> Any:
        """Validate samples, which become an array or a SampleArray."""
        self._validate_params()  # all but the classifier and bounds act without a refit
        columns = self._classifier.columns
        X = numbers(self._check_X(X), None if columns is None else columns.levels)
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
        if not method.pairs_at_once:
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
                self._table(),
            ),
            self.bounds_,
            isinstance(self.bounds, str),
            random_partners,
            self.n_jobs,
            self.verbose,
        )
        return find_pairs(classifier, options, starts, source, target)

    def _for_user(self, pairs: BoundaryPairs) -> BoundaryPairs:
        """Pairs with the names of the columns, and categories in place of their positions."""
        columns = self._classifier.columns
        if self._categorical.any():  # there is nothing in between
            pairs.midpoint[:, self._categorical] = pairs.outer[:, self._categorical]
        points = {
            name: getattr(pairs, name) if columns is None else columns.values(getattr(pairs, name))
            for name in ("inner", "outer", "midpoint", "start")
        }
        return replace(pairs, **points, feature_names=getattr(self, "feature_names_in_", None))

    def _put_back(self, points: NDArray[Any], X: Any) -> Any:
        """Points (n, ...) as a DataFrame like X where some columns do not hold numbers."""
        if not self._has_levels():
            return points
        frame = as_container(points, self._classifier.columns)
        if hasattr(X, "index"):
            frame.index = X.index
        return frame

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

    def _describe(self, X: Any) -> Output:
        """What `transform` returns for a sample of X."""
        shapes = {"distance": (1,), "interval": (2,), "class_distances": (len(self.classes_),)}
        return Output(shapes.get(self.returns, X.shape[1:]), floating(X))
