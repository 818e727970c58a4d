"""Arrays as the bytes of npy files, read without pickle and without trust in their headers."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# Booleans, numbers, times and strings; no objects, which would be pickles, and no records.
_KINDS = "biufcmMSU"
# As numpy writes it. Its reader evaluates a literal, which Python 3.11 cannot do safely in threads.
_DTYPE = rb"[<>|][A-Za-z][0-9]*(?:\[[0-9A-Za-z]+\])?"
_SHAPE = rb"(?:N,|N(?:, N)+)?".replace(b"N", rb"(?:0|[1-9][0-9]*)")
_HEADER = re.compile(
    rb"\{'descr': '(%s)', 'fortran_order': (False|True), 'shape': \((%s)\), \} *\n"
    % (_DTYPE, _SHAPE)
)


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
        header = file.read(int.from_bytes(file.read(2), "little"))
        found = _HEADER.fullmatch(header)
        if not found:
            raise ValueError(f"{header[:80]!r} is not as numpy writes it")
        dtype = np.dtype(found[1].decode("ascii"))
        shape = tuple(int(n) for n in re.findall(rb"[0-9]+", found[3]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"no valid npy header ({error})") from None
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise ValueError(f"an npy header with dtype {dtype} and shape {shape}")
    expected, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if expected != there:
        raise ValueError(f"{there} bytes of data, and its header says {expected}")
    return shape, "F" if found[2] == b"True" else "C", dtype


def to_npy(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of an npy file."""
    file = io.BytesIO()
    write_npy(file, array)
    return file.getvalue()


def from_npy(data: bytes) -> NDArray[Any]:
    """Return the array in the bytes of an npy file; errors as in `read_npy`."""
    return read_npy(io.BytesIO(data), len(data))
