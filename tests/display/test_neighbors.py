"""NeighborsDisplay: what is drawn is what `explain` returns."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError

from skboundary import FrozenNetwork, LatentKNNClassifier, NeighborsDisplay


@pytest.fixture
def fitted(cnn, digits):
    X, y = digits
    names = np.array([f"digit {i}" for i in range(10)])
    net = FrozenNetwork(cnn, classes=names)
    clf = LatentKNNClassifier(net, n_neighbors=4, query_weight=0.2).fit(X[:400], names[y[:400]])
    return clf, X[:400], X[400:]


def test_images(fitted):
    clf, X_train, X = fitted
    found = clf.explain(X[:3])
    display = NeighborsDisplay.from_estimator(clf, X[:3], X_train=X_train)
    assert display.axes_.shape == (3, 2) and len(display.images_) == 3
    for i, image in enumerate(display.images_):
        drawn = np.asarray(image.get_array().filled(np.nan))
        parts = [drawn[:, start : start + 8] for start in range(0, 45, 9)]
        np.testing.assert_array_equal(parts[0], X[i, 0])
        np.testing.assert_array_equal(parts[1:], X_train[found.indices[i], 0])
        own, *others = [t.get_text() for t in display.axes_[i, 0].get_xticklabels()]
        assert own == "sample\nweight 0.2"
        for text, label, distance in zip(others, found.labels[i], found.distances[i]):
            assert text.startswith(label) and "weight 0.2" in text and f"{distance:.3g}" in text


def test_decisions_before_and_after(fitted):
    clf, _, X = fitted
    found = clf.explain(X[:8])
    display = NeighborsDisplay.from_estimator(clf, X[:8])
    base = clf.set_params(query_weight=1.0).predict_proba(X[:8])
    np.testing.assert_allclose(display.before, base, atol=1e-7)
    np.testing.assert_allclose(display.after, found.proba)
    for i, lines in enumerate(display.moves_):
        names = [t.get_text() for t in display.axes_[i, 1].get_yticklabels()]
        codes = [clf.classes_.tolist().index(name) for name in names]
        for line, code in zip(lines, codes):
            np.testing.assert_allclose(line.get_xdata(), [base[i, code], found.proba[i, code]])
        old, new = (clf.classes_[p[i].argmax()] for p in (base, found.proba))
        title = f"{old} → {new}" if old != new else f"{new}, not changed"
        assert display.axes_[i, 1].get_title() == title


def test_a_changed_decision_and_a_contradicted_label():
    """Five equal samples, one of them with another label: the tree predicts the majority."""
    X, y = np.array([[0.0], [0.0], [0.0], [1.0], [1.0]]), list("aabbb")
    forest = RandomForestClassifier(1, bootstrap=False, random_state=0)
    clf = LatentKNNClassifier(forest, n_neighbors=3, query_weight=0.0).fit(X, y)
    display = NeighborsDisplay.from_estimator(clf, [[0.0], [0.6]])
    (texts, _) = ([t.get_text() for t in ax.get_yticklabels()] for ax in display.axes_[0])
    assert texts == ["a, weight 0.33", "a, weight 0.33", "b (predicted a), weight 0.33"]
    assert display.axes_[1, 1].get_title() == "b, not changed"
    a, b = display.neighbors_[0][0], display.neighbors_[0][1]
    assert [a.get_label(), b.get_label()] == ["a", "b"]
    np.testing.assert_array_equal(a.get_offsets(), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(b.get_offsets(), [[0, 2]])
    changed = NeighborsDisplay(**{**vars_of(display), "after": display.before[:, ::-1]}).plot()
    assert changed.axes_[0, 1].get_title() == "a → b"


def vars_of(display):
    return {k: v for k, v in vars(display).items() if not k.endswith("_")}


def test_logits_frames_and_missing_labels(iris, cnn, digits):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    clf = LatentKNNClassifier(average="logits", random_state=0).fit(frame, y)
    display = NeighborsDisplay.from_estimator(clf, frame.iloc[:2])
    np.testing.assert_allclose(display.before.sum(1), 1, atol=1e-6)
    images, _ = digits
    clf = LatentKNNClassifier(cnn).fit(images[:50])
    display = NeighborsDisplay.from_estimator(clf, images[:2])
    np.testing.assert_array_equal(display.labels, display.predictions)


def test_given_axes_and_keywords(fitted):
    clf, X_train, X = fitted
    _, axes = plt.subplots(2, 2)
    display = NeighborsDisplay.from_estimator(
        clf,
        X[:2].reshape(2, 1, 8, 8),
        X_train=X_train,
        ax=axes,
        curve_kwargs={"lw": 4},
        image_kwargs={"cmap": "viridis"},
        name="neighbors",
    )
    assert display.axes_[1, 0] is axes[1, 0] and display.moves_[0][0].get_linewidth() == 4
    assert display.images_[0].cmap.name == "viridis"
    assert display.figure_.get_suptitle() == "neighbors"


def test_errors(fitted, iris):
    clf, X_train, X = fitted
    with pytest.raises(ValueError, match="at most 32"):
        NeighborsDisplay.from_estimator(clf, X[:33])
    with pytest.raises(ValueError, match="fitted on 400"):
        NeighborsDisplay.from_estimator(clf, X[:2], X_train=X_train[:10])
    tables = LatentKNNClassifier(random_state=0).fit(*iris)
    with pytest.raises(ValueError, match="Give image_shape"):
        NeighborsDisplay.from_estimator(tables, iris[0][:2], X_train=iris[0])
    with pytest.raises(NotFittedError):
        NeighborsDisplay.from_estimator(LatentKNNClassifier(), iris[0][:2])
