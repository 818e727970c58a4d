"""Pictures of decision boundaries, neighbors, margins and synthetic samples."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.display._boundary_pairs import BoundaryPairsDisplay
from skboundary.display._boundary_plane import BoundaryPlaneDisplay
from skboundary.display._neighbors import NeighborsDisplay

__all__ = ["BoundaryPairsDisplay", "BoundaryPlaneDisplay", "NeighborsDisplay"]
