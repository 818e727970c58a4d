"""MarginSpectrumDisplay: medians, bands and shares of the margins."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Bunch

from skboundary import MarginSpectrumDisplay, SubspaceMargins


def make_spectrum(margins, names=("low", "mid", "high")):
    return Bunch(
        margins=margins,
        flipped=np.isfinite(margins),
        censored=1 - np.isfinite(margins).mean(0),
        names=np.array(names),
    )


def band_of(band):
    """Lowest and highest values of a band at each position."""
    points = band.get_paths()[0].vertices
    at = [points[points[:, 0] == x, 1] for x in range(3)]
    return [values.min() for values in at], [values.max() for values in at]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_quantiles_of_the_margins(scale, dtype):
    margins = (scale * np.random.default_rng(0).random((41, 3))).astype(dtype)
    display = MarginSpectrumDisplay.from_spectra([make_spectrum(margins)], ["net"])
    low, median, high = np.quantile(margins, [0.05, 0.5, 0.95], axis=0)
    np.testing.assert_allclose(display.lines_[0].get_ydata(), median, rtol=1e-5)
    drawn = band_of(display.bands_[0])
    np.testing.assert_allclose(drawn[0], low, rtol=1e-5)
    np.testing.assert_allclose(drawn[1], high, rtol=1e-5)
    assert display.axes_[0, 0].get_yscale() == "log"
    np.testing.assert_array_equal(display.censored_[0].get_ydata(), [0, 0, 0])


def test_infinite_margins_are_left_out_and_counted():
    margins = np.ones((10, 3))
    margins[:2, 1] = margins[:, 2] = np.inf
    display = MarginSpectrumDisplay.from_spectra([make_spectrum(margins)], ["net"])
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), [1, 1, np.nan])
    np.testing.assert_allclose(display.censored_[0].get_ydata(), [0, 0.2, 1])


def test_several_networks_differ_in_everything():
    rng = np.random.default_rng(0)
    spectra = [make_spectrum(rng.random((5, 3))) for _ in range(3)]
    _, axes = plt.subplots(2, 1)
    display = MarginSpectrumDisplay.from_spectra(spectra, ["a", "b", "c"], ax=axes, name="nets")
    for what in ("color", "marker", "linestyle"):
        looks = {str(getattr(line, f"get_{what}")()) for line in display.lines_}
        assert len(looks) == 3, what
    texts = axes[0].get_legend().get_texts()
    assert [t.get_text() for t in texts] == ["a", "b", "c"]
    assert axes[0].get_title() == "nets"
    assert [t.get_text() for t in axes[1].get_xticklabels()] == ["low", "mid", "high"]
    styles = [{"color": "red"}, {"lw": 5}, {}]
    display.plot(curve_kwargs=styles)
    assert display.lines_[0].get_color() == "red" and display.lines_[1].get_linewidth() == 5
    np.testing.assert_allclose(display.bands_[0].get_facecolor()[0, :3], [1, 0, 0])
    with pytest.raises(ValueError, match="3 curves"):
        display.plot(curve_kwargs=styles[:2])


def test_from_estimator(iris):
    X, y = iris
    est = SubspaceMargins(LogisticRegression(max_iter=500)).fit(X, y)
    display = MarginSpectrumDisplay.from_estimator(est, X)
    np.testing.assert_allclose(display.median[0], est.spectrum(X).median)
    assert display.names == ["LogisticRegression"]
    assert MarginSpectrumDisplay.from_estimator(est, X, name="linear").names == ["linear"]


def test_errors():
    spectrum = make_spectrum(np.ones((2, 3)))
    with pytest.raises(ValueError, match="1 entries and names 2"):
        MarginSpectrumDisplay.from_spectra([spectrum], ["a", "b"])
    with pytest.raises(ValueError, match="at least one"):
        MarginSpectrumDisplay.from_spectra([], [])
    other = make_spectrum(np.ones((2, 3)), ("x", "y", "z"))
    with pytest.raises(ValueError, match="subspaces of 'b' differ"):
        MarginSpectrumDisplay.from_spectra([spectrum, other], ["a", "b"])
