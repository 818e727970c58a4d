"""Columns of tables: categories, columns that stay, and limits on the number of changes."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skboundary import BoundarySampleExtractor, FrozenNetwork
from skboundary.boundary.methods._registry import METHODS
from skboundary.exceptions import BoundaryNotFoundWarning

CATEGORIES = ["job", "home", "grade"]


@pytest.fixture(scope="module")
def people():
    """Numbers, strings, a category of numbers and a bool, and the income they lead to."""
    rng = np.random.default_rng(0)
    n = 300
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "job": rng.choice(["clerk", "nurse", "chef", "judge"], n),
            "hours": rng.normal(40, 10, n).round(1),
            "home": pd.Categorical(rng.choice(["own", "rent"], n)),
            "grade": pd.Categorical(rng.choice([3, 5, 9], n)),
            "union": rng.random(n) < 0.4,
        },
        index=[f"p{i}" for i in range(n)],
    )
    income = frame.age / 20 + 2 * (frame.job == "judge") + frame.hours / 20 - (frame.grade == 5)
    return frame, np.where(income > np.median(income), "high", "low")


def pipeline_of(classifier):
    columns = make_column_transformer(
        (OneHotEncoder(), CATEGORIES), (StandardScaler(), ["age", "hours"]), remainder="passthrough"
    )
    return make_pipeline(columns, classifier)


@pytest.fixture(scope="module")
def fitted(people):
    model = pipeline_of(RandomForestClassifier(20, random_state=0))
    return BoundarySampleExtractor(model, categorical=CATEGORIES, random_state=0).fit(*people)


# ------------------------------------------------------------------------------ categories


@pytest.mark.parametrize(
    "classifier", [RandomForestClassifier(20, random_state=0), LogisticRegression()]
)
def test_pipelines_with_categories(people, classifier):
    frame, y = people
    extractor = BoundarySampleExtractor(
        pipeline_of(classifier), categorical=CATEGORIES, random_state=0
    ).fit(frame, y)
    some = frame.iloc[:40]
    points = extractor.transform(some)
    predict = extractor.estimator_.predict
    assert (predict(points) != predict(some)).all() and extractor.response_ == "label"
    assert list(points.columns) == list(frame.columns) and (points.index == some.index).all()
    for name in CATEGORIES:
        assert points[name].dtype == frame[name].dtype
        assert set(points[name]) <= set(frame[name])
    for name in ("age", "hours", "union"):
        assert set(points[name]) <= set(frame[name].astype(float))
    pairs = extractor.extract_pairs(some)
    assert pairs.success.all() and pairs.outer.dtype == object
    n_changes = (pairs.outer != pairs.start).sum(1)
    assert n_changes.min() >= 1 and n_changes.mean() < 3
    np.testing.assert_array_equal(pairs.start[:, 1], some.job)
    np.testing.assert_array_equal(pairs.inner, pairs.start)
    as_frame = pd.DataFrame(pairs.outer, columns=frame.columns)
    assert (predict(as_frame) == pairs.target).all()


def test_the_frame_of_changes_of_mixed_columns(people, fitted):
    pairs = fitted.extract_pairs(people[0].iloc[:40])
    changes = pairs.to_frame()
    assert len(changes) == (pairs.outer != pairs.start).sum()
    words = changes[changes.before.map(lambda v: isinstance(v, str))]
    assert len(words) and words.change.isna().all()
    numbers = changes.loc[changes.index.get_level_values("column").isin(["age", "hours"])]
    assert len(numbers) and (numbers.change == numbers.after - numbers.before).all()


def test_distances_count_another_category_as_one(people, fitted):
    pairs = fitted.extract_pairs(people[0].iloc[:60])
    categorical = np.isin(people[0].columns, CATEGORIES)
    start, outer = pairs.start, pairs.outer
    numbers = (outer[:, ~categorical] - start[:, ~categorical]).astype(float)
    others = (outer[:, categorical] != start[:, categorical]).astype(float)
    expected = np.linalg.norm(np.hstack([numbers, others]), axis=1)
    np.testing.assert_allclose(pairs.start_distance, expected)
    assert (expected[(outer != start)[:, ~categorical].sum(1) == 0] <= 3**0.5).all()


def test_training_samples_are_drawn_and_paired(people, fitted):
    pairs = fitted.extract(10, source="low", target="high")
    frame = people[0].iloc[pairs.index]
    np.testing.assert_array_equal(pairs.start[:, 1], frame.job)
    assert pairs.success.all() and set(pairs.target) == {"high"}
    X, y = pairs.to_dataset()
    predicted = fitted.estimator_.predict(pd.DataFrame(X, columns=frame.columns))
    np.testing.assert_array_equal(predicted, y)


def test_polars(people):
    polars = pytest.importorskip("polars")
    frame = people[0].assign(grade=people[0].grade.astype(str), home=people[0].home.astype(str))
    table = polars.DataFrame({name: frame[name].tolist() for name in frame})
    columns = make_column_transformer((OneHotEncoder(), CATEGORIES), remainder="passthrough")
    model = make_pipeline(columns, DecisionTreeClassifier(max_depth=4, random_state=0))
    extractor = BoundarySampleExtractor(model, categorical=CATEGORIES, random_state=0)
    points = extractor.fit(table, people[1]).transform(table[:20])
    assert isinstance(points, polars.DataFrame) and points.columns == table.columns
    predict = extractor.estimator_.predict
    assert (predict(points) != predict(table[:20])).all()


def test_pickles_keep_the_categories(people, fitted):
    frame = people[0].iloc[:9]
    again = pickle.loads(pickle.dumps(fitted))
    pd.testing.assert_frame_equal(again.transform(frame), fitted.transform(frame))
    with pytest.raises(ValueError, match="'job' of X has the category 'pilot'"):
        again.transform(frame.assign(job="pilot"))


def test_set_output_and_other_returns(people, fitted):
    some = people[0].iloc[:5]
    distances = fitted.set_params(returns="distance").transform(some)
    assert distances.shape == (5, 1) and (distances > 0).all()
    by_class = fitted.set_params(returns="class_distances").transform(some)
    np.testing.assert_array_equal(by_class.max(1), distances[:, 0])
    fitted.set_params(returns="boundary").set_output(transform="pandas")
    assert list(fitted.transform(some).columns) == list(some.columns)
    fitted.set_output(transform="default")
    for returns in ("perturbation", "interval"):
        with pytest.raises(ValueError, match=f"returns='{returns}'"):
            fitted.set_params(returns=returns).transform(some)
    fitted.set_params(returns="boundary")


def test_categories_that_are_unknown_or_missing(people, fitted):
    frame, y = people
    with pytest.raises(
        ValueError, match="'job' of X has the category 'pilot', which no sample had"
    ):
        fitted.transform(frame.iloc[:3].assign(job="pilot"))
    missing = frame.iloc[:3].assign(job=["chef", None, "judge"])
    with pytest.raises(ValueError, match="'job' of X has no value in sample 1"):
        fitted.transform(missing)
    with pytest.raises(ValueError, match="'job' of X has no value in sample 1"):
        BoundarySampleExtractor(fitted.estimator_, categorical=CATEGORIES).fit(missing, y[:3])
    with pytest.raises(ValueError, match=r"\['home', 'grade'\] of X do not hold numbers"):
        BoundarySampleExtractor(fitted.estimator_, categorical=["job"]).fit(frame, y)


def test_categories_of_arrays():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=200), rng.integers(0, 5, 200)]).astype(np.float32)
    y = (X[:, 1] == 3).astype(int)
    tree = DecisionTreeClassifier(random_state=0)
    extractor = BoundarySampleExtractor(tree, categorical=[1], returns="distance").fit(X, y)
    some = X[:50]
    pairs = extractor.extract_pairs(some)
    assert pairs.success.all() and pairs.outer.dtype == np.float32
    assert (pairs.outer[:, 0] == some[:, 0]).all()
    assert (pairs.outer[some[:, 1] != 3, 1] == 3).all()
    np.testing.assert_array_equal(extractor.transform(some), 1)  # another category
    np.testing.assert_array_equal(pairs.midpoint[:, 1], pairs.outer[:, 1])
    extractor.set_params(bounds=(-9, 0.5), returns="boundary")  # has no meaning for categories
    inside = some[some[:, 0] < 0.5]
    assert (extractor.transform(inside)[:, 1] != inside[:, 1]).all()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"sparse", "pm", "minimal", "deepdig"}))
def test_other_methods_refuse_categories(people, method):
    model = pipeline_of(DecisionTreeClassifier(max_depth=3))
    extractor = BoundarySampleExtractor(model, method=method, categorical=CATEGORIES)
    with pytest.raises(ValueError, match="Use method='sparse'|needs scores"):
        extractor.fit(*people)


# ------------------------------------------------------------------------------ immutable columns


@pytest.mark.parametrize("names", [[0, 1], ["a", "b"]])
@pytest.mark.parametrize("bounds", ["data", None])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"deepdig"}))
def test_every_method_keeps_immutable_columns(iris, method, bounds, names):
    X, y = iris
    given = pd.DataFrame(X, columns=list("abcd")) if isinstance(names[0], str) else X
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500),
        method=method,
        immutable=names,
        bounds=bounds,
        effort="fast",
        random_state=0,
    ).fit(given, y)
    some, X = given[::5], X[::5]
    pairs = extractor.extract_pairs(some)
    assert pairs.success.mean() > 0.8
    for points in (pairs.inner, pairs.outer, pairs.midpoint):
        np.testing.assert_array_equal(points[:, [0, 1]], X[:, [0, 1]])
    assert (pairs.outer[pairs.success][:, 2:] != X[pairs.success][:, 2:]).any(1).all()
    free = extractor.set_params(immutable=None).extract_pairs(some)  # acts without a refit
    assert method == "sparse" or (free.outer[:, [0, 1]] != X[:, [0, 1]]).any()  # see below
    drawn = extractor.set_params(immutable=names).extract(12, init="random")
    np.testing.assert_array_equal(drawn.outer[:, [0, 1]], drawn.start[:, [0, 1]])


def test_fewest_changes_are_in_columns_that_were_immutable(iris):
    X, y = iris
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500), method="sparse", immutable=[2, 3], random_state=0
    ).fit(X, y)
    kept = extractor.extract_pairs(X[::5])
    assert kept.success.any() and (kept.outer[:, 2:] == X[::5, 2:]).all()
    free = extractor.set_params(immutable=None).extract_pairs(X[::5])  # acts without a refit
    assert (free.outer[:, 2:] != X[::5, 2:]).any(1).mean() > 0.8


@pytest.mark.parametrize("method", ["minimal", "label", "segment", "sparse"])
def test_float32_networks_return_what_stays_as_it_was(iris, method):
    X = iris[0] + 0.1 / 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = FrozenNetwork(nn.Linear(4, 3))
    with torch.no_grad():
        net.module.bias -= net.module(torch.from_numpy(X).float()).mean(0)
    extractor = BoundarySampleExtractor(net, method=method, immutable=[1], effort="fast").fit(X)
    pairs = extractor.extract_pairs(X[::3])
    assert pairs.success.any() and pairs.outer.dtype == np.float64
    np.testing.assert_array_equal(pairs.outer[:, 1], X[::3, 1])
    if method == "sparse":
        assert (pairs.outer != X[::3]).sum(1).max() < 3


class Counted(ClassifierMixin, BaseEstimator):
    """Class 1 where x0 + x1 + x2 > 0, and the number of samples that it predicted."""

    def fit(self, X, y=None):
        self.classes_, self.n_run_ = np.array([0, 1]), 0
        return self

    def predict(self, X):
        self.n_run_ += len(X)
        return (X.sum(1) > 0).astype(int)


@pytest.mark.parametrize("effort", ["fast", 100])
@pytest.mark.parametrize("method", ["segment", "label", "sparse"])
def test_queries_are_counted_with_immutable_columns(method, effort):
    if method == "sparse" and effort == 100:
        return
    X = np.random.default_rng(0).normal(size=(80, 3))
    extractor = BoundarySampleExtractor(
        Counted(), method=method, immutable=[2], effort=effort, random_state=0
    ).fit(X, (X.sum(1) > 0).astype(int))
    before = extractor.estimator_.n_run_
    pairs = extractor.extract_pairs(X[:30])
    assert extractor.estimator_.n_run_ - before == pairs.n_evaluations.sum()
    assert pairs.success.mean() > 0.8
    if effort == 100:
        assert pairs.n_evaluations.max() <= 100


def test_constant_black_boxes_in_half_open_boxes_end():
    class Constant(Counted):
        def predict(self, X):
            assert np.isfinite(X).all()
            return np.zeros(len(X), dtype=int)

    X = np.random.default_rng(0).normal(size=(20, 3))
    for params in (dict(bounds=(-9, np.inf)), dict(bounds=None, immutable=[0])):
        extractor = BoundarySampleExtractor(Constant(), method="label", effort=100, **params)
        with pytest.warns(BoundaryNotFoundWarning):
            extractor.fit(X, np.arange(20) % 2).transform(X)


@pytest.mark.parametrize(
    "params, words",
    [
        (dict(immutable=["a"]), "fit got an array without names"),
        (
            dict(immutable=[4]),
            "immutable: 4 is not the name of a column, nor a position from 0 to 3",
        ),
        (dict(immutable=[-1]), "immutable: -1 is not the name"),
        (dict(immutable=range(4)), "immutable names all 4 columns"),
        (dict(immutable=[0], method="deepdig"), "method='deepdig' cannot keep immutable columns"),
        (dict(categorical=[0], method="minimal"), "needs gradients|Use method='sparse'"),
        (dict(max_changes=2), "max_changes=2: method='minimal' changes all columns"),
        (dict(max_changes=0), "The 'max_changes' parameter"),
        (dict(immutable="a"), "The 'immutable' parameter"),
        (dict(method="sparse", effort=100), "effort=100 is a number, which method='sparse'"),
    ],
)
def test_rules_that_cannot_be_kept(iris, params, words):
    with pytest.raises(ValueError, match=words):
        BoundarySampleExtractor(LogisticRegression(max_iter=500), **params).fit(*iris)


def test_names_that_do_not_exist_and_images(iris, digits, cnn):
    frame = pd.DataFrame(iris[0], columns=list("abcd"))
    with pytest.raises(ValueError, match=r"immutable: there is no column 'e' in \['a', 'b'"):
        BoundarySampleExtractor(LogisticRegression(), immutable=["e"]).fit(frame, iris[1])
    with pytest.raises(ValueError, match=r"samples have the shape \(1, 8, 8\)"):
        BoundarySampleExtractor(cnn, immutable=[0]).fit(digits[0])


# ------------------------------------------------------------------------------ method "sparse"


@pytest.fixture(scope="module")
def forest():
    X, y = load_breast_cancer(return_X_y=True)
    return X, y, FrozenEstimator(RandomForestClassifier(25, random_state=0).fit(X[:400], y[:400]))


def test_a_forest_with_two_immutable_columns(forest):
    X, y, model = forest
    extractor = BoundarySampleExtractor(model, method="sparse", immutable=[0, 1], effort="fast")
    pairs = extractor.fit(X[:400], y[:400]).extract_pairs(X[400:450])
    changed = pairs.outer != X[400:450]
    assert pairs.success.all() and not changed[:, :2].any()
    assert changed.sum(1).mean() <= 4  # the bar of the method
    assert (model.predict(pairs.outer) == pairs.target).all()
    for j in range(30):
        assert np.isin(pairs.outer[changed[:, j], j], X[:400, j]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("unit", [1e-4, 1e4])
def test_the_unit_of_the_columns_does_not_matter(iris, dtype, unit):
    X, y = iris
    X = (X * [unit, 1, 1, 1 / unit]).astype(dtype)
    scaled = make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0))
    pairs = BoundarySampleExtractor(scaled, method="sparse").fit(X, y).extract_pairs(X[::5])
    assert pairs.success.all() and pairs.outer.dtype == dtype
    n_changes = (pairs.outer != X[::5]).sum(1)
    plain = BoundarySampleExtractor(scaled, method="sparse").fit(*iris).extract_pairs(iris[0][::5])
    assert abs(n_changes.mean() - (plain.outer != iris[0][::5]).sum(1).mean()) < 0.2


def test_effort_is_the_number_of_values_and_of_paths():
    X = np.random.default_rng(0).uniform(-1, 1, size=(100, 5))
    extractor = BoundarySampleExtractor(LogisticRegression(), method="sparse").fit(X, X.sum(1) > 0)
    efforts = ("fast", "balanced", "thorough")
    found = [extractor.set_params(effort=effort).extract_pairs(X) for effort in efforts]
    n_changes = [(pairs.outer != X).sum(1) for pairs in found]
    assert (n_changes[0] == n_changes).all() and np.bincount(n_changes[0])[1:].min() > 10
    for k in (1, 2):
        n = np.array([pairs.n_evaluations[n_changes[0] == k].mean() for pairs in found])
        ratio = n[1:] / n[:-1]  # of one path, below 2: both try twice as many values
        assert (ratio > 1.5).all() if k == 1 else (ratio > 2).all()


def test_samples_that_need_more_changes_stay(forest):
    X, y, model = forest
    extractor = BoundarySampleExtractor(model, method="sparse", max_changes=2, effort="fast")
    extractor.fit(X[:400], y[:400])
    pairs = extractor.extract_pairs(X[400:450])
    assert set(pairs.status) == {"ok", "not_found"}
    n_changes = (pairs.outer != X[400:450]).sum(1)
    assert (n_changes[pairs.success] <= 2).all() and (n_changes[~pairs.success] == 0).all()
    with pytest.warns(BoundaryNotFoundWarning, match="not_found"):
        points = extractor.transform(X[400:450])
    np.testing.assert_array_equal(points, pairs.outer)


def test_scores_of_gradient_classifiers_and_targets(iris):
    X, y = iris
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500), method="sparse", target="runner_up"
    ).fit(X, y)
    pairs = extractor.extract_pairs(X)
    assert pairs.success.all() and extractor.response_ == "gradient"
    np.testing.assert_array_equal(pairs.inner, X)
    assert (pairs.margin_inner > 0).all() and (pairs.margin_outer < 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = extractor.set_params(target=1).extract_pairs(X[:20])
    assert one.success.all() and (one.target == 1).all()


def test_jobs_and_batches_give_the_same(forest):
    X, y, model = forest
    extractor = BoundarySampleExtractor(model, method="sparse", effort="fast")
    whole, *parts = (
        extractor.set_params(**params).fit(X[:400], y[:400]).extract_pairs(X[400:420])
        for params in ({}, {"batch_size": 6}, {"n_jobs": 2})
    )
    for pairs in parts:
        np.testing.assert_array_equal(pairs.outer, whole.outer)
