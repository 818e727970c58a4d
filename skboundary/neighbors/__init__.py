"""What do the neighbors say?"""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.neighbors._latent_knn import LatentKNNClassifier

__all__ = ["LatentKNNClassifier", "TorchNearestNeighbors"]
