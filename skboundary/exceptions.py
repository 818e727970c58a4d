"""Warnings of the package, one class per kind, so that each can be filtered by itself."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import sys
import warnings

__all__ = [
    "BoundaryNotFoundWarning",
    "CacheWarning",
    "EncodedLabelsWarning",
    "FewParentsWarning",
    "NoCrossingWarning",
    "ProbabilityOutputWarning",
    "ScoreMismatchWarning",
]


class BoundaryNotFoundWarning(UserWarning):
    """Rows for which no boundary point was found; the message counts them by status."""


class CacheWarning(UserWarning):
    """`memory` cannot be written, or holds damaged results: they are computed all the same."""


class EncodedLabelsWarning(UserWarning):
    """The labels given to `fit` are taken for positions among a trained network's classes.

    The estimator then answers in positions: its `classes_` are 0 to n_classes - 1.
    """


class FewParentsWarning(UserWarning):
    """Few samples of a class are the parents of many new ones, which then resemble each other."""


class NoCrossingWarning(UserWarning):
    """No segment between samples of two classes is known to cross the boundary between them.

    The classifier puts all samples of one of the two on the other's side.
    """


class ProbabilityOutputWarning(UserWarning):
    """A network that was declared to give logits seems to give probabilities.

    Softmax of probabilities flattens every prediction: say ``FrozenNetwork(output="proba")``.
    """


class ScoreMismatchWarning(UserWarning):
    """`predict` of a classifier disagrees with its own scores: only its labels are believed."""


# A warning points past these at the line that called them.
_INNER = {"skboundary", "sklearn", "imblearn", "joblib", "contextlib"}


def warn_caller(message: str, category: type[Warning]) -> None:
    """Warn at the line that called the package, whatever wrappers lie between.

    Parameters
    ----------
    message : str
    category : type of Warning
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals["__name__"].split(".")[0] in _INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
