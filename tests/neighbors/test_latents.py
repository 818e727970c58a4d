import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skboundary import FrozenNetwork, LatentKNNClassifier, LatentTransformer, _part_writer, io
from skboundary.exceptions import ProbabilityOutputWarning
from skboundary.networks import collect

N = 400  # training samples


@pytest.fixture(scope="module")
def split(digits):
    X, y = digits
    return X[:N], y[:N], X[N:], y[N:]


def elsewhere(net, *arrays, layer="auto", classes=None):
    """Latent vectors and logits (in the order of `classes`) of each array, from other classes."""
    transformer = LatentTransformer(net, layer=layer).fit(arrays[0])
    for X in arrays:
        logits = FrozenNetwork(net).decision_function(X)
        yield transformer.transform(X), logits


PARAMS = {
    "the paper": {},
    "cosine": {"metric": "cosine", "n_neighbors": 5},
    "squared": {"metric": "sqeuclidean", "query_weight": 0.1},
    "logits": {"average": "logits", "query_weight": 0.3},
    "distances": {"weights": "distance", "query_weight": 0.2},
    "labels": {"contribute": "labels", "query_weight": 0.5},
    "another search": {"neighbors": NearestNeighbors(algorithm="brute")},
}


@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_are_those_through_the_network_bit_for_bit(cnn, split, params, dtype):
    X_train, y_train, X, _ = split
    cnn.to(dtype)
    through = LatentKNNClassifier(cnn, **params).fit(X_train, y_train)
    (latent, outputs), (z, logits) = elsewhere(cnn, X_train, X)
    clf = LatentKNNClassifier(**params).fit_latent(latent, outputs, y_train)
    np.testing.assert_array_equal(clf.predict_proba_latent(z, logits), through.predict_proba(X))
    np.testing.assert_array_equal(clf.predict_latent(z, logits), through.predict(X))
    assert clf.predict_proba_latent(z, logits).dtype == through.predict_proba(X).dtype
    for ours, theirs in zip(clf.kneighbors_latent(z, 4), through.kneighbors(X, 4)):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(clf.kneighbors(), through.kneighbors()):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(clf.score_samples(), through.score_samples())
    why = clf.explain(), through.explain()
    assert why[0].pop("boundary_distance") is None  # which needs the last layer
    assert why[1].pop("boundary_distance").shape == (N,)
    for ours, theirs in (why, (clf.diagnose(), through.diagnose())):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    # a classifier with a network takes latent vectors as well
    np.testing.assert_array_equal(through.predict_proba_latent(z, logits), through.predict_proba(X))


def test_reports_without_X_are_about_the_stored_samples(cnn, split):
    X, y = split[:2]
    ((latent, outputs),) = elsewhere(cnn, X)
    clf = LatentKNNClassifier(query_weight=0.4).fit_latent(latent, outputs, y)
    distances, indices = clf.kneighbors()
    assert (indices != np.arange(N)[:, None]).all()
    np.testing.assert_array_equal(clf.score_samples(), -distances[:, -1])
    found = clf.explain()
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.labels, y[indices])
    proba = torch.softmax(torch.tensor(outputs), 1).numpy()
    expected = 0.4 * proba + 0.6 * proba[indices].mean(1)
    np.testing.assert_allclose(found.proba, expected, atol=1e-6)
    assert (clf.diagnose().purity == (y[indices] == y[:, None]).sum(1)).all()


def test_a_loader_goes_through_collect(cnn, split):
    X_train, y_train, X, y = split
    loaders = [
        DataLoader(TensorDataset(torch.tensor(a), torch.tensor(b)), batch_size=128)
        for a, b in ((X_train, y_train), (X, y))
    ]
    train, test = (collect(cnn, loader) for loader in loaders)
    clf = LatentKNNClassifier(query_weight=0.3).fit_latent(*train)
    through = LatentKNNClassifier(cnn, query_weight=0.3, batch_size=128).fit(X_train, y_train)
    np.testing.assert_array_equal(
        clf.predict_proba_latent(test.latent, test.outputs), through.predict_proba(X)
    )


@pytest.mark.parametrize("form", ["lists", "tensors", "memory maps", "batches", "two columns"])
def test_forms_of_arrays(mlp, iris, tmp_path, form):
    X, y = iris
    ((latent, outputs),) = elsewhere(mlp, X)
    expected = LatentKNNClassifier().fit_latent(latent, outputs, y)
    if form == "batches":
        parts = [slice(i, i + 40) for i in range(0, 150, 40)]
        given = [(latent[part], torch.tensor(outputs[part]), y[part]) for part in parts]
        clf = LatentKNNClassifier().fit_latent(iter(given))
    elif form == "memory maps":
        for name, array in (("latent", latent), ("outputs", outputs)):
            np.save(tmp_path / name, array)
        maps = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("latent", "outputs")]
        clf = LatentKNNClassifier().fit_latent(*maps, y)
        assert np.shares_memory(clf._bank.stored.latent, maps[0])  # not copied
    elif form == "two columns":
        pairs = [(latent[:75], outputs[:75]), (latent[75:], outputs[75:])]
        clf = LatentKNNClassifier().fit_latent(pairs)
        assert clf._codes is None and clf.classes_.tolist() == [0, 1, 2]
    else:
        of = {"lists": np.ndarray.tolist, "tensors": torch.tensor}[form]
        clf = LatentKNNClassifier().fit_latent(of(latent), of(outputs), of(y))
    np.testing.assert_array_equal(
        clf.predict_proba_latent(latent, outputs), expected.predict_proba_latent(latent, outputs)
    )


def test_batches_may_share_their_memory(mlp, iris):
    ((latent, outputs),) = elsewhere(mlp, iris[0])
    buffers = [np.empty_like(array[:50]) for array in (latent, outputs)]

    def batches():
        for start in range(0, 150, 50):
            for buffer, array in zip(buffers, (latent, outputs)):
                buffer[:] = array[start : start + 50]
            yield (*buffers,)

    clf = LatentKNNClassifier().fit_latent(batches())
    np.testing.assert_array_equal(clf._bank.stored.latent, latent)
    np.testing.assert_array_equal(clf._bank.stored.outputs, outputs)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64])
def test_dtypes(dtype):
    rng = np.random.default_rng(0)
    latent = (5 * rng.normal(size=(60, 4))).astype(dtype)
    outputs = (5 * rng.normal(size=(60, 3))).astype(dtype)
    clf = LatentKNNClassifier(query_weight=0.5, n_neighbors=1).fit_latent(latent, outputs)
    p = clf.predict_proba_latent(latent[:5], outputs[:5])
    logits = outputs[:5].astype(np.float64)
    own = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    exact = np.linalg.norm(latent.astype(float)[:5, None] - latent.astype(float), axis=2)
    assert np.array_equal(exact.argmin(1), clf.kneighbors_latent(latent[:5], 1)[1][:, 0])
    near = outputs[exact.argmin(1)].astype(np.float64)
    near = np.exp(near) / np.exp(near).sum(1, keepdims=True)
    np.testing.assert_allclose(p, (own + near) / 2, atol=1e-6)
    assert p.dtype == (np.float64 if np.dtype(dtype).itemsize == 8 else np.float32)


def test_classes_are_those_of_the_columns(mlp, iris):
    X, y = iris
    ((latent, outputs),) = elsewhere(mlp, X)
    names = np.array(["virginica", "setosa", "versicolor"])  # of the columns
    clf = LatentKNNClassifier().fit_latent(latent, outputs, names[y], classes=names)
    plain = LatentKNNClassifier().fit_latent(latent, outputs, y)
    assert clf.classes_.tolist() == sorted(names)
    np.testing.assert_array_equal(
        clf.predict_latent(latent, outputs), names[plain.predict_latent(latent, outputs)]
    )
    order = np.argsort(names)
    np.testing.assert_allclose(
        clf.predict_proba_latent(latent, outputs),
        plain.predict_proba_latent(latent, outputs)[:, order],
        rtol=1e-12,
    )
    np.testing.assert_array_equal(clf.explain().labels, names[y][clf.explain().indices])
    np.testing.assert_array_equal(clf.diagnose().purity, plain.diagnose().purity)
    # as the classifier with a network of named outputs
    through = LatentKNNClassifier(FrozenNetwork(mlp, classes=names)).fit(X, names[y])
    np.testing.assert_array_equal(
        through.predict_proba(X), clf.predict_proba_latent(latent, outputs)
    )
    # classes without samples may be named, and labels need not be given
    some = y > 0
    clf.fit_latent(latent[some], outputs[some], names[y[some]], classes=names)
    assert len(clf.classes_) == 3
    assert clf.fit_latent(latent, outputs, classes=torch.tensor([5, 7, 6])).classes_[-1] == 7


def test_logarithms_of_probabilities_are_logits(mlp, iris):
    X, y = iris
    ((latent, _),) = elsewhere(mlp, X)
    p = FrozenNetwork(mlp).predict_proba(X)
    clf = LatentKNNClassifier(query_weight=1.0).fit_latent(latent, np.log(p), y)
    np.testing.assert_allclose(clf.predict_proba_latent(latent, np.log(p)), p, rtol=1e-9)
    with pytest.warns(ProbabilityOutputWarning, match="used as logits"):
        clf.fit_latent(latent, p, y)
    with pytest.warns(ProbabilityOutputWarning, match="used as logits"):
        clf.fit_latent([(latent, p, y)])


def test_methods_on_X_name_those_on_latent_vectors(mlp, iris):
    X, y = iris
    ((latent, outputs),) = elsewhere(mlp, X)
    clf = LatentKNNClassifier(mlp).fit(X, y)  # of which nothing remains
    clf = clf.set_params(estimator=None).fit_latent(latent, outputs, y)
    for ask in (
        clf.predict,
        clf.predict_proba,
        clf.kneighbors,
        clf.explain,
        clf.score_samples,
        lambda X: clf.diagnose(X, y),
        lambda X: clf.sweep(X, y),
        lambda X: clf.to_module(),
    ):
        with pytest.raises(ValueError, match="has no network.*predict_latent, predict_proba_lat"):
            ask(X)
    for name in ("estimator_", "n_features_in_", "input_shape_"):
        assert not hasattr(clf, name)
    for other in (pickle.loads(pickle.dumps(clf)), clone(clf).fit_latent(latent, outputs, y)):
        np.testing.assert_array_equal(
            other.predict_proba_latent(latent, outputs), clf.predict_proba_latent(latent, outputs)
        )
    with pytest.raises(NotFittedError):
        clone(clf).predict_latent(latent, outputs)
    # a later fit has its own columns again
    names = np.array(["c", "a", "b"])
    clf.fit_latent(latent, outputs, names[y], classes=names)
    again = clf.set_params(estimator=mlp).fit(X, y)
    np.testing.assert_array_equal(
        again.predict_proba_latent(latent, outputs), again.predict_proba(X)
    )


Z, OUT, Y = np.arange(20.0).reshape(10, 2), np.eye(10)[:, :3] - 0.5, np.arange(10) % 3


def with_value(array, value):
    array = array.copy()
    array[7, 1] = value
    return array


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((Z, OUT[:9]), "latent, outputs and y have 10 and 9 samples"),
        ((Z, OUT, Y[:9]), "have 10 and 10 and 9 samples"),
        ((Z[0], OUT), r"latent has the dtype float64 and the shape \(2,\); expected numbers of"),
        ((Z, OUT[:, 0]), r"outputs has the dtype float64 and the shape \(10,\)"),
        ((Z.astype(str), OUT), "latent has the dtype <U"),
        ((Z, OUT[:, :0]), r"the shape \(10, 0\)"),
        ((Z[:0], OUT[:0]), "latent has 0 samples"),
        ((with_value(Z, np.nan), OUT), "latent contains NaN in sample 7"),
        ((Z, with_value(OUT, np.inf)), "outputs contains infinity in sample 7"),
        ((Z, with_value(OUT, -np.inf)), r"They are logits: give log\(max\(p, 1e-12\)\)"),
        (
            (Z, OUT, Y % 2),
            r"outputs has 3 columns, but there are 2 classes: \[0, 1\]. Pass classes",
        ),
        ((Z, OUT, Y + 0.5), "Unknown label type: continuous|continuous"),
        ((Z, OUT, OUT), r"y has the shape \(10, 3\)"),
        ((Z,), "outputs is missing"),
        ((Z, None, Y), "outputs is missing"),
        (([],), "There are no batches"),
        (([(Z, OUT), (Z[:, :1], OUT)],), "Batch 1 has latent of 1 columns, but batch 0 of 2"),
        (([(Z, OUT), (with_value(Z, np.nan), OUT)],), "latent contains NaN in sample 17"),
        (([(Z, OUT, Y), (Z, OUT)],), "Batch 1 has no labels, but batch 0 has numbers"),
        (([Z],), "Batch 0: got ndarray; expected a tuple"),
        ((Z[:2], OUT[:2]), "n_neighbors = 3, n_samples_fit = 2"),
    ],
)
def test_wrong_arrays_are_refused(arguments, message):
    clf = LatentKNNClassifier().fit_latent(Z, OUT, Y)
    before = clf.predict_proba_latent(Z, OUT)
    with pytest.raises(ValueError, match=message):
        clf.fit_latent(*arguments)
    np.testing.assert_array_equal(clf.predict_proba_latent(Z, OUT), before)


@pytest.mark.parametrize(
    "classes, message",
    [
        (["a", "b"], r"outputs has 3 columns, but there are 2 classes: \['a', 'b'\]"),
        ([0, 1, 1], "contains duplicates"),
        ([[0, 1, 2]], "3 classes"),
        ([0, 1, 5], "y holds 2, which is not one of the 3 classes"),
    ],
)
def test_wrong_classes_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        LatentKNNClassifier().fit_latent(Z, OUT, Y, classes=classes)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"estimator": nn.Linear(2, 3)}, "estimator=Linear.* has no effect on latent vectors"),
        ({"layer": "body"}, "layer='body' has no effect .* default, 'auto'"),
        ({"pool": "avg"}, "pool='avg' has no effect"),
        ({"query_transforms": [np.flip]}, "query_transforms=.* has no effect"),
        ({"neighbors": NearestNeighbors(), "metric": "cosine"}, "metric='cosine' has no effect"),
        ({"contribute": "labels"}, "contribute='labels' needs the labels"),
        ({"query_weight": 2}, "'query_weight' parameter of LatentKNNClassifier"),
    ],
)
def test_parameters_without_effect_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        LatentKNNClassifier(**params).fit_latent(Z, OUT)


def test_queries_must_match_the_training_samples():
    clf = LatentKNNClassifier().fit_latent(Z, OUT, Y)
    assert clf.kneighbors_latent(Z, 2, return_distance=False).shape == (10, 2)
    with pytest.raises(ValueError, match="latent has 1 columns, but the training samples have 2"):
        clf.predict_latent(Z[:, :1], OUT)
    with pytest.raises(ValueError, match="latent has 1 columns"):
        clf.kneighbors_latent(Z[:, :1])
    with pytest.raises(ValueError, match="outputs has 2 columns, but there are 3 classes"):
        clf.predict_latent(Z, OUT[:, :2])
    with pytest.raises(ValueError, match="latent contains NaN in sample 7"):
        clf.kneighbors_latent(with_value(Z, np.nan))
    with pytest.raises(ValueError, match="n_neighbors = 11"):
        clf.kneighbors_latent(Z, 11)
    with pytest.raises(ValueError, match="'n_neighbors' parameter"):
        clf.kneighbors_latent(Z, 0)
    with pytest.raises(ValueError, match="query_transforms transform X"):
        clf.set_params(query_transforms=[np.flip]).predict_latent(Z, OUT)


def test_labels_are_optional():
    clf = LatentKNNClassifier().fit_latent(Z, OUT)
    assert clf.explain().labels is None
    with pytest.raises(ValueError, match="pass y to fit"):
        clf.diagnose()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(_part_writer, "PART_BYTES", 60 * 32 * 4)  # 60 samples


@pytest.mark.parametrize("form", ["arrays", "batches", "without labels"])
def test_a_bank_gives_the_answers_of_memory(cnn, split, tmp_path, small_parts, form):
    X_train, y_train, X, _ = split
    (latent, outputs), (z, logits) = elsewhere(cnn, X_train, X)
    names = np.array([f"digit {9 - i}" for i in range(10)])
    y = None if form == "without labels" else names[y_train]
    memory = LatentKNNClassifier(metric="cosine", query_weight=0.3)
    memory.fit_latent(latent, outputs, y, classes=names)
    clf = clone(memory).set_params(bank=tmp_path / "bank")
    parts = [slice(i, i + 130) for i in range(0, N, 130)]
    for _ in range(2):  # the second time it is compared and opened
        if form == "batches":
            given = ((latent[part], outputs[part], y[part]) for part in parts)
            clf.fit_latent(given, classes=names)
        else:
            clf.fit_latent(latent, outputs, y, classes=names)
        for ours, theirs in (
            (clf.predict_proba_latent(z, logits), memory.predict_proba_latent(z, logits)),
            (clf.kneighbors_latent(z)[1], memory.kneighbors_latent(z)[1]),
            (clf.explain().proba, memory.explain().proba),
            (clf.score_samples(), memory.score_samples()),
        ):
            np.testing.assert_array_equal(ours, theirs)
    if y is not None:
        np.testing.assert_array_equal(clf.diagnose().purity, memory.diagnose().purity)
    opened = LatentKNNClassifier.from_bank(tmp_path / "bank", query_weight=0.3)
    order = np.argsort(names)  # of the columns in the bank
    np.testing.assert_array_equal(
        opened.predict_proba_latent(z, logits[:, order]), clf.predict_proba_latent(z, logits)
    )
    with pytest.raises(ValueError, match="holds 400 samples, which are not those"):
        clf.fit_latent(latent + 1, outputs, y, classes=names)
    with pytest.raises(ValueError, match="was written with classes"):
        clf.fit_latent(latent, outputs)


@pytest.mark.parametrize("on_disk", [False, True])
def test_saved_classifiers_know_their_columns(tmp_path, on_disk):
    names = np.array(["c", "a", "b"])
    clf = LatentKNNClassifier(bank=str(tmp_path / "bank") if on_disk else None)
    clf.fit_latent(Z, OUT, names[Y], classes=names)
    io.save(clf, tmp_path / "saved")
    loaded = io.load(tmp_path / "saved")
    np.testing.assert_array_equal(
        loaded.predict_proba_latent(Z, OUT), clf.predict_proba_latent(Z, OUT)
    )
    np.testing.assert_array_equal(loaded.explain().labels, clf.explain().labels)


def test_batches_for_a_bank_need_classes(tmp_path):
    clf = LatentKNNClassifier(bank=tmp_path / "bank")
    with pytest.raises(ValueError, match="Pass classes, one for each column"):
        clf.fit_latent([(Z, OUT, Y)])
    assert clf.fit_latent([(Z, OUT)]).n_samples_fit_ == 10


def test_an_interrupted_stream_continues(tmp_path, small_parts):
    rng = np.random.default_rng(0)
    latent, outputs = rng.normal(size=(200, 8)), rng.normal(size=(200, 3))
    clf = LatentKNNClassifier(bank=tmp_path / "bank")

    def stream(stop):
        for start in range(0, stop, 40):
            yield latent[start : start + 40], outputs[start : start + 40]
        if stop < 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clf.fit_latent(stream(80))
    assert not hasattr(clf, "classes_")
    clf.fit_latent(stream(200))
    np.testing.assert_array_equal(np.asarray(clf._bank.stored.latent), latent)


def test_a_bank_of_collect_is_opened_without_a_network(cnn, split, tmp_path):
    X_train, y_train, X, _ = split
    loader = DataLoader(TensorDataset(torch.tensor(X_train), torch.tensor(y_train)), batch_size=128)
    collect(cnn, loader, bank=tmp_path / "bank")
    clf = LatentKNNClassifier.from_bank(tmp_path / "bank", metric="cosine")
    expected = LatentKNNClassifier(metric="cosine").fit_latent(*collect(cnn, loader))
    test = collect(cnn, [torch.tensor(X)])
    np.testing.assert_array_equal(
        clf.predict_proba_latent(*test[:2]), expected.predict_proba_latent(*test[:2])
    )
    np.testing.assert_array_equal(clf.diagnose().purity, expected.diagnose().purity)
    np.testing.assert_array_equal(clf.explain().labels, expected.explain().labels)
    with pytest.raises(ValueError, match="predict_latent"):
        clf.predict(X)
