"""The box of every method: given, changed after fit, half open, one feature wide."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary._drawing import draw_noise
from skboundary.boundary._inputs import check_inside, find_bounds
from skboundary.boundary._training_samples import TrainingSamples, finite_bounds, within
from skboundary.boundary.methods._registry import METHODS

INF = np.inf


@pytest.fixture(scope="module")
def plane():
    """Samples in [.3, .6]^3 and a plane through their middle that turns on each feature."""
    X = np.random.default_rng(0).uniform(0.3, 0.6, (60, 3))
    return X, FrozenNetwork(Plane())


class Plane(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64))

    def forward(self, x):
        f = 10 * ((x - 0.45) * self.w.to(x.dtype)).sum(1)
        return torch.stack([-f, f], 1)


class Corners(nn.Module):
    """A generator that gives the upper corner of the box, and keeps what it was given."""

    seen = torch.empty(0, 3)

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        if not torch._C._functorch.is_batchedtensor(x):  # not while it is trained
            self.seen = torch.cat([self.seen.to(x), x])
        return 1 + 0 * x + 0 * self.shift


def extractor_of(net, method, **params):
    return BoundarySampleExtractor(net, method=method, effort="fast", random_state=0, **params)


def assert_inside(pairs, low, high):
    for points in (pairs.inner, pairs.outer, pairs.midpoint):
        assert (points >= low).all() and (points <= high).all()


@pytest.mark.parametrize("bounds", ["data", (0.25, 0.65), ([0.3, 0.2, 0.0], [0.6, 0.7, 1.0])])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"deepdig"}))
def test_points_lie_in_the_box(plane, method, bounds, dtype):
    X, net = plane[0].astype(dtype), plane[1]
    extractor = extractor_of(net, method, bounds=bounds).fit(X)
    pairs = extractor.extract_pairs(X)
    assert pairs.success.mean() > 0.6 and pairs.outer.dtype == dtype
    low, high = (b.astype(dtype) for b in extractor.bounds_)
    assert_inside(pairs, low, high)
    assert extractor.transform(pairs.outer[pairs.success]).shape[1] == 3  # what lies on it, too


@pytest.mark.parametrize("bounds", ["data", (0.25, 0.65), (0.25, INF), None])
def test_generators_of_deepdig_work_in_the_box(plane, bounds):
    X, net = plane
    made = []

    def build(shape):
        made.append(Corners())
        return made[-1]

    extractor = extractor_of(net, "deepdig", bounds=bounds, generator=build).fit(X)
    extractor.extract(4, source=0, target=1)
    least, largest = {
        "data": (X.min(0), X.max(0)),
        (0.25, 0.65): (0.25, 0.65),
        (0.25, INF): (0.25, X.max(0)),
        None: (0, 1),
    }[bounds]
    lowest = made[0].seen.min(0).values.detach()  # in units of the box
    training = X[net.predict(X) == 0].min(0)
    np.testing.assert_allclose(lowest, (training - least) / (largest - least), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_box_of_one_value_keeps_a_feature(plane, method):
    """Set after fit, although no training sample has the value."""
    X, net = plane
    extractor = extractor_of(net, method).fit(X)
    low, high = X.min(0), X.max(0)
    low[1] = high[1] = 0.41
    fixed = X.copy()
    fixed[:, 1] = 0.41
    pairs = extractor.set_params(bounds=(low, high)).extract_pairs(fixed)
    assert pairs.success.mean() > 0.6
    assert_inside(pairs, low, high)
    ok = pairs.success
    assert (pairs.outer[:, 1] == 0.41).all()
    assert (net.predict(pairs.outer[ok]) == pairs.target[ok]).all()
    drawn = extractor.extract(8)
    assert drawn.success.any()
    assert_inside(drawn, low, high)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_kept_feature_comes_back_as_it_was_from_a_float32_network(plane, dtype):
    X = plane[0].astype(dtype)
    net = FrozenNetwork(nn.Linear(3, 2))  # float32
    with torch.no_grad():
        net.module.weight.copy_(torch.tensor([[2.0, 1.0, -1.0], [-2.0, -1.0, 1.0]]))
        net.module.bias.copy_(torch.tensor([-0.9, 0.9]))
    X[:, 1] = 0.7
    pairs = (
        BoundarySampleExtractor(net, bounds=([0, X[0, 1], 0], [1, X[0, 1], 1]))
        .fit(X)
        .extract_pairs(X)
    )
    assert pairs.success.any() and pairs.outer.dtype == dtype
    assert (pairs.outer[:, 1] == X[0, 1]).all() and (pairs.midpoint[:, 1] == X[0, 1]).all()


def test_bounds_set_after_fit_act_as_if_given_to_fit(plane):
    X, net = plane
    given = extractor_of(net, "minimal", bounds=None).fit(X)
    late = extractor_of(net, "minimal").fit(X).set_params(bounds=None)
    far = X + [3, 0, 0]  # outside of the data
    assert late.bounds_ is None
    np.testing.assert_array_equal(late.transform(far), given.transform(far))
    late.set_params(bounds=(0.3, 0.6))
    np.testing.assert_array_equal(late.bounds_, (0.3, 0.6))
    with pytest.raises(ValueError, match="bounds exclude"):
        late.transform(far)
    late.set_params(bounds="data")  # widened for each sample
    np.testing.assert_array_equal(late.bounds_, (X.min(0), X.max(0)))
    assert np.isfinite(late.transform(far)).all()
    wrong = [((1, 0), "low must be at most high"), ((0, 1, 2), "a pair"), (3, "'bounds'")]
    for bounds, words in wrong:
        with pytest.raises(ValueError, match=words):
            late.set_params(bounds=bounds).transform(X)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3)])
@pytest.mark.parametrize("method", ["minimal", "pm", "segment"])
def test_the_box_of_the_data_is_widened_for_samples_outside(shape, method):
    """For images by their range of values, so that a sample is inside and can be moved."""
    w = torch.ones(int(np.prod(shape)), dtype=torch.float64)
    module = nn.Sequential(nn.Flatten(), nn.Linear(len(w), 2).double())
    with torch.no_grad():
        module[1].weight.copy_(torch.stack([-w, w]))
        module[1].bias.copy_(torch.tensor([0.5, -0.5]) * len(w))
    X = np.random.default_rng(0).random((30, *shape))
    extractor = BoundarySampleExtractor(FrozenNetwork(module), method=method).fit(X)
    outside = X[:5] + 3
    outside[:, ..., 0] = 2  # vectors keep a column to itself, images share one range
    pairs = extractor.extract_pairs(outside)
    assert pairs.success.all()
    low, high = extractor.bounds_
    axes = tuple(range(1, outside.ndim)) if len(shape) > 1 else ()
    largest = outside.max(axes, keepdims=True) if axes else outside
    assert (pairs.outer >= low).all() and (pairs.outer <= np.maximum(high, largest)).all()


def test_limits_of_images_hold_the_range_of_the_sample():
    from skboundary.boundary._solve import _limits

    x = torch.tensor([[[0.5, 2.0], [-1.0, 0.0]], [[0.1, 0.2], [0.3, 0.4]]])
    low, high = _limits(x, (np.array(0.0), np.array(1.0)), True)
    assert torch.equal(low, torch.tensor([-1.0, 0]).view(2, 1, 1).expand(2, 2, 2))
    assert torch.equal(high, torch.tensor([2.0, 1]).view(2, 1, 1).expand(2, 2, 2))
    low, high = _limits(x.flatten(1), (np.zeros(4), np.ones(4)), True)
    assert torch.equal(low[0], torch.tensor([0.0, 0, -1, 0]))
    assert torch.equal(high[0], torch.tensor([1.0, 2, 1, 1]))
    assert _limits(x, None, True) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_overshoot_by_rounding_is_inside(dtype):
    """Images brought to deviation 1 in their own dtype, and the box computed in another."""
    mean, deviation = 0.1307, 0.3081
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 3, 3)) / 255
    pixels[:, 0, 0, :2] = 0, 1
    X = (pixels.astype(dtype) - dtype(mean)) / dtype(deviation)
    net = FrozenNetwork(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)))
    bounds = (0 - mean) / deviation, (1 - mean) / deviation
    for low in (bounds[0], np.nextafter(X.min(), dtype(9))):  # one unit above the least pixel
        extractor = BoundarySampleExtractor(net, bounds=(low, bounds[1])).fit(X)
        assert extractor.transform(X).shape == X.shape
    with pytest.raises(ValueError, match="bounds exclude"):
        extractor.transform(X * dtype(1 + 1e-5))


def test_bounds_may_be_one_array(plane):
    X, net = plane
    pair = [[0.0, 0.1, 0.2], [0.9, 0.8, 0.7]]
    expected = BoundarySampleExtractor(net, bounds=pair).fit(X).transform(X)
    found = BoundarySampleExtractor(net, bounds=np.array(pair)).fit(X)
    np.testing.assert_array_equal(found.transform(X), expected)
    np.testing.assert_array_equal(found.bounds_, pair)
    numbers = BoundarySampleExtractor(net, bounds=np.array([0.0, 1.0])).fit(X)
    assert numbers.transform(X).shape == X.shape


@pytest.mark.parametrize("bounds", [(0, INF), (-INF, 1), (-INF, [INF, 1, INF])])
@pytest.mark.parametrize("method", ["minimal", "pm"])
def test_random_starts_in_half_open_boxes_are_finite(plane, method, bounds):
    X, net = plane
    extractor = extractor_of(net, method, bounds=bounds).fit(X)
    pairs = extractor.extract(10, init="random")
    assert np.isfinite(pairs.outer).all()
    assert_inside(pairs, *extractor.bounds_)


# ---------------------------------------------------------------------------- training samples


def test_noise_without_bounds_has_the_deviation_of_each_column():
    X = np.random.default_rng(0).normal([1, 2], [0.1, 5], (500, 2))
    training = TrainingSamples(X, np.zeros(500, int), np.ones(500, bool))
    noise = draw_noise(training, 4000, None, np.random.default_rng(1))
    np.testing.assert_allclose(noise.std(0), X.std(0), rtol=0.05)
    np.testing.assert_allclose(noise.mean(0), X.mean(0), atol=0.3)
    images = training._replace(X=X.reshape(500, 1, 2, 1))
    noise = draw_noise(images, 4000, None, np.random.default_rng(1))
    np.testing.assert_allclose(noise.std((0, 1, 3)), X.std(), rtol=0.05)


def test_noise_fills_the_box():
    X = np.zeros((5, 2))
    training = TrainingSamples(X, np.zeros(5, int), np.ones(5, bool))
    bounds = np.array([-2.0, 1.0]), np.array([4.0, 1.0])
    noise = draw_noise(training, 2000, bounds, np.random.default_rng(0))
    np.testing.assert_allclose(noise[:, 0].min(), -2, atol=0.05)
    np.testing.assert_allclose(noise[:, 0].max(), 4, atol=0.05)
    assert (noise[:, 1] == 1).all()
    bounds = np.array(-1e308), np.array(1e308)
    assert np.isfinite(draw_noise(training, 9, bounds, np.random.default_rng(0))).all()


@pytest.mark.parametrize(
    "bounds, expected",
    [
        (None, (1, 3)),
        ((0, INF), (0, 3)),
        ((-INF, INF), (1, 3)),
        ((9, INF), (9, 9)),  # data below the box
        ((-INF, -9), (-9, -9)),
        ((-1e300, 2), (1, 2)),  # beyond float32
    ],
)
def test_finite_bounds(bounds, expected):
    X = np.array([[1], [3]], dtype=np.float32)
    bounds = find_bounds(bounds, (1,))
    np.testing.assert_array_equal(np.ravel(finite_bounds(bounds, X)), expected)


def test_samples_outside_move_to_the_box_and_count_where_their_class_stays():
    X = np.array([[0.0], [1.0], [4.0]])
    training = TrainingSamples(X, np.array([0, 1, 1]), np.array([True, True, False]))
    labels = lambda X: (X[:, 0] > 0.5).astype(int)
    moved = within(training, (np.array(0.6), np.array(2.0)), labels)
    np.testing.assert_array_equal(moved.X, [[0.6], [1.0], [2.0]])
    np.testing.assert_array_equal(moved.usable, [False, True, False])
    assert within(training, (np.array(0.0), np.array(4.0)), labels) is training


def test_check_inside_allows_for_the_rounding_of_the_dtype():
    X = np.array([[0.5], [1.0 + 4e-7]])
    check_inside(X.astype(np.float32), np.array(0.0), np.array(1.0))
    with pytest.raises(ValueError, match="bounds exclude the value 1.0000004 of sample 1"):
        check_inside(X, np.array(0.0), np.array(1.0))
    check_inside(X, np.array(-INF), np.array(INF))


# ------------------------------------------------------------------- labels of dtype object


class Constant(ClassifierMixin, BaseEstimator):
    """Predicts the first class."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0], dtype=object)


def test_labels_of_dtype_object_are_named(plane):
    X = plane[0]
    y = np.array(["a", "b", "c"], dtype=object)[np.arange(60) % 3]
    extractor = BoundarySampleExtractor(Constant()).fit(X, y)
    with pytest.warns(UserWarning, match="predicts all training samples as 'a'"):
        extractor.transform(X)
    with pytest.raises(ValueError, match="source='c' is a class that no training"):
        extractor.extract(2, source="c")
    for method in ("minimal", "segment"):
        found = BoundarySampleExtractor(LogisticRegression(C=1e4), method=method).fit(X, y)
        assert set(found.extract_pairs(X).source) <= {"a", "b", "c"}
