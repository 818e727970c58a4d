"""A fit that does not come to its end leaves no half of a model behind."""

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

# Each with the methods that need a fit.
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
    """Another network than `body`, whose user presses Ctrl-C in the given batch."""

    def __init__(self, body, batch):
        super().__init__()
        self.body, self.left = body, batch

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return -self.body(x)


@pytest.mark.parametrize("name", HOSTS)
def test_a_model_whose_first_fit_was_refused_is_not_fitted(name, iris):
    X, y = iris
    model, methods = make(name, LogisticRegression())
    state = dict(vars(model))
    with pytest.raises(ValueError, match="y contains NaN"):
        model.fit(X, np.where(y == 1, np.nan, y))
    assert vars(model) == state
    for method in methods:
        with pytest.raises(NotFittedError):
            call(model, method, X)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", HOSTS)
def test_a_model_whose_second_fit_was_interrupted_answers_as_before(name, batch, mlp, iris):
    X, y = iris
    model, methods = make(name, FrozenNetwork(mlp))
    model.fit(X, y)
    before = dict(vars(model))
    answers = [np.asarray(values_of(call(model, method, X))) for method in methods]
    other = FrozenNetwork(Interrupted(mlp, batch))
    if name in ("latent", "extractor", "margins"):  # they run the probe alone in fit
        other.module.left = 0
    with pytest.raises(KeyboardInterrupt):
        model.set_params(estimator=other).fit(X[::2], y[::2])
    model.set_params(estimator=before["estimator"])
    assert vars(model).keys() == before.keys()
    for method, answer in zip(methods, answers):
        np.testing.assert_array_equal(np.asarray(values_of(call(model, method, X))), answer)


def values_of(answer):
    """What there is to compare of an answer."""
    if hasattr(answer, "to_numpy"):
        return answer.to_numpy()
    answer = getattr(answer, "outer", answer)
    if isinstance(answer, dict):
        answer = next(iter(answer.values()))
    return answer[0] if isinstance(answer, tuple) else answer


def test_a_refused_refit_leaves_the_search_as_it_was(iris):
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
    for ask in (unfitted.kneighbors, unfitted.kneighbors_graph):
        with pytest.raises(NotFittedError):
            ask(X)


def test_all_or_nothing_keeps_what_it_is_told():
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
