"""The batches of a call, which do not depend on the tasks that share them."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary._batches import batch_size, cut_into_runs
from skboundary.boundary.methods._registry import METHODS


def batches(runs, size):
    return [run[i : i + size].tolist() for run in runs for i in range(0, len(run), size)]


@pytest.mark.parametrize("size", [1, 7, 20, 100])
def test_tasks_share_the_same_batches(size):
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, size=100), rng.integers(-1, 4, size=100)
    cut = [cut_into_runs(source, target, METHODS["minimal"], size, n) for n in (1, 2, 3, 64)]
    for n, runs in zip((1, 2, 3, 64), cut):
        assert len(runs) == min(n, -(-100 // size))
        assert batches(runs, size) == batches(cut[0], size)
    (order,) = cut[0]
    assert sorted(order) == [*range(100)]
    assert [*zip(source[order], target[order])] == sorted(zip(source, target))


@pytest.mark.parametrize("n_runs", [1, 2, 64])
def test_deepdig_gets_whole_class_pairs(n_runs):
    """5 classes have 20 ordered pairs, of which 16 are trained side by side."""
    every = np.array([(s, t) for s in range(5) for t in range(5) if s != t] * 3)
    runs = cut_into_runs(*every.T, METHODS["deepdig"], len(every), n_runs)
    assert [len({*map(tuple, every[run])}) for run in runs] == [16, 4]
    assert [len(run) for run in runs] == [48, 12]


def test_there_are_no_runs_of_nothing():
    none = np.empty(0, int)
    for method in ("minimal", "deepdig"):
        assert cut_into_runs(none, none, METHODS[method], 5, 2) == []


def test_batches_are_of_equal_size(iris):
    X, y = iris

    def size(estimator, n, n_tasks, **params):
        model = BoundarySampleExtractor(estimator, **params).fit(X, y)
        return batch_size(model._classifier, (n, 4), model._method(), n_tasks)

    assert [
        size(LogisticRegression(max_iter=500), n, 8, batch_size=64) for n in (10, 64, 65, 200)
    ] == [64, 64, 33, 50]
    assert size(SVC(), 1000, 2, method="label") == 500
    assert size(SVC(), 1000, 64, method="label") == 32  # a call for fewer has the same cost
    assert size(SVC(), 1000, 2, method="label", batch_size=300) == 250


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["minimal", "pm", "score", "segment"])
def test_two_jobs_give_the_same_bits(method, dtype, digits, cnn):
    """In float32 another cut would change the last digits."""
    X, y = digits
    net = FrozenNetwork(cnn if dtype == np.float32 else cnn.double(), classes=np.arange(10))
    model = BoundarySampleExtractor(
        net, method=method, effort="fast", batch_size=7, random_state=0
    ).fit(X[:100].astype(dtype), y[:100])
    alone = model.extract(30)
    shared = model.set_params(n_jobs=2).extract(30)
    for name, values in vars(alone).items():
        np.testing.assert_array_equal(getattr(shared, name), values, err_msg=name)


def test_two_jobs_give_the_same_bits_for_a_black_box(iris):
    X, y = iris
    model = BoundarySampleExtractor(SVC(), method="label", effort=60, random_state=0).fit(X, y)
    alone = model.extract_pairs(X)
    shared = model.set_params(n_jobs=2).extract_pairs(X)
    for name, values in vars(alone).items():
        np.testing.assert_array_equal(getattr(shared, name), values, err_msg=name)
