"""What a method gets: samples, classes, bounds, partners and settings."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from skboundary.boundary._oracle import Outputs
from skboundary.boundary._table import Table
from skboundary.boundary._training_samples import TrainingSamples


class Settings(NamedTuple):
    """Parameters of the extractor that methods read."""

    effort: Any  # as in the method's column of the table
    confidence: float = 0.9
    penalty: float | None = None
    norm: Any = 2
    margin_tol: float = 1e-3
    generator: Any = None  # of method "deepdig": from the shape of a sample to an autoencoder
    pairs: bool = True  # False: only the outer end is needed
    budget: int | None = None  # gradients or queries per sample, where `effort` is a number
    table: Table | None = None  # rules for columns, where there are any


class Partners(NamedTuple):
    """Training samples across the boundary from each sample, nearest first."""

    points: Tensor  # (n, k, ...) on the device, in the classifier's dtype
    exist: Tensor  # (n, k) bool: False where there are too few
    known: Outputs  # (n, k) of the classifier at them

    def select(self, index: Any) -> Partners:
        """Partners of some of the samples."""
        return Partners(self.points[index], self.exist[index], self.known.select(index))


class Problem(NamedTuple):
    """Samples to find a partner for, and what may be used to do so."""

    x: Tensor  # (n, ...) on the device, in the classifier's dtype
    source: Tensor  # (n,) classes to start from
    target: Tensor  # (n,) classes to reach; -1 is any other
    known: Outputs | None  # of the classifier at x
    low: Tensor | None  # bounds, broadcastable to x, widened to hold it
    high: Tensor | None
    box: tuple[NDArray[Any], NDArray[Any]] | None  # bounds that are the same for all samples
    partners: Partners | None  # of methods that start from training samples
    training: TrainingSamples
    seed: int  # random directions are the same for all samples of a call
    budget: Tensor | None = None  # (n,) gradients or queries that are left, where effort is an int

    def select(self, index: Tensor) -> Problem:
        """The problem of some of the samples."""
        low, high = self.bounds(index) or (None, None)
        return self._replace(
            x=self.x[index],
            source=self.source[index],
            target=self.target[index],
            known=None if self.known is None else self.known.select(index),
            low=low,
            high=high,
            partners=None if self.partners is None else self.partners.select(index),
            budget=None if self.budget is None else self.budget[index],
        )

    def bounds(self, index: Any = slice(None)) -> tuple[Tensor, Tensor] | None:
        """Bounds of some of the samples."""
        if self.low is None or self.high is None:
            return None
        shape = len(self.x), *self.low.shape[1:]
        return self.low.expand(shape)[index], self.high.expand(shape)[index]
