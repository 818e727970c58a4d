"""y of fit holds labels or positions: decided once, in fit, for every host."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
)
from skboundary.exceptions import EncodedLabelsWarning, SeenSamplesWarning
from skboundary.networks._labels import encode_labels, resolve_labels

NAMES = np.array(["a", "b", "c"])


@pytest.fixture(scope="module")
def named():
    """Rows in three groups, their positions, and a network that tells them by name."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [40, 30, 20])
    X = rng.normal(size=(90, 3)) + 4 * np.eye(3)[y]
    module = nn.Linear(3, 3).double()
    with torch.no_grad():
        module.weight.copy_(torch.eye(3))
        module.bias.zero_()
    return X, y, FrozenNetwork(module, classes=NAMES)


# --------------------------------------------------------------------------------- the rule


@pytest.mark.parametrize("kind", ["<U1", object])
def test_labels_are_found_among_the_classes(kind):
    classes, codes = resolve_labels(np.array(["c", "a"], kind), NAMES)
    assert classes is NAMES and codes.tolist() == [2, 0]


@pytest.mark.parametrize("y", [[1, 3], [1.0, 3.0], np.array([1, 3], np.uint8)])
def test_numbers_that_are_classes_are_labels(y):
    y = np.asarray(y)
    classes, codes = resolve_labels(y, np.array([1, 2, 3]))
    assert classes.tolist() == [1, 2, 3] and codes.tolist() == [0, 2]


def test_booleans_are_the_labels_0_and_1():
    y = np.array([True, False])
    assert resolve_labels(y, np.array([0, 1]))[1].tolist() == [1, 0]
    assert resolve_labels(y.astype(int), np.array([False, True]))[1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("y", "classes", "said"),
    [
        ([2, 0, 1], ["a", "b", "c"], "y holds 2, .* 2 stands for 'c'"),
        ([1, 0, 2], [1, 2, 3], "y holds 0, .* 1 stands for 2"),
        ([9, 0, 4], range(1, 11), "y holds 0, .* 9 stands for 10"),
    ],
)
def test_integers_that_are_not_all_classes_are_positions(y, classes, said):
    with pytest.warns(EncodedLabelsWarning, match=said):
        found, codes = resolve_labels(np.array(y), np.array(classes))
    assert found.tolist() == [*range(len(classes))] and codes.tolist() == y


@pytest.mark.parametrize(
    "y", [[0, 3], [-1, 0], [0.5, 1.0], ["1", "2"], [0.0, 1.0], [True, False]], ids=str
)
def test_anything_else_is_an_unknown_label(y):
    with pytest.raises(ValueError, match=r"y holds .* 3 classes .* FrozenNetwork\(module, class"):
        resolve_labels(np.array(y), NAMES if y[0] != "1" else np.array([1, 2, 3]))


def test_later_labels_are_looked_up_and_nothing_else():
    assert encode_labels(np.array([3, 1]), np.array([1, 2, 3])).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"y holds 0, which is not one of the 3 classes \[1, 2, 3"):
        encode_labels(np.array([1, 0]), np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="y holds 'a'"):
        encode_labels(NAMES, np.arange(3))


# ------------------------------------------------------------------------------- the hosts


def test_the_warning_points_at_the_call_of_fit(named):
    X, y, net = named
    with pytest.warns(EncodedLabelsWarning) as caught:
        LatentKNNClassifier(net).fit(X, y)
    assert [w.filename for w in caught] == [__file__]


def test_neighbors_answer_in_positions(named):
    X, y, net = named
    with pytest.warns(EncodedLabelsWarning):
        clf = LatentKNNClassifier(net).fit(X, y)
    with pytest.warns(SeenSamplesWarning):
        assert clf.sweep(X, y)["mean_test_score"].max() > 0.95
    by_name = LatentKNNClassifier(net).fit(X, NAMES[y])
    assert clf.classes_.tolist() == [0, 1, 2] and clf.estimator_.classes_.tolist() == [*NAMES]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (NAMES[clf.predict(X)] == by_name.predict(X)).all()
        assert clf.score(X, y) == by_name.score(X, NAMES[y]) > 0.95
        assert (clf.explain(X).labels == clf.kneighbors(X)[1] * 0 + y[clf.kneighbors(X)[1]]).all()
        part = y > 0  # positions of a fold without 0, which used to be other labels
        purity = clf.diagnose(X[part], y[part]).purity
        assert (purity == by_name.diagnose(X[part], NAMES[y[part]]).purity).all()
        assert clf.diagnose().nearest_class.dtype.kind == "i"
    with pytest.raises(ValueError, match="y holds 'a'"):
        clf.diagnose(X, NAMES[y])


def test_a_label_means_the_same_in_every_batch(named):
    X, y, net = named
    clf = LatentKNNClassifier(clone(net).set_params(classes=[1, 2, 3])).fit(X, y + 1)
    assert (clf.diagnose(X[40:], y[40:] + 1).purity == clf.diagnose(X, y + 1).purity[40:]).all()
    with pytest.raises(ValueError, match="y holds 0"):  # positions no more
        clf.diagnose(X, y)


def test_the_extractor_answers_in_positions(named):
    X, y, net = named
    with pytest.warns(EncodedLabelsWarning):
        extractor = BoundarySampleExtractor(net, random_state=0).fit(X, y)
    by_name = BoundarySampleExtractor(net, random_state=0).fit(X, NAMES[y])
    assert extractor.classes_.tolist() == [0, 1, 2]
    found, expected = extractor.extract_pairs(X[::9], y[::9]), by_name.extract_pairs(X[::9])
    np.testing.assert_array_equal(NAMES[found.source], expected.source)
    np.testing.assert_array_equal(NAMES[found.target], expected.target)
    np.testing.assert_array_equal(found.outer, expected.outer)
    assert (extractor.extract(4, source=2, target=0).target == 0).all()
    distances = extractor.set_params(target=1).transform(X[:9])
    np.testing.assert_array_equal(distances, by_name.set_params(target="b").transform(X[:9]))


def test_the_characterizer_answers_in_positions(named):
    X, y, net = named
    params = {"n_samples": 5, "random_state": 0}
    with pytest.warns(EncodedLabelsWarning):
        found = BoundaryCharacterizer(net, pairs=[(0, 2)], **params).fit(X, y, X_test=X, y_test=y)
    expected = BoundaryCharacterizer(net, pairs=[("a", "c")], **params).fit(
        X, NAMES[y], X_test=X, y_test=NAMES[y]
    )
    assert found.report_.source.tolist() == [0] and found.report_.target.tolist() == [2]
    for name in ("success_rate", "length", "error_rate_test"):
        np.testing.assert_array_equal(found.report_[name], expected.report_[name])


def test_the_sampler_answers_in_positions(named):
    X, y, net = named
    params = {"random_state": 0, "class_pairs": {2: [0], 1: [0]}}
    with pytest.warns(EncodedLabelsWarning):
        found = BiasedExtrapolationSampler(estimator=net, **params)
        X_new, y_new = found.fit_resample(X, y)
    by_name = {"random_state": 0, "class_pairs": {"c": ["a"], "b": ["a"]}}
    expected = BiasedExtrapolationSampler(estimator=net, **by_name).fit_resample(X, NAMES[y])
    np.testing.assert_array_equal(NAMES[y_new], expected[1])
    assert found.classes_.tolist() == [0, 1, 2] and len(X_new) == len(expected[0]) == 120


@pytest.mark.parametrize("head", [None, LogisticRegression()])
def test_the_rounds_answer_in_positions(named, head):
    X, y, net = named
    clf = BiasedExtrapolationClassifier(net, head=head, n_iter=2, random_state=0)
    with pytest.warns(EncodedLabelsWarning):
        clf.fit(X, y)
    assert clf.classes_.tolist() == [0, 1, 2] and clf.score(X, y) > 0.9
    by_name = clone(clf).fit(X, NAMES[y])
    assert (NAMES[clf.predict(X)] == by_name.predict(X)).all()


def test_a_frozen_classifier_keeps_its_names(named):
    X, y, _ = named
    frozen = FrozenEstimator(LogisticRegression().fit(X, NAMES[y]))
    with pytest.warns(EncodedLabelsWarning):
        clf = LatentKNNClassifier(frozen).fit(X, y)
    assert clf.estimator_.classes_.tolist() == [*NAMES] and clf.score(X, y) > 0.95


def test_a_network_by_itself_answers_in_positions(named):
    X, y, net = named[0], named[1], clone(named[2])
    assert net.fit(X, NAMES[y]).predict(X[:1]).tolist() == ["a"]
    assert net.fit(X).fit(X, ["unknown"] * len(X)).predict(X[:1]).tolist() == ["a"]
    with pytest.warns(EncodedLabelsWarning):
        net.fit(X, y)
    assert net.classes_.tolist() == [0, 1, 2] and net.score(X, y) > 0.95
    assert clone(net).predict(X[:1]).tolist() == ["a"]
    assert net.set_params(classes=None).fit(X).classes_.tolist() == [0, 1, 2]


# --------------------------------------------------------- ensembles encode labels themselves


@pytest.mark.filterwarnings("ignore::skboundary.exceptions.EncodedLabelsWarning")
@pytest.mark.parametrize("voting", ["hard", "soft"])
def test_voting_with_named_classes(named, voting):
    X, y, net = named
    members = [
        ("neighbors", LatentKNNClassifier(net)),
        ("rounds", BiasedExtrapolationClassifier(net, n_iter=1, random_state=0)),
        ("network", net),
        ("logistic", LogisticRegression()),
    ]
    votes = VotingClassifier(members, voting=voting).fit(X, NAMES[y])
    assert votes.score(X, NAMES[y]) > 0.95


@pytest.mark.filterwarnings("ignore::skboundary.exceptions.EncodedLabelsWarning")
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_stacking_and_cross_validation_with_named_classes(named, method):
    X, y, net = named
    clf = LatentKNNClassifier(net)
    stack = StackingClassifier([("neighbors", clf)], stack_method=method).fit(X, NAMES[y])
    assert stack.score(X, NAMES[y]) > 0.9
    out = cross_val_predict(clf, X, NAMES[y], method=method)
    assert ((out if method == "predict" else NAMES[out.argmax(1)]) == NAMES[y]).mean() > 0.95
