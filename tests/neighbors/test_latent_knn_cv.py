"""The choice of neighbors, weight, distance and layer in fit."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier, LatentKNNClassifierCV
from skboundary.exceptions import SeenSamplesWarning
from skboundary.networks._several_layers import several_layers, single_layers
from tests.conftest import Recording

GRID = {"n_neighbors": [1, 5], "query_weight": [0.0, 0.5, 1.0], "average": ["proba", "logits"]}
LAYERS = ["features", "hidden", "head:input", 0, lambda module, x: x.flatten(1)]


@pytest.fixture(scope="module")
def split(digits):
    X, y = digits
    return X[:300], y[:300], X[300:450], y[300:450], X[450:], y[450:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_several_layers_are_tapped_in_one_pass(cnn, split, dtype, tmp_path):
    X = split[0][:40]
    cnn = cnn.to(dtype)
    separate = [LatentKNNClassifier(cnn, layer=layer).fit(X)._network for layer in LAYERS]
    network = several_layers(separate[0], LAYERS)
    latent, logits = network.latent_and_logits(X)
    singles = single_layers(network, X)
    for own, (single, columns) in zip(separate, singles, strict=True):
        expected, expected_logits = own.latent_and_logits(X)
        torch.testing.assert_close(latent[:, columns], expected, rtol=0, atol=0)
        torch.testing.assert_close(logits, expected_logits, rtol=0, atol=0)
        for a, b in zip(single.latent_and_logits(X[:7]), own.latent_and_logits(X[:7])):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    body = Recording(cnn, tmp_path / "rows")
    names = ["body.features", "body.hidden", 0]
    recorded = LatentKNNClassifier(FrozenNetwork(body), layer=names[0]).fit(X)._network
    network = several_layers(recorded, names)
    single_layers(network, X)
    before = len(body.rows)
    network.latent_and_logits(X)
    assert len(body.rows) - before == len(X)


def test_several_layers_with_memory(cnn, split, tmp_path):
    X, y, X_val, y_val, X_test, _ = split
    params = dict(layer=["features", "hidden"], n_neighbors=[3], query_weight=[0.3, 0.6])
    plain = LatentKNNClassifierCV(cnn, **params).fit(X, y, X_val=X_val, y_val=y_val)
    for _ in range(2):  # the second is read from the disk
        cached = LatentKNNClassifierCV(cnn, memory=str(tmp_path), **params)
        cached.fit(X, y, X_val=X_val, y_val=y_val)
        np.testing.assert_array_equal(cached.scores_, plain.scores_)
        np.testing.assert_array_equal(cached.predict_proba(X_test), plain.predict_proba(X_test))


def test_black_boxes_have_no_layers(iris):
    X, y = iris
    with pytest.raises(ValueError, match="RandomForestClassifier has no layers"):
        LatentKNNClassifierCV(RandomForestClassifier(5), layer=["auto", "1"], cv=2).fit(X, y)


@pytest.mark.parametrize("contribute", ["outputs", "labels"])
def test_scores_are_those_of_a_grid_search(contribute):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(120, 3)), rng.integers(3, size=120)
    X[:, 0] += y
    shared = dict(estimator=LogisticRegression(C=0.1), weights="distance", contribute=contribute)
    grid = {
        "n_neighbors": [1, 4],
        "query_weight": [0.0, 0.4],
        "average": ["proba"] if contribute == "labels" else ["proba", "logits"],
        "metric": ["euclidean", "cosine"],
    }
    folds = StratifiedKFold(3)
    ours = LatentKNNClassifierCV(**shared, **grid, cv=folds, scoring="neg_log_loss").fit(X, y)
    theirs = GridSearchCV(
        LatentKNNClassifier(**shared), {**grid, "layer": ["auto"]}, cv=folds, scoring="neg_log_loss"
    ).fit(X, y)
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    for name in ("split0_test_score", "split2_test_score", "mean_test_score", "std_test_score"):
        np.testing.assert_allclose(ours.cv_results_[name], theirs.cv_results_[name], rtol=1e-6)
    assert ours.best_params_ == theirs.best_params_
    assert ours.best_score_ == pytest.approx(theirs.best_score_)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)
    assert ours.scores_.shape == (3, len(grid["average"]), 1, 2, 2, 2)
    np.testing.assert_array_equal(ours.scores_[1].ravel(), ours.cv_results_["split1_test_score"])


def test_a_trained_network_is_chosen_on_samples_that_are_given(cnn, split):
    X, y, X_val, y_val, X_test, _ = split
    clf = LatentKNNClassifierCV(cnn, layer=["features", "hidden", "head:input"], **GRID)
    with pytest.raises(ValueError, match="X may be what the trained network.*Pass other samples"):
        clf.fit(X, y)
    clf.fit(X, y, X_val=X_val, y_val=y_val)
    assert clf.scores_.shape == (1, 2, 3, 2, 2, 3)
    refitted = []
    for setting, score in zip(clf.cv_results_["params"], clf.cv_results_["mean_test_score"]):
        one = LatentKNNClassifier(cnn, **setting).fit(X, y)
        refitted.append(one.score(X_val, y_val))
        assert refitted[-1] == pytest.approx(score)
        if setting == clf.best_params_:
            np.testing.assert_allclose(
                clf.predict_proba(X_test), one.predict_proba(X_test), atol=1e-6
            )
            np.testing.assert_array_equal(
                clf.best_estimator_.kneighbors(X_test)[1], one.kneighbors(X_test)[1]
            )
    assert clf.best_score_ == max(refitted)
    best = clf.best_estimator_
    assert best.n_samples_fit_ == len(X) and best.get_params()["layer"] == clf.best_params_["layer"]
    best.explain(X_test), best.diagnose(), best.label_issues()
    other = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(other.predict_proba(X_test), clf.predict_proba(X_test))


def test_query_transforms_are_applied_to_the_samples_to_choose_on(cnn, split):
    X, y, X_val, y_val, *_ = split
    params = dict(query_transforms=[lambda X: X[..., ::-1]], query_weight=[0.0], metric=["cosine"])
    clf = LatentKNNClassifierCV(cnn, n_neighbors=[1, 7], **params)
    clf.fit(X, y, X_val=X_val, y_val=y_val)
    for setting, score in zip(clf.cv_results_["params"], clf.cv_results_["mean_test_score"]):
        one = LatentKNNClassifier(cnn, query_transforms=clf.query_transforms, **setting)
        assert one.fit(X, y).score(X_val, y_val) == pytest.approx(score)
        assert abs(one.set_params(query_transforms=None).score(X_val, y_val) - score) > 0.02


def test_of_equal_scores_the_largest_weight_wins(mlp, iris):
    X, y = iris
    clf = LatentKNNClassifierCV(
        mlp, n_neighbors=[2, 1], query_weight=[1.0, 0.999999], metric=["cosine"]
    )
    clf.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert len(set(clf.cv_results_["mean_test_score"])) == 1
    assert clf.best_params_["query_weight"] == 1.0 and clf.best_params_["n_neighbors"] == 1


class Counted(LogisticRegression):
    fits = []

    def fit(self, X, y):
        self.fits.append(len(X))
        return super().fit(X, y)


def test_how_often_the_estimator_is_trained(iris):
    X, y = iris
    small = dict(n_neighbors=[3], query_weight=[0.5], random_state=0)
    for params, fits in [
        ({"cv": 3}, [100, 100, 100, 150]),
        ({"validation_fraction": 0.2}, [120, 150]),
        ({"validation_fraction": 0.2, "refit": False}, [120]),
    ]:
        Counted.fits.clear()
        clf = LatentKNNClassifierCV(Counted(max_iter=500), **small, **params).fit(X, y)
        assert Counted.fits == fits and clf.best_estimator_.n_samples_fit_ == fits[-1]
    Counted.fits.clear()
    clf.fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert Counted.fits == [75] and clf.best_estimator_.n_samples_fit_ == 75


def test_random_state_determines_the_samples_to_choose_on(iris):
    params = dict(n_neighbors=[3], query_weight=[0.5], validation_fraction=0.5, refit=False)
    kept = []
    for seed in (1, 1, 2):
        clf = LatentKNNClassifierCV(GaussianNB(), random_state=seed, **params).fit(*iris)
        kept.append(clf.estimator_.theta_)
    np.testing.assert_array_equal(kept[0], kept[1])
    assert (kept[0] != kept[2]).any()


def test_numbers_above_the_training_samples_are_left_out(iris):
    X, y = iris
    base = LogisticRegression(max_iter=500)
    clf = LatentKNNClassifierCV(base, n_neighbors=[120, 1, 119, 80], cv=2)
    assert set(clf.fit(X, y).cv_results_["param_n_neighbors"]) == {1}
    with pytest.raises(ValueError, match=r"n_neighbors=\[76\] are all above .* 75. Add a smaller"):
        clf.set_params(n_neighbors=[76]).fit(X, y)
    uneven = [(np.arange(0, 150, step), np.arange(1, 150, 3)) for step in (2, 3)]  # 75 and 50
    clf.set_params(n_neighbors=[1, 50, 51], cv=uneven).fit(X, y)
    assert set(clf.cv_results_["param_n_neighbors"]) == {1, 50}
    clf.set_params(n_neighbors=[1, 999]).fit(X[::2], y[::2], X_val=X[1::2], y_val=y[1::2])
    assert set(clf.cv_results_["param_n_neighbors"]) == {1}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_neighbors": 5}, r"n_neighbors=5 is not a list of values: pass \[5\]"),
        ({"metric": "cosine"}, "metric='cosine' is not a list"),
        ({"query_weight": [0.5, 2]}, "'query_weight' parameter of LatentKNNClassifier .* Got 2"),
        ({"layer": []}, "layer is empty"),
        ({"layer": ["hidden", None]}, "'layer' parameter of LatentKNNClassifier must"),
        ({"contribute": "labels", "average": ["logits"]}, "average='logits'"),
        ({"scoring": lambda est, X, y: np.nan}, "gives NaN for .*Choose another scoring"),
    ],
)
def test_bad_values_are_refused(cnn, split, params, message):
    X, y, X_val, y_val, *_ = split
    with pytest.raises(ValueError, match=message):
        LatentKNNClassifierCV(cnn, **params).fit(X, y, X_val=X_val, y_val=y_val)


def test_validation_samples_and_labels_come_together(cnn, split):
    X, y, X_val, y_val, *_ = split
    for given in ({"X_val": X_val}, {"y_val": y_val}):
        with pytest.raises(ValueError, match="X_val and y_val together"):
            LatentKNNClassifierCV(cnn).fit(X, y, **given)
    with pytest.raises(ValueError, match="not one of the 10 classes"):
        LatentKNNClassifierCV(cnn).fit(X, y, X_val=X_val, y_val=y_val + 50)


def test_samples_that_were_seen_are_reported(cnn, split):
    X, y, X_val, y_val, X_test, _ = split
    sure = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()  # right on all, by its labels
    labels = FrozenNetwork(sure).predict(X_test)
    both = (
        np.concatenate([X_test, X_val]),
        np.concatenate([labels, FrozenNetwork(sure).predict(X_val)]),
    )
    fitted = LatentKNNClassifierCV(sure, n_neighbors=[3])
    swept = LatentKNNClassifier(sure).fit(X, y)
    for method in (lambda Z, t: fitted.fit(X, y, X_val=Z, y_val=t), swept.sweep):
        with pytest.warns(SeenSamplesWarning, match="100.0% of the samples .* among the training"):
            method(X[:50], y[:50])
        with pytest.warns(SeenSamplesWarning, match="right on 100.0% of the samples"):
            method(*both)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SeenSamplesWarning)
            method(X_test, labels)  # fewer than 200
            method(X_val, y_val)


def test_sweep_of_layers_and_metrics(cnn, split):
    X, y, X_val, y_val, *_ = split
    clf = LatentKNNClassifier(cnn).fit(X, y)
    grid = {
        "n_neighbors": [2, 6],
        "query_weight": [0.2],
        "layer": ["features", "hidden"],
        "metric": ["euclidean", "cosine"],
    }
    table = clf.sweep(X_val, y_val, **grid, X_train=X, scoring="neg_log_loss")
    for setting, score in zip(table["params"], table["mean_test_score"]):
        one = clone(clf).set_params(**setting).fit(X, y)
        log = np.log(one.predict_proba(X_val)[range(len(X_val)), y_val])
        assert log.mean() == pytest.approx(score, rel=1e-5)
    del grid["layer"]
    metrics = clf.sweep(X_val, y_val, **grid)
    assert [p["metric"] for p in metrics["params"]] == ["euclidean"] * 2 + ["cosine"] * 2
    for setting, score in zip(metrics["params"], metrics["mean_test_score"]):
        assert clone(clf).set_params(**setting).fit(X, y).score(X_val, y_val) == score
    for wrong in ({"layer": ["hidden"]}, {"X_train": X}):
        with pytest.raises(ValueError, match="pass both layer and X_train, or neither"):
            clf.sweep(X_val, y_val, **wrong)
    for other in (X[::-1], X[:-1]):
        with pytest.raises(ValueError, match="X_train has .* Pass the samples of fit"):
            clf.sweep(X_val, y_val, layer=["hidden"], X_train=other)


def test_wrong_labels_are_outvoted(digits):
    """As the choice by hand of the tour, on a network that has memorized a third of the labels."""
    X, y = digits
    X, noisy = X.reshape(len(X), -1), y.copy()
    rng = np.random.default_rng(0)
    wrong = rng.permutation(450)[:150]
    noisy[wrong] = rng.permutation(noisy[wrong])
    net = MLPClassifier((64,), max_iter=400, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf = LatentKNNClassifierCV(net, validation_fraction=0.25, refit=False, random_state=0)
        clf.fit(X[:450], noisy[:450])
    base = clf.estimator_.score(X[450:], y[450:])
    assert clf.score(X[450:], y[450:]) > base + 0.05
    assert clf.best_params_["query_weight"] < 0.88 and clf.best_params_["n_neighbors"] > 3


@pytest.mark.parametrize("folds", [[([0, 1, 2], [150])], [([-151, 0], [1])]])
def test_folds_beyond_the_samples_are_refused(iris, folds):
    with pytest.raises(ValueError, match=r"cv gives the index -?15\d, but X has 150 samples"):
        LatentKNNClassifierCV(LogisticRegression(), n_neighbors=[1], cv=folds).fit(*iris)


def test_folds_without_weight_are_refused_as_by_the_scorer(iris):
    X, y = iris
    w = np.r_[np.zeros(50), np.ones(100)]
    for scoring in (None, "accuracy"):
        clf = LatentKNNClassifierCV(
            LogisticRegression(max_iter=1000), cv=KFold(3), n_neighbors=[1, 3], scoring=scoring
        )
        with pytest.raises(ValueError, match="at least one non-zero"):
            clf.fit(np.roll(X, 7, 0), np.roll(y, 7), sample_weight=w)
