"""ResamplingDisplay: where a sampler placed its samples, and with which probability."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from skboundary._device import to_numpy
from skboundary.boundary._columns import as_container, columns_of
from skboundary.display._response import samples_of
from skboundary.display._style import (
    TEXT,
    class_keys,
    line_style,
    load_pyplot,
    many_axes,
    scatter_classes,
)
from skboundary.networks import FrozenNetwork, as_network
from skboundary.networks._labels import encode_labels
from skboundary.over_sampling._geometry import segment_points

_LINEAR = 4.0  # logits beyond are drawn on a logarithmic axis where there are some
_LONGEST = 2.0  # median lengths; a single outlier would otherwise choose the direction
_N_SHOWN = 25  # synthetic samples whose parents are joined by lines


class ResamplingDisplay:
    """The synthetic samples of a `BiasedExtrapolationSampler` between two classes.

    Left: the latent space seen along the boundary. The horizontal axis is the difference of the
    two logits, so the boundary is the vertical line at 0 for every classifier; the vertical axis
    is the direction in which the latent vectors vary most besides. Originals are pale; lines join
    some synthetic samples with their parents. Right: the wanted probability of the minority class
    against the reached one; above the diagonal lie samples that were spread between the target
    and the minority sample.

    Create it by :meth:`from_sampler`. All parameters are stored as attributes.

    Read more in the :ref:`User Guide <displays>`.

    Parameters
    ----------
    originals : ndarray of shape (n_samples, 2)
        The samples of both classes: difference of the logits, and the other coordinate.
    labels : ndarray of shape (n_samples,)
        Their classes, as positions in `classes`.
    synthetic : ndarray of shape (n_new, 2)
        The synthetic samples of the minority class.
    parents : ndarray of shape (n_new, 2)
        Their parents, as positions in `originals`.
    wanted, reached : ndarray of shape (n_new,)
        Target probability of the minority class against the majority class, NaN without a target,
        and the probability at the sample.
    pair : tuple (int, int)
        Minority and majority class, as positions in `classes`.
    classes : ndarray of shape (n_classes,)
        Class labels.
    name : str, default=None
        Title of the picture.

    Attributes
    ----------
    originals_ : dict of matplotlib PathCollection
        By class, as positions in `classes`.
    synthetic_ : matplotlib PathCollection
    parents_ : matplotlib LineCollection
        Lines from the first parent to the synthetic sample and on to the second parent.
    boundary_ : matplotlib Line2D
    probabilities_ : matplotlib PathCollection
        Wanted and reached probabilities.
    axes_ : ndarray of matplotlib Axes, of shape (1, 2)
    bounding_ax_ : matplotlib Axes or None
        The axes that were split.
    figure_ : matplotlib Figure

    See Also
    --------
    BiasedExtrapolationSampler : Makes the samples.

    References
    ----------
    .. [1] S. Jeong, S. Lee, "Class specific biased extrapolation of images in latent space for
       imbalanced image classification".

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from skboundary import BiasedExtrapolationSampler, ResamplingDisplay
    >>> X, y = make_classification(500, weights=[0.9], random_state=0)
    >>> sampler = BiasedExtrapolationSampler(random_state=0)
    >>> _ = sampler.fit_resample(X, y)
    >>> ResamplingDisplay.from_sampler(sampler, X, y).synthetic.shape
    (400, 2)
    """

    def __init__(
        self,
        *,
        originals: NDArray[Any],
        labels: NDArray[np.intp],
        synthetic: NDArray[Any],
        parents: NDArray[np.intp],
        wanted: NDArray[Any],
        reached: NDArray[Any],
        pair: tuple[int, int],
        classes: NDArray[Any],
        name: str | None = None,
    ) -> None:
        self.originals = originals
        self.labels = labels
        self.synthetic = synthetic
        self.parents = parents
        self.wanted = wanted
        self.reached = reached
        self.pair = pair
        self.classes = classes
        self.name = name

    @classmethod
    def from_sampler(
        cls,
        sampler: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        pair: tuple[Any, Any] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> ResamplingDisplay:
        """Make the synthetic samples again from what the sampler recorded, and draw them.

        Parameters
        ----------
        sampler : BiasedExtrapolationSampler
            After `fit_resample`.
        X : array-like of shape (n_samples, ...)
            The samples that were resampled.
        y : array-like of shape (n_samples,)
            Their classes.
        pair : tuple of two class labels, default=None
            Minority and majority class, one of `sampler.pairs_`. None is the first of them.
        ax : matplotlib Axes or list of 2 Axes, default=None
            See :meth:`plot`.
        **kwargs : dict
            Passed to :meth:`plot`.

        Returns
        -------
        display : ResamplingDisplay

        Raises
        ------
        ValueError
            If X and y are not those that were resampled, for a pair that the sampler did not use,
            or if it made no samples.
        NotFittedError
            Before `fit_resample`.
        ImportError
            If matplotlib is not installed.
        """
        load_pyplot("ResamplingDisplay.from_sampler")
        check_is_fitted(sampler, "parents_")
        samples, labels, classes = samples_of(X), np.asarray(y), sampler.classes_
        minorities = _classes_of_new(sampler, labels)
        if not len(minorities):
            raise ValueError("The sampler made no samples, so there is nothing to draw.")
        pair = sampler.pairs_[0] if pair is None else pair
        if tuple(pair) not in sampler.pairs_:
            raise ValueError(f"pair={pair!r} is not one of sampler.pairs_, {sampler.pairs_[:5]}.")
        minority, majority = pair
        ends = labels[sampler.parents_[:, 1]]
        new = np.flatnonzero((minorities == minority) & ((ends == majority) | (ends == minority)))
        both = np.flatnonzero((labels == minority) | (labels == majority))
        parents = torch.from_numpy(sampler.parents_[new])
        points = segment_points(samples, parents, torch.from_numpy(sampler.positions_[new]))
        codes = encode_labels(np.array([minority, majority]), classes)
        at = _view(sampler.estimator_, X, samples[both], points, codes)
        place = np.full(len(samples), -1)
        place[both] = np.arange(len(both))
        display = cls(
            originals=at[: len(both)],
            labels=encode_labels(labels[both], classes),
            synthetic=at[len(both) :],
            parents=place[sampler.parents_[new]],
            wanted=sampler.targets_[new],
            reached=sampler.probabilities_[new],
            pair=(int(codes[0]), int(codes[1])),
            classes=classes,
        )
        return display.plot(ax, **kwargs)

    def plot(
        self,
        ax: Any = None,
        *,
        name: str | None = None,
        curve_kwargs: dict[str, Any] | None = None,
        scatter_kwargs: dict[str, Any] | None = None,
    ) -> ResamplingDisplay:
        """Draw the samples.

        Parameters
        ----------
        ax : matplotlib Axes or list of 2 Axes, default=None
            For the latent view and the probabilities. One axes is split. None makes a new
            figure.
        name : str, default=None
            Title.
        curve_kwargs : dict, default=None
            Keywords of the boundary, and of the diagonal on the right.
        scatter_kwargs : dict, default=None
            Keywords of :meth:`matplotlib.axes.Axes.scatter` for the synthetic samples.

        Returns
        -------
        self : ResamplingDisplay
        """
        self.axes_, self.bounding_ax_ = many_axes(ax, 1, 2, (9.0, 3.8), width_ratios=[3, 2])
        left, right = self.axes_[0]
        self.figure_ = left.figure
        minority, majority = (str(self.classes[code]) for code in self.pair)
        line = line_style({"color": "black", "linewidth": 1.5}, curve_kwargs)
        synthetic = {
            "marker": "x",
            "color": "black",
            "s": 18,
            "linewidths": 0.9,
            "zorder": 4,
            **(scatter_kwargs or {}),
        }
        pale = np.full(len(self.originals), 0.45)
        self.originals_ = scatter_classes(left, self.originals, self.labels, self.classes, pale)
        self.parents_ = self._join(left)
        self.synthetic_ = left.scatter(*self.synthetic.T, label="synthetic", **synthetic)
        self.boundary_ = left.axvline(0, label="boundary", **line)
        left.set(
            xlabel=f"logit of {minority} - logit of {majority}", ylabel="other latent direction"
        )
        if np.abs(self.originals[:, 0]).max() > 3 * _LINEAR:
            left.set_xscale("symlog", linthresh=_LINEAR, linscale=2)
            left.autoscale_view()
        keys = class_keys(self.pair, self.classes)
        left.legend(handles=[*keys, self.synthetic_, self.boundary_], **TEXT)
        right.axline((0, 0), slope=1, **line)
        known = ~np.isnan(self.wanted)
        points = self.wanted[known], self.reached[known]
        self.probabilities_ = right.scatter(*points, **synthetic)
        right.set(
            xlim=(0, 1),
            ylim=(0, 1),
            aspect="equal",
            xlabel=f"wanted probability of {minority}",
            ylabel="reached",
        )
        title = self.name if name is None else name
        if title is not None:
            left.set_title(title, loc="left")
        return self

    def _join(self, ax: Any) -> Any:
        """Lines from the parents of some synthetic samples to them."""
        from matplotlib.collections import LineCollection

        shown = np.unique(np.linspace(0, len(self.synthetic) - 1, _N_SHOWN).astype(int))
        first, last = (self.originals[self.parents[shown, end]] for end in (0, 1))
        paths = np.stack([first, self.synthetic[shown], last], axis=1)
        lines = LineCollection([*paths], colors="gray", linewidths=0.8, zorder=2)
        return ax.add_collection(lines)


def _classes_of_new(sampler: Any, y: NDArray[Any]) -> NDArray[Any]:
    """Class of each synthetic sample.

    Raises
    ------
    ValueError
        If the recorded parents are not samples of these classes.
    """
    wanted = [(label, n) for label, n in sampler.sampling_strategy_.items() if n]
    labels = np.array([label for label, _ in wanted], dtype=y.dtype)
    # the sampler makes them class by class, in the order of the sorted labels
    order = np.argsort(labels, kind="stable")
    classes = np.repeat(labels[order], np.array([n for _, n in wanted], dtype=int)[order])
    parents = sampler.parents_
    inside = len(parents) == 0 or parents.max() < len(y)
    if not inside or not np.array_equal(y[parents[:, 0]], classes):
        raise ValueError(
            "The parents that the sampler recorded are not samples of these classes. Pass the X "
            "and y that were given to fit_resample last."
        )
    return classes


def _view(
    estimator: Any,
    X: Any,
    originals: NDArray[Any],
    synthetic: NDArray[Any],
    pair: NDArray[np.intp],
) -> NDArray[Any]:
    """Coordinates (n, 2): difference of the logits, and the largest variation besides."""
    trained = isinstance(estimator, (FrozenNetwork, FrozenEstimator))
    model, columns = estimator if trained else FrozenEstimator(estimator), columns_of(estimator, X)
    head = as_container(originals[:2], columns)
    _, network = as_network(model, head, None)
    margins, latents = [], []
    for part in (originals, synthetic):
        latent, logits = network.latent_and_logits(as_container(part, columns))
        minority, majority = to_numpy(logits.double())[:, pair].T
        margins.append(minority - majority)
        latents.append(to_numpy(latent.double()))
    z, m = latents[0] - latents[0].mean(0), margins[0] - margins[0].mean()
    rest = z - np.outer(m, m @ z) / (m @ m or 1.0)
    length = np.linalg.norm(rest, axis=1)
    longest = _LONGEST * np.median(length) or np.inf  # where most samples coincide
    rest *= np.minimum(1, longest / np.maximum(length, np.finfo(float).tiny))[:, None]
    direction = PCA(1, random_state=0).fit(rest).components_[0]
    other = [(latent - latents[0].mean(0)) @ direction for latent in latents]
    return np.column_stack([np.concatenate(margins), np.concatenate(other)])
