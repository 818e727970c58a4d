"""Pickles of estimators: their state as plain data, whose arrays are bytes in one carrier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import json
import pickle
import sys
from functools import cache
from types import FrameType
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from torch import nn

from skboundary._device import available_device
from skboundary._npy import from_npy, to_npy
from skboundary._plain import Decoder, Encoder, State, storable
from skboundary.networks._module_state import on_device


class ArrayBytes:
    """An array as the bytes of an npy file, which any pickler stores without knowing torch.

    Parameters
    ----------
    data : bytes
    """

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        return ArrayBytes, (self.data,)


class StoredStateMixin(CallbackSupportMixin):
    """Mixin of the package's estimators: pickled and saved as plain data, with callbacks in fit."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # subclasses of the user are pickled, but not saved
        if issubclass(cls, BaseEstimator) and cls.__module__.startswith("skboundary."):
            storable(cls)

    def __copy__(self) -> Any:
        """Share all attributes, instead of storing and restoring them."""
        other = type(self).__new__(type(self))
        other.__dict__.update(vars(self))
        return other

    def _stored_state(self) -> State:
        """Return the attributes to store."""
        return dict(vars(self))

    def _restore(self, state: State) -> None:
        """Set the attributes, on a device that this machine has."""
        if "device_" in state:
            state = {**state, "device_": available_device(state["device_"])}
        self.__dict__.update(state)

    def __getstate__(self) -> State:
        encoder = Encoder(self)
        root = encoder.encode(self._stored_state())
        for name, _, value in encoder.foreign:
            if not _can_be_pickled(value):
                raise pickle.PicklingError(
                    f"{name}={value!r} cannot be pickled, because it is not an importable "
                    "function. Define it with def at the top level of a module, or as an "
                    "nn.Module."
                )
        return {
            "plain": json.dumps({"root": root, "objects": encoder.objects}),
            "arrays": [ArrayBytes(to_npy(array)) for _, array in encoder.arrays],
            "foreign": [_on_cpu(value) for _, _, value in encoder.foreign],
        }

    def __setstate__(self, state: State) -> None:
        arrays, foreign = state["arrays"], state["foreign"]
        plain = json.loads(state["plain"])
        # one array for all that shared its memory
        array = cache(lambda i: from_npy(arrays[i].data))
        decoder = Decoder(plain["objects"], array, lambda i: foreign[i])
        self._restore(decoder.decode(plain["root"]))


def _on_cpu(value: Any) -> Any:
    """Modules on the CPU: pickles can be loaded without an accelerator."""
    return on_device(value, torch.device("cpu")) if isinstance(value, nn.Module) else value


def _can_be_pickled(function: Any) -> bool:
    """Whether the current pickler can pickle a function, by name or by its code."""
    name = getattr(function, "__qualname__", "")
    if "<lambda>" not in name and "<locals>" not in name:
        return True
    frame: FrameType | None = sys._getframe()
    while frame is not None and not {"cloudpickle", "dill", "copy"} & {
        *frame.f_globals.get("__name__", "").split(".")
    }:
        frame = frame.f_back
    return frame is not None
