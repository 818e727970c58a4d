"""Networks: logits, latent vectors and gradients of any classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from skboundary.networks._collect import collect
from skboundary.networks._factory import as_network
from skboundary.networks._frozen import FrozenNetwork
from skboundary.networks._latent import LatentTransformer
from skboundary.networks._protocol import Network

__all__ = ["FrozenNetwork", "LatentTransformer", "Network", "as_network", "collect"]
