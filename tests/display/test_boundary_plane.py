"""BoundaryPlaneDisplay, against classifiers whose regions are known."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from skboundary import BoundaryPlaneDisplay, FrozenNetwork
from skboundary.datasets import make_checkerboard, make_linear, make_xor
from skboundary.display._plane import Plane

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def from_estimator(*args, grid_resolution=24, **kwargs):
    return BoundaryPlaneDisplay.from_estimator(*args, grid_resolution=grid_resolution, **kwargs)


def points_of(display):
    """The points of the grid in the space of X."""
    at = np.column_stack([display.xx0.ravel(), display.xx1.ravel()])
    return display.origin + at @ display.directions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("plane", ["triplet", "normal", "pca"])
def test_regions_of_a_linear_classifier(plane, scale, dtype):
    problem = make_linear(60, 7, random_state=0)
    net = problem.module if scale == 1 else nn.Sequential(Scaled(1 / scale), problem.module)
    X = (problem.data * scale).astype(dtype)
    X = X[np.argsort(problem.target, kind="stable")][[0, -1, *range(1, 59)]]
    display = from_estimator(net, X, plane=plane)
    value = points_of(display) / scale @ problem.weights + problem.bias
    certain = np.abs(value) > 1e-4
    predicted = display.prediction.ravel()
    np.testing.assert_array_equal(predicted[certain], value[certain] > 0)
    p = 1 / (1 + np.exp(-np.abs(value)))
    np.testing.assert_allclose(display.confidence.ravel(), p, atol=1e-4)
    np.testing.assert_allclose(display.directions @ display.directions.T, np.eye(2), atol=1e-6)
    # the samples, as coordinates in the plane and distances from it
    back = display.origin + display.points @ display.directions
    np.testing.assert_allclose(
        np.linalg.norm(X - back, axis=1), display.distances, rtol=1e-4, atol=1e-6 * scale
    )
    assert display.n_anchors == {"triplet": 3, "normal": 2, "pca": 0}[plane]
    assert display.distances[: display.n_anchors].max(initial=0) < 1e-5 * scale


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_plane_of_a_pair_holds_the_normal_of_the_boundary(dtype):
    problem = make_linear(40, 9, random_state=1)
    one, other = (problem.data[problem.target == c][0] for c in (0, 1))
    display = from_estimator(problem.module, np.stack([one, other]).astype(dtype), plane="normal")
    normal = problem.weights / np.linalg.norm(problem.weights)
    along = display.directions @ normal
    np.testing.assert_allclose(np.linalg.norm(along), 1, atol=1e-5)
    # the segment itself is normal: other samples choose the plane
    foot = problem.nearest(one[None])[0]
    pair = np.stack([one, 2 * foot - one])
    with pytest.raises(ValueError, match="normal to the boundary"):
        from_estimator(problem.module, pair, plane="normal")
    display = from_estimator(problem.module, [*pair, *problem.data[:5]], plane="normal")
    np.testing.assert_allclose(np.abs(display.directions @ normal), [1, 0], atol=1e-5)


@pytest.mark.parametrize("resolution", [40, 64])
def test_fragmentation_counts_connected_regions(resolution):
    for problem, X, expected in (
        (make_checkerboard(n_cells=4), 0.98 * SQUARE + 0.01, 16),
        (make_xor(), 2 * SQUARE - 1, 4),
        (make_linear(random_state=0), 8 * SQUARE - 4, 2),
    ):
        display = from_estimator(problem.module, X, expand=0, grid_resolution=resolution)
        assert display.fragmentation_ == expected


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_planes_are_compared_at_any_scale(scale):
    X = scale * SQUARE
    clf = KNeighborsClassifier(1).fit(X, [0, 1, 0])
    display, equal = (from_estimator(clf, X.astype(d)) for d in (np.float64, np.float32))
    assert display.agreement(equal) > 0.99
    with pytest.raises(ValueError, match="different planes"):
        display.agreement(from_estimator(clf, X + 1e-3 * scale))


def test_agreement_is_the_share_of_the_square():
    """Thresholds .25 and .5 of the first coordinate differ on a fourth of the unit square."""
    first, second = (
        KNeighborsClassifier(1).fit([[t - 1, 0], [t + 1, 0]], ["a", "b"]) for t in (0.25, 0.5)
    )
    one, two = (from_estimator(c, SQUARE, expand=0, grid_resolution=80) for c in (first, second))
    assert one.agreement(one) == 1
    assert one.agreement(two) == two.agreement(one) == pytest.approx(0.75, abs=0.02)
    third = from_estimator(second, SQUARE, expand=0.2, grid_resolution=80)
    fourth = from_estimator(second, SQUARE + 1, expand=0, grid_resolution=80)
    fifth = from_estimator(second, SQUARE, expand=0, grid_resolution=40)
    for other in (third, fourth, fifth):
        with pytest.raises(ValueError, match="different planes or grids"):
            one.agreement(other)


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_artists(n_classes):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_classes, 6))
    names = np.array([f"class {i:03d}" for i in range(n_classes)])
    clf = KNeighborsClassifier(1).fit(np.repeat(X, 2, 0), np.repeat(names, 2))
    others = rng.standard_normal((20, 6))
    samples = np.concatenate([X[[0, 1, 1]] + [[0], [0], [0.1]] * rng.random((3, 6)), others])
    display = from_estimator(clf, samples, ax=plt.figure().gca())
    assert (
        display.ax_.figure is display.figure_ and display.ax_.get_title() == clf.__class__.__name__
    )
    (image,) = display.ax_.images
    assert image is display.image_ and image.get_array().shape == (24, 24, 3)
    xlim, ylim = display.ax_.get_xlim(), display.ax_.get_ylim()
    np.testing.assert_allclose(image.get_extent(), [*xlim, *ylim])
    present = np.unique(display.prediction)
    assert len(display.boundary_) == len(present) - 1
    texts = [t.get_text() for t in display.region_labels_]
    assert set(texts) <= set(names[present]) and len(texts) >= 1
    drawn = sum(len(c.get_offsets()) for c in display.samples_.values())
    assert drawn == 20 and sum(len(c.get_offsets()) for c in display.anchors_.values()) == 3
    predicted = clf.predict(samples)
    assert {names[c] for c in display.anchors_} == set(predicted[:3])
    for code, artist in display.samples_.items():
        assert artist.get_label() == names[code]
        np.testing.assert_allclose(
            artist.get_offsets(), display.points[3:][predicted[3:] == names[code]]
        )
    legend = display.ax_.get_legend()
    shown = np.unique(predicted)
    assert (legend is None) == (len(shown) > 10)
    if legend is not None:
        assert [t.get_text() for t in legend.get_texts()] == shown.tolist()


def test_far_samples_are_faint():
    clf = LogisticRegression().fit(np.eye(3), [0, 1, 1])
    X = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.1], [0.5, 0.5, 5.0]])
    display = from_estimator(clf, X, y=[0, 1, 1, 1, 1])
    np.testing.assert_allclose(display.distances, [0, 0, 0, 0.1, 5], atol=1e-12)
    near, far = display.samples_[1].get_alpha()
    assert 0.8 < near < 1 and far == pytest.approx(0.12)


def test_colors_fade_with_confidence():
    clf = LogisticRegression().fit([[-1.0, 0, 0], [1.0, 0, 0]], ["a", "b"])
    display = from_estimator(clf, [[-9.0, 0, 0], [9.0, 0, 0], [0, 1, 0]], expand=0)
    white = 1 - np.asarray(display.image_.get_array())
    assert white[0, 0].sum() > 2 * white[0, 11].sum() > 0
    assert white[0, -1].sum() > 2 * white[0, 12].sum() > 0
    labels_only = from_estimator(Labels(clf), [[-9.0, 0, 0], [9.0, 0, 0], [0, 1, 0]], expand=0)
    assert labels_only.confidence is None
    np.testing.assert_array_equal(labels_only.prediction, display.prediction)
    assert len(np.unique(labels_only.image_.get_array().reshape(-1, 3), axis=0)) == 2


class Labels:
    """A classifier of labels alone, of no library."""

    def __init__(self, clf):
        self.classes_ = clf.classes_
        self.predict = clf.predict


def test_any_classifier(iris, digits, cnn):
    X, y = iris
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    X3 = X[[0, 60, 120]]
    frame = pd.DataFrame(X, columns=list("abcd"))
    for clf, data in (
        (RandomForestClassifier(5, random_state=0).fit(X, names), X3),
        (RandomForestClassifier(5, random_state=0).fit(frame, names), frame.iloc[[0, 60, 120]]),
        (make_pipeline(StandardScaler(), SVC()).fit(X, names), X3),
        (RidgeClassifier().fit(X, names), X3.tolist()),
        (SVC(decision_function_shape="ovo").fit(X, names), torch.from_numpy(X3)),
    ):
        display = from_estimator(clf, data)
        assert display.classes.tolist() == ["setosa", "versicolor", "virginica"]
        np.testing.assert_array_equal(display.labels, [0, 1, 2])
        points = points_of(display).reshape(24, 24, 4)[::7, ::7].reshape(-1, 4)
        if hasattr(clf, "feature_names_in_"):
            points = pd.DataFrame(points, columns=list("abcd"))
        np.testing.assert_array_equal(
            display.classes[display.prediction[::7, ::7].ravel()], clf.predict(points)
        )
    images, _ = digits
    frozen = FrozenNetwork(cnn, classes=[f"d{i}" for i in range(10)])
    for net in (cnn, frozen, FrozenNetwork(cnn)):
        display = from_estimator(net, images[:5], plane="pca")
        assert display.name == type(cnn).__name__
        assert str(display.classes[3]).lstrip("d") == "3"
    points = points_of(display).astype(np.float32).reshape(-1, 1, 8, 8)
    np.testing.assert_array_equal(
        frozen.predict_proba(points).argmax(1), display.prediction.ravel()
    )


def test_keywords_reach_the_artists(iris):
    X, y = iris
    clf = LogisticRegression(max_iter=500).fit(X, y)
    display = from_estimator(
        clf,
        X,
        plane="pca",
        y=y,
        curve_kwargs={"lw": 3, "color": "red"},
        scatter_kwargs={"s": 7},
        label_regions=False,
        name="iris",
    )
    assert display.region_labels_ == [] and display.ax_.get_title() == "iris"
    assert display.boundary_[0].get_linewidth()[0] == 3
    assert display.samples_[0].get_sizes()[0] == 7
    assert [len(c.get_offsets()) for c in display.samples_.values()] == [50, 50, 50]
    again = plt.figure().gca()
    assert display.plot(again).ax_ is again


def test_errors(iris):
    X, y = iris
    clf = LogisticRegression(max_iter=500).fit(X, y)
    forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    for estimator, data, params, message in (
        (clf, X[:2], {}, "needs 3 samples"),
        (clf, [X[0], X[1], 2 * X[1] - X[0]], {}, "lie on a line"),
        (clf, X[:1], {"plane": "normal"}, "needs 2 samples"),
        (clf, X[:2], {"plane": "normal"}, "both predicted as"),
        (forest, X[[0, 120]], {"plane": "normal"}, "has no gradient"),
        (clf, X[:1], {"plane": "pca"}, "needs 2 samples"),
        (clf, X, {"plane": "umap"}, "use 'triplet'"),
        (clf, X, {"grid_resolution": 1}, "at least 2"),
        (clf, X, {"expand": -1}, "at least 0"),
        (clf, X[:3], {"y": [0, 1, 7]}, "not one of the 3 classes"),
        (StandardScaler().fit(X), X, {}, "no predict"),
    ):
        with pytest.raises(ValueError, match=message):
            from_estimator(estimator, data, **params)
    with pytest.raises(NotFittedError):
        from_estimator(LogisticRegression(), X)


def test_planes_are_read_in_batches(monkeypatch):
    rng = np.random.default_rng(0)
    X, D = rng.random((50, 6)), np.linalg.qr(rng.random((6, 2)))[0].T
    plane = Plane(X[0], D)
    whole, at = plane.project(X), rng.random((30, 2))
    (points,) = plane.points(at, (6,), np.float64)
    monkeypatch.setattr("skboundary.display._plane.BATCH_BYTES", 7 * 48)
    for part, expected in zip(plane.project(X), whole):
        np.testing.assert_array_equal(part, expected)
    parts = list(plane.points(at, (6,), np.float64))
    assert len(parts) == 5
    np.testing.assert_allclose(np.concatenate(parts), points)
