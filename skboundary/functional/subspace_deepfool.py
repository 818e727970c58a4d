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
    batch_size: int | None = None,
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
    All searches advance together, in batches from which finished ones are removed; the gradients at
    a sample are shared by its subspaces where those follow each other in one batch.

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
    batch_size : int, default=None
        Largest number of points that pass through `logits` together. None is m.
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
    size = batch_size or max(1, len(samples))
    with torch.no_grad():
        out = torch.cat([logits(part) for part in x.split(size)])
    ranking = out.sort(dim=1, descending=True, stable=True).indices[:, :n_classes]
    searches = _Searches(logits, x, subspaces, samples, index, ranking, overshoot, size, eps)
    active = torch.arange(len(samples), device=samples.device)
    for step in range(max_iter):
        if not len(active):
            break
        active = torch.cat([searches.advance(part, step) for part in active.split(size)])
    c = (1 + overshoot) * searches.c
    distance = torch.where(searches.n_iter > 0, c.norm(dim=1), torch.inf)
    return SubspaceDeepFool(distance, searches.flipped, c, searches.n_iter)


class _Searches:
    """How far m searches have come."""

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        x: Tensor,
        subspaces: Subspaces,
        samples: Tensor,
        index: Tensor,
        ranking: Tensor,
        overshoot: float,
        size: int,
        eps: float | None,
    ) -> None:
        self.logits, self.x, self.subspaces = logits, x, subspaces
        self.samples, self.index, self.ranking = samples, index, ranking[samples]
        self.beyond, self.size = 1 + overshoot, size
        self.eps = torch.finfo(x.dtype).eps if eps is None else eps
        self.grain = self.eps * x.flatten(1).norm(dim=1)[samples]
        k = subspaces.coordinates(x[:1].flatten(1), index[:1]).shape[1]
        self.c = x.new_zeros(len(samples), k)
        self.flipped = torch.zeros_like(samples, dtype=torch.bool)
        self.n_iter = torch.zeros_like(samples)

    def advance(self, active: Tensor, step: int) -> Tensor:
        """Take one step of some searches; return those that have not ended."""
        lead, gradient, largest = (
            self._linearized(active) if step else self._linearized_at_x(active)
        )
        projected = self.subspaces.coordinates(gradient, self.index[active])
        slope, length, direction = _nearest_boundary(lead, gradient, projected)
        if step:
            shortest = _SHORTEST_STEP * self.c[active].norm(dim=1)
            shortest = torch.maximum(shortest, self.grain[active])
            length = torch.maximum(length, torch.maximum(shortest, self.eps * largest / slope))
        moves = length.isfinite()
        active = active[moves]
        if not len(active):
            return active
        self.c[active] += length[moves, None] * direction[moves]
        self.n_iter[active] += 1
        with torch.no_grad():
            predicted = self._run(self._points(active, self.beyond)).argmax(1)
        self.flipped[active] = predicted != self.ranking[active, 0]
        return active[~self.flipped[active]]

    def _linearized_at_x(self, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At the samples of some searches, each sample once."""
        found, place = self.samples[active].unique(return_inverse=True)
        first = torch.empty_like(found).scatter_(0, place, active)  # any search of a sample
        lead, gradient, largest = _linearize(self._run, self.x[found], self.ranking[first])
        return lead[:, place], gradient[:, place], largest[place]

    def _linearized(self, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _linearize(self._run, self._points(active, 1.0), self.ranking[active])

    def _points(self, active: Tensor, factor: float) -> Tensor:
        """``x + factor * S c``."""
        delta = factor * self.subspaces.expand(self.c[active], self.index[active])
        return self.x[self.samples[active]] + delta.view(-1, *self.x.shape[1:])

    def _run(self, points: Tensor) -> Tensor:
        """Logits of at most a batch of points, which is filled up to one of a few sizes.

        Libraries prepare the layers of a network for each size, at some cost, and keep the result.
        """
        n = len(points)
        unit = 2 ** max(0, (n - 1).bit_length() - 3)
        n_copies = min(-(-n // unit) * unit, max(self.size, n)) - n
        if not n_copies:
            return self.logits(points)
        copies = points[-1:].detach().expand(n_copies, *points.shape[1:])
        return self.logits(torch.cat([points, copies]))[:n]


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
