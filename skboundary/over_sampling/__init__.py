"""Over-samplers that place samples of minority classes by a decision boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.over_sampling._classifier import BiasedExtrapolationClassifier
from skboundary.over_sampling._sampler import BiasedExtrapolationSampler
from skboundary.over_sampling._settings import BiasSettings

__all__ = ["BiasSettings", "BiasedExtrapolationClassifier", "BiasedExtrapolationSampler"]
