"""TorchNearestNeighbors: scikit-learn's conventions around the exact search."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.over_sampling import SMOTE
from imblearn.under_sampling import EditedNearestNeighbours, NearMiss, NeighbourhoodCleaningRule
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors

import skboundary
from skboundary import _random
from skboundary.exceptions import DeviceWarning
from skboundary.functional._search_index import Method
from skboundary.neighbors import _streamed_search
from skboundary.neighbors._exact import TorchNearestNeighbors

METRICS = ["euclidean", "sqeuclidean", "cosine"]


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(300, 8)


def brute(X, metric="euclidean", n_neighbors=5):
    return NearestNeighbors(n_neighbors=n_neighbors, metric=metric, algorithm="brute").fit(X)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("itself", [False, True])
def test_kneighbors_equal_those_of_scikit_learn(X, metric, itself):
    queries = None if itself else X[:50] + 0.1
    distances, indices = TorchNearestNeighbors(metric=metric).fit(X).kneighbors(queries)
    expected, expected_indices = brute(X, metric).kneighbors(queries)
    np.testing.assert_array_equal(indices, expected_indices)
    np.testing.assert_allclose(distances, expected, rtol=1e-9, atol=1e-14)
    assert indices.dtype == np.int64


@pytest.mark.parametrize("mode", ["connectivity", "distance"])
@pytest.mark.parametrize("itself", [False, True])
def test_kneighbors_graph_equals_that_of_scikit_learn(X, mode, itself):
    queries = None if itself else X[:50] + 0.1
    graph = TorchNearestNeighbors().fit(X).kneighbors_graph(queries, mode=mode)
    expected = brute(X).kneighbors_graph(queries, mode=mode)
    np.testing.assert_allclose(graph.toarray(), expected.toarray(), rtol=1e-9)
    assert graph.format == "csr"


def test_a_sample_is_excluded_by_index_among_its_duplicates():
    X = np.array([[0.0], [0.0], [0.0], [9.0]])
    indices = TorchNearestNeighbors(2).fit(X).kneighbors(return_distance=False)
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("f2", "f4"),
        ("f4", "f4"),
        ("f8", "f8"),
        ("?", "f4"),
        ("u1", "f4"),
        ("i2", "f4"),
        ("u2", "f4"),
        ("i4", "f8"),
        ("u4", "f8"),
        ("i8", "f8"),
        (">f8", "f8"),
    ],
)
def test_distances_have_the_dtype_of_the_computation(dtype, expected):
    X = np.random.RandomState(0).randint(0, 100, (40, 3)).astype(dtype)
    distances, _indices = TorchNearestNeighbors(3).fit(X).kneighbors(X)
    assert distances.dtype == expected
    reference = brute(X.astype(float), n_neighbors=3).kneighbors(X.astype(float))[0]
    np.testing.assert_allclose(distances, reference, rtol=1e-6, atol=1e-12)


def test_large_integers_are_not_rounded():
    X = np.array([[2**40], [2**40 + 1], [2**40 + 3]])
    indices = TorchNearestNeighbors(2).fit(X).kneighbors(return_distance=False)
    assert indices.tolist() == [[1, 2], [0, 2], [1, 0]]


@pytest.mark.parametrize(
    "container",
    [
        sparse.csr_matrix,
        sparse.csc_array,
        torch.tensor,
        np.asfortranarray,
        np.ndarray.tolist,
        lambda X: X[::-1][::-1],
        lambda X: torch.tensor(X, requires_grad=True),
        lambda X: pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])]),
    ],
)
def test_kneighbors_do_not_depend_on_the_container(X, container):
    expected = TorchNearestNeighbors().fit(X).kneighbors(X[:20])
    found = TorchNearestNeighbors().fit(container(X)).kneighbors(container(X[:20]))
    for left, right in zip(found, expected):
        np.testing.assert_array_equal(left, right)


def test_read_only_samples_cause_no_warning(X, recwarn):
    X.flags.writeable = False
    TorchNearestNeighbors().fit(X).kneighbors(X)
    assert not recwarn.list


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_kneighbors_do_not_depend_on_the_batch_size(X, batch_size):
    expected = TorchNearestNeighbors().fit(X).kneighbors()
    found = TorchNearestNeighbors(batch_size=batch_size).fit(X).kneighbors()
    for left, right in zip(found, expected):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("dtypes", [("f8", "f8"), ("u1", "i8"), ("u1", "f4"), ("f4", "f8")])
def test_partial_fit_of_parts_equals_fit_of_the_whole(X, dtypes):
    parts = [(40 * X[:100]).astype(dtypes[0]), (40 * X[100:]).astype(dtypes[1])]
    appended = TorchNearestNeighbors().partial_fit(parts[0]).partial_fit(parts[1])
    whole = TorchNearestNeighbors().fit(np.concatenate([p.astype(float) for p in parts]))
    np.testing.assert_array_equal(appended.kneighbors()[1], whole.kneighbors()[1])
    assert appended.n_samples_fit_ == 300


@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean"])
def test_the_metric_takes_effect_at_the_next_fit(X, metric):
    neighbors = TorchNearestNeighbors().fit(X)
    expected = neighbors.kneighbors(X[:20] + 1)
    neighbors.set_params(metric=metric)
    loaded = pickle.loads(pickle.dumps(neighbors))
    halves = TorchNearestNeighbors().fit(X[:150]).set_params(metric=metric)
    for other in (neighbors, loaded, halves.partial_fit(X[150:])):
        assert other.effective_metric_ == "euclidean"
        np.testing.assert_array_equal(other.kneighbors(X[:20] + 1), expected)
    assert neighbors.fit(X).effective_metric_ == metric
    assert not np.array_equal(neighbors.kneighbors(X[:20] + 1)[0], expected[0])


@pytest.mark.parametrize(
    "params", [{"batch_size": 0}, {"n_neighbors": "2"}, {"n_neighbors": 0}, {"metric": "l1"}]
)
def test_invalid_parameters_are_named_where_they_take_effect(X, params):
    neighbors = TorchNearestNeighbors().fit(X).set_params(**params)
    message = f"The '{next(iter(params))}' parameter of TorchNearestNeighbors must be"
    for ask in (neighbors.kneighbors, neighbors.kneighbors_graph):
        with pytest.raises(ValueError, match=message):
            ask(X)


def test_distances_beyond_float32_are_refused():
    X = np.array([[3e38, 3e38], [-3e38, -3e38]])
    assert TorchNearestNeighbors(2).fit(X).kneighbors(X)[0].max() == pytest.approx(8.485e38, 1e-3)
    neighbors = TorchNearestNeighbors(2).fit(X.astype("f4"))
    with pytest.raises(ValueError, match="8.5e.38 is beyond 3.4e.38.*float32.*as float64"):
        neighbors.kneighbors(X)


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-60, 2.0**100])
def test_float32_distances_have_the_unit_of_the_samples(scale):
    X = np.random.RandomState(0).randint(-99, 100, (200, 4)).astype("f4")
    distances, indices = TorchNearestNeighbors().fit(X).kneighbors()
    scaled = TorchNearestNeighbors().fit(X * np.float32(scale)).kneighbors()
    np.testing.assert_array_equal(scaled[1], indices)
    assert scaled[0].dtype == np.float32
    error = 2.0**-149 if scale == 2.0**-140 else 0  # denormal numbers are rounded
    np.testing.assert_allclose(scaled[0], distances.astype(float) * scale, rtol=0, atol=error)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_fit_does_not_copy_a_memory_map(tmp_path, mode, recwarn):
    written = np.memmap(tmp_path / "X", dtype="f4", mode="w+", shape=(40, 3))
    written[:] = np.arange(120).reshape(40, 3)
    written.flush()
    X = np.memmap(tmp_path / "X", dtype="f4", mode=mode, shape=(40, 3))
    neighbors = TorchNearestNeighbors().fit(X)
    assert neighbors._index.samples.data_ptr() == X.__array_interface__["data"][0]
    assert neighbors.kneighbors(X[:1])[1].tolist() == [[0, 1, 2, 3, 4]]
    assert not recwarn.list


MAPPED = """
import resource, sys
import numpy as np
from skboundary.neighbors import TorchNearestNeighbors
path, mode, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
X = np.memmap(path, dtype="f4", mode=mode, shape=(rows, 256))
TorchNearestNeighbors(device="cpu").fit(X[:600])
def private():  # anonymous memory: pages of the map itself can be given back at any time
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
before = private()
model = TorchNearestNeighbors(device="cpu").fit(X)
print((private() - before) / X.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_fit_of_a_memory_map_takes_its_size_once(tmp_path, mode):
    rows = 300_000
    np.memmap(tmp_path / "X", dtype="f4", mode="w+", shape=(rows, 256)).flush()
    root = Path(skboundary.__file__).parents[1]
    command = [sys.executable, "-c", MAPPED, str(tmp_path / "X"), mode, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert 0.9 < float(done.stdout) < 1.2


def test_partial_fit_refuses_another_number_of_columns(X):
    with pytest.raises(ValueError, match="7 features, but .* expecting 8"):
        TorchNearestNeighbors().partial_fit(X).partial_fit(X[:, :7])


def test_too_many_neighbors_raise_the_error_of_scikit_learn(X):
    ours, theirs = TorchNearestNeighbors().fit(X[:5]), brute(X[:5])
    for queries, k in ((X[:3], 6), (None, 5), (X[:3], 0), (X[:3], -1)):
        with pytest.raises(ValueError) as expected:
            theirs.kneighbors(queries, k)
        with pytest.raises(ValueError) as error:
            ours.kneighbors(queries, k)
        assert str(error.value) == str(expected.value)
    with pytest.raises(TypeError, match="enter integer value"):
        ours.kneighbors(X[:3], 2.5)


def test_kneighbors_are_sorted_if_all_samples_are_neighbors(X):
    indices = TorchNearestNeighbors().fit(X).kneighbors(X[:4], 300, return_distance=False)
    assert (np.sort(indices, axis=1) == np.arange(300)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_named(X, bad):
    neighbors = TorchNearestNeighbors().fit(X)
    X[7, 3] = bad
    for method in (neighbors.fit, neighbors.partial_fit, neighbors.kneighbors):
        with pytest.raises(ValueError, match="sample 7"):
            method(X)


def test_fit_refuses_images_with_advice():
    with pytest.raises(ValueError, match="dim 4.*reshape.*LatentTransformer"):
        TorchNearestNeighbors().fit(np.zeros((5, 1, 4, 4)))


def test_invalid_arguments_of_kneighbors_are_refused(X):
    with pytest.raises(NotFittedError):
        TorchNearestNeighbors().kneighbors("not even rows")
    with pytest.raises(NotFittedError):
        TorchNearestNeighbors().kneighbors_graph()
    with pytest.raises(ValueError, match="mode"):
        TorchNearestNeighbors().fit(X).kneighbors_graph(mode="weights")
    with pytest.raises(ValueError, match="device='tape'"):
        TorchNearestNeighbors(device="tape").fit(X)


def test_a_pickle_of_a_fitted_search_is_small_and_equal(X):
    neighbors = TorchNearestNeighbors().fit(X)
    data = pickle.dumps(neighbors)
    assert len(data) < X.nbytes + 3000
    loaded = pickle.loads(data)
    for left, right in zip(loaded.kneighbors(), neighbors.kneighbors()):
        np.testing.assert_array_equal(left, right)


def test_a_pickle_of_an_absent_device_can_be_loaded(X):
    neighbors = TorchNearestNeighbors().fit(X)
    neighbors.device_ = torch.device("cuda", 63)
    data = pickle.dumps(neighbors)
    with pytest.warns(DeviceWarning, match="fitted on 'cuda:63', which is not available"):
        loaded = pickle.loads(data)
    assert loaded.device_ == TorchNearestNeighbors().fit(X).device_
    expected = TorchNearestNeighbors().fit(X).kneighbors()
    np.testing.assert_array_equal(loaded.kneighbors()[1], expected[1])


def test_a_pickle_of_an_unfitted_search_can_be_loaded():
    assert pickle.loads(pickle.dumps(TorchNearestNeighbors(3))).n_neighbors == 3


def test_fit_does_not_write_back_parameters(X):
    neighbors = TorchNearestNeighbors()
    before = neighbors.get_params()
    neighbors.fit(X).kneighbors(X, 3)
    assert neighbors.get_params() == before
    assert not hasattr(clone(neighbors), "n_samples_fit_")


def test_smote_with_this_search_gives_the_same_samples(X):
    y = np.r_[np.zeros(260), np.ones(40)]
    ours = SMOTE(k_neighbors=TorchNearestNeighbors(6), random_state=0).fit_resample(X, y)
    theirs = SMOTE(k_neighbors=5, random_state=0).fit_resample(X, y)
    np.testing.assert_allclose(ours[0], theirs[0])


UNDER_SAMPLERS = {
    "EditedNearestNeighbours": lambda search: EditedNearestNeighbours(
        n_neighbors=search(4), n_jobs=2
    ),
    "NearMiss": lambda search: NearMiss(n_neighbors=search(3), n_jobs=2),
    "NearMiss-3": lambda search: NearMiss(
        version=3, n_neighbors=search(3), n_neighbors_ver3=search(3), n_jobs=-1
    ),
    # it also needs `predict` of what is given as n_neighbors, so the search is that of its rule
    "NeighbourhoodCleaningRule": lambda search: NeighbourhoodCleaningRule(
        edited_nearest_neighbours=EditedNearestNeighbours(n_neighbors=search(4), n_jobs=2)
    ),
}


@pytest.mark.parametrize("name", UNDER_SAMPLERS)
def test_under_samplers_that_set_n_jobs_give_the_same_samples(X, name):
    y = (X[:, 0] + X[:, 1] > 0.8).astype(int)
    X_new, y_new = UNDER_SAMPLERS[name](TorchNearestNeighbors).fit_resample(X, y)
    brute = partial(NearestNeighbors, algorithm="brute")
    expected, expected_y = UNDER_SAMPLERS[name](lambda k: brute(n_neighbors=k)).fit_resample(X, y)
    assert len(X_new) < len(X)
    np.testing.assert_array_equal(X_new, expected)
    np.testing.assert_array_equal(y_new, expected_y)


@pytest.mark.parametrize(
    ("n_jobs", "expected"), [(None, 3), (1, 1), (2, 2), (99, 4), (-1, 4), (-2, 3), (-99, 1)]
)
def test_n_jobs_are_the_threads_of_a_search(X, monkeypatch, n_jobs, expected):
    monkeypatch.setattr(_random, "cpu_count", lambda: 4)
    used, inner = [], _streamed_search.search
    monkeypatch.setattr(
        _streamed_search,
        "search",
        lambda *args, **kwargs: used.append(torch.get_num_threads()) or inner(*args, **kwargs),
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        search = TorchNearestNeighbors(n_jobs=n_jobs).fit(X)
        want = search.kneighbors()
        assert used == [expected] and torch.get_num_threads() == 3
        with pytest.raises(ValueError, match="n_neighbors < n_samples_fit"):
            search.kneighbors(n_neighbors=300)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(want, TorchNearestNeighbors().fit(X).kneighbors())


@pytest.mark.parametrize("metric", METRICS)
def test_sums_of_many_columns_do_not_depend_on_the_number_of_threads(metric):
    X = np.random.RandomState(0).randn(3, 40_000)
    search = TorchNearestNeighbors(1, metric=metric).fit(X)  # each query has one candidate: one sum
    queries = X[:1] + np.random.RandomState(1).randn(6, 40_000) / 3
    found = [
        [search.set_params(n_jobs=n_jobs).kneighbors(query[None])[0] for query in queries]
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("n_jobs", [0, 1.5, "all"])
def test_invalid_n_jobs_are_refused(X, n_jobs):
    with pytest.raises(ValueError, match="'n_jobs' parameter of TorchNearestNeighbors"):
        TorchNearestNeighbors(n_jobs=n_jobs).fit(X)


def test_a_method_chosen_by_speed_does_not_show_in_copies_or_added_samples(X):
    neighbors = TorchNearestNeighbors().fit(X)
    expected = neighbors.kneighbors(X[:100])
    neighbors._index.tables.methods[5] = Method(4, torch.float32)
    halves = TorchNearestNeighbors().fit(X[:150])
    halves._index.tables.methods[5] = Method(4, torch.float32)
    halves.kneighbors(X[:100])
    for other in (neighbors, copy.deepcopy(neighbors), halves.partial_fit(X[150:])):
        for found, distances in zip(other.kneighbors(X[:100]), expected):
            np.testing.assert_array_equal(found, distances)
