"""The choice of a method of exact search for each k, by timing the methods on a few queries.

All methods return the same neighbors, so the choice does not show in a result. It costs about as
much as a search of some hundred queries, and is made once more than that have been searched.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any

import torch
from torch import Tensor

from skboundary.functional._lower_bounds import (
    build_bound_table,
    centered_vectors,
    leading_axes,
    n_columns,
)
from skboundary.functional._search_index import (
    INF,
    BoundTable,
    Method,
    SearchIndex,
)
from skboundary.functional._threads import thread_count

_AXES = 32, 64, 128, 256
_LEAST = 4096, 48  # samples and columns worth a choice
_NEIGHBORS = 32  # samples for each neighbor, at least
_PROBED = 8192  # samples on which the costs of methods are estimated, at most
_NUMBERS = 2**22  # of these samples, about (16 MB)
_TRIED = 64, 1024  # queries that are timed, twice: at least, at most
_CALLED = 8  # of the queries of a call, one in so many is timed
_ATTEMPTS = 2  # methods that are timed, the most promising first, until one is fast enough
_ENOUGH = 1024  # queries before the choice
_FIXED = 2**25  # that many more, divided by n: the part of the choice that does not depend on n
_TABLES = 0.6  # bytes of tables beside that of the full product while methods are compared
_CALL = 16  # what a search of fewer queries counts for
_GAIN = 1.15  # of a method over the full product
_LOSS = 1.05  # of a method that another k has chosen
_UNSETTLED = 0.1  # share of queries with too many candidates from which a method is given up
# nanoseconds of a score, one of its columns and a pair, on an AMD EPYC of 2023
_COST = {torch.bfloat16: (0.15, 0.011), torch.float32: (0.45, 0.024)}
_PAIR = 350.0, 0.4  # and for each column
_ERROR = {torch.bfloat16: 2.0**-7.5, torch.float32: 0.0}  # of a score, relative to |q| |x|


def method_for(
    index: SearchIndex, queries: Tensor, k: int, exclude: Tensor | None, run: Callable[..., Any]
) -> Method | None:
    """Return the method for k, None for the full product; choose it when enough have been searched.

    ``run(method, queries, exclude)`` searches.
    """
    tables = index.tables
    with tables.lock:
        if k in tables.methods or k in tables.choosing or not _worth_choosing(index, k):
            return tables.methods.get(k)  # the full product, while another thread chooses
        searched = tables.searched.get(k, 0) + max(len(queries), _CALL)
        tables.searched[k] = searched
        if searched < _ENOUGH + _FIXED / len(index.samples):
            return None
        tables.choosing.add(k)
    try:
        method = _choose(index, queries, k, exclude, run)
        _keep(index, k, method)
    finally:
        tables.choosing.discard(k)
    return tables.methods[k]


def count_unsettled(index: SearchIndex, k: int, n_unsettled: int, n_queries: int) -> None:
    """Return to the full product for k if a method leaves too many queries to it."""
    tables = index.tables
    with tables.lock:
        before = tables.unsettled.get(k, (0, 0))
        unsettled, queries = before[0] + n_unsettled, before[1] + n_queries
        tables.unsettled[k] = unsettled, queries
        if unsettled > max(_TRIED[0], _UNSETTLED * queries):
            _keep(index, k, None)


@torch.no_grad()
def bound_table(index: SearchIndex, method: Method) -> BoundTable | None:
    """Return the table of a method, built when it is first needed; None where it cannot be."""
    tables = index.tables
    with tables.lock:
        if method not in tables.bounds:
            axes = None if method.n_axes is None else _axes(index, method.n_axes)
            tables.bounds[method] = build_bound_table(index, method, axes)
        return tables.bounds[method]


def _axes(index: SearchIndex, m: int) -> Tensor:
    """Leading directions, at least m of them; found once for all methods."""
    tables = index.tables
    if tables.axes is None or tables.axes.shape[1] < min(m, index.samples.shape[1]):
        tables.axes = leading_axes(index, m)
    return tables.axes


def _has_bfloat16_products() -> bool:
    available = torch.backends.mkldnn.is_available()
    return available and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _worth_choosing(index: SearchIndex, k: int) -> bool:
    n, d = index.samples.shape
    on_cpu = index.samples.device.type == "cpu"  # not measured on accelerators
    return on_cpu and n >= max(_LEAST[0], _NEIGHBORS * k) and d >= _LEAST[1]


def _choose(
    index: SearchIndex,
    queries: Tensor,
    k: int,
    exclude: Tensor | None,
    run: Callable[..., Any],
) -> Method | None:
    """Time the most promising methods on one thread, on some of the queries or of the samples."""
    least, most = _TRIED
    if len(queries) >= least:
        n = min(max(least, len(queries) // _CALLED), most)
        some = torch.arange(n) * (len(queries) // n)
        queries, exclude = queries[some], None if exclude is None else exclude[some]
    else:
        exclude = torch.arange(least) * (len(index.samples) // least)
        queries = index.samples[exclude]

    def seconds(method: Method | None) -> float:
        times = []
        with thread_count(1):
            for _ in range(2):
                start = thread_time()
                run(method, queries, exclude)
                times.append(thread_time() - start)
        return min(times)

    product = seconds(None)
    few = slice(None, None, len(queries) // least)
    of_few = None if exclude is None else exclude[few]
    for method in _by_estimated_cost(index, queries[few], k, of_few)[:_ATTEMPTS]:
        held = method in index.tables.methods.values()
        if not _fits(index, method) or bound_table(index, method) is None:
            continue
        if seconds(method) * (1 / _LOSS if held else _GAIN) <= product:
            return method
        if not held:
            index.tables.bounds.pop(method, None)
    return None


def _fits(index: SearchIndex, method: Method) -> bool:
    """Whether the tables held and that of a method are small beside the full product's."""
    tables, (n, d) = index.tables, index.samples.shape
    with tables.lock:
        others = [table for m, table in tables.bounds.items() if m != method and table]
    held = sum(table.strips.nbytes for table in others)
    return held + n_columns(d, method) * n * method.dtype.itemsize <= _TABLES * 4 * n * (d + 1)


@torch.no_grad()
def _by_estimated_cost(
    index: SearchIndex, queries: Tensor, k: int, exclude: Tensor | None
) -> list[Method]:
    """Methods cheaper than the product, the cheapest first, by their candidates of some samples."""
    n, d = index.samples.shape
    dtype = torch.bfloat16 if _has_bfloat16_products() else torch.float32
    widths = [m for m in _AXES if 2 * m <= d]
    step = -(-n // min(_PROBED, _NUMBERS // d + 1))
    samples, centered = (centered_vectors(index, part) for part in (index.samples[::step], queries))
    ends = (centered.square().sum(1)[:, None] + samples.square().sum(1)) / 2
    norms = centered.norm(dim=1)[:, None] * samples.norm(dim=1)
    halves = ends - centered @ samples.T
    if exclude is not None:
        halves[torch.arange(0, n, step) == exclude[:, None]] = INF
    limit = halves.topk(max(1, k // step), largest=False).values[:, -1:] + _ERROR[dtype] * norms
    costs: dict[Method, float] = {}

    def note(method: Method, columns: int, bounds: Tensor) -> None:
        pairs = n * float((bounds <= limit).float().mean()) + k
        per_score, per_column = _COST[dtype]
        costs[method] = n * (per_score + per_column * columns) + pairs * (_PAIR[0] + _PAIR[1] * d)

    score, column = _COST[torch.float32]
    product = n * (score + column * d) + k * (_PAIR[0] + _PAIR[1] * d)
    if dtype == torch.bfloat16:
        note(Method(None, dtype), d, halves)
    if widths:
        axes = _axes(index, max(widths)).float()
        samples, centered = ((part @ axes, part.square().sum(1)) for part in (samples, centered))
    for m in widths:
        rest = [
            (squares - inside[:, :m].square().sum(1)).clamp_(min=0).sqrt_()
            for inside, squares in (centered, samples)
        ]
        inside = centered[0][:, :m] @ samples[0][:, :m].T
        note(Method(m, dtype), m, ends - inside - rest[0][:, None] * rest[1])
    return sorted((m for m in costs if costs[m] < product), key=costs.__getitem__)


def _keep(index: SearchIndex, k: int, method: Method | None) -> None:
    """Take a method for k, and hold no more bytes of tables than the full product needs.

    Where the tables of all chosen methods are larger, every k takes the newest method.
    """
    tables = index.tables
    n, d = index.samples.shape
    with tables.lock:
        tables.methods[k] = method
        chosen = set(tables.methods.values())
        sizes = [table.strips.nbytes for m, table in tables.bounds.items() if m in chosen and table]
        if len(chosen) > 1 and (None in chosen or sum(sizes) > 4 * n * (d + 1)):
            method = None if None in chosen else method
            tables.methods = dict.fromkeys(tables.methods, method)
            chosen = {method}
        if tables.choosing <= {k}:  # no other thread needs them
            tables.bounds = {m: table for m, table in tables.bounds.items() if m in chosen}
            tables.product = tables.product if None in chosen else None
            tables.axes = None
