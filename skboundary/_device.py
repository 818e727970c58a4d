"""Devices, dtypes, and conversion between arrays and tensors."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from skboundary.exceptions import DeviceWarning, warn_caller

DeviceLike = str | torch.device
T = TypeVar("T")


def resolve_device(device: DeviceLike, module: torch.nn.Module | None = None) -> torch.device:
    """Resolve the parameter `device` to an available device.

    Parameters
    ----------
    device : {"auto"}, str or torch.device
        "auto" is the accelerator that holds `module`, and otherwise CUDA, MPS or the CPU, in
        this order. An accelerator without an index ("cuda") is the one that holds `module`,
        and otherwise the current one.
    module : torch.nn.Module, default=None
        The network that will run.

    Returns
    -------
    device : torch.device
        With an index, except for the CPU.

    Raises
    ------
    ValueError
        If the device is unknown or not available on this machine.
    """
    tensors = () if module is None else chain(module.parameters(), module.buffers())
    first = next(iter(tensors), None)
    home = torch.device("cpu") if first is None else first.device
    if isinstance(device, str) and device == "auto":
        if home.type not in ("cpu", "meta"):
            return home
        best = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else best
    try:
        resolved = torch.device(device)
        if resolved.index is None and resolved.type == home.type:
            resolved = home
        value = torch.zeros(1, device=resolved)
        value.item()  # "meta" exists, but computes nothing
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"device={device!r} is not available on this machine "
            f"({str(error).splitlines()[0]}). Use device='auto' or device='cpu'."
        ) from None
    return value.device


def available_device(device: torch.device) -> torch.device:
    """Return the device of a stored estimator if this machine has it, else the best there is.

    Warns
    -----
    DeviceWarning
        If it is another device.
    """
    try:
        return resolve_device(device)
    except ValueError:
        best = resolve_device("auto")
        warn_caller(
            f"The estimator was fitted on {str(device)!r}, which is not available on this machine; "
            f"it runs on {str(best)!r}. Results may differ by rounding.",
            DeviceWarning,
        )
        return best


def resolve_dtype(X: Any, device: torch.device) -> torch.dtype:
    """Dtype in which samples of X are computed.

    Float64 for float64 and for integers of 32 bits or more if the device supports it, float32
    otherwise. Non-numeric columns of a DataFrame count as float64.
    """
    dtypes = [X.dtype] if hasattr(X, "dtype") else list(X.dtypes)
    wide = [
        not is_number(d) or d.itemsize >= 8 or (d.kind in "iu" and d.itemsize == 4) for d in dtypes
    ]
    return torch.float64 if any(wide) and device.type != "mps" else torch.float32


def is_number(dtype: Any) -> bool:
    return getattr(dtype, "kind", "O") in "biuf"


def holds_integers(X: Any) -> bool:
    """Whether all columns of X, an array or a DataFrame, are integers."""
    dtypes = [X.dtype] if hasattr(X, "dtype") else list(X.dtypes)
    return all(getattr(dtype, "kind", "O") in "iu" for dtype in dtypes)


def module_dtype(module: torch.nn.Module) -> torch.dtype:
    """Dtype of the first floating parameter or buffer (float32 when there is none)."""
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.float32


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Dtype for computations with values of `dtype`: float32 for half precision."""
    return torch.promote_types(torch.float32, dtype)


# Dtypes that torch reads from numpy without a cast; numpy casts all others first.
_TORCH_READS = {np.dtype(t) for t in ("?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")}


def to_tensor(
    array: Any, *, device: DeviceLike = "cpu", dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Convert samples in any container (array, tensor, sparse, DataFrame) to a tensor.

    The result shares memory with an array of the right dtype on the CPU, read-only arrays
    included, so it must not be written to.

    Parameters
    ----------
    array : array-like, sparse matrix, DataFrame or torch.Tensor
    device : str or torch.device, default="cpu"
    dtype : torch.dtype, default=None
        None keeps the dtype.

    Returns
    -------
    tensor : torch.Tensor
    """
    if isinstance(array, torch.Tensor):
        return array.detach().to(device=device, dtype=dtype)
    if sparse.issparse(array):
        array = array.toarray()
    array = np.asarray(array)
    if array.dtype not in _TORCH_READS:  # unsigned 16 to 64 bits, foreign byte order, objects
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array)
    # torch refuses negative strides, which an axis of length 1 keeps in a contiguous array
    array = array.copy() if min(array.strides, default=0) < 0 else array
    # torch warns about read-only memory even when it only reads it
    tensor = torch.from_numpy(array if array.flags.writeable else np.asarray(_Writable(array)))
    # two steps: bytes are transferred unchanged and cast to floats on the device
    if dtype == torch.float32 and tensor.dtype == torch.float64:
        return tensor.to(dtype).to(device)
    return tensor.to(device).to(dtype or tensor.dtype)


class _Writable:
    """Array interface that declares the memory of a read-only array writable."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array  # keeps the memory alive
        self.__array_interface__ = {
            **array.__array_interface__,
            "data": (array.__array_interface__["data"][0], False),
        }


def move(values: T, device: torch.device) -> T:
    """Bring all tensors in nested tuples to a device, in a single transfer.

    Their bytes are joined, since a transfer of a few bytes takes as long as one of many.

    Parameters
    ----------
    values : tuple
        Tensors on one device, other tuples of them, and None.
    device : torch.device

    Returns
    -------
    values : tuple
        Of the same types. On the CPU no tensor shares memory with another.
    """
    tensors = [tensor for tensor in _tensors_in(values) if tensor.device != device]
    moved = dict(zip(map(id, tensors), _joined(tensors, device), strict=True))
    return _replaced(values, moved)


def _joined(tensors: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    if len(tensors) < 2:
        return [tensor.to(device) for tensor in tensors]
    # the widest first, so that all begin at a multiple of their size
    order = sorted(range(len(tensors)), key=lambda i: -tensors[i].itemsize)
    parts = [tensors[i].detach().contiguous().flatten().view(torch.uint8) for i in order]
    joined = torch.cat(parts).to(device).split([len(part) for part in parts])
    found = list(tensors)
    for i, part in zip(order, joined, strict=True):
        part = part.clone() if device.type == "cpu" else part
        found[i] = part.view(tensors[i].dtype).view(tensors[i].shape)
    return found


def _tensors_in(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif values is not None:
        for value in values:
            yield from _tensors_in(value)


def _replaced(values: Any, moved: dict[int, torch.Tensor]) -> Any:
    if values is None or isinstance(values, torch.Tensor):
        return moved.get(id(values), values)
    parts = [_replaced(value, moved) for value in values]
    return type(values)(*parts) if hasattr(values, "_fields") else type(values)(parts)


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Convert a tensor to an array on the CPU; half precision becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor).numpy()
