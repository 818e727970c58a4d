"""Containers of X: arrays, sparse matrices and DataFrames, and new samples in them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import _align_api_if_sparse

from skboundary.exceptions import warn_caller


class Container:
    """The kind of X: an array, a sparse matrix or a DataFrame.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
        As given by the user; not stored.
    """

    def __init__(self, X: Any) -> None:
        if hasattr(X, "columns") and not hasattr(X, "iloc"):
            raise TypeError(
                f"X is a DataFrame of {type(X).__module__.split('.')[0]}, and imbalanced-learn "
                "returns those of pandas only. Pass X.to_pandas() or X.to_numpy()."
            )
        self.frame = type(X) if hasattr(X, "columns") else None
        self.columns = getattr(X, "columns", None)
        self.format = X.format if sparse.issparse(X) else None
        self.integers: list[int] = []
        if self.frame is not None:
            categories = X.columns[[str(dtype) == "category" for dtype in X.dtypes]].tolist()
            if categories:
                raise ValueError(
                    f"The columns {categories} of X are categorical, and new samples would have "
                    "values between the categories. Convert them to numbers, or leave them out."
                )
            self.integers = [i for i, d in enumerate(X.dtypes) if getattr(d, "kind", "O") in "iub"]

    def wrap(self, samples: NDArray[Any]) -> Any:
        """Return samples as a DataFrame if X was one."""
        return samples if self.frame is None else self.frame(samples, columns=self.columns)

    @property
    def finish(self) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
        """Rounding of the columns that become integers again; None if there are none."""
        return self._round if self.integers else None

    def _round(self, samples: NDArray[Any]) -> NDArray[Any]:
        samples[:, self.integers] = np.rint(samples[:, self.integers])
        return samples

    def stack(self, X: Any, samples: NDArray[Any]) -> Any:
        """Append new samples to X."""
        if self.integers and len(samples):
            warn_caller(
                f"{len(self.integers)} integer columns of X were rounded in the new samples. Make "
                "them float to keep fractions.",
                DataConversionWarning,
            )
        if sparse.issparse(X):  # also for a DataFrame of sparse columns
            kind = self.format or X.format
            return _align_api_if_sparse(sparse.vstack([X, sparse.csr_array(samples)], format=kind))
        return np.concatenate([X, samples])
