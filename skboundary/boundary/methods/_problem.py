"""What a method is given."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from skboundary.boundary._training_samples import Pool


class Settings(NamedTuple):
    """Parameters of the extractor that methods read."""

    effort: str
    confidence: float
    penalty: float | None
    norm: Any
    margin_tol: float
    generator: Any = None  # of method "deepdig": from the shape of a row to an autoencoder
    pairs: bool = True  # False: only the outer end will be looked at


class Task(NamedTuple):
    """Rows to find a partner for, and what may be used to do so."""

    x: Tensor  # (n, ...) on the device, in the classifier's dtype
    source: Tensor  # (n,) classes to start from
    target: Tensor  # (n,) classes to reach; -1 is any other
    low: Tensor | None  # bounds, broadcastable to x, widened to hold it
    high: Tensor | None
    box: tuple[NDArray[Any], NDArray[Any]] | None  # bounds that are the same for all samples
    partners: Tensor  # (n, k) rows of the pool across the boundary, nearest first; -1 is none
    pool: Pool
    seed: int  # random directions are the same for all rows of a call

    def select(self, rows: Tensor) -> Task:
        """The task of some of the rows."""
        low, high = self.bounds(rows) or (None, None)
        return self._replace(
            x=self.x[rows],
            source=self.source[rows],
            target=self.target[rows],
            low=low,
            high=high,
            partners=self.partners[rows],
        )

    def bounds(self, rows: Any = slice(None)) -> tuple[Tensor, Tensor] | None:
        """Bounds of some of the rows."""
        if self.low is None or self.high is None:
            return None
        shape = len(self.x), *self.low.shape[1:]
        return self.low.expand(shape)[rows], self.high.expand(shape)[rows]
