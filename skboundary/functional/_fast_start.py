"""A start for PM: a pair near x on both sides of the boundary between two classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from skboundary.functional._linearization import cross_and_refine
from skboundary.functional._margin_problem import (
    CountedNetwork,
    MarginProblem,
    box,
    check_classes,
)
from skboundary.functional._shapes import shapes
from skboundary.functional.margins import margin_band, pairwise_margin
from skboundary.functional.root_finding import find_root


class PMStart(NamedTuple):
    """A pair on either side of the boundary between two classes.

    Attributes
    ----------
    inner : Tensor of shape (n, ...)
        The start z; x itself where the box keeps x from the boundary.
    delta : Tensor of shape (n, ...)
        From `inner` to the other side; 0 without success.
    gradient : Tensor of shape (n, ...)
        Of `margins.pairwise_margin` at the boundary, in units of the logits per unit of x.
    success : Tensor of shape (n,), dtype bool
    n_forward, n_backward : Tensor of shape (n,), dtype int64
        As in `BoundaryPoint`.
    """

    inner: Tensor
    delta: Tensor
    gradient: Tensor
    success: Tensor
    n_forward: Tensor
    n_backward: Tensor


@shapes(x="n ...", source="n", target="n")
def fast_start(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor,
    bounds: tuple[Tensor, Tensor] | None = None,
    confidence: float = 0.9,
    margin_tol: float = 1e-3,
    eps: float | None = None,
    n_refine: int = 2,
    n_gradients: int | Tensor | None = None,
) -> PMStart:
    """Find a pair near x on both sides of the boundary between two classes, as a start for PM.

    From the nearest point of that boundary, one step along its normal to each side, until the two
    classes alone would reach the wanted confidence. `minimize_perturbation` needs a tenth of the
    steps from here, and corrects what a third class wins.

    Parameters
    ----------
    logits : callable
        Maps points (m, ...) to logits (m, n_classes); differentiable, independent for each point.
    x : Tensor of shape (n, ...)
        Of any class.
    source, target : Tensor of shape (n,)
        Target classes of `inner` and of `inner + delta`.
    bounds : (low, high), default=None
        Tensors that broadcast to x, in its units; the box that holds x and both ends.
    confidence : float, default=0.9
        Probability of the source among the two at `inner`, of the target at ``inner + delta``.
        More where rounding demands a larger margin: see `margins.margin_band`.
    margin_tol : float, default=1e-3
        Smallest margin of the ends, in units of the logits.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that involved in the logits; None is that of x.
    n_refine : int, default=2
        Refinements of the boundary point.
    n_gradients : int or Tensor of shape (n,), default=None
        Gradients per sample at most, two or more. None sets no limit.

    Returns
    -------
    start : PMStart

    Raises
    ------
    ValueError
        For a target equal to its source, bounds that exclude x, or shapes that do not match.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.perturbation_minimization import fast_start
    >>> logits = lambda x: torch.stack([-5 * x[:, 0], 5 * x[:, 0]], 1)  # slope 10
    >>> x, source, target = torch.tensor([[3.0, 4.0]]), torch.tensor([0]), torch.tensor([1])
    >>> start = fast_start(logits, x, source, target=target)
    >>> start.delta.round(decimals=2)  # 2 * log(.9 / .1) / 10
    tensor([[0.4400, 0.0000]])
    """
    check_classes(source, target)
    network, flat = CountedNetwork(logits, x), x.flatten(1)
    most = (
        None
        if n_gradients is None
        else torch.as_tensor(n_gradients - 1, device=x.device).expand(len(x))
    )
    samples = torch.arange(len(x), device=x.device)
    out = network.logits(flat, samples)
    at_x = pairwise_margin(out, source, target)
    band = margin_band(margin_tol, torch.finfo(x.dtype).eps if eps is None else eps, out)
    height = (1.5 * band).clamp(min=math.log(confidence / (1 - confidence)))
    side = torch.where(at_x < 0, -1.0, 1.0).to(flat)  # of the boundary, 1 for the source

    def other_side(out: Tensor, i: Tensor) -> Tensor:
        return -side[i] * pairwise_margin(out, source[i], target[i])

    def lead(out: Tensor, i: Tensor) -> Tensor:
        return pairwise_margin(out, target[i], source[i])

    limits, aim = box(x, bounds), torch.minimum(10 * band, height / 2)
    problem = MarginProblem(network, flat, samples, *limits, aim, other_side, -at_x.abs())
    nearest, success = cross_and_refine(problem, n_refine, most)
    problem = problem._replace(x=nearest, goal=lead)
    index = success.nonzero()[:, 0]
    problem, z, delta, gradient = problem.select(index), flat.clone(), flat * 0, flat * 0
    _, value, slope = problem.derivative(nearest[index], problem.indices())
    gradient[index] = -slope
    sign = torch.ones_like(value).repeat(2)
    sign[: len(index)] = -1
    ends = _climb(
        problem.select(problem.indices().repeat(2)),
        sign,
        height[index].repeat(2),
        band[index].repeat(2),
        value.repeat(2),
        slope.repeat(2, 1),
    )
    inner, outer = ends.chunk(2)
    z[index], delta[index] = inner, outer - inner
    z, delta, gradient = (part.view_as(x) for part in (z, delta, gradient))
    return PMStart(z, delta, gradient, success, network.n_forward, network.n_backward)


def _climb(
    problem: MarginProblem,
    sign: Tensor,
    height: Tensor,
    band: Tensor,
    value: Tensor,
    gradient: Tensor,
) -> Tensor:
    """Follow the gradient, or its opposite, until the lead is `height` on that side."""
    index, slope = problem.indices(), gradient.norm(dim=1)
    tol = torch.maximum(0.02 * height, band / 4)
    direction = sign[:, None] * normalize(gradient)

    def short_of(t: Tensor, i: Tensor) -> Tensor:
        return sign[i] * problem.value(problem.along(t, direction[i], i), i) - height[i]

    t = (height - sign * value) / slope
    f = short_of(t, index)
    for _ in range(5):
        short = (f < -tol).nonzero()[:, 0]
        if not len(short):
            break
        t[short] *= 1.5
        f[short] = short_of(t[short], short)
    at_start = sign * value - height
    root = find_root(short_of, torch.zeros_like(t), t, at_start, f, tol=tol, max_iter=6)
    return problem.along(root.t, direction, index)
