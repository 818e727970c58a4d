"""MarginSpectrumDisplay: margins of one or several classifiers over subspaces."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skboundary.boundary._subspace_margins import _quantiles
from skboundary.display._response import name_of
from skboundary.display._style import (
    TEXT,
    class_color,
    class_marker,
    legend_beside,
    line_styles,
    load_pyplot,
    many_axes,
)

_LEVELS = [0.05, 0.5, 0.95]
_LINES = ("-", "--", "-.", ":")
_MAX_TICKS = 12
_MAX_MARKERS = 40  # subspaces; more markers than that hide the line


class MarginSpectrumDisplay:
    """Distances to the boundary inside subspaces, as in the figures of "Hold me tight!" [1]_.

    Above the median margin of the samples in each subspace and the band from the 5 % to the 95 %
    quantile, on a logarithmic axis; below the share of samples without a boundary. Several
    classifiers differ in color, marker and line.

    Create it by :meth:`from_estimator` or :meth:`from_spectra`. All parameters are stored as
    attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    median, low, high, censored : ndarray of shape (n_spectra, n_subspaces)
        Median and quantiles of the margins, in units of X, and share of samples for which no
        boundary was found.
    subspaces : ndarray of shape (n_subspaces,)
        Names of the subspaces.
    names : list of str
        Names of the spectra.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The medians. Infinite margins are not drawn.
    bands_ : list of matplotlib FillBetweenPolyCollection
        The ranges of the quantiles.
    censored_ : list of matplotlib Line2D
        The shares of samples without a boundary.
    axes_ : ndarray of matplotlib Axes, of shape (2, 1)
    bounding_ax_ : matplotlib Axes or None
        The axes that were split.
    figure_ : matplotlib Figure

    See Also
    --------
    SubspaceMargins : Measures the margins.

    References
    ----------
    .. [1] G. Ortiz-Jimenez, A. Modas, S. Moosavi-Dezfooli, P. Frossard, "Hold me tight!
       Influence of discriminative features on deep network boundaries", `arXiv 2002.06349
       <https://arxiv.org/abs/2002.06349>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skboundary import MarginSpectrumDisplay, SubspaceMargins
    >>> X, y = load_iris(return_X_y=True)
    >>> margins = SubspaceMargins(LogisticRegression(max_iter=1000)).fit(X, y)
    >>> MarginSpectrumDisplay.from_estimator(margins, X).median.shape
    (1, 4)
    """

    def __init__(
        self,
        *,
        median: NDArray[Any],
        low: NDArray[Any],
        high: NDArray[Any],
        censored: NDArray[Any],
        subspaces: NDArray[Any],
        names: list[str],
    ) -> None:
        self.median = median
        self.low = low
        self.high = high
        self.censored = censored
        self.subspaces = subspaces
        self.names = names

    @classmethod
    def from_estimator(
        cls, est: Any, X: ArrayLike, *, name: str | None = None, ax: Any = None, **kwargs: Any
    ) -> MarginSpectrumDisplay:
        """Measure the margins of samples, and draw them.

        Parameters
        ----------
        est : SubspaceMargins
            Fitted.
        X : array-like of shape (n_samples, ...)
        name : str, default=None
            Name in the legend. None is the class of the classifier.
        ax : matplotlib Axes or list of 2 Axes, default=None
            See :meth:`plot`.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : MarginSpectrumDisplay

        Raises
        ------
        NotFittedError
            If `est` is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("MarginSpectrumDisplay.from_estimator")
        spectrum = est.spectrum(X)
        names = [name_of(est.estimator_) if name is None else name]
        return cls._of([spectrum], names).plot(ax, **kwargs)

    @classmethod
    def from_spectra(
        cls, spectra: Sequence[Any], names: Sequence[str], *, ax: Any = None, **kwargs: Any
    ) -> MarginSpectrumDisplay:
        """Draw the spectra of several classifiers.

        Parameters
        ----------
        spectra : list of Bunch
            From :meth:`SubspaceMargins.spectrum`, with equal subspaces.
        names : list of str
            Their names in the legend.
        ax : matplotlib Axes or list of 2 Axes, default=None
            See :meth:`plot`.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : MarginSpectrumDisplay

        Raises
        ------
        ValueError
            If the numbers of spectra and names differ, if there are none, or if the subspaces
            differ.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("MarginSpectrumDisplay.from_spectra")
        if len(spectra) != len(names) or not len(names):
            raise ValueError(
                f"spectra has {len(spectra)} entries and names {len(names)}. Give at least one "
                "spectrum, and a name for each."
            )
        for name, spectrum in zip(names, spectra, strict=True):
            if [*spectrum.names] != [*spectra[0].names]:
                raise ValueError(
                    f"The subspaces of {name!r} differ from those of {names[0]!r}. Measure both "
                    "in the same subspaces."
                )
        return cls._of(spectra, [*names]).plot(ax, **kwargs)

    @classmethod
    def _of(cls, spectra: Sequence[Any], names: list[str]) -> MarginSpectrumDisplay:
        low, median, high = np.stack([_quantiles(s.margins, _LEVELS) for s in spectra], axis=1)
        return cls(
            median=median,
            low=low,
            high=high,
            censored=np.stack([s.censored for s in spectra]),
            subspaces=np.asarray(spectra[0].names),
            names=names,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        curve_kwargs: dict[str, Any] | list[dict[str, Any]] | None = None,
        fill_kwargs: dict[str, Any] | None = None,
    ) -> MarginSpectrumDisplay:
        """Draw the spectra.

        Parameters
        ----------
        ax : matplotlib Axes or list of 2 Axes, default=None
            For the margins and for the share of samples without a boundary. One axes is split.
            None makes a new figure.
        name : str, default=None
            Title.
        curve_kwargs : dict or list of dict, default=None
            Keywords of the lines, of all or of each.
        fill_kwargs : dict, default=None
            Keywords of :meth:`matplotlib.axes.Axes.fill_between` for the bands.

        Returns
        -------
        self : MarginSpectrumDisplay
        """
        from matplotlib.ticker import LogLocator, NullFormatter

        self.axes_, self.bounding_ax_ = many_axes(ax, 2, 1, (6.4, 4.8), height_ratios=[4, 1])
        above, below = self.axes_[:, 0]
        self.figure_ = above.figure
        at = np.arange(len(self.subspaces))
        marked = len(at) <= _MAX_MARKERS
        styles = line_styles(
            [
                {
                    "color": class_color(i),
                    "marker": class_marker(i) if marked else "none",
                    "markersize": 4,
                    "linestyle": _LINES[i % len(_LINES)],
                    "label": name_,
                }
                for i, name_ in enumerate(self.names)
            ],
            curve_kwargs,
        )
        self.lines_, self.bands_, self.censored_ = [], [], []
        for i, style in enumerate(styles):
            self.lines_ += above.plot(at, _finite(self.median[i]), **style)
            fill = {"color": style["color"], "alpha": 0.15, "linewidth": 0, **(fill_kwargs or {})}
            band = above.fill_between(at, _finite(self.low[i]), _finite(self.high[i]), **fill)
            self.bands_.append(band)
            self.censored_ += below.plot(at, self.censored[i], **style)
        step = -(-len(at) // _MAX_TICKS)
        above.set(yscale="log", ylabel="margin", xticks=at[::step], title=name)
        above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        above.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        above.yaxis.set_minor_formatter(NullFormatter())
        above.tick_params(labelbottom=False)
        below.set(ylim=(-0.05, 1.05))
        below.set_ylabel("no\nboundary", **TEXT)
        below.set_xticks(at[::step], [str(s) for s in self.subspaces[::step]], rotation=90)
        legend_beside(above, self.lines_)
        return self


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isfinite(values), values, np.nan)
