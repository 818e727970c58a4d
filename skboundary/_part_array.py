"""An array in several npy files, read by memory map."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from skboundary._npy import map_npy

_OPEN_FILES = 64  # each memory map holds a file descriptor


def open_part(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Map an npy file of known form, read-only; no bytes of it are read beyond its header.

    Raises
    ------
    ValueError
        If the file is missing, is no npy file, holds objects, or has another dtype, shape, order
        or length.
    """
    try:
        array = map_npy(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be opened as an npy file of numbers ({error}).") from None
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{file} holds an array of shape {array.shape} and dtype {array.dtype}"
            f"{'' if array.flags.c_contiguous else ' in Fortran order'}, but bank.json describes "
            f"one of shape {shape} and dtype {dtype}."
        )
    return array.view(np.ndarray)


class PartArray:
    """A read-only array whose samples lie in several npy files, one after another.

    Parameters
    ----------
    files : sequence of Path
    stops : sequence of int
        Number of samples up to the end of each file.
    dtype : numpy.dtype
    shape : tuple of int
        Shape of one sample.

    Notes
    -----
    ``array[a:b]`` is a view of a memory map where the range lies in one file, and a copy
    otherwise; an array of indices or a mask gathers samples. Only the first axis is indexed.
    """

    def __init__(
        self,
        files: Sequence[Path],
        stops: Sequence[int],
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
    ) -> None:
        self.dtype, self._files = dtype, list(files)
        self._stops = np.asarray(stops, dtype=np.int64)
        self.shape = (int(stops[-1]) if len(stops) else 0, *shape)
        self._part = lru_cache(_OPEN_FILES)(self._open)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"PartArray(shape={self.shape}, dtype={self.dtype}, files={len(self._files)})"

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False and len(self._files) != 1:
            raise ValueError(f"{len(self._files)} files cannot be one array without a copy.")
        array = self[:]
        cast = array.dtype if dtype is None else dtype
        return array.astype(cast, copy=bool(copy))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._range(start, max(start, stop))
            key = np.arange(start, stop, step)
        if isinstance(key, tuple):
            raise IndexError("Only the first axis, the samples, can be indexed here.")
        return self._gather(key)

    def _range(self, start: int, stop: int) -> NDArray[Any]:
        first, last = np.searchsorted(self._stops, (start, max(start, stop - 1)), "right")
        if start == stop:
            return np.empty((0, *self.shape[1:]), self.dtype)
        parts = []
        for i in range(first, last + 1):
            begin = self._stops[i - 1] if i else 0
            parts.append(self._part(i)[max(start - begin, 0) : stop - begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _gather(self, key: ArrayLike) -> NDArray[Any]:
        index = np.asarray(key)
        if index.dtype == bool:
            if index.shape != self.shape[:1]:
                raise IndexError(f"A mask of shape {index.shape} does not fit {len(self)} samples.")
            index = np.flatnonzero(index)
        if index.size == 0:
            return np.empty((*index.shape, *self.shape[1:]), self.dtype)
        if index.dtype.kind not in "iu":
            raise IndexError(f"Samples are indexed by integers, a slice or a mask, got {key!r}.")
        index = np.where(index < 0, index + len(self), index).astype(np.int64)
        if index.min() < 0 or index.max() >= len(self):
            raise IndexError(f"An index is out of range for {len(self)} samples.")
        flat = index.ravel()
        out = np.empty((flat.size, *self.shape[1:]), self.dtype)
        of = np.searchsorted(self._stops, flat, "right")
        for i in np.unique(of):
            here = of == i
            out[here] = self._part(int(i))[flat[here] - (self._stops[i - 1] if i else 0)]
        return out.reshape((*index.shape, *self.shape[1:]))

    def _open(self, i: int) -> NDArray[Any]:
        n = int(self._stops[i] - (self._stops[i - 1] if i else 0))
        return open_part(self._files[i], self.dtype, (n, *self.shape[1:]))
