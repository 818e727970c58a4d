"""Several layers of a network tapped in one pass."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from sklearn.utils import _safe_indexing
from torch import Tensor, nn

from skboundary.networks._cache import CachedNetwork
from skboundary.networks._layers import Layer, Tap, first_tensor, run_tapped
from skboundary.networks._module_state import evaluation_mode
from skboundary.networks._protocol import Network
from skboundary.networks._torch_network import TorchNetwork


class SeveralLayers(TorchNetwork):
    """A network whose latent vectors are those of several layers, side by side.

    Attributes
    ----------
    layer : tuple of layers
    """

    layer: Any
    _found: list[dict[str, Any]]  # attributes of the network with each layer alone

    def singles(self) -> list[TorchNetwork]:
        """The network with each of its layers alone, once a sample has been run."""
        return [self._single(**found) for found in self._found]

    def _single(self, **attributes: Any) -> TorchNetwork:
        single = TorchNetwork.__new__(TorchNetwork)
        single.__dict__.update({**self.__dict__, **attributes})
        single.__dict__.pop("_found", None)
        return single

    def _find_layer(self, x: Tensor) -> None:
        self._found = []
        for layer in self.layer:
            single = self._single(layer=layer)
            single._find_layer(x)
            self._found.append(
                {"layer": layer, "tap": single.tap, "_latent_ndim": single._latent_ndim}
            )
        for found, latent in zip(self._found, self._tapped(x)[0], strict=True):
            found["n_latent"] = latent.shape[1]
        self._latent_ndim = 2

    def _forward(
        self, samples: Any, latent: bool, logits: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        if not latent:
            return super()._forward(samples, latent, logits)
        x = self._load(samples)
        latents, output = self._tapped(x)
        return torch.cat(latents, 1), self._as_logits(output, len(x)) if logits else None

    def _tapped(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Latent vectors of each layer, and the output, of a batch on the device."""
        taps = [found["tap"] for found in self._found]
        with evaluation_mode(*self._trees), torch.no_grad(), self._explained(x):
            latents, output = _run_all(self.module, self.layer, taps, self._prepare(x))
        pairs = zip(self.singles(), latents, strict=True)
        return [single._as_latent(latent, len(x)) for single, latent in pairs], output


def _run_all(
    module: nn.Module, layers: Sequence[Layer], taps: Sequence[Tap | None], x: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Run a batch once with the hooks of all taps; a callable layer runs by itself before."""
    if not layers:
        return [], first_tensor(module(x))
    others: list[Tensor] = []

    def run(module: nn.Module, x: Tensor) -> Tensor:
        latents, output = _run_all(module, layers[1:], taps[1:], x)
        others.extend(latents)
        return output

    own = x.clone() if taps[0] is None else x  # a callable may work in place
    latent, output = run_tapped(module, layers[0], taps[0], own, logits=True, run=run)
    assert output is not None
    return [latent, *others], output


def several_layers(network: Network, layers: Sequence[Layer]) -> Network:
    """Return the network with several layers in place of its own.

    Raises
    ------
    ValueError
        If it is a classifier without layers.
    """
    if isinstance(network, CachedNetwork):
        inner = cast(Any, several_layers(cast(Network, network.network), layers))
        return cast(Network, CachedNetwork(inner, network.folder, network.memory_key))
    if not isinstance(network, TorchNetwork):
        raise ValueError(
            f"layer={[*layers]!r} are layers of a network, but {network.name} has no layers. Use "
            "layer='auto': the input of the classifier is its latent space."
        )
    several = SeveralLayers.__new__(SeveralLayers)
    several.__dict__.update({**vars(network), "layer": tuple(layers), "tap": None})
    several._latent_ndim = 0
    return several


def single_layers(network: Network, X: Any) -> list[tuple[Network, slice]]:
    """Networks of the single layers, and the columns of each in the latent vectors of `network`.

    Parameters
    ----------
    network : Network
        With one layer, or from `several_layers`.
    X : array-like of shape (n_samples, ...)
        The first samples determine the layers, if none has been run yet.
    """
    inner = network.network if isinstance(network, CachedNetwork) else network
    if not isinstance(inner, SeveralLayers):
        return [(network, slice(None))]
    inner._begin(lambda: _safe_indexing(X, slice(0, 2)), latent=True)
    parts, start = [], 0
    for single in inner.singles():
        own: Any = single
        if isinstance(network, CachedNetwork):
            own = CachedNetwork(single, network.folder, network.memory_key)
        parts.append((own, slice(start, start + single.n_latent)))
        start += single.n_latent
    return parts
