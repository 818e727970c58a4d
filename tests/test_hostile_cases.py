"""Defects that hostile input and injected faults have found, one test for each."""

import gc
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestNeighbors
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchNearestNeighbors,
)
from skboundary._bank_folder import BankFolder
from skboundary._npy import from_npy, to_npy
from tests.hostile_networks import BrokenLabels, FarNeighbors, FewNeighbors, NotNumbers

# ------------------------------------------------------------------------------------ containers


@pytest.mark.parametrize("make", [TorchNearestNeighbors, LatentTransformer])
def test_masked_samples_are_refused(iris, make):
    X, y = iris
    X = np.ma.array(X, mask=X > 7)
    message = f"X is a masked array with {(X.data > 7).sum()} masked values"
    with pytest.raises(ValueError, match=message):
        make().fit(X, y)
    with pytest.raises(ValueError, match="y is a masked array with 50 masked values"):
        LatentKNNClassifier(LogisticRegression()).fit(X.data, np.ma.array(y, mask=y == 1))
    with pytest.raises(ValueError, match="y is a masked array with 50 masked values"):
        BiasedExtrapolationSampler().fit_resample(X.data, np.ma.array(y, mask=y == 1))


def test_a_masked_array_without_masked_values_is_an_array(iris):
    X = np.ma.array(iris[0], mask=False)
    search = TorchNearestNeighbors().fit(X)
    np.testing.assert_array_equal(
        search.kneighbors(), TorchNearestNeighbors().fit(iris[0]).kneighbors()
    )


def test_null_in_a_column_is_refused_where_gradients_are_taken(iris):
    X, y = iris
    frame = pd.DataFrame(X, columns=[*"abcd"])
    margins = SubspaceMargins(LogisticRegression(max_iter=1000)).fit(frame, y)
    queries = pl.DataFrame({name: [None, 1.0] for name in "abcd"})
    with pytest.raises(ValueError, match="Input X contains NaN in sample 0"):
        margins.transform(queries)


def test_a_frame_that_cannot_be_returned_is_refused(iris):
    X, y = iris
    with pytest.raises(TypeError, match=r"X is a DataFrame of polars.*Pass X\.to_pandas\(\)"):
        BiasedExtrapolationSampler().fit_resample(pl.DataFrame(X), np.minimum(y, 1))


@pytest.mark.filterwarnings("ignore:lbfgs failed")
def test_long_doubles_are_cast(iris):
    X, y = iris
    double = LatentKNNClassifier(LogisticRegression()).fit(X, y)
    long = LatentKNNClassifier(LogisticRegression()).fit(X.astype(np.longdouble), y)
    np.testing.assert_allclose(long.predict_proba(X), double.predict_proba(X), atol=1e-6)


def test_labels_of_several_types_are_refused_by_the_sampler(iris):
    y = np.minimum(iris[1], 1).astype(object)
    y[0] = "no"
    with pytest.raises(ValueError, match="y holds labels of several types: int, str"):
        BiasedExtrapolationSampler().fit_resample(iris[0], y)


# -------------------------------------------------------------------------------------- networks


class Changing(nn.Module):
    """A network that leaves out a class where the first column of some sample is large."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        logits = self.body(x)
        return logits[:, 1:] if (x[:, 0] > 7.6).any() else logits


def test_a_number_of_outputs_that_changes_is_refused(mlp, iris):
    X, _ = iris
    usual, odd = X[X[:, 0] < 7.5], X[X[:, 0] > 7.6]
    network = FrozenNetwork(Changing(mlp), batch_size=8)
    with pytest.raises(ValueError, match=r"Changing gives 2 outputs per sample for the batch from"):
        network.predict_proba(np.concatenate([usual, odd]))
    knn = LatentKNNClassifier(network).fit(usual)
    with pytest.raises(ValueError, match=r"Changing gives 2 outputs per sample, but gave 3 before"):
        knn.predict(odd)
    for method in ("minimal", "label"):
        extractor = BoundarySampleExtractor(network, method=method, bounds=None).fit(usual)
        with pytest.raises(ValueError, match=r"Changing gives 2 outputs per sample, but gave 3"):
            extractor.transform(odd)


@pytest.mark.parametrize("basis", [[["a"]], [[1.0], [1.0, 2.0]], [[{}]], [[1j, 0, 0, 0]]])
def test_subspaces_that_are_no_numbers_are_refused(basis, mlp, iris):
    with pytest.raises(ValueError, match=r"subspaces\[1\] does not hold vectors of numbers"):
        SubspaceMargins(mlp, subspaces=[np.eye(4)[:1], basis]).fit(iris[0])


def test_categorical_columns_have_no_new_samples(iris):
    """They were NaN: the numbers of new samples are no categories."""
    X = pd.DataFrame(iris[0][:130], columns=[*"abcd"]).astype({"b": "category", "d": "category"})
    with pytest.raises(ValueError, match=r"columns \['b', 'd'\] of X are categorical"):
        BiasedExtrapolationSampler().fit_resample(X, iris[1][:130])
    sampled, _ = BiasedExtrapolationSampler().fit_resample(X.astype(float), iris[1][:130])
    assert len(sampled) == 150 and sampled.notna().all(axis=None)


def test_a_network_without_outputs_is_refused(iris):
    empty = nn.Linear(4, 0).double()
    with pytest.raises(ValueError, match=r"outputs of shape \(\d+, 0\); expected"):
        FrozenNetwork(empty).predict_proba(iris[0])
    with pytest.raises(ValueError, match=r"outputs of shape \(\d+, 0\); expected"):
        BoundarySampleExtractor(empty).fit(iris[0])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda y: np.full(len(y), 9), "returns 9, which is not among its classes_"),
        (lambda y: y - 0.5, "returns 0.5, which is not among its classes_"),
        (lambda y: y[1:], "returns an array of shape .* one label per sample"),
        (lambda y: np.column_stack([y, y]), "returns an array of shape .* one label per sample"),
    ],
)
@pytest.mark.parametrize("make", [LatentKNNClassifier, BoundarySampleExtractor])
def test_labels_of_a_black_box_are_checked(iris, change, message, make):
    """`searchsorted` took an unknown label for the next class."""
    X, y = iris
    with pytest.raises(ValueError, match=f"predict of BrokenLabels {message}"):
        make(BrokenLabels(change)).fit(X, y)


class Lost(nn.Module):
    """NaN between the samples of the first class and the others."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        gap = (x[:, 2] > 2.0) & (x[:, 2] < 2.9)
        return self.body(x).masked_fill(gap[:, None], torch.nan)


def test_nan_between_samples_is_no_class(mlp, iris):
    """`argmax` took NaN for the largest logit, and margins ended there."""
    X, y = iris
    network, few = FrozenNetwork(Lost(mlp)), X[::10]
    with pytest.raises(ValueError, match="Lost gives NaN at a point of the search"):
        SubspaceMargins(network, subspaces=None).fit(X).transform(few)
    with pytest.raises(ValueError, match="Lost gives NaN at a point of the search"):
        BoundaryCharacterizer(network, n_samples=5, random_state=0).fit(X, y)
    for method in ("minimal", "pm", "score", "label", "segment"):
        extractor = BoundarySampleExtractor(network, method=method, effort="fast", random_state=0)
        pairs = extractor.fit(X).extract_pairs(few)
        ends = np.concatenate([pairs.inner[pairs.success], pairs.outer[pairs.success]])
        predicted = network.predict(ends)  # refuses NaN
        labels = np.concatenate([pairs.source[pairs.success], pairs.target[pairs.success]])
        np.testing.assert_array_equal(predicted, labels)


class NotANumber(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def predict_proba(self, X):
        p = np.full((len(X), len(self.classes_)), 1 / len(self.classes_))
        p[X[:, 0] > 1e6] = np.nan
        return p

    decision_function = predict_proba


def test_scores_of_a_head_that_are_not_finite_are_refused(mlp, iris):
    X, y = iris
    clf = BiasedExtrapolationClassifier(LogisticRegression(), head=NotANumber(), n_iter=0)
    clf.fit(X, y)
    queries = X.copy()
    queries[3] *= 1e9
    assert clf.predict_proba(X).shape == (150, 3)
    for method in ("predict_proba", "decision_function"):
        with pytest.raises(ValueError, match="NotANumber, the head, gives NaN.* for sample 3"):
            getattr(clf, method)(queries)


# ------------------------------------------------------------------------------------- neighbors


@pytest.mark.parametrize(
    "search, message",
    [
        (FewNeighbors(), r"distances of shape \(150, 2\)"),
        (FarNeighbors(), "indices that are not integers from 0 to 149"),
        (NotNumbers(), "distances that are NaN or infinite"),
    ],
)
def test_what_a_search_cannot_have_found_is_refused(mlp, iris, search, message):
    X, y = iris
    clf = LatentKNNClassifier(mlp, neighbors=search).fit(X, y)
    calls = [lambda: clf.predict(X), lambda: clf.explain(X), clf.diagnose, clf.kneighbors]
    for call in [*calls, lambda: clf.kneighbors(X, return_distance=False)]:
        with pytest.raises(ValueError, match=f"neighbors={type(search).__name__}.* {message}"):
            call()


def test_a_class_is_no_search(mlp, iris):
    X, y = iris
    for model in (
        LatentKNNClassifier(mlp, neighbors=NearestNeighbors),
        BiasedExtrapolationSampler(neighbors=NearestNeighbors),
    ):
        fit = model.fit_resample if hasattr(model, "fit_resample") else model.fit
        with pytest.raises(TypeError, match="neighbors=.*NearestNeighbors.* is a class"):
            fit(X, y)


def test_a_transform_that_cannot_be_called_is_named(mlp, iris):
    clf = LatentKNNClassifier(mlp, query_transforms=[3]).fit(*iris)
    with pytest.raises(TypeError, match="query_transforms holds 3, which is not callable"):
        clf.predict(iris[0])


# ------------------------------------------------------------------------------------ parameters


def test_numbers_beyond_those_of_torch(mlp, iris):
    X, y = iris
    few = X[:5]
    usual = SubspaceMargins(mlp, max_iter=5, window=1).fit(X, y)
    large = SubspaceMargins(mlp, max_iter=5, window=1, step=2**70, batch_size=2**70).fit(X, y)
    assert large.n_subspaces_ == 1
    np.testing.assert_allclose(large.transform(few), usual.transform(few)[:, :1], rtol=1e-12)


def test_a_bool_counts_as_an_integer_as_in_scikit_learn(mlp, iris):
    X, y = iris
    one, true = (SubspaceMargins(mlp, window=v, step=v).fit(X, y) for v in (1, True))
    np.testing.assert_array_equal(true.transform(X[:3]), one.transform(X[:3]))
    histories = [
        BiasedExtrapolationClassifier(GaussianNB(), n_iter=v, random_state=0).fit(X[:120], y[:120])
        for v in (1, True)
    ]
    assert len(histories[0].history_) == len(histories[1].history_)


@pytest.mark.parametrize("bounds", [("a", "b"), [0, 1, 2], (0,), np.array(3.0)])
def test_bounds_that_are_no_pair_of_numbers(mlp, iris, bounds):
    with pytest.raises(ValueError, match=r"bounds=.*: use 'data', None or a pair"):
        BoundarySampleExtractor(mlp, bounds=bounds).fit(*iris)


@pytest.mark.filterwarnings("ignore:No boundary point")
def test_pairs_hold_finite_points_where_squares_overflow(iris):
    X, y = iris[0].astype(np.float32) * np.float32(1e22), iris[1]
    tree = DecisionTreeClassifier(random_state=0)
    extractor = BoundarySampleExtractor(tree, effort=20, random_state=0).fit(X, y)
    queries = np.float32(1e30) * iris[0][:20].astype(np.float32)
    pairs = extractor.extract_pairs(queries)
    for points in (pairs.inner, pairs.outer, pairs.midpoint):
        assert np.isfinite(points).all()
    lost = pairs.status == "not_found"
    assert np.isnan(pairs.distance[lost]).all()


# ---------------------------------------------------------------------------------- failed calls


def test_a_failed_resampling_restores_the_sampler(iris):
    X, y = iris
    sampler = BiasedExtrapolationSampler(random_state=0)
    before = dict(vars(sampler))
    with pytest.raises(ValueError, match="sample 0"):
        sampler.fit_resample(X * np.nan, np.minimum(y, 1))
    with pytest.raises(ValueError, match="neighbors"):
        sampler.set_params(neighbors=99, instance_pairing="nearest").fit_resample(X[:120], y[:120])
    assert vars(sampler).keys() == before.keys()


class Interrupted(Callback):
    def on_epoch_end(self, net, **_):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def ctrl_c():
    """The handler of Python, which processes in the background lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("own", [False, True])
def test_an_interrupted_training_is_not_a_short_one(iris, own, monkeypatch):
    """skorch ends a training at Ctrl-C and keeps the net."""
    net = None
    if own:
        module = nn.Sequential(nn.Linear(4, 3))
        net = NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, callbacks=[Interrupted()])
    else:
        steps, step = [], torch.optim.Adam.step

        def stop(self, *args):
            steps.append(step(self, *args))
            if len(steps) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(torch.optim.Adam, "step", stop)
    model = LatentTransformer(net)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*iris)
    with pytest.raises(NotFittedError):
        model.transform(iris[0])


def test_an_interrupted_addition_restores_the_search(iris, monkeypatch):
    search = TorchNearestNeighbors().fit(iris[0])
    want, keep = search.kneighbors(), TorchNearestNeighbors._keep

    def interrupted(self, samples):
        keep(self, samples)
        raise KeyboardInterrupt

    monkeypatch.setattr(TorchNearestNeighbors, "_keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search.partial_fit(iris[0] + 1)
    assert search.n_samples_fit_ == 150
    np.testing.assert_array_equal(search.kneighbors(), want)
    unfitted = TorchNearestNeighbors()
    with pytest.raises(KeyboardInterrupt):
        unfitted.partial_fit(iris[0])
    with pytest.raises(NotFittedError):
        unfitted.kneighbors()


def test_parameters_that_do_not_exist_leave_the_fitted_attributes(mlp, iris):
    network = FrozenNetwork(mlp).fit(*iris)
    with pytest.raises(ValueError, match="colour"):
        network.set_params(module=nn.Linear(4, 3), colour="red")
    assert network.n_features_in_ == 4


def test_any_damaged_byte_of_a_header_is_an_error_of_the_bank(tmp_path):
    """numpy raised `tokenize.TokenError` where a bracket was lost."""
    bank = BankFolder.create(tmp_path / "bank")
    bank.append(np.zeros((5, 2)), np.zeros((5, 3)))
    path = bank.path / "latent-00000.npy"
    header = path.read_bytes()
    for place in range(128):
        for bit in (1, 16):
            damaged = bytearray(header)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="latent-00000.npy"):
                BankFolder.open(bank.path).verify()
    path.write_bytes(header)
    BankFolder.open(bank.path).verify()


def test_threads_read_npy_headers_at_the_same_time():
    """Python 3.11 lost count of the depth of a literal, where a finalizer let other threads run."""

    class Finalized:
        def __init__(self):
            self.itself = self

        def __del__(self):
            time.sleep(1e-4)

    data, threshold = to_npy(np.arange(6.0).reshape(2, 3)), gc.get_threshold()

    def read(depth):
        if depth:
            return read(depth - 1)
        for _ in range(200):
            Finalized()
            assert from_npy(data).shape == (2, 3)
        return True

    gc.set_threshold(7)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, range(0, 160, 20)))
    finally:
        gc.set_threshold(*threshold)
