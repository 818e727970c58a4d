"""Warnings of the package, one class per kind, so that each can be filtered by itself."""

# SPDX-License-Identifier: BSD-3-Clause

__all__ = [
    "BoundaryNotFoundWarning",
    "NoCrossingWarning",
    "ProbabilityOutputWarning",
    "ScoreMismatchWarning",
]


class BoundaryNotFoundWarning(UserWarning):
    """Rows for which no boundary point was found; the message counts them by status."""


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
