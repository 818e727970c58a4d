"""BiasSettings: defaults, validation, grids."""

import numpy as np
import pytest
from imblearn.pipeline import make_pipeline
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skboundary import BiasedExtrapolationClassifier, BiasedExtrapolationSampler, BiasSettings


@pytest.fixture(scope="module")
def table():
    return make_classification(300, 6, n_informative=4, weights=[0.85], random_state=0)


def test_none_stands_for_the_defaults(table):
    found = BiasedExtrapolationSampler(random_state=0).fit_resample(*table)
    given = BiasedExtrapolationSampler(random_state=0, settings=BiasSettings())
    np.testing.assert_array_equal(found[0], given.fit_resample(*table)[0])
    assert BiasedExtrapolationSampler().settings is None


def test_the_sampler_has_thirteen_parameters_and_takes_an_estimator_by_position(table):
    model = LogisticRegression()
    sampler = BiasedExtrapolationSampler(model)
    assert sampler.estimator is model and len(sampler.get_params(deep=False)) == 13
    with pytest.raises(TypeError):
        BiasedExtrapolationSampler(model, "auto")


def test_the_settings_of_the_paper():
    paper = BiasSettings.paper()
    assert paper.get_params() == {
        "fraction": 0.3,
        "gamma": -0.4,
        "p_min": 0.05,
        "distance_ratio": "centroid",
        "class_specific": "threshold",
        "tau": 0.7,
    }


def test_a_grid_over_the_settings(table):
    X, y = table
    sampler = BiasedExtrapolationSampler(random_state=0, settings=BiasSettings())
    chain = make_pipeline(sampler, LogisticRegression())
    grid = {"biasedextrapolationsampler__settings__gamma": [-0.8, -0.4, 0.0]}
    search = GridSearchCV(chain, grid, cv=3, scoring="neg_log_loss").fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(np.unique(scores)) == 3
    best = search.best_estimator_[0].settings.gamma
    assert best == grid["biasedextrapolationsampler__settings__gamma"][scores.argmax()]
    assert sampler.settings.gamma == -0.4


@pytest.mark.parametrize(
    "bad",
    [
        {"fraction": 0},
        {"fraction": 1.1},
        {"gamma": -2},
        {"p_min": 0.5},
        {"distance_ratio": "mean"},
        {"class_specific": "always"},
        {"tau": 2},
    ],
)
def test_bad_values_are_refused_where_they_act(table, bad):
    X, y = table
    (name,) = bad
    sampler = BiasedExtrapolationSampler(settings=BiasSettings(**bad))
    with pytest.raises(ValueError, match=f"'{name}' parameter of BiasSettings"):
        sampler.fit_resample(X, y)
    with pytest.raises(ValueError, match=f"'{name}' parameter of BiasSettings"):
        BiasedExtrapolationClassifier(LogisticRegression(), sampler=sampler).fit(X, y)
    clone(sampler)  # as it is in a grid


def test_the_sampler_and_the_classifier_leave_the_settings_alone(table):
    X, y = table
    settings = BiasSettings(class_specific="threshold")
    sampler = BiasedExtrapolationSampler(settings=settings, random_state=0)
    sampler.fit_resample(X, y)
    trained = FrozenEstimator(LogisticRegression().fit(X, y))
    BiasedExtrapolationClassifier(trained, sampler=sampler, n_iter=1).fit(X, y)
    assert sampler.settings is settings and settings.class_specific == "threshold"
