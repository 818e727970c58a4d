"""Hold me tight: the distance of the boundary inside given subspaces, by DeepFool."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._shapes import shapes
from skboundary.functional.subspaces import Subspaces

__all__ = ["SubspaceDeepFool", "subspace_deepfool"]

_SHORTEST_STEP = 1e-4  # relative to the distance so far


class SubspaceDeepFool(NamedTuple):
    """Perturbations found by m searches."""

    distance: Tensor  # (m,) length, overshoot included, in units of x; inf if none was tried
    flipped: Tensor  # (m,) whether the prediction changes
    coordinates: Tensor  # (m, k) in the subspace
    n_iter: Tensor  # (m,) steps taken


@shapes(x="n ...", samples="m", index="m")
def subspace_deepfool(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    subspaces: Subspaces,
    samples: Tensor,
    index: Tensor,
    *,
    n_classes: int = 10,
    overshoot: float = 0.02,
    max_iter: int = 100,
    eps: float | None = None,
) -> SubspaceDeepFool:
    """Perturb samples inside subspaces until their prediction changes.

    With ``f_k`` the lead of class k over the predicted class and ``w_k`` its gradient, both at
    ``x + S c``, the step of Hold me tight [1]_, that is of DeepFool [2]_, is taken in coordinates
    c of the subspace, whose basis S is orthonormal::

        k  = argmin |f_k| / ||S^T w_k||
        c += max(|f_k| / ||S^T w_k||, 1e-4 ||c||) * S^T w_k / ||S^T w_k||

    until ``x + (1 + overshoot) S c`` is predicted otherwise. The authors' shortest step is 1e-4
    itself, for pixels whose margins are about 1; relative to the distance so far, it suits any
    unit. From the second step on none is shorter than the rounding of x and of the logits either,
    so that a search cannot stall on the boundary. Points are not clipped to the range of the data.
    All searches advance together, and finished ones leave the batch; the first step is shared by
    all subspaces of a sample.

    Parameters
    ----------
    logits : callable
        From points (m, ...) to logits (m, n_outputs), differentiable.
    x : Tensor of shape (n, ...)
    subspaces : Subspaces
    samples, index : Tensor of shape (m,)
        For each search the number of a sample of x, and that of a subspace.
    n_classes : int, default=10
        Number of classes considered: those with the largest logits at x, including the predicted
        one.
    overshoot : float, default=0.02
        Relative to the distance.
    max_iter : int, default=100
    eps : float, default=None
        Machine epsilon of the dtype that `logits` computes in; None is that of x.

    Returns
    -------
    result : SubspaceDeepFool
        A search that did not flip is censored: it had not reached the boundary at `distance`. It
        ends early where no gradient lies in the subspace, with an infinite distance where
        that is so at x already.

    Raises
    ------
    ValueError
        For shapes that do not match.

    References
    ----------
    .. [1] G. Ortiz-Jimenez, A. Modas, S. Moosavi-Dezfooli, P. Frossard, "Hold me tight!
       Influence of discriminative features on deep network boundaries", `arXiv 2002.06349
       <https://arxiv.org/abs/2002.06349>`_.
    .. [2] S. Moosavi-Dezfooli, A. Fawzi, P. Frossard, "DeepFool: a simple and accurate method to
       fool deep neural networks", CVPR 2016, `arXiv 1511.04599
       <https://arxiv.org/abs/1511.04599>`_.

    Examples
    --------
    >>> from skboundary.functional.subspaces import Bases
    >>> weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> axes = Bases(torch.eye(2)[:, None])
    >>> x, first = torch.tensor([[-5.0, 0.0]]), torch.tensor([0, 0])
    >>> subspace_deepfool(lambda x: x @ weight.T, x, axes, first, torch.tensor([0, 1])).distance
    tensor([5.1000, 3.8250])
    """
    with torch.no_grad():
        ranking = logits(x).sort(dim=1, descending=True, stable=True).indices[:, :n_classes]
    lead, gradient, _ = _linearize(logits, x, ranking)
    lead, gradient, ranking = lead[:, samples], gradient[:, samples], ranking[samples]
    projected = subspaces.coordinates(gradient, index)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    grain = eps * x.flatten(1).norm(dim=1)[samples]
    c = torch.zeros_like(projected[0])
    flipped = torch.zeros_like(samples, dtype=torch.bool)
    n_iter = torch.zeros_like(samples)
    active = torch.arange(len(samples), device=samples.device)
    for step in range(max_iter):
        if step:
            points = _displaced(x, samples[active], subspaces.expand(c[active], index[active]))
            lead, gradient, largest = _linearize(logits, points, ranking[active])
            projected = subspaces.coordinates(gradient, index[active])
        slope, length, direction = _nearest_boundary(lead, gradient, projected)
        if step:
            shortest = torch.maximum(_SHORTEST_STEP * c[active].norm(dim=1), grain[active])
            length = torch.maximum(length, torch.maximum(shortest, eps * largest / slope))
        moves = length.isfinite()
        c[active[moves]] += length[moves, None] * direction[moves]
        active = active[moves]
        if not len(active):
            break
        n_iter[active] += 1
        beyond = (1 + overshoot) * subspaces.expand(c[active], index[active])
        with torch.no_grad():
            predicted = logits(_displaced(x, samples[active], beyond)).argmax(1)
        flipped[active] = predicted != ranking[active, 0]
        active = active[~flipped[active]]
        if not len(active):
            break
    c *= 1 + overshoot
    return SubspaceDeepFool(torch.where(n_iter > 0, c.norm(dim=1), torch.inf), flipped, c, n_iter)


def _displaced(x: Tensor, samples: Tensor, delta: Tensor) -> Tensor:
    return x[samples] + delta.view(-1, *x.shape[1:])


def _linearize(
    logits: Callable[[Tensor], Tensor], x: Tensor, ranking: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Leads (q, m) of q ranked classes over the first one, their gradients (q, m, d), and the
    largest absolute logit (m,) among all of them."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        ranked = logits(x).gather(1, ranking)
        leads = (ranked[:, 1:] - ranked[:, :1]).T
        gradients = [torch.autograd.grad(lead.sum(), x, retain_graph=True)[0] for lead in leads]
    return leads.detach(), torch.stack(gradients).flatten(2), ranked.detach().abs().amax(1)


def _nearest_boundary(
    lead: Tensor, gradient: Tensor, projected: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Slope (m,) of the nearest of q linearized boundaries, the distance (m,) from it, infinite
    where none has a slope in the subspace, and the direction (m, k) to it."""
    slope = projected.norm(dim=2)
    # the slope of a gradient orthogonal to the subspace is rounding error
    rounding = 100 * torch.finfo(slope.dtype).eps * gradient.norm(dim=2)
    reach = torch.where(slope > rounding, lead.abs() / slope, torch.inf)
    length, nearest = reach.min(dim=0)
    every = torch.arange(len(nearest), device=nearest.device)
    slope = slope[nearest, every]
    return slope, length, projected[nearest, every] / slope[:, None]
