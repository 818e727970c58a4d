"""Perturbation Minimization: pairs (z, z + delta) on either side of a decision boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from skboundary.functional._fast_start import PMStart, fast_start
from skboundary.functional._margin_problem import box, check_classes
from skboundary.functional._shapes import shapes
from skboundary.functional.margins import class_margin, margin_band, pairwise_margin

__all__ = ["PMPair", "PMStart", "fast_start", "minimize_perturbation", "penalty_for"]

_NORMS: dict[float | str, Callable[[Tensor], Tensor]] = {
    2: lambda d: (d.square().sum(1) + 1e-12).sqrt(),
    "2sq": lambda d: d.square().sum(1),
    1: lambda d: d.abs().sum(1),
    math.inf: lambda d: d.abs().amax(1),
}
_DUAL: dict[float | str, float] = {2: 2, "2sq": 2, 1: math.inf, math.inf: 1}


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
        Maps points (m, ...) to logits (m, n_classes); differentiable, independent for each point.
    x : Tensor of shape (n, ...)
        Initial z.
    source, target : Tensor of shape (n,)
        Target classes of z and of z + delta.
    delta : Tensor of shape (n, ...)
        Initial delta, in units of x; not zero, where the norm has no gradient.
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
        rate of ``1.5 * ||delta|| / sqrt(d)`` come close to the result of 300 default steps.
    margin_tol : float, default=1e-3
        Smallest margin of a successful end over all other classes, in units of the logits, where
        `margins.margin_band` does not demand more.
    eps : float, default=None
        Machine epsilon of the coarsest dtype that involved in the logits; None is that of x.

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
    r"""Compute the penalty for which PM predicts both ends with a given probability.

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
