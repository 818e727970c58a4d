"""The nearest boundary point of a classifier without gradients, from its labels or scores.

Every search keeps a bracket per row, `outer` across the boundary and `inner` before it. Random
directions are drawn once a step and shared by all rows, so that what a row gets does not depend
on the rows beside it.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skboundary.functional._boundary_walk import begin, descend, reach
from skboundary.functional._query_brackets import NUMBERS, RESERVE, Bracket, Search, contest, settle
from skboundary.functional.margins import class_margin

__all__ = ["Bracket", "label_search", "score_search", "segment_search"]


def segment_search(
    label: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    starts: Tensor,
    *,
    target: Tensor | None = None,
    budget: int = 100,
    tol: float = 1e-3,
) -> Bracket:
    """Find the closest boundary crossing on the segments from each row to its starts.

    The first start is bisected. Of every other start one question is asked: is its segment
    across the boundary just before the best distance so far? Only those that are get bisected.

    Parameters
    ----------
    label : callable
        From points (m, d) to integer codes (m,).
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Codes of x.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first.
    target : Tensor of shape (n,), default=None
        Codes to be reached. None or -1 takes any but the source.
    budget : int, default=100
        Questions a row may ask.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to the distance of `outer` from x.

    Returns
    -------
    bracket : Bracket
        Without success where no start is of another class.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.query_search import segment_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    >>> label = lambda points: (points.sum(1) > 1).long()
    >>> segment_search(label, x, torch.tensor([0]), starts).outer.round(decimals=2)
    tensor([[1., 0.]])
    """
    search = Search(_label_margin(label, source, target), x, None, budget)
    everyone = torch.arange(len(x), device=x.device)
    contest(search, starts, everyone, search.left.clamp(max=RESERVE))
    settle(search, tol)
    return search.result()


def label_search(
    label: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    starts: Tensor,
    *,
    generator: torch.Generator,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    basis: Tensor | None = None,
    budget: int = 2000,
    tol: float = 1e-3,
) -> Bracket:
    """Find the nearest boundary point from labels alone.

    Segments to the starts give a first bracket. From there each row walks along the boundary:
    labels around its point, in orthonormal directions across the ray from x, vote for the side
    on which the boundary comes closer; on the circle over the diameter from x to the point,
    where every point is nearer to x than the last one, an angle is searched that is still across
    the boundary; the ray there is bisected. Between the steps coordinates are set back to those
    of x or halfway there, one by one, for as long as that pays: it does where the boundary
    follows the axes, as in trees.

    Parameters
    ----------
    label : callable
        From points (m, d) to integer codes (m,).
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Codes of x.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first. Rows for which none is of another class try
        random rays of growing length.
    generator : torch.Generator
        On the CPU.
    target : Tensor of shape (n,), default=None
        Codes to be reached. None or -1 takes any but the source.
    bounds : tuple of two Tensors that broadcast to x, default=None
        The box that points may not leave; it holds x and the starts.
    basis : Tensor of shape (k, d), default=None
        Orthonormal rows: the search stays in x plus their span, starts are projected on it.
        Not with bounds.
    budget : int, default=2000
        Questions a row may ask.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to the distance of `outer` from x.

    Returns
    -------
    bracket : Bracket
        A row that finds no other class after 100 questions or so has no success.

    Raises
    ------
    ValueError
        When bounds and a basis are given together.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.query_search import label_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0]]])
    >>> label = lambda points: (points.sum(1) > 1).long()
    >>> generator = torch.Generator().manual_seed(0)
    >>> found = label_search(label, x, torch.tensor([0]), starts, generator=generator)
    >>> found.outer.round(decimals=2)
    tensor([[0.5000, 0.5000]])
    """
    if bounds is not None and basis is not None:
        raise ValueError("bounds and a basis exclude each other: give one of them as None.")
    _n, _d = x.shape
    if basis is not None:
        starts = x[:, None] + (starts - x[:, None]) @ basis.T @ basis
    search = Search(_label_margin(label, source, target), x, bounds, budget)
    begin(search, starts, basis, generator)
    descend(search, starts, basis, generator, max(1, budget // 16), 0.5, tol, axes=basis is None)
    return search.result()


def score_search(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    starts: Tensor,
    *,
    generator: torch.Generator,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    budget: int = 2000,
    tol: float = 1e-3,
    step: float = 0.1,
) -> Bracket:
    """Find the nearest boundary point from scores, by finite differences.

    Newton's step from x on the differences of the scores shows the nearest class. From the
    boundary there each row walks as in `label_search`, along the gradient instead of a vote.

    Parameters
    ----------
    score : callable
        From points (m, d) to finite scores (m, n_classes), the largest of which wins.
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Columns that win at x.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first.
    generator : torch.Generator
        On the CPU.
    target : Tensor of shape (n,), default=None
        Columns that shall win. None or -1 takes any but the source.
    bounds : tuple of two Tensors that broadcast to x, default=None
        The box that points may not leave; it holds x and the starts.
    budget : int, default=2000
        Questions a row may ask.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to the distance of `outer` from x.
    step : float, default=0.1
        Length of the differences, relative to the distance from the boundary.

    Returns
    -------
    bracket : Bracket

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.query_search import score_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0]]])
    >>> score = lambda points: torch.stack([points[:, 0] * 0, points.sum(1) - 1], 1)
    >>> generator = torch.Generator().manual_seed(0)
    >>> found = score_search(score, x, torch.tensor([0]), starts, generator=generator)
    >>> found.outer.round(decimals=2)
    tensor([[0.5000, 0.5000]])
    """
    _n, d = x.shape
    search = Search(_score_margin(score, source, target), x, bounds, budget)
    if budget >= 2 * d:
        near = _newton(search, score, source, target, starts, step)
        starts = torch.cat([near, starts], 1)
    begin(search, starts, None, generator)
    descend(search, starts, None, generator, max(1, budget // 4), step, tol, axes=False)
    return search.result()


def _newton(
    search: Search,
    score: Callable[[Tensor], Tensor],
    source: Tensor,
    target: Tensor | None,
    starts: Tensor,
    step: float,
) -> Tensor:
    """Just beyond where the linearised scores of the nearest three classes, or the target's,
    meet that of the source: (n, 2 or 6, d)."""
    x, (n, d) = search.x, search.x.shape
    h = step * reach(search, starts[:, :1])[:, None].expand(n, d)
    if search.bounds is not None:
        h = torch.where(x + h > search.bounds[1], -h, h)
    at_x = score(x)
    slope = torch.cat(
        [
            score((x[i, None] + torch.diag_embed(h[i])).flatten(0, 1)).view(len(i), d, -1)
            for i in torch.arange(n, device=x.device).split(max(1, NUMBERS // d**2))
        ]
    )
    slope = (slope - at_x[:, None]) / h[:, :, None]
    search.left -= d + 1
    everyone = torch.arange(n, device=x.device)
    normal = (slope - slope[everyone, :, source][:, :, None]).transpose(1, 2)
    lead = at_x[everyone, source][:, None] - at_x
    distance = (lead / normal.norm(dim=2)).nan_to_num(torch.inf)
    distance[everyone, source] = torch.inf
    chosen = distance.argsort(dim=1, stable=True)[:, :3]
    if target is not None:
        named = target >= 0
        chosen = chosen[:, :1] if named.all() else chosen
        chosen[named] = target[named, None]
    normal = normal.gather(1, chosen[:, :, None].expand(-1, -1, d))
    ray = lead.gather(1, chosen)[:, :, None] * normal / normal.square().sum(2, keepdim=True)
    ray = ray.nan_to_num(0.0, 0.0, 0.0)
    if target is not None:
        ray[named, 1:] = 0  # one class, one ray: a start that is x itself asks nothing
    return search.clip(x[:, None] + torch.cat([1.02 * ray, 1.5 * ray], 1), everyone)


def _label_margin(
    label: Callable[[Tensor], Tensor], source: Tensor, target: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Plus one across the boundary and minus one before it."""

    def margin(points: Tensor, rows: Tensor) -> Tensor:
        return across(label(points), rows) * 2 - 1

    across = _across(source, target)
    return margin


def _score_margin(
    score: Callable[[Tensor], Tensor], source: Tensor, target: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Score of the target over the best of the others, or of the best other over the source.

    Zero, a tie, goes to the class with the lower number, as argmax has it.
    """

    across, free = _across(source, target), _free(source, target)
    code = source if target is None else torch.where(free, source, target)

    def margin(points: Tensor, rows: Tensor) -> Tensor:
        scores = score(points)
        value = class_margin(scores, code[rows])
        value = torch.where(free[rows], -value, value)
        tie = (value == 0) & across(scores.argmax(1), rows)
        return torch.where(tie, torch.finfo(value.dtype).tiny, value)

    return margin


def _free(source: Tensor, target: Tensor | None) -> Tensor:
    """Which rows (n,) may reach any class but their source."""
    return torch.ones_like(source, dtype=torch.bool) if target is None else target < 0


def _across(source: Tensor, target: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether labels (m,) that belong to rows (m,) are those to be reached."""
    free = _free(source, target)
    wanted = source if target is None else target
    return lambda said, rows: torch.where(free[rows], said != source[rows], said == wanted[rows])
