"""Rules for the columns of samples: which hold categories, and which may change."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Table(NamedTuple):
    """Rules for the d columns of vectors."""

    categorical: NDArray[np.bool_]  # (d,) their values have no order, and none in between
    immutable: NDArray[np.bool_]  # (d,) they keep the value of their sample
    max_changes: int | None = None  # columns that change at most

    @property
    def keeps(self) -> bool:
        """Whether some columns are immutable."""
        return bool(self.immutable.any())

    def fix(self, points: Tensor, x: Tensor) -> Tensor:
        """Points (..., d) with the immutable columns of x."""
        return torch.where(torch.from_numpy(self.immutable).to(x.device), x, points)

    def differences(self, points: Tensor, x: Tensor) -> Tensor:
        """Points (n, d) minus x; another category counts as 1."""
        categorical = torch.from_numpy(self.categorical).to(x.device)
        return torch.where(categorical, (points != x).to(x), points - x)

    def vectors(self, X: Tensor, training: Tensor, *, scaled: bool) -> Tensor:
        """Samples (n, d) as vectors whose distances are those of the columns that may change.

        Where `scaled`, in standard deviations of the training samples, and 1 between categories.
        """
        free = torch.from_numpy(~self.immutable)
        if not scaled:
            return X[:, free]
        ordered = free & torch.from_numpy(~self.categorical)
        deviation = training[:, ordered].std(0, correction=0)
        parts = [X[:, ordered] / torch.where(deviation == 0, 1.0, deviation)]
        for column in (free & ~ordered).nonzero()[:, 0]:
            known = training[:, column].unique()
            parts.append((X[:, column, None] == known).to(X) / 2**0.5)
        return torch.cat(parts, 1)
