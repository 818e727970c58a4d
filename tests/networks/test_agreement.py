"""Scores against `predict`, probabilities against `predict_proba`: whatever is wrapped."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_blobs
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
)
from skboundary.exceptions import ProbabilityOutputWarning, ScoreMismatchWarning
from skboundary.networks._agreement import disagreeing, pick_probes
from skboundary.networks._factory import as_network

HOSTS = [LatentKNNClassifier, BiasedExtrapolationClassifier]


@pytest.fixture(scope="module")
def noisy():
    """Two classes that overlap, so that a threshold moves many predictions."""
    X, y = make_blobs([120, 60], 3, cluster_std=2.5, random_state=0)
    return X, y


def pairs_of_classes():
    return GridSearchCV(SVC(decision_function_shape="ovo"), {"C": [1.0]}, cv=2)


class Columns(LogisticRegression):
    """Gives labels as a column, as CatBoost does for several classes."""

    def predict(self, X):
        return super().predict(X)[:, None]


class LabelColumns(ClassifierMixin, BaseEstimator):
    """The same without scores."""

    def fit(self, X, y):
        self.inner_ = Columns(max_iter=500).fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict(self, X):
        return self.inner_.predict(X)


# ------------------------------------------------------------------------ scores and labels


@pytest.mark.parametrize("model", [Columns(max_iter=500), LabelColumns()])
def test_labels_may_come_as_a_column(iris, model):
    X, y = iris
    want = model.fit(X, y).predict(X)[:, 0]
    clf = LatentKNNClassifier(FrozenEstimator(model), query_weight=1).fit(X, y)
    np.testing.assert_array_equal(clf.predict(X), want)
    extractor = BoundarySampleExtractor(FrozenEstimator(model), effort="fast").fit(X, y)
    assert extractor.extract_pairs(X[:3]).success.all()


@pytest.mark.parametrize("host", HOSTS)
def test_scores_of_pairs_of_classes_are_refused(iris, host):
    with pytest.raises(ValueError, match=r"GridSearchCV .* \d+ of 64 .*decision_function_shape="):
        host(pairs_of_classes()).fit(*iris)


def test_the_sampler_refuses_scores_of_pairs_of_classes(iris):
    X, y = iris[0][:130], iris[1][:130]
    with pytest.raises(ValueError, match="GridSearchCV .* of 64 training samples"):
        BiasedExtrapolationSampler(estimator=pairs_of_classes()).fit_resample(X, y)


@pytest.mark.parametrize("inside", [False, True])
def test_a_head_with_scores_of_pairs_of_classes_is_refused(iris, inside):
    head = pairs_of_classes() if inside else SVC(decision_function_shape="ovo")
    clf = BiasedExtrapolationClassifier(LogisticRegression(max_iter=500), head=head, n_iter=1)
    with pytest.raises(ValueError, match=r"largest score for \d+% .*shape='ovr'"):
        clf.fit(iris[0][:130], iris[1][:130])


def test_another_number_of_scores_than_classes_is_refused():
    X, y = make_blobs(60, 3, centers=4, random_state=0)
    with pytest.raises(ValueError, match="SVC has 6 columns for 4 classes.*shape='ovr'"):
        LatentKNNClassifier(SVC(decision_function_shape="ovo")).fit(X, y)
    LatentKNNClassifier(SVC(decision_function_shape="ovo")).fit(X, np.minimum(y, 1))  # one column


def test_hosts_that_need_no_scores_take_any(iris, noisy):
    LatentTransformer(pairs_of_classes()).fit(*iris)
    with pytest.warns(ScoreMismatchWarning) as caught:
        extractor = BoundarySampleExtractor(pairs_of_classes(), random_state=0).fit(*iris)
    assert extractor.response_ == "label" and [w.filename for w in caught] == [__file__]
    SubspaceMargins(FixedThresholdClassifier(GaussianNB(), threshold=0.2), method="label").fit(
        *noisy
    )


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (FixedThresholdClassifier(LogisticRegression(), threshold=0.2), [0, 1]),
        (TunedThresholdClassifierCV(LogisticRegression(), scoring="recall", cv=2), [0, 1]),
        (FixedThresholdClassifier(GaussianNB(), threshold=0.2, pos_label="yes"), ["no", "yes"]),
    ],
    ids=["fixed", "tuned", "names"],
)
def test_a_threshold_is_refused_where_scores_count(noisy, model, names):
    X, y = noisy[0], np.array(names)[noisy[1]]
    for host in HOSTS:
        with pytest.raises(ValueError, match=r"ThresholdClassifier.* \(\d\d%\).*threshold"):
            host(model).fit(X, y)
    with pytest.warns(ScoreMismatchWarning):
        extractor = BoundarySampleExtractor(model, effort="fast", random_state=0).fit(X, y)
    pairs = extractor.extract_pairs(X[:10])
    assert (extractor.estimator_.predict(pairs.outer) == pairs.target)[pairs.success].all()
    inside = FixedThresholdClassifier(  # the remedy of the message
        LatentKNNClassifier(LogisticRegression()), threshold=0.2, pos_label=names[1]
    )
    assert (inside.fit(X, y).predict(X) == names[1]).mean() > (y == names[1]).mean()


def test_a_threshold_that_moves_nothing_passes(noisy):
    LatentKNNClassifier(FixedThresholdClassifier(LogisticRegression(), threshold=0.5)).fit(*noisy)


def test_equal_scores_prove_nothing():
    scores = torch.tensor([[1.0, 1.0 + 1e-7], [1.0, 2.0], [1e6, 0.0]])
    assert disagreeing(scores, torch.tensor([0, 1, 0]), 1e-7).tolist() == [False] * 3
    assert disagreeing(scores[:2], torch.tensor([0, 0]), 1e-7).tolist() == [False, True]
    assert disagreeing(scores[:2], torch.tensor([0, 0]), 1e-1).tolist() == [False, False]


def test_probes_hold_all_classes():
    y = np.repeat(["a", "b", "c"], [900, 2, 98])
    rows = pick_probes(y, 1000)
    assert len(set(rows)) == 64 and set(y[rows]) == {*"abc"}
    assert [(y[rows] == c).sum() for c in "abc"] == [31, 2, 31]
    assert pick_probes(None, 1000)[[0, -1]].tolist() == [0, 999] and len(pick_probes(y, 9)) == 9


MODELS = [
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(loss="modified_huber", random_state=0),
    SGDClassifier(random_state=0),
    LogisticRegression(max_iter=50),
    LinearSVC(random_state=0, max_iter=50),
    RidgeClassifier(),
    MLPClassifier((8,), max_iter=20, random_state=0),
    SVC(break_ties=True),
    KNeighborsClassifier(4),
    RandomForestClassifier(7, random_state=0),
    HistGradientBoostingClassifier(max_iter=3, random_state=0),
    CalibratedClassifierCV(LinearSVC(random_state=0, max_iter=50), cv=2),
    CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2),
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("load", [load_breast_cancer, load_wine], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: repr(m)[:40])
def test_honest_classifiers_pass_at_any_scale(model, load, dtype):
    X, y = load(return_X_y=True)
    X, y = X[::3].astype(dtype), np.array(["p", "q", "r"])[y[::3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ProbabilityOutputWarning)
        fitted, network = as_network(model, X, y)
    agree = network.classes_[network.logits(X).argmax(1)] == fitted.predict(X)
    assert agree.mean() > 0.99
    as_network(make_pipeline(StandardScaler(), model), X, y)


# -------------------------------------------------------------------------- skorch's own words


class Net(nn.Module):
    def __init__(self, n_out=3, end=None):
        super().__init__()
        self.fc, self.end = nn.Linear(4, n_out), end or nn.Identity()

    def forward(self, x):
        return self.end(self.fc(x))


def net(cls=NeuralNetClassifier, **params):
    defaults = {"criterion": nn.CrossEntropyLoss, "max_epochs": 5, "lr": 0.1, "verbose": 0}
    return cls(Net, **{**defaults, **params})


def cooled(z):
    return torch.softmax(z / 5, -1)


def cooled_sigmoid(z):
    p = torch.sigmoid(z / 5)
    return torch.stack([1 - p, p], 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: net(),
        lambda: net(predict_nonlinearity=cooled),
        lambda: net(predict_nonlinearity=None, module__end=nn.Softmax(1)),
        lambda: net(criterion=nn.NLLLoss, module__end=nn.Softmax(1)),
        lambda: net(criterion=nn.MultiMarginLoss, predict_nonlinearity=cooled),
    ],
    ids=["auto", "callable", "none", "nll", "other loss"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [[], [StandardScaler()]], ids=["bare", "scaled"])
def test_skorch_probabilities_are_its_own(make, dtype, steps, iris):
    X, y = iris[0].astype(dtype), np.array(["p", "q", "r"])[iris[1]]
    state = torch.get_rng_state()
    fitted, network = as_network(make_pipeline(*steps, make()), X, y, random_state=0)
    assert torch.equal(torch.get_rng_state(), state)
    Z = fitted[:-1].transform(X) if steps else X
    expected = fitted[-1].predict_proba(Z.astype(np.float32))
    np.testing.assert_allclose(network.proba(network.logits(X)), expected, atol=1e-5)
    assert network.differentiable


@pytest.mark.parametrize(
    "params",
    [
        {"criterion": nn.BCEWithLogitsLoss},
        {"criterion": nn.BCEWithLogitsLoss, "predict_nonlinearity": cooled_sigmoid},
        {"criterion": nn.BCELoss, "module__end": nn.Sigmoid()},
    ],
    ids=["auto", "callable", "bce"],
)
def test_binary_skorch_probabilities_are_its_own(params, iris):
    X, y = iris[0].astype(np.float32)[:100], iris[1][:100]
    fitted, network = as_network(net(NeuralNetBinaryClassifier, module__n_out=1, **params), X, y)
    np.testing.assert_allclose(network.proba(network.logits(X)), fitted.predict_proba(X), atol=1e-5)


def test_skorch_outputs_that_are_no_probabilities_are_refused(iris):
    with pytest.raises(ValueError, match="declared to return probabilities.*predict_nonlinearity"):
        LatentKNNClassifier(net(criterion=nn.MultiMarginLoss)).fit(*iris)
    X, y = iris[0][:100], iris[1][:100]
    one = net(
        NeuralNetBinaryClassifier,
        module__n_out=1,
        module__end=nn.Sigmoid(),
        criterion=nn.BCELoss,
        predict_nonlinearity=None,
        train_split=None,
    )
    with pytest.raises(ValueError, match=r"shape \(64,\) instead of \(64, 2\).*predict_nonlin"):
        LatentKNNClassifier(one).fit(X, y)


class Sharpened(NeuralNetClassifier):
    def predict_proba(self, X):
        p = super().predict_proba(X) ** 3
        return p / p.sum(1, keepdims=True)


def test_probabilities_of_another_kind_are_refused(iris):
    with pytest.raises(ValueError, match=r"Sharpened returns values that differ by up to 0\.\d+"):
        LatentKNNClassifier(net(Sharpened)).fit(*iris)


@pytest.mark.parametrize("host", [*HOSTS, BoundarySampleExtractor])
def test_a_skorch_threshold_is_refused(host, noisy):
    shifted = NeuralNetBinaryClassifier(
        nn.Linear(3, 1), max_epochs=5, lr=0.01, threshold=0.9, verbose=0
    )
    with pytest.raises(ValueError, match="NeuralNetBinaryClassifier.*threshold=0.5"):
        host(shifted).fit(*noisy)


def test_a_trained_skorch_net_keeps_its_flags_and_names(iris):
    X = iris[0].astype(np.float32)
    trained = net(classes=[7, 5, 9]).fit(X, iris[1])
    trained.module_.train()
    LatentKNNClassifier(FrozenEstimator(trained)).fit(X, np.array([7, 5, 9])[iris[1]])
    assert trained.module_.training and trained.module_.end.training


# ------------------------------------------------------- probabilities declared as logits


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)),
        nn.Sequential(nn.Linear(4, 2), nn.Softmax(1)),
        nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()),
    ],
    ids=["three", "two", "one"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("turned", [False, True])
def test_a_probability_net_declared_as_logits_is_warned_about(module, dtype, turned, iris):
    n = max(2, module[0].out_features)
    X, y = iris[0], np.minimum(iris[1], n - 1)
    wrapped = FrozenNetwork(module.to(dtype), classes=range(n)[::-1] if turned else None)
    for host in (LatentKNNClassifier(wrapped), BoundarySampleExtractor(wrapped)):
        with pytest.warns(ProbabilityOutputWarning, match="output='proba'") as caught:
            host.fit(X, y)
        assert [w.filename for w in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LatentKNNClassifier(wrapped.set_params(output="proba")).fit(X, y)


@pytest.mark.parametrize("n_out", [1, 2, 3])
def test_logits_that_look_like_probabilities_for_one_sample_only(n_out, iris):
    module = nn.Linear(4, n_out).double()
    X, y = iris[0], np.minimum(iris[1], max(n_out, 2) - 1)
    with torch.no_grad():  # the first sample gets 1 / n_out from every output
        module.weight.normal_(generator=torch.Generator().manual_seed(0))
        module.bias.copy_(1 / n_out - module.weight @ torch.from_numpy(X[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LatentKNNClassifier(module).fit(X, y)


# ----------------------------------------------------------------- large samples stay cheap


def test_at_most_64_samples_are_probed(iris):
    class Counting(LogisticRegression):
        n_asked = 0

        def predict(self, X):
            Counting.n_asked += len(X)
            return super().predict(X)

    X, y = load_digits(return_X_y=True)
    X = X / 16
    LatentKNNClassifier(FrozenEstimator(Counting(C=0.01).fit(X, y))).fit(X, y)
    assert Counting.n_asked == 64
