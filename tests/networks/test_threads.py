"""Trainings in threads: one seed gives one result, and the process stays as it was."""

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

from skboundary import BoundarySampleExtractor, LatentKNNClassifier, LatentTransformer
from skboundary._random import forked_rng


class Noisy(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))


def skorch_net():
    return NeuralNetClassifier(
        Noisy, criterion=nn.CrossEntropyLoss, max_epochs=3, verbose=0, train_split=None
    )


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


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
