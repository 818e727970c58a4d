"""Samples in a container that is read by slices: h5py, zarr, dask, and others of the kind."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from skboundary._batching import BATCH_BYTES

_TOGETHER = 2**16  # bytes: samples that lie so near each other are read in one slice


class SampleArray:
    """An array outside of memory, read as blocks of samples.

    It needs no more of its container than slices of samples. A container in chunks, which can
    only be read as a whole, is read chunk by chunk, and the last chunk is kept.

    Parameters
    ----------
    array : object
        With `shape`, `dtype`, and ``array[start:stop]``, which `numpy.asarray` converts.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    ndim : int

    Raises
    ------
    ValueError
        If an axis has an unknown length, as in dask after a selection.
    """

    def __init__(self, array: Any) -> None:
        if not all(isinstance(n, Integral) for n in array.shape):
            raise ValueError(
                f"X has the shape {array.shape}, whose lengths are not all known. Call "
                "X.compute_chunk_sizes() before."
            )
        self._array = array
        self.shape = tuple(map(int, array.shape))
        self.dtype, self.ndim = array.dtype, len(self.shape)
        self._chunk = _chunk_length(array)
        self._kept: tuple[int, NDArray[Any]] | None = None  # first sample of a chunk, the chunk

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a slice of samples, or those of an index or a mask, into an array of their own.

        ``X[key, ...]`` is the same: scikit-learn selects samples in this way.
        """
        key = key[0] if isinstance(key, tuple) else key
        if not isinstance(key, slice):
            index = np.asarray(key)
            return self._gather(np.flatnonzero(index) if index.dtype == bool else index)
        start, stop, step = key.indices(len(self))
        if step != 1:
            return self._gather(np.arange(start, stop, step))
        out = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        ends = [stop]
        if self._chunk:  # the first and the last one may be parts of a chunk
            ends = [start - start % -self._chunk, stop - stop % self._chunk, stop]
        at = start
        for end in (min(end, stop) for end in ends):
            if at < end:
                out[at - start : end - start] = self._read(at, end)
                at = end
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read everything."""
        if copy is False:
            raise ValueError(f"A {type(self._array).__name__} becomes an array by a copy only.")
        out = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for part in blocks(self):
            out[part] = self[part]
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def _gather(self, index: NDArray[np.intp]) -> NDArray[Any]:
        """Read samples in ascending order, those that lie near each other together."""
        index = np.where(index < 0, index + len(self), index)
        order = np.argsort(index, kind="stable")
        out = np.empty((len(index), *self.shape[1:]), self.dtype)
        length = self._chunk or max(1, _TOGETHER // max(1, _sample_bytes(self)))
        ascending = index[order]
        ends = np.flatnonzero(np.diff(ascending // length)) + 1
        for some in np.split(np.arange(len(index)), ends) if len(index) else []:
            first, last = int(ascending[some[0]]), int(ascending[some[-1]])
            out[order[some]] = self._read(first, last + 1)[ascending[some] - first]
        return out

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        """Read whole chunks, or samples that lie in one chunk; any samples without chunks."""
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"Samples {start} to {stop - 1} of {len(self)} do not exist.")
        if not self._chunk or (stop - start >= self._chunk and start % self._chunk == 0):
            return self._slice(start, stop)
        first, kept = start - start % self._chunk, self._kept
        if kept is None or kept[0] != first:
            whole = self._slice(first, min(first + self._chunk, len(self)))
            kept = self._kept = first, whole
        return kept[1][start - first : stop - first]

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        block = np.asarray(self._array[start:stop])
        own, read = self.dtype.newbyteorder("="), block.dtype.newbyteorder("=")
        if block.shape != (stop - start, *self.shape[1:]) or read != own:
            raise ValueError(
                f"X[{start}:{stop}] of a {type(self._array).__name__} of shape {self.shape} and "
                f"dtype {self.dtype} has the shape {block.shape} and dtype {block.dtype}."
            )
        return block


def is_sliceable(X: Any) -> bool:
    """Whether X is a container outside of memory, whose samples are read by slices."""
    return (
        isinstance(getattr(X, "dtype", None), np.dtype)
        and not isinstance(X, (np.ndarray, torch.Tensor))
        and not sparse.issparse(X)
        and not hasattr(X, "columns")
        and hasattr(X, "__getitem__")
        and len(getattr(X, "shape", ())) >= 2
    )


def blocks(X: Any) -> Iterator[slice]:
    """Yield slices of consecutive samples of at most 32 MB, or of one sample."""
    length = max(1, BATCH_BYTES // max(1, _sample_bytes(X)))
    for start in range(0, X.shape[0], length):
        yield slice(start, min(start + length, X.shape[0]))


def _sample_bytes(X: Any) -> int:
    return int(np.prod(X.shape[1:], dtype=np.int64)) * X.dtype.itemsize


def _chunk_length(array: Any) -> int:
    """Samples of the longest chunk, as dask, zarr and h5py describe them; 0 without chunks."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return 0
    return int(np.max(chunks[0]))
