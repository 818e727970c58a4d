"""Warnings of the package, one class per kind, so that each can be filtered by itself."""

# SPDX-License-Identifier: BSD-3-Clause

__all__ = ["ProbabilityOutputWarning"]


class ProbabilityOutputWarning(UserWarning):
    """A network that was declared to give logits seems to give probabilities.

    Softmax of probabilities flattens every prediction: say ``FrozenNetwork(output="proba")``.
    """
