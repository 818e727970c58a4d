"""Hold me tight: how far the boundary is inside given subspaces, by DeepFool."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional.subspaces import Subspaces

_SHORTEST_STEP = 1e-4  # relative to the distance so far


class SubspaceDeepFool(NamedTuple):
    """Where m searches ended."""

    distance: Tensor  # (m,) length of the perturbation, overshoot included; inf if none was tried
    flipped: Tensor  # (m,) whether it changes the prediction
    coordinates: Tensor  # (m, k) of it in the subspace
    n_iter: Tensor  # (m,) steps taken


def subspace_deepfool(
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    subspaces: Subspaces,
    rows: Tensor,
    index: Tensor,
    *,
    n_classes: int = 10,
    overshoot: float = 0.02,
    max_iter: int = 100,
    eps: float | None = None,
) -> SubspaceDeepFool:
    """Perturb rows inside subspaces until their prediction changes.

    With ``f_k`` the lead of class k over the predicted class and ``w_k`` its gradient, both at
    ``x + S c``, the step of Hold me tight is taken in coordinates c of the subspace, whose
    basis S is orthonormal::

        k  = argmin |f_k| / ||S^T w_k||
        c += max(|f_k| / ||S^T w_k||, 1e-4 ||c||) * S^T w_k / ||S^T w_k||

    until ``x + (1 + overshoot) S c`` is predicted otherwise. The authors' shortest step is 1e-4
    itself, for pixels whose margins are about 1; relative to the distance so far it holds in any
    unit. From the second step on none is shorter than the rounding of x and of the logits either,
    so that a search does not stand still on the boundary. Nothing is clipped to the range of the
    data. All searches advance side by side, and leave when they are done; the first step is
    shared by all subspaces of a row.

    Parameters
    ----------
    logits : callable
        From rows (m, ...) to (m, n_outputs), differentiable.
    x : Tensor of shape (n, ...)
    subspaces : Subspaces
    rows, index : Tensor of shape (m,)
        Each search: a row of x, and a subspace.
    n_classes : int, default=10
        Classes with the largest logits at x that are looked at, the predicted one among them.
    overshoot : float, default=0.02
    max_iter : int, default=100
    eps : float, default=None
        Machine epsilon of what `logits` computes; None is that of x.

    Returns
    -------
    result : SubspaceDeepFool
        A search that did not flip is censored: it had not met the boundary at `distance`. It
        ends early where no gradient lies in the subspace, with an infinite distance where
        that is so at x already.

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
    lead, gradient, ranking = lead[:, rows], gradient[:, rows], ranking[rows]
    projected = subspaces.coordinates(gradient, index)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    grain = eps * x.flatten(1).norm(dim=1)[rows]
    c = torch.zeros_like(projected[0])
    flipped = torch.zeros_like(rows, dtype=torch.bool)
    n_iter = torch.zeros_like(rows)
    active = torch.arange(len(rows), device=rows.device)
    for step in range(max_iter):
        if step:
            points = _displaced(x, rows[active], subspaces.expand(c[active], index[active]))
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
            predicted = logits(_displaced(x, rows[active], beyond)).argmax(1)
        flipped[active] = predicted != ranking[active, 0]
        active = active[~flipped[active]]
        if not len(active):
            break
    c *= 1 + overshoot
    return SubspaceDeepFool(torch.where(n_iter > 0, c.norm(dim=1), torch.inf), flipped, c, n_iter)


def _displaced(x: Tensor, rows: Tensor, delta: Tensor) -> Tensor:
    return x[rows] + delta.view(-1, *x.shape[1:])


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
    """Slope (m,) of the nearest of q linearised boundaries, the distance (m,) from it, infinite
    where none has a slope in the subspace, and the direction (m, k) to it."""
    slope = projected.norm(dim=2)
    # what rounding leaves of a gradient that is orthogonal to the subspace is no slope
    rounding = 100 * torch.finfo(slope.dtype).eps * gradient.norm(dim=2)
    reach = torch.where(slope > rounding, lead.abs() / slope, torch.inf)
    length, nearest = reach.min(dim=0)
    every = torch.arange(len(nearest), device=nearest.device)
    slope = slope[nearest, every]
    return slope, length, projected[nearest, every] / slope[:, None]
