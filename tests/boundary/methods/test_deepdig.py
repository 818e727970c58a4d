"""Method "deepdig" and the baselines of its paper, RPBS and EPBS."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary.methods import _deepdig
from skboundary.boundary.methods._deepdig import carry_over
from skboundary.boundary.methods._registry import METHODS
from skboundary.functional.deepdig import autoencoder


@pytest.fixture(scope="module")
def images(digits):
    """Digits 0, 1 and 2, and their predictions by a network with a wide last layer."""
    X, y = digits
    few = y < 3
    return X[few], y[few]


@pytest.fixture(scope="module")
def net(images):
    X, y = images
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        for _ in range(80):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(y))
            loss.backward()
            optimizer.step()
    return FrozenNetwork(module, classes=["nought", "one", "two"])


@pytest.fixture(scope="module")
def fitted(net, images):
    X, y = images
    return BoundarySampleExtractor(net, method="deepdig", effort="fast", random_state=0).fit(
        X, net.classes_[y]
    )


@pytest.fixture(scope="module")
def pairs(fitted):
    return fitted.extract(60)


def test_pairs_lie_on_both_sides_of_the_boundary(pairs, net):
    assert set(zip(pairs.source, pairs.target)) == {
        (s, t) for s in net.classes_ for t in net.classes_ if s != t
    }
    assert pairs.success.mean() > 0.9 and set(pairs.status) <= {"ok", "third_class", "not_found"}
    ok = pairs.success
    assert (net.predict(pairs.inner)[ok] == pairs.source[ok]).all()
    assert (net.predict(pairs.outer)[ok] == pairs.target[ok]).all()
    assert (pairs.margin_inner[ok] >= 0.9e-3).all() and (pairs.margin_outer[ok] <= -0.9e-3).all()
    assert (np.abs(pairs.margin_inner[ok]) < 2.1e-3).all()
    p = net.predict_proba(pairs.midpoint)
    s, t = (np.searchsorted(net.classes_, c) for c in (pairs.source, pairs.target))
    every = np.arange(len(p))
    assert np.abs(p[every, s] - p[every, t])[ok].max() < 1e-4
    assert pairs.inner.shape == (60, 1, 8, 8) and pairs.inner.dtype == np.float32
    assert pairs.inner.min() >= 0 and pairs.inner.max() <= 1


def test_a_class_pair_has_the_same_generators_whatever_other_pairs_there_are(fitted, images):
    X, y = images
    ones, others = X[y == 1][:6], X[y == 0][:6]
    together = fitted.extract(12, target="two", init=np.concatenate([ones, others]))
    alone = fitted.extract(6, target="two", init=ones)
    np.testing.assert_array_equal(alone.status, together.status[:6])
    np.testing.assert_allclose(alone.midpoint, together.midpoint[:6], atol=5e-3)


def test_success_rates_and_adversarial_samples(fitted, images):
    """Over to the target and back, on the training samples that are predicted rightly."""
    training = fitted._classifier.training
    index = training.of_class(1)[:20]
    with fitted._classifier.open() as oracle:
        x = training.take(index).float()
        source = torch.ones(len(x), dtype=torch.long)
        effort = METHODS["deepdig"].efforts["fast"]
        found = carry_over(oracle, training, x, source, 0 * source, effort, None, 0)
        assert (oracle.labels(found.over[found.success]) == 0).all()
        assert (oracle.labels(found.back[found.success]) == 1).all()
    assert list(found.yields) == [(1, 0)] and min(found.yields[1, 0]) > 0.9
    # what comes back resembles what went over more than that resembles the sample
    there, back = found.over - x, found.back - found.over
    assert back.flatten(1).norm(dim=1).mean() < there.flatten(1).norm(dim=1).mean()


def test_transform_keeps_the_order_and_goes_to_the_runner_up(fitted, net, images):
    X = images[0][:12]
    border = fitted.transform(X)
    predicted = net.predict(X)
    score = net.decision_function(X)
    score[np.arange(12), score.argmax(1)] = -np.inf
    moved = ~(border == X).reshape(12, -1).all(1)
    assert moved.mean() > 0.8
    np.testing.assert_array_equal(net.predict(border)[moved], net.classes_[score.argmax(1)][moved])
    assert (net.predict(border)[~moved] == predicted[~moved]).all()


class Constant(nn.Module):
    """A generator that gives the same sample whatever comes in."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.sigmoid(self.value) + 0 * x


def test_a_generator_that_crosses_nothing_is_reported(net, images):
    asked = []

    def make(shape):
        asked.append(shape)
        return Constant()

    extractor = BoundarySampleExtractor(
        net, method="deepdig", effort="fast", generator=make, random_state=0
    ).fit(*images[:1])
    pairs = extractor.extract(3, source="one", target="two")
    assert set(asked) == {(1, 8, 8)}
    # gray all over belongs to one class: never both over and back
    assert not pairs.success.any() and (pairs.status == "not_found").all()
    assert np.isnan(pairs.distance).all()


def test_samples_in_any_units(images):
    """Columns of iris in millimeters: generators work on the range of each column."""
    X, y = load_iris(return_X_y=True)
    extractor = BoundarySampleExtractor(
        method="deepdig",
        effort="fast",
        random_state=0,
        generator=lambda shape: autoencoder(shape),
    ).fit(10 * X, y)
    pairs = extractor.extract(20, source=1, target=2)
    assert pairs.success.mean() > 0.8
    assert (pairs.outer >= 10 * X.min(0) - 1e-9).all()
    assert (pairs.outer <= 10 * X.max(0) + 1e-9).all()


def test_a_black_box_is_refused_by_name():
    X, y = load_iris(return_X_y=True)
    forest = FrozenEstimator(RandomForestClassifier(5, random_state=0).fit(X, y))
    with pytest.raises(ValueError, match=r"'deepdig' needs gradients.*segment"):
        BoundarySampleExtractor(forest, method="deepdig").fit(X, y)


@pytest.mark.parametrize("init", ["nearest", "random"])
def test_baselines_pair_each_sample_by_itself(init):
    """EPBS: the nearest sample of the target in the latent space, of each sample. RPBS: any."""
    X, y = load_iris(return_X_y=True)
    model = FrozenEstimator(LogisticRegression(max_iter=500).fit(X, y))
    extractor = BoundarySampleExtractor(model, method="segment", random_state=0).fit(X, y)
    pairs = extractor.extract(30, source=1, target=2, init=init)
    assert pairs.success.mean() > 0.9
    right = model.predict(X) == y
    a, others = X[right & (y == 1)], X[right & (y == 2)]  # the latent space of a linear model is X
    b = others[np.linalg.norm(a[:, None] - others, axis=2).argmin(1)]
    assert len(np.unique(b, axis=0)) > 3  # the slip of the authors' code pairs all with one
    hits = []
    for m in ((pairs.inner + pairs.outer) / 2)[pairs.success]:
        # on which of the segments is it?
        t = ((m - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1)
        hits.append(np.linalg.norm(a + t[:, None] * (b - a) - m, axis=1).min() < 1e-6)
    assert np.all(hits) if init == "nearest" else not np.all(hits)


@pytest.mark.parametrize(
    "effort, expected", [("fast", (500, 2)), ("balanced", (5000, 4)), ("thorough", (5000, None))]
)
def test_effort_sets_the_steps(monkeypatch, net, images, effort, expected):
    """And how soon the training ends: "thorough" trains the paper's 5000 steps in any case."""
    asked = []
    monkeypatch.setattr(
        _deepdig,
        "train_autoencoders",
        lambda *args, max_iter, patience, **kwargs: asked.append((max_iter, patience)),
    )
    extractor = BoundarySampleExtractor(net, method="deepdig", effort=effort).fit(images[0])
    extractor.extract(1, source="one", target="two")
    assert set(asked) == {expected}


@pytest.mark.parametrize(
    "dtype, unit, scale",
    [
        (np.float32, 1e-5, 1e3),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (np.float32, 1e5, 1e3),
                (np.float64, 1e-5, 1e3),
                (np.float64, 1e5, 1e3),
                (np.float32, 1.0, 1.0),
                (np.float32, 1.0, 1e5),
                (np.float64, 1.0, 1.0),
                (np.float64, 1.0, 1e5),
                (np.float16, 1.0, 1.0),
            ]
        ),
    ],
)
def test_any_unit_scale_and_mode(dtype, unit, scale):
    """Logits up to 1e5 times as large, under `no_grad`, in every dtype."""
    X, y = load_iris(return_X_y=True)
    X, y = X[50:], y[50:] - 1
    wide = np.promote_types(dtype, np.float32)
    model = LogisticRegression(max_iter=500).fit(X, y)
    module = nn.Linear(4, 2).to(getattr(torch, np.dtype(dtype).name))
    with torch.no_grad():
        w = torch.from_numpy(model.coef_ / unit * scale)
        b = torch.from_numpy(model.intercept_ * scale)
        module.weight.copy_(torch.cat([-w, w]) / 2)
        module.bias.copy_(torch.cat([-b, b]) / 2)
        extractor = BoundarySampleExtractor(
            FrozenNetwork(module), method="deepdig", effort="fast", random_state=0
        ).fit((X * unit).astype(wide), y)
        pairs = extractor.extract(10, source=0, target=1)
    assert pairs.success.mean() > 0.9 and pairs.outer.dtype == wide
