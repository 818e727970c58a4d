"""The linear layer that ends a network, if its input is the latent space."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from torch import Tensor

from skboundary.networks._protocol import Network


def linear_head(network: Network, latent: Tensor, logits: Tensor) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of the linear layer that maps the latent space to the logits.

    Parameters
    ----------
    network : Network
    latent : Tensor of shape (n_samples, n_latent)
    logits : Tensor of shape (n_samples, n_classes)
        What the network gives for some samples.

    Returns
    -------
    head : tuple of Tensor or None
        Shapes (n_classes, n_latent) and (n_classes,), with rows in the order of `classes_`. None
        if there is no such layer, or if something after it changes the logits of the samples other
        than by a constant for each sample.
    """
    last = network.last_linear()
    return last if last is not None and _is_last(latent, *last, logits, network) else None


def _is_last(Z: Tensor, weight: Tensor, bias: Tensor, logits: Tensor, network: Network) -> bool:
    """Whether the network's outputs are those of its linear layer, up to rounding."""
    expected = Z @ weight.T + bias
    band = 8 * network.eps * float((Z.abs() @ weight.T.abs() + bias.abs()).max())
    if not network.ends_in_logits:
        return bool((expected.softmax(1) - logits.softmax(1)).abs().max() <= band + 1e-4)
    off = expected - logits
    return bool((off - off.mean(1, keepdim=True)).abs().max() <= band)
