"""Outputs of a network for two samples, which tell whether the same code was given again."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from skboundary._device import to_numpy
from skboundary.networks._frozen import FrozenNetwork
from skboundary.networks._torch_network import TorchNetwork

# Share of the largest logit: more than rounding on any device, less than another activation.
_TOLERANCE = 0.05


def probe(estimator: Any) -> list[list[float]] | None:
    """Return the logits of two samples of random numbers.

    None for an estimator without a module, one that was not fitted, and a network that does not
    take such samples.
    """
    network, shape = _network_of(estimator), getattr(estimator, "input_shape_", None)
    if network is None or shape is None or network.steps or network.integers:
        return None
    X = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    try:
        return to_numpy(network.logits(X)).astype(float).tolist()
    except ValueError:  # these numbers lie outside of what it takes
        return None


def check_probe(estimator: Any, saved: Any) -> None:
    """Raise a ValueError if the network gives other logits than when it was saved."""
    found = probe(estimator)
    if found is None or saved is None:
        return
    here, there = np.array(found, dtype=float), np.array(saved, dtype=float)
    if here.shape != there.shape or not (
        np.abs(here - there).max() <= _TOLERANCE * np.abs(there).max()
    ):
        raise ValueError(
            f"the network gives the logits {here.ravel()[:3].round(4).tolist()} for a sample that "
            f"had {there.ravel()[:3].round(4).tolist()} when it was saved. The module, or another "
            "object that was given, is not the one that was saved."
        )


def _network_of(estimator: Any) -> TorchNetwork | None:
    if isinstance(estimator, FrozenNetwork):
        return TorchNetwork(**estimator._settings(torch.device("cpu")))
    fitted = vars(estimator)
    network = fitted.get("_network") or getattr(fitted.get("_classifier"), "network", None)
    network = getattr(network, "network", network)  # without its cache
    return network if isinstance(network, TorchNetwork) else None
