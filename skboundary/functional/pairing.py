"""Pairs of nearby samples of two sets, all different, without the matrix of all distances."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from skboundary.functional.nearest_neighbors import build_index, search

__all__ = ["Find", "fill", "find_nearest", "one_to_one_rounds", "pair_nearest", "pair_one_to_one"]

_WINDOW = 32  # neighbors considered by a minority sample in one step of the greedy pairing
_FEW = 4096  # samples whose scores of a large batch of queries still fit into the cache
_DEPTH = 32  # neighbors searched for each minority sample at first


class Find(Protocol):
    """A nearest neighbor search, as `find_nearest`; it may be approximate."""

    def __call__(
        self, samples: Tensor, queries: Tensor, k: int, exclude: Tensor | None = None
    ) -> Tensor: ...


def find_nearest(samples: Tensor, queries: Tensor, k: int, exclude: Tensor | None = None) -> Tensor:
    """Find the k nearest samples of each query by L2 distance, exactly.

    Parameters
    ----------
    samples : Tensor of shape (n, d)
    queries : Tensor of shape (q, d)
    k : int
    exclude : Tensor of shape (q,), dtype int64, default=None
        The index of one sample per query not to return, such as the query itself.

    Returns
    -------
    indices : Tensor of shape (q, k), dtype int64
        Nearest first; of equally near samples the lowest index comes first.
    """
    batch_size = 4096 if len(samples) <= _FEW else 512
    index = build_index(samples)
    return search(index, queries, k, exclude=exclude, batch_size=batch_size).indices


def pair_nearest(
    queries: Tensor,
    samples: Tensor,
    n_pairs: int,
    n_neighbors: int,
    *,
    generator: torch.Generator,
    exclude_self: bool = False,
    replace: bool = False,
    find: Find = find_nearest,
) -> Tensor:
    """Draw pairs of a query and one of its nearest samples, uniformly over all such pairs.

    Neighbors are searched only for the queries that are drawn.

    Parameters
    ----------
    queries : Tensor of shape (q, d)
    samples : Tensor of shape (n, d)
    n_pairs : int
    n_neighbors : int
        Number of nearest samples of a query among which its partner is drawn. Without
        replacement it is raised to ``ceil(n_pairs / q)`` if it is less. At most n are used.
    generator : torch.Generator
    exclude_self : bool, default=False
        Whether the queries are the samples themselves, and none is paired with itself.
    replace : bool, default=False
        Whether to draw with replacement, as SMOTE does. Otherwise all pairs are different.
    find : callable, default=find_nearest
        The nearest neighbor search.

    Returns
    -------
    pairs : Tensor of shape (n_pairs, 2), or (min(n_pairs, q * n), 2) without replacement
        Indices of query and sample, in the order in which the pairs were drawn.
    """
    k = n_neighbors if replace else max(n_neighbors, math.ceil(n_pairs / len(queries)))
    k = min(len(samples) - exclude_self, k)
    n_all = len(queries) * k
    if replace:
        drawn = torch.randint(n_all, (n_pairs,), generator=generator)
    else:
        drawn = torch.randperm(n_all, generator=generator)[:n_pairs]
    query = drawn // k
    is_drawn = torch.zeros(len(queries), dtype=torch.bool)
    is_drawn[query] = True
    searched, place = is_drawn.nonzero()[:, 0], (is_drawn.cumsum(0) - 1)[query]
    searched, place, rank = (part.to(queries.device) for part in (searched, place, drawn % k))
    found = find(samples, queries[searched], k, searched if exclude_self else None)
    return torch.stack([searched[place], found.to(queries.device)[place, rank]], 1)


def pair_one_to_one(
    minority: Tensor, majority: Tensor, n_pairs: int, *, find: Find = find_nearest
) -> Tensor:
    """Pair greedily in rounds: each minority sample takes its nearest unused majority sample.

    Parameters
    ----------
    minority : Tensor of shape (n, d)
        Samples of the minority class.
    majority : Tensor of shape (m, d)
        Samples of the majority class.
    n_pairs : int
    find : callable, default=find_nearest
        The nearest neighbor search.

    Returns
    -------
    pairs : Tensor of shape (min(n_pairs, n * m), 2)
        Indices of the minority and the majority sample. All pairs are different; their order
        is that of `one_to_one_rounds`.
    """
    n_pairs = min(n_pairs, len(minority) * len(majority))
    parts: list[Tensor] = []
    missing = n_pairs
    n_rounds = math.ceil(n_pairs / len(minority))
    for pairs in one_to_one_rounds(minority, majority, n_rounds, find=find):
        parts.append(pairs[:missing])
        missing -= len(parts[-1])
        if not missing:
            break
    return torch.cat(parts)


def one_to_one_rounds(
    minority: Tensor, majority: Tensor, n_rounds: int, *, find: Find = find_nearest
) -> Iterator[Tensor]:
    """Yield rounds of greedy one-to-one pairs.

    In each round the minority samples take, in storage order, their nearest majority sample
    not used in this round (the one with the lowest index among equally near samples). When all
    majority samples are used, all become available again. No pair is repeated: a minority
    sample without a new partner among the available ones is skipped in this round.

    Parameters
    ----------
    minority : Tensor of shape (n, d)
        Samples of the minority class.
    majority : Tensor of shape (m, d)
        Samples of the majority class.
    n_rounds : int
        Approximate number of rounds that will be consumed. It determines only how many
        neighbors are searched in advance.
    find : callable, default=find_nearest
        The nearest neighbor search.

    Yields
    ------
    pairs : Tensor of shape (n_pairs, 2)
        The pairs of one round: indices of the minority and the majority sample, in the order
        of the minority samples. The rounds end when all n * m pairs were yielded.
    """
    n, m, device = len(minority), len(majority), minority.device
    k = min(m, max(_DEPTH, 4 * n_rounds))
    near = find(majority, minority, k).to(device)
    partners: list[Tensor] = []  # of each round: (n,), m = none
    left = n * m
    while left:
        owner = torch.full((m + 1,), n, device=device)  # of a majority sample, n = none
        owner[m] = -1  # a proposal to "no sample" is always rejected
        partner = torch.full((n,), m, device=device)
        start = 0
        while start < n:
            free = int((owner == n).sum())
            if not free:
                owner[:m] = n
                free = m
            stop = min(n, start + free)  # at least this many find a partner
            _match(minority, majority, near, partners, owner, start, stop, find)
            taken = ((owner >= start) & (owner < n)).nonzero()[:, 0]
            partner[owner[taken]] = taken
            owner[taken] = -1
            start = stop
        near[near == partner[:, None]] = m  # so that no pair is repeated
        partners.append(partner)
        pairs = torch.stack([torch.arange(n, device=device), partner], 1)[partner < m]
        left -= len(pairs)
        yield pairs


def _match(
    minority: Tensor,
    majority: Tensor,
    near: Tensor,
    partners: list[Tensor],
    owner: Tensor,
    start: int,
    stop: int,
    find: Find,
) -> None:
    """Match the minority samples from start to stop by deferred acceptance, in place in `owner`.

    All propose at once, each to the nearest majority sample that has not rejected it. A
    majority sample keeps the proposal that is first in storage order and rejects the others,
    which propose again. The result is that of the greedy choice one by one. A list of
    neighbors that is used up is replaced by a longer one of the remaining majority samples.
    """
    n, m, k, device = len(minority), len(majority), near.shape[1], near.device
    proposing = torch.arange(start, stop, device=device)
    lists = near[start:stop].reshape(-1)
    cursor = (proposing - start) * k
    end = cursor + k
    complete = torch.full((stop - start,), k == m, device=device)
    window = torch.arange(_WINDOW, device=device)
    while True:
        while len(proposing):
            place = cursor[proposing - start, None] + window
            candidate = lists[place.clamp(max=len(lists) - 1)]
            candidate.masked_fill_(place >= end[proposing - start, None], m)
            accepts = owner[candidate] > proposing[:, None]
            some, first = accepts.any(1), accepts.int().argmax(1)
            cursor[proposing - start] += torch.where(some, first, _WINDOW)
            proposer, choice = proposing[some], candidate[some, first[some]]
            before = owner[choice]
            owner.scatter_reduce_(0, choice, proposer, "amin")
            accepted = owner[choice] == proposer
            displaced = before[accepted & (before < n)]
            rejected = proposing[~some]
            rejected = rejected[cursor[rejected - start] < end[rejected - start]]
            proposing = torch.cat([proposer[~accepted], displaced, rejected])
        matched = torch.zeros(stop - start, dtype=torch.bool, device=device)
        matched[owner[(owner >= start) & (owner < n)] - start] = True
        proposing = start + (~(matched | complete)).nonzero()[:, 0]
        rest = (owner > start).nonzero()[:, 0] if len(proposing) else proposing
        if not len(rest):
            return
        k = min(len(rest), 2 * k)
        found = rest[find(majority[rest], minority[proposing], k).to(device)]
        for partner in partners:
            found[found == partner[proposing, None]] = m
        cursor[proposing - start] = len(lists) + torch.arange(len(proposing), device=device) * k
        end[proposing - start] = cursor[proposing - start] + k
        lists = torch.cat([lists, found.reshape(-1)])
        complete[proposing - start] = k == len(rest)


def fill(pairs: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Repeat the pairs from the first until there are n.

    Parameters
    ----------
    pairs : Tensor of shape (n_pairs, 2)
    n : int

    Returns
    -------
    pairs : Tensor of shape (n, 2)
    repeated : Tensor of shape (n,), dtype bool
        Whether a pair is a repetition.
    """
    number = torch.arange(n, device=pairs.device)
    return pairs[number % len(pairs)], number >= len(pairs)
