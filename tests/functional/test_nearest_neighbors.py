"""Exact search against an independent float64 reference."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from threading import Event

import pytest
import torch

from skboundary.functional import (
    _bounded_search,
    _search_index,
    _shortlist,
)
from skboundary.functional import nearest_neighbors as module
from skboundary.functional._search_index import Method
from skboundary.functional.nearest_neighbors import Neighbors, build_index, merge, search

METRICS = ["euclidean", "sqeuclidean", "cosine"]


def reference(samples, queries, k, metric, exclude=None):
    """All differences in float64, a stable sort: the lowest index first among equals."""
    samples, queries = samples.double(), queries.double()
    if metric == "cosine":
        norms, query_norms = samples.norm(dim=1), queries.norm(dim=1)
        samples = samples / norms.clamp(min=1e-300)[:, None]
        queries = queries / query_norms.clamp(min=1e-300)[:, None]
    distances = (queries[:, None] - samples[None]).square().sum(2)
    if metric == "cosine":
        distances = (distances / 2).masked_fill((norms == 0) | (query_norms == 0)[:, None], 1.0)
    if exclude is not None:
        distances[torch.arange(len(queries)), exclude] = float("inf")
    distances, indices = distances.sort(dim=1, stable=True)
    distances = distances.sqrt() if metric == "euclidean" else distances
    return distances[:, :k], indices[:, :k]


def assert_exact(samples, queries, k, metric="euclidean", exclude=None, batch_size=17):
    found = search(build_index(samples, metric), queries, k, exclude=exclude, batch_size=batch_size)
    distances, indices = reference(samples, queries, k, metric, exclude)
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


METHODS = [
    None,
    Method(4, torch.bfloat16),
    Method(4, torch.float32),
    Method(None, torch.bfloat16),
    Method(None, torch.float32),
]


def name_of(method):
    if method is None:
        return "product"
    columns = "all" if method.n_axes is None else method.n_axes
    return f"{columns} columns in {str(method.dtype).removeprefix('torch.')}"


@pytest.fixture(params=METHODS, ids=name_of)
def method(request, monkeypatch):
    """Each method of search, whatever its speed, for however many candidates."""
    monkeypatch.setattr(module, "method_for", lambda *args: request.param)
    monkeypatch.setattr(_bounded_search, "_CROWD", 1)
    return request.param


@pytest.fixture(params=[1, 64], ids=["strip by strip", "at once"])
def product(request, monkeypatch):
    """The product for many queries with the few of a test, and the one for few."""
    monkeypatch.setattr(_shortlist, "_STRIPWISE", request.param)
    monkeypatch.setattr(_bounded_search, "_FEW", request.param)


@pytest.mark.usefixtures("method", "product")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("trap", TRAPS)
def test_search_of_a_trap_equals_reference(trap, dtype, metric):
    samples = TRAPS[trap](gaussian(600, 16, dtype))
    itself = torch.arange(0, 600, 20)
    assert_exact(samples, samples[itself], 5, metric)
    assert_exact(samples, samples[itself], 5, metric, exclude=itself)
    assert_exact(samples, samples[itself] + gaussian(30, 16, dtype, seed=1), 5, metric)


@pytest.mark.usefixtures("method", "product")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("n", "d", "k"),
    [(1, 3, 1), (5, 1, 5), (63, 4, 10), (64, 4, 64), (65, 2, 3), (300, 1, 7), (700, 33, 90)],
)
def test_search_of_any_shape_equals_reference(n, d, k, metric):
    samples = gaussian(n, d)
    assert_exact(samples, gaussian(9, d, seed=1), k, metric)
    if k < n:
        assert_exact(samples, samples[:1], k, metric, exclude=torch.tensor([0]))


@pytest.mark.usefixtures("method", "product")
@pytest.mark.parametrize("seed", range(6))
def test_search_in_several_blocks_of_float32_equals_reference(seed, monkeypatch):
    monkeypatch.setattr(module, "SCORES", (20_000, 20_000))
    monkeypatch.setattr(_bounded_search, "_BUFFER", 60_000)
    monkeypatch.setattr(_bounded_search, "_BATCH", 60)
    samples, queries = gaussian(6000, 12, seed=seed), gaussian(60, 12, seed=100 + seed)
    if seed % 2:  # samples come cluster by cluster, the last of them nearest to the queries
        offset = 3 * gaussian(10, 12, seed=7)
        samples, queries = samples + offset.repeat_interleave(600, 0), queries + offset[-1]
    assert_exact(samples, queries, 1 + 7 * seed, batch_size=60)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("trap", ["constant", "duplicates", "integers_with_ties", "huge"])
def test_search_in_several_blocks_of_float64_equals_reference(trap, monkeypatch):
    monkeypatch.setattr(_search_index, "_FLOAT64", (2000, 2000))
    samples = TRAPS[trap](gaussian(1000, 16))
    itself = torch.arange(0, 1000, 20)
    assert_exact(samples, samples[itself], 5, exclude=itself)
    assert_exact(samples, samples[itself], 150, exclude=itself)  # more than a block holds


@pytest.mark.parametrize("trap", ["gaussian", "offset_1000", "far_clusters"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_search_of_usual_data_is_proven_in_float32(trap, dtype, monkeypatch):
    """The float64 search is for the few: a bound that fails often would be right, but slow."""
    counted = []
    road = module.search_float64

    def count(index, queries, k, exclude):
        counted.append(len(queries))
        return road(index, queries, k, exclude)

    monkeypatch.setattr(module, "search_float64", count)
    samples, queries = TRAPS[trap](gaussian(4000, 32, dtype)), gaussian(200, 32, dtype, seed=1)
    queries = queries + samples.mean(0)
    search(build_index(samples), queries, 5)
    assert sum(counted) <= 2


def test_search_of_usual_data_takes_hardly_more_differences_than_neighbors(monkeypatch):
    """The spare samples of the shortlist are there for proofs; differences of samples are dear."""
    widths = []
    differences = module.half_squared

    def count(index, queries, zero, samples):
        widths.append(samples.shape[1])
        return differences(index, queries, zero, samples)

    monkeypatch.setattr(module, "half_squared", count)
    search(build_index(gaussian(4000, 32)), gaussian(200, 32, seed=1), 5)
    assert max(widths) <= 6


def test_scores_strip_by_strip_or_at_once_are_the_formula():
    """An accelerator computes a block at once, the last queries in a part of the buffer."""
    index, queries = build_index(gaussian(1500, 8)), gaussian(80, 8, seed=1)
    strips, halves = index.tables.product
    buffers = strips.new_zeros(2, len(strips), 83, _search_index.STRIP)[:, :, :80]
    minima = _shortlist._score(strips, halves, queries, buffers[0], Event())
    at_once = torch.zeros(80, len(strips), _search_index.GROUPS)
    _shortlist._score_at_once(strips, halves, queries, buffers[1], at_once.transpose(0, 1))
    samples = strips.transpose(1, 2).reshape(-1, 8)
    expected = halves.view(-1) - queries @ samples.T
    for scores, low in ((buffers[0], minima), (buffers[1], at_once.flatten(1))):
        torch.testing.assert_close(scores.transpose(0, 1).reshape(80, -1), expected)
        groups = scores.unflatten(2, (_search_index.GROUP, _search_index.GROUPS)).amin(2)
        assert torch.equal(low, groups.transpose(0, 1).flatten(1))


def test_search_with_coarse_products_stays_exact():
    """A product at a lower precision (bfloat16, TF32) is noticed, and costs time only."""
    samples, queries = gaussian(3000, 64), gaussian(40, 64, seed=1)
    index, coarse = build_index(samples), build_index(samples)
    strips, halves = coarse.tables.product
    coarse.tables.product = _search_index.ProductTable(strips.mul(2).round().div(2), halves)
    assert torch.equal(search(coarse, queries, 5).indices, search(index, queries, 5).indices)


@pytest.mark.usefixtures("method")
def test_an_overflowing_score_does_not_hide_its_group():
    """A float32 score of infinity minus infinity would hide the samples that share its minimum."""
    side = torch.tensor([1.0, -1.0]).repeat(300)[:, None] * torch.eye(16)[0]
    samples = torch.cat([1e17 * side + 1e15 * gaussian(600, 16), 1e22 * side[:2]])
    assert_exact(samples, samples[:60] + 1e15 * gaussian(60, 16, seed=1), 20)


@pytest.mark.usefixtures("method")
def test_near_ties_below_float32_are_in_float64_order():
    samples = torch.tensor([[2.0**-12], [1.0], [1.0 + 2.0**-23], [-1.0], [0.0]])
    found = search(build_index(samples), torch.tensor([[2.0**-13], [0.0]]), 5)
    assert found.indices.tolist() == [[0, 4, 1, 2, 3], [4, 0, 1, 3, 2]]


@pytest.mark.usefixtures("method")
def test_integer_samples_are_cast():
    samples = random_integers(256, (500, 10)).to(torch.uint8)
    queries = random_integers(256, (20, 10), seed=1)
    assert_exact(samples, queries, 4)
    assert_exact(samples.bool(), queries.bool(), 4, "cosine")


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("metric", METRICS)
def test_the_batch_size_has_no_influence(metric):
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


def test_the_number_of_threads_has_no_influence(three_threads, monkeypatch):
    shares, inner = [], module._search_share

    def spy(index, table, queries, *args):
        shares.append((len(queries), torch.get_num_threads()))
        return inner(index, table, queries, *args)

    monkeypatch.setattr(module, "_search_share", spy)
    samples = gaussian(700, 6).round()
    assert_exact(samples, samples[:200], 3, exclude=torch.arange(200), batch_size=64)
    assert sorted(shares) == [(66, 1), (67, 1), (67, 1)]
    with ThreadPoolExecutor(1) as pool:  # what a new thread takes
        assert torch.get_num_threads() == pool.submit(torch.get_num_threads).result() == 3
    with torch.inference_mode():
        samples = gaussian(700, 6)
        found = search(build_index(samples), samples, 3)
    assert torch.equal(found.indices[:, 0], torch.arange(700))
    index, queries = build_index(samples.clone()), samples.clone().requires_grad_()
    with torch.no_grad():  # holds for one thread, like the number of threads
        assert not search(index, queries, 3).distances.requires_grad
    monkeypatch.setattr(module, "_search_share", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        search(build_index(samples), samples, 3)
    assert torch.get_num_threads() == 3


def test_one_share_that_fails_stops_the_others(three_threads, monkeypatch):
    calls, stopped, score = [], [], _shortlist._score

    def fail(*args):
        calls.append(args)
        if args is calls[0]:
            while len(calls) < 2:  # until another share has begun
                time.sleep(0.001)
            raise KeyboardInterrupt
        stopped.append(args[-1].wait(5))
        return score(*args)

    monkeypatch.setattr(_shortlist, "_score", fail)
    samples = gaussian(5000, 6)
    with pytest.raises(KeyboardInterrupt):
        search(build_index(samples), samples[:600], 3, batch_size=8)
    assert len(calls) <= 3 and stopped and all(stopped)  # of each thread the first call of many


INTERRUPTED = """
import time, torch
from skboundary.functional.nearest_neighbors import build_index, search
torch.set_num_threads(2)
samples = torch.randn(60_000, 512)
index = build_index(samples)
search(index, samples[:200], 5)
print("ready", flush=True)
try:
    search(index, samples, 5)
except KeyboardInterrupt:
    print(time.time(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_an_interrupted_search_on_two_threads_ends_within_a_second():
    root = Path(module.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        sent = time.time()
        process.send_signal(signal.SIGINT)
        assert float(process.stdout.readline()) - sent < 1
    assert process.returncode == 0


def exact_squares(samples, query):
    """Squared distances without any rounding."""
    query = [Fraction(v) for v in query.tolist()]
    return [sum((Fraction(a) - b) ** 2 for a, b in zip(row, query)) for row in samples.tolist()]


def root(square):
    """The square root of a fraction of any size."""
    if not square:
        return 0.0
    exponent = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(square / Fraction(4) ** exponent), exponent)


def assert_as_fractions(samples, queries, k):
    """The order of exact arithmetic, and its distances to the last digits."""
    found = search(build_index(samples), queries, k)
    for query, distances, indices in zip(queries, *(part.tolist() for part in found)):
        squares = exact_squares(samples, query)
        assert indices == sorted(range(len(samples)), key=lambda i: (squares[i], i))[:k]
        assert distances == pytest.approx([root(squares[i]) for i in indices], rel=1e-12, abs=0)


SCALES = {
    torch.float64: [1e-320, 1e-200, 1e-154, 1e-150, 1e-30, 1.0, 1e30, 1e150, 1e154, 1e200, 1e307],
    torch.float32: [1e-44, 1e-40, 1e-30, 1.0, 1e18, 1e30, 5e37],
}


@pytest.mark.usefixtures("method", "product")
@pytest.mark.parametrize(
    ("dtype", "scale"), [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]
)
def test_search_is_exact_in_any_unit(dtype, scale):
    samples, queries = (gaussian(n, 4, torch.float64, n) for n in (40, 5))
    samples, queries = (samples * scale).to(dtype), (queries * scale).to(dtype)
    queries[0] = samples[3]
    assert_as_fractions(samples, queries, 7)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e150])
def test_samples_in_one_unit_share_one_scale(scale, monkeypatch):
    """One power of two for all samples keeps the products; others are for mixed units."""
    monkeypatch.setattr(module, "search_scaled", lambda *args: 1 / 0)
    monkeypatch.setattr(module, "search_float64", lambda *args: 1 / 0)
    samples = gaussian(600, 8, torch.float64) * scale
    search(build_index(samples), samples[:40] * 1.1, 5)


@pytest.mark.usefixtures("method", "product")
@pytest.mark.parametrize(
    "units", [(1.0, 1e-200, 1e-200), (1e154, 1e-200, 1e-160), (1e200, 1.0, 1e-200), (0, 1e-200, 1)]
)
def test_search_is_exact_for_columns_of_different_units(units):
    """Rows that agree in the large columns and differ in the small ones, and the others."""
    samples, queries = (gaussian(n, 3, torch.float64, n) for n in (40, 5))
    samples[:, 0] = samples[:, 0].sign()
    queries[:, 0] = queries[:, 0].sign()
    samples[3] = queries[2]
    units = torch.tensor(units, dtype=torch.float64)
    assert_as_fractions(samples * units, queries * units, 7)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("unit", [1e-200, 1.0, 1e200])
def test_queries_in_another_unit_than_the_samples(unit):
    samples, queries = gaussian(40, 3, torch.float64), gaussian(5, 3, torch.float64, 1)
    for query, distances in zip(
        queries, search(build_index(samples), queries * unit, 4)[0].tolist()
    ):
        squares = sorted(exact_squares(samples, query * unit))
        assert distances == pytest.approx([root(s) for s in squares[:4]], rel=1e-12, abs=0)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-170, 1e150, 1e154, 1e300])
def test_cosine_distances_do_not_depend_on_the_unit(scale):
    samples, queries = gaussian(300, 8, torch.float64), gaussian(20, 8, torch.float64, 1)
    samples[5] = 0
    expected = search(build_index(samples, "cosine"), queries, 299)
    found = search(build_index(samples * scale, "cosine"), queries * scale, 299)
    assert torch.equal(found.indices, expected.indices)
    rtol = 1e-3 if scale == 1e-310 else 1e-9  # what denormal numbers can hold
    torch.testing.assert_close(found.distances, expected.distances, rtol=rtol, atol=1e-15)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize(("metric", "scale"), [("sqeuclidean", 1e155), ("euclidean", 1.5e308)])
def test_a_distance_beyond_float64_is_refused(metric, scale):
    samples = scale * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=rf"'{metric}' is beyond 1.8e\+308.*Divide the samples"):
        search(build_index(samples, metric), samples, 2)


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("metric", METRICS)
def test_merged_shards_equal_one_search(metric):
    samples, queries = gaussian(600, 5).round(), gaussian(30, 5, seed=1).round()
    whole = search(build_index(samples, metric), queries, 8)
    merged = None
    for start in (400, 0, 100):  # in any order: ties go by index
        stop = {400: 600, 0: 100, 100: 400}[start]
        part = search(build_index(samples[start:stop], metric), queries, 8)
        part = Neighbors(part.distances, part.indices + start)
        merged = part if merged is None else merge(merged, part)
    assert torch.equal(merged.indices, whole.indices)
    assert torch.equal(merged.distances, whole.distances)


def test_wrong_arguments_are_named():
    index = build_index(gaussian(5, 2))
    with pytest.raises(ValueError, match="between 1 and 5, .* got 6"):
        search(index, gaussian(1, 2), 6)
    with pytest.raises(ValueError, match="between 1 and 4, .* got 5"):
        search(index, gaussian(1, 2), 5, exclude=torch.tensor([0]))
    with pytest.raises(ValueError, match="metric='l1'"):
        build_index(gaussian(5, 2), "l1")
    with pytest.raises(ValueError, match="shape"):
        build_index(gaussian(5, 2)[:0])


@pytest.mark.usefixtures("method")
def test_inputs_are_not_written_to():
    samples, queries = gaussian(200, 6), gaussian(10, 6, seed=1)
    copies = samples.clone(), queries.clone()
    index = build_index(samples, "cosine")
    search(index, queries, 3)
    assert index.samples.data_ptr() == samples.data_ptr()
    assert torch.equal(samples, copies[0]) and torch.equal(queries, copies[1])
