"""Trainings in threads: one seed gives one result, and the process stays as it was."""

import copy
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import cross_val_predict
from skorch import NeuralNetClassifier
from torch import nn

from skboundary import (
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
)
from skboundary._random import forked_rng
from skboundary.networks import _module_state


class Noisy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))


def skorch_net():
    return NeuralNetClassifier(
        Noisy, criterion=nn.CrossEntropyLoss, max_epochs=3, verbose=0, train_split=None
    )


@pytest.mark.parametrize("make", [lambda: None, skorch_net], ids=["default", "skorch"])
def test_fits_in_threads_equal_the_fit_of_one(iris, make, two_threads):
    X, y = iris[0][::5], iris[1][::5]

    def fit(_):
        return LatentTransformer(make(), random_state=0).fit_transform(X, y), threads()

    def threads():
        return torch.get_num_threads()

    want, state = fit(0)[0], torch.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        results = [*pool.map(fit, range(6))]
        assert [*pool.map(lambda _: threads(), range(3))] == [2] * 3
    for got, n_threads in results:
        np.testing.assert_array_equal(got, want)
        assert n_threads == 2
    assert torch.equal(torch.get_rng_state(), state)
    born = []
    thread = threading.Thread(target=lambda: born.append(threads()))
    thread.start()
    thread.join()
    assert threads() == born[0] == 2


def test_cross_validation_in_threads_equals_the_serial_one(iris):
    X, y = iris[0][::2], iris[1][::2]
    clf = LatentKNNClassifier(random_state=0)

    def predict(n_jobs):
        return cross_val_predict(clf, X, y, cv=3, method="predict_proba", n_jobs=n_jobs)

    serial = predict(None)
    with joblib.parallel_config("threading"):
        np.testing.assert_array_equal(predict(3), serial)


def test_deepdig_and_a_training_that_queries_a_network_do_not_block_each_other(mlp, iris):
    X = iris[0][::5]
    extractor = BoundarySampleExtractor(mlp, method="deepdig", effort="fast").fit(X)
    trains, latent = threading.Event(), LatentTransformer(mlp).fit(X)

    def train():
        with forked_rng(0):
            trains.set()
            time.sleep(0.3)
            latent.transform(X)

    training = threading.Thread(target=train, daemon=True)
    asking = threading.Thread(target=lambda: extractor.extract_pairs(X[:3]), daemon=True)
    training.start()
    trains.wait()
    asking.start()
    training.join(30)
    asking.join(30)
    assert not training.is_alive() and not asking.is_alive()


class Meeting(nn.Module):
    """Wait in each pass for another thread to be in a pass too; count those that came in time."""

    def __init__(self, body, meeting, met):
        super().__init__()
        self.body, self.meeting, self.met = body, meeting, met

    def forward(self, x):
        assert not any(module.training for module in self.modules())
        try:
            self.meeting.wait(0.5)
            self.met.append(True)
        except threading.BrokenBarrierError:
            self.met.append(False)
            self.meeting.reset()
        return self.body(x)


@pytest.mark.parametrize("shared", ["nothing", "module", "body"])
def test_only_networks_that_share_a_module_wait_for_each_other(mlp, iris, shared):
    X, met, meeting = iris[0][:5], [], threading.Barrier(2)
    first = Meeting(mlp, meeting, met).train()
    if shared == "module":
        second = first
    else:
        body = mlp if shared == "body" else copy.deepcopy(mlp)
        second = Meeting(body, meeting, met).train()
    want = FrozenNetwork(mlp).predict_proba(X)
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(lambda module: FrozenNetwork(module).predict_proba(X), (first, second))]
    assert met == [shared == "nothing"] * 2
    assert all(module.training for module in [*first.modules(), *second.modules()])
    for p in found:
        np.testing.assert_array_equal(p, want)


def test_networks_that_share_a_module_catch_their_own_activations(mlp, iris):
    X, other = iris[0], nn.Sequential(*mlp[:2], nn.Linear(16, 2).double())
    transformers = [
        LatentTransformer(module, layer=layer).fit(X)
        for module, layer in ((mlp, "0"), (other, "1"), (mlp, "1"), (other, "0"))
    ]
    want = [t.transform(X) for t in transformers]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            found = pool.map(lambda t: t.transform(X), transformers)
            for got, values in zip(found, want):
                np.testing.assert_array_equal(got, values)


def test_locks_are_dropped_with_their_modules(iris):
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    FrozenNetwork(module).predict(iris[0])
    keys = {id(m) for m in module.modules()}
    assert keys <= set(_module_state._LOCKS)
    del module
    gc.collect()
    assert not keys & set(_module_state._LOCKS)
