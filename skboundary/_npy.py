"""Arrays as the bytes of npy files, read without pickle and without trust in their headers."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# Booleans, numbers, times and strings; no objects, which would be pickles, and no records.
_KINDS = "biufcmMSU"


def write_npy(file: BinaryIO, array: NDArray[Any]) -> None:
    """Write an array in version 1.0 of the npy format.

    Raises
    ------
    ValueError
        For objects and records.
    """
    if array.dtype.kind not in _KINDS:
        raise ValueError(f"An array of {array.dtype} cannot be stored without pickle.")
    npy.write_array(file, array, version=(1, 0), allow_pickle=False)


def read_npy(file: BinaryIO, size: int) -> NDArray[Any]:
    """Read an array whose header, and number of bytes, are checked before memory is allocated.

    Parameters
    ----------
    file : binary file
    size : int
        Length of the file in bytes.

    Returns
    -------
    array : ndarray
        Writable.

    Raises
    ------
    ValueError
        For another format or version, for objects and records, and for more or less bytes than
        the header says.
    """
    shape, order, dtype = _header(file, size)
    flat: NDArray[Any] = np.empty(math.prod(shape), dtype)
    if flat.nbytes and file.readinto(flat.view(np.uint8).data) != flat.nbytes:  # type: ignore[attr-defined]
        raise ValueError("less data than its size says")
    return flat.reshape(shape, order=order)


def map_npy(path: Path) -> NDArray[Any]:
    """Return the array in a file as a read-only memory map; errors as in `read_npy`."""
    with open(path, "rb") as file:
        shape, order, dtype = _header(file, path.stat().st_size)
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    """Shape, order and dtype of an array, which match the length of the file."""
    try:
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} instead of (1, 0)")
        shape, in_fortran_order, dtype = npy.read_array_header_1_0(file)
    except Exception as error:  # the header is a Python literal, which can be wrong in many ways
        raise ValueError(f"no valid npy header ({error})") from None
    if dtype.kind not in _KINDS or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"an npy header with dtype {dtype} and shape {shape}")
    expected, found = math.prod(shape) * dtype.itemsize, size - file.tell()
    if expected != found:
        raise ValueError(f"{found} bytes of data, and its header says {expected}")
    return shape, "F" if in_fortran_order else "C", dtype


def to_npy(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of an npy file."""
    file = io.BytesIO()
    write_npy(file, array)
    return file.getvalue()


def from_npy(data: bytes) -> NDArray[Any]:
    """Return the array in the bytes of an npy file; errors as in `read_npy`."""
    return read_npy(io.BytesIO(data), len(data))
