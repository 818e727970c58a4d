"""The estimators in pipelines and meta-estimators, also for 4-D images."""

import joblib
import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skboundary import FrozenNetwork, LatentKNNClassifier, LatentTransformer, TorchNearestNeighbors

LABELS = {
    "strings": np.array([f"digit {i}" for i in range(10)]),
    "negative": np.arange(-5, 5),
    "gapped": np.arange(10) ** 3,
    "shuffled": np.random.RandomState(0).permutation(10),
}

# scikit-learn encodes the labels on purpose
encoded = pytest.mark.filterwarnings("ignore::skboundary.exceptions.EncodedLabelsWarning")


@pytest.fixture(params=LABELS)
def images(request, cnn, digits):
    """4-D images that the network was not trained on, their labels, and a classifier around it."""
    X, y = digits
    classes = LABELS[request.param]
    clf = LatentKNNClassifier(FrozenNetwork(cnn, classes=classes), metric="cosine")
    X, y = X[300:500], classes[y[300:500]]
    return X, y, clf


def base_accuracy(clf, X, y):
    return (clf.estimator.predict(X) == y).mean()


def test_pipeline_and_grid_search(images):
    X, y, clf = images
    pipe = make_pipeline(FunctionTransformer(lambda X: X * 1), clf)
    grid = {
        "latentknnclassifier__n_neighbors": [1, 3],
        "latentknnclassifier__estimator__batch_size": [16, "auto"],
    }
    search = GridSearchCV(pipe, grid, cv=2).fit(X, y)
    base = base_accuracy(clf, X, y)
    assert search.best_score_ > base - 0.02 and set(search.predict(X)) <= set(y)
    parallel = GridSearchCV(clf, {"layer": ["auto", "features"]}, cv=2, n_jobs=2).fit(X, y)
    assert parallel.best_score_ > base - 0.02


@encoded
def test_cross_val_predict(images):
    X, y, clf = images
    proba = cross_val_predict(clf, X, y, cv=3, method="predict_proba")
    assert proba.shape == (200, 10)
    base = base_accuracy(clf, X, y)
    assert (np.unique(y)[proba.argmax(1)] == y).mean() > base - 0.02 > 0.8


@encoded
def test_calibration_and_voting(images):
    X, y, clf = images
    calibrated = CalibratedClassifierCV(clf, cv=2).fit(X, y)
    voting = VotingClassifier(
        [("a", clf), ("b", clone(clf).set_params(query_weight=0.1))], voting="soft"
    ).fit(X, y)
    stacked = StackingClassifier([("a", clf)], LogisticRegression(max_iter=500), cv=2).fit(X, y)
    base = base_accuracy(clf, X, y)
    for model in (calibrated, voting, stacked):
        assert model.score(X, y) > base - 0.05
        assert list(model.classes_) == sorted(set(y))


def test_clone_joblib_and_repr(images, tmp_path):
    X, y, clf = images
    assert clone(clf).get_params().keys() == clf.get_params().keys()
    assert "LatentKNNClassifier" in repr(clf) and "FrozenNetwork" in clf._repr_html_()
    clf.fit(X, y)
    joblib.dump(clf, tmp_path / "clf.joblib")
    np.testing.assert_array_equal(
        joblib.load(tmp_path / "clf.joblib").predict_proba(X), clf.predict_proba(X)
    )


@pytest.mark.parametrize("y", [np.arange(60) % 2 == 0, np.where(np.arange(60) % 2, "no", "yes")])
def test_two_classes_of_any_kind(y):
    X = np.random.RandomState(0).randn(60, 3) + 4 * np.asarray(y == y[0])[:, None]
    scores = cross_val_score(LatentKNNClassifier(random_state=0), X, y, scoring="roc_auc", cv=3)
    assert scores.min() > 0.95


def test_latent_pipeline_with_imblearn(cnn, digits):
    X, y = digits
    keep = (y != 8) | (np.arange(len(y)) % 2 == 0)
    keep[:300] = False  # the network was trained on these
    pipeline = make_imblearn_pipeline(
        LatentTransformer(FrozenNetwork(cnn)),
        SMOTE(k_neighbors=TorchNearestNeighbors(4), random_state=0),
        LogisticRegression(max_iter=500),
    )
    assert cross_val_score(pipeline, X[keep], y[keep], cv=2).min() > 0.85


def test_latent_classifier_inside_another(cnn, digits):
    """A fitted LatentKNNClassifier can be wrapped like any classifier."""
    X, y = digits
    inner = LatentKNNClassifier(FrozenNetwork(cnn))
    outer = LatentKNNClassifier(inner, n_neighbors=1, query_weight=1.0).fit(X[:100], y[:100])
    np.testing.assert_allclose(
        outer.predict_proba(X[100:]), outer.estimator_.predict_proba(X[100:]), atol=1e-6
    )
