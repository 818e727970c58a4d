"""The samples with the best float32 scores: strip by strip, minima of groups, a threshold."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import CancelledError
from threading import Event

import torch
from torch import Tensor

from skboundary.functional._exact_distances import append
from skboundary.functional._search_index import GROUP, GROUPS, INF, STRIP, ProductTable

_COARSE = 3  # coarse groups for each sample on the shortlist, so that most of them are passed
SCORES = 2**22, 2**27  # in memory at a time, about: of a thread of the CPU (16 MB), elsewhere
_STRIPWISE = 64  # fewer queries are not worth a product for each strip


def n_strips_of_block(n: int, q: int, n_scores: int) -> int:
    """Strips of a block of scores: a number with divisors to choose coarse groups from."""
    n_blocks = max(1, round(n * STRIP * q / n_scores))
    return 4 * math.ceil(n / (4 * n_blocks))


def shortlist(
    table: ProductTable,
    queries: Tensor,
    m: int,
    exclude: Tensor | None,
    buffer: Tensor,
    stop: Event,
) -> tuple[Tensor, Tensor, Tensor]:
    """Best scores of centered queries, and a bound that no score left out is below.

    Returns
    -------
    scores : Tensor of shape (q, m + 1)
        Smallest first; infinity where there are not as many.
    indices : Tensor of shape (q, m + 1)
    bound : Tensor of shape (q,)
    """
    q = len(queries)
    best = queries.new_full((q, m + 1), INF)
    indices = torch.zeros_like(best, dtype=torch.int64)
    bound = queries.new_full((q,), INF)
    for start in range(0, len(table.strips), len(buffer)):
        block = slice(start, start + len(buffer))
        strips, halves = table.strips[block], table.halves[block]
        scores = buffer[: len(strips), :q]
        minima = _score(strips, halves, queries, scores, stop)
        if exclude is not None:
            leave_out(exclude - start * STRIP, scores, minima)
        coarse = minima.view(q, -1, _coarse_groups(minima.shape[1], m)).amin(1)
        crowded = ((coarse < bound[:, None]).sum(1) > m).nonzero().squeeze(1)
        if len(crowded):
            # m + 1 groups hold m + 1 scores, so the last of their minima bounds the rest
            bound[crowded] = coarse[crowded].topk(m + 1, largest=False).values[:, -1]
        query, group = (coarse < bound[:, None]).nonzero().unbind(1)
        if len(query) == 0:
            continue
        query, place = groups_below(minima, coarse.shape[1], query, group, bound)
        query, sample, found = samples_below(buffer, minima.shape[1], query, place, bound)
        wide, wide_indices = append(best, indices, query, found, sample + start * STRIP)
        best, order = wide.topk(m + 1, largest=False)
        indices = wide_indices.gather(1, order)
        bound = torch.minimum(bound, best[:, -1])
    return best, indices, bound


def below(
    table: ProductTable, queries: Tensor, limit: Tensor, buffer: Tensor, stop: Event
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Find all scores below a limit (q,) of centered queries, block by block.

    Yields
    ------
    scores : Tensor of shape (n_strips, q, 512)
        Those of the block.
    query, sample : Tensor of shape (m,)
    """
    for start in range(0, len(table.strips), len(buffer)):
        block = slice(start, start + len(buffer))
        scores = buffer[: len(table.strips[block]), : len(queries)]
        minima = _score(table.strips[block], table.halves[block], queries, scores, stop)
        query, group = (minima < limit[:, None]).nonzero().unbind(1)
        query, sample, _ = samples_below(buffer, minima.shape[1], query, group, limit)
        yield scores, query, sample + start * STRIP


def groups_below(
    minima: Tensor, n_coarse: int, query: Tensor, coarse: Tensor, bound: Tensor
) -> tuple[Tensor, Tensor]:
    """Query and place of the minima below its query's bound, within the given coarse groups."""
    n = minima.shape[1]
    query, place, _ = _below(minima, query * n + coarse, n_coarse, n // n_coarse, query, bound)
    return query, place


def samples_below(
    buffer: Tensor, n_groups: int, query: Tensor, place: Tensor, bound: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, sample of the block and score of scores below the bound, given places of minima."""
    strip, group = place % n_groups // GROUPS, place % GROUPS
    place = strip * buffer.stride(0) + query * STRIP + group
    query, place, found = _below(buffer, place, GROUPS, GROUP, query, bound)
    return query, place // buffer.stride(0) * STRIP + place % STRIP, found


def _score(table: Tensor, halves: Tensor, queries: Tensor, scores: Tensor, stop: Event) -> Tensor:
    """Write the scores (n_strips, q, 512) of a block, and give the minima (q, groups).

    Group j of a strip holds every score that leaves the remainder j: such minima vectorize.
    """
    minima = scores.new_empty(len(queries), len(table), GROUPS)
    if scores.device.type == "cpu" and len(queries) > _STRIPWISE:
        # one strip at a time, whose scores are still in the cache for the minima
        for strip, half, out, low in zip(
            table, halves, scores, minima.transpose(0, 1), strict=True
        ):
            go_on(stop)
            torch.addmm(half, queries, strip, alpha=-1, out=out)
            torch.amin(out.view(-1, GROUP, GROUPS), 1, out=low)
    else:
        go_on(stop)
        _score_at_once(table, halves, queries, scores, minima.transpose(0, 1))
    return minima.flatten(1)


def go_on(stop: Event) -> None:
    """Raise when another share of the queries has failed."""
    if stop.is_set():
        raise CancelledError


def _score_at_once(
    table: Tensor, halves: Tensor, queries: Tensor, scores: Tensor, minima: Tensor
) -> None:
    """Do the same for all strips of a block at once, better for accelerators and few queries."""
    queries = queries.expand(len(table), -1, -1)
    torch.baddbmm(halves[:, None], queries, table, alpha=-1, out=scores)
    torch.amin(scores.unflatten(2, (GROUP, GROUPS)), 2, out=minima)


def _below(
    values: Tensor, first: Tensor, step: int, count: int, query: Tensor, bound: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, place and value of what is below its query's bound among the members of groups.

    Members are at places `first` of the flat values and at every `step` from there, `count`.
    """
    places = first[:, None] + step * torch.arange(count, device=first.device)
    members = values.view(-1).index_select(0, places.view(-1)).view_as(places)
    group, member = (members < bound[query, None]).nonzero().unbind(1)
    return query[group], places[group, member], members[group, member]


def leave_out(column: Tensor, scores: Tensor, minima: Tensor, largest: float = INF) -> None:
    """Raise one score of each query to the largest, where `column` (q,) lies in the block."""
    query = ((column >= 0) & (column < len(scores) * STRIP)).nonzero().squeeze(1)
    strip, column = column[query] // STRIP, column[query] % STRIP
    scores[strip, query, column] = largest
    group = column % GROUPS
    members = scores.unflatten(2, (GROUP, GROUPS))[strip, query, :, group]
    minima[query, strip * GROUPS + group] = members.amin(1)


def _coarse_groups(n_groups: int, m: int) -> int:
    """Smallest multiple of 64 that divides n_groups and is large compared with m, else n_groups."""
    sizes = [size for size in range(64, n_groups + 1, 64) if n_groups % size == 0]
    return next((size for size in sizes if size >= _COARSE * m), n_groups)
