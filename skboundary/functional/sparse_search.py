"""Changes of the fewest coordinates that alter a predicted class, from labels or scores."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skboundary.functional._coordinate_values import CoordinateValues
from skboundary.functional._results import BoundaryPoint
from skboundary.functional._shapes import shapes
from skboundary.functional.margins import class_margin

__all__ = ["sparse_search"]

_MAX_NUMBERS = 2**24  # approximate size of the points of one call

Box = tuple[Tensor, Tensor]


@shapes(x="n d", source="n", target="n", values="m d", starts="n s d", categorical="d")
def sparse_search(
    label: Callable[[Tensor], Tensor],
    x: Tensor,
    source: Tensor,
    *,
    target: Tensor | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
    values: Tensor,
    starts: Tensor,
    score: Callable[[Tensor], Tensor] | None = None,
    categorical: Tensor | None = None,
    max_changes: int | None = None,
    n_values: int = 8,
    n_paths: int = 1,
) -> BoundaryPoint:
    """Find points of another class that differ from each sample in as few coordinates as possible.

    The search grows: of all points that differ in one more coordinate, those with the best score
    are continued until one has another class (NICE [1]_ does so along one sample of that class).
    Where the score stops rising before, the search begins at starts of another class instead. Then
    coordinates are set back to those of x one by one, as long as the class stays, and every changed
    coordinate that is not categorical moves back toward x, by bisection among the values. Each step
    is one call for all samples.

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
        Tensors that broadcast to x, in its units. Coordinates for which they are equal stay.
    values : Tensor of shape (m, d)
        Samples; a changed coordinate takes a value that one of them, or a start, has there.
    starts : Tensor of shape (n, s, d)
        Points within the bounds to set back; those that are not of another class are left out.
    score : callable, default=None
        From points (m, d) to scores (m, n_classes), which guide the growth. Labels decide.
    categorical : Tensor of shape (d,), dtype bool, default=None
        Coordinates whose values have no order.
    max_changes : int, default=None
        The most changed coordinates of a point.
    n_values : int, default=8
        Values of a coordinate that the growth tries, evenly spaced among the distinct ones. Of a
        categorical coordinate it tries the 64 most frequent.
    n_paths : int, default=1
        Points that each step of the growth continues.

    Returns
    -------
    found : BoundaryPoint

    Raises
    ------
    ValueError
        For shapes that do not match.

    References
    ----------
    .. [1] D. Brughmans, P. Leyman, D. Martens, "NICE: an algorithm for nearest instance
       counterfactual explanations", Data Mining and Knowledge Discovery 2023, `arXiv 2104.07411
       <https://arxiv.org/abs/2104.07411>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.sparse_search import sparse_search
    >>> x, values = torch.zeros(1, 3), torch.arange(12.0).view(4, 3)
    >>> label = lambda points: (points.sum(1) > 4).long()
    >>> found = sparse_search(label, x, torch.tensor([0]), values=values, starts=values[None])
    >>> found.points
    tensor([[0., 0., 5.]])
    """
    n, d = x.shape
    target = torch.full_like(source, -1) if target is None else target
    if categorical is None:
        categorical = torch.zeros(d, dtype=torch.bool, device=x.device)
    columns = CoordinateValues(values, categorical, n_values)
    most = d if max_changes is None else min(d, max_changes)
    points, n_changes, n_forward = x.clone(), torch.zeros_like(source), torch.zeros_like(source)
    width = max(n_paths * columns.options.shape[1], starts.shape[1])
    for part in torch.arange(n, device=x.device).split(max(1, _MAX_NUMBERS // (d * d * width))):
        box = (
            None if bounds is None else (bounds[0].expand_as(x)[part], bounds[1].expand_as(x)[part])
        )
        search = _Search(label, score, x[part], source[part], target[part], columns)
        grown = search.grow(box, most, n_paths)
        others = search.across_or_x(starts[part], search.n_changes(grown) == 0)
        ends = search.set_back(torch.cat([grown[:, None], others], 1))
        points[part] = search.approach(search.fewest(ends))
        n_changes[part], n_forward[part] = search.n_changes(points[part]), search.n_forward
    success = (n_changes > 0) & (n_changes <= most)
    points[~success] = x[~success]
    return BoundaryPoint(points, target, success, n_forward, torch.zeros_like(n_forward))


class _Search:
    """The search of n samples. Points (n, ..., d) that equal x stand for none found."""

    def __init__(
        self,
        label: Callable[[Tensor], Tensor],
        score: Callable[[Tensor], Tensor] | None,
        x: Tensor,
        source: Tensor,
        target: Tensor,
        columns: CoordinateValues,
    ) -> None:
        self.label, self.score, self.columns = label, score, columns
        self.x, self.source, self.target = x, source, target
        self.n_forward = torch.zeros_like(source)

    def n_changes(self, points: Tensor) -> Tensor:
        """Numbers (n,) of coordinates in which points (n, d) differ from x."""
        return (points != self.x).sum(1)

    def grow(self, box: Box | None, most: int, n_paths: int) -> Tensor:
        """Points (n, d) across with up to `most` changes, one more in each step."""
        found, is_found = self.x.clone(), torch.zeros_like(self.source, dtype=torch.bool)
        best = torch.full_like(self.x[:, 0], torch.inf)
        owner, paths = torch.arange(len(self.x), device=self.x.device), self.x
        for _ in range(most):
            base, column, option = self._options(paths, owner, box)
            points, samples = (
                _replaced(paths, base, column, self.columns.options[column, option]),
                owner[base],
            )
            margin, across = self._ask(points, samples, samples)
            length = self.columns.distance(points, self.x[samples])
            hit = across.nonzero()[:, 0]
            hit = hit[_best_of(samples[hit], length[hit])]
            found[samples[hit]], is_found[samples[hit]] = points[hit], True
            on = ((margin < best[samples]) & ~is_found[samples]).nonzero()[:, 0]
            on = on[_best_of(samples[on], margin[on], length[on], n=n_paths)]
            if not len(on):
                break
            owner, paths = samples[on], points[on]
            first = _best_of(owner, margin[on])
            best[owner[first]] = margin[on][first]
        return found

    def across_or_x(self, points: Tensor, wanted: Tensor) -> Tensor:
        """Points (n, s, d) of wanted samples where they are across, and x elsewhere."""
        different = (points != self.x[:, None]).any(2) & wanted[:, None]
        samples, place = different.nonzero(as_tuple=True)
        across = self._is_across(points[samples, place], samples)
        kept = torch.zeros_like(different)
        kept[samples[across], place[across]] = True
        return torch.where(kept[:, :, None], points, self.x[:, None])

    def set_back(self, points: Tensor) -> Tensor:
        """Set coordinates of points (n, s, d) back to x one by one while they stay across."""
        n, s, d = points.shape
        points, x = points.reshape(-1, d).clone(), self.x.repeat_interleave(s, 0)
        rows = torch.arange(len(points), device=x.device)
        while True:
            changed = points[rows] != x[rows]
            base, column = (changed & (changed.sum(1) > 1)[:, None]).nonzero(as_tuple=True)
            base = rows[base]
            trials = _replaced(points, base, column, x[base, column])
            margin, across = self._ask(trials, base // s, base)
            kept = across.nonzero()[:, 0]
            length = self.columns.distance(trials[kept], x[base[kept]])
            kept = kept[_best_of(base[kept], margin[kept], length)]
            if not len(kept):
                return points.view(n, s, d)
            rows = base[kept]
            points[rows] = trials[kept]

    def fewest(self, points: Tensor) -> Tensor:
        """Of points (n, s, d) those (n, d) with the fewest changes, and of these the nearest."""
        n_changes = (points != self.x[:, None]).sum(2)
        length = self.columns.distance(points, self.x[:, None])
        samples = torch.arange(len(points), device=points.device).repeat_interleave(points.shape[1])
        n_changes = torch.where(n_changes == 0, points.shape[2] + 1, n_changes).flatten()
        return points.flatten(0, 1)[_best_of(samples, n_changes, length.flatten())]

    def approach(self, points: Tensor) -> Tensor:
        """Move ordered coordinates of points (n, d) back toward x, the largest change first.

        Bisection ends at values next to each other, of which the outer one is across.
        """
        points = points.clone()
        size = self.columns.scaled_changes(points, self.x)
        size = torch.where(self.columns.categorical, 0.0, size)
        order = size.argsort(dim=1, descending=True, stable=True)
        for column in order.T:
            rows = (size.gather(1, column[:, None])[:, 0] > 0).nonzero()[:, 0]
            if not len(rows):
                break
            column = column[rows]
            near, far = self._ranks(rows, column, points[rows, column])
            while len(i := ((far - near).abs() > 1).nonzero()[:, 0]):
                middle = (near[i] + far[i]).div(2, rounding_mode="floor")
                value = self.columns.sorted[column[i], middle]
                trials = _replaced(points, rows[i], column[i], value)
                across = self._is_across(trials, rows[i])
                points[rows[i[across]]] = trials[across]
                far[i[across]], near[i[~across]] = middle[across], middle[~across]
        return points

    def _ranks(self, rows: Tensor, column: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Ranks of the last value before that of x, as seen from `value` (m,), and of `value`."""
        near, far, start = torch.empty_like(column), torch.empty_like(column), self.x[rows, column]
        for j in column.unique().tolist():
            i, distinct = column == j, self.columns.distinct[j]
            far[i] = torch.searchsorted(distinct, value[i])
            below = torch.searchsorted(distinct, start[i], right=True) - 1
            near[i] = torch.where(
                value[i] > start[i], below, torch.searchsorted(distinct, start[i])
            )
        return near, far

    def _options(self, paths: Tensor, owner: Tensor, box: Box | None) -> tuple[Tensor, ...]:
        """Path, coordinate and option of all points that differ from paths (p, d) by one more."""
        options = self.columns.options
        unchanged = paths == self.x[owner]
        allowed = self.columns.is_option & (options != paths[:, :, None]) & unchanged[:, :, None]
        if box is not None:
            low, high = (bound[owner][:, :, None] for bound in box)
            allowed &= (options >= low) & (options <= high)
        return allowed.nonzero(as_tuple=True)

    def _ask(self, points: Tensor, samples: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
        """Margins (m,) of points (m, d), negative across, and which of them are across.

        With scores, only points whose margin is not positive are asked for their label, and the
        best of each group.
        """
        if self.score is None or not len(points):
            across = self._is_across(points, samples)
            return 1 - 2 * across.to(self.x), across
        self.n_forward += samples.bincount(minlength=len(self.x))
        scores, wanted = self.score(points), self.target[samples]
        own, other = (
            class_margin(scores, self.source[samples]),
            class_margin(scores, wanted.clamp(min=0)),
        )
        margin = torch.where(wanted < 0, own, -other).to(self.x)
        asked = margin <= 0
        asked[_best_of(group, margin)] = True
        across = torch.zeros_like(asked)
        across[asked] = self._is_across(points[asked], samples[asked])
        return margin, across

    def _is_across(self, points: Tensor, samples: Tensor) -> Tensor:
        """Which points (m, d) of samples (m,) have a class that is to be reached."""
        if not len(points):
            return torch.zeros_like(samples, dtype=torch.bool)
        self.n_forward += samples.bincount(minlength=len(self.x))
        labels, wanted = self.label(points), self.target[samples]
        return torch.where(wanted < 0, labels != self.source[samples], labels == wanted)


def _replaced(points: Tensor, rows: Tensor, column: Tensor, value: Tensor) -> Tensor:
    """Copies of some rows of points (p, d), each with one other coordinate."""
    copies = points[rows]
    copies[torch.arange(len(rows), device=rows.device), column] = value
    return copies


def _best_of(group: Tensor, *keys: Tensor, n: int = 1) -> Tensor:
    """Positions of the n first members of each group (m,), by the smallest keys (m,).

    Members whose keys equal those of another one are the same point by another way.
    """
    order = torch.arange(len(group), device=group.device)
    for key in (*reversed(keys), group):
        order = order[key[order].argsort(stable=True)]
    sorted_group = group[order]
    if n > 1 and len(order):
        new = torch.stack([key[order].diff() != 0 for key in (group, *keys)]).any(0)
        order = order[torch.cat([new.new_ones(1), new])]
        sorted_group = group[order]
    rank = torch.arange(len(order), device=group.device)
    return order[rank - torch.searchsorted(sorted_group, sorted_group) < n]
