"""Warning classes of the package, one per kind, so that each can be filtered separately."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import sys
import warnings

__all__ = [
    "BoundaryNotFoundWarning",
    "CacheWarning",
    "DeviceWarning",
    "DisagreeingNeighborsWarning",
    "EncodedLabelsWarning",
    "FailedTaskWarning",
    "FewParentsWarning",
    "NoCrossingWarning",
    "NoLowerBoundWarning",
    "ProbabilityOutputWarning",
    "SavedVersionWarning",
    "ScoreMismatchWarning",
    "SeenSamplesWarning",
]


class BoundaryNotFoundWarning(UserWarning):
    """No boundary point was found for some samples; the message counts them by status."""


class CacheWarning(UserWarning):
    """`memory` cannot be written, or holds damaged results, which are computed again."""


class DeviceWarning(UserWarning):
    """A stored estimator was fitted on a device that this machine lacks, so another one is used."""


class DisagreeingNeighborsWarning(UserWarning):
    """Most training samples have neighbors with other labels, as in a poor latent space."""


class EncodedLabelsWarning(UserWarning):
    """The labels given to `fit` are interpreted as positions among a trained network's classes.

    The estimator then predicts positions: its `classes_` are 0 to n_classes - 1.
    """


class FailedTaskWarning(UserWarning):
    """Tasks on a cluster failed three times; their samples have the status "failed"."""


class FewParentsWarning(UserWarning):
    """Many synthetic samples of a class have few parents, so they resemble each other."""


class NoCrossingWarning(UserWarning):
    """No segment between samples of two classes is known to cross the boundary between them.

    The classifier predicts all samples of one class as the other.
    """


class NoLowerBoundWarning(UserWarning):
    """Distances of a classifier have no certified lower bound; the message gives the reason."""


class ProbabilityOutputWarning(UserWarning):
    """The outputs of a network look like probabilities, but were declared as logits.

    The softmax of probabilities is nearly uniform: use ``FrozenNetwork(output="proba")``.
    """


class SavedVersionWarning(UserWarning):
    """A saved estimator was written with other versions of its packages."""


class ScoreMismatchWarning(UserWarning):
    """The scores of a classifier contradict its `predict`, so only its labels are used."""


class SeenSamplesWarning(UserWarning):
    """Samples for a choice or a calibration seem to have been seen in training.

    A network that has memorized its training samples is right on them with any label, so the
    choice there is the network without neighbors.
    """


# Frames of these packages are skipped when the line that a warning points at is chosen.
_INNER = {"skboundary", "sklearn", "imblearn", "joblib", "contextlib"}


def warn_caller(message: str, category: type[Warning]) -> None:
    """Issue a warning that points at the line that called the package.

    Parameters
    ----------
    message : str
    category : type of Warning
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals["__name__"].split(".")[0] in _INNER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
