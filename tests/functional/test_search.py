"""Exact search against an independent float64 reference."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skboundary.functional import search as module
from skboundary.functional.search import Neighbors, build_index, merge, search

METRICS = ["euclidean", "sqeuclidean", "cosine"]


def reference(rows, queries, k, metric, exclude=None):
    """All differences in float64, a stable sort: the lowest index first among equals."""
    rows, queries = rows.double(), queries.double()
    if metric == "cosine":
        norms, query_norms = rows.norm(dim=1), queries.norm(dim=1)
        rows = rows / norms.clamp(min=1e-300)[:, None]
        queries = queries / query_norms.clamp(min=1e-300)[:, None]
    distances = (queries[:, None] - rows[None]).square().sum(2)
    if metric == "cosine":
        distances = (distances / 2).masked_fill((norms == 0) | (query_norms == 0)[:, None], 1.0)
    if exclude is not None:
        distances[torch.arange(len(queries)), exclude] = float("inf")
    distances, indices = distances.sort(dim=1, stable=True)
    distances = distances.sqrt() if metric == "euclidean" else distances
    return distances[:, :k], indices[:, :k]


def assert_exact(rows, queries, k, metric="euclidean", exclude=None, batch_size=17):
    found = search(build_index(rows, metric), queries, k, exclude=exclude, batch_size=batch_size)
    distances, indices = reference(rows, queries, k, metric, exclude)
    assert torch.equal(found.indices, indices)
    torch.testing.assert_close(found.distances, distances, rtol=1e-9, atol=0.0)
    assert found.distances.min() >= 0


def gaussian(n, d, dtype=torch.float32, seed=0):
    return torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_integers(high, shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


TRAPS = {
    "gaussian": lambda X: X,
    "offset_100": lambda X: X + 100,
    "offset_1000": lambda X: X + 1000,
    "offset_100000": lambda X: X + 1e5,
    "far_clusters": lambda X: X + 1000 * random_integers(2, (len(X), 1)),
    "outlier": lambda X: torch.cat([X[:-1], 1e6 * X[-1:]]),
    "integers_with_ties": lambda X: X.round(),
    "duplicates": lambda X: X[random_integers(20, (len(X),))],
    "constant": lambda X: torch.ones_like(X),
    "all_zero": lambda X: torch.zeros_like(X),
    "some_zero": lambda X: X * (torch.arange(len(X)) % 7 > 0)[:, None],
    "tiny": lambda X: X * 1e-25,
    "huge": lambda X: X * 1e25,
}


@pytest.fixture(params=[1, 64], ids=["strip by strip", "at once"])
def product(request, monkeypatch):
    """The road of many queries with the few of a test, and the one of few."""
    monkeypatch.setattr(module, "_SHARE", request.param)


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("trap", TRAPS)
def test_search__trap__equals_reference(trap, dtype, metric):
    rows = TRAPS[trap](gaussian(600, 16, dtype))
    itself = torch.arange(0, 600, 20)
    assert_exact(rows, rows[itself], 5, metric)
    assert_exact(rows, rows[itself], 5, metric, exclude=itself)
    assert_exact(rows, rows[itself] + gaussian(30, 16, dtype, seed=1), 5, metric)


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(1, 3, 1), (5, 1, 5), (63, 4, 10), (64, 4, 64), (65, 2, 3), (300, 1, 7), (700, 33, 90)],
)
def test_search__shape__equals_reference(n, d, k, metric):
    rows = gaussian(n, d)
    assert_exact(rows, gaussian(9, d, seed=1), k, metric)
    if k < n:
        assert_exact(rows, rows[:1], k, metric, exclude=torch.tensor([0]))


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("seed", range(6))
def test_search__several_column_blocks__equals_reference(seed, monkeypatch):
    monkeypatch.setattr(module, "_SCORES", 20_000)
    rows, queries = gaussian(6000, 12, seed=seed), gaussian(60, 12, seed=100 + seed)
    if seed % 2:  # rows come cluster by cluster, the last of them nearest to the queries
        offset = 3 * gaussian(10, 12, seed=7)
        rows, queries = rows + offset.repeat_interleave(600, 0), queries + offset[-1]
    assert_exact(rows, queries, 1 + 7 * seed, batch_size=60)


@pytest.mark.parametrize("trap", ["constant", "duplicates", "integers_with_ties", "huge"])
def test_search__several_blocks_of_the_float64_road__equals_reference(trap, monkeypatch):
    monkeypatch.setattr(module, "_FLOAT64", 2000)
    rows = TRAPS[trap](gaussian(1000, 16))
    itself = torch.arange(0, 1000, 20)
    assert_exact(rows, rows[itself], 5, exclude=itself)
    assert_exact(rows, rows[itself], 150, exclude=itself)  # more than a block holds


@pytest.mark.parametrize("trap", ["gaussian", "offset_1000", "far_clusters"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_search__usual_data__is_proven_in_float32(trap, dtype, monkeypatch):
    """The float64 road is for the few: a bound that fails often would be right, but slow."""
    counted = []
    road = module._search_float64

    def count(index, queries, k, exclude):
        counted.append(len(queries))
        return road(index, queries, k, exclude)

    monkeypatch.setattr(module, "_search_float64", count)
    rows, queries = TRAPS[trap](gaussian(4000, 32, dtype)), gaussian(200, 32, dtype, seed=1)
    queries = queries + rows.mean(0)
    search(build_index(rows), queries, 5)
    assert sum(counted) <= 2


def test_search__usual_data__differences_for_hardly_more_than_the_nearest(monkeypatch):
    """The spare rows of the shortlist are there for proofs; differences of rows are dear."""
    widths = []
    differences = module._half_squared

    def count(index, queries, zero, rows):
        widths.append(rows.shape[1])
        return differences(index, queries, zero, rows)

    monkeypatch.setattr(module, "_half_squared", count)
    search(build_index(gaussian(4000, 32)), gaussian(200, 32, seed=1), 5)
    assert max(widths) <= 6


def test_score__strip_by_strip_or_at_once__is_the_formula():
    """An accelerator computes a block at once, the last queries in a part of the buffer."""
    index, queries = build_index(gaussian(1500, 8)), gaussian(80, 8, seed=1)
    buffers = index.table.new_zeros(2, len(index.table), 83, module._STRIP)[:, :, :80]
    minima = module._score(index.table, index.halves, queries, buffers[0])
    at_once = torch.zeros(80, len(index.table), module._GROUPS)
    module._score_at_once(
        index.table, index.halves, queries, buffers[1], at_once.transpose(0, 1)
    )
    rows = index.table.transpose(1, 2).reshape(-1, 8)
    expected = index.halves.view(-1) - queries @ rows.T
    for scores, low in ((buffers[0], minima), (buffers[1], at_once.flatten(1))):
        torch.testing.assert_close(scores.transpose(0, 1).reshape(80, -1), expected)
        groups = scores.unflatten(2, (module._GROUP, module._GROUPS)).amin(2)
        assert torch.equal(low, groups.transpose(0, 1).flatten(1))


def test_search__coarse_products__stays_exact():
    """A product at a lower precision (bfloat16, TF32) is noticed, and costs time only."""
    rows, queries = gaussian(3000, 64), gaussian(40, 64, seed=1)
    index = build_index(rows)
    coarse = index._replace(table=index.table.mul(2).round().div(2))
    assert torch.equal(search(coarse, queries, 5).indices, search(index, queries, 5).indices)


def test_search__one_product_overflows__its_group_not_hidden():
    """A float32 score of infinity minus infinity would hide the rows that share its minimum."""
    side = torch.tensor([1.0, -1.0]).repeat(300)[:, None] * torch.eye(16)[0]
    rows = torch.cat([1e17 * side + 1e15 * gaussian(600, 16), 1e22 * side[:2]])
    assert_exact(rows, rows[:60] + 1e15 * gaussian(60, 16, seed=1), 20)


def test_search__near_ties_below_float32__in_float64_order():
    rows = torch.tensor([[2.0**-12], [1.0], [1.0 + 2.0**-23], [-1.0], [0.0]])
    found = search(build_index(rows), torch.tensor([[2.0**-13], [0.0]]), 5)
    assert found.indices.tolist() == [[0, 4, 1, 2, 3], [4, 0, 1, 3, 2]]


def test_search__integer_rows__cast():
    rows = random_integers(256, (500, 10)).to(torch.uint8)
    queries = random_integers(256, (20, 10), seed=1)
    assert_exact(rows, queries, 4)
    assert_exact(rows.bool(), queries.bool(), 4, "cosine")


@pytest.mark.parametrize("metric", METRICS)
def test_search__batch_size__no_influence(metric):
    index, queries = build_index(gaussian(900, 20), metric), gaussian(50, 20, seed=1)
    whole = search(index, queries, 6)
    for batch_size in (1, 7, 50):
        batched = search(index, queries, 6, batch_size=batch_size)
        assert torch.equal(batched.indices, whole.indices)
        assert torch.equal(batched.distances, whole.distances)


@pytest.fixture
def three_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(threads)


def test_search__shares_of_threads__no_influence(three_threads, monkeypatch):
    shares, inner = [], module._search_share

    def spy(index, queries, *args):
        shares.append((len(queries), torch.get_num_threads()))
        return inner(index, queries, *args)

    monkeypatch.setattr(module, "_search_share", spy)
    rows = gaussian(700, 6).round()
    assert_exact(rows, rows[:200], 3, exclude=torch.arange(200), batch_size=64)
    assert sorted(shares) == [(66, 1), (67, 1), (67, 1)]
    with ThreadPoolExecutor(1) as pool:  # what a new thread takes
        assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == 3
    with torch.inference_mode():
        rows = gaussian(700, 6)
        found = search(build_index(rows), rows, 3)
    assert torch.equal(found.indices[:, 0], torch.arange(700))
    index, queries = build_index(rows.clone()), rows.clone().requires_grad_()
    with torch.no_grad():  # holds for one thread, like the number of threads
        assert not search(index, queries, 3).distances.requires_grad
    monkeypatch.setattr(module, "_search_share", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search(build_index(rows), rows, 3)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("metric", METRICS)
def test_merge__shards__equal_one_search(metric):
    rows, queries = gaussian(600, 5).round(), gaussian(30, 5, seed=1).round()
    whole = search(build_index(rows, metric), queries, 8)
    merged = None
    for start in (400, 0, 100):  # in any order: ties go by index
        stop = {400: 600, 0: 100, 100: 400}[start]
        part = search(build_index(rows[start:stop], metric), queries, 8)
        part = Neighbors(part.distances, part.indices + start)
        merged = part if merged is None else merge(merged, part)
    assert torch.equal(merged.indices, whole.indices)
    assert torch.equal(merged.distances, whole.distances)


def test_search__wrong_arguments__named():
    index = build_index(gaussian(5, 2))
    with pytest.raises(ValueError, match="between 1 and 5, .* got 6"):
        search(index, gaussian(1, 2), 6)
    with pytest.raises(ValueError, match="between 1 and 4, .* got 5"):
        search(index, gaussian(1, 2), 5, exclude=torch.tensor([0]))
    with pytest.raises(ValueError, match="metric='l1'"):
        build_index(gaussian(5, 2), "l1")
    with pytest.raises(ValueError, match="shape"):
        build_index(gaussian(5, 2)[:0])


def test_search__inputs__unchanged():
    rows, queries = gaussian(200, 6), gaussian(10, 6, seed=1)
    copies = rows.clone(), queries.clone()
    index = build_index(rows, "cosine")
    search(index, queries, 3)
    assert index.rows.data_ptr() == rows.data_ptr()
    assert torch.equal(rows, copies[0]) and torch.equal(queries, copies[1])
