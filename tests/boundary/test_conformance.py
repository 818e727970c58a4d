"""Every method on closed forms, at any dtype, logit scale, unit of X, batch size and n_jobs."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary import _ends
from skboundary.boundary._oracle import Oracle
from skboundary.functional.margins import margin_band

METHODS = ["minimal", "pm", "score", "label", "segment"]
FORMS = {
    "plane": lambda x: x @ torch.tensor([3.0, -1.0, 2.0]).to(x) + 0.7,
    "ball": lambda x: x.square().sum(1) - 1.5**2,
    "slab": lambda x: (x[:, 0] - 0.3).abs() - 0.4,  # the box ends beyond its two sides
}
BOX = (-3.5, 3.5)
X = np.random.default_rng(0).uniform(-2, 2, (40, 3))


class Form(nn.Module):
    """Logits minus and plus half of a closed form, and the samples that it ran."""

    def __init__(self, name, dtype, scale, unit):
        super().__init__()
        self.name, self.scale, self.unit, self.n_run = name, scale, unit, 0
        self.register_buffer("dtype", torch.zeros(1, dtype=dtype))

    def forward(self, x):
        self.n_run += len(x)
        if x.requires_grad:
            x.register_hook(self._count)
        value = self.scale * FORMS[self.name](x / self.unit)
        return torch.stack([-value, value], 1) / 2

    def _count(self, gradient):
        self.n_run += len(gradient)


def check(method, name, dtype, scale, unit, batch_size, n_jobs):
    module = Form(name, dtype, scale, unit)
    samples = (unit * X).astype(str(dtype)[6:])
    bounds = tuple(unit * b for b in BOX)
    extractor = BoundarySampleExtractor(
        FrozenNetwork(module),
        method=method,
        effort="fast",
        bounds=bounds,
        batch_size=batch_size,
        n_jobs=n_jobs,
        random_state=0,
    ).fit(samples)
    net, queries = extractor.estimator_, samples[:12]
    before = module.n_run
    pairs = extractor.extract_pairs(queries)
    n_run = module.n_run - before
    assert pairs.success.all(), np.unique(pairs.status, return_counts=True)
    assert (pairs.source == net.predict(queries)).all() and (pairs.target == 1 - pairs.source).all()
    assert (net.predict(pairs.inner) == pairs.source).all()
    assert (net.predict(pairs.outer) == pairs.target).all()
    for points in (pairs.inner, pairs.midpoint, pairs.outer):
        assert points.dtype == samples.dtype
        assert (points >= np.float32(bounds[0])).all() and (points <= np.float32(bounds[1])).all()
    if n_jobs is None:
        assert n_run == pairs.n_evaluations.sum()

    def logits(points):
        with torch.no_grad():
            return module(torch.from_numpy(points))

    ends = torch.from_numpy(queries), torch.from_numpy(pairs.outer)
    eps = torch.finfo(dtype).eps
    band = margin_band(1e-3, eps, *map(logits, (queries, pairs.outer)), ends=ends).numpy()
    if method != "pm":
        assert (-pairs.margin_outer > 0.5 * band).all()
        # the sample itself where it lies nearer to the boundary
        assert (pairs.margin_inner > 0).all()
        # where rounding hides the margin on a long segment, ends keep 2^-15 of it away
        most = 2.5 * band + 2.0**-15 * 2 * logits(samples).abs().max().item()
        assert (np.maximum(-pairs.margin_outer, pairs.margin_inner) < most).all()
        gap = logits(pairs.midpoint).softmax(1).diff(dim=1)[:, 0].abs().numpy()
        # half a step of the terms, up to 4, that cancel in the closed form
        step = scale * eps * 4 / 2
        assert (gap < np.maximum(1e-4 + step / 2, np.tanh(band / 2) * (band > 1e-3))).all()


TABLE = list(
    itertools.product(
        METHODS,
        FORMS,
        [torch.float32, torch.float64],
        [1.0, 1e3, 1e5],
        [1e-5, 1.0, 1e5],
        ["auto", 5],
        [None],
    )
)


@pytest.mark.parametrize("case", TABLE[::5], ids=str)
def test_a_fifth_of_the_table(case):
    check(*case)


@pytest.mark.parametrize("case", [case[:-1] + (2,) for case in TABLE[::90]], ids=str)
def test_two_jobs(case):
    check(*case)


@pytest.mark.slow
@pytest.mark.parametrize("case", TABLE, ids=str)
def test_the_table(case):
    check(*case)


# ------------------------------------------------------------------------------ black boxes


class Counted(ClassifierMixin, BaseEstimator):
    """Class 1 where 3 x0 + x1 + 1 > 0 (or in a thin slab); counts the samples that it ran."""

    def __init__(self, half_width=None):
        self.half_width = half_width

    def fit(self, X, y=None):
        self.classes_, self.n_features_in_, self.n_run_ = np.array([0, 1]), X.shape[1], 0
        return self

    def decision_function(self, X):
        self.n_run_ += len(X)
        if self.half_width is not None:
            return self.half_width - np.abs(X[:, 0] - 1)
        return 3 * X[:, 0] + X[:, 1] + 1

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


@pytest.mark.parametrize("method, budget", [("segment", 100), ("label", 100), ("score", 100)])
def test_black_boxes_count_their_queries(method, budget):
    extractor = BoundarySampleExtractor(
        Counted(), method=method, effort="fast", random_state=0
    ).fit(X, Counted().fit(X).predict(X))
    before = extractor.estimator_.n_run_
    pairs = extractor.extract_pairs(X)
    assert pairs.success.all() and extractor.response_ == "score"
    assert extractor.estimator_.n_run_ - before == pairs.n_evaluations.sum()
    assert pairs.n_evaluations.max() <= budget


@pytest.mark.parametrize("half_width", [0.002, 0.004, 0.02])
@pytest.mark.parametrize("method", ["score", "label"])
def test_a_thin_slab_keeps_its_brackets(method, half_width):
    rng = np.random.default_rng(0)
    inside = 1 + half_width * rng.uniform(-0.9, 0.9, (20, 1))
    samples = np.r_[rng.uniform(-0.3, 0.3, (30, 1)), inside]
    extractor = BoundarySampleExtractor(
        Counted(half_width), method=method, bounds=None, random_state=0
    ).fit(samples, (np.arange(50) >= 30).astype(int))
    assert extractor.extract_pairs(samples[:30]).success.all()


@pytest.mark.parametrize("method", ["auto", "segment"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_classifiers_on_raw_columns(method, dtype):
    samples, y = load_breast_cancer(return_X_y=True)
    clf = SGDClassifier(random_state=0).fit(samples, y)
    samples = samples.astype(dtype)
    pairs = BoundarySampleExtractor(clf, method=method).fit(samples, y).extract_pairs(samples)
    assert pairs.success.all()


# ------------------------------------------------------------------------------ precisions


class Half(nn.Sequential):
    """Rounds to a half precision, or to float64, somewhere on the way."""

    def __init__(self, kind):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 3))
        self.kind = kind
        if kind in ("float16", "bfloat16"):
            self.to(getattr(torch, kind))
        if kind == "head":
            self[2].double()

    def forward(self, x):
        if self.kind == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)
        hidden = self[1](self[0](x))
        return self[2](hidden.double() if self.kind == "head" else hidden)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "autocast", "head"])
def test_every_method_in_every_precision(method, kind):
    samples = (3 * X).astype("float32")
    extractor = BoundarySampleExtractor(
        FrozenNetwork(Half(kind)), method=method, effort="fast", random_state=0
    ).fit(samples)
    pairs = extractor.extract_pairs(samples[:10])
    ok = pairs.success
    assert ok.mean() >= 0.5
    assert (extractor.estimator_.predict(pairs.outer[ok]) == pairs.target[ok]).all()


@pytest.mark.parametrize("method", ["auto", "pm", "segment", "score"])
def test_a_float32_network_behind_float64_steps(method):
    net = FrozenNetwork(Form("ball", torch.float32, 1.0, 1.0))
    extractor = BoundarySampleExtractor(
        make_pipeline(StandardScaler(), net), method=method, effort="fast", random_state=0
    ).fit(X, net.predict(StandardScaler().fit_transform(X)))
    assert extractor.extract_pairs(X[:10]).success.all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["minimal", "pm", "score", "segment"])
def test_gradients_may_be_off_outside(method, mode):
    extractor = BoundarySampleExtractor(
        FrozenNetwork(Form("ball", torch.float64, 1.0, 1.0)),
        method=method,
        effort="fast",
        random_state=0,
    )
    expected = extractor.fit(X).extract_pairs(X[:5]).outer
    with mode():
        found = extractor.fit(X).extract_pairs(X[:5]).outer
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("method", ["minimal", "score", "label", "segment"])
def test_images_beyond_the_range_of_fit_widen_it(method):
    form = Form("plane", torch.float64, 1.0, 1.0)
    net = FrozenNetwork(nn.Sequential(nn.Flatten(), form))
    extractor = BoundarySampleExtractor(net, method=method, effort="fast", random_state=0)
    images = X[:, None, None]
    pairs = extractor.fit(images).extract_pairs(2 * images[:10])
    assert pairs.success.all()


# ------------------------------------------------------------------------------ forwards


@pytest.fixture
def counted(monkeypatch):
    """A trained network with a latent layer, its forwards, and those of the bisection."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    n = {"forwards": 0, "bisection": 0}
    margin, midpoint = Oracle.margin, _ends._midpoint

    def count_margin(oracle, x, *classes):
        n["bisection"] += len(x)
        return margin(oracle, x, *classes)

    def count_midpoint(*args):
        root = midpoint(*args)
        n["bisection"] += int(root.n_evaluations.sum())
        return root

    monkeypatch.setattr(Oracle, "margin", count_margin)
    monkeypatch.setattr(_ends, "_midpoint", count_midpoint)
    extractor = BoundarySampleExtractor(module, method="segment", random_state=0).fit(X)
    module.register_forward_hook(
        lambda module, args, output: n.update(forwards=n["forwards"] + len(output))
    )
    return extractor, n


@pytest.mark.parametrize(
    "call, beyond",
    [
        (lambda extractor: extractor.extract_pairs(X), 3),  # the sample, and both ends
        (lambda extractor: extractor.extract(len(X)), 2),  # training samples are known
        (lambda extractor: extractor.transform(X), 2),
        (lambda extractor: extractor.set_params(target="runner_up").extract_pairs(X), 3),
    ],
    ids=["extract_pairs", "extract", "transform", "runner_up"],
)
def test_a_segment_takes_three_forwards_beyond_its_bisection(counted, call, beyond):
    extractor, n = counted
    found = call(extractor)
    assert n["bisection"] > 0
    assert n["forwards"] - n["bisection"] == beyond * len(X)
    if not isinstance(found, np.ndarray):
        assert found.n_evaluations.sum() == n["forwards"]


def test_training_samples_run_once_in_fit():
    form, n = Form("plane", torch.float64, 1.0, 1.0), []
    module = nn.Sequential(form, nn.Linear(2, 2).double())
    module.register_forward_hook(lambda module, args, output: n.append(len(output)))
    BoundarySampleExtractor(module, method="segment", random_state=0).fit(X)
    probes = min(len(X), 64)
    assert sum(n) <= len(X) + probes + 2
