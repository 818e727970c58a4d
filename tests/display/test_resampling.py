"""ResamplingDisplay: the samples of the sampler, on their side of the boundary."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from skboundary import BiasedExtrapolationSampler, ResamplingDisplay


@pytest.fixture
def problem():
    return make_classification(200, 6, weights=[0.85], random_state=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_margins_and_probabilities(problem, dtype):
    X, y = problem[0].astype(dtype), np.where(problem[1], "rare", "frequent")
    sampler = BiasedExtrapolationSampler(LogisticRegression(), random_state=0)
    X_new, _ = sampler.fit_resample(X, y)
    display = ResamplingDisplay.from_sampler(sampler, X, y)
    assert display.classes[list(display.pair)].tolist() == ["rare", "frequent"]
    margin = sampler.estimator_.decision_function(X_new)  # of "rare", the second class
    np.testing.assert_allclose(display.originals[:, 0], margin[: len(X)], atol=1e-4)
    np.testing.assert_allclose(display.synthetic[:, 0], margin[len(X) :], atol=1e-4)
    np.testing.assert_array_equal(display.synthetic_.get_offsets(), display.synthetic)
    np.testing.assert_array_equal(display.boundary_.get_xdata(), [0, 0])
    p = 1 / (1 + np.exp(-display.synthetic[:, 0]))
    np.testing.assert_allclose(display.reached, p, atol=1e-5)
    aimed = ~np.isnan(sampler.targets_)
    np.testing.assert_allclose(
        display.probabilities_.get_offsets(),
        np.column_stack([sampler.targets_, sampler.probabilities_])[aimed],
    )
    # the map is linear here, so that samples lie on the lines between their parents
    t = sampler.positions_[:, None]
    first, last = (display.originals[display.parents[:, end]] for end in (0, 1))
    np.testing.assert_allclose(display.synthetic, first + t * (last - first), atol=1e-4)
    segments = display.parents_.get_segments()
    assert len(segments) == 25
    np.testing.assert_allclose(segments[0], [first[0], display.synthetic[0], last[0]])
    shown = {c.get_label(): len(c.get_offsets()) for c in display.originals_.values()}
    assert shown == {"rare": (y == "rare").sum(), "frequent": (y == "frequent").sum()}


def test_a_single_outlier_does_not_choose_the_direction(problem):
    X, y = problem
    X = np.column_stack([X, 1e-3 * np.random.default_rng(0).standard_normal(200)])
    X[np.flatnonzero(y == 0)[0], 6] = 30
    sampler = BiasedExtrapolationSampler(LogisticRegression(), random_state=0)
    sampler.fit_resample(X, y)
    display = ResamplingDisplay.from_sampler(sampler, X, y)
    assert np.abs(display.originals[:, 1]).max() < 20


def test_several_classes(digits, cnn):
    X, y = digits
    keep = (y < 4) & ((y > 1) | (np.arange(len(y)) % 4 == 0))  # 0 and 1 are rare
    X, y = X[keep], y[keep]
    sampler = BiasedExtrapolationSampler(cnn, random_state=0)
    sampler.fit_resample(X, y)
    for pair in sampler.pairs_:
        display = ResamplingDisplay.from_sampler(sampler, X, y, pair=pair)
        assert tuple(display.classes[list(display.pair)]) == tuple(pair)
        assert len(display.originals) == np.isin(y, pair).sum()
    counts = {
        c: sum(
            len(ResamplingDisplay.from_sampler(sampler, X, y, pair=p).synthetic)
            for p in sampler.pairs_
            if p[0] == c
        )
        for c, n in sampler.sampling_strategy_.items()
        if n
    }
    assert counts == {c: n for c, n in sampler.sampling_strategy_.items() if n}
    with pytest.raises(ValueError, match="is not one of sampler.pairs_"):
        ResamplingDisplay.from_sampler(sampler, X, y, pair=(9, 8))


def test_forests_frames_axes_and_keywords(problem):
    X, y = pd.DataFrame(problem[0], columns=list("abcdef")), problem[1]
    forest = RandomForestClassifier(20, random_state=0)
    sampler = BiasedExtrapolationSampler(forest, random_state=0)
    sampler.fit_resample(X, y)
    _, axes = plt.subplots(1, 2)
    display = ResamplingDisplay.from_sampler(
        sampler,
        X,
        y,
        ax=axes,
        name="forest",
        curve_kwargs={"lw": 4},
        scatter_kwargs={"s": 50},
    )
    assert display.axes_[0, 1] is axes[1] and axes[0].get_title("left") == "forest"
    assert display.boundary_.get_linewidth() == 4 and display.synthetic_.get_sizes() == [50]
    predicted = sampler.estimator_.predict(X)
    certain = np.abs(display.originals[:, 0]) > 1e-9
    np.testing.assert_array_equal((display.originals[:, 0] > 0)[certain], (predicted == 1)[certain])


def test_errors(problem):
    X, y = problem
    sampler = BiasedExtrapolationSampler(random_state=0)
    with pytest.raises(NotFittedError):
        ResamplingDisplay.from_sampler(sampler, X, y)
    sampler.fit_resample(X, y)
    for wrong in ((X[::-1], y[::-1]), (X[:20], y[:20])):
        with pytest.raises(ValueError, match="given to fit_resample"):
            ResamplingDisplay.from_sampler(sampler, *wrong)
    balanced = np.arange(200) % 2
    sampler.fit_resample(X, balanced)
    with pytest.raises(ValueError, match="made no samples"):
        ResamplingDisplay.from_sampler(sampler, X, balanced)
