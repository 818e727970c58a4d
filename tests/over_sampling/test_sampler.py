"""BiasedExtrapolationSampler: where its samples lie, and what it refuses."""

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from skboundary import BiasedExtrapolationSampler


@pytest.fixture(scope="module")
def two():
    return make_classification(
        400, 6, n_informative=4, weights=[0.85], class_sep=0.7, random_state=0
    )


def resample(X, y, **params):
    sampler = BiasedExtrapolationSampler(**{"random_state": 0, **params})
    X_new, y_new = sampler.fit_resample(X, y)
    assert np.array_equal(X_new[: len(X)], X) and np.array_equal(y_new[: len(y)], y)
    return sampler, X_new[len(X) :], y_new[len(y) :]


@pytest.mark.parametrize("estimator", [None, LogisticRegression(), "mlp"])
@pytest.mark.parametrize("bias", ["asymmetric", "bottom", "top", "random"])
def test_samples_lie_on_their_segments_at_their_probability(two, estimator, bias):
    X, y = two
    if estimator == "mlp":
        estimator = FrozenEstimator(MLPClassifier(16, max_iter=300, random_state=0).fit(X, y))
    sampler, rows, labels = resample(X, y, estimator=estimator, bias=bias)
    assert (labels == 1).all() and len(labels) == 2 * (y == 0).sum() - len(y)
    minors, majors = sampler.parents_.T
    assert (y[minors] == 1).all() and (y[majors] == 0).all()
    t = sampler.positions_[:, None]
    np.testing.assert_allclose(rows, X[minors] + t * (X[majors] - X[minors]), atol=1e-12)
    proba = sampler.estimator_.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(proba, sampler.probabilities_, atol=1e-9)
    np.testing.assert_allclose(sampler.probabilities_, sampler.targets_, atol=1e-3)
    assert len(np.unique(rows, axis=0)) == len(rows)
