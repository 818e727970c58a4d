"""BiasedExtrapolationSampler inside imbalanced-learn's and scikit-learn's machinery."""

import numpy as np
import pytest
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import Pipeline, make_pipeline
from imblearn.under_sampling import EditedNearestNeighbours
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler

from skboundary import (
    BiasedExtrapolationSampler,
    BiasSettings,
    FrozenNetwork,
    LatentTransformer,
)


@pytest.fixture(scope="module")
def table():
    return make_classification(300, 8, n_informative=4, weights=[0.85], random_state=0)


def head():
    return LogisticRegression(max_iter=500)


def sampler(**params):
    return BiasedExtrapolationSampler(**{"random_state": 0, **params})


def test_latent_sampler_head(cnn, digits):
    """In the latent space of a trained network, between it and a new head."""
    X, y = digits
    keep = np.flatnonzero((y % 2 == 0) | (np.arange(len(y)) % 3 == 0))
    X_train, y_train = X[keep[:250]], y[keep[:250]]
    chain = Pipeline(
        [("latent", LatentTransformer(FrozenNetwork(cnn))), ("sample", sampler()), ("head", head())]
    )
    assert chain.fit(X_train, y_train).score(X[300:], y[300:]) > 0.8
    counts = np.bincount(y_train)
    new = chain["sample"].sampling_strategy_
    assert [counts[c] + new.get(c, 0) for c in range(10)] == [counts.max()] * 10
    latent = chain["latent"].transform(X_train)
    first, _second = latent[chain["sample"].parents_.T]
    assert first.shape[1] == 32 and len(first) == sum(new.values())


def test_after_a_scaler_and_passthrough(table):
    X, y = table
    chain = Pipeline([("scale", StandardScaler()), ("sample", sampler()), ("head", head())])
    recall = cross_val_score(chain, X, y, cv=3, scoring="recall")
    chain.set_params(sample="passthrough")
    assert recall.mean() > cross_val_score(chain, X, y, cv=3, scoring="recall").mean()


def test_grid_search_in_two_processes(table):
    X, y = table
    chain = Pipeline([("scale", StandardScaler()), ("sample", sampler()), ("head", head())])
    grid = [
        {"sample__bias": ["bottom", "dbr"], "sample__sampling_strategy": [0.5, "auto"]},
        {"sample__settings": [BiasSettings()], "sample__settings__gamma": [-0.4, 0.2]},
        {"sample": ["passthrough"]},
    ]
    search = GridSearchCV(chain, grid, cv=2, n_jobs=2, scoring="balanced_accuracy")
    search.fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 7 and np.isfinite(scores).all() and scores.argmin() == 6


@pytest.mark.parametrize("other", [SMOTE(random_state=0), EditedNearestNeighbours()])
@pytest.mark.parametrize("first", [True, False])
def test_other_samplers_before_and_after(table, other, first):
    X, y = table
    ours = sampler(sampling_strategy=0.6)
    if isinstance(other, SMOTE):
        other = clone(other).set_params(sampling_strategy=0.3 if first else 0.9)
    chain = make_pipeline(*((other, ours) if first else (ours, other)), head())
    assert chain.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.6
    step = chain[0 if not first else 1]
    assert step.sampling_strategy_[1] == len(step.parents_) > 0


def test_balanced_bagging(table):
    X, y = table
    trained = FrozenEstimator(head().fit(X[::2], y[::2]))
    for ours in (sampler(), sampler(estimator=trained, instance_pairing="nearest")):
        bag = BalancedBaggingClassifier(head(), n_estimators=3, sampler=ours, random_state=0)
        assert bag.fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.7
        (chain, *_) = bag.estimators_
        assert len(chain["sampler"].parents_) > 0
