"""A fit that fails or is interrupted restores the estimator."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchNearestNeighbors,
)
from skboundary._validation import all_or_nothing

# Each estimator with the methods that require a fit.
HOSTS = {
    "latent": (LatentTransformer, {}, ["transform"]),
    "knn": (
        LatentKNNClassifier,
        {},
        ["predict", "predict_proba", "kneighbors", "score_samples", "explain", "diagnose"],
    ),
    "extractor": (BoundarySampleExtractor, {"effort": "fast"}, ["transform", "extract_pairs"]),
    "margins": (SubspaceMargins, {"subspaces": None}, ["transform", "spectrum"]),
    "classifier": (BiasedExtrapolationClassifier, {"n_iter": 1}, ["predict"]),
    "characterizer": (BoundaryCharacterizer, {"n_samples": 20, "effort": "fast"}, ["to_frame"]),
}


def make(name, estimator):
    cls, params, methods = HOSTS[name]
    if name != "characterizer":
        params = params | {"batch_size": 32}
    return cls(estimator, random_state=0, **params), methods


def call(model, method, X):
    return getattr(model, method)(*([] if method in ("to_frame", "diagnose") else [X]))


class Interrupted(nn.Module):
    """A network other than `body` that is interrupted by Ctrl-C in the given batch."""

    def __init__(self, body, batch):
        super().__init__()
        self.body, self.left = body, batch

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return -self.body(x)


@pytest.mark.parametrize("name", HOSTS)
def test_an_estimator_whose_first_fit_failed_is_not_fitted(name, iris):
    X, y = iris
    model, methods = make(name, LogisticRegression())
    state = dict(vars(model))
    with pytest.raises(ValueError, match="y contains NaN"):
        model.fit(X, np.where(y == 1, np.nan, y))
    assert vars(model) == state
    for method in methods:
        with pytest.raises(NotFittedError):
            call(model, method, X)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", HOSTS)
def test_an_estimator_whose_second_fit_was_interrupted_keeps_its_results(name, batch, mlp, iris):
    X, y = iris
    model, methods = make(name, FrozenNetwork(mlp))
    model.fit(X, y)
    before = dict(vars(model))
    results = [np.asarray(values_of(call(model, method, X))) for method in methods]
    other = FrozenNetwork(Interrupted(mlp, batch))
    if name in ("latent", "extractor", "margins"):  # in fit they run only the probe
        other.module.left = 0
    with pytest.raises(KeyboardInterrupt):
        model.set_params(estimator=other).fit(X[::2], y[::2])
    model.set_params(estimator=before["estimator"])
    assert vars(model).keys() == before.keys()
    for method, result in zip(methods, results):
        np.testing.assert_array_equal(np.asarray(values_of(call(model, method, X))), result)


def values_of(result):
    """Array to compare of a result."""
    if hasattr(result, "to_numpy"):
        return result.drop(columns="status").to_numpy()
    result = getattr(result, "outer", result)
    if isinstance(result, dict):
        result = next(iter(result.values()))
    return result[0] if isinstance(result, tuple) else result


def test_a_failed_refit_restores_the_search(iris):
    X, _ = iris
    search = TorchNearestNeighbors().fit(X)
    expected = search.kneighbors(X)
    bad = X[:, :2].copy()
    bad[3] = np.nan
    with pytest.raises(ValueError, match="sample 3"):
        search.fit(bad)
    np.testing.assert_array_equal(search.kneighbors(X), expected)
    unfitted = TorchNearestNeighbors(device="tape")
    with pytest.raises(ValueError, match="tape"):
        unfitted.fit(X)
    for method in (unfitted.kneighbors, unfitted.kneighbors_graph):
        with pytest.raises(NotFittedError):
            method(X)


def test_all_or_nothing_keeps_the_named_attributes():
    class Host(BaseEstimator):
        @all_or_nothing("_finished")
        def fit(self, X, fail):
            self.n_features_in_ = len(X)
            self._finished = X
            if fail:
                raise KeyboardInterrupt
            return self

    host = Host().fit([1], fail=False)
    with pytest.raises(KeyboardInterrupt):
        host.fit([1, 2], fail=True)
    assert vars(host) == {"n_features_in_": 1, "_finished": [1, 2]}
