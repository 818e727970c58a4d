"""Pairs of rows of two sets, near each other and all different, without a matrix of all pairs."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from skboundary.functional.nearest_neighbors import build_index, search

_WINDOW = 32  # neighbors that a minor looks at in one step of the greedy pairing
_DEPTH = 32  # neighbors that are searched for each minor at first


def pair_nearest(
    queries: Tensor,
    rows: Tensor,
    n_pairs: int,
    n_neighbors: int,
    *,
    generator: torch.Generator,
    exclude_self: bool = False,
    replace: bool = False,
) -> Tensor:
    """Draw pairs of a query and one of its nearest rows, each such pair with the same chance.

    Neighbors are searched for the queries that were drawn, and for no others.

    Parameters
    ----------
    queries : Tensor of shape (q, d)
    rows : Tensor of shape (m, d)
    n_pairs : int
    n_neighbors : int
        Nearest rows of a query among which its partner is drawn. Without replacement it is
        raised to ``ceil(n_pairs / q)`` where it is less; there are at most m.
    generator : torch.Generator
    exclude_self : bool, default=False
        The queries are the rows, and none is paired with itself.
    replace : bool, default=False
        Whether a pair may be drawn again, as in SMOTE. If not, all pairs are different.

    Returns
    -------
    pairs : Tensor of shape (n_pairs, 2), or (min(n_pairs, q * m), 2) without replacement
        Query and row, in the order in which they were drawn.
    """
    k = n_neighbors if replace else max(n_neighbors, math.ceil(n_pairs / len(queries)))
    k = min(len(rows) - exclude_self, k)
    n_all = len(queries) * k
    if replace:
        drawn = torch.randint(n_all, (n_pairs,), generator=generator)
    else:
        drawn = torch.randperm(n_all, generator=generator)[:n_pairs]
    asked, place = (drawn // k).unique(return_inverse=True)
    asked, place, rank = (part.to(queries.device) for part in (asked, place, drawn % k))
    itself = asked if exclude_self else None
    found = search(build_index(rows), queries[asked], k, exclude=itself).indices
    found = found.to(queries.device)
    return torch.stack([asked[place], found[place, rank]], 1)


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
        Rounds that will be asked for, about: it only sets how far ahead neighbors are searched.

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
