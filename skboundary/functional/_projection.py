"""The shortest step to a hyperplane inside a box."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor


def project(w: Tensor, c: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Find the shortest d with w.d = c in a box that holds 0.

    It is ``d = clip(mu w, low, high)``. For c > 0, w.d is concave and piecewise linear in mu, so
    that Newton's method from the unbounded solution never goes too far and ends at the root.

    Parameters
    ----------
    w : Tensor of shape (n, d)
    c : Tensor of shape (n,)
    low, high : Tensor of shape (n, d)

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
    square, reach = w.square(), torch.where(w > 0, high, low) / w
    reach = reach.where(w != 0, torch.inf)  # also 0 / 0
    mu = c.abs() / square.sum(1)
    if reach.isinf().all():
        return mu[:, None] * w
    for _ in range(20):
        slope = (square * (reach > mu[:, None])).sum(1)
        missing = c.abs() - (square * torch.minimum(reach, mu[:, None])).sum(1)
        open_ = missing > 1e-6 * c.abs()
        if not open_.any():
            break
        mu = mu + torch.where(open_ & (slope > 0), missing / slope, 0)  # those not done
    return torch.minimum(reach, mu[:, None]) * w
