"""Search by lower bounds: the bounds, settings at the edge, and the choice of a method."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skboundary.functional import _bounded_search, _lower_bounds, _search_methods
from skboundary.functional import nearest_neighbors as module
from skboundary.functional._search_index import Method, vectors_of
from skboundary.functional.nearest_neighbors import build_index, search

BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32
METHODS = [Method(m, dtype) for m in (4, None) for dtype in (BFLOAT16, FLOAT32)]


def gaussian(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def few_directions(n, d, seed=0):
    """Samples of which nearly all variance lies in three directions."""
    return gaussian(n, 3, seed) @ gaussian(3, d, 99) + 0.05 * gaussian(n, d, seed + 1)


def columns_of_all_scales(X):
    return X * 10 ** torch.linspace(-6, 6, X.shape[1], dtype=torch.float64)


EDGES = {
    "noise": lambda X: X,
    "offset": lambda X: 100 + 1e-3 * X,
    "integers full of ties": lambda X: X.round(),
    "identical": lambda X: torch.ones_like(X),
    "rank 3": lambda X: X[:, :3] @ gaussian(3, X.shape[1], 7),
    "column scales": columns_of_all_scales,
    "outliers": lambda X: torch.cat([X[:-3], 1e6 * X[-3:]]),
    "duplicates": lambda X: X[torch.arange(len(X)) % 90],
    "few samples": lambda X: X[:7],
}


@pytest.fixture
def forced(monkeypatch):
    """Force a method; None is the full product."""
    monkeypatch.setattr(_bounded_search, "_CROWD", 1)

    def force(method):
        monkeypatch.setattr(module, "method_for", lambda *args: method)

    return force


def assert_as_product(forced, samples, queries, k, metric, method, exclude=None):
    found = []
    for each in (None, method):
        forced(each)
        found.append(search(build_index(samples, metric), queries, k, exclude=exclude))
    assert torch.equal(found[1].indices, found[0].indices)
    assert torch.equal(found[1].distances, found[0].distances)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("edge", EDGES)
def test_settings_at_the_edge_give_the_result_of_the_product(forced, edge, metric, method):
    samples = EDGES[edge](gaussian(1200, 24)).float()
    queries = samples[::40] + 0.3 * gaussian(len(samples[::40]), 24, 1).float()
    assert_as_product(forced, samples, queries, 5, metric, method)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("edge", EDGES)
def test_all_settings_at_the_edge_give_the_result_of_the_product(
    forced, edge, metric, method, k, dtype
):
    samples = EDGES[edge](gaussian(1500, 32)).to(dtype)
    if not samples.isfinite().all():
        pytest.skip("float16 does not hold these samples")
    itself = torch.arange(0, len(samples), 30)
    k = min(k, len(samples) - 1)
    queries = (samples[itself] + 0.3 * gaussian(len(itself), 32, 1)).to(dtype)
    assert_as_product(forced, samples, queries, k, metric, method)
    assert_as_product(forced, samples, samples[itself], k, metric, method, exclude=itself)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_score_exceeds_the_limit_at_the_distance_of_its_sample(method, scale):
    samples = torch.cat([few_directions(500, 24), gaussian(500, 24)]).float() * scale
    queries = torch.cat([samples[:20], samples[500:520] * 3])
    index = build_index(samples)
    table = _search_methods.bound_table(index, method)
    vectors, zero = vectors_of(queries, index.metric, index.scale)
    bound = _lower_bounds.bound_queries(table, vectors - index.center, zero)
    scores = torch.cat([bound.left @ strip for strip in table.strips], 1)[:, :1000].double()
    halves = (vectors[:, None] - vectors_of(samples, "euclidean", index.scale)[0]).square().sum(2)
    for j in range(0, 1000, 50):
        limit = _lower_bounds.score_limit(table, bound, zero, halves[:, j] / 2)
        key = _lower_bounds.as_key(limit, method.dtype)
        assert (scores[:, j] <= key.view(method.dtype).double()).all()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_products_less_precise_than_their_dtype_are_noticed(forced, method, monkeypatch):
    """As torch computes them after set_float32_matmul_precision("medium")."""
    samples, queries = gaussian(3000, 64).float(), gaussian(40, 64, 1).float()
    forced(method)
    expected = search(build_index(samples), queries, 5)
    score, settled = _bounded_search._score, []
    search_bounded = module.search_bounded

    def coarse(strips, left, scores, stop):
        score(strips, left, scores, stop)
        scores.copy_(scores.mul(8).round().div(8))
        groups = _lower_bounds.as_keys(scores).unflatten(2, (8, 64)).amin(2)
        return torch.nn.functional.pad(
            groups.transpose(0, 1),
            (0, 0, 0, -len(strips) % 8),
            value=_lower_bounds.infinite_key(scores.dtype),
        ).flatten(1)

    def spy(*args):
        found = search_bounded(*args)
        settled.append(found[2].any())
        return found

    monkeypatch.setattr(_bounded_search, "_score", coarse)
    monkeypatch.setattr(module, "search_bounded", spy)
    found = search(build_index(samples), queries, 5)
    assert not any(settled)
    assert torch.equal(found.indices, expected.indices)


def test_bounds_by_leading_directions_leave_few_candidates(monkeypatch):
    """A bound that fails to rule out samples would be right, but slow."""
    compared, norms = [], _bounded_search._norms

    def count(index, table, differences, query, sample):
        compared.append(len(query))
        return norms(index, table, differences, query, sample)

    monkeypatch.setattr(_bounded_search, "_norms", count)
    monkeypatch.setattr(module, "method_for", lambda *args: Method(4, BFLOAT16))
    search(build_index(few_directions(4000, 32).float()), few_directions(100, 32, 5).float(), 5)
    assert sum(compared) < 100 * 60


def test_too_many_candidates_are_left_to_the_product(monkeypatch):
    samples, queries = gaussian(6000, 40).float(), gaussian(400, 40, 1).float()
    expected = search(build_index(samples), queries, 3)
    index = build_index(samples)
    index.tables.methods[3] = Method(4, BFLOAT16)
    found = search(index, queries, 3)
    assert torch.equal(found.indices, expected.indices)
    assert index.tables.methods[3] is None  # given up, as this happened to most queries
    assert not index.tables.bounds


@pytest.mark.parametrize("n_easy", [0, 400])
def test_few_queries_may_have_many_candidates(n_easy, monkeypatch):
    """Once its table was dropped, the product would take longer."""
    scales = torch.linspace(2, 0.2, 40)
    samples, query = gaussian(6000, 40).float() * scales, gaussian(1, 40, 1).float() * scales
    queries = torch.cat([samples[:n_easy] + 1e-3, query])
    expected = search(build_index(samples), queries, 3)
    index = build_index(samples)
    index.tables.methods[3], index.tables.product = Method(20, BFLOAT16), None
    monkeypatch.setattr(module, "search_float64", None)
    found = search(index, queries, 3)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)
    assert bool(index.tables.unsettled) == (n_easy > 0)  # too many in company, but not alone
    assert index.tables.product is None


@pytest.fixture
def chosen(monkeypatch):
    """A choice after few queries on few samples, by seconds that are set instead of measured."""
    monkeypatch.setattr(_search_methods, "_LEAST", (1000, 8))
    monkeypatch.setattr(_search_methods, "_ENOUGH", 64)
    monkeypatch.setattr(_search_methods, "_FIXED", 0)
    monkeypatch.setattr(_search_methods, "_by_estimated_cost", lambda *args: [Method(4, BFLOAT16)])
    now, seconds = [0.0], {"product": 1.0, "bounds": 0.5}
    share_out = module._share_out

    def search_and_count(index, table, *args):
        now[0] += seconds["product" if isinstance(table, module.ProductTable) else "bounds"]
        return share_out(index, table, *args)

    monkeypatch.setattr(module, "_share_out", search_and_count)
    monkeypatch.setattr(_search_methods, "thread_time", lambda: now[0])
    return seconds


def test_a_faster_method_is_chosen_once_enough_queries_have_come(chosen):
    index = build_index(few_directions(2000, 24).float())
    queries = few_directions(200, 24, 5).float()
    size = index.tables.product.strips.nbytes
    search(index, queries[:1], 3)
    assert not index.tables.methods
    first = search(index, queries, 3)
    assert index.tables.methods[3].n_axes == 4
    assert index.tables.product is None  # dropped
    assert sum(table.strips.nbytes for table in index.tables.bounds.values()) < size
    second = search(index, queries, 3)
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.distances, second.distances)
    chosen["bounds"] = 0.9  # not enough of a gain for another k
    search(index, queries, 9)
    assert index.tables.methods[9].n_axes == 4  # but no loss, and the table is there
    chosen["bounds"] = 1.2
    search(index, queries, 5)
    assert set(index.tables.methods.values()) == {None}
    assert index.tables.product is not None and not index.tables.bounds


def test_tables_are_small_while_methods_are_compared(chosen, monkeypatch):
    """Beside the full product's: one that was too slow makes way for the next."""
    methods = [Method(None, BFLOAT16), Method(8, BFLOAT16), Method(24, BFLOAT16)]
    monkeypatch.setattr(_search_methods, "_by_estimated_cost", lambda *args: methods)
    share_out, held = module._share_out, []

    def search_and_note(index, table, *args):
        tables = index.tables
        held.append(sum(t.strips.nbytes for t in tables.bounds.values() if t))
        return share_out(index, table, *args)

    monkeypatch.setattr(module, "_share_out", search_and_note)
    chosen["bounds"] = 0.9
    index = build_index(few_directions(2000, 64).float())
    search(index, few_directions(200, 64, 5).float(), 3)
    assert index.tables.methods == {3: None}
    assert 0 < max(held) <= 0.6 * index.tables.product.strips.nbytes
    assert len(set(held) - {0}) == 2  # both were tried


def test_a_gain_that_is_too_small_keeps_the_product(chosen):
    chosen["bounds"] = 0.9
    index = build_index(few_directions(2000, 24).float())
    search(index, few_directions(200, 24, 5).float(), 3)
    assert index.tables.methods == {3: None}
    assert index.tables.product is not None and not index.tables.bounds


def test_single_queries_lead_to_a_choice_too(chosen):
    index = build_index(few_directions(2000, 24).float())
    for query in few_directions(8, 24, 5).float():
        search(index, query[None], 3)
    assert index.tables.methods[3] is not None


def test_several_threads_search_one_index(chosen):
    samples, queries = few_directions(2000, 24).float(), few_directions(120, 24, 5).float()
    ks = [1, 3, 5, 7] * 4
    expected = {k: search(build_index(samples), queries, k).indices for k in set(ks)}
    index = build_index(samples)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: search(index, queries, k).indices, ks))
    assert all(torch.equal(indices, expected[k]) for k, indices in zip(ks, found))


def test_leading_axes_are_orthonormal_and_leave_the_random_state_alone():
    index = build_index(few_directions(3000, 24).float())
    state = torch.get_rng_state()
    axes = _lower_bounds.leading_axes(index, 6)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(axes.T @ axes, torch.eye(6, dtype=torch.float64), atol=1e-12, rtol=0)
    vectors = index.samples.double() - index.center
    assert (vectors @ axes[:, :3]).square().sum() > 0.98 * vectors.square().sum()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_threads_and_batches_have_no_influence(forced, method):
    samples, queries = few_directions(3000, 24).float().round(decimals=1), gaussian(260, 24).float()
    forced(method)
    expected = search(build_index(samples), queries, 9)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = search(build_index(samples), queries, 9, batch_size=31)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)


def test_tables_of_several_methods_stay_within_the_size_of_the_product():
    index = build_index(gaussian(2000, 64).float())
    tables, size = index.tables, index.tables.product.strips.nbytes
    methods = [Method(4, FLOAT32), Method(8, BFLOAT16), Method(None, BFLOAT16), Method(32, FLOAT32)]
    for k, method in enumerate(methods, 1):
        _search_methods.bound_table(index, method)
        _search_methods._keep(index, k, method)
        assert sum(table.strips.nbytes for table in tables.bounds.values()) <= size
        assert tables.methods[k] == method and set(tables.methods.values()) == set(tables.bounds)
    assert len(tables.bounds) == 1  # the last table was one too many
