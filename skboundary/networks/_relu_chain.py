"""Networks of linear layers with ReLU between them, as chains of affine maps."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from skboundary.networks._default_network import DefaultNetwork
from skboundary.networks._lift import Affine
from skboundary.networks._protocol import Network
from skboundary.networks._torch_network import TorchNetwork

Layer = tuple[Tensor, Tensor]  # weight (n_out, n_in) and bias (n_out,)

_CHAINS = (nn.Sequential, DefaultNetwork)
_UNCHANGED = (nn.Flatten, nn.Dropout, nn.Identity)  # of the values, in evaluation mode


class NotAChainError(Exception):
    """The reason why the logits of a network are not a chain, as a clause."""


def relu_chain(network: Network, shape: tuple[int, ...], device: torch.device) -> list[Layer]:
    """Express the logits of a network as affine maps of flat samples with ReLU between them.

    Parameters
    ----------
    network : Network
        It has just run the samples, so that its weights are known.
    shape : tuple of int
        Of a sample.
    device : torch.device

    Returns
    -------
    layers : list of (weight, bias)
        In float64. The last gives the logits, with rows in the order of `classes_`.

    Raises
    ------
    NotAChainError
        For anything but `nn.Sequential` of `Flatten`, `Linear`, `ReLU`, `Dropout` and `Identity`,
        and the affine steps before it; and for computations in half precision.
    """
    name = network.name
    if not isinstance(network, TorchNetwork):
        raise NotAChainError(f"{name} is not a chain of linear layers and ReLU")
    if network.steps:
        step = type(network.steps[0]).__name__
        raise NotAChainError(f"the step {step} of the pipeline is not known to be affine")
    if network.integers:
        raise NotAChainError(f"{name} takes integers")
    if not network.ends_in_logits:
        raise NotAChainError(f"the outputs of {name} are not declared as logits")
    if network.eps > torch.finfo(torch.float32).eps:
        raise NotAChainError(f"{name} computes in half precision")
    chain = _Chain((math.prod(shape),) if network.front is not None else shape, device)
    for part in (network.front, network.preprocess, network.module):
        if part is not None and not isinstance(part, nn.Module):
            raise NotAChainError(f"preprocess of {name} is a function")
        for layer in () if part is None else _flat(part):
            chain.append(layer)
    return chain.finish(network.order)


class _Chain:
    """Affine maps so far, and the one since the last ReLU.

    Attributes
    ----------
    shape : tuple of int
        Of the activation.
    weight : Tensor of shape (n_out, n_in) or (n,)
        A vector is the diagonal of the matrix.
    bias : Tensor of shape (n_out,)
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.layers: list[Layer] = []
        self.shape, self.device = shape, device
        self._start()

    def _start(self) -> None:
        n = math.prod(self.shape)
        self.weight = torch.ones(n, dtype=torch.float64, device=self.device)
        self.bias = torch.zeros_like(self.weight)

    def append(self, layer: nn.Module) -> None:
        """Continue with a layer, of which exact types are known: a subclass may be otherwise."""
        _refuse_changed(layer)
        if type(layer) is nn.Linear:
            weight = self._load(layer.weight)
            bias = weight.new_zeros(len(weight)) if layer.bias is None else self._load(layer.bias)
            n = math.prod(self.shape[:-1])  # positions that the layer is applied to
            self._compose(torch.block_diag(*[weight] * n), bias.repeat(n))
        elif type(layer) is Affine:
            scale, shift = (
                self._load(values).expand(self.shape).flatten()
                for values in (layer.scale, layer.shift)
            )
            self._compose(scale, -shift * scale)
        elif type(layer) is nn.ReLU:
            self._close()
        elif type(layer) not in _UNCHANGED:
            raise NotAChainError(f"a layer {type(layer).__name__} is neither linear nor ReLU")
        self.shape = self._shape_behind(layer)

    def finish(self, order: list[int]) -> list[Layer]:
        """The layers, with the logits in the order of the classes."""
        self._close()
        weight, bias = self.layers[-1]
        if len(weight) == 1:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return [*self.layers[:-1], (weight[order], bias[order])]

    def _close(self) -> None:
        weight = torch.diag(self.weight) if self.weight.ndim == 1 else self.weight
        self.layers.append((weight, self.bias))
        self._start()

    def _compose(self, weight: Tensor, bias: Tensor) -> None:
        diagonal = weight.ndim == 1
        self.bias = bias + (weight * self.bias if diagonal else weight @ self.bias)
        if diagonal:
            self.weight = (weight if self.weight.ndim == 1 else weight[:, None]) * self.weight
        else:
            self.weight = weight * self.weight if self.weight.ndim == 1 else weight @ self.weight

    def _load(self, values: Tensor) -> Tensor:
        return values.detach().to(self.device, torch.float64)

    def _shape_behind(self, layer: nn.Module) -> tuple[int, ...]:
        if type(layer) is nn.Linear:
            return *self.shape[:-1], layer.out_features
        if type(layer) is not nn.Flatten:
            return self.shape
        shape = tuple(layer(torch.empty(2, *self.shape, device="meta")).shape)
        if shape[0] != 2:
            raise NotAChainError("a layer Flatten joins the samples of a batch")
        return shape[1:]


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested `nn.Sequential` in their order."""
    if not isinstance(module, nn.Sequential) or type(module) not in _CHAINS:
        yield module
        return
    _refuse_changed(module)
    for layer in module:
        yield from _flat(layer)


def _refuse_changed(layer: nn.Module) -> None:
    """Refuse a layer whose output may differ from that of its class."""
    if layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer):
        raise NotAChainError(f"a layer {type(layer).__name__} has hooks, or a forward of its own")
