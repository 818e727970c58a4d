"""radius_neighbors of TorchNearestNeighbors: scikit-learn's conventions, in memory and on disk."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors

from skboundary import TorchNearestNeighbors
from skboundary.neighbors import _streamed_search

METRICS = ["euclidean", "sqeuclidean", "cosine"]
RADIUS = {"euclidean": 2.5, "sqeuclidean": 6.0, "cosine": 0.5}


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(300, 8)


def brute(X, metric):
    return NearestNeighbors(radius=RADIUS[metric], metric=metric, algorithm="brute").fit(X)


def assert_equal(found, expected):
    for left, right in zip(found, expected, strict=True):
        assert left.dtype == right.dtype == object and left.shape == right.shape
        for one, other in zip(left, right):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_radius_neighbors_equal_those_of_scikit_learn(X, metric, itself, dtype):
    X = X.astype(dtype)
    queries = None if itself else X[:50] + np.float32(0.1)
    ours = TorchNearestNeighbors(radius=RADIUS[metric], metric=metric).fit(X)
    theirs = brute(X.astype(float), metric)  # its float32 distances are off by 1e-7
    exact = None if itself else queries.astype(float)
    for sort in (False, True):
        distances, indices = ours.radius_neighbors(queries, sort_results=sort)
        expected, expected_indices = theirs.radius_neighbors(exact, sort_results=True)
        assert 2 < np.mean([len(row) for row in indices]) < 100
        for i, (near, index) in enumerate(zip(distances, indices)):
            order = near.argsort(kind="stable") if not sort else slice(None)
            assert near.dtype == dtype and index.dtype == np.int64
            assert (np.diff(near if sort else index) >= 0).all()
            np.testing.assert_array_equal(index[order], expected_indices[i])
            np.testing.assert_allclose(near[order], expected[i], rtol=1e-6, atol=1e-12)
    alone = ours.radius_neighbors(queries, RADIUS[metric], return_distance=False)
    assert_equal([alone], [ours.radius_neighbors(queries)[1]])


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
@pytest.mark.parametrize("itself", [False, True])
def test_radius_neighbors_graph_equals_that_of_scikit_learn(X, mode, itself):
    queries = None if itself else X[:50] + 0.1
    graph = TorchNearestNeighbors(radius=2.5).fit(X).radius_neighbors_graph(queries, mode=mode)
    expected = brute(X, "euclidean").radius_neighbors_graph(queries, mode=mode)
    np.testing.assert_allclose(graph.toarray(), expected.toarray(), rtol=1e-9)
    assert graph.format == "csr" and graph.nnz == expected.nnz
    narrow = TorchNearestNeighbors(radius=2.5).fit(X.astype(np.float32))
    assert narrow.radius_neighbors_graph(mode=mode).dtype == np.float32
    ordered = (
        TorchNearestNeighbors()
        .fit(X)
        .radius_neighbors_graph(queries, 2.5, "distance", sort_results=True)
    )
    assert all((np.diff(ordered[[i]].data) >= 0).all() for i in range(ordered.shape[0]))


@pytest.mark.parametrize("interface", ["spmatrix", "sparray"])
def test_graphs_have_the_interface_of_the_configuration(X, interface):
    search = TorchNearestNeighbors(radius=2.5).fit(X)
    with config_context(sparse_interface=interface):
        for graph in (search.kneighbors_graph(), search.radius_neighbors_graph()):
            assert sparse.isspmatrix(graph) == (interface == "spmatrix")
            assert type(graph) is type(brute(X, "euclidean").kneighbors_graph())


def test_a_sample_is_excluded_by_index_among_its_duplicates():
    X = np.array([[0.0], [0.0], [3.0]])
    indices = TorchNearestNeighbors(radius=0.0).fit(X).radius_neighbors(return_distance=False)
    assert [row.tolist() for row in indices] == [[1], [0], []]
    assert TorchNearestNeighbors().fit(X).radius_neighbors_graph(radius=0, mode="distance").nnz == 2


def test_a_radius_beyond_all_numbers_includes_all_samples():
    X = np.array([[0.0], [1e300], [3.0]])
    for radius in (10**400, np.inf, 1e308):
        search = TorchNearestNeighbors(radius=radius).fit(X)
        for given in (None, radius):
            assert search.radius_neighbors_graph(radius=given).nnz == 6


def test_of_equal_distances_the_lowest_index_is_first():
    X = np.array([[1.0], [0.0], [2.0], [0.0], [-1.0], [0.0], [1.0]])
    search = TorchNearestNeighbors(radius=1.0).fit(X)
    distances, indices = search.radius_neighbors([[0.0], [2.0]], sort_results=True)
    assert [row.tolist() for row in indices] == [[1, 3, 5, 0, 4, 6], [2, 0, 6]]
    assert [row.tolist() for row in distances] == [[0, 0, 0, 1, 1, 1], [0, 1, 1]]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_results_on_disk_equal_those_in_memory(tmp_path, monkeypatch, metric, dtype):
    monkeypatch.setattr(_streamed_search, "_RANGE_BYTES", 4 * 3 * 70)
    X = np.random.RandomState(1).randint(1, 6, (400, 3)).astype(dtype)  # many ties
    radius = {"euclidean": 2, "sqeuclidean": 4, "cosine": 0.01}[metric]
    memory = TorchNearestNeighbors(radius=radius, metric=metric).fit(X)
    bank = TorchNearestNeighbors(radius=radius, metric=metric, bank=tmp_path / "bank").fit(X)
    for queries in (None, X[:33], X[:33].astype("f8") + 0.5):
        for sort in (False, True):
            expected = memory.radius_neighbors(queries, sort_results=sort)
            assert np.mean([len(row) for row in expected[1]]) > 3
            assert_equal(bank.radius_neighbors(queries, sort_results=sort), expected)
    assert (bank.radius_neighbors_graph() != memory.radius_neighbors_graph()).nnz == 0


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
@pytest.mark.parametrize("n_jobs", [None, 1, 2])
def test_settings_do_not_show_in_the_result(X, batch_size, n_jobs):
    expected = TorchNearestNeighbors(radius=2.5).fit(X).radius_neighbors()
    search = TorchNearestNeighbors(radius=2.5, batch_size=batch_size, n_jobs=n_jobs).fit(X)
    assert_equal(search.radius_neighbors(), expected)


@pytest.mark.parametrize(
    "container",
    [
        sparse.csr_matrix,
        torch.tensor,
        np.ndarray.tolist,
        lambda X: pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])]),
    ],
)
def test_results_do_not_depend_on_the_container(X, container):
    expected = TorchNearestNeighbors().fit(X).radius_neighbors(X[:20], 2.5)
    found = TorchNearestNeighbors().fit(container(X)).radius_neighbors(container(X[:20]), 2.5)
    assert_equal(found, expected)


def test_dask_arrays_are_read_in_blocks(X):
    da = pytest.importorskip("dask.array")
    search = TorchNearestNeighbors(radius=2.5).fit(X)
    chunked = da.from_array(X[:50], chunks=(20, 8))
    assert_equal(search.radius_neighbors(chunked), search.radius_neighbors(X[:50]))
    assert (search.kneighbors_graph(chunked) != search.kneighbors_graph(X[:50])).nnz == 0


def test_invalid_arguments_are_refused(X):
    search = TorchNearestNeighbors().fit(X)
    with pytest.raises(ValueError, match="return_distance must be True if sort_results is True"):
        search.radius_neighbors(X, return_distance=False, sort_results=True)
    for bad in (-1, np.nan, -np.inf):
        with pytest.raises(ValueError, match="radius must be at least 0, got"):
            search.radius_neighbors(X, bad)
    with pytest.raises(TypeError, match="radius must be a number, got 'far'"):
        search.radius_neighbors(X, "far")
    with pytest.raises(ValueError, match="mode must be 'connectivity' or 'distance', got 'both'"):
        search.radius_neighbors_graph(X, mode="both")
    with pytest.raises(ValueError, match="'radius' parameter of TorchNearestNeighbors"):
        search.set_params(radius=-1.0).radius_neighbors(X)
    with pytest.raises(NotFittedError):
        TorchNearestNeighbors().radius_neighbors(X)


def test_distances_beyond_float32_are_refused_only_within_the_radius():
    X = np.array([[0.0], [3e38], [-3e38]], dtype=np.float32)
    search = TorchNearestNeighbors().fit(X)
    assert [row.tolist() for row in search.radius_neighbors(X, 1e38)[1]] == [[0], [1], [2]]
    with pytest.raises(ValueError, match="beyond 3.4e"):
        search.radius_neighbors(X, np.inf)


@pytest.mark.parametrize("metric", METRICS)
def test_device_agrees_with_the_cpu(X, tmp_path, device, metric):
    params = dict(radius=RADIUS[metric], metric=metric)
    expected = TorchNearestNeighbors(device="cpu", **params).fit(X).radius_neighbors()
    for bank in (None, tmp_path / "bank"):
        search = TorchNearestNeighbors(device=device, bank=bank, **params).fit(X)
        for found, other in zip(search.radius_neighbors(), expected):
            for one, near in zip(found, other):
                np.testing.assert_allclose(one, near, rtol=1e-12, atol=1e-12)
