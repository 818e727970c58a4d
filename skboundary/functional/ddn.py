"""Steps that change the direction of a perturbation and its norm by turns (DDN)."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from skboundary.functional._margin_problem import Search


def decoupled_steps(
    search: Search, points: Tensor, label: Tensor, targeted: bool, n_steps: int
) -> Tensor:
    """Shorten the way to points that reach a goal, by steps on the cross-entropy.

    Each step moves along the normalized gradient and then puts the point on a sphere around x,
    which shrinks while the goal is reached and grows while it is not (Rony et al., DDN). Here it
    starts from a point that reaches the goal, so that the steps can be few: their length falls
    from 1 to .02 of the first distance, the change of the radius from 10 to 1 percent, by cosine.

    Parameters
    ----------
    search : Search
        Of m rows.
    points : Tensor of shape (m, d)
        Where the goal is reached.
    label : Tensor of shape (m,)
        The class to leave, or to reach when `targeted`.
    targeted : bool
    n_steps : int
        Gradients per row.

    Returns
    -------
    points : Tensor of shape (m, d)
        For each row the nearest point seen that reaches the goal.
    """
    sign, rows = (-1.0 if targeted else 1.0), search.rows()
    best, distance = points.clone(), (points - search.x).norm(dim=1)
    first = radius = distance.clone()

    def loss(out: Tensor, rows: Tensor) -> Tensor:
        return sign * cross_entropy(out, label[rows], reduction="none")

    def keep(points: Tensor, reached: Tensor) -> None:
        now = (points - search.x).norm(dim=1)
        shorter = reached & (now < distance * (1 - 1e-6))  # not by rounding alone
        best[shorter], distance[shorter] = points[shorter], now[shorter]

    for i in range(n_steps):
        out, _, gradient = search.derivative(points, rows, loss)
        reached = search.goal(out, rows) > 0
        keep(points, reached)
        cosine = (1 + math.cos(math.pi * i / n_steps)) / 2
        way = points - search.x + (first * (0.02 + 0.98 * cosine))[:, None] * normalize(gradient)
        change = 0.01 + 0.09 * cosine
        radius = radius * (1 + change * (1 - 2 * reached.to(radius.dtype)))
        points = search.along(radius, normalize(way), rows)
    keep(points, search.margin(points, rows) > 0)
    return best
