"""A margin of a network's logits as a function of flat rows, its passes counted by row."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Margin = Callable[[Tensor, Tensor], Tensor]  # (logits (m, n_classes), rows (m,)) -> (m,)


class Derivative(NamedTuple):
    """A margin and its gradient with respect to the rows."""

    logits: Tensor  # (m, n_classes)
    value: Tensor  # (m,)
    gradient: Tensor  # (m, d)


class Passes:
    """Run flat points through `logits`; count the passes that each row took.

    Parameters
    ----------
    logits : callable
        From rows (m, *shape) to logits (m, n_classes), differentiable.
    x : Tensor of shape (n, *shape)

    Attributes
    ----------
    forward, backward : Tensor of shape (n,)
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self._logits, self._shape = logits, x.shape[1:]
        self.forward = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.backward = torch.zeros_like(self.forward)
        self._n_classes = 0

    def logits(self, points: Tensor, rows: Tensor) -> Tensor:
        """Logits of `points` (m, d), which belong to `rows` (m,)."""
        if not len(points) and self._n_classes:  # a module may not take an empty batch
            return points.new_empty(0, self._n_classes)
        self.forward.index_add_(0, rows, torch.ones_like(rows))
        with torch.no_grad():
            logits = self._logits(points.reshape(-1, *self._shape))
        self._n_classes = logits.shape[1]
        return logits

    def derivative(self, points: Tensor, rows: Tensor, margin: Margin) -> Derivative:
        """Value and gradient of ``margin(logits, rows)`` at `points` (m, d)."""
        if not len(points) and self._n_classes:
            return Derivative(self.logits(points, rows), points.new_empty(0), points)
        for count in (self.forward, self.backward):
            count.index_add_(0, rows, torch.ones_like(rows))
        with torch.enable_grad():
            inputs = points.detach().reshape(-1, *self._shape).requires_grad_()
            logits = self._logits(inputs)
            value = margin(logits, rows)
            (gradient,) = torch.autograd.grad(value.sum(), inputs)
        return Derivative(logits.detach(), value.detach(), gradient.flatten(1))


class Search(NamedTuple):
    """Rows in search of a point where a margin is positive; several may belong to one row of x.

    Attributes
    ----------
    passes : Passes
    x : Tensor of shape (m, d)
        Where the search starts and distances are measured from.
    owner : Tensor of shape (m,)
        The row that passes are counted for.
    low, high : Tensor of shape (m, d)
        The box.
    aim : Tensor of shape (m,)
        How far beyond the goal a step is meant to go, in units of the margin.
    goal : callable
        ``goal(logits, rows)``, with `rows` counting the rows of this search.
    at_x : Tensor of shape (m,)
        The goal at x, negative.
    """

    passes: Passes
    x: Tensor
    owner: Tensor
    low: Tensor
    high: Tensor
    aim: Tensor
    goal: Margin
    at_x: Tensor

    def rows(self) -> Tensor:
        """All row numbers."""
        return torch.arange(len(self.x), device=self.x.device)

    def select(self, rows: Tensor) -> Search:
        """The search of some of the rows."""
        return Search(
            self.passes,
            self.x[rows],
            self.owner[rows],
            self.low[rows],
            self.high[rows],
            self.aim[rows],
            lambda logits, i: self.goal(logits, rows[i]),
            self.at_x[rows],
        )

    def margin(self, points: Tensor, rows: Tensor) -> Tensor:
        """The goal at `points` (m, d)."""
        return self.goal(self.passes.logits(points, self.owner[rows]), rows)

    def derivative(self, points: Tensor, rows: Tensor, margin: Margin | None = None) -> Derivative:
        """Value and gradient of the goal, or of another margin, at `points` (m, d)."""
        what = self.goal if margin is None else margin
        return self.passes.derivative(points, self.owner[rows], lambda out, _: what(out, rows))

    def clip(self, points: Tensor, rows: Tensor) -> Tensor:
        """The nearest points of the box."""
        return torch.minimum(torch.maximum(points, self.low[rows]), self.high[rows])

    def along(self, t: Tensor, direction: Tensor, rows: Tensor) -> Tensor:
        """The points of the box nearest to ``x + t * direction``."""
        return self.clip(self.x[rows] + t[:, None] * direction, rows)
