import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.fft import dctn
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skboundary import FrozenNetwork, SubspaceMargins
from skboundary.boundary import _subspace_search
from skboundary.datasets import make_linear
from skboundary.utils.estimator_checks import estimator_checks_generator

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def as_torch(dtype):
    return torch.from_numpy(np.zeros(1, dtype)).dtype


class Affine(nn.Module):
    """A linear network on samples of any shape."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x):
        return x.flatten(1) @ self.weight.flatten(1).T + self.bias


def affine(shape, dtype, seed=0):
    """Two outputs and samples; also the margin of the first output, and its gradient."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    X = torch.randn(15, *shape, generator=generator, dtype=torch.float64).numpy()
    net = Affine(weight.to(dtype), torch.tensor([0.5, 0.0], dtype=dtype))
    w = (weight[0] - weight[1]).numpy()
    return net, X, X.reshape(15, -1) @ w.ravel() + 0.5, w


@DTYPES
@pytest.mark.parametrize(
    ("shape", "count", "window", "step"),
    [((1, 28, 28), 21, 8, 1), ((3, 32, 32), 13, 8, 2), ((12, 9), 7, 3, 1)],
)
def test_a_linear_network_has_the_closed_form_in_every_window(shape, count, window, step, dtype):
    net, X, lead, w = affine(shape, as_torch(dtype))
    margins = SubspaceMargins(net).fit(X)
    got = margins.transform(X.astype(dtype))
    assert got.shape == (15, count) and got.dtype == dtype
    coefficients = dctn(w.reshape(-1, *shape[-2:]), axes=(-2, -1), norm="ortho")
    tops = [
        round(i * step * (shape[-2] - window) / (min(shape[-2:]) - window)) for i in range(count)
    ]
    for i, first in enumerate(tops):
        part = coefficients[:, first : first + window, i * step : i * step + window]
        expected = 1.02 * np.abs(lead) / np.linalg.norm(part)
        np.testing.assert_allclose(got[:, i], expected, rtol=1e-3 if dtype == np.float32 else 1e-10)
    first, last = margins.get_feature_names_out()[[0, -1]]
    assert first == f"dct_0_{window - 1}"
    assert last == f"dct_{(count - 1) * step}_{min(shape[-2:]) - 1}"


@DTYPES
def test_principal_components_are_learned_in_fit(dtype):
    net, X, lead, w = affine((25,), as_torch(dtype))
    train = np.random.RandomState(0).randn(60, 25) * np.linspace(3, 1, 25)
    margins = SubspaceMargins(net).fit(train.astype(dtype))
    components = PCA().fit(train).components_
    names = margins.get_feature_names_out()
    assert len(names) == 10 and names[0] == "pca_0_6" and names[-1] == "pca_18_24"
    got = margins.transform(X.astype(dtype))
    for i in range(10):
        slope = np.linalg.norm(components[2 * i : 2 * i + 7] @ w)
        np.testing.assert_allclose(
            got[:, i], 1.02 * np.abs(lead) / slope, rtol=1e-4 if dtype == np.float32 else 1e-9
        )
    ten = SubspaceMargins(net, n_components=19).fit(train).get_feature_names_out()
    assert len(ten) == 10 and ten[0] == "pca_0_9" and ten[-1] == "pca_9_18"
    few = SubspaceMargins(net, n_components=6, window=3).fit(train)
    assert few.get_feature_names_out().tolist() == ["pca_0_2", "pca_3_5"]
    np.testing.assert_allclose(
        few.transform(X)[:, 1],
        1.02 * np.abs(lead) / np.linalg.norm(components[3:6] @ w),
        rtol=1e-4 if dtype == np.float32 else 1e-9,
    )


@pytest.fixture(scope="module")
def raw_columns():
    """Breast cancer as it comes, and the weights of a logistic regression on it."""
    X, y = load_breast_cancer(return_X_y=True)
    scaler = StandardScaler().fit(X)
    head = LogisticRegression().fit(scaler.transform(X), y)
    w = head.coef_[0] / scaler.scale_
    return X, w, head.intercept_[0] - scaler.mean_ @ w


@DTYPES
@pytest.mark.parametrize("unit", [1e-5, 1e-3, 1.0, 1e3, 1e5])
def test_margins_hold_in_any_unit_dtype_logit_scale_and_batch(raw_columns, unit, dtype):
    X, w, bias = raw_columns
    components = PCA(svd_solver="full").fit(X).components_
    windows = [components[i : i + 2] for i in range(0, 30, 4)]
    samples = X[::48]
    expected = np.stack([np.abs(samples @ w + bias) / np.linalg.norm(S @ w) for S in windows], 1)
    for scale, batch_size in ((1.0, "auto"), (1e3, 17), (1e5, 1)):
        weight = torch.tensor(np.stack([0 * w, w]) * scale / unit).to(as_torch(dtype))
        net = Affine(weight, torch.tensor([0, bias * scale], dtype=weight.dtype))
        margins = SubspaceMargins(net, window=2, step=4, batch_size=batch_size).fit(X * unit)
        spectrum = margins.spectrum((samples * unit).astype(dtype))
        assert spectrum.flipped.all() and spectrum.margins.dtype == dtype
        rtol = 1e-3 if dtype == np.float32 else 1e-6
        np.testing.assert_allclose(spectrum.margins / unit, 1.02 * expected, rtol=rtol)


@DTYPES
@pytest.mark.parametrize("unit", [1e-5, 1.0, 1e5])
def test_labels_alone_hold_in_any_unit_dtype_logit_scale_and_batch(unit, dtype):
    net, X, lead, w = affine((5,), torch.float64)
    subspaces = [np.eye(5)[:2], np.eye(5)[2:]]
    expected = 1.02 * np.abs(lead[:, None]) / [np.linalg.norm(w[:2]), np.linalg.norm(w[2:])]
    scaled = Affine(
        (net.weight.detach() * 1e5 / unit).to(as_torch(dtype)),
        (net.bias.detach() * 1e5).to(as_torch(dtype)),
    )
    margins = SubspaceMargins(
        scaled, method="label", subspaces=subspaces, max_iter=12, batch_size=8, random_state=0
    ).fit(X * unit)
    spectrum = margins.spectrum((X * unit).astype(dtype))
    assert spectrum.flipped.all()
    ratio = spectrum.margins / unit / expected
    assert ratio.min() > 0.99 and np.median(ratio) < 1.01 and ratio.max() < 1.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("subspaces", ["pca", "random", None])
def test_half_precision_networks_are_searched_in_float32(dtype, subspaces):
    net, X, _lead, _w = affine((6,), torch.float32)
    expected = SubspaceMargins(net, subspaces=subspaces, random_state=0).fit(X).transform(X)
    half = Affine(net.weight.detach().to(dtype), net.bias.detach().to(dtype))
    got = SubspaceMargins(half, subspaces=subspaces, random_state=0).fit(X).transform(X)
    assert got.dtype == np.float32
    clear = expected.min(1) > 0.5  # so that the rounding of the logits is small beside them
    assert clear.sum() > 5
    rtol = 16 * torch.finfo(dtype).eps
    np.testing.assert_allclose(got[clear], expected[clear], rtol=rtol)
    # on the boundary the logits are equal: only a step above their rounding leaves it
    bare = SubspaceMargins(half, subspaces=subspaces, overshoot=0.0, random_state=0).fit(X)
    assert bare.spectrum(X).flipped.all()


class NoEmptyBatch(nn.Linear):
    def forward(self, x):
        assert len(x) > 0
        return super().forward(x.view(x.size(0), -1))


@pytest.mark.parametrize("method", ["gradient", "label"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_margins_in_any_gradient_mode_and_without_empty_batches(iris, mode, method):
    X = iris[0][::30]
    with mode():
        net = NoEmptyBatch(4, 3)
        params = {"subspaces": None, "method": method, "max_iter": 5, "random_state": 0}
        got = SubspaceMargins(net, **params).fit(iris[0]).transform(X)
    again = SubspaceMargins(net, **params).fit(iris[0]).transform(X)
    np.testing.assert_array_equal(got, again)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_labels_are_queried_batch_by_batch(iris, mlp, batch_size, monkeypatch):
    sizes, search = [], _subspace_search.label_search

    def counted(label, x, *args, **params):
        sizes.append(len(x))
        return search(label, x, *args, **params)

    monkeypatch.setattr(_subspace_search, "label_search", counted)
    params = {"subspaces": None, "method": "label", "max_iter": 3, "random_state": 0}
    whole = SubspaceMargins(mlp, **params).fit(iris[0]).transform(iris[0][::15])
    assert sizes == [10]
    small = SubspaceMargins(mlp, batch_size=batch_size, **params).fit(iris[0])
    np.testing.assert_allclose(small.transform(iris[0][::15]), whole, rtol=1e-6)
    assert max(sizes[1:]) == batch_size and sum(sizes[1:]) == 10


@DTYPES
def test_the_whole_space_is_the_nearest_boundary_point(dtype):
    problem = make_linear(40, 6, random_state=0)
    linear = nn.Linear(6, 2).to(as_torch(dtype))
    with torch.no_grad():
        weight = torch.from_numpy(problem.weights)
        linear.weight.copy_(torch.stack([-weight, weight]) / 2)
        linear.bias.copy_(torch.tensor([-problem.bias, problem.bias]) / 2)
    X = problem.data.astype(dtype)
    margins = SubspaceMargins(linear, subspaces=None, overshoot=0.1).fit(X)
    nearest = np.linalg.norm(problem.data - problem.nearest(problem.data), axis=1)
    np.testing.assert_allclose(margins.transform(X)[:, 0] / 1.1, nearest, rtol=1e-3)
    assert margins.get_feature_names_out() == ["whole_space"]
    bare = margins.set_params(overshoot=0.0).fit(X).transform(X)[:, 0]
    np.testing.assert_allclose(bare, nearest, atol=1e-3)


@pytest.mark.parametrize(
    ("censored", "expected"), [("keep", np.inf), ("inf", np.inf), ("nan", np.nan)]
)
def test_margins_without_a_boundary_are_censored(censored, expected):
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]))
        net.bias.zero_()
    X = np.ones((3, 4), np.float32)
    axes = np.eye(4)[:, None]
    margins = SubspaceMargins(net, subspaces=axes, censored=censored).fit(X)
    got = margins.transform(X)
    np.testing.assert_allclose(got[:, :2], 2.04, rtol=1e-5)
    np.testing.assert_array_equal(got[:, 2:], np.full((3, 2), expected))
    spectrum = margins.spectrum(X, quantiles=(0.1, 0.9))
    np.testing.assert_array_equal(spectrum.censored, [0, 0, 1, 1])
    np.testing.assert_array_equal(spectrum.flipped, [[True, True, False, False]] * 3)
    np.testing.assert_array_equal(spectrum.median[2:], [expected] * 2)
    assert spectrum.quantiles.shape == (2, 4)
    assert spectrum.names.tolist() == [f"subspace_{i}" for i in range(4)]


def test_a_stopped_search_keeps_the_distance_walked(cnn, digits):
    X = digits[0][300:320]
    cut = SubspaceMargins(cnn, max_iter=1).fit(X)
    found = cut.spectrum(X)
    assert 0 < found.censored.mean() < 1
    assert np.isfinite(found.margins).all() and (found.margins > 0).all()
    replaced = cut.set_params(censored="nan").transform(X)
    np.testing.assert_array_equal(np.isnan(replaced), ~found.flipped)
    np.testing.assert_array_equal(replaced[found.flipped], found.margins[found.flipped])


def test_spectrum_has_the_quantiles_of_the_margins(cnn, digits):
    X = digits[0][300:321]
    margins = SubspaceMargins(cnn, window=4, step=2).fit(X)
    spectrum = margins.spectrum(X)
    np.testing.assert_allclose(spectrum.margins, margins.transform(X))
    np.testing.assert_allclose(spectrum.median, np.median(spectrum.margins, axis=0), rtol=1e-6)
    expected = np.quantile(spectrum.margins, [0.05, 0.25, 0.75, 0.95], axis=0)
    np.testing.assert_allclose(spectrum.quantiles, expected, rtol=1e-6)
    assert spectrum.names.tolist() == ["dct_0_3", "dct_2_5", "dct_4_7"]


def test_infinite_margins_count_in_quantiles_and_nan_do_not():
    from skboundary.boundary._subspace_margins import _quantiles

    column = np.array([[1.0], [np.inf], [2.0], [np.inf], [3.0]])
    expected = [[1], [3], [np.inf], [np.inf]]
    np.testing.assert_array_equal(_quantiles(column, [0, 0.5, 0.6, 0.9]), expected)
    column[np.isinf(column)] = np.nan
    np.testing.assert_array_equal(_quantiles(column, [0, 0.5, 1]), [[1], [2], [3]])
    assert np.isnan(_quantiles(np.full((3, 1), np.nan), [0.5])).all()


def test_random_directions_follow_the_seed(mlp, iris):
    X = iris[0][::10]

    def run(seed, **params):
        margins = SubspaceMargins(mlp, subspaces="random", random_state=seed, **params).fit(X)
        return margins.transform(X)

    np.testing.assert_array_equal(run(0), run(0))
    assert np.abs(run(0) - run(1)).max() > 0.1
    assert run(0).shape == (15, 4) and run(0, n_components=3, window=2, step=1).shape == (15, 2)


@pytest.mark.parametrize("kind", ["dct", "pca", "random"])
def test_images_take_every_kind_and_any_batch(cnn, digits, kind):
    X = digits[0][300:330]
    whole = SubspaceMargins(cnn, subspaces=kind, random_state=0).fit(X).transform(X)
    small = SubspaceMargins(cnn, subspaces=kind, random_state=0, batch_size=7).fit(X).transform(X)
    np.testing.assert_allclose(small, whole, rtol=1e-3)
    some = SubspaceMargins(cnn, subspaces=kind, random_state=0).fit(X).transform(X[4:6])
    np.testing.assert_allclose(some, whole[4:6], rtol=1e-3)


def test_batches_that_run_out_of_memory_become_smaller(digits):
    class Limited(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.largest = affine((1, 8, 8), torch.float32)[0], 10**9

        def forward(self, x):
            if len(x) > self.largest:
                raise MemoryError
            return self.net(x)

    X, net = digits[0][300:310], Limited()
    margins = SubspaceMargins(net, window=4, step=2).fit(X)
    expected = margins.transform(X)
    net.largest = 4
    np.testing.assert_allclose(margins.transform(X), expected, rtol=1e-5)


def test_own_checks_on_images(cnn, digits):
    X, y = digits
    for estimator, check in estimator_checks_generator(
        SubspaceMargins(cnn, window=4, step=2), data=(X[300:312], y[300:312])
    ):
        check(estimator)


def test_integer_images_are_cast_batch_by_batch(digits):
    X = (digits[0][:20] * 255).astype(np.uint8)
    net = FrozenNetwork(affine((1, 8, 8), torch.float32)[0], preprocess=lambda x: x / 255)
    got = SubspaceMargins(net).fit(X).transform(X)
    np.testing.assert_allclose(got, SubspaceMargins(net).fit(X).transform(X.astype(np.float32)))


@pytest.mark.parametrize("container", [pd.DataFrame, sparse.csr_matrix])
def test_margins_of_a_lifted_pipeline_in_any_container(iris, container):
    X, y = iris
    converged = LogisticRegression(solver="newton-cg", tol=1e-10, max_iter=5000)
    head = make_pipeline(StandardScaler(with_mean=False), converged)
    held = pd.DataFrame(X, columns=list("abcd")) if container is pd.DataFrame else container(X)
    got = SubspaceMargins(head).fit(held, y).transform(held[:20])
    expected = SubspaceMargins(head).fit(X, y).transform(X[:20])
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_margins_are_features_of_a_pipeline(iris):
    X, y = iris
    margins = SubspaceMargins(LogisticRegression(max_iter=500), max_iter=10)
    chain = make_pipeline(margins, DecisionTreeClassifier(random_state=0))
    grid = {"subspacemargins__subspaces": ["pca", None]}
    search = GridSearchCV(chain, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 0.4
    margins.set_output(transform="pandas")
    frame = margins.fit(X, y).transform(X)
    assert list(frame.columns) == ["pca_0", "pca_1", "pca_2", "pca_3"]


def test_labels_alone_give_the_margins_of_a_linear_model(iris):
    X, y = iris
    head = LogisticRegression(max_iter=500).fit(X, y)
    params = {"subspaces": "pca", "window": 2, "random_state": 0}
    exact = SubspaceMargins(FrozenEstimator(head), **params).fit(X).transform(X[::10])
    asked = SubspaceMargins(FrozenEstimator(head), method="label", max_iter=40, **params).fit(X)
    spectrum = asked.spectrum(X[::10])
    assert not spectrum.censored.any()
    # the search by labels can only end farther away, but for its own tolerance
    ratio = spectrum.margins / exact
    assert ratio.min() > 0.99 and np.median(ratio) < 1.01 and ratio.max() < 1.1


def test_queries_are_proportional_to_max_iter(iris):
    """At most 20 samples for each step, beside the sample itself; and they are spent."""
    asked = []

    class Counted(DecisionTreeClassifier):
        def predict(self, X):
            asked.append(len(X))
            return super().predict(X)

    X, y = iris
    tree = FrozenEstimator(Counted(random_state=0).fit(X, y))
    spent = []
    for max_iter in (2, 4, 8):
        margins = SubspaceMargins(
            tree, subspaces=None, method="label", max_iter=max_iter, random_state=0
        ).fit(X)
        asked.clear()
        margins.spectrum(X[::30])
        spent.append(sum(asked) / len(X[::30]) - 1)
        assert spent[-1] <= 20 * max_iter
    assert (np.array(spent) > 0.5 * 20 * np.array([2, 4, 8])).all(), spent


@pytest.mark.parametrize("subspaces", ["random", None, [[[1.0, 1, 0, 0]], np.eye(4)[1:3]]])
def test_labels_of_a_forest_in_subspaces(iris, subspaces):
    X, y = iris
    forest = RandomForestClassifier(2, random_state=0).fit(X, y)
    margins = SubspaceMargins(
        FrozenEstimator(forest), subspaces=subspaces, method="label", max_iter=5, random_state=0
    ).fit(X)
    spectrum = margins.spectrum(X[::25])
    np.testing.assert_array_equal(np.isfinite(spectrum.margins), spectrum.flipped)
    assert spectrum.flipped.any() and (spectrum.margins[spectrum.flipped] > 0).all()
    np.testing.assert_array_equal(margins.transform(X[50:51]), spectrum.margins[2:3])
    nan = margins.set_params(censored="nan").transform(X[::25])
    np.testing.assert_array_equal(np.isnan(nan), ~spectrum.flipped)


def test_a_stump_is_met_along_its_own_axis_only():
    X = np.random.RandomState(0).uniform(-1, 1, (60, 3))
    stump = DecisionTreeClassifier(max_depth=1).fit(X, (X[:, 1] > 0.2).astype(int))
    threshold = stump.tree_.threshold[0]
    margins = SubspaceMargins(
        FrozenEstimator(stump),
        subspaces=np.eye(3)[:, None],
        method="label",
        overshoot=0.0,
        max_iter=10,
    ).fit(X)
    spectrum = margins.spectrum(X[:10])
    np.testing.assert_array_equal(spectrum.censored, [1, 0, 1])
    expected = np.abs(X[:10, 1] - threshold)
    np.testing.assert_allclose(spectrum.margins[:, 1], expected, rtol=5e-3)


def test_labels_of_a_pipeline_that_selects_columns_by_name(iris):
    from sklearn.compose import make_column_transformer

    X, y = pd.DataFrame(iris[0], columns=list("abcd")), iris[1]
    chosen = make_column_transformer((StandardScaler(), ["c", "d"]))
    head = make_pipeline(chosen, DecisionTreeClassifier(random_state=0))
    margins = SubspaceMargins(head, subspaces=np.eye(4)[1:3, None], method="label", max_iter=4).fit(
        X, y
    )
    censored = margins.spectrum(X[::30]).censored
    assert censored[0] == 1 and censored[1] < 1


def test_a_black_box_is_refused_by_the_gradient_method(iris):
    forest = RandomForestClassifier(5, random_state=0)
    with pytest.raises(TypeError, match="RandomForestClassifier has no gradient.*'label'"):
        SubspaceMargins(forest).fit(*iris)
    with pytest.raises(TypeError, match="method='label'"):
        SubspaceMargins(FrozenEstimator(forest.fit(*iris))).fit(iris[0])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"subspaces": "dct"}, r"images whose last two axes.*\(4,\)"),
        ({"window": 5}, "window=5 is too large for 4 components: 4 at most"),
        ({"n_components": 9}, "n_components=9 is too large.*4 at most"),
        ({"subspaces": None, "step": 2}, "step=2 has no effect on subspaces=None"),
        ({"subspaces": [np.eye(4)], "n_components": 2}, "n_components=2 has no effect on.*given"),
        ({"subspaces": [np.eye(3)]}, r"subspaces\[0\] has shape \(3, 3\); give.*4 features"),
        ({"subspaces": [np.ones((2, 4))]}, "2 vectors of subspace 0 span 1"),
        ({"subspaces": []}, "subspaces holds no basis"),
    ],
)
def test_subspaces_that_do_not_match_the_samples(mlp, iris, params, message):
    with pytest.raises(ValueError, match=message):
        SubspaceMargins(mlp, **params).fit(iris[0])


def test_other_bad_input(mlp, cnn, iris, digits):
    with pytest.raises(ValueError, match="window=9 is too large for images of 8 x 8"):
        SubspaceMargins(cnn, window=9).fit(digits[0])
    with pytest.raises(ValueError, match="n_components=2 has no effect on subspaces='dct'"):
        SubspaceMargins(cnn, n_components=2).fit(digits[0])
    with pytest.raises(ValueError, match="n_samples=1: subspaces='pca' needs at least 2"):
        SubspaceMargins(mlp).fit(iris[0][:1])
    with pytest.raises(ValueError, match="requires y"):
        SubspaceMargins(LogisticRegression()).fit(iris[0])


@pytest.mark.parametrize(
    "params", [{"max_iter": -3}, {"overshoot": np.nan}, {"overshoot": np.inf}, {"censored": "no"}]
)
def test_parameters_are_validated_where_they_act(mlp, iris, params):
    margins = SubspaceMargins(mlp).fit(iris[0]).set_params(**params)
    for method in (margins.transform, margins.spectrum):
        with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
            method(iris[0])


@pytest.mark.parametrize("quantiles", [[-0.5], [1.5], [0.5, np.nan]])
def test_quantiles_lie_between_zero_and_one(mlp, iris, quantiles):
    margins = SubspaceMargins(mlp).fit(iris[0])
    with pytest.raises(ValueError, match=r"quantiles=.*give numbers in \[0, 1\]"):
        margins.spectrum(iris[0][:3], quantiles=quantiles)
    assert margins.spectrum(iris[0][:3], quantiles=[]).quantiles.shape == (0, 4)


def test_a_method_that_is_changed_after_fit(mlp, iris):
    X = iris[0]
    params = {"subspaces": None, "random_state": 0, "max_iter": 5}
    margins = SubspaceMargins(mlp, **params).fit(X)
    gradient = margins.transform(X[:5])
    margins.set_params(method="label")
    with pytest.raises(
        ValueError, match="method='label' starts from the training samples.*fit again"
    ):
        margins.transform(X)
    label = margins.fit(X).transform(X[:5])
    assert (label != gradient).any()
    np.testing.assert_array_equal(margins.set_params(method="gradient").transform(X[:5]), gradient)
    forest = SubspaceMargins(
        RandomForestClassifier(2, random_state=0), method="label", **params
    ).fit(*iris)
    with pytest.raises(TypeError, match="has no gradient"):
        forest.set_params(method="gradient").transform(X)
