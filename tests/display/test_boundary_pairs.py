"""BoundaryPairsDisplay: what is drawn is what the pairs hold."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import pyplot as plt

from skboundary import BoundaryPairsDisplay
from skboundary.boundary import BoundaryPairs


def make_pairs(inner, outer, source, target, success=None):
    n = len(inner)
    success = np.ones(n, bool) if success is None else np.array(success)
    none = np.zeros(n)
    return BoundaryPairs(
        inner=inner,
        outer=outer,
        midpoint=(inner + outer) / 2,
        distance=np.linalg.norm((outer - inner).reshape(n, -1), axis=1),
        start=inner,
        start_distance=np.linalg.norm((outer - inner).reshape(n, -1), axis=1),
        index=np.arange(n),
        source=np.array(source),
        target=np.array(target),
        margin_inner=none,
        margin_outer=none,
        success=success,
        status=np.where(success, "ok", "not_found"),
        n_evaluations=none.astype(int),
    )


@pytest.fixture
def image_pairs():
    rng = np.random.default_rng(0)
    inner, outer = rng.random((2, 5, 1, 4, 6))
    return make_pairs(inner, outer, list("aabbc"), list("bcaca"), [True, False, True, True, True])


def test_images(image_pairs):
    display = BoundaryPairsDisplay.from_pairs(image_pairs, n=3)
    pairs, chosen = image_pairs, [0, 2, 3]  # the second was not successful
    assert display.axes_.shape == (3, 1) and display.bounding_ax_ is None
    assert [ax.get_ylabel() for ax in display.axes_[:, 0]] == ["inner", "outer", "difference"]
    expected = [pairs.inner, pairs.outer, pairs.outer - pairs.inner]
    for image, values in zip(display.images_, expected):
        drawn = np.asarray(image.get_array().filled(np.nan))
        assert drawn.shape == (4, 3 * 6 + 2)
        for place, i in enumerate(chosen):
            np.testing.assert_array_equal(drawn[:, 7 * place : 7 * place + 6], values[i, 0])
    texts = [[t.get_text() for t in ax.get_xticklabels()] for ax in display.axes_[:, 0]]
    assert texts[:2] == [["a", "b", "b"], ["b", "a", "c"]]
    assert texts[2] == [f"{d:.3g}" for d in pairs.distance[chosen]]
    low, high = display.images_[2].get_clim()
    assert low == -high < 0  # the colors diverge around 0
    assert display.images_[0].get_clim() == display.images_[1].get_clim()


@pytest.mark.parametrize("channels_first", [True, False])
def test_images_in_color_and_from_vectors(channels_first):
    rng = np.random.default_rng(1)
    shape = (3, 4, 6) if channels_first else (4, 6, 3)
    inner, outer = rng.random((2, 2, *shape))
    pairs = make_pairs(inner, outer, [0, 1], [1, 0])
    vectors = replace(pairs, inner=inner.reshape(2, -1), outer=outer.reshape(2, -1))
    one = BoundaryPairsDisplay.from_pairs(pairs)
    two = BoundaryPairsDisplay.from_pairs(vectors, image_shape=shape)
    for a, b in zip(one.images_, two.images_):
        np.testing.assert_array_equal(a.get_array(), b.get_array())
    assert one.images_[0].get_array().shape == (4, 13, 3)
    assert one.images_[2].get_array().shape == (4, 13)


def test_tables():
    inner = np.array([[0.0, 10.0, 5.0], [1.0, 30.0, 5.0]])
    outer = np.array([[1.0, 10.0, 5.0], [0.5, 20.0, 5.0]])
    pairs = make_pairs(inner, outer, ["no", "yes"], ["yes", "no"])
    display = BoundaryPairsDisplay.from_pairs(
        pairs, feature_names=["height", "a name of more than twenty letters", "constant"]
    )
    assert display.axes_.shape == (1, 2) and display.images_ == []
    first, second = display.dumbbells_
    assert len(first) == 1 and len(second) == 2  # the columns that change
    np.testing.assert_allclose(first[0].get_xdata(), [0, 1])
    np.testing.assert_allclose([line.get_xdata() for line in second], [[1, 0.5], [1, 0.5]])
    (label,) = display.axes_[0, 0].get_yticklabels()
    assert label.get_text() == "height\n0 → 1"
    assert "…" in display.axes_[0, 1].get_yticklabels()[1].get_text()
    assert display.axes_[0, 0].get_title() == f"no → yes: {pairs.distance[0]:.3g}"
    ends = [c.get_label() for c in display.axes_[0, 0].collections]
    assert ends == ["no", "yes"]
    assert BoundaryPairsDisplay.from_pairs(pairs).feature_names.tolist() == ["x0", "x1", "x2"]


def test_many_columns_and_pairs():
    rng = np.random.default_rng(2)
    inner, outer = rng.random((2, 30, 40))
    pairs = make_pairs(inner, outer, np.arange(30) % 5, np.arange(30) % 5 + 1)
    display = BoundaryPairsDisplay.from_pairs(pairs, n=6)
    assert display.axes_.shape == (2, 4) and not display.axes_[1, 2].axison
    assert [len(lines) for lines in display.dumbbells_] == [6] * 6
    extent = [abs(np.diff(line.get_xdata())[0]) for line in display.dumbbells_[0]]
    assert extent == sorted(extent, reverse=True)


def test_given_axes_and_keywords(image_pairs):
    _, axes = plt.subplots(3, 1)
    display = BoundaryPairsDisplay.from_pairs(image_pairs, ax=axes, name="pairs")
    assert display.axes_[1, 0] is axes[1] and axes[0].get_title("left") == "pairs"
    _, ax = plt.subplots()
    display = BoundaryPairsDisplay.from_pairs(image_pairs, ax=ax, image_kwargs={"cmap": "viridis"})
    assert display.bounding_ax_ is ax and display.images_[0].cmap.name == "viridis"
    vectors = make_pairs(np.zeros((2, 3)), np.ones((2, 3)), [0, 0], [1, 1])
    display = BoundaryPairsDisplay.from_pairs(vectors, curve_kwargs={"lw": 5})
    assert display.dumbbells_[0][0].get_linewidth() == 5


def test_errors(image_pairs):
    failed = replace(image_pairs, success=np.zeros(5, bool))
    with pytest.raises(ValueError, match="None of the 5 pairs"):
        BoundaryPairsDisplay.from_pairs(failed)
    with pytest.raises(ValueError, match="at least 1"):
        BoundaryPairsDisplay.from_pairs(image_pairs, n=0)
    with pytest.raises(ValueError, match="holds 25 values"):
        BoundaryPairsDisplay.from_pairs(image_pairs, image_shape=(5, 5))
    vectors = make_pairs(np.zeros((2, 3)), np.ones((2, 3)), [0, 0], [1, 1])
    with pytest.raises(ValueError, match="3 features"):
        BoundaryPairsDisplay.from_pairs(vectors, feature_names=["a", "b"])
