"""Which samples are missing?"""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.over_sampling._classifier import BiasedExtrapolationClassifier
from skboundary.over_sampling._sampler import BiasedExtrapolationSampler

__all__ = ["BiasedExtrapolationClassifier", "BiasedExtrapolationSampler"]
