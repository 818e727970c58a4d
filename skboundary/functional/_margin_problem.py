"""The problem that gradient-based searches solve: the nearest point where a margin is reached."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional.margins import class_margin, margin_band

Margin = Callable[[Tensor, Tensor], Tensor]  # (logits (m, n_classes), index (m,)) -> (m,)


class Derivative(NamedTuple):
    """A margin and its gradient with respect to the points."""

    logits: Tensor  # (m, n_classes)
    value: Tensor  # (m,)
    gradient: Tensor  # (m, d)


class CountedNetwork:
    """Run flat points through `logits`; count forward and backward passes for each sample.

    Parameters
    ----------
    logits : callable
        From points (m, *shape) to logits (m, n_classes), differentiable.
    x : Tensor of shape (n, *shape)

    Attributes
    ----------
    n_forward, n_backward : Tensor of shape (n,)
    """

    def __init__(self, logits: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self._logits, self._shape = logits, x.shape[1:]
        self.n_forward = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.n_backward = torch.zeros_like(self.n_forward)
        self._n_classes = 0

    def logits(self, points: Tensor, samples: Tensor) -> Tensor:
        """Logits of `points` (m, d), which are counted for `samples` (m,)."""
        if not len(points) and self._n_classes:  # a module may not take an empty batch
            return points.new_empty(0, self._n_classes)
        self.n_forward.index_add_(0, samples, torch.ones_like(samples))
        with torch.no_grad():
            logits = self._logits(points.reshape(-1, *self._shape))
        self._n_classes = logits.shape[1]
        return logits

    def derivative(self, points: Tensor, samples: Tensor, margin: Margin) -> Derivative:
        """Value and gradient of ``margin(logits, samples)`` at `points` (m, d)."""
        if not len(points) and self._n_classes:
            return Derivative(self.logits(points, samples), points.new_empty(0), points)
        for count in (self.n_forward, self.n_backward):
            count.index_add_(0, samples, torch.ones_like(samples))
        with torch.enable_grad():
            inputs = points.detach().reshape(-1, *self._shape).requires_grad_()
            logits = self._logits(inputs)
            value = margin(logits, samples)
            (gradient,) = torch.autograd.grad(value.sum(), inputs)
        return Derivative(logits.detach(), value.detach(), gradient.flatten(1))


class MarginProblem(NamedTuple):
    """m problems: reach a positive `goal` near x. Several may belong to one sample.

    Attributes
    ----------
    network : CountedNetwork
    x : Tensor of shape (m, d)
        Where the search starts and distances are measured from.
    owner : Tensor of shape (m,)
        The sample that passes are counted for.
    low, high : Tensor of shape (m, d)
        The box.
    aim : Tensor of shape (m,)
        How far beyond the goal steps are aimed, in units of the logits.
    goal : callable
        ``goal(logits, index)`` of the problems numbered `index` (m,): positive once reached, so
        the negative of a margin, less a band that is safe from rounding.
    at_x : Tensor of shape (m,)
        The goal at x, negative.
    norm : float
        Of the distances: 1, 2 or inf.
    """

    network: CountedNetwork
    x: Tensor
    owner: Tensor
    low: Tensor
    high: Tensor
    aim: Tensor
    goal: Margin
    at_x: Tensor
    norm: float = 2

    def indices(self) -> Tensor:
        """The numbers of all problems."""
        return torch.arange(len(self.x), device=self.x.device)

    def select(self, index: Tensor) -> MarginProblem:
        """Some of the problems."""
        return MarginProblem(
            self.network,
            self.x[index],
            self.owner[index],
            self.low[index],
            self.high[index],
            self.aim[index],
            lambda logits, i: self.goal(logits, index[i]),
            self.at_x[index],
            self.norm,
        )

    def affords(self, most: Tensor | None, index: Tensor) -> Tensor:
        """Whether the samples of some problems have taken less than `most` (n_samples,) gradients.

        None sets no limit. Where r problems belong to a sample, each may take one more at a time:
        pass r - 1 less.
        """
        if most is None:
            return torch.ones_like(index, dtype=torch.bool)
        owner = self.owner[index]
        return self.network.n_backward[owner] < most[owner]

    def value(self, points: Tensor, index: Tensor) -> Tensor:
        """The goal at `points` (m, d)."""
        return self.goal(self.network.logits(points, self.owner[index]), index)

    def derivative(self, points: Tensor, index: Tensor, margin: Margin | None = None) -> Derivative:
        """Value and gradient of the goal, or of another margin, at `points` (m, d)."""
        what = self.goal if margin is None else margin
        return self.network.derivative(points, self.owner[index], lambda out, _: what(out, index))

    def distance(self, points: Tensor, index: Tensor) -> Tensor:
        """Distances of `points` (m, d) from x."""
        return (points - self.x[index]).norm(self.norm, dim=1)

    def clip(self, points: Tensor, index: Tensor) -> Tensor:
        """The nearest points of the box."""
        return torch.minimum(torch.maximum(points, self.low[index]), self.high[index])

    def along(self, t: Tensor, direction: Tensor, index: Tensor) -> Tensor:
        """The points of the box nearest to ``x + t * direction``."""
        return self.clip(self.x[index] + t[:, None] * direction, index)


def open_problem(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    target: Tensor | None,
    bounds: tuple[Tensor, Tensor] | None,
    margin_tol: float,
    eps: float,
    norm: float = 2,
) -> tuple[MarginProblem, Tensor]:
    """Set up the search for another class, or for the target, from the samples of their source.

    Parameters
    ----------
    logits, x, source, target, bounds, margin_tol, eps, norm : see `nearest_boundary`

    Returns
    -------
    problem : MarginProblem
        Of the m samples that are predicted as their source, which `problem.owner` numbers.
    at_x : Tensor of shape (m, n_classes)
        Their logits.
    """
    if target is not None:
        check_classes(source, target)
    network, flat = CountedNetwork(logits, x), x.flatten(1)
    samples = torch.arange(len(x), device=x.device)
    at_x = network.logits(flat, samples)
    label, band = (source if target is None else target), margin_band(margin_tol, eps, at_x)

    def goal(out: Tensor, index: Tensor) -> Tensor:
        margin = class_margin(out, label[index])
        return (-margin if target is None else margin) - 1.5 * band[index]

    start = goal(at_x, samples)
    problem = MarginProblem(network, flat, samples, *box(x, bounds), 10 * band, goal, start, norm)
    correct = (class_margin(at_x, source) > 0).nonzero()[:, 0]
    return problem.select(correct), at_x[correct]


def check_classes(source: Tensor, target: Tensor) -> None:
    """Refuse a target that equals its source.

    Parameters
    ----------
    source, target : Tensor of shape (n,)

    Raises
    ------
    ValueError
        With the number of the sample.
    """
    if (target == source).any():
        sample = int((target == source).nonzero()[0, 0])
        raise ValueError(
            f"target and source of sample {sample} are both {int(source[sample])}; a target must "
            "be another class than the source."
        )


def box(x: Tensor, bounds: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Expand bounds to the shape of flat samples.

    Parameters
    ----------
    x : Tensor of shape (n, ...)
    bounds : (low, high) or None
        Tensors that broadcast to x.

    Returns
    -------
    low, high : Tensor of shape (n, d)

    Raises
    ------
    ValueError
        Where x lies outside.
    """
    flat = x.flatten(1)
    if bounds is None:
        return torch.full_like(flat, -float("inf")), torch.full_like(flat, float("inf"))
    low, high = (torch.as_tensor(b).to(x).expand_as(x).flatten(1) for b in bounds)
    outside = ((flat < low) | (flat > high)).any(1)
    if outside.any():
        sample = int(outside.nonzero()[0, 0])
        raise ValueError(
            f"Sample {sample} of x lies outside the bounds; widen them to hold every sample."
        )
    return low, high
