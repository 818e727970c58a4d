"""LatentProjectionDisplay: densities of known projections, and counts of changed samples."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError

from skboundary import FrozenNetwork, LatentKNNClassifier, LatentProjectionDisplay


@pytest.fixture
def fitted(cnn, digits):
    X, y = digits
    names = np.array([f"digit {i}" for i in range(10)])
    net = FrozenNetwork(cnn, classes=names)
    clf = LatentKNNClassifier(net, n_neighbors=9, query_weight=0.0)
    return clf.fit(X[:150], names[y[:150]]), X[150:], names[y[150:]]


def test_densities_and_counts(fitted):
    clf, X, y = fitted
    found = clf.diagnose(X, y)
    assert found.changed.any()
    display = LatentProjectionDisplay.from_estimator(clf, X, y)
    n = len(display.lines_)
    assert 1 <= n <= 4 and len({frozenset(line) for line in display.lines_}) == n
    for i, (start, end) in enumerate(display.lines_):
        assert clf.classes_[end] == found.nearest_class[start]
        of = [y == clf.classes_[code] for code in (start, end)]
        at = found.projections[:, start]
        for patch, mask, code in zip(display.densities_[i], of, (start, end)):
            values, edges, _ = patch.get_data()
            assert patch.get_label() == clf.classes_[code]
            np.testing.assert_allclose((values * np.diff(edges)).sum(), 1)
            np.testing.assert_allclose(values, np.histogram(at[mask], edges, density=True)[0])
        counts, edges, _ = display.changed_[i].get_data()
        assert counts.sum() == (found.changed & (of[0] | of[1])).sum()
        assert display.changed_[i].axes is display.twin_axes_[i]
    totals = [data.get_data()[0].sum() for data in display.changed_]
    assert totals == sorted(totals, reverse=True)


def test_chosen_lines_axes_and_keywords(fitted):
    clf, X, y = fitted
    display = LatentProjectionDisplay.from_estimator(clf, X, y, classes=["digit 3"])
    assert [line[0] for line in display.lines_] == [3] and display.axes_.shape == (1, 1)
    _, ax = plt.subplots()
    display.plot(ax, classes=["digit 3"], curve_kwargs=[{"color": "red"}, {"lw": 4}], name="t")
    assert display.axes_[0, 0] is ax and ax.figure.get_suptitle() == "t"
    first, second = display.densities_[0]
    assert first.get_edgecolor()[:3] == (1, 0, 0) and second.get_linewidth() == 4
    _, axes = plt.subplots(3, 1)
    display.plot(axes, classes=[f"digit {i}" for i in (1, 2, 3)])
    assert display.axes_[0, 2] is axes[2]
    display.plot(axes[0], classes=[f"digit {i}" for i in (1, 2, 3)])
    assert display.bounding_ax_ is axes[0] and display.axes_.shape == (2, 2)
    with pytest.raises(ValueError, match="not one of the 10 classes"):
        display.plot(classes=["digit 11"])


def test_two_classes_make_one_line():
    display = LatentProjectionDisplay(
        projections=np.array([[0.0, 1.0], [0.2, 0.8], [1.0, 0.0]]),
        labels=np.array([0, 0, 1]),
        changed=np.zeros(3, bool),
        nearest=np.array([1, 0]),
        classes=np.array(["a", "b"]),
    ).plot()
    assert display.lines_ == [(0, 1)]
    assert display.changed_[0].get_data()[0].sum() == 0


def test_a_hundred_classes_and_absent_ones():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 50, 500)
    display = LatentProjectionDisplay(
        projections=rng.standard_normal((500, 100)),
        labels=labels,
        changed=rng.random(500) < 0.2,
        nearest=(np.arange(100) + 1) % 100,
        classes=np.arange(100),
    ).plot()
    assert len(display.lines_) == 4 and max(line[0] for line in display.lines_) < 50
    with np.errstate(all="raise"):
        display.plot(classes=[49])  # no sample of class 50, at the end of the line


def test_errors(iris):
    with pytest.raises(NotFittedError):
        LatentProjectionDisplay.from_estimator(LatentKNNClassifier(), *iris)
