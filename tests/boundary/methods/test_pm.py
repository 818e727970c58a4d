"""Method "pm" in a box, at any scale of the logits, and what it tells of a failure."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.linear_model import SGDClassifier
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary.methods import _pm
from skboundary.functional.margins import margin_band


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True)


@pytest.fixture(scope="module")
def sgd(wine):
    return SGDClassifier(loss="log_loss", random_state=0).fit(*wine)


def linear(weight, bias, dtype=torch.float64):
    module = nn.Linear(weight.shape[1], len(weight)).to(dtype)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
        module.bias.copy_(torch.from_numpy(bias))
    return FrozenNetwork(module)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_several_rivals_are_tried_in_the_box(wine, dtype):
    X, y = wine[0].astype(dtype), wine[1]
    extractor = BoundarySampleExtractor(
        SGDClassifier(loss="log_loss", random_state=0), method="pm", random_state=0
    ).fit(X, y)
    pairs = extractor.extract_pairs(X)
    assert pairs.success.mean() >= 0.95
    assert (pairs.source != pairs.target).all()
    predict = extractor.estimator_.predict
    np.testing.assert_array_equal(predict(pairs.outer)[pairs.success], pairs.target[pairs.success])
    assert ((pairs.outer >= X.min(0)) & (pairs.outer <= X.max(0))).all()


@pytest.mark.parametrize("scale", [1, 1e3, 1e5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_ends_have_the_confidence_at_any_scale_of_the_logits(wine, sgd, dtype, scale):
    """Or the band, where rounding asks for more."""
    X = wine[0].astype(dtype)
    largest = np.abs(sgd.decision_function(wine[0])).max()
    weight, bias = (value * scale / largest for value in (sgd.coef_, sgd.intercept_))
    torch_dtype = torch.float32 if dtype == np.float32 else torch.float64
    net = linear(weight, bias, torch_dtype)
    pairs = BoundarySampleExtractor(net, method="pm", random_state=0).fit(X).extract_pairs(X)
    assert pairs.success.mean() >= 0.95 and (pairs.source != pairs.target).all()
    ok = pairs.success
    ends = np.concatenate([pairs.inner[ok], pairs.outer[ok]])
    labels = np.concatenate([pairs.source[ok], pairs.target[ok]])
    logits = ends.astype(float) @ weight.T + bias
    band = margin_band(1e-3, torch.finfo(torch_dtype).eps, torch.from_numpy(logits)).numpy()
    own = logits[np.arange(len(ends)), labels]
    logits[np.arange(len(ends)), labels] = -np.inf
    margin = own - logits.max(1)
    assert (margin > 0.5 * band).all()  # the box may keep a pair from its confidence
    if scale > 1 and dtype == np.float64:
        np.testing.assert_allclose(np.median(margin), np.log(9), rtol=0.02)
    assert (margin < np.maximum(1.2 * np.log(9), 8 * band)).all()


@pytest.mark.parametrize("penalty", [None, 0.01])
def test_a_class_that_the_box_keeps_away_is_not_found(penalty):
    """The other class lies beyond the box of the data, on whose near side all samples are."""
    X = np.random.default_rng(0).random((20, 3))
    net = linear(np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([0.0, -3, -4]))
    extractor = BoundarySampleExtractor(net, method="pm", penalty=penalty).fit(X)
    for target in ("nearest", 2):
        pairs = extractor.set_params(target=target).extract_pairs(X)
        assert set(pairs.status) == {"not_found"} and (pairs.source == 0).all()
        assert set(pairs.target) == ({1} if target == "nearest" else {2})
        np.testing.assert_array_equal(pairs.outer, X)
    assert extractor.set_params(bounds=None).extract_pairs(X).success.all()


@pytest.mark.parametrize(
    "method",
    ["pm", "minimal", "segment", "score", "label", pytest.param("deepdig", marks=pytest.mark.slow)],
)
def test_no_failure_has_its_source_for_a_target(method):
    X = np.random.default_rng(0).random((8, 3))
    net = linear(np.array([[0.0, 0, 0], [1, 0, 0]]), np.array([0.0, -3]))
    extractor = BoundarySampleExtractor(net, method=method, effort="fast").fit(X)
    pairs = extractor.extract_pairs(X)
    assert not pairs.success.any() and (pairs.source != pairs.target).all()


def test_a_given_penalty_that_is_too_large_collapses_the_pair(wine):
    """And names the class that was sought; PM's own penalty never does."""
    X, y = wine
    extractor = BoundarySampleExtractor(
        SGDClassifier(loss="log_loss", random_state=0), method="pm", penalty=1e9, random_state=0
    ).fit(X, y)
    pairs = extractor.extract_pairs(X[::5])
    assert set(pairs.status) == {"collapsed"} and (pairs.source != pairs.target).all()
    assert "collapsed" not in extractor.set_params(penalty=None).extract_pairs(X).status


@pytest.mark.parametrize("penalty", [None, 0.6])
def test_a_pair_that_keeps_its_start_has_not_collapsed(monkeypatch, penalty):
    """Whatever became of the minimization: the start is the optimum of a linear network."""
    minimize = _pm.minimize_perturbation

    def collapse(*args, **kwargs):
        pairs = minimize(*args, **kwargs)
        middle = (pairs.inner + pairs.points) / 2
        return pairs._replace(
            inner=middle, points=middle, collapsed=torch.ones_like(pairs.collapsed)
        )

    monkeypatch.setattr(_pm, "minimize_perturbation", collapse)
    X = np.random.default_rng(0).normal(size=(20, 3))
    net = linear(np.array([[-3.0, 0, 0], [3, 0, 0]]), np.zeros(2))
    extractor = BoundarySampleExtractor(net, method="pm", penalty=penalty, bounds=None).fit(X)
    pairs = extractor.extract_pairs(X)
    assert set(pairs.status) == {"ok"}
    np.testing.assert_allclose(pairs.distance, 2 * np.log(9) / 6, rtol=0.05)
