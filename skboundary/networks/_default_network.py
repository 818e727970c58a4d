"""The module of the default network."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from skboundary._plain import State, register
from skboundary._random import forked_rng
from skboundary.networks._lift import Affine

_HIDDEN = 64


class DefaultNetwork(nn.Sequential):
    """A multilayer perceptron on standardized columns, with initial weights drawn from torch.

    Parameters
    ----------
    mean, scale : array-like of shape (n_features,)
    n_classes : int
    """

    def __init__(self, mean: Any, scale: Any, n_classes: int) -> None:
        super().__init__(
            nn.Flatten(),
            Affine(mean, 1 / scale),
            nn.Linear(len(mean), _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, n_classes),
        )


def _take(module: DefaultNetwork) -> State:
    return {name.replace(".", "_"): tensor for name, tensor in module.state_dict().items()}


def _make(state: State) -> DefaultNetwork:
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError("its weights are not all tensors")
    scale, bias = state["1_scale"], state["6_bias"]
    with forked_rng(0):
        module = DefaultNetwork(scale.numpy(), scale.numpy(), len(bias)).to(bias.dtype)
    own = module.state_dict()
    shapes = [{k: (tuple(v.shape), v.dtype) for k, v in d.items()} for d in (_take(module), state)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"its weights have the shapes {shapes[1]} instead of {shapes[0]}")
    module.load_state_dict({name: state[name.replace(".", "_")] for name in own})
    return module.eval()


register(DefaultNetwork, _take, _make)
