"""Values that the coordinates of samples take, coordinate by coordinate."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor

_MOST_CATEGORIES = 64  # of a coordinate that are tried


class CoordinateValues:
    """The distinct values of each coordinate, and some of them to try.

    Parameters
    ----------
    values : Tensor of shape (m, d)
    categorical : Tensor of shape (d,), dtype bool
        Coordinates whose values have no order.
    n_values : int
        Values of an ordered coordinate that are tried.

    Attributes
    ----------
    distinct : list of Tensor
        Of each coordinate, in ascending order.
    sorted : Tensor of shape (d, largest number of distinct values)
        The same, filled up with infinity.
    options : Tensor of shape (d, n_options)
        Values to try: evenly spaced among the distinct ones, or the most frequent categories.
    is_option : Tensor of shape (d, n_options), dtype bool
        False where a coordinate has fewer.
    scale : Tensor of shape (d,)
        Standard deviations, and 1 for categories and constants.
    """

    def __init__(self, values: Tensor, categorical: Tensor, n_values: int) -> None:
        found = [column.unique(return_counts=True) for column in values.T]
        self.categorical, self.distinct = categorical, [distinct for distinct, _ in found]
        self.sorted = _stack(self.distinct, torch.inf)
        options = [
            distinct[counts.argsort(descending=True, stable=True)[:_MOST_CATEGORIES]]
            if is_categorical
            else _evenly(distinct, n_values)
            for (distinct, counts), is_categorical in zip(found, categorical.tolist(), strict=True)
        ]
        self.options = _stack(options, torch.inf)
        self.is_option = self.options < torch.inf
        deviation = values.std(0, correction=0)
        self.scale = torch.where(categorical | (deviation == 0), 1.0, deviation)

    def distance(self, points: Tensor, x: Tensor) -> Tensor:
        """Scaled distances of points (..., d) from x (..., d); another category counts as 1."""
        return self.scaled_changes(points, x).norm(dim=-1)

    def scaled_changes(self, points: Tensor, x: Tensor) -> Tensor:
        """Differences of points (..., d) from x in units of the scale, or 1 between categories."""
        change = (points - x).abs() / self.scale
        return torch.where(self.categorical, (points != x).to(change), change)


def _evenly(distinct: Tensor, n: int) -> Tensor:
    """At most n of the values, evenly spaced by rank, with the first and the last."""
    ranks = torch.linspace(0, len(distinct) - 1, min(n, len(distinct)), device=distinct.device)
    return distinct[ranks.round().long()]


def _stack(columns: list[Tensor], fill: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=fill)
