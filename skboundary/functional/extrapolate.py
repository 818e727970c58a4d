"""Biased extrapolation: which majors, which pairs, which probability, which point of a segment.

A pair joins a sample of a small class (the minor) with one of a larger class (the major). Margins
are ``logit[minor class] - logit[major class]``, so the pairwise probability of the minor class is
``p = sigmoid(margin)``; positions on a segment run from 0 at the minor to 1 at the major.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from skboundary.functional.bisect import find_root
from skboundary.functional.search import build_index, search

_WINDOW = 32  # neighbours that a minor looks at in one step of the greedy pairing
_DEPTH = 32  # neighbours that are searched for each minor at first
_SLACK = 0.1  # of a pair's probability gap, kept from either end
_MARGIN = 20.0  # margins beyond are as good as infinite: 2e-9 from certainty
_TOLERANCE = 1e-3  # of the margin, hence 2.5e-4 of the probability
_GRID = 100  # positions that DBR tries


# ------------------------------------------------------------------------------- selection


def select_majors(
    margins: Tensor, bias: str, fraction: float, *, generator: torch.Generator
) -> Tensor:
    """Select majors by their probability, among those on their own side of the boundary.

    Parameters
    ----------
    margins : Tensor of shape (n_majors,)
    bias : {"random", "bottom", "top"}
        Any of them, those that are least, or those that are most sure of their class.
    fraction : float in (0, 1]
        Share of the majors on their side; at least one is selected when there is one.
    generator : torch.Generator

    Returns
    -------
    selected : Tensor of shape (n_selected,)
        Ascending positions in `margins`; of equal margins the first are selected.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.extrapolate import select_majors
    >>> margins = torch.tensor([-3.0, -0.1, 2.0, -1.0])
    >>> select_majors(margins, "bottom", 0.5, generator=torch.Generator())
    tensor([1, 3])
    """
    own_side = (margins < 0).nonzero()[:, 0]
    n = min(len(own_side), max(1, round(fraction * len(own_side))))
    if bias == "random":
        order = torch.randperm(len(own_side), generator=generator).to(margins.device)
    else:
        order = margins[own_side].argsort(descending=bias == "bottom", stable=True)
    return own_side[order[:n]].sort().values


# --------------------------------------------------------------------------------- pairing


def pair_nearest(
    queries: Tensor,
    rows: Tensor,
    n_pairs: int,
    n_neighbors: int,
    *,
    generator: torch.Generator,
    exclude_self: bool = False,
) -> Tensor:
    """Pair queries with their nearest rows.

    No more queries are asked than the pairs need: a random choice of them. Where n_neighbors
    of each are too few, all of them are asked for more.

    Parameters
    ----------
    queries : Tensor of shape (q, d)
    rows : Tensor of shape (m, d)
    n_pairs : int
    n_neighbors : int
    generator : torch.Generator
    exclude_self : bool, default=False
        The queries are the rows, and none is paired with itself.

    Returns
    -------
    pairs : Tensor of shape (min(n_pairs, q * m), 2)
        Query and row, all different; every query's nearest row comes before any second.
    """
    k = min(len(rows) - exclude_self, max(n_neighbors, math.ceil(n_pairs / len(queries))))
    asked = torch.randperm(len(queries), generator=generator)[: math.ceil(n_pairs / k)]
    asked = asked.sort().values.to(queries.device)
    itself = asked if exclude_self else None
    found = search(build_index(rows), queries[asked], k, exclude=itself).indices
    found = found.to(queries.device)
    return torch.stack([asked.expand(k, -1), found.T], 2).reshape(-1, 2)[:n_pairs]


def pair_one_to_one(minors: Tensor, majors: Tensor, n_pairs: int) -> Tensor:
    """Pair greedily in rounds, each of which gives every minor its nearest unused major.

    Parameters
    ----------
    minors : Tensor of shape (n, d)
    majors : Tensor of shape (m, d)
    n_pairs : int

    Returns
    -------
    pairs : Tensor of shape (min(n_pairs, n * m), 2)
        Minor and major, all different, in the order of `one_to_one_rounds`.
    """
    n_pairs = min(n_pairs, len(minors) * len(majors))
    parts: list[Tensor] = []
    missing = n_pairs
    for pairs in one_to_one_rounds(minors, majors, math.ceil(n_pairs / len(minors))):
        parts.append(pairs[:missing])
        missing -= len(parts[-1])
        if not missing:
            break
    return torch.cat(parts)


def one_to_one_rounds(minors: Tensor, majors: Tensor, n_rounds: int) -> Iterator[Tensor]:
    """Go through the minors again and again; each takes its nearest major not used yet.

    In storage order, the lowest major among equally near ones. No major serves twice in a
    round, unless all have served: then all are free again. No pair comes twice: a minor
    without a new partner among the free majors sits a round out.

    Parameters
    ----------
    minors : Tensor of shape (n, d)
    majors : Tensor of shape (m, d)
    n_rounds : int
        Rounds that will be asked for, about: it only sets how far ahead neighbours are searched.

    Yields
    ------
    pairs : Tensor of shape (n_pairs, 2)
        Of one round: minor and major, in the order of the minors. The last round leaves no
        pair over.
    """
    n, m, device = len(minors), len(majors), minors.device
    k = min(m, max(_DEPTH, 4 * n_rounds))
    near = search(build_index(majors), minors, k).indices.to(device)
    partners: list[Tensor] = []  # of each round: (n,), m = none
    left = n * m
    while left:
        held = torch.full((m + 1,), n, device=device)  # the minor that holds a major, n = none
        held[m] = -1  # "no major" accepts nobody
        partner = torch.full((n,), m, device=device)
        start = 0
        while start < n:
            free = int((held == n).sum())
            if not free:
                held[:m] = n
                free = m
            stop = min(n, start + free)  # so many fit, whatever they choose
            _choose(minors, majors, near, partners, held, start, stop)
            taken = ((held >= start) & (held < n)).nonzero()[:, 0]
            partner[held[taken]] = taken
            held[taken] = -1
            start = stop
        near[near == partner[:, None]] = m  # a pair comes once
        partners.append(partner)
        pairs = torch.stack([torch.arange(n, device=device), partner], 1)[partner < m]
        left -= len(pairs)
        yield pairs


def _choose(
    minors: Tensor,
    majors: Tensor,
    near: Tensor,
    partners: list[Tensor],
    held: Tensor,
    start: int,
    stop: int,
) -> None:
    """Let minors start to stop choose in this order; `held` says in the end who has whom.

    All ask at once, each the nearest major that may still say yes. A major keeps the first
    minor in storage order, and who is turned down asks on: that ends where choosing one by
    one ends. A list that runs dry is replaced by a longer one of majors that are left.
    """
    n, m, k, device = len(minors), len(majors), near.shape[1], near.device
    asking = torch.arange(start, stop, device=device)
    lists = near[start:stop].reshape(-1)
    cursor = (asking - start) * k
    end = cursor + k
    complete = torch.full((stop - start,), k == m, device=device)
    window = torch.arange(_WINDOW, device=device)
    while True:
        while len(asking):
            place = cursor[asking - start, None] + window
            major = lists[place.clamp(max=len(lists) - 1)]
            major.masked_fill_(place >= end[asking - start, None], m)
            willing = held[major] > asking[:, None]
            some, first = willing.any(1), willing.int().argmax(1)
            cursor[asking - start] += torch.where(some, first, _WINDOW)
            bidder, choice = asking[some], major[some, first[some]]
            before = held[choice]
            held.scatter_reduce_(0, choice, bidder, "amin")
            won = held[choice] == bidder
            displaced = before[won & (before < n)]
            looking = asking[~some]
            looking = looking[cursor[looking - start] < end[looking - start]]
            asking = torch.cat([bidder[~won], displaced, looking])
        holds = torch.zeros(stop - start, dtype=torch.bool, device=device)
        holds[held[(held >= start) & (held < n)] - start] = True
        asking = start + (~(holds | complete)).nonzero()[:, 0]
        rest = (held > start).nonzero()[:, 0] if len(asking) else asking
        if not len(rest):
            return
        k = min(len(rest), 2 * k)
        found = rest[search(build_index(majors[rest]), minors[asking], k).indices.to(device)]
        for partner in partners:
            found[found == partner[asking, None]] = m
        cursor[asking - start] = len(lists) + torch.arange(len(asking), device=device) * k
        end[asking - start] = cursor[asking - start] + k
        lists = torch.cat([lists, found.reshape(-1)])
        complete[asking - start] = k == len(rest)


def fill(pairs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Go through the pairs again from the first until there are n.

    Parameters
    ----------
    pairs : Tensor of shape (n_pairs, 2)
    n : int

    Returns
    -------
    pairs : Tensor of shape (n, 2)
    repeated : Tensor of shape (n,)
        Whether the pair was there before.
    """
    number = torch.arange(n, device=pairs.device)
    return pairs[number % len(pairs)], number >= len(pairs)


# -------------------------------------------------------------------------- the probability


def centroid_ratio(
    crossings: Tensor, minor_mean: Tensor, major_mean: Tensor
) -> Tensor:
    """Compute how much farther a crossing is from the centre of the majors than of the minors.

    Parameters
    ----------
    crossings : Tensor of shape (n, d)
        Where segments meet the boundary.
    minor_mean, major_mean : Tensor of shape (d,)

    Returns
    -------
    ratio : Tensor of shape (n,)
        ``|z - major_mean| / |z - minor_mean|``.
    """
    to_major, to_minor = ((crossings - mean).norm(dim=1) for mean in (major_mean, minor_mean))
    return to_major / to_minor.clamp_min(torch.finfo(to_minor.dtype).tiny)


def segment_ratio(position: Tensor) -> Tensor:
    """Compute how much farther a crossing is from its major than from its minor.

    Parameters
    ----------
    position : Tensor of shape (n,)
        Of the crossings, 0 at the minor and 1 at the major.

    Returns
    -------
    ratio : Tensor of shape (n,)
        ``(1 - t) / t``.
    """
    return (1 - position) / position.clamp_min(torch.finfo(position.dtype).tiny)


def margin_ratio(minor_margins: Tensor, major_margins: Tensor, fraction: float) -> Tensor:
    """Compare the mean margin of the least sure majors with that of the least sure minors.

    Parameters
    ----------
    minor_margins, major_margins : Tensor of shape (n_minors,), (n_majors,)
        Those on the wrong side of the boundary are left out.
    fraction : float in (0, 1]
        Share of each class that is least sure.

    Returns
    -------
    ratio : Tensor of shape ()
    """

    def unsure(margins: Tensor) -> Tensor:
        own_side = margins[margins > 0]
        n = max(1, round(fraction * len(own_side)))
        return own_side.topk(n, largest=False).values.mean()

    return unsure(-major_margins) / unsure(minor_margins)


def asymmetric_target(ratio: Tensor, gamma: float, p_max: float, p_min: float) -> Tensor:
    """Compute the probability that equation 1 of the paper asks for.

    Parameters
    ----------
    ratio : Tensor
        ``d_normal / d_abnormal``.
    gamma : float
        Negative moves the new samples into the majors' region.
    p_max : float
    p_min : float
        The result is clipped to [p_min, 1 - p_min].

    Returns
    -------
    target : Tensor of the shape of ratio
        ``0.5 + gamma * p_max * (max(1, ratio) - 1)``, clipped.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.extrapolate import asymmetric_target
    >>> asymmetric_target(torch.tensor([0.5, 1.5, 9.0]), gamma=-0.4, p_max=1.0, p_min=0.05)
    tensor([0.5000, 0.3000, 0.0500])
    """
    return (0.5 + gamma * p_max * (ratio.clamp_min(1) - 1)).clamp(p_min, 1 - p_min)


def reachable(target: Tensor, minor_margin: Tensor, major_margin: Tensor) -> Tensor:
    """Clip targets to what lies between the parents, a tenth of their gap from either.

    Parameters
    ----------
    target : Tensor of shape (n,)
        Probabilities of the minor class.
    minor_margin, major_margin : Tensor of shape (n,)

    Returns
    -------
    target : Tensor of shape (n,)
    """
    low, high = major_margin.sigmoid(), minor_margin.sigmoid()
    slack = _SLACK * (high - low)
    return target.clamp(low + slack, high - slack)


# ---------------------------------------------------------------------------- the position


def place_linear(target: Tensor, minor_margin: Tensor, major_margin: Tensor) -> Tensor:
    """Find the position of a probability where the margin is linear: in closed form.

    Parameters
    ----------
    target : Tensor of shape (n,)
        Probabilities between those of the parents.
    minor_margin, major_margin : Tensor of shape (n,)

    Returns
    -------
    position : Tensor of shape (n,)
    """
    return (minor_margin - target.logit()) / (minor_margin - major_margin)


def place(
    margin: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    minor_margin: Tensor,
    major_margin: Tensor,
    *,
    max_iter: int = 60,
) -> tuple[Tensor, Tensor]:
    """Find the position of a probability by root finding.

    Parameters
    ----------
    margin : callable
        ``margin(position, rows)``: margins (m,) of the pairs numbered `rows` (m,) at the
        positions (m,).
    target : Tensor of shape (n,)
        Probabilities between those of the parents.
    minor_margin, major_margin : Tensor of shape (n,)
    max_iter : int, default=60
        Evaluations of a pair at most.

    Returns
    -------
    position : Tensor of shape (n,)
        Where the probability jumps over the target, the side that is nearer to it.
    found : Tensor of shape (n,)
        Whether the probability there is the target's to 2.5e-4.
    """
    wanted = target.logit()
    first, last = (m.clamp(-_MARGIN, _MARGIN) - wanted for m in (minor_margin, major_margin))
    root = find_root(
        lambda t, rows: margin(t, rows).clamp(-_MARGIN, _MARGIN) - wanted[rows],
        torch.zeros_like(wanted),
        torch.ones_like(wanted),
        first,
        last,
        tol=(_TOLERANCE * (first - last)).clamp(max=_TOLERANCE),
        max_iter=max_iter,
    )
    return root.t, root.converged


# ------------------------------------------------------------- decision-boundary re-sampling


def thin(distances: Tensor, n: int) -> Tensor:
    """Take every so-manieth pair in the order of their distances, n in all.

    Parameters
    ----------
    distances : Tensor of shape (n_pairs,)
    n : int

    Returns
    -------
    taken : Tensor of shape (min(n, n_pairs),)
        The pairs of the ranks ``round(q * n_pairs / n)``, nearest first.
    """
    n = min(n, len(distances))
    ranks = (torch.arange(n, dtype=torch.float64) * len(distances) / n).round().long()
    return distances.argsort(stable=True)[ranks.to(distances.device)]


def place_on_grid(margin: Callable[[Tensor, Tensor], Tensor], n: int) -> tuple[Tensor, Tensor]:
    """Try the positions .01, .02, ..., 1 of each segment; keep the one nearest to p = 0.5.

    Parameters
    ----------
    margin : callable
        As in `place`.
    n : int
        Number of pairs.

    Returns
    -------
    position : Tensor of shape (n,)
    accepted : Tensor of shape (n,)
        Whether the probability there is within 0.1 of 0.5.
    """
    rows = torch.arange(n)
    best = torch.full((n,), float("inf"), dtype=torch.float64)
    position = torch.zeros_like(best)
    for step in range(_GRID):  # DBR counts from the major: r = 0, .01, ..., .99
        t = torch.full_like(best, 1 - step / _GRID)
        off = (margin(t, rows).sigmoid() - 0.5).abs()
        nearer = off < best
        best[nearer], position[nearer] = off[nearer], t[nearer]
    return position, best < 0.1
