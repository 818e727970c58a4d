"""BoundaryPairsDisplay: pairs of points on either side of a boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skboundary.display._images import as_images, largest_change, show
from skboundary.display._style import (
    TEXT,
    class_color,
    class_marker,
    line_style,
    load_pyplot,
    many_axes,
)

_MAX_COLUMNS = 6  # of a table, in the picture of one pair
_MAX_NAME = 20  # characters of the name of a column
_N_ACROSS = 4  # pictures of tables in a row


class BoundaryPairsDisplay:
    """Pairs of points on either side of a boundary, and what changes between them.

    Images are drawn as three rows: inner points, outer points, and their differences in colors
    that diverge around 0; of images in color, the channel that changes most. Samples of tables are
    drawn as dumbbells: for each pair the columns that change most, from the inner value to the
    outer one, on the range of the column over all pairs.

    Create it by :meth:`from_pairs`. All parameters are stored as attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    inner, outer : ndarray of shape (n_pairs, ...)
        The points: images of shape (height, width) or (height, width, 3), or vectors.
    source, target : ndarray of shape (n_pairs,)
        Their classes.
    distance : ndarray of shape (n_pairs,)
        The distance between them.
    classes : ndarray of shape (n_classes,)
        All class labels, sorted.
    feature_names : ndarray of shape (n_features,), default=None
        For vectors.
    low, high : ndarray of shape (n_features,), default=None
        For vectors, the range of each column.
    name : str, default=None
        Title of the picture.

    Attributes
    ----------
    images_ : list of matplotlib AxesImage
        Of the inner points, the outer points and the differences; empty for vectors.
    dumbbells_ : list of list of matplotlib Line2D
        For each pair the lines of its columns, from the largest change on; empty for images.
    axes_ : ndarray of matplotlib Axes
        Of shape (3, 1) for images; of tables one axes per pair, in rows of up to 4.
    bounding_ax_ : matplotlib Axes or None
        The axes that were split.
    figure_ : matplotlib Figure

    See Also
    --------
    BoundarySampleExtractor : Finds the pairs.

    Notes
    -----
    The ends of most methods differ by the margin tolerance and look the same; those of
    ``method="pm"`` are predicted with the probability `confidence`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import BoundaryPairsDisplay, BoundarySampleExtractor
    >>> iris = load_iris()
    >>> extractor = BoundarySampleExtractor(method="pm", random_state=0)
    >>> pairs = extractor.fit(iris.data, iris.target).extract(4)
    >>> display = BoundaryPairsDisplay.from_pairs(pairs, n=4, feature_names=iris.feature_names)
    >>> display.axes_.shape
    (1, 4)
    """

    def __init__(
        self,
        *,
        inner: NDArray[Any],
        outer: NDArray[Any],
        source: NDArray[Any],
        target: NDArray[Any],
        distance: NDArray[Any],
        classes: NDArray[Any],
        feature_names: NDArray[Any] | None = None,
        low: NDArray[Any] | None = None,
        high: NDArray[Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.inner = inner
        self.outer = outer
        self.source = source
        self.target = target
        self.distance = distance
        self.classes = classes
        self.feature_names = feature_names
        self.low = low
        self.high = high
        self.name = name

    @classmethod
    def from_pairs(
        cls,
        pairs: Any,
        *,
        n: int = 8,
        image_shape: tuple[int, ...] | None = None,
        feature_names: ArrayLike | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> BoundaryPairsDisplay:
        """Draw the first successful pairs.

        Parameters
        ----------
        pairs : BoundaryPairs
            From :meth:`BoundarySampleExtractor.extract` or
            :meth:`BoundarySampleExtractor.extract_pairs`.
        n : int, default=8
            Number of pairs, if there are as many.
        image_shape : tuple of int, default=None
            Draw vectors as images of this shape: height and width, with an axis of 1 or 3
            channels before or after. None draws vectors as tables.
        feature_names : array-like of shape (n_features,), default=None
            Names of the columns of a table; None is x0, x1, ...
        ax : matplotlib Axes or list of them, default=None
            See :meth:`plot`.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : BoundaryPairsDisplay

        Raises
        ------
        ValueError
            If no pair was successful, or for a shape or names that do not match the samples.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("BoundaryPairsDisplay.from_pairs")
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n={n!r}: use an integer of at least 1.")
        ok = np.flatnonzero(pairs.success)
        if not len(ok):
            raise ValueError(f"None of the {len(pairs)} pairs was successful; see pairs.status.")
        chosen = ok[:n]
        ends: dict[str, Any] = {}
        inner = as_images(pairs.inner[chosen], image_shape)
        if inner is not None:
            outer = as_images(pairs.outer[chosen], image_shape)
        else:
            inner, outer = pairs.inner[chosen], pairs.outer[chosen]
            both = np.concatenate([pairs.inner[ok], pairs.outer[ok]])
            names = _names(feature_names, inner.shape[1])
            ends = {"feature_names": names, "low": both.min(0), "high": both.max(0)}
        display = cls(
            inner=inner,
            outer=outer,
            source=pairs.source[chosen],
            target=pairs.target[chosen],
            distance=pairs.distance[chosen],
            classes=np.unique(np.concatenate([pairs.source, pairs.target])),
            **ends,
        )
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        curve_kwargs: dict[str, Any] | None = None,
        image_kwargs: dict[str, Any] | None = None,
    ) -> BoundaryPairsDisplay:
        """Draw the pairs.

        Parameters
        ----------
        ax : matplotlib Axes or list of them, default=None
            As many as are drawn, 3 for images and one per pair for tables, or one, which is
            split. None makes a new figure.
        name : str, default=None
            Title.
        curve_kwargs : dict, default=None
            Keywords of the lines of dumbbells.
        image_kwargs : dict, default=None
            Keywords of :meth:`matplotlib.axes.Axes.imshow` for gray images.

        Returns
        -------
        self : BoundaryPairsDisplay
        """
        self.images_: list[Any] = []
        self.dumbbells_: list[list[Any]] = []
        if self.feature_names is None:
            self._plot_images(ax, image_kwargs or {})
        else:
            self._plot_table(ax, line_style({"color": "gray", "linewidth": 2.0}, curve_kwargs))
        title = self.name if name is None else name
        if title is not None:
            self.axes_[0, 0].set_title(title, loc="left")
        return self

    def _plot_images(self, ax: Any, image_kwargs: dict[str, Any]) -> None:
        n, height, width = self.inner.shape[:3]
        size = (0.9 * n + 1.2, 3 * (0.9 * height / width + 0.3))
        self.axes_, self.bounding_ax_ = many_axes(ax, 3, 1, size)
        self.figure_ = self.axes_[0, 0].figure
        change = largest_change(self.inner, self.outer)
        low, high = (float(f([f(self.inner), f(self.outer)])) for f in (np.min, np.max))
        reach = float(np.abs(change).max())
        both = {"cmap": "RdBu_r"}
        for axes, images, title, labels, limits, style in (
            (self.axes_[0, 0], self.inner, "inner", self.source, (low, high), image_kwargs),
            (self.axes_[1, 0], self.outer, "outer", self.target, (low, high), image_kwargs),
            (
                self.axes_[2, 0],
                change,
                "difference",
                [f"{d:.3g}" for d in self.distance],
                (-reach, reach),
                both,
            ),
        ):
            image, centers = show(axes, images, *limits, **style)
            axes.set_xticks(centers, [str(text) for text in labels])
            axes.set_ylabel(title)
            self.images_.append(image)
        self.figure_.colorbar(
            self.images_[2], ax=self.axes_.ravel().tolist(), shrink=0.3, anchor=(0.0, 0.05)
        )

    def _plot_table(self, ax: Any, style: dict[str, Any]) -> None:
        n = len(self.inner)
        across = min(n, _N_ACROSS) if ax is None or hasattr(ax, "get_subplotspec") else n
        rows = -(-n // across)
        n_columns = min(_MAX_COLUMNS, self.inner.shape[1])
        size = (3.0 * across, rows * (0.42 * n_columns + 0.8))
        self.axes_, self.bounding_ax_ = many_axes(ax, rows, across, size)
        self.figure_ = self.axes_[0, 0].figure
        for i, axes in enumerate(self.axes_.ravel()):
            if i < n:
                self.dumbbells_.append(self._draw_dumbbells(axes, i, n_columns, style))
            else:
                axes.set_axis_off()

    def _draw_dumbbells(self, ax: Any, i: int, n_columns: int, style: dict[str, Any]) -> list[Any]:
        """Draw the columns of a pair that change most, from the top down."""
        assert self.feature_names is not None and self.low is not None and self.high is not None
        extent = np.where(self.high > self.low, self.high - self.low, 1.0)
        ends = np.stack([self.inner[i], self.outer[i]])
        places = (ends - self.low) / extent
        change = np.abs(places[1] - places[0])
        top = np.argsort(-change, kind="stable")[:n_columns]
        top = top[change[top] > 0]
        lines = [ax.plot(places[:, j], [y, y], **style)[0] for y, j in enumerate(top)]
        for end, label in enumerate((self.source[i], self.target[i])):
            code = int(np.searchsorted(self.classes, label))
            ax.scatter(
                places[end, top],
                range(len(top)),
                color=class_color(code),
                marker=class_marker(code),
                edgecolors="black",
                linewidths=0.5,
                zorder=3,
                label=str(label),
            )
        names = [
            f"{_shortened(self.feature_names[j])}\n{ends[0, j]:.3g} → {ends[1, j]:.3g}"
            for j in top.tolist()
        ]
        ax.set_yticks(range(len(top)), names, fontsize="x-small")
        ax.set(xlim=(-0.06, 1.06), ylim=(n_columns - 0.5, -0.5), xticks=[0, 1])
        ax.set_xticklabels(["min", "max"], **TEXT)
        ax.set_title(f"{self.source[i]} → {self.target[i]}: {self.distance[i]:.3g}", **TEXT)
        return lines


def _names(feature_names: Any, n_features: int) -> NDArray[Any]:
    if feature_names is None:
        return np.array([f"x{j}" for j in range(n_features)], dtype=object)
    names = np.asarray(feature_names, dtype=object)
    if names.shape != (n_features,):
        raise ValueError(
            f"feature_names has the shape {names.shape}, but samples have {n_features} features. "
            "Give one name for each."
        )
    return names


def _shortened(name: Any) -> str:
    text = str(name)
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 1] + "…"
