"""The nearest boundary point of a classifier without gradients, from its labels or scores.

Every search keeps a bracket per sample: a point across the boundary, and one before it. Random
directions are drawn once a step and shared by all samples, so that the result of a sample does not
depend on the other samples.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from skboundary.functional._boundary_walk import BoundaryWalk
from skboundary.functional._query_brackets import (
    MAX_NUMBERS,
    QueryState,
    bracket_segments,
    separate_ends,
)
from skboundary.functional._query_directions import Directions
from skboundary.functional._query_starts import find_first_brackets, length_scale
from skboundary.functional._results import BoundaryPair
from skboundary.functional._shapes import shapes
from skboundary.functional.margins import class_margin

__all__ = ["BoundaryPair", "label_search", "score_search", "segment_search"]


@shapes(x="n d", source="n", target="n", starts="n s d")
def segment_search(
    label: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    starts: Tensor,
    budget: int = 100,
    tol: float = 1e-3,
) -> BoundaryPair:
    """Find the nearest boundary crossing on the segments from each sample to its starts.

    The first start is bisected. Every other start costs one query: is its segment across the
    boundary just before the best distance so far? Only those that are get bisected.

    Parameters
    ----------
    label : callable
        From points (m, d) to integer classes (m,).
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Classes of x.
    target : Tensor of shape (n,), default=None
        Classes to be reached. None or -1 is any class but the source.
    bounds : (low, high), default=None
        Tensors that broadcast to x, in its units; the box that holds x and the starts.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first. One that equals x is left out.
    budget : int, default=100
        Queries per sample at most.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to its distance from x.

    Returns
    -------
    pairs : BoundaryPair
        Without success where no start is of another class.

    Raises
    ------
    ValueError
        For shapes that do not match.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.query_search import segment_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0], [0.0, 8.0]]])
    >>> label = lambda points: (points.sum(1) > 1).long()
    >>> found = segment_search(label, x, torch.tensor([0]), starts=starts)
    >>> found.points.round(decimals=2)
    tensor([[1., 0.]])
    """
    state = QueryState(_label_margin(label, source, target), x, bounds, budget)
    every = torch.arange(len(x), device=x.device)
    bracket_segments(state, starts, every, torch.full_like(state.left, state.reserved))
    separate_ends(state, tol)
    return state.result(_wanted(source, target))


@shapes(x="n d", source="n", target="n", starts="n s d", basis="k d")
def label_search(
    label: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    starts: Tensor,
    generator: torch.Generator,
    basis: Tensor | None = None,
    image_shape: tuple[int, ...] | None = None,
    budget: int = 2000,
    tol: float = 1e-3,
) -> BoundaryPair:
    """Find the nearest boundary point from predicted labels alone (a decision-based search).

    Segments to the starts give a first bracket. From there each sample walks along the boundary:
    labels around its point, in orthonormal directions across the ray from x, estimate the
    direction in which the boundary comes closer, as in HopSkipJump [1]_; on the circle over the
    diameter from x to the point, where every point is nearer to x than the last one, an angle is
    searched that is still across the boundary, as in SurFree [2]_ and CGBA [3]_; the ray there is
    bisected. For images the directions have low frequencies, as in GeoDA [4]_ and in both: as many
    frequencies as directions have been tried. Between the steps coordinates are reverted to those
    of x or halfway there, one by one, as long as the distance decreases, as it does if the
    boundary follows the axes (trees).

    Parameters
    ----------
    label : callable
        From points (m, d) to integer classes (m,).
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Classes of x.
    target : Tensor of shape (n,), default=None
        Classes to be reached. None or -1 is any class but the source.
    bounds : (low, high), default=None
        Tensors that broadcast to x, in its units; the box that holds x, the starts and the points.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first; one that equals x is left out. Samples for which
        none is of another class try random rays of growing length.
    generator : torch.Generator
        On the CPU.
    basis : Tensor of shape (k, d), default=None
        Orthonormal vectors: the search stays in x plus their span, starts are projected on it.
        Not with bounds.
    image_shape : tuple of int, default=None
        Shape (..., height, width) of the d numbers of an image: directions then have low
        frequencies. Not with a basis.
    budget : int, default=2000
        Queries per sample at most.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to its distance from x.

    Returns
    -------
    pairs : BoundaryPair
        A sample for which no other class is found within about 100 queries has no success.

    Raises
    ------
    ValueError
        When a basis is given together with bounds or an image shape, or shapes do not match.

    References
    ----------
    .. [1] J. Chen, M. Jordan, M. Wainwright, "HopSkipJumpAttack: a query-efficient decision-based
       attack", IEEE S&P 2020, `arXiv 1904.02144 <https://arxiv.org/abs/1904.02144>`_.
    .. [2] T. Maho, T. Furon, E. Le Merrer, "SurFree: a fast surrogate-free black-box attack", CVPR
       2021, `arXiv 2011.12807 <https://arxiv.org/abs/2011.12807>`_.
    .. [3] M. F. Reza, A. Rahmati, T. Wu, H. Dai, "CGBA: curvature-aware geometric black-box
       attack", ICCV 2023, `arXiv 2308.03163 <https://arxiv.org/abs/2308.03163>`_.
    .. [4] A. Rahmati, S.-M. Moosavi-Dezfooli, P. Frossard, H. Dai, "GeoDA: a geometric framework
       for black-box adversarial attacks", CVPR 2020, `arXiv 2003.06468
       <https://arxiv.org/abs/2003.06468>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.query_search import label_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0]]])
    >>> label = lambda points: (points.sum(1) > 1).long()
    >>> generator = torch.Generator().manual_seed(0)
    >>> found = label_search(label, x, torch.tensor([0]), starts=starts, generator=generator)
    >>> found.points.round(decimals=1)
    tensor([[0.5000, 0.5000]])
    """
    for name, other in (("bounds", bounds), ("image_shape", image_shape)):
        if other is not None and basis is not None:
            raise ValueError(f"{name} and basis cannot be combined: set one of them to None.")
    if basis is not None:
        starts = x[:, None] + (starts - x[:, None]) @ basis.T @ basis
    state = QueryState(_label_margin(label, source, target), x, bounds, budget)
    find_first_brackets(state, starts, basis, generator)
    n = _n_directions(budget)
    directions = Directions(x, n, generator, basis=basis, image_shape=image_shape)
    BoundaryWalk(state, starts, directions, spread=0.5, tol=tol, revert=basis is None).run()
    return state.result(_wanted(source, target))


@shapes(x="n d", source="n", target="n", starts="n s d")
def score_search(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    starts: Tensor,
    generator: torch.Generator,
    image_shape: tuple[int, ...] | None = None,
    budget: int = 2000,
    tol: float = 1e-3,
    step: float = 0.1,
) -> BoundaryPair:
    """Find the nearest boundary point from scores, by finite differences (a score-based search).

    Newton's step from x on the differences of the scores gives the nearest class. From the
    boundary there each sample walks as in `label_search`, along the gradient instead of an
    estimate from labels.

    Parameters
    ----------
    score : callable
        From points (m, d) to finite scores (m, n_classes), the largest of which is predicted.
    x : Tensor of shape (n, d)
    source : Tensor of shape (n,)
        Classes predicted at x.
    target : Tensor of shape (n,), default=None
        Classes to be reached. None or -1 is any class but the source.
    bounds : (low, high), default=None
        Tensors that broadcast to x, in its units; the box that holds x, the starts and the points.
    starts : Tensor of shape (n, s, d)
        Points of other classes, nearest first; one that equals x is left out.
    generator : torch.Generator
        On the CPU.
    image_shape : tuple of int, default=None
        Shape (..., height, width) of the d numbers of an image: directions then have low
        frequencies.
    budget : int, default=2000
        Queries per sample at most.
    tol : float, default=1e-3
        Width of the bracket at the end, relative to its distance from x.
    step : float, default=0.1
        Length of the differences, relative to the distance from the boundary.

    Returns
    -------
    pairs : BoundaryPair

    Raises
    ------
    ValueError
        For shapes that do not match.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.query_search import score_search
    >>> x, starts = torch.zeros(1, 2), torch.tensor([[[4.0, 0.0]]])
    >>> score = lambda points: torch.stack([points[:, 0] * 0, points.sum(1) - 1], 1)
    >>> generator = torch.Generator().manual_seed(0)
    >>> found = score_search(score, x, torch.tensor([0]), starts=starts, generator=generator)
    >>> found.points.round(decimals=2)
    tensor([[0.5000, 0.5000]])
    """
    state = QueryState(_score_margin(score, source, target), x, bounds, budget)
    if budget >= 2 * x.shape[1]:
        newton = _newton_starts(state, score, source, target, starts, step)
        starts = torch.cat([newton, starts], 1)
    find_first_brackets(state, starts, None, generator)
    n = x.shape[1] if 4 * x.shape[1] <= budget else _n_directions(budget)
    directions = Directions(x, n, generator, image_shape=image_shape)
    BoundaryWalk(state, starts, directions, spread=step, tol=tol, revert=False).run()
    return state.result(_wanted(source, target))


def _n_directions(budget: int) -> int:
    """Directions of a step: the more of them, the better its direction, and the fewer steps."""
    return round(min(2.5 * math.sqrt(budget), budget / 4))


def _newton_starts(
    state: QueryState,
    score: Callable[[Tensor], Tensor],
    source: Tensor,
    target: Tensor | None,
    starts: Tensor,
    step: float,
) -> Tensor:
    """Points (n, 2 or 6, d) just beyond where linearized scores meet that of the source.

    Those of the nearest three classes, or of the target.
    """
    x, (n, d) = state.x, state.x.shape
    h = step * length_scale(state, starts[:, :1])[:, None].expand(n, d)
    if state.bounds is not None:
        h = torch.where(x + h > state.bounds[1], -h, h)
    at_x = score(x)
    slope = torch.cat(
        [
            score((x[i, None] + torch.diag_embed(h[i])).flatten(0, 1)).view(len(i), d, -1)
            for i in torch.arange(n, device=x.device).split(max(1, MAX_NUMBERS // d**2))
        ]
    )
    slope = (slope - at_x[:, None]) / h[:, :, None]
    state.left -= d + 1
    every = torch.arange(n, device=x.device)
    normal = (slope - slope[every, :, source][:, :, None]).transpose(1, 2)
    lead = at_x[every, source][:, None] - at_x
    distance = (lead / normal.norm(dim=2)).nan_to_num(torch.inf)
    distance[every, source] = torch.inf
    chosen = distance.argsort(dim=1, stable=True)[:, :3]
    if target is not None:
        named = target >= 0
        chosen = chosen[:, :1] if named.all() else chosen
        chosen[named] = target[named, None]
    normal = normal.gather(1, chosen[:, :, None].expand(-1, -1, d))
    ray = lead.gather(1, chosen)[:, :, None] * normal / normal.square().sum(2, keepdim=True)
    ray = ray.nan_to_num(0.0, 0.0, 0.0)
    if target is not None:
        ray[named, 1:] = 0  # one class, one ray: a start that equals x costs no query
    return state.clip(x[:, None] + torch.cat([1.02 * ray, 1.5 * ray], 1), every)


def _label_margin(
    label: Callable[[Tensor], Tensor], source: Tensor, target: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Minus one across the boundary and plus one before it."""
    across = _across(source, target)
    return lambda points, samples: 1 - across(label(points), samples) * 2


def _score_margin(
    score: Callable[[Tensor], Tensor], source: Tensor, target: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Score of the source over the best of the others, or of the best other over the target.

    Ties, where it is zero, are resolved by the lowest class, as by argmax.
    """
    across, is_free = _across(source, target), _is_free(source, target)
    code = source if target is None else torch.where(is_free, source, target)

    def margin(points: Tensor, samples: Tensor) -> Tensor:
        scores = score(points)
        value = class_margin(scores, code[samples])
        value = torch.where(is_free[samples], value, -value)
        tie = (value == 0) & across(scores.argmax(1), samples)
        return torch.where(tie, -torch.finfo(value.dtype).tiny, value)

    return margin


def _is_free(source: Tensor, target: Tensor | None) -> Tensor:
    """Which samples (n,) may reach any class but their source."""
    return torch.ones_like(source, dtype=torch.bool) if target is None else target < 0


def _wanted(source: Tensor, target: Tensor | None) -> Tensor:
    """The classes (n,) to be reached, -1 for any but the source."""
    return torch.full_like(source, -1) if target is None else target


def _across(source: Tensor, target: Tensor | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether labels (m,) that belong to samples (m,) are those to be reached."""
    is_free, wanted = _is_free(source, target), _wanted(source, target)
    return lambda labels, i: torch.where(is_free[i], labels != source[i], labels == wanted[i])
