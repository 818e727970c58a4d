"""LatentKNNClassifier with its training samples in a folder."""

import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skboundary import FrozenNetwork, LatentKNNClassifier, _part_writer, _sample_array
from skboundary._bank_folder import BankFolder
from skboundary.io import load, save
from skboundary.neighbors import _bank, _bank_writing, _storage, _streamed_search
from skboundary.networks._torch_network import TorchNetwork
from tests.conftest import Recording


@pytest.fixture
def split(digits):
    X, y = digits
    return X[:250], y[:250], X[250:320], y[250:320]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Parts of 60 latent vectors of the CNN, ranges of 45 and blocks of 10."""
    monkeypatch.setattr(_part_writer, "PART_BYTES", 60 * 32 * 4)
    monkeypatch.setattr(_streamed_search, "_RANGE_BYTES", 45 * 32 * 4)
    monkeypatch.setattr(_storage, "BLOCK", 10)
    monkeypatch.setattr(_bank, "BLOCK", 10)
    monkeypatch.setattr(_bank, "_BLOCK_BYTES", 20_000)


def forwards(net):
    """Number of samples that a `Recording` has run since the last call."""
    n = len(net.rows)
    open(net.path, "w").close()
    return n


def flip(X):
    return X[..., ::-1]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "metric, average", [("euclidean", "proba"), ("sqeuclidean", "logits"), ("cosine", "proba")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_equal_those_in_memory(cnn, split, tmp_path, metric, average, dtype):
    X_train, y_train, X, y = split
    cnn = cnn.to(dtype)
    params = {"metric": metric, "average": average, "query_weight": 0.3, "batch_size": 10}
    memory = LatentKNNClassifier(cnn, **params).fit(X_train, y_train)
    bank = LatentKNNClassifier(cnn, bank=tmp_path / "bank", **params).fit(X_train, y_train)
    assert len(bank._bank.stored.parts) > 4
    for transforms in (None, [flip]):
        memory.set_params(query_transforms=transforms)
        bank.set_params(query_transforms=transforms)
        for asked in (None, X):
            for left, right in zip(bank.kneighbors(asked), memory.kneighbors(asked), strict=True):
                np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(bank.predict_proba(X), memory.predict_proba(X))
        np.testing.assert_array_equal(bank.score_samples(X), memory.score_samples(X))
    assert_same(bank.explain(X), memory.explain(X))
    for arguments in ((), (X, y)):
        assert_same(bank.diagnose(*arguments), memory.diagnose(*arguments))
    grid = {"n_neighbors": [1, 5], "query_weight": [0.0, 0.5], "average": ["proba", "logits"]}
    grid["metric"] = ["euclidean", "cosine"]
    np.testing.assert_array_equal(
        bank.sweep(X, y, **grid)["mean_test_score"], memory.sweep(X, y, **grid)["mean_test_score"]
    )
    np.testing.assert_array_equal(
        bank.label_issues(n_neighbors=9).score, memory.label_issues(n_neighbors=9).score
    )


ESTIMATORS = {
    "default": (None, {"random_state": 0}),
    "linear": (LogisticRegression(max_iter=500), {}),
    "one vs rest": (SGDClassifier(loss="log_loss", random_state=0), {}),
    "pipeline": (make_pipeline(StandardScaler(), LogisticRegression()), {}),
    "forest": (RandomForestClassifier(5, random_state=0), {"pool": None}),
}


@pytest.mark.parametrize("kind, frame", [*zip(ESTIMATORS, (False, True) * 3, strict=False)])
def test_any_classifier_and_container(iris, tmp_path, kind, frame):
    X, y = iris
    y = np.array(["setosa", "versicolor", "virginica"])[y]
    if frame:
        X = pd.DataFrame(X, columns=list("abcd"))
    estimator, params = ESTIMATORS[kind]
    params = {"query_weight": 0.5, "batch_size": 10, **params}
    memory = LatentKNNClassifier(estimator, **params).fit(X, y)
    bank = clone(memory).set_params(bank=str(tmp_path / "bank")).fit(X, y)
    np.testing.assert_array_equal(bank.predict_proba(X), memory.predict_proba(X))
    trained = FrozenEstimator(bank.estimator_)
    opened = LatentKNNClassifier.from_bank(
        tmp_path / "bank", trained, query_weight=0.5, batch_size=10
    )
    np.testing.assert_array_equal(opened.predict_proba(X), memory.predict_proba(X))
    np.testing.assert_array_equal(opened.predict(X), memory.predict(X))
    assert opened.classes_.tolist() == memory.classes_.tolist()
    assert opened.n_features_in_ == 4 and opened.input_shape_ == (4,)
    assert hasattr(opened, "feature_names_in_") == frame
    without = LatentKNNClassifier.from_bank(tmp_path / "bank", query_weight=0.5)
    assert_same(
        {k: v for k, v in without.diagnose().items() if k != "nearest_class"},
        {k: v for k, v in memory.diagnose().items() if k != "nearest_class"},
    )
    assert without.diagnose().nearest_class.tolist() == memory.diagnose().nearest_class.tolist()


def test_a_complete_bank_is_opened_without_the_network(cnn, split, tmp_path):
    X_train, y_train, X, _ = split
    net = Recording(cnn, tmp_path / "rows")
    clf = LatentKNNClassifier(FrozenNetwork(net), bank=tmp_path / "bank").fit(X_train, y_train)
    assert forwards(net) == 2 + 64 + len(X_train)  # two find the layer, 64 what it ends in
    again = clone(clf).fit(X_train, y_train)
    assert forwards(net) == 2 + 64
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    clf.diagnose()
    assert forwards(net) == 2 * len(X)
    opened = LatentKNNClassifier.from_bank(tmp_path / "bank", FrozenNetwork(net))
    assert forwards(net) == 0
    opened.predict_proba(X)
    assert forwards(net) == 2 + len(X)
    np.testing.assert_array_equal(opened.predict_proba(X), clf.predict_proba(X))


@pytest.mark.parametrize("fitted", [False, True])
def test_an_interrupted_fit_continues(cnn, split, tmp_path, monkeypatch, fitted):
    X_train, y_train, X, _ = split
    expected = LatentKNNClassifier(cnn, batch_size=10).fit(X_train, y_train).predict_proba(X)
    clf = LatentKNNClassifier(cnn, batch_size=10)
    if fitted:
        clf.fit(X_train[:50], y_train[:50])
        before = clf.predict_proba(X)
    clf.set_params(bank=tmp_path / "bank")
    forward, ran = TorchNetwork._forward, []

    def interrupted(self, samples, *args):
        if sum(ran) >= limit:
            raise KeyboardInterrupt
        ran.append(len(samples))
        return forward(self, samples, *args)

    monkeypatch.setattr(TorchNetwork, "_forward", interrupted)
    limit = 64 + 150
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X_train, y_train)
    assert hasattr(clf, "classes_") == fitted
    folder = BankFolder.open(tmp_path / "bank")
    assert folder.n_samples == 150 and not folder.complete
    with pytest.raises(ValueError, match="interrupted after 150 samples. Call fit with the same"):
        LatentKNNClassifier.from_bank(tmp_path / "bank")
    ran.clear()
    limit = 10**6
    if fitted:
        np.testing.assert_array_equal(clf.predict_proba(X), before)
        ran.clear()
    clf.fit(X_train, y_train)
    assert sum(ran) == 64 + 100
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_a_cache_in_memory_and_a_bank_work_together(cnn, split, tmp_path):
    X_train, y_train, X, _ = split
    net = Recording(cnn, tmp_path / "rows")
    clf = LatentKNNClassifier(FrozenNetwork(net), memory=str(tmp_path / "cache"))
    expected = clf.fit(X_train, y_train).predict_proba(X)
    forwards(net)
    bank = clone(clf).set_params(bank=tmp_path / "bank").fit(X_train, y_train)
    np.testing.assert_array_equal(bank.predict_proba(X), expected)
    opened = LatentKNNClassifier.from_bank(
        tmp_path / "bank", FrozenNetwork(net), memory=str(tmp_path / "cache")
    )
    np.testing.assert_array_equal(opened.predict_proba(X), expected)
    assert forwards(net) == 0


def test_what_differs_from_the_bank_is_named(cnn, mlp, split, tmp_path):
    X, y, _, _ = split
    clf = LatentKNNClassifier(cnn, bank=tmp_path / "bank").fit(X, y)
    other = FrozenNetwork(type(cnn)())
    changed = np.where(np.arange(len(y)) == 100, (y + 1) % 10, y)
    for params, samples, labels, message in [
        ({"metric": "cosine"}, X, y, "written with metric='euclidean', not 'cosine'"),
        ({"layer": "features"}, X, y, "written with layer='auto', not 'features'"),
        ({"pool": "avg"}, X, y, "written with pool=None, not 'avg'"),
        ({"estimator": other}, X, y, "written with digest="),
        ({}, X[::-1], y, "holds other samples than X in the range 0 to 59"),
        ({}, X[:200], y[:200], "holds 250 samples, more than the 200 of X"),
        ({}, X.astype("f8"), y, "written with samples="),
        ({}, X, changed, "other labels y in the range 60 to 119"),
        ({}, X, None, "other labels y in the range 0 to 59"),
        ({"neighbors": NearestNeighbors()}, X, y, "neighbors=NearestNeighbors.* cannot do that"),
    ]:
        with pytest.raises(ValueError, match=message):
            clone(clf).set_params(**params).fit(samples, labels)
    with torch.no_grad():
        cnn.head.bias += 1
    with pytest.raises(ValueError, match="written with digest="):
        clone(clf).fit(X, y)
    assert BankFolder.open(tmp_path / "bank").n_samples == 250


def test_from_bank_refuses_what_does_not_fit(cnn, split, tmp_path):
    X, y, _, _ = split
    path = tmp_path / "bank"
    LatentKNNClassifier(cnn, layer="hidden", metric="cosine", bank=path).fit(X, y)
    opened = LatentKNNClassifier.from_bank(path, cnn, n_neighbors=5)
    assert (opened.layer, opened.metric, opened.n_neighbors) == ("hidden", "cosine", 5)
    for estimator, params, message in [
        (type(cnn)(), {}, "was written by another network, layer or pool than estimator=Small"),
        (cnn, {"layer": "features"}, "another network, layer or pool than .*layer='features'"),
        (FrozenNetwork(cnn, classes=[*"abcdefghij"]), {}, "another network"),
        (cnn, {"metric": "euclidean"}, "written with metric='cosine', not 'euclidean'"),
        (cnn, {"neighbors": NearestNeighbors()}, "searched exactly: neighbors="),
        (LogisticRegression(), {}, "needs a trained classifier, and LogisticRegression"),
        (cnn, {"n_neighbors": 251}, "n_neighbors = 251, n_samples_fit = 250"),
        (cnn, {"n_neighbors": 0}, "'n_neighbors' parameter"),
    ]:
        with pytest.raises(ValueError, match=message):
            LatentKNNClassifier.from_bank(path, estimator, **params)
    with pytest.raises(ValueError, match="There is no bank in"):
        LatentKNNClassifier.from_bank(tmp_path / "other")
    other = BankFolder.create(tmp_path / "other", metric="euclidean")
    other.append(np.ones((5, 3)))
    other.finish()
    with pytest.raises(ValueError, match="holds no outputs of a network"):
        LatentKNNClassifier.from_bank(tmp_path / "other")
    labels = np.load(path / "labels-00000.npy")
    np.save(path / "labels-00000.npy", labels + 20)
    with pytest.raises(ValueError, match="labels that are no positions among its 10 classes"):
        LatentKNNClassifier.from_bank(path)


def test_without_the_network_only_what_is_stored_can_be_asked_about(cnn, split, tmp_path):
    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn, bank=tmp_path / "bank").fit(X_train, y_train)
    opened = LatentKNNClassifier.from_bank(tmp_path / "bank")
    for left, right in zip(opened.kneighbors(), clf.kneighbors(), strict=True):
        np.testing.assert_array_equal(left, right)
    for call in (
        opened.predict,
        opened.predict_proba,
        opened.kneighbors,
        opened.score_samples,
        opened.explain,
        lambda X: opened.sweep(X, y),
        lambda X: opened.diagnose(X, y),
        lambda X: opened.partial_fit(X, y),
    ):
        with pytest.raises(ValueError, match=r"has no network.*predict_latent.*from_bank"):
            call(X)


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_partial_fit_equals_fit_on_all(cnn, split, tmp_path, on_disk, labels):
    X_train, y_train, X, _ = split
    y_train = y_train if labels else None
    net = FrozenNetwork(cnn)
    params = {"query_weight": 0.3, "batch_size": 10}
    clf = LatentKNNClassifier(net, bank=tmp_path / "bank" if on_disk else None, **params)
    for start, stop in ((0, 120), (120, 130), (130, 250)):
        some = None if y_train is None else y_train[start:stop]
        assert clf.partial_fit(X_train[start:stop], some) is clf
    whole = LatentKNNClassifier(net, **params).fit(X_train, y_train)
    assert clf.n_samples_fit_ == 250
    np.testing.assert_array_equal(clf.predict_proba(X), whole.predict_proba(X))
    for left, right in zip(clf.kneighbors(), whole.kneighbors(), strict=True):
        np.testing.assert_array_equal(left, right)
    if labels:
        assert_same(clf.diagnose(), whole.diagnose())
    if on_disk:
        opened = LatentKNNClassifier.from_bank(tmp_path / "bank", net, **params)
        np.testing.assert_array_equal(opened.predict_proba(X), whole.predict_proba(X))
        assert opened.partial_fit(X[:5], None if y_train is None else y_train[:5])
        assert opened.n_samples_fit_ == 255


def test_partial_fit_with_another_search(cnn, split):
    X_train, y_train, X, _ = split
    clf = LatentKNNClassifier(cnn, neighbors=NearestNeighbors(algorithm="brute"))
    clf.partial_fit(X_train[:100], y_train[:100]).partial_fit(X_train[100:], y_train[100:])
    expected = LatentKNNClassifier(cnn).fit(X_train, y_train).kneighbors(X)[1]
    np.testing.assert_array_equal(clf.kneighbors(X)[1], expected)


def test_partial_fit_refuses_what_it_cannot_add(cnn, split):
    X, y, _, _ = split
    clf = LatentKNNClassifier(cnn).partial_fit(X, y, classes=np.arange(10))
    before = clf.predict_proba(X[:20])
    for arguments, message in [
        ((X, np.where(y == 3, 77, y)), "y holds 77, which is not one of the 10 classes"),
        ((X, None), "have labels: pass y"),
        ((X[:, :, :4], y), "samples of shape"),
        ((X, y, [0, 77]), r"classes=\[0, 77\] contains \[77\], which the network"),
    ]:
        with pytest.raises(ValueError, match=message):
            clf.partial_fit(*arguments)
    assert clf.n_samples_fit_ == len(X)
    np.testing.assert_array_equal(clf.predict_proba(X[:20]), before)
    with pytest.raises(ValueError, match="have no labels: omit y"):
        LatentKNNClassifier(cnn).fit(X).partial_fit(X, y)
    with pytest.raises(ValueError, match="does not know. Omit classes"):
        LatentKNNClassifier(cnn).partial_fit(X, y, classes=[0, 77])
    assert LatentKNNClassifier(cnn).partial_fit(X, y, classes=[0, 1]).classes_.tolist() == [
        *range(10)
    ]


def test_a_failed_search_leaves_the_former_state(cnn, split):
    X, y, _, _ = split

    class Search(NearestNeighbors):
        def fit(self, X, y=None):
            if len(X) > 100:
                raise RuntimeError("full")
            return super().fit(X)

    clf = LatentKNNClassifier(cnn, neighbors=Search()).fit(X[:100], y[:100])
    before = clf.explain(X[:9])
    with pytest.raises(RuntimeError, match="full"):
        clf.partial_fit(X[100:], y[100:])
    assert_same(clf.explain(X[:9]), before)


def test_a_pickle_holds_the_path(mlp, iris, tmp_path, monkeypatch):
    monkeypatch.setattr(_part_writer, "PART_BYTES", 10**6)
    monkeypatch.setattr(_bank, "_BLOCK_BYTES", 10**6)
    monkeypatch.setattr(_streamed_search, "_RANGE_BYTES", 10**6)
    X, y = np.tile(iris[0], (20, 1)), np.tile(iris[1], 20)
    clf = LatentKNNClassifier(FrozenNetwork(mlp), bank=tmp_path / "bank").fit(X)
    pickled = pickle.dumps(clf)
    assert len(pickled) < 30_000 < X.nbytes
    np.testing.assert_array_equal(pickle.loads(pickled).predict_proba(X), clf.predict_proba(X))
    shutil.rmtree(tmp_path / "bank")
    again = pickle.loads(pickled)
    for call in (again.predict, lambda _: again.kneighbors()):
        with pytest.raises(ValueError, match="There is no bank in"):
            call(X)
    LatentKNNClassifier(FrozenNetwork(mlp), bank=tmp_path / "bank").fit(X, y)
    with pytest.raises(ValueError, match="holds another bank"):
        again.predict(X)


def test_latent_vectors_are_not_kept_in_memory(cnn, split, tmp_path):
    X, y, _, _ = split
    clf = LatentKNNClassifier(cnn, bank=tmp_path / "bank").fit(X, y)
    held, seen, ahead = [], set(), [vars(clf)]
    while ahead:
        obj = ahead.pop()
        if id(obj) in seen:
            continue
        seen.add(id(obj))
        if isinstance(obj, (np.ndarray, torch.Tensor)):
            held.append(tuple(obj.shape))
        elif isinstance(obj, dict):
            ahead += obj.values()
        elif isinstance(obj, (list, tuple, set)):
            ahead += obj
        elif type(obj).__module__.startswith("skboundary"):
            ahead.append(vars(obj))
    assert [shape for shape in held if 250 in shape] == [(250,)]  # the classes


def test_string_labels_and_positions(cnn, split, tmp_path):
    X, y, _, _ = split
    names = np.array([*"klmnopqrst"])
    net = FrozenNetwork(cnn, classes=names)
    clf = LatentKNNClassifier(net, bank=tmp_path / "names").fit(X, names[y])
    opened = LatentKNNClassifier.from_bank(tmp_path / "names", net)
    np.testing.assert_array_equal(opened.predict(X), clf.predict(X))
    assert opened.explain(X[:3]).labels.tolist() == clf.explain(X[:3]).labels.tolist()
    with pytest.warns(UserWarning, match="interpreted as positions"):
        clf = LatentKNNClassifier(net, bank=tmp_path / "positions").fit(X, y)
    opened = LatentKNNClassifier.from_bank(tmp_path / "positions", net)
    np.testing.assert_array_equal(opened.predict(X), clf.predict(X))
    assert opened.predict(X).dtype.kind == "i"


def test_progress_counts_the_samples(cnn, split, tmp_path, monkeypatch):
    X, y, _, _ = split
    bars = []

    class Bar:
        n = 0

        def __init__(self, total, desc, verbose):
            self.total, self.verbose = total, verbose
            bars.append(self)

        def update(self, n=1):
            assert n >= 0
            self.n += n

        __enter__ = lambda self: self
        __exit__ = lambda self, *_: None

    monkeypatch.setattr(_bank_writing, "progress", Bar)
    clf = LatentKNNClassifier(cnn, bank=tmp_path / "bank", verbose=1).fit(X[:200], y[:200])
    clf.partial_fit(X[200:], y[200:])
    assert [(bar.n, bar.total, bar.verbose) for bar in bars] == [(200, 200, 1), (50, 50, 1)]


def test_the_link_of_the_bank_is_that_of_the_network(iris, tmp_path):
    X, y = iris
    sgd = SGDClassifier(loss="modified_huber", random_state=0)
    clf = LatentKNNClassifier(sgd, bank=tmp_path / "bank").fit(X, y)
    opened = LatentKNNClassifier.from_bank(tmp_path / "bank")
    assert BankFolder.open(tmp_path / "bank").link == "modified_huber"
    assert opened._bank.link is clf._bank.link


def test_relative_paths_are_those_of_fit(mlp, iris, tmp_path, monkeypatch):
    X = iris[0]
    monkeypatch.chdir(tmp_path)
    clf = LatentKNNClassifier(FrozenNetwork(mlp), bank="bank").fit(X)
    monkeypatch.chdir(os.path.expanduser("~"))
    assert clf.predict(X).shape == (150,)


def test_a_saved_classifier_keeps_its_bank(cnn, split, tmp_path):
    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn, batch_size=10, bank=tmp_path / "bank").fit(X_train, y_train)
    expected = clf.predict_proba(X), clf.diagnose(X, y).purity
    save(clf, tmp_path / "saved")
    shutil.rmtree(tmp_path / "bank")
    loaded = load(tmp_path / "saved", module=cnn)
    assert isinstance(loaded._bank.stored, BankFolder)
    assert loaded.bank == str(tmp_path / "saved" / "bank")
    np.testing.assert_array_equal(loaded.predict_proba(X), expected[0])
    np.testing.assert_array_equal(loaded.diagnose(X, y).purity, expected[1])


class Sliceable:
    """A container that gives copies of slices only, as h5py does."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.largest = 0

    def __getitem__(self, key):
        assert isinstance(key, slice)
        self.largest = max(self.largest, len(self.array[key]))
        return self.array[key].copy()


def test_samples_are_read_by_slices(cnn, split, tmp_path, monkeypatch):
    X_train, y_train, X, _ = split
    monkeypatch.setattr(_sample_array, "BATCH_BYTES", X_train[:30].nbytes)
    expected = LatentKNNClassifier(cnn, batch_size=10).fit(X_train, y_train).predict_proba(X)
    sliceable = Sliceable(X_train)
    clf = LatentKNNClassifier(cnn, batch_size=10, bank=tmp_path / "bank").fit(sliceable, y_train)
    again = clone(clf).fit(sliceable, y_train)
    assert sliceable.largest < 100  # the probes are read together
    for fitted in (clf, again):
        np.testing.assert_array_equal(fitted.predict_proba(Sliceable(X)), expected)
