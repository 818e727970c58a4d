"""NeighborsDisplay: the neighbors behind predictions, and how they move the decision."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skboundary.display._images import as_images, show
from skboundary.display._response import samples_of
from skboundary.display._style import (
    TEXT,
    class_color,
    class_marker,
    fitting_font,
    line_style,
    load_pyplot,
    many_axes,
    scatter_classes,
    size_in_points,
)
from skboundary.networks._labels import encode_labels

_MAX_SAMPLES = 32
_MAX_CLASSES = 4  # whose probabilities are drawn


class NeighborsDisplay:
    """The neighbors behind predictions of a `LatentKNNClassifier`.

    One row per sample. Left: the sample and its neighbors with their labels, weights and distances
    in the latent space, as images if the training samples are given. Right: the probabilities of
    the most probable classes before (hollow) and after (filled) averaging with the neighbors, and
    the decision.

    Create it by :meth:`from_estimator`. All parameters are stored as attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    indices, distances, weights : ndarray of shape (n_samples, n_neighbors)
        Training samples, their distances and their weights in the decision.
    query_weight : float
        Weight of the sample's own output.
    labels : ndarray of shape (n_samples, n_neighbors)
        Labels of the neighbors, as positions in `classes`.
    predictions : ndarray of shape (n_samples, n_neighbors)
        What the base network predicts for the neighbors, as positions in `classes`.
    before, after : ndarray of shape (n_samples, n_classes)
        Probabilities of the base network, and those after averaging.
    classes : ndarray of shape (n_classes,)
        Class labels.
    images : ndarray of shape (n_samples, 1 + n_neighbors, height, width, ...), default=None
        The samples, each followed by its neighbors.
    name : str, default=None
        Title of the picture.

    Attributes
    ----------
    images_ : list of matplotlib AxesImage
        One per sample if there are images.
    neighbors_ : list of dict of matplotlib PathCollection
        One per sample otherwise: the neighbors by class, as positions in `classes`.
    moves_ : list of list of matplotlib Line2D
        For each sample a line per class, from its probability before to that after.
    axes_ : ndarray of matplotlib Axes, of shape (n_samples, 2)
    bounding_ax_ : matplotlib Axes or None
        The axes that were split.
    figure_ : matplotlib Figure

    See Also
    --------
    LatentKNNClassifier.explain : The same as arrays.

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       `arXiv 2310.03927 <https://arxiv.org/abs/2310.03927>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentKNNClassifier, NeighborsDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LatentKNNClassifier(random_state=0).fit(X, y)
    >>> NeighborsDisplay.from_estimator(clf, X[[0, 70, 106]]).axes_.shape
    (3, 2)
    """

    def __init__(
        self,
        *,
        indices: NDArray[np.intp],
        distances: NDArray[Any],
        weights: NDArray[Any],
        query_weight: float,
        labels: NDArray[np.intp],
        predictions: NDArray[np.intp],
        before: NDArray[Any],
        after: NDArray[Any],
        classes: NDArray[Any],
        images: NDArray[Any] | None = None,
        name: str | None = None,
    ) -> None:
        self.indices = indices
        self.distances = distances
        self.weights = weights
        self.query_weight = query_weight
        self.labels = labels
        self.predictions = predictions
        self.before = before
        self.after = after
        self.classes = classes
        self.images = images
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        est: Any,
        X: ArrayLike,
        *,
        X_train: ArrayLike | None = None,
        image_shape: tuple[int, ...] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> NeighborsDisplay:
        """Find the neighbors of samples, and draw them.

        Parameters
        ----------
        est : LatentKNNClassifier
            Fitted.
        X : array-like of shape (n_samples, ...)
            Up to 32 samples.
        X_train : array-like of shape (n_samples_fit, ...), default=None
            The samples that `est` was fitted on, which it does not keep, to draw them as images.
        image_shape : tuple of int, default=None
            Shape of an image where samples are vectors: height and width, with an axis of 1 or 3
            channels before or after.
        ax : matplotlib Axes or list of 2 n_samples Axes, default=None
            One axes is split. None makes a new figure.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : NeighborsDisplay

        Raises
        ------
        ValueError
            For more than 32 samples, or an X_train with another number of samples than in fit or
            that does not hold images.
        NotFittedError
            If `est` is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("NeighborsDisplay.from_estimator")
        n_samples = _num_samples(X)
        if n_samples > _MAX_SAMPLES:
            raise ValueError(
                f"X has {n_samples} samples, but at most {_MAX_SAMPLES} are drawn. Pass fewer."
            )
        found = est.explain(X)
        predictions = found.outputs.argmax(2)
        labels = predictions
        if found.labels is not None:
            labels = encode_labels(found.labels.ravel(), est.classes_).reshape(predictions.shape)
        display = cls(
            indices=found.indices,
            distances=found.distances,
            weights=found.weights,
            query_weight=found.query_weight,
            labels=labels,
            predictions=predictions,
            before=found.query_proba,
            after=found.proba,
            classes=est.classes_,
            images=_images(est, X, X_train, found.indices, image_shape),
        )
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        curve_kwargs: dict[str, Any] | None = None,
        image_kwargs: dict[str, Any] | None = None,
    ) -> NeighborsDisplay:
        """Draw the neighbors.

        Parameters
        ----------
        ax : matplotlib Axes or list of 2 n_samples Axes, default=None
            One axes is split. None makes a new figure.
        name : str, default=None
            Title.
        curve_kwargs : dict, default=None
            Keywords of the lines between the probabilities before and after.
        image_kwargs : dict, default=None
            Keywords of :meth:`matplotlib.axes.Axes.imshow` for gray images.

        Returns
        -------
        self : NeighborsDisplay
        """
        n, k = self.indices.shape
        width = max(1 + k, 3)
        self.axes_, self.bounding_ax_ = many_axes(
            ax, n, 2, (1.1 * width + 3.0, 1.6 * n + 0.3), width_ratios=[width, 3]
        )
        self.figure_ = self.axes_[0, 0].figure
        self.images_, self.neighbors_, self.moves_ = [], [], []
        style = line_style({"color": "gray", "linewidth": 2.0, "zorder": 1}, curve_kwargs)
        for i, (left, right) in enumerate(self.axes_):
            if self.images is None:
                self.neighbors_.append(self._draw_distances(left, i))
            else:
                self.images_.append(self._draw_images(left, i, image_kwargs or {}))
            self.moves_.append(self._draw_moves(right, i, style))
        self.axes_[-1, 1].set_xlabel("probability\n(hollow: without neighbors)", **TEXT)
        title = self.name if name is None else name
        if title is not None:
            self.figure_.suptitle(title)
        return self

    def _texts(self, i: int) -> list[str]:
        """Label of each neighbor of a sample, and what the network predicts if that differs."""
        names = []
        for label, predicted in zip(self.labels[i], self.predictions[i], strict=True):
            other = "" if label == predicted else f" (predicted {self.classes[predicted]})"
            names.append(f"{self.classes[label]}{other}")
        return names

    def _draw_images(self, ax: Any, i: int, image_kwargs: dict[str, Any]) -> Any:
        assert self.images is not None
        limits = float(self.images.min()), float(self.images.max())
        image, centers = show(ax, self.images[i], *limits, **image_kwargs)
        below = [["sample", f"weight {self.query_weight:.2g}"]]
        for name, weight, distance in zip(
            self._texts(i), self.weights[i], self.distances[i], strict=True
        ):
            parts = name.replace(" (", "\n(").split("\n")
            below.append([*parts, f"weight {weight:.2g}", f"at {distance:.3g}"])
        width = size_in_points(ax)[0] / len(below)
        size = fitting_font([line for lines in below for line in lines], width, 9.0)
        if size is None:  # no room but for the label
            below = [lines[:1] for lines in below]
        ax.set_xticks(centers, ["\n".join(lines) for lines in below], fontsize=size or 6.0)
        return image

    def _draw_distances(self, ax: Any, i: int) -> dict[int, Any]:
        distances, ranks = self.distances[i], np.arange(self.indices.shape[1])
        ax.hlines(ranks, 0, distances, color="gray", linewidth=1.0)
        points = np.column_stack([distances, ranks])
        drawn = scatter_classes(ax, points, self.labels[i], self.classes, s=40)
        names = zip(self._texts(i), self.weights[i], strict=True)
        ax.set_yticks(ranks, [f"{name}, weight {weight:.2g}" for name, weight in names], **TEXT)
        ax.set(xlim=(0, 1.1 * (self.distances.max() or 1.0)), ylim=(ranks[-1] + 0.5, -0.5))
        ax.tick_params(labelsize="small")
        if i == len(self.indices) - 1:
            ax.set_xlabel(f"latent distance (own weight {self.query_weight:.2g})", **TEXT)
        return drawn

    def _draw_moves(self, ax: Any, i: int, style: dict[str, Any]) -> list[Any]:
        before, after = self.before[i], self.after[i]
        top = np.argsort(-np.maximum(before, after), kind="stable")[:_MAX_CLASSES].tolist()
        lines = []
        for y, code in enumerate(top):
            lines += ax.plot([before[code], after[code]], [y, y], **style)
            for value, face in ((before[code], "white"), (after[code], class_color(code))):
                ax.scatter(
                    value,
                    y,
                    s=40,
                    marker=class_marker(code),
                    facecolor=face,
                    edgecolor=class_color(code),
                    clip_on=False,
                    zorder=3,
                )
        ax.set_yticks(range(len(top)), [str(self.classes[code]) for code in top], **TEXT)
        ax.set(xlim=(0, 1), ylim=(len(top) - 0.5, -0.5))
        ax.tick_params(labelsize="small")
        old, new = (self.classes[p.argmax()] for p in (before, after))
        ax.set_title(f"{old} → {new}" if old != new else f"{new}, not changed", **TEXT)
        return lines


def _images(
    est: Any, X: Any, X_train: Any, indices: NDArray[np.intp], image_shape: tuple[int, ...] | None
) -> NDArray[Any] | None:
    """The samples, each followed by its neighbors, as images."""
    if X_train is None:
        return None
    if len(X_train) != est.n_samples_fit_:
        raise ValueError(
            f"X_train has {len(X_train)} samples, but the classifier was fitted on "
            f"{est.n_samples_fit_}. Pass those of fit."
        )
    near = samples_of(_safe_indexing(X_train, indices.ravel()))
    near, own = as_images(near, image_shape), as_images(samples_of(X), image_shape)
    if near is None or own is None:
        raise ValueError("X_train serves to draw images, but holds vectors. Give image_shape.")
    near = near.reshape(*indices.shape, *near.shape[1:])
    return np.concatenate([own[:, None], near], axis=1)
