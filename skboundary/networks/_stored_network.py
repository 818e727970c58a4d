"""Networks as plain data: the fitted classifier, the settings, and what was found out in fit."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import numpy as np
import torch
from imblearn.pipeline import Pipeline as SamplerPipeline
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skboundary._device import available_device
from skboundary._plain import State, register, register_estimator
from skboundary.networks import _default_network  # noqa: F401 - it becomes storable
from skboundary.networks._estimator_network import EstimatorNetwork
from skboundary.networks._factory import adapt
from skboundary.networks._layers import Tap
from skboundary.networks._torch_network import TorchNetwork

AnyNetwork = TorchNetwork | EstimatorNetwork

_SETTINGS = ("estimator", "pool", "device", "batch_size", "verbose")
_FOUND = ("classes_", "order", "n_latent", "eps")
_FOUND_IN_MODULES = ("integers", "tap", "_latent_ndim")


def network_state(network: AnyNetwork) -> State:
    """Return what a network is rebuilt from."""
    is_module = isinstance(network, TorchNetwork)
    names = (*_SETTINGS, *_FOUND, *(_FOUND_IN_MODULES if is_module else ()))
    return {
        **{name: getattr(network, name) for name in names},
        "layer": network.layer if isinstance(network, TorchNetwork) else "auto",
        "classes": network._given,
        "is_float64": network.input_dtype == torch.float64,
    }


def rebuild_network(state: State) -> AnyNetwork:
    """Build the network of a fitted classifier as `as_network` did, without samples.

    Raises
    ------
    ValueError
        If the classifier does not have such a network.
    """
    X = np.empty(0, np.float64 if state["is_float64"] else np.float32)  # for its dtype only
    params = {name: state[name] for name in ("layer", "pool", "batch_size", "verbose")}
    device = available_device(state["device"])
    network = adapt(state["estimator"], X, classes=state["classes"], device=device, **params)
    network.batch_size = state["batch_size"]
    is_module = isinstance(network, TorchNetwork)
    for name in (*_FOUND, *(_FOUND_IN_MODULES if is_module else ())):
        setattr(network, name, state[name])
    _check(network)
    network._is_sorted = network.order == list(range(len(network.order)))
    if isinstance(network, TorchNetwork):
        network._is_fresh = False  # it may be long until the first pass
    return network


def _check(network: AnyNetwork) -> None:
    """Raise a ValueError for classes or a layer that the network cannot have."""
    order, classes = network.order, network.classes_
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        raise ValueError(f"classes_ is {classes!r}, not an array of classes")
    if not isinstance(order, list) or sorted(order) != list(range(len(classes))):
        raise ValueError(f"order={order!r} does not sort {len(classes)} classes")
    if not (type(network.n_latent) is int and type(network.eps) is float):
        raise ValueError("n_latent is not an integer, or eps is not a float")
    if not isinstance(network, TorchNetwork) or network.tap is None:
        return
    tap = network.tap
    names = [name for name, _ in network.module.named_modules()]
    if not isinstance(tap, Tap) or tap.name not in names or tap.side not in ("input", "output"):
        raise ValueError(f"{tap!r} is not a layer of {network.name}")


for _network in (TorchNetwork, EstimatorNetwork):
    register(_network, network_state, rebuild_network)
register_estimator(Pipeline)
register_estimator(SamplerPipeline, "SamplerPipeline")
register_estimator(FrozenEstimator)
