"""LatentProjectionDisplay: samples between class means, and those whose prediction changes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skboundary.display._style import (
    class_color,
    legend_beside,
    line_styles,
    load_pyplot,
    many_axes,
)
from skboundary.networks._labels import encode_labels

_MAX_BINS = 40
_MAX_LINES, _N_ACROSS = 4, 2


class LatentProjectionDisplay:
    """Latent vectors projected on the lines that join class means, as in LaSeNN [1]_.

    Densities of the samples of two classes along the line from the mean of one (0) to the nearest
    other class mean (1), and on a second axis the number of those whose prediction the neighbors
    change: they lie in the gap between the classes.

    Create it by :meth:`from_estimator`. All parameters are stored as attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    projections : ndarray of shape (n_samples, n_classes)
        Position of each sample on the line that starts at each class.
    labels : ndarray of shape (n_samples,)
        Classes of the samples, as positions in `classes`.
    changed : ndarray of shape (n_samples,) of bool
        Whether the neighbors change the prediction.
    nearest : ndarray of shape (n_classes,)
        The class at the end of each line, as a position in `classes`.
    classes : ndarray of shape (n_classes,)
        Class labels.
    name : str, default=None
        Title of the picture.

    Attributes
    ----------
    lines_ : list of tuple (int, int)
        Start and end of the line in each axes, as positions in `classes`.
    densities_ : list of tuple of matplotlib StepPatch
        For each line the densities of both classes, each with the integral 1.
    changed_ : list of matplotlib StepPatch
        Numbers of changed samples of the two classes.
    axes_ : ndarray of matplotlib Axes
    twin_axes_ : list of matplotlib Axes
        Those of `changed_`.
    bounding_ax_ : matplotlib Axes or None
        The axes that were split.
    figure_ : matplotlib Figure

    See Also
    --------
    LatentKNNClassifier.diagnose : The projections as arrays.

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       `arXiv 2310.03927 <https://arxiv.org/abs/2310.03927>`_, section 3.2.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentKNNClassifier, LatentProjectionDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LatentKNNClassifier(query_weight=0.2, random_state=0).fit(X[::2], y[::2])
    >>> display = LatentProjectionDisplay.from_estimator(clf, X[1::2], y[1::2])
    >>> sorted(display.lines_)
    [(0, 1), (1, 2)]
    """

    def __init__(
        self,
        *,
        projections: NDArray[Any],
        labels: NDArray[np.intp],
        changed: NDArray[np.bool_],
        nearest: NDArray[np.intp],
        classes: NDArray[Any],
        name: str | None = None,
    ) -> None:
        self.projections = projections
        self.labels = labels
        self.changed = changed
        self.nearest = nearest
        self.classes = classes
        self.name = name

    @classmethod
    def from_estimator(
        cls, est: Any, X: ArrayLike, y: ArrayLike, *, ax: Any = None, **kwargs: Any
    ) -> LatentProjectionDisplay:
        """Project samples, and draw their densities.

        Parameters
        ----------
        est : LatentKNNClassifier
            Fitted with labels.
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
            True labels.
        ax : matplotlib Axes or list of them, default=None
            See :meth:`plot`.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : LatentProjectionDisplay

        Raises
        ------
        ValueError
            As :meth:`LatentKNNClassifier.diagnose`.
        NotFittedError
            If `est` is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("LatentProjectionDisplay.from_estimator")
        found = est.diagnose(X, y)
        display = cls(
            projections=found.projections,
            labels=encode_labels(np.asarray(y), est.classes_),
            changed=found.changed,
            nearest=encode_labels(found.nearest_class, est.classes_),
            classes=est.classes_,
        )
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        curve_kwargs: dict[str, Any] | list[dict[str, Any]] | None = None,
        classes: Sequence[Any] | None = None,
    ) -> LatentProjectionDisplay:
        """Draw the densities.

        Parameters
        ----------
        ax : matplotlib Axes or list of them, default=None
            As many as lines, or one, which is split if there are several. None makes a new
            figure.
        name : str, default=None
            Title.
        curve_kwargs : dict or list of 2 dict, default=None
            Keywords of both densities, or of those of the first and the second class.
        classes : sequence of class labels, default=None
            Where the lines start. None draws up to 4 lines, those with the most changed samples.

        Returns
        -------
        self : LatentProjectionDisplay

        Raises
        ------
        ValueError
            For an unknown class.
        """
        starts = None if classes is None else encode_labels(np.asarray(classes), self.classes)
        self.lines_ = self._most_changed() if starts is None else self._lines(starts)
        n = len(self.lines_)
        single = n == 1 and ax is not None and hasattr(ax, "get_subplotspec")
        whole = ax is None or (hasattr(ax, "get_subplotspec") and not single)
        across = min(n, _N_ACROSS) if whole else n
        rows = -(-n // across)
        size = (4.6 * across, 2.6 * rows)
        self.axes_, self.bounding_ax_ = many_axes([ax] if single else ax, rows, across, size)
        self.figure_ = self.axes_[0, 0].figure
        self.densities_: list[tuple[Any, ...]] = []
        self.changed_: list[Any] = []
        self.twin_axes_: list[Any] = []
        for axes, line in zip(self.axes_.ravel(), self.lines_, strict=False):
            self._draw(axes, line, curve_kwargs)
        for axes in self.axes_.ravel()[n:]:
            axes.set_axis_off()
        title = self.name if name is None else name
        if title is not None:
            self.figure_.suptitle(title)
        return self

    def _lines(self, starts: NDArray[np.intp]) -> list[tuple[int, int]]:
        return [(c, int(self.nearest[c])) for c in starts.tolist()]

    def _most_changed(self) -> list[tuple[int, int]]:
        """Different lines by falling number of changed samples of their two classes."""
        counts = np.bincount(self.labels[self.changed], minlength=len(self.classes))
        present = np.bincount(self.labels, minlength=len(self.classes)) > 0
        starts = np.flatnonzero(present)
        order = starts[np.argsort(-(counts + counts[self.nearest])[starts], kind="stable")]
        lines: list[tuple[int, int]] = []
        for start, end in self._lines(order):
            if (end, start) not in lines:  # the same line from its other end
                lines.append((start, end))
        return lines[:_MAX_LINES]

    def _draw(self, ax: Any, line: tuple[int, int], curve_kwargs: Any) -> None:
        start, end = line
        at = self.projections[:, start]
        of = [self.labels == code for code in line]
        either = of[0] | of[1]
        n_bins = int(np.clip(np.sqrt(either.sum()), 5, _MAX_BINS))
        edges = np.histogram_bin_edges(at[either], n_bins)
        styles = line_styles(
            [
                {"color": class_color(code), "linewidth": 1.8, "linestyle": shape}
                for code, shape in zip(line, ("-", "--"), strict=True)
            ],
            curve_kwargs,
        )
        twin = ax.twinx()
        counts, _ = np.histogram(at[either & self.changed], edges)
        bars = twin.stairs(counts, edges, fill=True, color="black", alpha=0.35, label="changed")
        drawn = []
        for code, mask, style in zip(line, of, styles, strict=True):
            density = np.histogram(at[mask], edges, density=mask.any())[0]
            drawn.append(ax.stairs(density, edges, label=str(self.classes[code]), **style))
        ax.set_zorder(twin.get_zorder() + 1)
        ax.patch.set_visible(False)
        ax.set_xlabel(f"from the mean of {self.classes[start]} to that of {self.classes[end]}")
        ax.set_ylabel("density")
        twin.set_ylabel("changed")
        twin.set_ylim(0, max(2 * counts.max(), 2))  # the lower half
        twin.yaxis.get_major_locator().set_params(integer=True)
        legend_beside(
            ax, [*drawn, bars], loc="lower left", bbox_to_anchor=(0, 1), ncols=3, columnspacing=1
        )
        self.densities_.append(tuple(drawn))
        self.changed_.append(bars)
        self.twin_axes_.append(twin)
