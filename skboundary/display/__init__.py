"""Pictures of decision boundaries, neighbors, margins and synthetic samples."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.display._boundary_pairs import BoundaryPairsDisplay
from skboundary.display._boundary_plane import BoundaryPlaneDisplay
from skboundary.display._class_pair import ClassPairDisplay
from skboundary.display._latent_projection import LatentProjectionDisplay
from skboundary.display._margin_spectrum import MarginSpectrumDisplay
from skboundary.display._neighbors import NeighborsDisplay
from skboundary.display._query_weight import QueryWeightDisplay
from skboundary.display._resampling import ResamplingDisplay

__all__ = [
    "BoundaryPairsDisplay",
    "BoundaryPlaneDisplay",
    "ClassPairDisplay",
    "LatentProjectionDisplay",
    "MarginSpectrumDisplay",
    "NeighborsDisplay",
    "QueryWeightDisplay",
    "ResamplingDisplay",
]
