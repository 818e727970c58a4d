"""What to do about minority classes: over-sampling by a decision boundary, adjusted logits."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.over_sampling._classifier import BiasedExtrapolationClassifier
from skboundary.over_sampling._logit_adjustment import LogitAdjustedClassifier
from skboundary.over_sampling._sampler import BiasedExtrapolationSampler
from skboundary.over_sampling._settings import BiasSettings

__all__ = [
    "BiasSettings",
    "BiasedExtrapolationClassifier",
    "BiasedExtrapolationSampler",
    "LogitAdjustedClassifier",
]
