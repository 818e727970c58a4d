"""A network as one torch module, from samples to latent vectors and logits."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from skboundary._device import at_least_float32
from skboundary.networks._cache import CachedNetwork
from skboundary.networks._layers import flatten_latent, run_tapped
from skboundary.networks._module_state import evaluation_mode, tree_of
from skboundary.networks._outputs import as_logits
from skboundary.networks._protocol import Network
from skboundary.networks._torch_network import TorchNetwork


class StandaloneNetwork(nn.Module):
    """Latent vectors and logits of a batch of samples, as `Network.latent_and_logits` gives them.

    It holds copies of all modules of the network, on the CPU and in evaluation mode. It does not
    check values, so that `torch.export` can trace it.

    Parameters
    ----------
    network : TorchNetwork
        It has run some samples.
    """

    order: Tensor

    def __init__(self, network: TorchNetwork) -> None:
        super().__init__()
        self.training = False
        module, preprocess = network._given_parts
        self.module = _copied(module)
        self.front = None if network.front is None else _copied(network.front)
        self.preprocess = _copied(preprocess) if isinstance(preprocess, nn.Module) else None
        self.layer, self.tap, self.pool = network.layer, network.tap, network.pool
        self.output, self.integers = network.output, network.integers
        self.link = network.link  # maps logits to probabilities
        self.input_dtype, self.compute_dtype = network.input_dtype, network.compute_dtype
        self.register_buffer("order", torch.tensor(network.order))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute latent vectors (n, n_latent) and logits (n, n_classes) of samples (n, ...)."""
        n = x.shape[0]  # which, unlike len(x), may be symbolic
        x = x.to(torch.int64 if self.integers else self.input_dtype)
        if self.front is not None:
            x = self.front(x.flatten(1))
        # a copy, since the module may write to it
        x = x.to(x.dtype if self.integers else self.compute_dtype, copy=True)
        if self.preprocess is not None:
            x = self.preprocess(x)
        latent, output = run_tapped(self.module, self.layer, self.tap, x, logits=True)
        assert output is not None
        output = output if isinstance(self.output, str) else self.output(output)
        logits = as_logits(
            output, n, probabilities=self.output != "logits", name="The network", check=False
        )
        latent = flatten_latent(latent.to(at_least_float32(latent.dtype)), self.pool)
        return latent.reshape(n, -1), logits.index_select(1, self.order)


def standalone(network: Network) -> StandaloneNetwork:
    """Build one module that computes what a network does.

    Parameters
    ----------
    network : Network
        It has run some samples.

    Returns
    -------
    module : StandaloneNetwork

    Raises
    ------
    ValueError
        If part of the network is not a torch module; the message names it.
    """
    inner: Any = network.network if isinstance(network, CachedNetwork) else network
    if not isinstance(inner, TorchNetwork):
        raise ValueError(
            f"{inner.name} is not a torch module, so it cannot be part of one. Use a network, or a "
            "linear model or MLPClassifier, which are converted."
        )
    if inner.steps:
        names = ", ".join(type(step).__name__ for step in inner.steps)
        raise ValueError(
            f"The steps {names} before the network transform arrays, so they cannot be part of a "
            "torch module. Only StandardScaler, PCA and MinMaxScaler(clip=False) are converted, "
            "if there are no other steps."
        )
    preprocess = inner._given_parts[1]
    if preprocess is not None and not isinstance(preprocess, nn.Module):
        raise ValueError(
            f"preprocess={preprocess!r} is a function, whose constants cannot be stored in a torch "
            "module. Write it as a torch.nn.Module."
        )
    return StandaloneNetwork(inner)


def _copied(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, whose parameters require no gradient."""
    with evaluation_mode(tree_of(module), frozen=True), torch.inference_mode(False):
        return copy.deepcopy(module).to("cpu")
