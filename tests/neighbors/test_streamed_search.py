"""The search among samples on disk, against the search in one index."""

import os
import pickle
import shutil
import tempfile

import numpy as np
import pytest
import torch
from scipy import sparse

from skboundary import _part_writer
from skboundary._bank_folder import BankFolder
from skboundary._part_array import PartArray
from skboundary.neighbors import TorchNearestNeighbors, _exact_search, _streamed_search
from skboundary.networks import _sample_store

METRICS = ["euclidean", "sqeuclidean", "cosine"]


@pytest.fixture
def sizes(monkeypatch):
    """Set the number of samples in a part and in a range of the search."""

    def set_sizes(part, range_, d, itemsize=4):
        monkeypatch.setattr(_part_writer, "PART_BYTES", part * d * itemsize)
        monkeypatch.setattr(_streamed_search, "_RANGE_BYTES", range_ * d * 4)
        monkeypatch.setattr(_exact_search, "_BATCHES_TOGETHER", 1)

    return set_sizes


def permuted(n=160, d=8, seed=0):
    """Samples whose distances to the origin are equal up to the order of the summands."""
    rng = np.random.RandomState(seed)
    vectors = rng.randn(4, d)
    return np.stack([rng.permutation(vectors[i % 4]) for i in range(n)])


DATA = {
    "random": lambda: np.random.RandomState(0).randn(160, 8),
    "grid": lambda: np.random.RandomState(0).randint(0, 3, (160, 8)).astype(float),
    "duplicates": lambda: np.repeat(np.random.RandomState(0).randn(8, 8), 30, 0),
    "zeros": lambda: np.random.RandomState(0).randn(160, 8) * (np.arange(160) % 3 > 0)[:, None],
    "permuted": permuted,
    "offset": lambda: 1e4 + np.random.RandomState(0).randn(160, 8) / 100,
}


def assert_equal_to_memory(X, queries, path, *, k=7, **params):
    memory = TorchNearestNeighbors(k, **params).fit(X)
    bank = TorchNearestNeighbors(k, bank=path, **params).fit(X)
    for asked in (None, queries):
        expected, found = memory.kneighbors(asked), bank.kneighbors(asked)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[0].dtype == expected[0].dtype and found[1].dtype == expected[1].dtype
    return bank


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "data, parts",
    [*((data, (70, 50)) for data in DATA), ("grid", (33, 1000)), ("random", (160, 9))],
    ids=str,
)
def test_neighbors_equal_those_in_memory(tmp_path, sizes, data, metric, dtype, parts):
    X = DATA[data]().astype(dtype)
    sizes(*parts, 8, X.itemsize)
    queries = np.concatenate([X[::9] * 1.5, np.zeros((1, 8), dtype)])
    assert_equal_to_memory(X, queries, tmp_path / "bank", metric=metric, batch_size=60)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "i4", "f2", ">f8"])
def test_neighbors_equal_those_in_memory_for_other_dtypes(tmp_path, sizes, dtype):
    X = np.random.RandomState(0).randint(0, 5, (150, 8)).astype(dtype)
    sizes(40, 32, 8, 8)
    assert_equal_to_memory(X, X[:20], tmp_path / "bank")


@pytest.mark.parametrize("scale", [1e-200, 1e-40, 1e40, 1e200])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbors_equal_those_in_memory_at_any_scale(tmp_path, sizes, scale, metric):
    X = np.random.RandomState(0).randn(120, 8) * scale
    sizes(40, 32, 8, 8)
    memory = TorchNearestNeighbors(metric=metric).fit(X)
    bank = TorchNearestNeighbors(metric=metric, bank=tmp_path / "bank").fit(X)
    for queries in (None, X[:9] * 1.01, X[:3] * 1e-90, X[:3] * 1e90):
        expected, found = memory.kneighbors(queries), bank.kneighbors(queries)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-15)


def test_equal_roots_of_different_squares_keep_their_order(tmp_path, sizes):
    """Otherwise merging by roots would order them by index."""
    X = permuted(400)
    sizes(100, 50, 8, 8)
    squares = TorchNearestNeighbors(200, metric="sqeuclidean").fit(X).kneighbors(np.zeros((1, 8)))
    roots = np.sqrt(squares[0])
    different = np.diff(squares[0]) > 0
    assert (different & (np.diff(roots) == 0) & (np.diff(squares[1]) < 0)).any()
    assert_equal_to_memory(X, np.zeros((1, 8)), tmp_path / "bank", k=200)


@pytest.mark.parametrize("container", [sparse.csr_array, torch.tensor, np.asfortranarray])
def test_containers(tmp_path, sizes, container):
    X = np.random.RandomState(0).randn(90, 8) * (np.random.RandomState(1).rand(90, 8) > 0.5)
    sizes(40, 32, 8, 8)
    expected = TorchNearestNeighbors().fit(X).kneighbors(X[:30])
    bank = TorchNearestNeighbors(bank=tmp_path / "bank").fit(container(X))
    for left, right in zip(bank.kneighbors(container(X[:30])), expected):
        np.testing.assert_array_equal(left, right)


def test_one_range_of_a_single_sample_and_k_larger_than_a_range(tmp_path, sizes):
    X = np.random.RandomState(0).randn(13, 3)
    sizes(4, 1, 3, 8)
    assert_equal_to_memory(X, X[:5], tmp_path / "bank", k=12)
    bank = TorchNearestNeighbors(bank=tmp_path / "bank").fit(X)
    with pytest.raises(ValueError, match="n_neighbors = 13, n_samples_fit = 13"):
        bank.kneighbors(n_neighbors=13)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_method_by_lower_bounds_gives_the_same(tmp_path, sizes, monkeypatch, metric):
    from skboundary.functional import _search_methods

    monkeypatch.setattr(_search_methods, "_LEAST", (256, 16))
    monkeypatch.setattr(_search_methods, "_ENOUGH", 0)
    monkeypatch.setattr(_search_methods, "_FIXED", 0)
    rng = np.random.RandomState(0)
    X = (rng.randn(900, 6) @ rng.randn(6, 96) + rng.randn(900, 96) / 50).astype("f4")
    sizes(500, 320, 96)
    assert_equal_to_memory(X, X[:200] + 0.1, tmp_path / "bank", metric=metric)


def test_a_batch_that_runs_out_of_memory_is_merged_once(tmp_path, sizes, monkeypatch):
    X = np.random.RandomState(0).randn(120, 8)
    sizes(40, 32, 8, 8)
    search, failures = _streamed_search.search, []

    def failing(index, queries, *args, **kwargs):
        if len(queries) > 10:
            failures.append(len(queries))
            raise MemoryError
        return search(index, queries, *args, **kwargs)

    expected = TorchNearestNeighbors().fit(X).kneighbors()
    bank = TorchNearestNeighbors(bank=tmp_path / "bank").fit(X)
    monkeypatch.setattr(_streamed_search, "search", failing)
    for left, right in zip(bank.kneighbors(), expected):
        np.testing.assert_array_equal(left, right)
    assert failures


def test_partial_fit_appends(tmp_path, sizes):
    X = np.random.RandomState(0).randn(100, 4).astype("f4")
    sizes(30, 16, 4)
    bank = TorchNearestNeighbors(bank=tmp_path / "bank")
    for start, stop in ((0, 37), (37, 38), (38, 100)):
        bank.partial_fit(X[start:stop])
        expected = TorchNearestNeighbors().fit(X[:stop]).kneighbors(X[:20])
        for left, right in zip(bank.kneighbors(X[:20]), expected):
            np.testing.assert_array_equal(left, right)
    assert bank.n_samples_fit_ == 100
    bank.partial_fit(np.ones((3, 4), "i2"))
    assert bank.n_samples_fit_ == 103
    with pytest.raises(ValueError, match=r"holds latent \(float32"):
        bank.partial_fit(X.astype(float))
    assert bank.n_samples_fit_ == 103


def test_an_existing_bank_is_opened_and_not_written_again(tmp_path, sizes, monkeypatch):
    X = np.random.RandomState(0).randn(100, 4)
    sizes(30, 16, 4, 8)
    path = tmp_path / "bank"
    first = TorchNearestNeighbors(bank=path).fit(X)
    times = {file: os.stat(path / file).st_mtime_ns for file in os.listdir(path)}
    second = TorchNearestNeighbors(bank=str(path)).fit(X)
    assert times == {file: os.stat(path / file).st_mtime_ns for file in os.listdir(path)}
    for left, right in zip(first.kneighbors(), second.kneighbors()):
        np.testing.assert_array_equal(left, right)
    for Z, params, message in [
        (X[::-1], {}, "holds other samples than X in the range 0 to 29"),
        (np.concatenate([X[:99], X[:1]]), {}, "other samples than X in the range 90 to 99"),
        (X[:60], {}, "holds 100 samples, more than the 60 of X"),
        (X, {"metric": "cosine"}, "written with metric='euclidean', not 'cosine'"),
        (X.astype("f4"), {}, "written with samples="),
        (X[:, :3], {}, "written with samples="),
    ]:
        with pytest.raises(ValueError, match=message):
            TorchNearestNeighbors(bank=path, **params).fit(Z)


def test_an_interrupted_fit_continues(tmp_path, sizes, monkeypatch):
    X = np.random.RandomState(0).randn(100, 4)
    sizes(30, 16, 4, 8)
    monkeypatch.setattr(_exact_search, "BATCH_BYTES", 8 * 4 * 10)  # blocks of ten
    neighbors = TorchNearestNeighbors(bank=tmp_path / "bank")
    keys, calls = _sample_store.sample_keys, []

    def interrupted(some):
        calls.append(len(some))
        if sum(calls) > 75:
            raise KeyboardInterrupt
        return keys(some)

    with monkeypatch.context() as patch:
        patch.setattr("skboundary.neighbors._bank_writing.sample_keys", interrupted)
        with pytest.raises(KeyboardInterrupt):
            neighbors.fit(X)
    assert not hasattr(neighbors, "n_samples_fit_")
    folder = BankFolder.open(tmp_path / "bank")
    assert folder.n_samples == 70 and not folder.complete
    neighbors.fit(X)
    assert [part["stop"] for part in BankFolder.open(tmp_path / "bank").parts] == [
        30, 60, 70, 100,
    ]  # fmt: skip
    expected = TorchNearestNeighbors().fit(X).kneighbors()
    for left, right in zip(neighbors.kneighbors(), expected):
        np.testing.assert_array_equal(left, right)


def test_an_interrupted_partial_fit_continues_and_leaves_the_estimator(tmp_path, sizes):
    X = np.random.RandomState(0).randn(100, 4)
    sizes(30, 16, 4, 8)
    neighbors = TorchNearestNeighbors(bank=tmp_path / "bank").fit(X[:50])
    before = neighbors.kneighbors()
    other = pickle.loads(pickle.dumps(neighbors))
    other._write(other._index.bank.reopened(), X[50:70], first=50)  # as if it had stopped there
    for left, right in zip(neighbors.kneighbors(), before):
        np.testing.assert_array_equal(left, right)
    with pytest.raises(ValueError, match="other samples than X in the range 0 to 19"):
        neighbors.partial_fit(X[:50])
    assert neighbors.n_samples_fit_ == 50
    neighbors.partial_fit(X[50:])
    expected = TorchNearestNeighbors().fit(X).kneighbors()
    for left, right in zip(neighbors.kneighbors(), expected):
        np.testing.assert_array_equal(left, right)


def test_a_pickle_holds_the_path(tmp_path, sizes):
    X = np.random.RandomState(0).randn(2000, 64)
    path = tmp_path / "bank"
    neighbors = TorchNearestNeighbors(bank=path).fit(X)
    pickled = pickle.dumps(neighbors)
    assert len(pickled) < 5000 and isinstance(neighbors._index.samples, PartArray)
    for left, right in zip(pickle.loads(pickled).kneighbors(X[:9]), neighbors.kneighbors(X[:9])):
        np.testing.assert_array_equal(left, right)
    shutil.rmtree(path)
    again = pickle.loads(pickled)
    with pytest.raises(ValueError, match="There is no bank in"):
        again.kneighbors(X[:9])


def test_numbers_that_are_not_finite_are_refused(tmp_path, sizes):
    X = np.random.RandomState(0).randn(100, 4)
    sizes(30, 16, 4, 8)
    neighbors = TorchNearestNeighbors(bank=tmp_path / "bank").fit(X)
    file = tmp_path / "bank" / "latent-00001.npy"
    part = np.load(file)
    part[3] = np.nan
    np.save(file, part)
    with pytest.raises(ValueError, match="NaN or infinity among its samples 32 to 47"):
        neighbors.kneighbors(X[:3])


def test_another_fit_without_a_bank_forgets_it():
    X = np.random.RandomState(0).randn(40, 4)
    with tempfile.TemporaryDirectory() as folder:
        neighbors = TorchNearestNeighbors(bank=f"{folder}/bank").fit(X)
        neighbors.set_params(bank=None).fit(X[:30])
    assert neighbors.kneighbors()[1].shape == (30, 5)


def test_device_agrees_with_the_cpu(tmp_path, sizes, device):
    X = np.random.RandomState(0).randn(100, 4).astype("f4")
    sizes(30, 16, 4)
    cpu = TorchNearestNeighbors(bank=tmp_path / "bank", device="cpu").fit(X)
    other = TorchNearestNeighbors(bank=tmp_path / "bank", device=device).fit(X)
    for asked in (None, X[:9]):
        for left, right in zip(other.kneighbors(asked), cpu.kneighbors(asked)):
            np.testing.assert_allclose(left, right, rtol=1e-6)
