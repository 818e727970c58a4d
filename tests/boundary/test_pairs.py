"""BoundaryPairs: their starts, and the frame of changes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from skboundary import BoundarySampleExtractor
from skboundary.exceptions import BoundaryNotFoundWarning


@pytest.fixture(scope="module")
def frame(iris):
    return pd.DataFrame(iris[0], columns=["sl", "sw", "pl", "pw"], index=np.arange(150) + 1000)


@pytest.fixture(scope="module")
def fitted(frame, iris):
    return BoundarySampleExtractor(LogisticRegression(max_iter=500), random_state=0).fit(
        frame, iris[1]
    )


@pytest.mark.parametrize("norm", [1, 2, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_start_distance_is_that_of_transform(iris, norm, dtype):
    X, y = iris[0].astype(dtype), iris[1]
    extractor = BoundarySampleExtractor(
        LogisticRegression(max_iter=500), method="segment", norm=norm, returns="distance"
    ).fit(X, y)
    pairs = extractor.extract_pairs(X)
    np.testing.assert_array_equal(pairs.start, X)
    np.testing.assert_array_equal(pairs.index, np.arange(150))
    expected = np.linalg.norm(pairs.outer - X, ord=norm, axis=1)
    np.testing.assert_allclose(pairs.start_distance, expected, rtol=1e-5)
    ok = pairs.success
    np.testing.assert_array_equal(pairs.start_distance[ok], extractor.transform(X)[ok, 0])
    assert (pairs.distance[ok] < pairs.start_distance[ok]).all()


def test_the_index_of_drawn_samples_is_that_of_fit(fitted, frame):
    pairs = fitted.extract(12)
    np.testing.assert_array_equal(pairs.start, frame.to_numpy()[pairs.index])
    assert len(set(pairs.index)) > 6
    noise = fitted.extract(6, init="random")
    assert (noise.index == -1).all() and np.isfinite(noise.start_distance).all()
    given = fitted.extract(3, init=frame.iloc[[7, 70, 140]])
    np.testing.assert_array_equal(given.index, [0, 1, 2])
    np.testing.assert_array_equal(given.start, frame.iloc[[7, 70, 140]])


def test_failures_have_no_start_distance(iris, frame):
    extractor = BoundarySampleExtractor(LogisticRegression(max_iter=500), target=0)
    pairs = extractor.fit(frame, iris[1]).extract_pairs(frame)
    assert np.isnan(pairs.start_distance[pairs.status == "already_target"]).all()
    with pytest.warns(BoundaryNotFoundWarning):
        distances = extractor.set_params(returns="distance").transform(frame)[:, 0]
    np.testing.assert_array_equal(np.isnan(distances), pairs.status == "already_target")


def test_the_frame_lists_what_changes(fitted, frame):
    low, high = frame.min().to_numpy(copy=True), frame.max().to_numpy(copy=True)
    sample = frame.iloc[[3, 90]].copy()
    sample["sw"] = low[1] = high[1] = 3.0  # stays
    extractor = clone(fitted).fit(frame, fitted.estimator_.predict(frame))
    pairs = extractor.set_params(bounds=(low, high)).extract_pairs(sample)
    assert pairs.success.all()
    changes = pairs.to_frame()
    assert changes.index.names == ["sample", "column"]
    assert list(changes.columns) == ["before", "after", "change"]
    assert set(changes.index) == {(i, name) for i in (0, 1) for name in ("sl", "pl", "pw")}
    for (i, name), row in changes.iterrows():
        assert row.before == sample[name].iloc[i]
        assert row.after == pairs.outer[i, frame.columns.get_loc(name)]
    np.testing.assert_allclose(changes.change, changes.after - changes.before)


def test_frames_of_arrays_and_of_failures(iris):
    X, y = iris
    extractor = BoundarySampleExtractor(LogisticRegression(max_iter=500), target=0)
    pairs = extractor.fit(X, y).extract_pairs(X[[0, 60]])
    changes = pairs.to_frame()
    assert set(changes.index.get_level_values("sample")) == {1}  # the other is of class 0 already
    assert changes.index.get_level_values("column").tolist() == ["x0", "x1", "x2", "x3"]


def test_images_have_no_columns(digits, cnn):
    pairs = BoundarySampleExtractor(cnn, effort="fast").fit(digits[0][:50]).extract(2)
    with pytest.raises(ValueError, match=r"samples have the shape \(1, 8, 8\). Use outer - start"):
        pairs.to_frame()
