"""Distances from both sides: exact for linear models, below every distance for networks."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.exceptions import BoundaryNotFoundWarning, NoLowerBoundWarning
from tests.conftest import train


def linear_distances(model, X):
    """Of each sample to the hyperplane of the nearest other class."""
    scores, coef = X @ model.coef_.T + model.intercept_, model.coef_
    own = scores.argmax(1)
    every = np.arange(len(X))
    gap = scores[every, own][:, None] - scores
    norm = np.linalg.norm(coef[own][:, None] - coef[None], axis=2)
    return np.divide(gap, norm, out=np.full(gap.shape, np.inf), where=norm > 0).min(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_linear_models_have_exact_lower_bounds(iris, dtype, unit):
    X, y = (unit * iris[0]).astype(dtype), iris[1]
    model = LogisticRegression(C=1 / unit**2, max_iter=500)
    extractor = BoundarySampleExtractor(model, returns="interval", bounds=None, margin_tol=1e-4)
    found = extractor.fit(X, y).transform(X)
    assert found.shape == (150, 2) and found.dtype == dtype
    exact = linear_distances(extractor.estimator_, X.astype(float))
    np.testing.assert_allclose(found[:, 0], exact, rtol=1e-3 if dtype == np.float32 else 1e-9)
    assert (found[:, 0] <= found[:, 1]).all()
    assert np.quantile(found[:, 1] / exact, 0.9) < 1.05
    names = extractor.get_feature_names_out()
    assert names.tolist() == ["lower_distance", "upper_distance"]
    upper = extractor.set_params(returns="distance").transform(X)[:, 0]
    np.testing.assert_array_equal(found[:, 1], upper)


def test_a_box_may_only_widen_the_interval(iris):
    X, y = iris
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500), returns="interval", bounds=None
    ).fit(X, y)
    free = extractor.transform(X)
    low, high = X.min(0), X.max(0)
    low[2] = high[2] = 4.0  # keeps the third column
    fixed = X.copy()
    fixed[:, 2] = 4.0
    free = extractor.transform(fixed)
    boxed = extractor.set_params(bounds=(low, high)).transform(fixed)
    np.testing.assert_array_equal(boxed[:, 0], free[:, 0])
    found = ~np.isnan(boxed[:, 1])
    assert found.sum() > 100 and (boxed[found, 1] > free[found, 1] * 0.999).all()
    assert (boxed[found, 1] > 1.01 * free[found, 1]).any()


@pytest.mark.parametrize("target", ["runner_up", 1])
def test_lower_bounds_to_a_class(iris, target):
    X, y = iris
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500), returns="interval", target=target, bounds=None
    ).fit(X, y)
    own = extractor.estimator_.predict(X)
    if target == 1:
        with pytest.warns(BoundaryNotFoundWarning, match="already_target"):
            found = extractor.transform(X)
        assert np.isnan(found[own == 1]).all()
        found = found[own != 1]
    else:
        found = extractor.transform(X)
    assert (found[:, 0] > 0).all() and (found[:, 0] <= found[:, 1]).all()
    nearest = extractor.set_params(target="nearest").transform(X)
    nearest = nearest[own != 1] if target == 1 else nearest
    assert (found[:, 0] >= nearest[:, 0]).all()


def test_reasons_for_no_lower_bound(iris):
    X, y = iris
    forest = BoundarySampleExtractor(
        RandomForestClassifier(5, random_state=0), returns="interval", effort="fast", random_state=0
    ).fit(X, y)
    with pytest.warns(NoLowerBoundWarning, match="RandomForestClassifier is not a chain of linear"):
        found = forest.transform(X[:10])
    assert np.isnan(found[:, 0]).all() and (found[:, 1] > 0).all()
    tanh = BoundarySampleExtractor(
        nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(), returns="interval"
    ).fit(X)
    with pytest.warns(NoLowerBoundWarning, match="a layer Tanh is neither linear nor ReLU"):
        tanh.transform(X[:2])


def test_lower_bounds_where_no_point_is_found(iris):
    """A class that no sample reaches inside the box."""
    X = iris[0]
    net = FrozenNetwork(nn.Linear(4, 2).double())
    with torch.no_grad():
        net.module.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0.0, 0, 0, 0]]))
        net.module.bias.copy_(torch.tensor([0.0, 1.0]))
    extractor = BoundarySampleExtractor(net, returns="interval").fit(X)  # all are above 1
    with pytest.warns(BoundaryNotFoundWarning):
        found = extractor.transform(X)
    np.testing.assert_allclose(found[:, 0], X[:, 0] - 1)
    assert np.isnan(found[:, 1]).all()


def test_other_norms_are_refused(iris):
    extractor = BoundarySampleExtractor(LogisticRegression(), returns="interval", norm=1)
    with pytest.raises(ValueError, match="lower bounds in the norm 2 only, not norm=1"):
        extractor.fit(*iris)
    extractor = BoundarySampleExtractor(LogisticRegression(max_iter=500), norm=np.inf).fit(*iris)
    with pytest.raises(ValueError, match="not norm=inf: use norm=2, or returns='distance'"):
        extractor.set_params(returns="interval").transform(iris[0])


def test_bounds_do_not_depend_on_the_batch_and_suit_frames(iris):
    pd = pytest.importorskip("pandas")
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    extractor = BoundarySampleExtractor(returns="interval", random_state=0).set_output(
        transform="pandas"
    )
    whole = extractor.fit(frame, y).transform(frame)
    assert list(whole.columns) == ["lower_distance", "upper_distance"]
    parts = extractor.set_params(batch_size=7).fit(frame, y).transform(frame)
    np.testing.assert_allclose(parts.lower_distance, whole.lower_distance, rtol=1e-6)


def test_images_of_a_network(digits):
    X, y = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10)
        )
        train(module, X[:300], y[:300], steps=40, lr=0.02)
    extractor = BoundarySampleExtractor(FrozenNetwork(module), returns="interval", bounds=None)
    found = extractor.fit(X[:300]).transform(X[300:340])
    assert found.dtype == np.float32 and (found[:, 0] > 0).all()
    assert (found[:, 0] <= found[:, 1]).all()
    assert np.median(found[:, 0] / found[:, 1]) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["default", "mlp"])
def test_no_violation_in_ten_thousand_samples(kind):
    """Samples of two networks, and the nearest points that the most thorough search finds."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(6, 8))
    y = rng.integers(6, size=5000)
    X = centers[y] + 0.7 * rng.normal(size=(5000, 8))
    mlp = make_pipeline(StandardScaler(), MLPClassifier((32, 32), max_iter=60, random_state=0))
    extractor = BoundarySampleExtractor(
        None if kind == "default" else mlp,
        returns="interval",
        effort="thorough",
        bounds=None,
        random_state=0,
    ).fit(X, y)
    found = extractor.transform(X)
    assert np.isfinite(found).all() and (found[:, 0] > 0).all()
    assert (found[:, 0] <= found[:, 1]).all()
    assert np.median(found[:, 0] / found[:, 1]) > 0.7
