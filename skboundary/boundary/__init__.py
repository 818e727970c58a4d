"""Where is the boundary?"""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.boundary._characterize import BoundaryCharacterizer
from skboundary.boundary._extractor import BoundarySampleExtractor
from skboundary.boundary._margins import SubspaceMargins
from skboundary.boundary._pairs import BoundaryPairs

__all__ = [
    "BoundaryCharacterizer",
    "BoundaryPairs",
    "BoundarySampleExtractor",
    "SubspaceMargins",
]
