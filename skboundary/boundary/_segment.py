"""The boundary on a segment: both of its sides, a margin apart or a few bits apart."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends, expand
from skboundary.functional.bisect import find_root

_HALVINGS = 14  # of a segment, by labels alone
_JUMP = 2.0**-15  # of a segment: how far a side keeps from a jump, where rounding would decide


class Sides(NamedTuple):
    """Positions (n,) on segments just before and just after the boundary."""

    inner: Tensor
    outer: Tensor
    n_evaluations: Tensor


Value = Callable[[Tensor, Tensor], Tensor]


def sides_by_margin(margin: Value, start: Tensor, end: Tensor, tol: float) -> Sides:
    """Find where a margin on [0, 1] first is about tol on one side, and minus tol on the other.

    The root of ``margin = -1.5 tol`` to within tol / 2, then back from it, in steps that double,
    to a point where the margin is large, then the root of ``margin = 1.5 tol`` in between. So
    both sides belong to one crossing, and neither is closer to it than rounding can tell.

    Parameters
    ----------
    margin : callable
        ``margin(t, rows)`` of the segments numbered `rows` (m,) at the positions `t` (m,).
    start, end : Tensor of shape (n,)
        The margin at 0, positive, and at 1, negative.
    tol : float

    Returns
    -------
    sides : Sides
        Of a segment whose end does not reach minus tol the outer side is the end; of one whose
        start does not reach tol the inner side is the start. At a jump they keep 2^-15 away.
    """
    far = torch.ones_like(start)
    aim = 1.5 * tol
    root = find_root(
        lambda t, rows: margin(t, rows) + aim, far * 0, far, start + aim, end + aim, tol=tol / 2
    )
    beyond = torch.where(root.converged, root.t, (root.high + _JUMP).clamp(max=1))
    outer = torch.where(end + aim < 0, beyond, far)
    at_outer = torch.where(root.converged, root.value - aim, end.clamp(max=-tol))
    back = step_back(margin, outer, start, at_outer, tol)
    return Sides(back.inner, outer, root.n_evaluations + back.n_evaluations)


def step_back(
    margin: Value, outer: Tensor, start: Tensor, at_outer: Tensor, tol: float
) -> Sides:
    """Find the inner side that belongs to outer sides which are known.

    Parameters
    ----------
    margin, tol : see `sides_by_margin`
    outer : Tensor of shape (n,)
        Positions where the margin is negative.
    start, at_outer : Tensor of shape (n,)
        The margin at 0 and at `outer`.

    Returns
    -------
    sides : Sides
    """
    aim = 1.5 * tol
    near, f_near = outer.clone(), at_outer.clone()
    far, f_far = torch.zeros_like(outer), start.clone()
    n_evaluations = torch.zeros_like(outer, dtype=torch.long)
    # the chord's guess of how far the wanted margin is
    step = outer * ((aim - at_outer) / (start - at_outer).clamp_min(tol)).clamp(max=1)
    rows = (start > aim).nonzero()[:, 0]
    while len(rows):
        t = near[rows] - step[rows]
        rows, t = rows[t > 0], t[t > 0]
        if not len(rows):
            break
        f = margin(t, rows)
        n_evaluations[rows] += 1
        there = f >= aim
        far[rows[there]], f_far[rows[there]] = t[there], f[there]
        near[rows[~there]], f_near[rows[~there]] = t[~there], f[~there]
        rows = rows[~there]
        step[rows] *= 2
    root = find_root(
        lambda t, rows: margin(t, rows) - aim, far, near, f_far - aim, f_near - aim, tol=tol / 2
    )
    before = torch.where(root.converged, root.t, (root.low - _JUMP).clamp(min=0))
    inner = torch.where(start > aim, before, torch.zeros_like(before))
    return Sides(inner, outer, n_evaluations + root.n_evaluations)


def sides_by_label(inside: Callable[[Tensor], Tensor], n: int, like: Tensor) -> Sides:
    """Halve n segments until 14 bits are left of their length, by labels alone.

    Parameters
    ----------
    inside : callable
        From positions (n,) to whether the label there is that of the start, (n,).
    n : int
    like : Tensor
        Has the dtype and device of the positions.

    Returns
    -------
    sides : Sides
    """
    inner, outer = like.new_zeros(n), like.new_ones(n)
    for _ in range(_HALVINGS):
        middle = (inner + outer) / 2
        stays = inside(middle)
        inner = torch.where(stays, middle, inner)
        outer = torch.where(stays, outer, middle)
    return Sides(inner, outer, torch.full_like(inner, _HALVINGS, dtype=torch.long))


def between(
    oracle: Oracle, start: Tensor, end: Tensor, source: Tensor, target: Tensor, tol: float
) -> Ends:
    """Find the boundary between pairs of rows (n, ...) that lie on its two sides.

    By the margin of `source` over `target` (-1: over all) to within `tol`, or by labels
    where there is nothing else. A pair that does not lie so has both ends at its start.
    """
    width = end - start

    def at(t: Tensor, rows: Any = slice(None)) -> Tensor:
        return start[rows] + expand(t, width) * width[rows]

    if oracle.response == "label":
        said = oracle.labels(torch.cat([start, end])).chunk(2)
        across = (said[0] == source) & (said[1] != source)
        sides = sides_by_label(lambda t: oracle.labels(at(t)) == source, len(start), start)
    else:
        both = torch.cat([start, end])
        f = oracle.margin(both, source.repeat(2), target.repeat(2)).chunk(2)
        across = (f[0] >= 0) & (f[1] <= 0)  # a tie counts: the labels will tell
        sides = sides_by_margin(
            lambda t, rows: oracle.margin(at(t, rows), source[rows], target[rows]),
            f[0], f[1], tol,
        )  # fmt: skip
    inner = torch.where(across, sides.inner, 0)
    outer = torch.where(across, sides.outer, 0)
    return Ends(at(inner), at(outer), sides.n_evaluations + 2)
