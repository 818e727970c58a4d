"""BoundarySampleExtractor: truth, faces, statuses, and an answer to every bad input."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary._ends import Ends
from skboundary.boundary._response import count_nan_gradients
from skboundary.boundary.methods._registry import METHODS
from skboundary.datasets import make_linear
from skboundary.exceptions import BoundaryNotFoundWarning, ScoreMismatchWarning


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.fixture(scope="module")
def logistic(iris):
    return LogisticRegression(max_iter=500).fit(*iris)


@pytest.fixture
def frozen(logistic):
    return FrozenEstimator(logistic)


class Labels(ClassifierMixin, BaseEstimator):
    """A classifier that gives labels and nothing else."""

    def fit(self, X, y):
        self.inner_ = LogisticRegression(max_iter=500).fit(X, y)
        self.classes_ = self.inner_.classes_
        return self

    def predict(self, X):
        return self.inner_.predict(X)


# ------------------------------------------------------------------------- method "segment"


def test_segment_goes_to_the_nearest_sample_of_another_class(iris, frozen):
    X, y = iris
    extractor = BoundarySampleExtractor(frozen, method="segment").fit(X, y)
    predicted = frozen.predict(X)
    outer, usable = extractor.transform(X), predicted == y
    for i in range(0, len(X), 7):
        others = X[usable & (predicted != predicted[i])]
        # X is the latent space of a linear model
        step = others[np.linalg.norm(others - X[i], axis=1).argmin()] - X[i]
        share = (outer[i] - X[i]) @ step / (step @ step)
        np.testing.assert_allclose(outer[i], X[i] + share * step, atol=1e-9)
        assert 0 < share <= 1
        p = frozen.predict_proba(X[i] + np.linspace(0, share, 50)[:-1, None] * step)
        assert (frozen.classes_[p.argmax(1)] == predicted[i]).all()
        p = np.sort(np.log(frozen.predict_proba(outer[[i]])[0]))
        assert 1e-3 - 1e-9 < p[-1] - p[-2] < 2e-3 + 1e-9


@pytest.mark.parametrize("estimator", [LogisticRegression(max_iter=500), Labels()])
def test_segment_by_margin_or_by_labels_alone(iris, estimator):
    X, y = iris
    extractor = BoundarySampleExtractor(estimator, method="segment", random_state=0).fit(X, y)
    pairs = extractor.extract(30)
    predict = extractor.estimator_.predict
    ok = pairs.success
    assert (predict(pairs.inner[ok]) == pairs.source[ok]).all()
    assert (predict(pairs.outer[ok]) == pairs.target[ok]).all()
    assert ok.sum() >= 20 and set(pairs.status) <= {"ok", "third_class"}
    third = pairs.status == "third_class"
    assert (predict(pairs.outer[third]) != pairs.target[third]).any()
    if isinstance(estimator, Labels):
        assert extractor.response_ == "label"
        assert np.isnan(pairs.margin_inner).all()
        np.testing.assert_allclose(pairs.midpoint, (pairs.inner + pairs.outer) / 2)
        return
    assert ((pairs.margin_inner >= 1e-3) & (pairs.margin_inner <= 2e-3)).all()
    assert ((pairs.margin_outer <= -1e-3) & (pairs.margin_outer >= -2e-3)).all()
    proba = extractor.estimator_.predict_proba(pairs.midpoint[ok])
    every, code = np.arange(ok.sum()), {c: i for i, c in enumerate(extractor.classes_)}
    s, t = ([code[c] for c in side[ok]] for side in (pairs.source, pairs.target))
    assert np.abs(proba[every, s] - proba[every, t]).max() < 1e-4


def test_extract_deals_pairs_to_ordered_classes_in_turn(iris, frozen):
    X, y = iris
    extractor = BoundarySampleExtractor(frozen, method="segment", random_state=0).fit(X, y)
    c = extractor.classes_
    expected = [(s, t) for s in c for t in c if s != t] * 2
    pairs = extractor.extract(12)
    assert list(zip(pairs.source, pairs.target)) == expected
    pairs = extractor.extract(4, source=c[1])
    assert list(zip(pairs.source, pairs.target)) == [(c[1], c[0]), (c[1], c[2])] * 2
    pairs = extractor.extract(3, source=c[1], target=c[2], init="random")
    assert set(pairs.source) == {c[1]} and set(pairs.target) == {c[2]}
    again = extractor.extract(3, source=c[1], target=c[2], init="random")
    np.testing.assert_array_equal(pairs.outer, again.outer)
    nearest = extractor.extract(50, source=c[1], target=c[2]).distance
    assert len(nearest) == 50


def test_samples_are_drawn_without_replacement_first(iris, frozen):
    extractor = BoundarySampleExtractor(frozen, method="segment", random_state=0).fit(*iris)
    n = (extractor._classifier.training.codes == 0).sum()
    pairs = extractor.extract(n, source="setosa", target="versicolor")
    assert len(np.unique(pairs.outer, axis=0)) >= len(np.unique(iris[0][:50], axis=0)) - 1


def test_all_samples_of_a_step_go_to_the_estimator_in_one_call(iris):
    X, y = iris
    calls = []

    class Counted(KNeighborsClassifier):
        def predict(self, X):
            calls.append(len(X))
            return super().predict(X)

    extractor = BoundarySampleExtractor(Counted(), method="segment").fit(X, y)
    calls.clear()
    extractor.transform(X)
    # predicted classes, fourteen halvings, the outer end
    assert calls == [len(X)] * (1 + 14 + 1)


# ------------------------------------------------------------------------------ the face


def test_returns(iris, frozen):
    X, y = iris
    extractor = BoundarySampleExtractor(frozen, method="segment").fit(X, y)
    outer = extractor.transform(X)
    assert outer.shape == X.shape
    perturbation = extractor.set_params(returns="perturbation").transform(X)
    np.testing.assert_array_equal(perturbation, outer - X)
    distance = extractor.set_params(returns="distance").transform(X)
    np.testing.assert_allclose(distance, np.linalg.norm(outer - X, axis=1)[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryNotFoundWarning)  # third classes in between
        distances = extractor.set_params(returns="class_distances").transform(X)
    assert distances.shape == (150, 3)
    own = np.searchsorted(extractor.classes_, frozen.predict(X))
    assert (distances[np.arange(150), own] == 0).all()
    for code, label in enumerate(extractor.classes_):
        others = own != code
        one = clone_with(extractor, target=label, returns="distance")
        with pytest.warns(BoundaryNotFoundWarning, match="already_target: "):
            np.testing.assert_array_equal(one.transform(X)[others, 0], distances[others, code])


def clone_with(extractor, **params):
    """The fitted extractor, with other parameters."""
    other = pickle.loads(pickle.dumps(extractor))
    return other.set_params(**params)


def test_frames_and_their_names(iris, frozen):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"), index=np.arange(150) + 7)
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500), method="segment"
    ).set_output(transform="pandas")
    out = extractor.fit(frame, y).transform(frame)
    assert list(out.columns) == list("abcd") and (out.index == frame.index).all()
    names = {
        "perturbation": [f"perturbation_{c}" for c in "abcd"],
        "distance": ["boundary_distance"],
        "class_distances": ["distance_setosa", "distance_versicolor", "distance_virginica"],
    }
    for returns, expected in names.items():
        out = extractor.set_params(returns=returns).transform(frame)
        assert list(out.columns) == expected == list(extractor.get_feature_names_out())


@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_a_black_box_sees_the_frame_it_was_fitted_on(iris):
    X, y = iris
    frame = pd.DataFrame(X, columns=list("abcd"))
    extractor = BoundarySampleExtractor(KNeighborsClassifier(), method="segment").fit(frame, y)
    assert np.isfinite(extractor.transform(frame)).all()
    some = make_column_transformer(("passthrough", list("abcd")))
    mixed = BoundarySampleExtractor(make_pipeline(some, KNeighborsClassifier()))
    with pytest.raises(ValueError, match=r"Columns \['e'\] of X do not hold numbers"):
        mixed.fit(frame.assign(e="x"), y)


def test_images_keep_their_shape(digits, cnn):
    X, y = digits
    net = FrozenNetwork(cnn)
    extractor = BoundarySampleExtractor(net, method="segment").fit(X[:200], y[:200])
    outer = extractor.transform(X[:20])
    assert outer.shape == (20, 1, 8, 8) and outer.dtype == np.float32
    assert (net.predict(outer) != net.predict(X[:20])).all()
    with pytest.raises(ValueError, match="do not fit into a DataFrame"):
        extractor.set_output(transform="pandas").transform(X[:20])
    extractor.set_params(returns="distance")
    assert extractor.transform(X[:20]).shape == (20, 1)


def test_pipelines_grid_search_and_pickles(iris):
    X, y = iris
    pipe = make_pipeline(
        StandardScaler(),
        BoundarySampleExtractor(
            LogisticRegression(), method="segment", returns="distance", random_state=0
        ),
        LogisticRegression(),
    )
    grid = {"boundarysampleextractor__bounds": ["data", None]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X, y)
    assert search.predict(X).shape == (150,)
    extractor = search.best_estimator_[1]
    again = pickle.loads(pickle.dumps(extractor))
    Z = search.best_estimator_[0].transform(X)
    np.testing.assert_array_equal(again.transform(Z), extractor.transform(Z))


@pytest.mark.parametrize("init", ["data", "random"])
def test_jobs_give_what_one_batch_gives(iris, frozen, init):
    X, y = iris
    extractor = BoundarySampleExtractor(frozen, method="segment", random_state=0).fit(X, y)
    alone = extractor.extract(18, init=init)
    shared = extractor.set_params(n_jobs=2).extract(18, init=init)
    for name, value in vars(alone).items():
        np.testing.assert_array_equal(getattr(shared, name), value)


def test_target_is_required_iff_a_classifier_is_fitted(iris, frozen):
    X, _ = iris
    with pytest.raises(ValueError, match="requires y"):
        BoundarySampleExtractor(LogisticRegression()).fit(X)
    assert BoundarySampleExtractor(frozen).fit(X).transform(X).shape == X.shape


# ------------------------------------------------------------------------- the response


@pytest.mark.parametrize(
    "estimator, response",
    [
        (LogisticRegression(max_iter=500), "gradient"),
        (make_pipeline(StandardScaler(), SVC()), "label"),  # three classes: votes jump
        (RandomForestClassifier(10, random_state=0), "label"),
        (KNeighborsClassifier(), "label"),
        (Labels(), "label"),
    ],
)
def test_response(iris, estimator, response):
    extractor = BoundarySampleExtractor(estimator, random_state=0).fit(*iris)
    assert extractor.response_ == response


def test_response_of_a_smooth_black_box(iris):
    X, y = iris
    assert BoundarySampleExtractor(SVC()).fit(X[:100], y[:100]).response_ == "score"


class Liar(Labels):
    """Its scores favor another class than the one it predicts."""

    def predict_proba(self, X):
        return np.roll(self.inner_.predict_proba(X), 1, axis=1)


def test_scores_that_disagree_with_predict_are_not_believed(iris):
    X, y = iris
    with pytest.warns(ScoreMismatchWarning, match="predict of Liar disagrees with its scores on"):
        extractor = BoundarySampleExtractor(Liar(), random_state=0).fit(X, y)
    assert extractor.response_ == "label"
    predict = extractor.estimator_.predict
    assert (predict(extractor.transform(X)) != predict(X)).all()


# ----------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "call, words",
    [
        (dict(n_pairs=3, source="rose"), "source='rose' is not one of the classes"),
        (dict(n_pairs=3, target=7), "target=7 is not one of the classes"),
        (dict(n_pairs=3, source="setosa", target="setosa"), "source and target are both 'setosa'"),
        (dict(n_pairs=0), "n_pairs=0: use an integer of at least 1"),
        (dict(n_pairs=2.5), "n_pairs=2.5"),
        (dict(n_pairs=3, init="best"), "init='best'"),
        (dict(n_pairs=3, init=np.zeros((2, 4))), "init has 2 samples, but n_pairs=3"),
    ],
)
def test_extract_refuses(iris, frozen, call, words):
    extractor = BoundarySampleExtractor(frozen, method="segment").fit(*iris)
    with pytest.raises(ValueError, match=words):
        extractor.extract(**call)


def test_unknown_target_class(iris, frozen):
    X, y = iris
    with pytest.raises(ValueError, match="target='rose' is not one of the classes"):
        BoundarySampleExtractor(frozen, target="rose").fit(X, y)
    extractor = BoundarySampleExtractor(frozen).fit(X, y).set_params(target="rose")
    with pytest.raises(ValueError, match="target='rose' is not one of the classes"):
        extractor.transform(X)


def test_samples_of_the_target_class_already(iris, frozen):
    X, y = iris
    extractor = BoundarySampleExtractor(
        frozen, method="segment", target="virginica", returns="distance"
    ).fit(X, y)
    n = (frozen.predict(X) == "virginica").sum()
    with pytest.warns(BoundaryNotFoundWarning, match=f"already_target: {n}"):
        distances = extractor.transform(X)
    assert np.isnan(distances[frozen.predict(X) == "virginica"]).all()
    pairs = extractor.extract_pairs(X)
    already = pairs.status == "already_target"
    np.testing.assert_array_equal(already, frozen.predict(X) == "virginica")
    assert not pairs.success[already].any() and np.isnan(pairs.distance[already]).all()
    np.testing.assert_array_equal(pairs.inner[already], X[already])
    assert len(pairs.to_dataset()[1]) == 2 * pairs.success.sum()


def test_a_class_that_is_never_predicted(iris):
    X, _y = iris
    net = FrozenNetwork(nn.Linear(4, 3).double(), classes=["setosa", "versicolor", "virginica"])
    with torch.no_grad():
        net.module.weight.zero_()
        net.module.weight[0, 0], net.module.weight[1, 1] = 1.0, 1.5
        net.module.bias.copy_(torch.tensor([0.0, 0.0, -1e6]))
    extractor = BoundarySampleExtractor(net, method="segment", random_state=0).fit(X)
    assert (X[:, 0] == 1.5 * X[:, 1]).any()  # samples on the boundary itself are among them
    assert set(net.predict(X)) == {"setosa", "versicolor"}
    with pytest.raises(ValueError, match="source='virginica' is a class that no training sample"):
        extractor.extract(4, source="virginica")
    with pytest.raises(ValueError, match="target='virginica' is a class that no training sample"):
        extractor.extract(4, target="virginica")
    pairs = extractor.extract(200)  # the others take turns
    assert set(pairs.target) == {"setosa", "versicolor"} and pairs.success.all()
    extractor.set_params(target="virginica")
    with pytest.warns(BoundaryNotFoundWarning, match="150 of 150 samples"):
        np.testing.assert_array_equal(extractor.transform(X), X)


def test_noise_starts_from_predicted_classes_unless_another_is_given():
    X = np.random.default_rng(0).uniform(0, 1, (60, 2))
    net = nn.Linear(2, 3)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]]))
        net.bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
    extractor = BoundarySampleExtractor(net, method="pm", bounds=(-5, 5), random_state=0).fit(X)
    assert set(net(torch.tensor(X).float()).argmax(1).tolist()) == {0, 1}
    pairs = extractor.extract(10, init="random")
    assert set(pairs.source) == set(pairs.target) == {0, 1}
    pairs = extractor.extract(10, source=2, init="random")
    assert set(pairs.source) == {2} and set(pairs.target) == {0, 1} and pairs.success.all()


def test_bounds(iris, frozen):
    X, y = iris
    wide = BoundarySampleExtractor(frozen, method="segment").fit(X, y)
    np.testing.assert_array_equal(wide.bounds_, [X.min(0), X.max(0)])
    images = X[:, None, :, None]
    net = FrozenNetwork(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double())
    of_all = BoundarySampleExtractor(net, method="segment").fit(images)
    assert [bound.shape for bound in of_all.bounds_] == [(), ()]
    assert of_all.bounds_[0] == X.min() and of_all.bounds_[1] == X.max()
    for bounds, words in [
        ((0.2, 10), "bounds exclude the value 0.1 of sample 9 of X"),
        ((0, 10, 20), "use 'data', None or a pair"),
        ((0, [1, 2]), r"high has shape \(2,\)"),
        ((3, 2), "low must be at most high"),
    ]:
        with pytest.raises(ValueError, match=words):
            BoundarySampleExtractor(frozen, bounds=bounds).fit(X, y)
    given = BoundarySampleExtractor(frozen, method="segment", bounds=(0, 8)).fit(X, y)
    with pytest.raises(ValueError, match="bounds exclude the value 9.0 of sample 1"):
        given.transform(np.array([[5.0, 3, 2, 1], [9.0, 3, 2, 1]]))


def test_norms_that_a_method_does_not_support(iris, frozen):
    with pytest.raises(ValueError, match="supports the norms .* not norm='2sq'"):
        BoundarySampleExtractor(frozen, method="segment", norm="2sq").fit(*iris)


def test_a_constant_classifier_is_reported_as_constant(iris):
    X, y = iris
    extractor = BoundarySampleExtractor(DummyClassifier(), method="segment").fit(X, y)
    with pytest.warns(BoundaryNotFoundWarning, match="all training samples as 'setosa'"):
        np.testing.assert_array_equal(extractor.transform(X), X)
    with pytest.raises(ValueError, match=r"All training samples are predicted as \['setosa'\]"):
        extractor.extract(5)


def test_parameters_act_without_a_refit_and_are_checked(iris, frozen):
    extractor = BoundarySampleExtractor(frozen, method="segment").fit(*iris)
    with pytest.raises(ValueError, match="The 'margin_tol' parameter"):
        extractor.set_params(margin_tol=0).transform(iris[0])


# ------------------------------------------------------------------------------ the promises


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"deepdig"}))  # trains generators
def test_labels_of_returned_points_do_not_depend_on_the_batch(method, dtype):
    problem = make_linear(200, 8, random_state=3)
    torch_dtype = {np.float32: torch.float32, np.float64: torch.float64}[dtype]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 5)).to(torch_dtype)
    X = problem.data.astype(dtype)
    extractor = BoundarySampleExtractor(FrozenNetwork(module), method=method).fit(X)
    pairs = extractor.extract_pairs(X)
    assert pairs.success.mean() > 0.95 and pairs.outer.dtype == dtype
    ok = pairs.success
    for points, labels in ((pairs.inner, pairs.source), (pairs.outer, pairs.target)):
        for batch_size in (1, 7, 64, 512):
            net = FrozenNetwork(module, batch_size=batch_size)
            np.testing.assert_array_equal(net.predict(points[ok]), labels[ok])
        double = FrozenNetwork(pickle.loads(pickle.dumps(module)).double())
        np.testing.assert_array_equal(double.predict(points[ok]), labels[ok])


class CountsGradients(nn.Module):
    """Counts the samples of which a gradient is taken."""

    def __init__(self, net):
        super().__init__()
        self.net, self.n_gradients = net, 0

    def forward(self, x):
        if x.requires_grad:
            x.register_hook(
                lambda gradient: setattr(self, "n_gradients", self.n_gradients + len(x))
            )
        return self.net(x)


@pytest.mark.parametrize("away", [False, True], ids=["predicted", "another class"])
@pytest.mark.parametrize(
    "method, budget", [("minimal", 10), ("minimal", 60), ("pm", 20), ("pm", 90)]
)
def test_a_number_of_gradients_per_sample(cnn, digits, method, budget, away):
    """Sample by sample, also from a class that a sample is not predicted as."""
    X, net = digits[0][300:312], CountsGradients(cnn)
    extractor = BoundarySampleExtractor(FrozenNetwork(net), method=method, effort=budget)
    extractor.fit(digits[0][:300])
    y = (extractor.estimator_.predict(X) + 2 * away) % 10
    counts, success = [], []
    for i in range(len(X)):
        net.n_gradients = 0
        success.append(extractor.extract_pairs(X[i : i + 1], y[i : i + 1]).success[0])
        counts.append(net.n_gradients)
    assert max(counts) <= budget and np.mean(counts) > budget / 3
    assert np.mean(success) > (0.8 if budget > 20 else 0.5)


def test_numbers_that_a_method_does_not_take(iris, frozen):
    extractor = BoundarySampleExtractor(frozen, method="deepdig", effort=100)
    with pytest.raises(ValueError, match="effort=100 is a number, which method='deepdig' does not"):
        extractor.fit(*iris)
    with pytest.raises(ValueError, match="effort=9: method='minimal' needs at least 10 gradients"):
        extractor.set_params(method="minimal", effort=9).fit(*iris)
    with pytest.raises(ValueError, match="effort=19: method='label' needs at least 20 queries"):
        extractor.set_params(method="label", effort=19).fit(*iris)
    with pytest.raises(ValueError, match="'effort' parameter"):
        extractor.set_params(effort=0).fit(*iris)


def test_a_search_that_rounding_repeats_keeps_the_number(iris, logistic, monkeypatch):
    """A first search whose ends are beyond no boundary leaves what it did not take."""
    X, budgets = iris[0], []
    search = METHODS["minimal"].search

    def cut(oracle, problem, settings):
        budgets.append(problem.budget)
        ends = search(oracle, problem, settings)
        return ends._replace(outer=ends.inner + 1e-9) if len(budgets) == 1 else ends

    monkeypatch.setitem(METHODS, "minimal", METHODS["minimal"]._replace(search=cut))
    net = nn.Linear(4, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.from_numpy(logistic.coef_ * 1e6))
        net.bias.copy_(torch.from_numpy(logistic.intercept_ * 1e6))
    extractor = BoundarySampleExtractor(FrozenNetwork(net), effort=200, margin_tol=1e-9).fit(X)
    pairs = extractor.extract_pairs(X)
    assert len(budgets) > 1 and (budgets[0] == 200).all()
    assert (budgets[1] <= 20).all() and (budgets[1] >= 10).all()
    assert pairs.success.all()


# ----------------------------------------------------- what classifiers and methods lack


@pytest.mark.parametrize("method", ["pm", "minimal", "deepdig"])
def test_gradient_methods_on_a_black_box(iris, method):
    extractor = BoundarySampleExtractor(RandomForestClassifier(3), method=method)
    with pytest.raises(ValueError, match=f"method='{method}' needs gradients, .*'label'"):
        extractor.fit(*iris)


def test_score_on_labels_alone(iris):
    X, y = iris
    words = r"method='score' needs scores, and .*'auto' or one of \['label', 'segment', 'sparse'\]"
    with pytest.raises(ValueError, match=words):
        BoundarySampleExtractor(Labels(), method="score").fit(X, y)
    with pytest.raises(ValueError, match="target='runner_up' needs scores, and Labels has none"):
        BoundarySampleExtractor(Labels(), target="runner_up").fit(X, y).transform(X)


@pytest.mark.parametrize("method", ["score", "label"])
def test_norms_that_some_methods_lack(iris, frozen, method):
    with pytest.raises(
        ValueError, match=r"norm=1; the methods that support it are \['deepdig', 'minimal', 'pm'"
    ):
        BoundarySampleExtractor(frozen, method=method, norm=1).fit(*iris)
    with pytest.raises(ValueError, match=r"norm='2sq'; .* are \['pm'\]"):
        BoundarySampleExtractor(frozen, method="minimal", norm="2sq").fit(*iris)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm", [1, np.inf])
def test_all_that_minimal_returns_is_in_its_norm(iris, logistic, norm, dtype):
    """For a linear classifier: margins over dual norms of the nearest class."""
    X = iris[0].astype(dtype)
    extractor = BoundarySampleExtractor(
        FrozenEstimator(logistic), method="minimal", norm=norm, bounds=None, returns="distance"
    ).fit(X)
    codes = np.searchsorted(logistic.classes_, logistic.predict(X))
    gap = logistic.decision_function(X)
    gap = gap[np.arange(len(X)), codes][:, None] - gap
    slope = logistic.coef_[codes][:, None] - logistic.coef_[None]
    slope = np.linalg.norm(slope, ord=1 if norm == np.inf else np.inf, axis=2)
    exact = np.divide(gap, slope, out=np.full(gap.shape, np.inf), where=slope > 0).min(1)
    distance = extractor.transform(X)[:, 0]
    assert (distance >= exact).all() and np.quantile(distance - exact, 0.9) < 2e-3
    pairs = extractor.extract_pairs(X)
    assert pairs.success.all()
    expected = np.linalg.norm(pairs.outer - pairs.inner, ord=norm, axis=1)
    np.testing.assert_allclose(pairs.distance, expected, rtol=1e-6)
    moved = extractor.set_params(returns="perturbation").transform(X)
    np.testing.assert_allclose(np.linalg.norm(moved, ord=norm, axis=1), distance, rtol=1e-4)
    by_class = extractor.set_params(returns="class_distances").transform(X)
    by_class[np.arange(len(X)), codes] = np.inf
    assert np.quantile(np.abs(by_class.min(1) - distance), 0.9) < 1e-2


@pytest.mark.parametrize("norm", [1, 2, np.inf, "2sq"])
def test_pm_in_every_norm(iris, frozen, norm):
    X, y = iris
    extractor = BoundarySampleExtractor(frozen, method="pm", norm=norm, returns="distance")
    pairs = extractor.fit(X, y).extract_pairs(X)
    assert pairs.success.all()
    order = 2 if norm == "2sq" else norm
    expected = np.linalg.norm(pairs.outer - pairs.inner, ord=order, axis=1)
    np.testing.assert_allclose(pairs.distance, expected)
    distance = np.linalg.norm(pairs.outer - X, ord=order, axis=1)
    np.testing.assert_allclose(extractor.transform(X)[:, 0], distance)


class Broken(nn.Module):
    """Its gradient is NaN everywhere."""

    def forward(self, x):
        z = torch.stack([x[:, 0], -x[:, 0]], 1)
        return z + (0 * x[:, :1]).sqrt()  # 0, with an infinite slope times 0


@pytest.mark.parametrize("method", ["minimal", "pm"])
def test_gradients_that_are_nan(method):
    X = np.linspace(-1, 1, 20)[:, None] * np.ones((20, 3))
    extractor = BoundarySampleExtractor(FrozenNetwork(Broken()), method=method).fit(X)
    with pytest.warns(BoundaryNotFoundWarning, match="The gradient is NaN at 20 of them"):
        np.testing.assert_array_equal(extractor.transform(X), X)
    assert set(extractor.extract_pairs(X).status) == {"not_found"}


def test_gradients_that_are_nan_are_counted_batch_by_batch(monkeypatch):
    X, sizes, forward = np.ones((20, 3)), [], Broken.forward
    extractor = BoundarySampleExtractor(FrozenNetwork(Broken()), batch_size=7).fit(X)
    monkeypatch.setattr(Broken, "forward", lambda net, x: sizes.append(len(x)) or forward(net, x))
    assert count_nan_gradients(extractor._classifier.network, X, np.arange(len(X))) == 20
    assert sizes == [7, 7, 6]
    assert count_nan_gradients(extractor._classifier.network, X, np.arange(0)) == 0


@pytest.mark.parametrize("target", ["nearest", "versicolor"])
def test_points_that_are_not_finite_are_not_found(monkeypatch, iris, target):
    def search(oracle, problem, settings):
        outer = torch.full_like(problem.x, torch.inf)
        return Ends(problem.x, outer, problem.target, torch.zeros_like(problem.source))

    monkeypatch.setitem(METHODS, "minimal", METHODS["minimal"]._replace(search=search))
    extractor = BoundarySampleExtractor(LogisticRegression(max_iter=1000), target=target)
    said = extractor.fit(*iris).estimator_.predict(iris[0])
    X = iris[0][said != target]
    assert set(extractor.extract_pairs(X).status) == {"not_found"}
    with pytest.warns(BoundaryNotFoundWarning, match=f"{len(X)} of {len(X)} samples"):
        np.testing.assert_array_equal(extractor.transform(X), X)


@pytest.mark.parametrize("method", ["minimal", "pm"])
def test_transform_looks_at_the_inner_end_of_pm_alone(monkeypatch, iris, method):
    X, y = iris
    other = torch.from_numpy(X[y == "versicolor"][:1])

    def search(oracle, problem, settings):  # both ends beyond the boundary
        outer = other.expand_as(problem.x).clone()
        return Ends(outer, outer, problem.target, torch.zeros_like(problem.source))

    monkeypatch.setitem(METHODS, method, METHODS[method]._replace(search=search))
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=1000), method=method, target="versicolor", returns="distance"
    ).fit(X, y)
    assert not extractor.extract_pairs(X[y == "setosa"]).success.any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryNotFoundWarning)
        distances = extractor.transform(X[y == "setosa"])
    assert np.isnan(distances).all() == (method == "pm")


def test_constant_classifiers_end_after_a_bounded_search(iris):
    X, y = iris
    net = FrozenNetwork(nn.Linear(4, 3).double(), classes=np.unique(y))
    with torch.no_grad():
        net.module.weight.zero_()
        net.module.bias.copy_(torch.tensor([0.0, 1.0, 0.5]))
    asked = []

    class Constant(DummyClassifier):
        def predict(self, X):
            asked.append(len(X))
            return super().predict(X)

    for estimator in (net, Constant()):
        extractor = BoundarySampleExtractor(estimator, random_state=0).fit(X, y)
        name = type(estimator).__name__
        asked.clear()
        with pytest.warns(
            BoundaryNotFoundWarning, match=f"{name} predicts all training samples as"
        ):
            np.testing.assert_array_equal(extractor.transform(X[:10]), X[:10])
        assert sum(asked) <= 10 * 200


def test_a_network_that_gives_nan(iris):
    X, _ = iris
    net = FrozenNetwork(nn.Linear(4, 3).double())
    with torch.no_grad():
        net.module.bias[1] = float("nan")
    with pytest.raises(ValueError, match="Linear gives NaN for sample 0 of X"):
        BoundarySampleExtractor(net).fit(X)


def test_all_class_pairs_are_one_batch_job(cnn, digits):
    X, y = digits
    calls = []
    handle = cnn.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    extractor = BoundarySampleExtractor(FrozenNetwork(cnn), method="pm", random_state=0)
    extractor.fit(X[:300], y[:300])
    calls.clear()
    pairs = extractor.extract(180)
    handle.remove()
    assert len({*zip(pairs.source, pairs.target)}) == 90
    assert len(calls) < 150 and max(calls) >= 360  # both ends of all pairs at a time


@pytest.mark.parametrize("method", ["label", "score"])
def test_directions_are_shared_by_all_samples(iris, method):
    """The partner of a sample does not depend on the other samples."""
    X, y = iris
    estimator = SVC() if method == "score" else Labels()
    extractor = BoundarySampleExtractor(estimator, method=method, random_state=0)
    extractor.fit(X[50:], y[50:])
    samples = X[50::25]
    together = extractor.transform(samples)
    for i in (0, 3):
        np.testing.assert_allclose(extractor.transform(samples[[i]])[0], together[i], rtol=1e-6)
    np.testing.assert_array_equal(
        extractor.set_params(batch_size=2).fit(X[50:], y[50:]).transform(samples[::-1]),
        together[::-1],
    )
