"""Certified lower bounds of the distance to the decision boundary, for chains of ReLU."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._margin_problem import check_classes
from skboundary.functional._shapes import shapes

__all__ = ["certified_distance"]

Layer = tuple[Tensor, Tensor]  # weight (n_out, n_in) and bias (n_out,)

_PASSES = 40  # bounds of a sample at most; most samples take about ten


class _Relaxation(NamedTuple):
    """Lines that bound ReLU between the limits of its n inputs, (n, width) each.

    ``lower * z <= relu(z) <= upper * z + shift``
    """

    lower: Tensor
    upper: Tensor
    shift: Tensor


@shapes(x="n d", source="n", target="n")
def certified_distance(
    layers: Sequence[Layer],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    tol: float = 1e-3,
) -> Tensor:
    """Bound the Euclidean distance to the nearest point of another class from below.

    The logits are those of a chain of affine maps with ReLU between them. In a ball around x, each
    ReLU lies between two lines; put into one another from the last layer to the first (CROWN
    [1]_), these give one affine function ``a x' + c`` below the margin of each rival. The margin is
    then positive for all ``||x' - x|| < (a x + c) / ||a||`` inside the ball, and the radius of
    the ball is searched for which this is the most.

    Parameters
    ----------
    layers : sequence of (weight, bias)
        Affine maps (n_out, n_in), (n_out,), the last of which gives the logits.
    x : Tensor of shape (n, d)
        The bounds are computed in its dtype.
    source : Tensor of shape (n,)
        The class that each sample is predicted as.
    target : Tensor of shape (n,), default=None
        Bound the distance to points of this class; None is any class but the source.
    tol : float, default=1e-3
        Where the search for the radius ends, relative to it.

    Returns
    -------
    distance : Tensor of shape (n,)
        In the units of x. Every point that is nearer has a larger logit for its source than for
        all other classes, or for its target: in exact arithmetic, because the bounds are computed
        without directed rounding. 0 where the source does not lead at x. For a single layer it is
        the exact distance for any class, infinite if there is none.

    Raises
    ------
    ValueError
        For layers that do not follow one another, a target equal to its source, or shapes that
        do not match.

    References
    ----------
    .. [1] H. Zhang, T. Weng, P. Chen, C. Hsieh, L. Daniel, "Efficient neural network robustness
       certification with general activation functions", NeurIPS 2018, `arXiv 1811.00866
       <https://arxiv.org/abs/1811.00866>`_, theorem 3.2.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.certified_distance import certified_distance
    >>> hidden = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2)  # relu(x), relu(-x)
    >>> last = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([2.0, 0.0])  # 2 and |x|
    >>> x, source = torch.tensor([[0.5, 9.0]]), torch.tensor([0])
    >>> certified_distance([hidden, last], x, source)
    tensor([1.5000])
    """
    _check_layers(layers, x)
    if target is not None:
        check_classes(source, target)
    layers = [(weight.to(x), bias.to(x)) for weight, bias in layers]
    linear = _certify(layers, x, source, target, x.new_zeros(len(x)))
    if len(layers) == 1:
        return linear.clamp(min=0)
    # the distance in the linear region of x is where the search begins
    ball = torch.where(linear.isinf(), 1 + x.norm(dim=1), linear).clamp(min=0)
    best, too_large = torch.zeros_like(ball), torch.full_like(ball, torch.inf)
    left = (ball > 0).nonzero()[:, 0]
    for _ in range(_PASSES):
        if not len(left):
            break
        radius = ball[left]
        found = _certify(layers, x[left], source[left], _some(target, left), radius)
        best[left] = best[left].maximum(found.minimum(radius))
        too_large[left] = torch.where(found < radius, radius, too_large[left])
        low, high = best[left], too_large[left]
        ball[left] = torch.where(high.isinf(), 2 * radius, (low + high) / 2)
        left = left[high - low > tol * low]
    return best


def _certify(
    layers: Sequence[Layer], x: Tensor, source: Tensor, target: Tensor | None, radius: Tensor
) -> Tensor:
    """Distances (n,) within which the margins stay positive, for points in balls around x."""
    relaxations: list[_Relaxation] = []
    for depth in range(1, len(layers)):
        weight, bias = layers[depth - 1]
        both = torch.cat([weight, -weight]), torch.cat([bias, -bias])
        slope, offset = _bound_below(both[0][None], both[1][None], layers[: depth - 1], relaxations)
        value = (slope @ x[:, :, None])[:, :, 0] + offset
        low, minus_high = (value - radius[:, None] * slope.norm(dim=2)).chunk(2, dim=1)
        relaxations.append(_relax(low, -minus_high))
    margins = _margins(layers[-1], source, target)
    slope, offset = _bound_below(*margins, layers[:-1], relaxations)
    value = (slope @ x[:, :, None])[:, :, 0] + offset
    # a margin that is constant is never lost, or is lost already
    distance = torch.where(value > 0, value / slope.norm(dim=2), -torch.ones_like(value))
    if target is None:
        distance = distance.scatter(1, source[:, None], torch.inf)
    return distance.amin(1)


def _bound_below(
    slope: Tensor, offset: Tensor, layers: Sequence[Layer], relaxations: list[_Relaxation]
) -> tuple[Tensor, Tensor]:
    """Affine functions of x below ``slope h + offset``, with h behind the ReLU of the last layer.

    Slopes are (n or 1, m, width), and (n or 1, m, d) at the end.
    """
    for (weight, bias), lines in zip(reversed(layers), reversed(relaxations), strict=True):
        up, down = slope.clamp(min=0), slope.clamp(max=0)
        offset = offset + (down @ lines.shift[:, :, None])[:, :, 0]
        slope = up * lines.lower[:, None] + down * lines.upper[:, None]
        slope, offset = slope @ weight, offset + slope @ bias
    return slope, offset


def _relax(low: Tensor, high: Tensor) -> _Relaxation:
    """Lines around ReLU on the intervals from low to high (n, width).

    The lower one is 0 or the identity, whichever leaves the smaller area, as in CROWN.
    """
    bends = (low < 0) & (high > 0)
    upper = torch.where(bends, high / (high - low), (low >= 0).to(low))
    lower = torch.where(bends, high > -low, low >= 0).to(low)
    return _Relaxation(lower, upper, torch.where(bends, -upper * low, torch.zeros_like(low)))


def _margins(last: Layer, source: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights (n, m, width) and biases (n, m) of the source's logit minus those of its rivals."""
    weight, bias = last
    if target is None:
        return weight[source][:, None] - weight, bias[source][:, None] - bias
    return (weight[source] - weight[target])[:, None], (bias[source] - bias[target])[:, None]


def _some(target: Tensor | None, index: Tensor) -> Tensor | None:
    return None if target is None else target[index]


def _check_layers(layers: Sequence[Layer], x: Tensor) -> None:
    if not len(layers):
        raise ValueError("layers is empty: give at least one pair (weight, bias).")
    for number, (weight, bias) in enumerate(layers):
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise ValueError(
                f"layer {number} has a weight of shape {tuple(weight.shape)} and a bias of shape "
                f"{tuple(bias.shape)}; expected (n_out, n_in) and (n_out,)."
            )
    sizes = [x.shape[1], *(len(weight) for weight, _ in layers)]
    for number, ((before, _), (weight, _)) in enumerate(zip(pairwise(sizes), layers, strict=True)):
        if weight.shape[1] != before:
            raise ValueError(f"layer {number} takes {weight.shape[1]} numbers, but gets {before}.")
