"""QueryWeightDisplay: scores over the number of neighbors and the weight of the sample itself."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary.display._heat_map import draw_heat_map
from skboundary.display._style import line_styles, load_pyplot, many_axes, size_in_points

_PAPER = (3, 0.88)  # n_neighbors and query_weight of LaSeNN


class QueryWeightDisplay:
    """Scores of a `LatentKNNClassifier` over `n_neighbors` and `query_weight`, as a heat map.

    The setting of the paper [1]_, 3 neighbors and the weight .88, is marked by a square, and the
    best one by a star. The weight 1 is the base network. One map per value of `average`.

    Create it by :meth:`from_sweep`. All parameters are stored as attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    n_neighbors : ndarray of shape (n_numbers,)
    query_weight : ndarray of shape (n_weights,)
        Both ascending.
    scores : ndarray of shape (n_averages, n_numbers, n_weights)
        NaN for settings that were not scored.
    averages : list of str
        Values of `average`, one per map.
    name : str, default=None
        Title of the picture.

    Attributes
    ----------
    images_ : list of matplotlib AxesImage
        One per map, all of one range of colors.
    texts_ : list of list of matplotlib Text
        The scores in the cells of each map; empty where they would not fit.
    paper_ : list of matplotlib Line2D or None
        The mark of the paper's setting in each map, None if it was not scored.
    best_ : matplotlib Line2D
        The mark of the best setting, the first one of equals.
    axes_ : ndarray of matplotlib Axes, of shape (1, n_averages)
    bounding_ax_ : matplotlib Axes or None
        The axes that were split.
    figure_ : matplotlib Figure

    See Also
    --------
    LatentKNNClassifier.sweep : Scores all settings in one pass of the network.

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       `arXiv 2310.03927 <https://arxiv.org/abs/2310.03927>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentKNNClassifier, QueryWeightDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LatentKNNClassifier(random_state=0).fit(X[::2], y[::2])
    >>> display = QueryWeightDisplay.from_sweep(clf.sweep(X[1::2], y[1::2]))
    >>> display.scores.shape
    (1, 4, 7)
    """

    def __init__(
        self,
        *,
        n_neighbors: NDArray[Any],
        query_weight: NDArray[Any],
        scores: NDArray[Any],
        averages: list[str],
        name: str | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.query_weight = query_weight
        self.scores = scores
        self.averages = averages
        self.name = name

    @classmethod
    def from_sweep(
        cls, results: Mapping[str, Any], *, ax: Any = None, **kwargs: Any
    ) -> QueryWeightDisplay:
        """Arrange the scores of a sweep, and draw them.

        Parameters
        ----------
        results : dict
            From :meth:`LatentKNNClassifier.sweep`, or `cv_results_` of a search over
            `n_neighbors` and `query_weight` (and `average`), also as parameters of a step of a
            pipeline.
        ax : matplotlib Axes or list of them, default=None
            See :meth:`plot`.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : QueryWeightDisplay

        Raises
        ------
        ValueError
            If a parameter is missing, or a setting was scored several times because others
            differ.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("QueryWeightDisplay.from_sweep")
        numbers, weights = _values(results, "n_neighbors"), _values(results, "query_weight")
        averages = _values(results, "average", default="proba")
        if numbers is None or weights is None or averages is None:
            missing = "n_neighbors" if numbers is None else "query_weight"
            raise ValueError(
                f"results has no param_{missing}. Pass the results of sweep, or cv_results_ of a "
                "search over n_neighbors and query_weight."
            )
        (ks, i), (ws, j), (names, a) = (
            np.unique(values, return_inverse=True) for values in (numbers, weights, averages)
        )
        scores = np.full((len(names), len(ks), len(ws)), np.nan)
        scores[a, i, j] = results["mean_test_score"]
        if len({*zip(a.tolist(), i.tolist(), j.tolist(), strict=True)}) < len(numbers):
            raise ValueError(
                "results holds several scores of one setting, because other parameters differ. "
                "Select those of one value of each."
            )
        display = cls(n_neighbors=ks, query_weight=ws, scores=scores, averages=names.tolist())
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        curve_kwargs: dict[str, Any] | list[dict[str, Any]] | None = None,
        image_kwargs: dict[str, Any] | None = None,
    ) -> QueryWeightDisplay:
        """Draw the maps.

        Parameters
        ----------
        ax : matplotlib Axes or list of them, default=None
            One per map, or one, which is split if there are several. None makes a new figure.
        name : str, default=None
            Title.
        curve_kwargs : dict or list of 2 dict, default=None
            Keywords of the marks of the paper's setting and of the best one.
        image_kwargs : dict, default=None
            Keywords of :meth:`matplotlib.axes.Axes.imshow`.

        Returns
        -------
        self : QueryWeightDisplay
        """
        n, rows, columns = self.scores.shape
        single = n == 1 and ax is not None and hasattr(ax, "get_subplotspec")
        size = (n * (0.62 * columns + 0.6) + 1.4, 0.5 * rows + 1.3)
        self.axes_, self.bounding_ax_ = many_axes([ax] if single else ax, 1, n, size)
        self.figure_ = self.axes_[0, 0].figure
        width, height = size_in_points(self.axes_[0, 0])
        cell = 0.8 * min(width / columns, height / rows, 32)
        white = {"markeredgecolor": "white", "markerfacecolor": "none"}
        paper, best = line_styles(
            [
                {"marker": "s", "markersize": cell, **white},
                {
                    "marker": "*",
                    "markersize": cell / 2.5,
                    "markeredgecolor": "black",
                    "markerfacecolor": "white",
                },
            ],
            curve_kwargs,
        )
        limits = {"vmin": np.nanmin(self.scores), "vmax": np.nanmax(self.scores)}
        self.images_, self.texts_, self.paper_ = [], [], []
        for axes, scores, average in zip(self.axes_[0], self.scores, self.averages, strict=True):
            ticks = [f"{w:g}" for w in self.query_weight]
            image, texts = draw_heat_map(
                axes, scores, self.n_neighbors, ticks, ".3f", {**limits, **(image_kwargs or {})}
            )
            axes.set(xlabel="query_weight (□ paper, ★ best)", ylabel="n_neighbors")
            if n > 1:
                axes.set_title(f"average of {average}")
            self.images_.append(image)
            self.texts_.append(texts)
            self.paper_.append(self._mark_paper(axes, scores, paper))
        a, i, j = np.unravel_index(np.nanargmax(self.scores), self.scores.shape)
        (self.best_,) = self.axes_[0, a].plot(j + 0.33, i - 0.3, **best, linestyle="none")
        self.figure_.colorbar(self.images_[-1], ax=self.axes_[0].tolist(), label="score")
        title = self.name if name is None else name
        if title is not None:
            self.axes_[0, 0].set_title(title, loc="left")
        return self

    def _mark_paper(self, ax: Any, scores: NDArray[Any], style: dict[str, Any]) -> Any:
        i = np.flatnonzero(self.n_neighbors == _PAPER[0])
        j = np.flatnonzero(np.isclose(self.query_weight, _PAPER[1]))
        if not len(i) or not len(j) or np.isnan(scores[i[0], j[0]]):
            return None
        return ax.plot(j[0], i[0], **style, linestyle="none", markeredgewidth=2)[0]


def _values(results: Mapping[str, Any], name: str, default: Any = None) -> NDArray[Any] | None:
    """Values of a parameter in all settings, whatever step of a pipeline it belongs to."""
    keys = [key for key in results if key == f"param_{name}" or key.endswith(f"__{name}")]
    if len(keys) > 1:
        raise ValueError(f"results holds {name} of several steps: {sorted(keys)}. Select one.")
    if keys:
        return np.array(np.ma.getdata(results[keys[0]]).tolist())
    return None if default is None else np.full(len(results["mean_test_score"]), default)
