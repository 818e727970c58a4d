"""Boundary points against closed forms, through the estimator."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.datasets import make_circle, make_linear, make_sphere, make_xor

PROBLEMS = {
    "linear": lambda: make_linear(40, 5, random_state=0),
    "circle": lambda: make_circle(40, random_state=0),
    "sphere": lambda: make_sphere(40, random_state=0),
    "xor": lambda: make_xor(40, random_state=0),
}


def in_dtype(module, dtype):
    """A closed form has no weights; a buffer says what it computes in."""
    module.register_buffer("dtype", torch.zeros(1, dtype=dtype))
    return FrozenNetwork(module)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", ["data", None, (-9.0, 9.0)])
@pytest.mark.parametrize("name", PROBLEMS)
def test_minimal_is_the_nearest_point(name, bounds, dtype):
    problem = PROBLEMS[name]()
    X = problem.data.astype(dtype)
    net = in_dtype(problem.module, torch.float32 if dtype == np.float32 else torch.float64)
    extractor = BoundarySampleExtractor(net, method="minimal", bounds=bounds).fit(X)
    outer, nearest = extractor.transform(X), problem.nearest(X.astype(float))
    assert outer.dtype == dtype
    if bounds == "data":  # a nearest point outside is none; the others are the same
        low, high = extractor.bounds_
        assert ((outer >= low) & (outer <= high)).all()
        inside = ((nearest >= low) & (nearest <= high)).all(1)
        assert inside.mean() > 0.8
        outer, nearest, X = outer[inside], nearest[inside], X[inside]
    # up to the margin that is kept, 2e-3 at most
    away = np.abs(net.decision_function(outer))
    assert away.min() > 0.9e-3 and away.max() < 2.1e-3
    excess = np.linalg.norm(outer - X, axis=1) - np.linalg.norm(nearest - X, axis=1)
    assert excess.max() < 0.02 and np.median(excess) < 2e-3


@pytest.mark.parametrize("method, most", [("score", 0.01), ("label", 0.03)])
@pytest.mark.parametrize("name", PROBLEMS)
def test_queries_come_near_the_nearest_point(name, method, most):
    problem = PROBLEMS[name]()
    X = problem.data[:20]
    extractor = BoundarySampleExtractor(
        in_dtype(problem.module, torch.float64), method=method, bounds=None, random_state=0
    ).fit(problem.data)
    outer, nearest = extractor.transform(X), problem.nearest(X)
    ratio = np.linalg.norm(outer - X, axis=1) / np.linalg.norm(nearest - X, axis=1)
    assert ratio.max() < 1.15 and np.median(ratio) < 1 + most


@pytest.mark.parametrize("method", ["pm", "minimal", "score", "segment"])
def test_residual_margins(method):
    """Both ends within 2 margin_tol, or at PM's confidence; the midpoint in between."""
    problem = PROBLEMS["sphere"]()
    net = in_dtype(problem.module, torch.float64)
    X = problem.data
    for tol in (1e-3, 1e-2):
        extractor = BoundarySampleExtractor(
            net, method=method, margin_tol=tol, confidence=0.8, random_state=0
        ).fit(X)
        pairs = extractor.extract_pairs(X)
        ok = pairs.success
        assert ok.mean() > 0.95
        inside, outside = pairs.margin_inner[ok], -pairs.margin_outer[ok]
        if method == "pm":
            assert inside.min() > tol and outside.min() > tol
        else:
            assert outside.min() > 0.9 * tol and outside.max() < 2.1 * tol
            assert inside.max() < 2.1 * tol  # a sample may itself be nearer to the boundary
        p = net.predict_proba(pairs.midpoint[ok])
        assert np.abs(p[:, 0] - p[:, 1]).max() < 1e-4


# ------------------------------------------------------------------------------ PM


SLOPE = 6.0


@pytest.fixture(scope="module")
def affine():
    return make_linear(60, 4, slope=SLOPE, random_state=1)


@pytest.mark.parametrize("confidence", [0.6, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pm_reaches_the_confidence(affine, confidence, dtype):
    X = affine.data.astype(dtype)
    net = in_dtype(affine.module, torch.float32 if dtype == np.float32 else torch.float64)
    extractor = BoundarySampleExtractor(net, method="pm", confidence=confidence, bounds=None).fit(X)
    pairs = extractor.extract_pairs(X)
    assert pairs.success.all()
    for points, labels in ((pairs.inner, pairs.source), (pairs.outer, pairs.target)):
        p = net.predict_proba(points)[np.arange(60), labels]
        np.testing.assert_allclose(p, confidence, atol=0.01)
    expected = 2 / SLOPE * np.log(confidence / (1 - confidence))
    np.testing.assert_allclose(pairs.distance, expected, rtol=0.05)
    delta = pairs.outer - pairs.inner
    along = np.abs(delta @ affine.weights) / np.linalg.norm(delta, axis=1) / SLOPE
    assert along.min() > 0.998


@pytest.mark.parametrize("penalty", [0.3, 1.0, 2.0])
def test_pm_with_the_literal_penalty(affine, penalty):
    """1 - penalty / slope at both ends, 2 / slope * log(slope / penalty - 1) apart."""
    net = in_dtype(affine.module, torch.float64)
    extractor = BoundarySampleExtractor(
        net, method="pm", penalty=penalty, effort="thorough", bounds=None
    ).fit(affine.data)
    pairs = extractor.extract_pairs(affine.data[:10])
    assert pairs.success.all()
    p = net.predict_proba(pairs.outer)[np.arange(10), pairs.target]
    np.testing.assert_allclose(p, 1 - penalty / SLOPE, atol=5e-3)
    expected = 2 / SLOPE * np.log(SLOPE / penalty - 1)
    np.testing.assert_allclose(pairs.distance, expected, rtol=0.02)


@pytest.mark.parametrize("penalty", [SLOPE / 2, 4.0])
def test_pm_reports_collapsed_pairs(affine, penalty):
    extractor = BoundarySampleExtractor(
        in_dtype(affine.module, torch.float64), method="pm", penalty=penalty, effort="thorough"
    ).fit(affine.data)
    pairs = extractor.extract_pairs(affine.data[:10])
    assert (pairs.status == "collapsed").all() and not pairs.success.any()
    with pytest.warns(UserWarning, match="collapsed: 10"):
        out = extractor.transform(affine.data[:10])
    np.testing.assert_array_equal(out, affine.data[:10])


def test_pm_from_noise_between_all_classes(cnn, digits):
    X, y = digits
    extractor = BoundarySampleExtractor(FrozenNetwork(cnn), method="pm", random_state=0)
    extractor.fit(X[:300], y[:300])
    for init in ("random", "data"):
        pairs = extractor.extract(90, init=init)
        assert pairs.success.mean() > 0.95
        assert len({*zip(pairs.source, pairs.target)}) == 90
        assert pairs.inner.min() >= 0 and pairs.outer.max() <= 1  # bounds of the data
        p = extractor.estimator_.predict_proba(pairs.outer)[np.arange(90), pairs.target]
        assert abs(np.median(p) - 0.9) < 0.03


# ------------------------------------------------------------------------------ starts


def test_minimal_from_a_sample_of_another_class_goes_in_two_legs(iris):
    X, y = iris
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500), random_state=0, bounds=None
    ).fit(X, y)
    pairs = extractor.extract(12, init="random", source=1, target=2)
    assert pairs.success.all()
    start = X[[0, 140]]  # of classes 0 and 2
    pairs = extractor.extract(2, source=1, target=2, init=start)
    assert pairs.success.all()
    given = extractor.extract_pairs(start, y=[1, 1])
    assert (given.source == 1).all() and (extractor.estimator_.predict(given.inner) == 1).all()
    free = extractor.extract(2, init=start)
    np.testing.assert_array_equal(free.source, extractor.estimator_.predict(start))
    np.testing.assert_array_equal(free.outer, extractor.extract_pairs(start).outer)


def test_targets(iris):
    X, y = iris
    extractor = BoundarySampleExtractor(LogisticRegression(max_iter=500)).fit(X, y)
    clf = extractor.estimator_
    samples = X[::5]
    nearest = extractor.set_params(returns="distance").transform(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        each = extractor.set_params(returns="class_distances").transform(samples)
    own = each.argmin(1)
    np.testing.assert_array_equal(clf.classes_[own], clf.predict(samples))
    np.fill_diagonal(each[:, own], np.inf)
    each[np.arange(len(samples)), own] = np.inf
    np.testing.assert_allclose(each.min(1), nearest[:, 0], rtol=0.02)
    extractor.set_params(target="runner_up", returns="boundary")
    second = clf.classes_[clf.predict_proba(samples).argsort(1)[:, -2]]
    np.testing.assert_array_equal(clf.predict(extractor.transform(samples)), second)


@pytest.mark.parametrize("estimator", [SVC(), RandomForestClassifier(5, random_state=0)])
def test_black_boxes_get_closer_with_effort(iris, estimator):
    X, y = iris
    X, y = X[50:], y[50:]
    extractor = BoundarySampleExtractor(estimator, returns="distance", random_state=0).fit(X, y)
    assert extractor.response_ == ("score" if isinstance(estimator, SVC) else "label")
    samples, means = X[::18], []
    for effort in ("fast", "balanced"):
        means.append(extractor.set_params(effort=effort).transform(samples).mean())
    segment = extractor.set_params(method="segment").transform(samples).mean()
    assert means[1] <= means[0] * 1.001 and means[0] < segment
    out = extractor.set_params(method="auto", returns="boundary").transform(samples)
    predict = extractor.estimator_.predict
    assert (predict(out) != predict(samples)).all()
    assert ((out >= X.min(0)) & (out <= X.max(0))).all()


def test_black_box_spends_no_more_than_its_budget(iris):
    X, y = iris
    for estimator, most in (
        (RandomForestClassifier(5, random_state=0), {"fast": 100, "balanced": 2000}),
        (SVC().set_params(gamma=0.5), {"fast": 110, "balanced": 350}),
    ):
        two = y > 0 if isinstance(estimator, RandomForestClassifier) else y < 2
        extractor = BoundarySampleExtractor(estimator).fit(X[two], y[two])
        for effort, budget in most.items():
            pairs = extractor.set_params(effort=effort).extract_pairs(X[two][::10])
            assert pairs.success.all() and (pairs.n_evaluations <= budget).all()
