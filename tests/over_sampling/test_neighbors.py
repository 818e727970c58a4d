"""The sampler's parameter `neighbors`: a number, or another nearest neighbor search."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from skboundary import BiasedExtrapolationSampler, TorchNearestNeighbors
from skboundary.functional.pairing import find_nearest
from skboundary.over_sampling._neighbors import resolve_neighbors

pytestmark = pytest.mark.filterwarnings("ignore::skboundary.exceptions.FewParentsWarning")


@pytest.fixture(scope="module")
def two():
    X, y = make_classification(300, 4, n_redundant=0, weights=[0.8], flip_y=0, random_state=0)
    return X, y, FrozenEstimator(LogisticRegression().fit(X, y))


@pytest.mark.parametrize("pairing", ["one-to-one", "nearest", "nearest-majority"])
@pytest.mark.parametrize("search", [TorchNearestNeighbors, NearestNeighbors])
def test_an_exact_search_gives_the_same_samples(two, pairing, search):
    X, y, model = two
    found = [
        BiasedExtrapolationSampler(
            model, neighbors=neighbors, instance_pairing=pairing, random_state=0
        ).fit_resample(X, y)[0]
        for neighbors in (3, search(n_neighbors=3))
    ]
    np.testing.assert_array_equal(*found)


class Spy(NearestNeighbors):
    fitted = []

    def fit(self, X, y=None):
        self.fitted.append(X)
        return super().fit(X)


def test_the_search_is_cloned_and_fitted_on_one_class(two, monkeypatch):
    X, y, model = two
    monkeypatch.setattr(Spy, "fitted", [])
    spy = Spy(n_neighbors=2, metric="cosine")
    BiasedExtrapolationSampler(
        model, neighbors=spy, instance_pairing="nearest", random_state=0
    ).fit_resample(X, y)
    minority = {tuple(sample) for sample in X[y == 1]}
    assert len(Spy.fitted) == 2 and not hasattr(spy, "n_samples_fit_")
    assert all({tuple(sample) for sample in samples} <= minority for samples in Spy.fitted)


@pytest.mark.parametrize("n_copies", [1, 9])
def test_a_query_is_not_its_own_neighbor(n_copies):
    g = torch.Generator().manual_seed(0)
    samples = torch.randn(10, 2, generator=g).repeat(n_copies, 1)
    k, find = resolve_neighbors(NearestNeighbors(n_neighbors=4))
    index = torch.arange(len(samples))
    found = find(samples, samples, k, index)
    assert found.shape == (len(samples), 4) and (found != index[:, None]).all()
    if n_copies == 1:
        assert torch.equal(found, find_nearest(samples, samples, k, index))
    assert (found.sort(1).values.diff(dim=1) > 0).all()


class NoNumber:
    def fit(self, X):
        return self

    def kneighbors(self, X, n_neighbors):
        return np.zeros((len(X), n_neighbors)), np.full((len(X), n_neighbors), -1)


class FindsNothing(NoNumber):
    n_neighbors = 3


def test_what_does_not_meet_the_protocol_is_refused(two):
    X, y, model = two
    for neighbors, words in (
        (NoNumber(), "has no attribute n_neighbors"),
        (FindsNothing(), "did not find 4 of .* samples for each of .* queries"),
        (object(), "'neighbors' parameter"),
    ):
        with pytest.raises(ValueError, match=words):
            BiasedExtrapolationSampler(
                model, neighbors=neighbors, instance_pairing="nearest", within_class=1.0
            ).fit_resample(X, y)
