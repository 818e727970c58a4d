"""The shortest step to a hyperplane inside a box, and the nearest point of a ball, in a norm."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

NORMS = (1, 2, math.inf)


def project(w: Tensor, c: Tensor, low: Tensor, high: Tensor, norm: float = 2) -> Tensor:
    """Find the shortest d with w.d = c in a box that holds 0.

    For c > 0 it is ``clip(mu w, low, high)`` in the norm 2 and ``clip(mu sign(w), low, high)`` in
    the norm inf. Then w.d is concave and piecewise linear in mu, so that Newton's method from the
    unbounded solution never goes too far and ends at the root. In the norm 1 the columns of the
    largest ``|w|`` go as far as the box allows, one after another.

    Parameters
    ----------
    w : Tensor of shape (n, d)
    c : Tensor of shape (n,)
    low, high : Tensor of shape (n, d)
    norm : {1, 2, inf}, default=2

    Returns
    -------
    d : Tensor of shape (n, d)
        As far toward the plane as the box allows where they do not meet.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional._projection import project
    >>> low, high = torch.tensor([[-9.0, -9.0]]), torch.tensor([[1.0, 9.0]])
    >>> project(torch.tensor([[1.0, 1.0]]), torch.tensor([6.0]), low, high)
    tensor([[1., 5.]])
    """
    w = torch.where((c < 0)[:, None], -w, w)
    c, room = c.abs(), torch.where(w > 0, high, -low).where(w != 0, torch.inf)
    if norm == 1:
        return _largest_first(w, c, room)
    unit = w if norm == 2 else w.sign()
    slopes, reach = w * unit, room / unit.abs()  # of w.d, until a column has no more room
    mu = c / slopes.sum(1)
    if reach.isinf().all():
        return mu[:, None] * unit
    for _ in range(20):
        slope = (slopes * (reach > mu[:, None])).sum(1)
        missing = c - (slopes * torch.minimum(reach, mu[:, None])).sum(1)
        open_ = missing > 1e-6 * c
        if not open_.any():
            break
        mu = mu + torch.where(open_ & (slope > 0), missing / slope, 0)  # those not done
    return torch.minimum(reach, mu[:, None]) * unit


def _largest_first(w: Tensor, c: Tensor, room: Tensor) -> Tensor:
    """Steps (n, d) with w.d = c, by columns in the order of decreasing slope."""
    order = w.abs().argsort(dim=1, descending=True, stable=True)
    slope = w.abs().gather(1, order)
    gain = slope * room.gather(1, order).where(slope > 0, 0)
    before = torch.cat([torch.zeros_like(gain[:, :1]), gain.cumsum(1)[:, :-1]], 1)
    rest = (c[:, None] - before).clamp(min=0)
    step = torch.minimum(gain, rest) / slope.where(slope > 0, 1)
    return torch.zeros_like(w).scatter(1, order, step) * w.sign()


def shrink(d: Tensor, radius: Tensor, norm: float = 2) -> Tensor:
    """Find the nearest perturbations of a length: on the sphere in the norm 2, else in the ball.

    Parameters
    ----------
    d : Tensor of shape (n, d)
    radius : Tensor of shape (n,)
    norm : {1, 2, inf}, default=2

    Returns
    -------
    d : Tensor of shape (n, d)
    """
    radius = radius[:, None]
    if norm == 2:
        return radius * normalize(d)
    if norm == math.inf:
        return torch.minimum(torch.maximum(d, -radius), radius)
    size = d.abs().sort(dim=1, descending=True).values  # Euclidean projection on the simplex
    count = torch.arange(1, d.shape[1] + 1, device=d.device)
    excess = (size.cumsum(1) - radius) / count
    last = (size > excess).sum(1, keepdim=True).clamp(min=1) - 1
    cut = excess.gather(1, last).clamp(min=0)
    return d.sign() * (d.abs() - cut).clamp(min=0)
