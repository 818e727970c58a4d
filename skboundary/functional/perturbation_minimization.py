"""Perturbation Minimization: pairs (z, z + delta) on either side of a decision boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from skboundary.functional._linearization import cross_and_refine
from skboundary.functional._margin_problem import (
    CountedNetwork,
    MarginProblem,
    box,
    check_classes,
)
from skboundary.functional._shapes import shapes
from skboundary.functional.margins import class_margin, margin_band, pairwise_margin
from skboundary.functional.root_finding import find_root

__all__ = ["PMPair", "PMStart", "fast_start", "minimize_perturbation", "penalty_for"]

_NORMS: dict[float | str, Callable[[Tensor], Tensor]] = {
    2: lambda d: (d.square().sum(1) + 1e-12).sqrt(),
    "2sq": lambda d: d.square().sum(1),
    1: lambda d: d.abs().sum(1),
    math.inf: lambda d: d.abs().amax(1),
}
_DUAL: dict[float | str, float] = {2: 2, "2sq": 2, 1: math.inf, math.inf: 1}


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


class PMPair(NamedTuple):
    """Both ends of minimized perturbations.

    Attributes
    ----------
    points, target, success, n_forward, n_backward : Tensor
        As in `BoundaryPoint`: the points are z + delta, and success means that both ends have
        their classes by a margin of `margin_tol` and have not collapsed.
    inner : Tensor of shape (n, ...)
        The points z.
    collapsed : Tensor of shape (n,), dtype bool
        The penalty outweighs the slope, so that delta = 0 is optimal.
    probabilities : Tensor of shape (n, 2)
        Of the source at `inner`, of the target at `points`.
    """

    points: Tensor
    target: Tensor
    success: Tensor
    n_forward: Tensor
    n_backward: Tensor
    inner: Tensor
    collapsed: Tensor
    probabilities: Tensor


@shapes(x="n ...", source="n", target="n", delta="n ...")
def minimize_perturbation(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor,
    delta: Tensor,
    bounds: tuple[Tensor, Tensor] | None = None,
    penalty: float | Tensor = 1.0,
    weights: tuple[float, float] = (1.0, 1.0),
    norm: float | str = 2,
    n_iter: int = 300,
    learning_rate: float | Tensor = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    margin_tol: float = 1e-3,
    eps: float | None = None,
) -> PMPair:
    r"""Minimize equation (1) of PM [1]_ over z and delta, by Adam with cosine decay.

    .. math::

        w_1\, l(f(z), y) + w_2\, l(f(z + \delta), \hat y) + \lambda\, \lVert\delta\rVert

    with the cross-entropy l, the source y and the target :math:`\hat y`. Where the margin
    between the two classes has the slope L (in the Euclidean norm, with both weights 1), the
    optimum predicts both ends with probability ``1 - penalty / L`` at ``||delta|| = 2 / L * log(L
    / penalty - 1)``; a penalty of L / 2 or more collapses the pair to one point.

    Parameters
    ----------
    logits : callable
        From points (m, ...) to logits (m, n_classes), differentiable, each point by itself.
    x : Tensor of shape (n, ...)
        Where z starts.
    source, target : Tensor of shape (n,)
        Classes wanted for z and for z + delta.
    delta : Tensor of shape (n, ...)
        Where delta starts, in units of x; not at zero, where the norm has no gradient.
    bounds : (low, high), default=None
        Tensors that broadcast to x; both ends are projected to the box after each step.
    penalty : float or Tensor of shape (n,), default=1.0
        The weight of the norm, in units of the loss per unit of x.
    weights : (float, float), default=(1.0, 1.0)
        Of the two cross-entropies.
    norm : {2, "2sq", 1, inf}, default=2
        "2sq" is the squared norm 2.
    n_iter : int, default=300
        Steps of two gradients each.
    learning_rate : float or Tensor of shape (n,), default=0.01
        In units of x.
    betas : (float, float), default=(0.9, 0.999)
        Of Adam's moments. From a fast start, ``n_iter=30``, ``betas=(0.5, 0.9)`` and a learning
        rate of ``1.5 * ||delta|| / sqrt(d)`` come near to what 300 steps by default reach.
    margin_tol : float, default=1e-3
        Least margin of a successful end over all other classes, in units of the logits, where
        `margins.margin_band` does not demand more.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that takes part in the logits; None is that of x.

    Returns
    -------
    pairs : PMPair

    Raises
    ------
    ValueError
        For an unknown norm, a target equal to its source, bounds that exclude x, or shapes that
        do not match.

    References
    ----------
    .. [1] Cai, Zheng, Xiang, Gao, "Borderline sample extraction from a trained classifier", ICLR
       2024 Tiny Papers, equation (1).

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.perturbation_minimization import minimize_perturbation
    >>> logits = lambda x: torch.stack([-5 * x[:, 0], 5 * x[:, 0]], 1)  # slope 10
    >>> x, source, target = torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1])
    >>> delta = torch.tensor([[0.1, 0.0]])
    >>> pairs = minimize_perturbation(logits, x, source, target=target, delta=delta)
    >>> pairs.probabilities.round(decimals=2)
    tensor([[0.9000, 0.9000]])
    """
    if norm not in _NORMS:
        raise ValueError(f"norm={norm!r}: use 2, '2sq', 1 or inf.")
    check_classes(source, target)
    low, high = box(x, bounds)
    shape, z, delta = x.shape, x.flatten(1).clone(), delta.flatten(1).clone()
    labels, penalty = torch.cat([source, target]), torch.as_tensor(penalty).to(z)
    rate = torch.as_tensor(learning_rate).to(z).expand(len(z))[:, None]
    mean, square = z.new_zeros(2, *z.shape), z.new_zeros(2, *z.shape)  # Adam's moments

    def run(z: Tensor, delta: Tensor) -> Tensor:
        return logits(torch.cat([z, z + delta]).view(-1, *shape[1:]))

    for i in range(n_iter):
        with torch.enable_grad():
            z.requires_grad_()
            delta.requires_grad_()
            losses = cross_entropy(run(z, delta), labels, reduction="none").view(2, -1)
            loss = weights[0] * losses[0] + weights[1] * losses[1] + penalty * _NORMS[norm](delta)
            gradient = torch.stack(torch.autograd.grad(loss.sum(), (z, delta)))
        mean = torch.lerp(gradient, mean, betas[0])
        square = torch.lerp(gradient.square(), square, betas[1])
        unbiased = [
            moment / (1 - b ** (i + 1)) for moment, b in zip((mean, square), betas, strict=True)
        ]
        cosine = (1 + math.cos(math.pi * i / n_iter)) / 2
        step = rate * cosine * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        outer = (z.detach() + delta.detach() - step.sum(0)).clamp(low, high)
        z = (z.detach() - step[0]).clamp(low, high)
        delta = outer - z
    with torch.no_grad():
        out = run(z, delta)
    collapsed = _collapsed(out, delta, source, target, penalty, weights, norm)
    band = margin_band(margin_tol, torch.finfo(z.dtype).eps if eps is None else eps, out)
    right = (class_margin(out, labels) >= band).view(2, -1).all(0)
    proba = out.softmax(1).gather(1, labels[:, None]).view(2, -1).T
    count = torch.full_like(source, 2 * n_iter)
    points = (z + delta).view(shape)
    return PMPair(
        points, target, right & ~collapsed, count + 2, count, z.view(shape), collapsed, proba
    )


def _collapsed(
    logits: Tensor,
    delta: Tensor,
    source: Tensor,
    target: Tensor,
    penalty: Tensor,
    weights: tuple[float, float],
    norm: float | str,
) -> Tensor:
    """Where delta = 0 is optimal: the slope, weighted at equal odds, is not above the penalty."""
    inner, outer = (pairwise_margin(part, source, target) for part in logits.chunk(2))
    gain, size = (inner - outer) * weights[0] * weights[1] / sum(weights), _NORMS[norm](delta)
    return (gain <= penalty * size * (1 + 1e-3)) & (norm != "2sq")


@shapes(gradient="n ...")
def penalty_for(confidence: float | Tensor, gradient: Tensor, norm: float | str = 2) -> Tensor:
    r"""Compute the penalty with which PM predicts both ends with a wanted probability.

    With the slope L, the dual norm of the gradient of the pairwise margin, and p the confidence,

    .. math::

        \lambda = L (1 - p), \qquad
        \lambda_\mathrm{2sq} = \frac{L^2 (1 - p)}{4 \log(p / (1 - p))}

    Parameters
    ----------
    confidence : float or Tensor of shape (n,)
        The probability, between .5 and 1.
    gradient : Tensor of shape (n, ...)
        Of the pairwise margin on the boundary, as `fast_start` gives it.
    norm : {2, "2sq", 1, inf}, default=2

    Returns
    -------
    penalty : Tensor of shape (n,)

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.perturbation_minimization import penalty_for
    >>> penalty_for(0.9, torch.tensor([[6.0, 8.0]]))
    tensor([1.0000])
    """
    slope = torch.linalg.vector_norm(gradient.flatten(1), ord=_DUAL[norm], dim=1)
    p = torch.as_tensor(confidence).to(slope)
    if norm == "2sq":
        return slope.square() * (1 - p) / (4 * torch.logit(p))
    return slope * (1 - p)


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
) -> PMStart:
    """Find a pair near x on both sides of the boundary between two classes, as a start for PM.

    From the nearest point of that boundary, one step along its normal to each side, until the two
    classes alone would reach the wanted confidence. `minimize_perturbation` needs a tenth of the
    steps from here, and corrects what a third class wins.

    Parameters
    ----------
    logits : callable
        From points (m, ...) to logits (m, n_classes), differentiable, each point by itself.
    x : Tensor of shape (n, ...)
        Of any class.
    source, target : Tensor of shape (n,)
        Classes wanted for `inner` and for `inner + delta`.
    bounds : (low, high), default=None
        Tensors that broadcast to x, in its units; the box that holds x and both ends.
    confidence : float, default=0.9
        Probability of the source among the two at `inner`, of the target at ``inner + delta``.
        More where rounding demands a larger margin: see `margins.margin_band`.
    margin_tol : float, default=1e-3
        Least margin of the ends, in units of the logits.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that takes part in the logits; None is that of x.
    n_refine : int, default=2
        Refinements of the boundary point.

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
    nearest, success = cross_and_refine(problem, None, n_refine)
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
