"""Search for the boundary on a segment: points just before it and just beyond it."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.boundary._oracle import Oracle, Outputs, source_margin
from skboundary.boundary._points import along
from skboundary.functional._shapes import expanded_like
from skboundary.functional.margins import margin_band
from skboundary.functional.root_finding import find_root

_HALVINGS = 14  # of a segment, by labels alone
_JUMP = 2.0**-15  # of a segment: how far a side keeps from a jump, where rounding would decide
_DOUBLINGS = 23  # of the first step back at most, from 2^-22 of the way


class Sides(NamedTuple):
    """Positions (n,) on segments just before and just after the boundary."""

    inner: Tensor
    outer: Tensor
    n_evaluations: Tensor


Value = Callable[[Tensor, Tensor], Tensor]


def sides_by_margin(
    margin: Value,
    start: Tensor,
    end: Tensor,
    tol: float | Tensor,
    limit: int | Tensor = 120,
    *,
    pairs: bool = True,
) -> Sides:
    """Find a crossing on [0, 1]: where a margin is about tol, and just after it minus tol.

    The root of ``margin = -1.5 tol`` to within tol / 2, then back from it, in steps that double,
    to a point where the margin is large, then the root of ``margin = 1.5 tol`` in between. So
    both sides belong to one crossing, which need not be the first, and neither is closer to it
    than rounding can tell.

    Parameters
    ----------
    margin : callable
        ``margin(t, index)`` of the segments numbered `index` (m,) at the positions `t` (m,).
    start, end : Tensor of shape (n,)
        The margin at 0, positive, and at 1, negative.
    tol : float or Tensor of shape (n,)
        What `functional.margins.margin_band` gives, where logits are rounded.
    limit : int or Tensor of shape (n,), default=120
        Evaluations of a segment at most, half of them for either side.
    pairs : bool, default=True
        False searches for the outer side alone; the inner one is the start.

    Returns
    -------
    sides : Sides
        Of a segment whose end does not reach minus tol the outer side is the end; of one whose
        start does not reach tol the inner side is the start. At a jump they keep 2^-15 away.
    """
    far = torch.ones_like(start)
    tol = expanded_like(tol, start, start.dtype)
    aim = 1.5 * tol
    root = find_root(
        lambda t, index: margin(t, index) + aim[index],
        far * 0,
        far,
        start + aim,
        end + aim,
        tol=tol / 2,
        max_iter=limit // 2,
    )
    beyond = torch.where(root.converged, root.t, (root.high + _JUMP).clamp(max=1))
    outer = torch.where(end + aim < 0, beyond, far)
    if not pairs:
        return Sides(far * 0, outer, root.n_evaluations)
    at_outer = torch.where(root.converged, root.value - aim, torch.minimum(end, -tol))
    back = step_back(margin, outer, start, at_outer, tol, limit - root.n_evaluations)
    return Sides(back.inner, outer, root.n_evaluations + back.n_evaluations)


def step_back(
    margin: Value,
    outer: Tensor,
    start: Tensor,
    at_outer: Tensor,
    tol: Tensor,
    limit: int | Tensor = 120,
) -> Sides:
    """Find the inner side that belongs to outer sides which are known.

    Parameters
    ----------
    margin, limit : see `sides_by_margin`
    tol : Tensor of shape (n,)
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
    limit = expanded_like(limit, n_evaluations)
    # the chord's guess of the distance to the margin that is sought
    guess = (aim - at_outer) / torch.maximum(start - at_outer, tol)
    step = outer * guess.clamp(2.0 ** (1 - _DOUBLINGS), 1)
    index = ((start > aim) & (at_outer < aim)).nonzero()[:, 0]
    for _ in range(_DOUBLINGS):
        t = near[index] - step[index]
        goes = (t > 0) & (n_evaluations[index] < limit[index])
        index, t = index[goes], t[goes]
        if not len(index):
            break
        f = margin(t, index)
        n_evaluations[index] += 1
        there, before = f >= aim[index], f < aim[index]  # neither where it is not a number
        far[index[there]], f_far[index[there]] = t[there], f[there]
        near[index[before]], f_near[index[before]] = t[before], f[before]
        index = index[before]
        step[index] *= 2
    root = find_root(
        lambda t, index: margin(t, index) - aim[index],
        far,
        near,
        f_far - aim,
        f_near - aim,
        tol=tol / 2,
        max_iter=limit - n_evaluations,
    )
    before = torch.where(root.converged, root.t, (root.low - _JUMP).clamp(min=0))
    inner = torch.where(start > aim, before, torch.zeros_like(before))
    return Sides(inner, outer, n_evaluations + root.n_evaluations)


def sides_by_label(inside: Callable[[Tensor], Tensor], n: int, like: Tensor) -> Sides:
    """Halve n segments fourteen times by labels, to 2^-14 of their length.

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
    oracle: Oracle,
    start: Tensor,
    end: Tensor,
    source: Tensor,
    target: Tensor,
    tol: float,
    *,
    limit: int | Tensor = 120,
    known: tuple[Outputs | None, Outputs | None] = (None, None),
    pairs: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the boundary between points (n, ...) that lie on its two sides.

    By the margin of `source` over `target` (-1: over all) to within a band of at least `tol`, or
    by labels where nothing else is used.

    Parameters
    ----------
    oracle : Oracle
    start, end : Tensor of shape (n, ...)
    source, target : Tensor of shape (n,)
    tol : float
        In units of the logits.
    limit : int or Tensor of shape (n,), default=120
        Evaluations of a segment by margins at most. By labels they are fourteen.
    known : (Outputs or None, Outputs or None), default=(None, None)
        At the starts and at the ends, which are not computed again.
    pairs : bool, default=True
        False searches for the outer side alone; the inner one is the start.

    Returns
    -------
    inner, outer : Tensor of shape (n, ...)
        Both the start where the points do not lie on the two sides.
    n_evaluations : Tensor of shape (n,)
    """
    at_start, n_start = oracle.complete(start, known[0])
    at_end, n_end = oracle.complete(end, known[1])
    if at_start.logits is None or at_end.logits is None:
        across = (at_start.labels == source) & (at_end.labels != source)
        inside = lambda t: oracle.labels(along(start, end, t)) == source
        sides = sides_by_label(inside, len(start), start)
    else:
        logits = at_start.logits, at_end.logits
        first, last = (source_margin(side, source, target) for side in logits)
        across = (first >= 0) & (last <= 0)  # a tie counts: the labels will tell
        band = margin_band(tol, oracle.eps, *logits, ends=(start, end))
        margin = margin_on(oracle, start, end, source, target)
        sides = sides_by_margin(margin, first, last, band, limit, pairs=pairs)
    inner, outer = (
        along(start, end, torch.where(across, t, 0)) for t in (sides.inner, sides.outer)
    )
    return inner, outer, sides.n_evaluations + n_start + n_end


def margin_on(oracle: Oracle, start: Tensor, end: Tensor, source: Tensor, target: Tensor) -> Value:
    """The margin of `source` over `target` (-1: over all) on segments (n, ...)."""

    def margin(t: Tensor, index: Tensor) -> Tensor:
        points = along(start[index], end[index], t)
        return oracle.margin(points, source[index], target[index])

    return margin
