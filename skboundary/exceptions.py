"""Warnings of the package, one class per kind, so that each can be filtered by itself."""

# SPDX-License-Identifier: BSD-3-Clause

__all__ = ["NoCrossingWarning", "ProbabilityOutputWarning"]


class NoCrossingWarning(UserWarning):
    """No segment between samples of two classes is known to cross the boundary between them.

    The classifier puts all samples of one of the two on the other's side.
    """


class ProbabilityOutputWarning(UserWarning):
    """A network that was declared to give logits seems to give probabilities.

    Softmax of probabilities flattens every prediction: say ``FrozenNetwork(output="proba")``.
    """
