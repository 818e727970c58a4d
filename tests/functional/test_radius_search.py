"""Samples within a radius against an independent float64 reference."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from skboundary.functional import _radius_search
from skboundary.functional.nearest_neighbors import build_index, search, search_radius
from tests.functional.test_nearest_neighbors import METRICS, TRAPS, gaussian, reference


def assert_exact(samples, queries, radius, metric, exclude=None, batch_size=17):
    """Equal to all differences in float64, of which those up to the radius are kept."""
    found = search_radius(
        build_index(samples, metric), queries, radius, exclude=exclude, batch_size=batch_size
    )
    distances, indices = reference(samples, queries, len(samples), metric, exclude)
    counts = found.counts.tolist()
    assert len(counts) == len(queries) and found.distances.dtype == torch.float64
    for i, (near, index) in enumerate(
        zip(found.distances.split(counts), found.indices.split(counts))
    ):
        inside = (distances[i] <= radius) & distances[i].isfinite()
        expected, order = indices[i][inside].sort()
        assert torch.equal(index, expected), i
        torch.testing.assert_close(near, distances[i][inside][order], rtol=1e-9, atol=0.0)


def radii(samples, queries, metric):
    """Radii at which samples lie, up to the last bit, and between which others lie."""
    distances = reference(samples, queries, len(samples), metric)[0]
    ordered = distances.flatten().sort().values
    some = [ordered[int(share * (len(ordered) - 1))].item() for share in (0.0, 0.02, 0.3)]
    return [0.0, *some, math.nextafter(some[1], 0.0), math.inf]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("trap", TRAPS)
def test_samples_within_a_radius_equal_reference(trap, dtype, metric):
    samples = TRAPS[trap](gaussian(600, 3, dtype))
    itself = torch.arange(0, 600, 40)
    queries = samples[itself]
    for radius in radii(samples, queries, metric):
        if metric == "cosine":  # normalized vectors are rounded in another order by the reference
            radius *= 1 + 1e-9
        if trap in ("tiny", "huge") and metric != "cosine" and radius not in (0.0, math.inf):
            radius *= 1 + 1e-9  # squares that the reference rounds
        assert_exact(samples, queries, radius, metric)
        assert_exact(samples, queries, radius, metric, exclude=itself)


@pytest.mark.parametrize("scale", [2.0**-600, 2.0**-30, 1.0, 2.0**40, 2.0**400])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_ties_on_the_radius_are_inside(scale, metric):
    grid = torch.cartesian_prod(*2 * [torch.arange(-9.0, 10.0, dtype=torch.float64)])
    radius = 5.0 if metric == "euclidean" else 25.0 * scale
    if not 0 < radius * scale < math.inf:
        return
    index = build_index(grid * scale, metric)
    found = search_radius(index, torch.zeros(1, 2, dtype=torch.float64), radius * scale)
    inside = (grid.square().sum(1) <= 25).nonzero().squeeze(1)
    assert torch.equal(found.indices, inside) and len(inside) == 81
    less = search_radius(
        index, torch.zeros(1, 2, dtype=torch.float64), math.nextafter(radius * scale, 0)
    )
    assert less.counts.item() == 81 - 12  # points of a grid at the distance 5


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_k_th_distance_of_a_search_is_a_radius_of_k_samples(metric, dtype):
    samples, queries = gaussian(3000, 20, dtype), gaussian(40, 20, dtype, seed=1)
    index = build_index(samples, metric)
    near = search(index, queries, 9)
    for i in range(40):
        radius = near.distances[i, -1].item()
        found = search_radius(index, queries[i : i + 1], radius)
        assert found.counts.tolist() == [9]
        assert torch.equal(found.indices, near.indices[i].sort().values)
        assert torch.equal(found.distances.sort().values, near.distances[i])


def test_differences_that_float64_cannot_square():
    samples = torch.tensor([[0.0, 1.0], [1e-200, 1.0], [3e-200, 1.0], [0.0, 2.0]]).double()
    samples[:, 0] = torch.tensor([0.0, 1e-200, 3e-200, 0.0], dtype=torch.float64)
    index = build_index(samples)
    for radius, expected in ((0.0, [0]), (1e-200, [0, 1]), (2e-200, [0, 1]), (3e-200, [0, 1, 2])):
        assert search_radius(index, samples[:1], radius).indices.tolist() == expected
    far = torch.tensor([[1e300, 0.0]], dtype=torch.float64)
    found = search_radius(build_index(torch.cat([samples, far])), samples[:1], 2.0)
    assert found.indices.tolist() == [0, 1, 2, 3]


def test_queries_far_from_the_samples_are_scored_in_float64(monkeypatch):
    called = []
    inner = _radius_search._float64_candidates
    monkeypatch.setattr(
        _radius_search, "_float64_candidates", lambda *args: called.append(1) or inner(*args)
    )
    samples = gaussian(500, 4, torch.float64)
    assert_exact(samples, samples[:20], 1.0, "euclidean")
    assert not called
    far = torch.cat([samples[:20], 1e20 + samples[:1]])
    assert_exact(samples, far, 1.0, "euclidean", batch_size=50)
    assert called


def test_products_of_lower_precision_are_noticed(monkeypatch):
    inner = _radius_search.below

    def coarse(table, queries, limit, buffer, stop):
        table = table._replace(strips=table.strips.bfloat16().float())
        return inner(table, queries.bfloat16().float(), limit, buffer, stop)

    monkeypatch.setattr(_radius_search, "below", coarse)
    samples = gaussian(2000, 30) + 100
    assert_exact(samples, samples[:100], 5.0, "euclidean")


def test_blocks_and_batches_do_not_show(monkeypatch):
    samples, exclude = gaussian(3000, 8).mul(2).round(), torch.arange(200)
    index = build_index(samples)
    expected = search_radius(index, samples[:200], 3.0, exclude=exclude)
    assert expected.counts.max() > 20
    monkeypatch.setattr(_radius_search, "_SCORES", (2000, 2000))
    monkeypatch.setattr(_radius_search, "_NUMBERS", (50, 50))
    for batch_size in (1, 7, 200):
        found = search_radius(index, samples[:200], 3.0, exclude=exclude, batch_size=batch_size)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("radius", [-1.0, math.nan])
def test_a_radius_that_is_none_is_refused(radius):
    with pytest.raises(ValueError, match="radius must be at least 0, got"):
        search_radius(build_index(gaussian(5, 2)), gaussian(2, 2), radius)


@pytest.mark.parametrize("find", [partial(search, k=1), partial(search_radius, radius=1.0)])
def test_queries_that_do_not_match_are_refused(find):
    index = build_index(torch.zeros(5, 3))
    for queries, exclude, match in (
        (torch.zeros(200, 3), torch.zeros(260, dtype=int), r"exclude has shape \(260,\).* 200"),
        (torch.zeros(200, 3), torch.zeros(199, dtype=int), r"exclude has shape \(199,\).* 200"),
        (torch.zeros(4, 2), None, r"queries has shape \(4, 2\), expected \(q, 3\)"),
        (torch.zeros(3), None, r"queries has shape \(3,\), expected \(q, 3\)"),
    ):
        with pytest.raises(ValueError, match=match):
            find(index, queries, exclude=exclude)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        find(index, torch.zeros(2, 3), batch_size=0)
    none = find(index, torch.zeros(0, 3))
    assert all(len(part) == 0 for part in none) and none.indices.dtype == torch.int64
