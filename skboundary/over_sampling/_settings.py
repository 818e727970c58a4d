"""BiasSettings: the finer settings of BiasedExtrapolationSampler."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Real
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, StrOptions

from skboundary._site import DocLinkMixin
from skboundary.networks._carrier import StoredStateMixin


class BiasSettings(StoredStateMixin, DocLinkMixin, BaseEstimator):
    """Settings of the bias of :class:`BiasedExtrapolationSampler`.

    They are an estimator only so that ``settings__gamma`` and the like work in `set_params` and
    in a grid search.

    Read more in the :ref:`User Guide <biased_extrapolation>`.

    Parameters
    ----------
    fraction : float in (0, 1], default=0.3
        Share of the majority samples on their own side of the boundary that is selected.
    gamma : float in [-1, 1], default=-0.4
        Strength of the asymmetric bias in equation 1 of the paper. Negative values move the new
        samples toward the majority class; 0 is the bias "bottom". The paper's factor P_max is
        part of it.
    p_min : float in [0, 0.5), default=0.05
        The probability of equation 1 is clipped to [p_min, 1 - p_min].
    distance_ratio : {"centroid", "segment", "margin"}, default="centroid"
        How ``d_normal / d_abnormal`` in equation 1 is measured: by the distances of the crossing
        from the class means ("centroid") or from the two samples ("segment"), or by the mean
        absolute margins of the samples of either class closest to the boundary ("margin").
    class_specific : {"threshold", "proportional"}, default=None
        How the bias depends on the pair of classes. "threshold" (Algorithm 1) uses the bias
        "random" for pairs with a balanced accuracy above `tau`. "proportional" (Algorithm 2)
        biases a share ``(1 - accuracy) / 0.5`` of the samples of a pair and places the others
        with the bias "random". None treats all pairs alike.
    tau : float in [0, 1], default=0.7
        Balanced accuracy above which a pair of classes counts as separable.

    See Also
    --------
    BiasedExtrapolationSampler : The sampler that takes these settings.

    Examples
    --------
    >>> from skboundary import BiasedExtrapolationSampler, BiasSettings
    >>> sampler = BiasedExtrapolationSampler(settings=BiasSettings(gamma=-0.2))
    >>> sampler.set_params(settings__fraction=0.5).settings
    BiasSettings(fraction=0.5, gamma=-0.2)
    """

    _parameter_constraints: dict[str, Any] = {
        "fraction": [Interval(Real, 0, 1, closed="right")],
        "gamma": [Interval(Real, -1, 1, closed="both")],
        "p_min": [Interval(Real, 0, 0.5, closed="left")],
        "distance_ratio": [StrOptions({"centroid", "segment", "margin"})],
        "class_specific": [StrOptions({"threshold", "proportional"}), None],
        "tau": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        fraction: float = 0.3,
        gamma: float = -0.4,
        p_min: float = 0.05,
        distance_ratio: str = "centroid",
        class_specific: str | None = None,
        tau: float = 0.7,
    ) -> None:
        self.fraction = fraction
        self.gamma = gamma
        self.p_min = p_min
        self.distance_ratio = distance_ratio
        self.class_specific = class_specific
        self.tau = tau

    @classmethod
    def paper(cls) -> BiasSettings:
        """Return the settings of the paper's Algorithm 1.

        The paper leaves open how the distances are measured and how a probability outside of
        [0, 1] is clipped; there these are the defaults of this package. The paper's
        ``placement="boundary"`` and ``within_class=0`` are parameters of the sampler.

        Returns
        -------
        settings : BiasSettings

        Examples
        --------
        >>> from skboundary import BiasSettings
        >>> BiasSettings.paper()
        BiasSettings(class_specific='threshold')
        """
        return cls(
            fraction=0.3,
            gamma=-0.4,
            p_min=0.05,
            distance_ratio="centroid",
            class_specific="threshold",
            tau=0.7,
        )


def resolve_settings(settings: BiasSettings | None) -> BiasSettings:
    """Return the validated settings; None is the defaults.

    Parameters
    ----------
    settings : BiasSettings or None
        The parameter of the sampler.

    Returns
    -------
    settings : BiasSettings

    Raises
    ------
    ValueError
        For a value outside of its range.
    """
    settings = BiasSettings() if settings is None else settings
    settings._validate_params()
    return settings


def count_fits(settings: BiasSettings | None) -> int:
    """Count tasks that fit a classifier: one, and cross-validation if it is class-specific."""
    return 1 + (resolve_settings(settings).class_specific is not None)
