"""Nearest neighbors in the latent space of a classifier, and exact neighbor search."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.neighbors._label_issues import LabelIssues
from skboundary.neighbors._latent_knn import LatentKNNClassifier
from skboundary.neighbors._latent_knn_cv import LatentKNNClassifierCV
from skboundary.neighbors._protocol import NeighborSearch
from skboundary.neighbors._transformer import TorchKNeighborsTransformer

__all__ = [
    "LabelIssues",
    "LatentKNNClassifier",
    "LatentKNNClassifierCV",
    "NeighborSearch",
    "TorchKNeighborsTransformer",
    "TorchNearestNeighbors",
]
