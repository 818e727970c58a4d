import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from skboundary import FrozenNetwork, LogitAdjustedClassifier

CENTERS = [[0, 0], [1.5, 0], [0, 1.5]]


def gaussians(n, seed, scale=1.0, shift=0.0, dtype=np.float64):
    """Three overlapping classes of n samples of unit variance, as numbers of any unit."""
    X, y = make_blobs(n, centers=CENTERS, random_state=seed)
    return (X * scale + shift).astype(dtype), np.array(["a", "b", "c"])[y]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 0.0), (1e4, 1e4)])
def test_tau_1_is_bayes_rule_for_equally_frequent_classes(dtype, scale, shift):
    """With the exact probabilities the result is that of a model with equal priors."""
    X, y = gaussians([600, 60, 30], 0, scale, shift, dtype)
    X_test, _ = gaussians([100, 100, 100], 1, scale, shift, dtype)
    model = GaussianNB().fit(X, y)
    equal = GaussianNB().fit(X, y)
    equal.class_prior_ = np.full(3, 1 / 3)
    adjusted = LogitAdjustedClassifier(GaussianNB()).fit(X, y)
    np.testing.assert_allclose(
        adjusted.predict_proba(X_test), equal.predict_proba(X_test), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_equal(adjusted.predict(X_test), equal.predict(X_test))
    assert (adjusted.predict(X_test) != model.predict(X_test)).mean() > 0.1
    np.testing.assert_allclose(adjusted.prior_, [600 / 690, 60 / 690, 30 / 690])
    assert adjusted.tau_ == 1.0


@pytest.mark.parametrize("tau", [0.0, 0.5, 2.5])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_logits_are_those_of_the_formula(tau, scale):
    torch.manual_seed(0)
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight *= scale
    X, _ = gaussians(50, 0, dtype=np.float32)
    prior = [5.0, 3.0, 2.0]
    frozen = FrozenNetwork(net, classes=["c", "a", "b"])
    clf = LogitAdjustedClassifier(frozen, tau=tau, prior=prior).fit(X)
    f = frozen.decision_function(X)  # columns a, b, c
    expected = f - tau * np.log([0.5, 0.3, 0.2])
    np.testing.assert_allclose(clf.decision_function(X), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(clf.predict(X), np.array(["a", "b", "c"])[expected.argmax(1)])
    if tau == 0:
        np.testing.assert_array_equal(clf.predict(X), frozen.predict(X))


def test_two_classes_have_one_score():
    X, y = gaussians([300, 30, 0], 0)
    clf = LogitAdjustedClassifier(LogisticRegression()).fit(X, y)
    score = clf.estimator_.decision_function(X) + np.log(300 / 30)
    np.testing.assert_allclose(clf.decision_function(X), score, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(X)[:, 1], 1 / (1 + np.exp(-score)), rtol=1e-4)


def best_by_hand(proba, y, prior):
    """All values tried one by one with scikit-learn's metric."""
    taus = [round(0.05 * i, 2) for i in range(61)]
    scores = []
    for tau in taus:
        with np.errstate(divide="ignore"):
            predicted = (np.log(proba) - tau * np.log(prior)).argmax(1)
        scores.append(balanced_accuracy_score(y, np.unique(y)[predicted]))
    top = [t for t, s in zip(taus, scores) if s >= max(scores) - 1e-12]
    return min(top, key=lambda t: abs(t - 1))


@pytest.mark.parametrize("model", [LogisticRegression(C=0.01), RandomForestClassifier(20)])
def test_auto_maximizes_balanced_accuracy_in_cross_validation(model):
    model = clone(model)
    if hasattr(model, "random_state"):
        model.set_params(random_state=0)
    X, y = gaussians([400, 60, 20], 3)
    clf = LogitAdjustedClassifier(model, tau="auto").fit(X, y)
    proba = cross_val_predict(model, X, y, cv=5, method="predict_proba")
    assert clf.tau_ == pytest.approx(best_by_hand(proba, y, clf.prior_))
    assert clf.tau_ > 0


def test_auto_uses_validation_samples_alone_where_they_are_given():
    X, y = gaussians([400, 60, 20], 3)
    X_val, y_val = gaussians([200, 30, 10], 4)
    model = LogisticRegression().fit(X, y)
    by_hand = best_by_hand(model.predict_proba(X_val), y_val, np.array([400, 60, 20]) / 480)
    clf = LogitAdjustedClassifier(LogisticRegression(), tau="auto")
    assert clf.fit(X, y, X_val=X_val, y_val=y_val).tau_ == pytest.approx(by_hand)


def test_auto_for_a_trained_network():
    X, y = gaussians([400, 60, 20], 3)
    torch.manual_seed(0)
    network = FrozenNetwork(nn.Linear(2, 3).double(), classes=["a", "b", "c"])
    clf = LogitAdjustedClassifier(network, tau="auto")
    with pytest.raises(ValueError, match="X_val and y_val"):
        clf.fit(X, y)
    clf.fit(X, y, X_val=X[::2], y_val=y[::2])
    proba = network.predict_proba(X[::2])
    assert clf.tau_ == pytest.approx(best_by_hand(proba, y[::2], clf.prior_))


def test_the_adjustment_raises_the_balanced_accuracy():
    X, y = gaussians([900, 60, 40], 5)
    X_test, y_test = gaussians([500, 500, 500], 6)
    clf = LogitAdjustedClassifier(make_pipeline(StandardScaler(), LogisticRegression())).fit(X, y)
    before = balanced_accuracy_score(y_test, clf.estimator_.predict(X_test))
    assert balanced_accuracy_score(y_test, clf.predict(X_test)) > before + 0.1


@pytest.mark.parametrize(
    ("params", "y", "match"),
    [
        ({"prior": [0.5, 0.5]}, "abc", "positive number for each of the 3 classes"),
        ({"prior": [1.0, 1.0, 0.0]}, "abc", "positive number"),
        ({"prior": [1.0, np.nan, 1.0]}, "abc", "positive number"),
        ({}, None, "pass y to fit, or set prior"),
        ({}, "aba", "class 'c' of the network has no sample"),
        ({"tau": -1.0}, "abc", "'tau' parameter"),
        ({"tau": "best"}, "abc", "'tau' parameter"),
    ],
)
def test_errors_name_what_to_change(params, y, match):
    X = np.eye(3, 2, dtype=np.float32)
    network = FrozenNetwork(nn.Linear(2, 3), classes=["a", "b", "c"])
    with pytest.raises(ValueError, match=match):
        LogitAdjustedClassifier(network, **params).fit(X, y and list(y))


def test_errors_of_the_choice():
    X, y = gaussians([40, 20, 1], 0)
    clf = LogitAdjustedClassifier(LogisticRegression(), tau="auto")
    with pytest.raises(ValueError, match="class 'c' has a single sample"):
        clf.fit(X, y)
    with pytest.raises(ValueError, match="together"):
        clf.fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="'d', which is not one of"):
        clf.fit(X, y, X_val=X[:2], y_val=["a", "d"])
    with pytest.raises(ValueError, match="no effect with tau=1.0"):
        clf.set_params(tau=1.0).fit(X, y, X_val=X, y_val=y)


class Unweighted(LogisticRegression):
    n_fits = 0

    def fit(self, X, y, sample_weight=None):
        type(self).n_fits += 1
        return super().fit(X, y)


@pytest.mark.parametrize("weight", [-1.0, 0.0])
def test_a_class_without_positive_weight_is_refused(weight):
    X, y = gaussians([40, 20, 20], 0)
    w = np.where(y == "b", weight, 1.0)

    with pytest.raises(ValueError, match="class 'b' .* no sample of positive weight"):
        LogitAdjustedClassifier(Unweighted()).fit(X, y, sample_weight=w)


@pytest.mark.filterwarnings("error")
def test_folds_are_as_many_as_samples_of_the_rarest_class():
    X, y = gaussians([40, 20, 3], 0)
    Unweighted.n_fits = 0
    LogitAdjustedClassifier(Unweighted(), tau="auto").fit(X, y)
    assert Unweighted.n_fits == 3 + 1


@pytest.mark.filterwarnings("error")
def test_a_class_that_counts_nothing_does_not_change_the_choice():
    X, y = gaussians([400, 60, 20], 3)
    w = np.where(y == "b", 0.0, 1.0)
    clf = LogitAdjustedClassifier(Unweighted(C=0.01), tau="auto", prior=[20, 3, 1])
    clf.fit(X, y, sample_weight=w)
    proba = cross_val_predict(LogisticRegression(C=0.01), X, y, cv=5, method="predict_proba")
    recall = []  # of the other classes together
    for tau in np.linspace(0, 3, 61):
        hit = clf.classes_[(np.log(proba) - tau * np.log(clf.prior_)).argmax(1)] == y
        recall.append(hit[y == "a"].mean() + hit[y == "c"].mean())
    assert recall[round(clf.tau_ / 0.05)] == pytest.approx(max(recall))
    assert max(recall) > min(recall) + 0.02


def test_decision_values_count_as_logits():
    X, y = gaussians([300, 60, 40], 0)
    clf = LogitAdjustedClassifier(LinearSVC()).fit(X, y)
    expected = clf.estimator_.decision_function(X) - np.log(clf.prior_)
    np.testing.assert_allclose(clf.decision_function(X), expected, rtol=1e-5, atol=1e-5)
