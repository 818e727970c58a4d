"""Samples from any container, and bounds, as the user gives them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skboundary import BoundaryCharacterizer, BoundarySampleExtractor, SubspaceMargins
from skboundary.boundary._inputs import numbers


def polars():
    """The library, where it is installed."""
    return pytest.importorskip("polars")


# ------------------------------------------------------------------------------ containers


@pytest.fixture(scope="module")
def table():
    """Two columns of floats and one of bools, and the classes."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 60))
    flag = rng.random(60) < 0.5
    return pd.DataFrame({"a": a, "b": b, "flag": flag}), np.where(a + flag > 0.5, "yes", "no")


CONTAINERS = {
    "bool": lambda frame: frame,
    "dummies": lambda frame: pd.get_dummies(frame.assign(flag=frame.flag.astype(str))),
    "Float64": lambda frame: frame.astype({"a": "Float64", "flag": "Int64"}),
    "boolean": lambda frame: frame.astype({"flag": "boolean"}),
    "object": lambda frame: frame.astype(object),
    "polars": lambda frame: polars().from_pandas(frame),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_columns_of_bools_and_nullable_columns_are_numbers(table, container):
    frame = CONTAINERS[container](table[0])
    expected = table[0].to_numpy(float)
    if container == "dummies":
        expected = np.column_stack([expected[:, :2], 1 - expected[:, 2], expected[:, 2]])
    np.testing.assert_array_equal(numbers(frame), expected)


def test_the_dtype_is_the_narrowest_that_holds_all_columns(table):
    narrow = table[0].astype({"a": "f4", "b": "Float32"})
    assert numbers(narrow).dtype == np.float32
    assert numbers(table[0][["flag"]]).dtype == bool


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_columns_that_hold_no_numbers_are_named(library):
    columns = {"x": [1.0, 2.0], "s": ["1", "2"], "mixed": ["1", None]}
    frame = pytest.importorskip(library).DataFrame(columns)
    with pytest.raises(ValueError, match=r"Columns \['s', 'mixed'\] of X do not hold numbers"):
        numbers(frame)


def test_categories_are_no_numbers():
    frame = pd.DataFrame({"x": [1.0, 2.0], "c": pd.Categorical([3, 4])})
    with pytest.raises(ValueError, match=r"Columns \['c'\] of X do not hold numbers"):
        numbers(frame)


@pytest.mark.parametrize(
    "column",
    [
        pd.array([1.0, pd.NA, 2.0], dtype="Float64"),
        pd.array([True, pd.NA, False], dtype="boolean"),
        pd.array([1, pd.NA, 2], dtype="Int64"),
        [1.0, None, 2.0],
        [True, None, False],
    ],
)
@pytest.mark.parametrize("estimator", [LogisticRegression(), None])
def test_missing_values_are_refused_with_their_sample(column, estimator):
    library = polars() if isinstance(column, list) else pd
    frame = library.DataFrame({"x": [1.0, 2.0, 3.0], "missing": column})
    extractor = BoundarySampleExtractor(estimator)
    with pytest.raises(ValueError, match="Input X contains NaN in (row|sample) 1"):
        extractor.fit(frame, [0, 1, 1])


@pytest.mark.parametrize("container", ["bool", "Float64", "polars"])
@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        KNeighborsClassifier(),
        pytest.param(None, marks=pytest.mark.slow),  # trains a network in each of six fits
    ],
)
@pytest.mark.filterwarnings("error:X does not have valid feature names")
def test_estimators_give_for_a_frame_what_they_give_for_an_array(table, container, estimator):
    frame, plain, y = CONTAINERS[container](table[0]), table[0].to_numpy(float), table[1]
    black_box = isinstance(estimator, KNeighborsClassifier)

    def results(X):
        extractor = BoundarySampleExtractor(
            estimator, method="segment" if black_box else "auto", random_state=0
        ).fit(X, y)
        margins = SubspaceMargins(
            estimator, method="label" if black_box else "gradient", max_iter=3, random_state=0
        ).fit(X, y)
        found = extractor.transform(X), margins.transform(X[:2])
        if black_box:  # the report asks for the labels of every sample in steps: seconds
            return found
        report = BoundaryCharacterizer(estimator, n_samples=5, random_state=0).fit(X, y).report_
        return *found, report["length"]

    for of_frame, of_array in zip(results(frame), results(plain)):
        np.testing.assert_allclose(of_frame, of_array, rtol=1e-5)


def test_a_column_chosen_by_dtype_is_found_again(table):
    frame, y = table
    by_dtype = make_column_transformer(
        ("passthrough", make_column_selector(dtype_include=bool)), remainder="passthrough"
    )
    model = make_pipeline(by_dtype, LogisticRegression())
    extractor = BoundarySampleExtractor(model, bounds=None).fit(frame, y)
    points = pd.DataFrame(extractor.transform(frame), columns=frame.columns)
    assert (extractor.estimator_.predict(points) != extractor.estimator_.predict(frame)).all()


def test_categories_that_a_classifier_encodes_are_refused_with_the_remedy(table):
    frame, y = table
    one_hot = make_column_transformer((OneHotEncoder(), ["flag"]), remainder="passthrough")
    model = make_pipeline(one_hot, LogisticRegression())
    words = r"Pipeline refuses points between the samples of X.*Encode columns that hold categories"
    with pytest.raises(ValueError, match=words):
        BoundarySampleExtractor(model).fit(frame, y)
