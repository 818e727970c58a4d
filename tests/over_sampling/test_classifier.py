"""BiasedExtrapolationClassifier: rounds, stopping rule, control, heads, untouched inputs."""

import copy
import warnings

import numpy as np
import pytest
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, recall_score
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import SVC, LinearSVC
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BiasSettings,
    FrozenNetwork,
)
from skboundary.exceptions import EncodedLabelsWarning, NoCrossingWarning
from skboundary.over_sampling._head import ContinuedHead

pytestmark = pytest.mark.filterwarnings("ignore::skboundary.exceptions.NoCrossingWarning")


@pytest.fixture(scope="module")
def blobs():
    """Three Gaussian classes of 200, 100 and 50 samples that overlap."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [200, 100, 50])
    centers = np.array([[0, 0, 0, 0], [2, 0, 0, 0], [0, 2, 0, 0]])
    return rng.normal(size=(350, 4)) + centers[y], y


@pytest.fixture(scope="module")
def lines():
    """Two Gaussian classes of 400 and 40 samples that overlap, and a balanced test set."""
    rng = np.random.default_rng(1)
    y, y_test = np.repeat([0, 1], [400, 40]), np.repeat([0, 1], [500, 500])
    X, X_test = (rng.normal(size=(len(t), 3)) + [2, 0, 0] * t[:, None] for t in (y, y_test))
    return X, y, X_test, y_test


def fit(X, y, estimator=None, **given):
    given = {"random_state": 0, "n_iter": 3, **given}
    estimator = LogisticRegression() if estimator is None else estimator
    return BiasedExtrapolationClassifier(estimator, **given).fit(X, y)


# --------------------------------------------------------------------------------- the rounds


def test_rounds_without_a_stop_rule_are_counted(blobs):
    X, y = blobs
    clf = fit(X, y, stopping=None, n_iter=4)
    assert clf.n_iter_ == 4
    assert [entry["round"] for entry in clf.history_] == [0, 1, 2, 3, 4]
    # a tenth of the 90 and 45 training samples of either minority class, in every round
    assert [entry["n_added"] for entry in clf.history_] == [{1: 0, 2: 0}] + [{1: 9, 2: 4}] * 4
    assert [entry["n_samples"] for entry in clf.history_] == [315, 328, 341, 354, 367]
    costs = [entry["cost"] for entry in clf.history_]
    assert costs[0] == 0 and list(np.diff(costs)) == [10 * n for n in (328, 341, 354, 367)]
    assert clf.n_rounds_per_class_ == {1: 4, 2: 4} and clf.pair_accuracy_ is None
    assert clf.cost_reduction_ == 0
    seconds = [entry["seconds"] for entry in clf.history_]
    assert seconds == sorted(seconds)


def test_growth_ends_at_the_limit_of_the_sampler(blobs):
    X, y = blobs
    clf = fit(X, y, stopping=None, n_iter=6, growth=0.5, epochs_per_iter=1)
    # 90 -> 180 in two rounds of 45, 45 -> 180 in six rounds of 22 and one of 3
    added = np.array([[e["n_added"][c] for c in (1, 2)] for e in clf.history_[1:]])
    assert added[:, 0].tolist() == [45, 45, 0, 0, 0, 0]
    assert added[:, 1].tolist() == [22] * 6
    clf = fit(X, y, stopping=None, sampler=SMOTE(sampling_strategy={2: 55}, random_state=0))
    assert [e["n_added"] for e in clf.history_[1:]] == [{2: 4}, {2: 4}, {2: 2}]


def test_stop_rule(blobs):
    X, y = blobs
    clf = fit(X, y, n_iter=19, growth=0.5)
    assert 1 < clf.n_iter_ < 19
    for i, entry in enumerate(clf.history_[1:-1], 1):
        behind = [c for c in (1, 2) if entry["recall"][c] < entry["recall"][0]]
        assert behind, i  # else it would have ended here
        grown = {c for c, n in clf.history_[i + 1]["n_added"].items() if n}
        assert grown <= set(behind)
    last = clf.history_[-1]["recall"]
    assert min(last[1], last[2]) >= last[0]
    full = sum(10 * (315 + min(45 * i, 90) + min(22 * i, 135)) for i in range(1, 20))
    assert clf.cost_reduction_ == pytest.approx(1 - clf.history_[-1]["cost"] / full)


def test_minority_recall_rises(lines):
    X, y, X_test, y_test = lines
    before = LogisticRegression().fit(X, y)
    # at 10:1 most minority samples are on the wrong side
    clf = fit(X, y, n_iter=19, growth=0.5)
    recall = [recall_score(y_test, model.predict(X_test), average=None) for model in (before, clf)]
    assert recall[1][1] > recall[0][1] + 0.2
    assert recall[1].mean() > recall[0].mean() + 0.05
    history = [entry["recall"][1] for entry in clf.history_]
    assert history[-1] > history[0] + 0.2


def test_history_measures_the_head(blobs):
    X, y = blobs
    clf = fit(X, y, validation_fraction=0.3)
    held = np.zeros(len(y), dtype=bool)
    # the classifier's first draw
    random = np.random.RandomState(0)
    for c in (0, 1, 2):
        members = np.flatnonzero(y == c)
        held[random.permutation(members)[: int(0.3 * len(members))]] = True
    last = clf.history_[-1]
    for c in (0, 1, 2):
        assert last["recall"][c] == (clf.predict(X[~held & (y == c)]) == c).mean()
        assert last["validation_recall"][c] == (clf.predict(X[held & (y == c)]) == c).mean()
        score = clf.predict_proba(X[held])[:, c]
        assert last["validation_pr_auc"][c] == pytest.approx(
            average_precision_score(y[held] == c, score)
        )


class Spy(LogisticRegression):
    """Stores the samples that it was trained on."""

    seen = []

    def fit(self, X, y):
        self.seen.append(X)
        return super().fit(X, y)


def test_validation_samples_are_not_trained_on(blobs, monkeypatch):
    X, y = blobs
    monkeypatch.setattr(Spy, "seen", [])
    clf = fit(
        X, y, Spy(), head=Spy(), validation_fraction=0.2, sampler="passthrough", stopping=None
    )
    assert [e["n_samples"] for e in clf.history_] == [280] * 4
    trained = np.unique(np.concatenate(Spy.seen), axis=0)
    assert len(Spy.seen) == 5  # the base classifier, and the head once a round
    assert len(trained) == 280 < len(np.unique(X, axis=0))
    clf = fit(X, y, validation_fraction=0)
    assert clf.history_[-1]["validation_recall"] == clf.history_[-1]["validation_pr_auc"] == {}
    assert clf.history_[0]["n_samples"] == 350


def test_no_rounds_is_the_network_itself(blobs, mlp, iris):
    X, y = iris
    clf = fit(X, y, mlp, n_iter=0)
    net = FrozenNetwork(mlp).fit(X)
    assert len(clf.history_) == 1 and clf.cost_reduction_ == 0
    np.testing.assert_allclose(clf.predict_proba(X), net.predict_proba(X), atol=1e-9)


def test_balanced_classes_have_nothing_to_gain(iris):
    clf = fit(*iris)
    assert clf.n_iter_ == 0 and clf.n_rounds_per_class_ == {}


# ------------------------------------------------------------------------------- the sampler


def test_passthrough_is_the_control(blobs):
    X, y = blobs
    clf = fit(X, y, sampler="passthrough", stopping=None)
    assert all(set(e["n_added"].values()) == {0} for e in clf.history_)
    assert {e["n_samples"] for e in clf.history_} == {315}
    assert clf.history_[-1]["cost"] == 3 * 10 * 315
    assert not np.array_equal(clf.head_.coef_, fit(X, y, n_iter=0).head_.coef_)


def test_any_over_sampler_takes_its_place(blobs, monkeypatch):
    X, y = blobs
    pools = []
    train = ContinuedHead.train

    def spy(self, Z, y):
        pools.append((Z, y))
        return train(self, Z, y)

    monkeypatch.setattr(ContinuedHead, "train", spy)
    fit(X, y, sampler=RandomOverSampler(), stopping=None)
    first, y_first = pools[0]
    original = {tuple(row) for row in first[:315]}
    for Z, labels in pools:
        assert np.array_equal(Z[:315], first[:315]) and np.array_equal(labels[:315], y_first[:315])
        assert {tuple(row) for row in Z} == original  # it only repeats samples
    assert pools[0][1].tolist()[315:] == [1] * 9 + [2] * 4
    # rounds differ from each other
    assert not np.array_equal(pools[2][0][-13:], pools[1][0][-13:])


def test_the_boundary_is_that_of_the_head(blobs, monkeypatch):
    X, y = blobs
    seen = []
    resample = BiasedExtrapolationSampler.fit_resample

    def spy(self, Z, y):
        out = resample(self, Z, y)
        seen.append((copy.deepcopy(self.estimator.estimator), Z, self.parents_, self.positions_))
        return out

    monkeypatch.setattr(BiasedExtrapolationSampler, "fit_resample", spy)
    clf = fit(X, y, stopping=None)
    heads = [head.coef_ for head, *_ in seen]
    assert not np.allclose(heads[0], heads[1]) and not np.allclose(heads[1], heads[2])
    assert isinstance(clf.sampler_.estimator, FrozenEstimator)
    # parents are original samples, in another order each time
    assert all(len(Z) == 315 for _, Z, *_ in seen)
    assert not np.array_equal(seen[0][1], seen[1][1])
    monkeypatch.undo()
    own = LogisticRegression(C=0.1)
    clf = fit(X, y, sampler=BiasedExtrapolationSampler(estimator=own))
    assert clf.sampler_.estimator.C == 0.1


def test_rounds_draw_several_bases_within_a_class(blobs, monkeypatch):
    X, y = blobs
    bases = []
    resample = BiasedExtrapolationSampler.fit_resample

    def spy(self, Z, y):
        out = resample(self, Z, y)
        first, second = self.parents_.T
        bases.append(len(np.unique(first[(y[first] == 1) & (y[second] == 1)])))
        return out

    monkeypatch.setattr(BiasedExtrapolationSampler, "fit_resample", spy)
    fit(X, y, sampler=BiasedExtrapolationSampler(within_class=1.0), stopping=None)
    assert len(bases) == 3 and min(bases) >= 6  # nine samples of 90 in each round


def test_other_samplers_are_refused(blobs):
    with pytest.raises(TypeError, match="RandomUnderSampler is not an over-sampler"):
        fit(*blobs, sampler=RandomUnderSampler())


def test_other_estimators_are_refused(blobs):
    with pytest.raises(ValueError, match=r"Ridge \(regressor\) is not a classifier"):
        fit(*blobs, Ridge())
    with pytest.raises(ValueError, match="head=Ridge is not a classifier"):
        fit(*blobs, head=Ridge())


def test_scores_that_disagree_with_predict_are_refused(blobs):
    X, y = blobs
    pairs = GridSearchCV(SVC(decision_function_shape="ovo"), {"C": [1.0]}, cv=2)
    moved = FixedThresholdClassifier(LogisticRegression(), threshold=0.05)
    for estimator, labels in ((pairs, y), (moved, (y == 2).astype(int))):
        with pytest.raises(ValueError, match=r"for \d+ of 64 training samples \(\d+%\)"):
            fit(X, labels, estimator)
        with pytest.raises(ValueError, match=r"for \d+ of 64 training samples \(\d+%\)"):
            BiasedExtrapolationSampler(estimator=estimator).fit_resample(X, labels)


def test_labels_given_as_positions(blobs):
    X, y = blobs
    net = nn.Linear(4, 3).double()
    expected = fit(X, y, net, n_iter=1)
    with pytest.warns(EncodedLabelsWarning, match="0 stands for 'a'"):
        clf = fit(X, y, FrozenNetwork(net, classes=["a", "b", "c"]), n_iter=1)
    assert clf.classes_.tolist() == [0, 1, 2] and clf.n_rounds_per_class_ == {1: 1, 2: 1}
    assert clf.estimator_.classes == ["a", "b", "c"]
    np.testing.assert_array_equal(clf.predict_proba(X), expected.predict_proba(X))
    assert clf.score(X, y) == expected.score(X, y)


# ---------------------------------------------------------------------- rounds by pair of classes


def test_threshold_gives_rounds_to_the_pairs_that_overlap(blobs):
    X, y = blobs
    X = X + np.array([0, 20, 0, 0]) * (y == 2)[:, None]  # class 2 apart, class 1 overlapping
    sampler = BiasedExtrapolationSampler(
        settings=BiasSettings(class_specific="threshold", tau=0.95)
    )
    clf = fit(X, y, sampler=sampler, stopping=None, validation_fraction=0.2)
    assert set(clf.pair_accuracy_) == {(1, 0), (2, 1)} or set(clf.pair_accuracy_) == {
        (1, 0),
        (2, 0),
    }
    assert clf.n_rounds_per_class_ == {1: 3, 2: 0}
    assert all(e["n_added"][2] == 0 for e in clf.history_)
    full = sum(10 * (280 + 8 * i + 4 * i) for i in (1, 2, 3))
    spent = sum(10 * (280 + 8 * i) for i in (1, 2, 3))
    assert clf.cost_reduction_ == pytest.approx(1 - spent / full)
    assert clf.sampler_.settings.class_specific is None
    assert sampler.settings.class_specific == "threshold"


def test_proportional_rounds_fall_with_accuracy(blobs):
    X, y = blobs
    sampler = BiasedExtrapolationSampler(
        class_pairs={1: [0], 2: [0, 1]}, settings=BiasSettings(class_specific="proportional")
    )
    clf = fit(X, y, sampler=sampler, stopping=None, n_iter=10, validation_fraction=0.2)
    accuracy = clf.pair_accuracy_
    assert set(accuracy) == {(1, 0), (2, 0), (2, 1)}
    wanted = {c: min(a for (minority, _), a in accuracy.items() if minority == c) for c in (1, 2)}
    assert clf.n_rounds_per_class_ == {c: round(10 * (1 - a) / 0.5) for c, a in wanted.items()}
    grown = {c: sum(e["n_added"][c] > 0 for e in clf.history_) for c in (1, 2)}
    assert grown == clf.n_rounds_per_class_ and clf.n_iter_ == max(grown.values())


def test_pairs_without_held_out_samples_are_refused(blobs):
    sampler = BiasedExtrapolationSampler(settings=BiasSettings(class_specific="threshold"))
    with pytest.raises(ValueError, match="class 0 has none with validation_fraction=0"):
        fit(*blobs, sampler=sampler, validation_fraction=0)


# --------------------------------------------------------------------------------- the heads


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_head_equals_a_slow_one(dtype):
    generator = torch.Generator().manual_seed(0)
    Z = torch.randn(40, 5, generator=generator, dtype=dtype) * torch.tensor([1, 9, 0, 3, 0.1])
    y = np.arange(40) % 3
    weight, bias = torch.randn(3, 5, generator=generator, dtype=dtype), torch.zeros(3, dtype=dtype)
    head = ContinuedHead(weight, bias, np.arange(3), Z, 2, torch.Generator().manual_seed(7))
    started, cost = head.start(Z.numpy(), y)
    assert cost == 0
    np.testing.assert_allclose(
        started.decision_function(Z.numpy()), (Z @ weight.T + bias).numpy(), rtol=1e-3, atol=1e-4
    )
    for _ in range(2):
        trained, cost = head.train(Z.numpy(), y)
        assert cost == 80

    mean, std = Z.double().mean(0), Z.double().std(0, correction=0)
    std[std == 0] = 1
    linear = nn.Linear(5, 3).double()
    with torch.no_grad():
        linear.weight.copy_(weight.double() * std)
        linear.bias.copy_(bias.double() + weight.double() @ mean)
    optimizer = torch.optim.Adam(linear.parameters(), lr=1e-3)
    order = torch.Generator().manual_seed(7)
    for _ in range(4):
        for batch in torch.randperm(40, generator=order).split(2):
            optimizer.zero_grad()
            logits = linear((Z[batch].double() - mean) / std)
            nn.functional.cross_entropy(logits, torch.from_numpy(y)[batch]).backward()
            optimizer.step()
    slow = linear((Z.double() - mean) / std).detach().numpy()
    np.testing.assert_allclose(trained.decision_function(Z.numpy()), slow, rtol=2e-3, atol=2e-3)


def test_the_head_starts_from_networks_of_every_output(iris):
    X, y = iris
    keep = y < 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Linear(4, 8), nn.Tanh()]
        nets = [
            (FrozenNetwork(nn.Sequential(*body, nn.Linear(8, 3)), classes=[2, 0, 1]), X, y),
            (
                FrozenNetwork(nn.Sequential(*body, nn.Linear(8, 1)), classes=[0, 1]),
                X[keep],
                y[keep],
            ),
            (
                FrozenNetwork(nn.Sequential(*body, nn.Linear(8, 3), nn.Softmax(1)), output="proba"),
                X,
                y,
            ),
        ]
    for net, points, labels in nets:
        net.module.double()
        points, labels = points[: len(points) - 20], labels[: len(points) - 20]
        clf = fit(points, labels, net, n_iter=0)
        assert "max_iter" not in str(clf.head_)  # the network's own layer
        np.testing.assert_allclose(clf.predict_proba(points), net.predict_proba(points), atol=1e-6)
        assert fit(points, labels, net, n_iter=1).n_iter_ == 1


def test_other_heads_are_refitted(blobs):
    X, y = blobs
    clf = fit(X, y, head=RandomForestClassifier(5), stopping=None)
    assert clf.history_[-1]["cost"] == 315 + 328 + 341 + 354
    assert isinstance(clf.head_, RandomForestClassifier) and clf.head_.random_state is not None
    assert not hasattr(clf, "decision_function")
    clf = fit(X, y, head=LinearSVC(), stopping=None)
    assert not hasattr(clf, "predict_proba") and clf.decision_function(X).shape == (350, 3)
    assert set(clf.history_[-1]["validation_pr_auc"]) == {0, 1, 2}


def test_logistic_regression_where_no_linear_layer_is_last(blobs, cnn, digits):
    X, y = blobs
    clf = fit(X, y, RandomForestClassifier(5, random_state=0))
    assert clf.head_.n_iter_ and clf.head_.coef_.shape == (3, 4)
    images, labels = digits
    keep = np.r_[0:150, np.flatnonzero(labels[150:300] != 3) + 150]
    clf = fit(images[keep], labels[keep], cnn, layer="hidden", n_iter=1)
    assert clf.head_.coef_.shape == (10, 32)


def test_verbose_prints_sentences(blobs, capsys):
    X, y = blobs
    fit(X, y, stopping=None, n_iter=1)
    assert capsys.readouterr() == ("", "")
    fit(X, y, stopping=None, n_iter=1, verbose=1, estimator=nn.Linear(4, 3).double())
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first.startswith("Round 0 of at most 1 added no samples: 315 samples. Training recall")
    assert second.startswith("Round 1 of at most 1 added 9 of class 1, 4 of class 2: 328 samples.")
    assert all(" of class 0, " in line and line.endswith(" s.") for line in (first, second))
    assert "network" in err  # the passes of the network show their progress


# ------------------------------------------------------------------- outputs of every precision


class Undefined(nn.Module):
    """It gives `value` for one sample, where the first column is largest."""

    def __init__(self, value):
        super().__init__()
        self.last, self.value = nn.Linear(4, 3).double(), value

    def forward(self, x):
        out = self.last(x)
        return out.masked_fill((x[:, :1] == self.largest), self.value)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_a_network_that_is_not_finite_is_refused_by_its_sample(blobs, value, word):
    X, y = blobs
    net = Undefined(value)
    net.largest = X[:, 0].max()
    with pytest.raises(ValueError, match=f"Undefined gives {word} for sample {X[:, 0].argmax()} "):
        fit(X, y, net)


class UndefinedNB(GaussianNB):
    def predict_proba(self, X):
        p = super().predict_proba(X)
        p[np.argmax(X[:, 0])] = np.nan
        return p


def test_a_classifier_that_gives_nan_is_refused(blobs):
    X, y = blobs
    estimator = FrozenEstimator(UndefinedNB().fit(X, y))
    with pytest.raises(ValueError, match="UndefinedNB gives NaN for sample"):
        fit(X, y, estimator)
    for given in (
        {"head": UndefinedNB()},
        {"sampler": BiasedExtrapolationSampler(estimator=UndefinedNB())},
    ):
        with pytest.raises(ValueError, match="UndefinedNB gives NaN"):
            fit(X, y, **given)


class Autocast(nn.Sequential):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "autocast", "float32", "float64"])
@pytest.mark.parametrize("scale", [1, 1e3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_head_starts_from_a_network_of_any_precision(blobs, kind, scale, dtype):
    X, y = blobs
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)]
    with torch.no_grad():
        layers[2].weight.mul_(scale)
    net = Autocast(*layers) if kind == "autocast" else nn.Sequential(*layers)
    net = net if kind == "autocast" else net.to(getattr(torch, kind))
    clf = fit(X.astype(dtype), y, net, n_iter=1, stopping=None, epochs_per_iter=1)
    assert clf.history_[0]["cost"] == 0  # the layer itself, and no other that was fitted
    assert clf.history_[1]["cost"] == 328
    assert clf.head_.coef_.dtype == (np.float64 if kind == "float64" else np.float32)
    assert np.isfinite(clf.predict_proba(X.astype(dtype))).all()


def test_no_last_layer_to_start_from_where_something_comes_after_it(blobs):
    X, y = blobs

    class Sharpened(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3).double()

        def forward(self, x):
            return self.last(x) * (1 + (x[:, :1] > 2))

    assert fit(X, y, Sharpened(), n_iter=0).history_[0]["cost"] == 315


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_may_be_off(blobs, mlp, iris, mode):
    X, y = iris
    expected = fit(X[:120], y[:120], mlp, n_iter=1).predict_proba(X)
    with mode():
        found = fit(X[:120], y[:120], mlp, n_iter=1).predict_proba(X)
    np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------------ when fit fails


class Failing(SMOTE):
    """It fails in the round in which `error` is set."""

    error = None

    def fit_resample(self, X, y):
        if self.error is not None:
            raise self.error
        return super().fit_resample(X, y)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_fit_that_fails_leaves_the_classifier_as_it_was(blobs, monkeypatch, error):
    X, y = blobs
    clf = BiasedExtrapolationClassifier(
        LogisticRegression(), sampler=Failing(random_state=0), n_iter=2, random_state=0
    )
    monkeypatch.setattr(Failing, "error", error)
    with pytest.raises(type(error)):
        clf.fit(X, y)
    for method in (clf.predict, clf.predict_proba, clf.decision_function):
        with pytest.raises(NotFittedError):
            method(X)
    assert not hasattr(clf, "classes_") and not hasattr(clf, "n_features_in_")
    monkeypatch.setattr(Failing, "error", None)
    before, proba = vars(clf.fit(X, y)).copy(), clf.predict_proba(X)
    monkeypatch.setattr(Failing, "error", error)
    with pytest.raises(type(error)):
        clf.fit(X[:, :3], np.array(["a", "b", "c"])[y])
    assert vars(clf) == before
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


def test_the_sampler_is_that_of_this_fit(blobs):
    X, y = blobs
    clf = BiasedExtrapolationClassifier(LogisticRegression(), n_iter=1).fit(X, y)
    assert hasattr(clf.sampler_, "parents_")
    assert not hasattr(clf.set_params(n_iter=0).fit(X, y).sampler_, "parents_")
    assert clf.set_params(sampler="passthrough").fit(X, y).sampler_ == "passthrough"


# ---------------------------------------------------------------------------- untouched inputs


def test_module_is_untouched_and_classes_may_be_missing(cnn, digits):
    images, labels = digits
    keep = (labels != 3) & (labels != 4) | (np.arange(600) < 60) & (labels == 4)
    before = copy.deepcopy(cnn).train()
    cnn.train()
    clf = fit(images[keep], labels[keep], cnn, n_iter=2)
    assert cnn.training and all(p.requires_grad for p in cnn.parameters())
    for ours, theirs in zip(cnn.state_dict().values(), before.state_dict().values()):
        assert torch.equal(ours, theirs)
    assert clf.classes_.tolist() == list(range(10))
    assert clf.predict_proba(images).shape == (600, 10)
    assert 3 not in clf.history_[-1]["recall"]
    assert clf.head_.coef_.dtype == np.float32


def test_seeds(blobs):
    X, y = blobs
    coefficients = [fit(X, y, random_state=seed).head_.coef_ for seed in (0, 0, 1)]
    assert np.array_equal(*coefficients[:2]) and not np.array_equal(*coefficients[1:])


def test_labels_of_strings(blobs):
    X, y = blobs
    names = np.array(["common", "minority", "rare"])
    ours, named = fit(X, y), fit(X, names[y])
    assert np.array_equal(named.predict(X), names[ours.predict(X)])
    assert set(named.history_[-1]["n_added"]) == {"minority", "rare"}


def test_samplers_warning_is_passed_on(lines):
    X, y, *_ = lines
    far = LogisticRegression().fit(X, y)
    far.intercept_ -= 100  # no minority sample on its side
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(X, y, FrozenEstimator(far), n_iter=1)
    assert any(issubclass(w.category, NoCrossingWarning) for w in caught)
