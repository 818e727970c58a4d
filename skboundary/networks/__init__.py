"""Any classifier as a network."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.networks._frozen import FrozenNetwork
from skboundary.networks._latent import LatentTransformer

__all__ = ["FrozenNetwork", "LatentTransformer"]
