"""Perturbation Minimization: pairs (z, z + delta) on either side of a decision boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from skboundary.functional._margin_problem import Passes, Search
from skboundary.functional.margins import class_margin, margin_band, pairwise_margin
from skboundary.functional.nearest_boundary import box, check_classes, descend
from skboundary.functional.root_finding import find_root

_NORMS: dict[float | str, Callable[[Tensor], Tensor]] = {
    2: lambda d: (d.square().sum(1) + 1e-12).sqrt(),
    "2sq": lambda d: d.square().sum(1),
    1: lambda d: d.abs().sum(1),
    math.inf: lambda d: d.abs().amax(1),
}
_DUAL: dict[float | str, float] = {2: 2, "2sq": 2, 1: math.inf, math.inf: 1}


class Start(NamedTuple):
    """A pair on either side of the boundary between two classes."""

    z: Tensor  # (n, ...)
    delta: Tensor  # (n, ...)
    gradient: Tensor  # (n, ...): of the pairwise margin at the boundary
    found: Tensor  # (n,): False where the box keeps x from the boundary: z is x, delta is 0
    n_forward: Tensor  # (n,)
    n_backward: Tensor  # (n,)


class Pairs(NamedTuple):
    """Ends of minimized perturbations."""

    inner: Tensor  # (n, ...): z
    outer: Tensor  # (n, ...): z + delta
    success: Tensor  # (n,): labels right by `margin_tol` and not collapsed
    collapsed: Tensor  # (n,): the penalty outweighs the slope, so that no pair is worth its norm
    probabilities: Tensor  # (n, 2): of the source at `inner`, of the target at `outer`
    n_forward: Tensor  # (n,)
    n_backward: Tensor  # (n,)


def minimize_perturbation(
    logits: Callable[[Tensor], Tensor],
    z: Tensor,
    delta: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    penalty: float | Tensor = 1.0,
    weights: tuple[float, float] = (1.0, 1.0),
    norm: float | str = 2,
    n_iter: int = 300,
    learning_rate: float | Tensor = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    bounds: tuple[Tensor, Tensor] | None = None,
    margin_tol: float = 1e-3,
    eps: float | None = None,
) -> Pairs:
    r"""Minimize equation (1) of PM over z and delta, by Adam with cosine decay.

    .. math::

        w_1\, l(f(z), y) + w_2\, l(f(z + \delta), \hat y) + \lambda\, \lVert\delta\rVert

    with the cross-entropy l, the source y and the target :math:`\hat y`. Where the margin
    between the two classes has the slope L (per unit of the norm 2, equal weights 1), the optimum
    predicts both ends with probability ``1 - penalty / L`` at ``||delta|| = 2 / L * log(L /
    penalty - 1)``; a penalty of L / 2 or more collapses the pair to one point.

    Parameters
    ----------
    logits : callable
        From rows (m, ...) to logits (m, n_classes), differentiable, each row by itself.
    z, delta : Tensor of shape (n, ...)
        Where to start. Zero is no start for delta: the norm has no gradient there.
    source, target : Tensor of shape (n,)
        Classes wanted for z and for z + delta.
    penalty : float or Tensor of shape (n,), default=1.0
        The weight of the norm.
    weights : (float, float), default=(1.0, 1.0)
        Of the two cross-entropies.
    norm : {2, "2sq", 1, inf}, default=2
        "2sq" is the squared norm 2.
    n_iter : int, default=300
        Each costs two gradients a row.
    learning_rate : float or Tensor of shape (n,), default=0.01
        In units of x.
    betas : (float, float), default=(0.9, 0.999)
        Of Adam's moments. From a fast start, ``n_iter=30``, ``betas=(0.5, 0.9)`` and a learning
        rate of ``1.5 * ||delta|| / sqrt(d)`` come near to what 300 steps by default reach.
    bounds : (low, high), default=None
        Tensors that broadcast to z; both ends are projected to the box after each step.
    margin_tol : float, default=1e-3
        Least margin of a successful end over all other classes, where `criteria.margin_band` does
        not ask for more.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that takes part in the logits; None is that of z.

    Returns
    -------
    pairs : Pairs

    Raises
    ------
    ValueError
        For an unknown norm, or a target equal to its source.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.perturbation_minimization import minimize_perturbation
    >>> logits = lambda x: torch.stack([-5 * x[:, 0], 5 * x[:, 0]], 1)  # slope 10
    >>> z, delta = torch.zeros(1, 2), torch.tensor([[0.1, 0.0]])
    >>> pairs = minimize_perturbation(logits, z, delta, torch.tensor([0]), torch.tensor([1]))
    >>> pairs.probabilities.round(decimals=2)
    tensor([[0.9000, 0.9000]])
    """
    if norm not in _NORMS:
        raise ValueError(f"norm={norm!r}: use 2, '2sq', 1 or inf.")
    check_classes(source, target)
    shape, z, delta = z.shape, z.flatten(1).clone(), delta.flatten(1).clone()
    low, high = box(z.view(shape), bounds)
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
    inner, outer = out.chunk(2)
    gap = pairwise_margin(outer, source, target) - pairwise_margin(inner, source, target)
    # delta = 0 is the optimum when the slope's worth, at equal odds, is not above the penalty
    worth, size = gap * weights[0] * weights[1] / sum(weights), _NORMS[norm](delta)
    collapsed = (worth <= penalty * size * (1 + 1e-3)) & (norm != "2sq")
    band = margin_band(margin_tol, torch.finfo(z.dtype).eps if eps is None else eps, out)
    right = (class_margin(out, labels) >= band).view(2, -1).all(0)
    proba = out.softmax(1).gather(1, labels[:, None]).view(2, -1).T
    count = torch.full_like(source, 2 * n_iter)
    return Pairs(
        z.view(shape),
        (z + delta).view(shape),
        right & ~collapsed,
        collapsed,
        proba,
        count + 2,
        count,
    )


def penalty_for(confidence: float | Tensor, gradient: Tensor, norm: float | str = 2) -> Tensor:
    r"""Compute the penalty with which PM's ends are predicted with a wanted probability.

    With the slope L, the dual norm of the gradient of the pairwise margin, and p the confidence,

    .. math::

        \lambda = L (1 - p), \qquad
        \lambda_\mathrm{2sq} = \frac{L^2 (1 - p)}{4 \log(p / (1 - p))}

    Parameters
    ----------
    confidence : float or Tensor of shape (n,)
        Between .5 and 1.
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


def fast_start(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    confidence: float = 0.9,
    bounds: tuple[Tensor, Tensor] | None = None,
    margin_tol: float = 1e-3,
    eps: float | None = None,
    n_refine: int = 2,
) -> Start:
    """Step from near x over the boundary between two classes, whatever the other classes do.

    From the nearest point of that boundary, one step along its normal to each side, as long as
    the wanted confidence asks of the two classes alone. `minimize_perturbation` needs a tenth of
    the steps from here, and repairs what a third class wins.

    Parameters
    ----------
    logits : callable
        From rows (m, ...) to logits (m, n_classes), differentiable, each row by itself.
    x : Tensor of shape (n, ...)
        Of any class.
    source, target : Tensor of shape (n,)
    confidence : float, default=0.9
        Probability of the source among the two at z, of the target at z + delta. More where
        rounding asks for a larger margin than this: see `criteria.margin_band`.
    bounds : (low, high), default=None
        Tensors that broadcast to x; the box that holds x and both ends.
    margin_tol : float, default=1e-3
    eps : float, default=None
        Machine epsilon of the coarsest dtype that takes part in the logits; None is that of x.
    n_refine : int, default=2
        Refinements of the boundary point.

    Returns
    -------
    start : Start

    Raises
    ------
    ValueError
        For a target equal to its source, or bounds that exclude x.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.perturbation_minimization import fast_start
    >>> logits = lambda x: torch.stack([-5 * x[:, 0], 5 * x[:, 0]], 1)  # slope 10
    >>> start = fast_start(logits, torch.tensor([[3.0, 4.0]]), torch.tensor([0]), torch.tensor([1]))
    >>> start.delta.round(decimals=2)  # 2 * log(.9 / .1) / 10
    tensor([[0.4400, 0.0000]])
    """
    check_classes(source, target)
    passes, flat = Passes(logits, x), x.flatten(1)
    rows = torch.arange(len(x), device=x.device)
    out = passes.logits(flat, rows)
    at_x = pairwise_margin(out, source, target)
    band = margin_band(margin_tol, torch.finfo(x.dtype).eps if eps is None else eps, out)
    height = (1.5 * band).clamp(min=math.log(confidence / (1 - confidence)))
    side = torch.where(at_x > 0, 1.0, -1.0).to(flat)

    def across(out: Tensor, i: Tensor) -> Tensor:
        return -side[i] * pairwise_margin(out, source[i], target[i])

    search = Search(
        passes,
        flat,
        rows,
        *box(x, bounds),
        torch.minimum(10 * band, height / 2),
        across,
        -at_x.abs(),
    )
    foot, found = descend(search, None, n_refine)
    search = search._replace(x=foot, goal=lambda out, i: pairwise_margin(out, source[i], target[i]))
    rows = found.nonzero()[:, 0]
    search, z, delta, gradient = search.select(rows), flat.clone(), flat * 0, flat * 0
    _, value, gradient[rows] = search.derivative(foot[rows], search.rows())
    sign = torch.ones_like(value).repeat(2)
    sign[: len(rows)] = -1
    inner, outer = _climb(
        search.select(search.rows().repeat(2)),
        sign,
        height[rows].repeat(2),
        band[rows].repeat(2),
        value.repeat(2),
        gradient[rows].repeat(2, 1),
    ).chunk(2)
    z[rows], delta[rows] = inner, outer - inner
    return Start(
        z.view_as(x), delta.view_as(x), gradient.view_as(x), found, passes.forward, passes.backward
    )


def _climb(
    search: Search, sign: Tensor, height: Tensor, band: Tensor, value: Tensor, gradient: Tensor
) -> Tensor:
    """Follow the gradient, or its opposite, until the margin is `height` on that side."""
    rows, slope = search.rows(), gradient.norm(dim=1)
    tol = torch.maximum(0.02 * height, band / 4)
    way = sign[:, None] * normalize(gradient)

    def short_of(t: Tensor, i: Tensor) -> Tensor:
        return sign[i] * search.margin(search.along(t, way[i], i), i) - height[i]

    t = (height - sign * value) / slope
    f = short_of(t, rows)
    for _ in range(5):
        short = (f < -tol).nonzero()[:, 0]
        if not len(short):
            break
        t[short] *= 1.5
        f[short] = short_of(t[short], short)
    at_foot = sign * value - height
    root = find_root(short_of, torch.zeros_like(t), t, at_foot, f, tol=tol, max_iter=6)
    return search.along(root.t, way, rows)
