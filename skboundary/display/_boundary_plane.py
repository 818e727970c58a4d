"""BoundaryPlaneDisplay: decision regions in a plane through samples of many dimensions."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skboundary.display._plane import (
    grid_over,
    predict_on,
    through_normal,
    through_principal,
    through_triplet,
)
from skboundary.display._regions import count_regions, draw_borders, name_regions, region_colors
from skboundary.display._response import Response, samples_of
from skboundary.display._style import (
    class_keys,
    legend_beside,
    load_pyplot,
    one_axes,
    outline,
    scatter_classes,
)
from skboundary.networks._labels import encode_labels

_FAINTEST = 0.12  # opacity of samples far from the plane
_SAME = 1e-6  # relative difference up to which planes are equal: float32 and float64 X
_N_ANCHORS = {"triplet": 3, "normal": 2, "pca": 0}


class BoundaryPlaneDisplay:
    """Decision regions of any classifier in a plane through its input space.

    The plane passes through three samples, as in [1]_; through two samples and the normal of the
    boundary between them; or along the two principal components of samples. Colors are predicted
    classes, and fade where the classifier is less confident. Distances in the picture are
    distances in the space of X.

    Create it by :meth:`from_estimator`. All parameters are stored as attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    xx0, xx1 : ndarray of shape (grid_resolution, grid_resolution)
        Coordinates of the grid in the plane, in units of X, as from :func:`numpy.meshgrid`.
    prediction : ndarray of shape (grid_resolution, grid_resolution)
        Predicted classes, as positions in `classes`.
    confidence : ndarray of shape (grid_resolution, grid_resolution) or None
        Probability of the predicted class, if the classifier has probabilities or decision
        values.
    classes : ndarray of shape (n_classes,)
        Class labels.
    points : ndarray of shape (n_samples, 2)
        Coordinates of the samples in the plane, the anchors first.
    distances : ndarray of shape (n_samples,)
        Their distances from the plane, in units of X.
    labels : ndarray of shape (n_samples,)
        Their classes, as positions in `classes`.
    n_anchors : int
        Number of samples through which the plane was laid.
    origin : ndarray of shape (n_features,)
        Point of the plane with the coordinates 0 and 0.
    directions : ndarray of shape (2, n_features)
        Orthonormal directions of the two coordinates.
    name : str, default=None
        Title of the picture.

    Attributes
    ----------
    fragmentation_ : int
        Number of connected regions, summed over the classes.
    image_ : matplotlib AxesImage
        The regions.
    boundary_ : list of matplotlib QuadContourSet
        Borders of the regions, one entry for each predicted class but one.
    anchors_ : dict of matplotlib PathCollection
        The anchors by class, as positions in `classes`.
    samples_ : dict of matplotlib PathCollection
        The other samples by class.
    region_labels_ : list of matplotlib Text
        Names of the classes in their regions.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    sklearn.inspection.DecisionBoundaryDisplay : The same for two features.
    BoundarySampleExtractor : Points on the boundary.

    References
    ----------
    .. [1] G. Somepalli et al., "Can neural nets learn the same model twice? Investigating
       reproducibility and double descent from the decision boundary perspective", CVPR 2022,
       `arXiv 2203.08124 <https://arxiv.org/abs/2203.08124>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from skboundary import BoundaryPlaneDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=20, random_state=0).fit(X, y)
    >>> other = RandomForestClassifier(n_estimators=20, random_state=1).fit(X, y)
    >>> display = BoundaryPlaneDisplay.from_estimator(forest, X[:3], grid_resolution=50)
    >>> second = BoundaryPlaneDisplay.from_estimator(other, X[:3], grid_resolution=50)
    >>> 0 < display.agreement(second) <= 1
    True
    """

    def __init__(
        self,
        *,
        xx0: NDArray[Any],
        xx1: NDArray[Any],
        prediction: NDArray[np.intp],
        confidence: NDArray[Any] | None,
        classes: NDArray[Any],
        points: NDArray[Any],
        distances: NDArray[Any],
        labels: NDArray[np.intp],
        n_anchors: int,
        origin: NDArray[Any],
        directions: NDArray[Any],
        name: str | None = None,
    ) -> None:
        self.xx0 = xx0
        self.xx1 = xx1
        self.prediction = prediction
        self.confidence = confidence
        self.classes = classes
        self.points = points
        self.distances = distances
        self.labels = labels
        self.n_anchors = n_anchors
        self.origin = origin
        self.directions = directions
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        plane: str = "triplet",
        y: ArrayLike | None = None,
        grid_resolution: int = 200,
        expand: float = 0.1,
        ax: Any = None,
        **kwargs: Any,
    ) -> BoundaryPlaneDisplay:
        """Predict the points of a plane, and draw them.

        Parameters
        ----------
        estimator : fitted classifier or torch.nn.Module
            Any object with `predict` and `classes_`; `predict_proba`, or else
            `decision_function`, gives the confidence.
        X : array-like of shape (n_samples, ...)
            The samples that define the plane, then others, which fade with their distance from
            the plane.
        plane : {"triplet", "normal", "pca"}, default="triplet"
            "triplet" passes through the first three samples. "normal" passes through the first
            two and contains the normal of the boundary where the segment between them first
            crosses it (the gradient of the difference of two logits), so that the boundary
            appears at its true angle and distance there. If the segment itself is normal, the
            plane nearest to the other samples is taken. "pca" is the plane nearest to all samples,
            through their mean.
        y : array-like of shape (n_samples,), default=None
            Classes in which the samples are drawn. None takes the predicted ones, which may
            differ from the region behind a sample that is not in the plane.
        grid_resolution : int, default=200
            Number of points along each axis; the classifier predicts its square.
        expand : float, default=0.1
            Share of the extent of the anchors, or with "pca" of all samples, that is added on
            each side.
        ax : matplotlib Axes, default=None
            None makes a new figure.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : BoundaryPlaneDisplay

        Raises
        ------
        ValueError
            For samples that define no plane, an unknown class in y, and "normal" with a
            classifier without gradients.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("BoundaryPlaneDisplay.from_estimator")
        _check(plane, grid_resolution, expand)
        response, samples = Response(estimator, X), samples_of(X)
        flat = samples.reshape(len(samples), -1)
        if plane == "normal":
            surface = through_normal(response, samples)
        else:
            surface = (through_triplet if plane == "triplet" else through_principal)(flat)
        points, distances = surface.project(flat)
        n_anchors = _N_ANCHORS[plane]
        xx0, xx1 = grid_over(points[:n_anchors] if n_anchors else points, grid_resolution, expand)
        prediction, confidence = predict_on(response, surface, xx0, xx1, samples)
        if y is None:
            labels = response(samples)[0]
        else:
            labels = encode_labels(np.asarray(y), response.classes)
        display = cls(
            xx0=xx0,
            xx1=xx1,
            prediction=prediction,
            confidence=confidence,
            classes=response.classes,
            points=points,
            distances=distances,
            labels=labels,
            n_anchors=n_anchors,
            origin=surface.origin,
            directions=surface.directions,
            name=response.name,
        )
        return display.plot(ax, **kwargs)

    @property
    def fragmentation_(self) -> int:
        """Number of connected regions, summed over the classes."""
        return count_regions(self.prediction)

    def agreement(self, other: BoundaryPlaneDisplay) -> float:
        """Compute the share of the grid on which two classifiers predict the same class.

        Parameters
        ----------
        other : BoundaryPlaneDisplay
            On the same plane and grid: made from the same samples with the same parameters.

        Returns
        -------
        share : float in [0, 1]

        Raises
        ------
        ValueError
            If the planes or grids differ.
        """
        for mine, others in (
            (self.origin, other.origin),
            (self.directions, other.directions),
            (self.xx0, other.xx0),
            (self.xx1, other.xx1),
        ):
            if (
                mine.shape != others.shape
                or np.abs(mine - others).max() > _SAME * np.abs(mine).max()
            ):
                raise ValueError(
                    "The displays show different planes or grids. Make both from the same X, "
                    "plane ('triplet' or 'pca'), grid_resolution and expand."
                )
        same = self.classes[self.prediction] == other.classes[other.prediction]
        return float(np.mean(same))

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        curve_kwargs: dict[str, Any] | None = None,
        scatter_kwargs: dict[str, Any] | None = None,
        label_regions: bool = True,
    ) -> BoundaryPlaneDisplay:
        """Draw the regions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            None makes a new figure.
        name : str, default=None
            Title; None is the name of the classifier.
        curve_kwargs : dict, default=None
            Keywords of the borders, such as `color` and `linewidth`.
        scatter_kwargs : dict, default=None
            Keywords of :meth:`matplotlib.axes.Axes.scatter` for the samples that are not anchors.
        label_regions : bool, default=True
            Whether to write the class into the largest region of each.

        Returns
        -------
        self : BoundaryPlaneDisplay
        """
        self.ax_ = one_axes(ax)
        self.figure_ = self.ax_.figure
        dx, dy = (self.xx0[0, 1] - self.xx0[0, 0]) / 2, (self.xx1[1, 0] - self.xx1[0, 0]) / 2
        left, right, bottom, top = (
            self.xx0[0, 0] - dx,
            self.xx0[0, -1] + dx,
            self.xx1[0, 0] - dy,
            self.xx1[-1, 0] + dy,
        )
        self.image_ = self.ax_.imshow(
            region_colors(self.prediction, self.confidence, len(self.classes)),
            extent=(left, right, bottom, top),
            origin="lower",
        )
        self.boundary_ = draw_borders(self.ax_, self.xx0, self.xx1, self.prediction, curve_kwargs)
        self.region_labels_ = (
            name_regions(self.ax_, self.xx0, self.xx1, self.prediction, self.classes)
            if label_regions
            else []
        )
        self._draw_samples(scatter_kwargs)
        self.ax_.set(
            xlim=(left, right),
            ylim=(bottom, top),
            title=self.name if name is None else name,
            xlabel="distance",
            ylabel="distance",
        )
        return self

    def _draw_samples(self, scatter_kwargs: dict[str, Any] | None) -> None:
        n = self.n_anchors
        reach = np.hypot(np.ptp(self.xx0), np.ptp(self.xx1)) / 2
        alpha = np.clip(1 - self.distances / reach, _FAINTEST, 1)
        self.samples_ = scatter_classes(
            self.ax_,
            self.points[n:],
            self.labels[n:],
            self.classes,
            alpha[n:],
            **(scatter_kwargs or {}),
        )
        self.anchors_ = scatter_classes(
            self.ax_,
            self.points[:n],
            self.labels[:n],
            self.classes,
            s=90,
            linewidths=1.5,
            zorder=4,
            path_effects=outline(5),
        )
        legend_beside(self.ax_, class_keys(np.unique(self.labels).tolist(), self.classes))


def _check(plane: str, grid_resolution: int, expand: float) -> None:
    if plane not in _N_ANCHORS:
        raise ValueError(f"plane={plane!r}: use 'triplet', 'normal' or 'pca'.")
    if not isinstance(grid_resolution, Integral) or grid_resolution < 2:
        raise ValueError(f"grid_resolution={grid_resolution!r}: use an integer of at least 2.")
    if not isinstance(expand, Real) or not expand >= 0:
        raise ValueError(f"expand={expand!r}: use a number of at least 0.")
