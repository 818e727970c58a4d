"""Methods that take dask arrays, without a cluster: lazy, by chunks, equal to the serial form."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from skboundary import (
    BiasedExtrapolationClassifier,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentKNNClassifierCV,
    LatentTransformer,
    LogitAdjustedClassifier,
    SubspaceMargins,
    TorchNearestNeighbors,
)
from skboundary._task_store import task_folder
from skboundary.neighbors import _sharded_search

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")


@pytest.fixture(autouse=True)
def folder(tmp_path):
    """The temporary directory of dask, and threads in place of any cluster."""
    with dask.config.set({"temporary-directory": str(tmp_path), "scheduler": "threads"}):
        yield tmp_path


def chunked(X, size=64):
    return da.from_array(X, chunks=(size, *X.shape[1:]))


def serial(method, X, size=64, **options):
    """Results of a method chunk by chunk."""
    parts = [method(X[i : i + size], **options) for i in range(0, len(X), size)]
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(part) for part in zip(*parts))
    return np.concatenate(parts)


def assert_same(lazy, expected, sizes):
    """Whether a dask array announces and holds what is expected."""
    assert lazy.shape == expected.shape and lazy.dtype == expected.dtype
    assert lazy.chunks[0] == sizes and all(len(c) == 1 for c in lazy.chunks[1:])
    found = lazy.compute()
    assert type(found) is np.ndarray and found.dtype == expected.dtype
    assert_array_equal(found, expected)


KNN = LatentKNNClassifier(random_state=0)
CASES = {
    "latent": (LatentTransformer(random_state=0), ["transform"]),
    "knn": (KNN, ["predict", "predict_proba", "kneighbors", "score_samples"]),
    "knn, votes by distance": (
        LatentKNNClassifier(weights="distance", random_state=0),
        ["predict_proba"],
    ),
    "knn, named search": (
        LatentKNNClassifier(LogisticRegression(), neighbors=NearestNeighbors()),
        ["predict_proba", "kneighbors", "score_samples"],
    ),
    "neighbors": (TorchNearestNeighbors(), ["kneighbors"]),
    "boundary": (BoundarySampleExtractor(random_state=0, effort="fast"), ["transform"]),
    "distance": (
        BoundarySampleExtractor(random_state=0, effort="fast", returns="distance"),
        ["transform"],
    ),
    "class distances": (
        BoundarySampleExtractor(LogisticRegression(), returns="class_distances"),
        ["transform"],
    ),
    "margins": (SubspaceMargins(random_state=0, max_iter=5), ["transform"]),
    "margins, labels": (
        SubspaceMargins(LogisticRegression(), method="label", max_iter=2, random_state=0),
        ["transform"],
    ),
    "knn, chosen": (
        LatentKNNClassifierCV(LogisticRegression(), random_state=0),
        ["predict", "predict_proba"],
    ),
    "adjusted": (LogitAdjustedClassifier(LogisticRegression()), ["predict", "predict_proba"]),
    "resampled": (
        BiasedExtrapolationClassifier(n_iter=1, random_state=0),
        ["predict", "predict_proba"],
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_a_dask_array_gives_what_its_chunks_give(name, dtype, iris):
    model, methods = CASES[name]
    X, y = iris
    X, y = X.astype(dtype), np.array(["a", "b", "c"])[y]
    model = model.fit(X, y)
    sizes = chunked(X).chunks[0]
    for method in map(model.__getattribute__, methods):
        lazy, expected = method(chunked(X)), serial(method, X)
        if isinstance(expected, tuple):
            for array, values in zip(lazy, expected, strict=True):
                assert_same(array, values, sizes)
        else:
            assert_same(lazy, expected, sizes)


def test_images_and_the_frozen_network(digits, cnn):
    X, _ = digits
    network = FrozenNetwork(cnn, classes=np.arange(10))
    for model in (network, LatentTransformer(cnn).fit(X[:64])):
        for name in {"predict", "predict_proba", "transform"} & {*dir(model)}:
            method = getattr(model, name)
            assert_same(method(chunked(X[:200])), serial(method, X[:200]), (64, 64, 64, 8))
    boundary = BoundarySampleExtractor(cnn, effort="fast").fit(X[:64])
    expected = serial(boundary.transform, X[:100])
    assert_same(boundary.transform(chunked(X[:100])), expected, (64, 36))


def test_arguments_are_passed_on(iris):
    X, y = iris
    model = TorchNearestNeighbors().fit(X)
    distances, indices = model.kneighbors(chunked(X), 3)
    assert distances.shape == indices.shape == (150, 3)
    alone = model.kneighbors(X=chunked(X), n_neighbors=2, return_distance=False)
    assert_array_equal(alone.compute(), model.kneighbors(X, 2, return_distance=False))
    with pytest.raises(ValueError, match="n_neighbors <= n_samples_fit"):
        model.kneighbors(chunked(X), 151)
    knn = KNN.fit(X, y)
    alone = knn.kneighbors(chunked(X), 4, return_distance=False)
    assert_array_equal(alone.compute(), serial(knn.kneighbors, X, n_neighbors=4)[1])
    with pytest.raises(ValueError, match="n_neighbors <= n_samples_fit"):
        knn.kneighbors(chunked(X), 151)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_a_bank_is_searched_range_by_range(metric, dtype, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3, size=(300, 4)).astype(dtype) * 2**-0.5  # many ties
    queries = chunked(X[:100], 40)
    in_memory = TorchNearestNeighbors(7, metric=metric).fit(X)
    on_disk = TorchNearestNeighbors(7, metric=metric, bank=tmp_path / "bank").fit(X)
    monkeypatch.setattr(_sharded_search, "_RANGE_BYTES", 4 * 4 * 64)
    lazy = on_disk.kneighbors(queries)
    names = {str(key) for key in lazy[0].__dask_graph__()}
    assert sum("search_range-" in name for name in names) == 3 * 5
    for found, expected in zip(lazy, serial(in_memory.kneighbors, X[:100], 40)):
        assert_same(found, expected, (40, 40, 20))
    alone = on_disk.kneighbors(queries, 2, return_distance=False)
    assert_array_equal(alone.compute(), in_memory.kneighbors(X[:100], 2)[1])


def test_a_classifier_with_a_bank_is_searched_range_by_range(iris, tmp_path, monkeypatch):
    X, y = iris
    base = LatentTransformer(random_state=0).fit(X, y).estimator_
    in_memory = LatentKNNClassifier(FrozenEstimator(base)).fit(X, y)
    on_disk = LatentKNNClassifier(FrozenEstimator(base), bank=tmp_path / "bank").fit(X, y)
    monkeypatch.setattr(_sharded_search, "_RANGE_BYTES", 4 * 64 * 40)
    for found, expected in zip(on_disk.kneighbors(chunked(X)), serial(in_memory.kneighbors, X)):
        assert_same(found, expected, (64, 64, 22))
    for method in ("predict", "predict_proba", "score_samples"):
        expected = serial(getattr(in_memory, method), X)
        assert_same(getattr(on_disk, method)(chunked(X)), expected, (64, 64, 22))


def test_unknown_and_empty_chunks(iris):
    X, y = iris
    model = KNN.fit(X, y)
    lazy = chunked(X)
    some = lazy[lazy[:, 0] > 6]  # chunks of unknown size, the first of which is empty
    some = da.concatenate([lazy[:0], some])
    assert np.isnan(some.shape[0])
    assert_array_equal(model.predict(some).compute(), serial(model.predict, X)[X[:, 0] > 6])
    distances, _ = model.kneighbors(some)
    assert distances.compute().shape == (sum(X[:, 0] > 6), 3)


def test_what_cannot_be_mapped_is_refused(iris):
    X, y = iris
    model = LatentTransformer(random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=r"chunks of shape \(64, 2\), which divide samples"):
        model.transform(chunked(X).rechunk((64, 2)))
    with pytest.raises(ValueError, match=r"samples of shape \(3,\)"):
        model.transform(chunked(X[:, :3]))
    with pytest.raises(ValueError, match="set_output"):
        model.set_output(transform="pandas").transform(chunked(X))
    model.set_output(transform="default")
    bad = X.copy()
    bad[100, 1] = np.nan
    lazy = model.transform(chunked(bad))  # nothing is computed yet
    with pytest.raises(ValueError, match=r"samples 64 to 127 of X: .* NaN in sample 36\."):
        lazy.compute()


class Recorded(ClassifierMixin, BaseEstimator):
    """Write the number of samples of each call to a file; fail as often as another file says."""

    def __init__(self, folder):
        self.folder = folder

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        marker = Path(self.folder, "failures")
        if len(X) and X[0, 0] == 64 and marker.exists():
            left = int(marker.read_text())
            if left:
                marker.write_text(str(left - 1))
                raise OSError("no answer")
        with open(Path(self.folder, "calls"), "a") as file:
            file.write(f"{len(X)}\n")
        p = np.clip(X[:, :1] / 200, 0, 1)
        return np.hstack([1 - p, p])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]

    def calls(self):
        path = Path(self.folder, "calls")
        text = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return [int(n) for n in text]


@pytest.fixture
def recorded(tmp_path):
    """A fitted LatentKNNClassifier around a Recorded one, and samples."""
    X = np.arange(150.0)[:, None] * [1, 0.5]
    base = Recorded(str(tmp_path))
    model = LatentKNNClassifier(base, batch_size=64).fit(X, (X[:, 0] > 99).astype(int))
    base.calls()
    return model, base, X


def test_finished_chunks_are_not_computed_again(recorded):
    model, base, X = recorded
    found = model.predict(chunked(X)).compute()
    assert sorted(base.calls()) == [22, 64, 64]
    assert_array_equal(model.predict(chunked(X)).compute(), found)
    assert not base.calls()
    other = X.copy()
    other[70] += 0.25  # one of its chunks is another one
    model.predict(chunked(other)).compute()
    assert base.calls() == [64]
    model.set_params(query_weight=0.5).predict(chunked(X)).compute()
    assert sorted(base.calls()) == [22, 64, 64]  # nor are results of other parameters used


def test_a_chunk_is_tried_three_times(recorded, tmp_path):
    model, base, X = recorded
    (tmp_path / "failures").write_text("2")
    found = model.predict(chunked(X)).compute()
    assert_array_equal(found, serial(model.predict, X))
    model.set_params(query_weight=0.5)
    (tmp_path / "failures").write_text("3")
    lazy = model.predict(chunked(X))
    base.calls()
    with pytest.raises(RuntimeError, match="samples 64 to 127 of X failed 3 times .*OSError"):
        lazy.compute(scheduler="synchronous")
    assert not list(task_folder().glob("tries-*"))
    before = base.calls()
    lazy.compute()  # the failures are over: only what is missing is computed
    assert sorted(before + base.calls()) == [22, 64, 64]


def test_the_folder_of_the_tasks_belongs_to_the_user(folder):
    path = task_folder()
    assert path.parent == folder and path.stat().st_mode & 0o077 == 0
    path.chmod(0o777)
    with pytest.raises(ValueError, match="not a folder that only this user can write to"):
        task_folder()
    path.rmdir()
    path.symlink_to(folder)
    with pytest.raises(ValueError, match="not a folder"):
        task_folder()


def test_large_parts_travel_as_paths(tmp_path):
    pytest.importorskip("distributed")
    from distributed.protocol import deserialize, serialize

    from skboundary._file_array import FileArray
    from skboundary._task_store import TaskStore

    values = np.arange(12.0).reshape(4, 3)
    found, path = TaskStore(str(tmp_path), "run").finish("key", "all", lambda: (values, values + 1))
    array = FileArray.of(found[1], path, 1)
    header, frames = serialize(array)
    assert sum(map(len, frames)) == 0
    moved = deserialize(header, frames)
    assert type(moved) is np.ndarray and moved.flags.writeable
    assert_array_equal(moved, values + 1)
    with pytest.raises(ValueError, match="read-only"):
        array += 1  # its file would be another one
    for derived in (array[1:], array * 2, array.copy(), array.T):
        assert_array_equal(deserialize(*serialize(derived)), np.asarray(derived))
    path.unlink()
    assert_array_equal(deserialize(*serialize(array)), values + 1)


def test_dask_is_not_imported_without_need():
    code = (
        "import sys, numpy as np\n"
        "from skboundary import *\n"
        "X, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2\n"
        "BoundarySampleExtractor(effort='fast').fit(X, y).transform(X)\n"
        "TorchNearestNeighbors().fit(X).kneighbors(X)\n"
        "assert not {'dask', 'distributed'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_estimator_with_a_lazy_result_holds_no_graph(iris):
    X, y = iris
    model = KNN.fit(X, y)
    before = pickle.dumps(model)
    model.predict(chunked(X)).compute()
    assert b"dask" not in pickle.dumps(model) and len(pickle.dumps(model)) == len(before)
