"""What rows come in, and how new ones get back into it."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import DataConversionWarning

from skboundary.exceptions import warn_caller


class Container:
    """The kind of X: an array, a sparse matrix or a DataFrame.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
        As given by the user; it is not kept.
    """

    def __init__(self, X: Any) -> None:
        self.frame = type(X) if hasattr(X, "columns") else None
        self.columns = getattr(X, "columns", None)
        self.sparse = type(X) if sparse.issparse(X) else None
        self.integers: list[int] = []
        if self.frame is not None:
            self.integers = [i for i, d in enumerate(X.dtypes) if getattr(d, "kind", "O") in "iub"]

    def wrap(self, rows: NDArray[Any]) -> Any:
        """Give rows as a DataFrame when X was one."""
        return rows if self.frame is None else self.frame(rows, columns=self.columns)

    @property
    def finish(self) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """What is done to new rows: columns that will be integers again are rounded."""
        return self._round if self.integers else None

    def _round(self, rows: NDArray[Any]) -> NDArray[Any]:
        rows[:, self.integers] = np.rint(rows[:, self.integers])
        return rows

    def stack(self, X: Any, rows: NDArray[Any]) -> Any:
        """Put new rows below X."""
        if self.integers and len(rows):
            warn_caller(
                f"{len(self.integers)} integer columns of X were rounded in the new samples. Make "
                "them float to keep fractions.",
                DataConversionWarning,
            )
        if sparse.issparse(X):  # a frame of sparse columns comes as a matrix, too
            kind = self.sparse or type(X)
            return kind(sparse.vstack([X, sparse.csr_matrix(rows)]))
        return np.concatenate([X, rows])
