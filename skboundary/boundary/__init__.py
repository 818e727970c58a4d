"""Points on the decision boundary, their distances, and measures of the boundary."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.boundary._characterization import characterize_boundary
from skboundary.boundary._characterizer import BoundaryCharacterizer
from skboundary.boundary._extractor import BoundarySampleExtractor
from skboundary.boundary._pairs import BoundaryPairs
from skboundary.boundary._subspace_margins import SubspaceMargins

__all__ = [
    "BoundaryCharacterizer",
    "BoundaryPairs",
    "BoundarySampleExtractor",
    "SubspaceMargins",
    "characterize_boundary",
]
