"""Decision boundaries and latent spaces of classifiers, with a scikit-learn compatible API."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Modules of the public names, which are imported on first access.
_MODULES = {
    "BiasSettings": "skboundary.over_sampling",
    "BoundaryCharacterizer": "skboundary.boundary",
    "BiasedExtrapolationClassifier": "skboundary.over_sampling",
    "BiasedExtrapolationSampler": "skboundary.over_sampling",
    "BoundaryPairsDisplay": "skboundary.display",
    "BoundaryPlaneDisplay": "skboundary.display",
    "BoundarySampleExtractor": "skboundary.boundary",
    "ClassPairDisplay": "skboundary.display",
    "FrozenNetwork": "skboundary.networks",
    "LatentKNNClassifier": "skboundary.neighbors",
    "LatentKNNClassifierCV": "skboundary.neighbors",
    "LatentProjectionDisplay": "skboundary.display",
    "LatentTransformer": "skboundary.networks",
    "LogitAdjustedClassifier": "skboundary.over_sampling",
    "MarginSpectrumDisplay": "skboundary.display",
    "NeighborsDisplay": "skboundary.display",
    "QueryWeightDisplay": "skboundary.display",
    "ResamplingDisplay": "skboundary.display",
    "SubspaceMargins": "skboundary.boundary",
    "TorchKNeighborsTransformer": "skboundary.neighbors",
    "TorchNearestNeighbors": "skboundary.neighbors",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'skboundary' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
