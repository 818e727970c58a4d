"""On-disk cache of network outputs, one entry per sample."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import _safe_indexing

from skboundary._sample_array import blocks
from skboundary.exceptions import CacheWarning, warn_caller
from skboundary.networks._digest import digest

Arrays = list[NDArray[Any]]

_KEY, _SUM, _TOTAL = 16, 8, 32  # bytes of a sample's key, and of checksums of entry and table
_LARGE = 2**24  # bytes above which results are not collected before they are written, nor merged
_TOGETHER = 4096  # the same in samples
_ABANDONED = 3600  # seconds after which an unfinished file is considered abandoned


class SampleStore:
    """Arrays with one entry per sample, indexed by a digest of the sample.

    There is one folder per network. Each file contains entries of one array, sorted by their keys,
    with checksums. Files appear complete, by a rename, and never change. A new file merges those
    that are not larger, so there are few. Entries that cannot be read count as missing.

    Parameters
    ----------
    folder : Path
    warned : set of str, default=None
        Warnings already issued, "read" or "write"; shared by stores that warn once.
    """

    def __init__(self, folder: Path, warned: set[str] | None = None) -> None:
        self.folder = folder
        self._warned = set() if warned is None else warned

    def through(
        self, X: Any, names: Sequence[str], compute: Callable[[NDArray[np.intp]], Iterable[Arrays]]
    ) -> Arrays:
        """Return the results of `compute` for all samples of X, calling it only for new ones.

        Results are stored while they are computed. An error or an interruption keeps what was
        finished before.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        names : sequence of str
            Names of the arrays, which are stored separately.
        compute : callable
            Maps indices (m,) of samples to batches of them, each with an array for each name.

        Returns
        -------
        arrays : list of ndarray of first dimension n_samples
        """
        samples = np.fromiter(_keys(X), f"S{_KEY}", X.shape[0])
        keys, first, back = np.unique(samples, return_index=True, return_inverse=True)
        owner = first[back]
        stored = [self._look_up(name, keys, first, len(owner)) for name in names]
        known = np.all([there for there, _ in stored], axis=0)
        arrays = self._compute(names, compute, keys, first, stored, known)
        if arrays is None:  # the stored results have another shape or dtype and are out of date
            arrays = self._compute(names, compute, keys, first, stored, np.zeros_like(known))
            assert arrays is not None
        repeated = np.flatnonzero(owner != np.arange(len(owner)))
        for array in arrays:
            array[repeated] = array[owner[repeated]]
        return arrays

    def _compute(
        self,
        names: Sequence[str],
        compute: Callable[[NDArray[np.intp]], Iterable[Arrays]],
        keys: NDArray[Any],
        first: NDArray[np.intp],
        stored: list[tuple[NDArray[np.bool_], NDArray[Any]]],
        known: NDArray[np.bool_],
    ) -> Arrays | None:
        """Arrays with the results of all keys at their first samples; None if forms differ."""
        arrays = [values for _, values in stored]
        new = np.argsort(first)
        new = new[~known[new]]
        done = saved = 0

        def save() -> int:
            some = new[saved:done]
            for name, (there, _), array in zip(names, stored, arrays, strict=True):
                missing = some[~there[some]]
                self._add(name, keys[missing], array[first[missing]])
            return done

        try:
            for batch in compute(first[new]) if len(new) else ():
                forms = [_form(part) for part in batch]
                if not done and not known.any():
                    n = len(arrays[0])
                    arrays = [np.empty((n, *shape), dtype) for dtype, shape in forms]
                if forms != [_form(array) for array in arrays]:
                    if not done:
                        return None
                    raise ValueError(f"Results of samples differ in dtype and shape: {forms}.")
                at = first[new[done : done + len(batch[0])]]
                for array, part in zip(arrays, batch, strict=True):
                    array[at] = part
                done += len(at)
                if done - saved >= _TOGETHER or sum(p[saved:done].nbytes for p in arrays) > _LARGE:
                    saved = save()
        finally:
            save()
        return arrays

    def _look_up(
        self, name: str, keys: NDArray[Any], first: NDArray[np.intp], n: int
    ) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Mask of the sorted keys that are stored, and their entries at `first`, in (n, ...)."""
        known = np.zeros(len(keys), dtype=bool)
        values: NDArray[Any] = np.empty(n)
        for _ in range(3):  # other processes merge files between the listing and the reading
            vanished = False
            for path in self._files(name):
                missing = np.flatnonzero(~known)
                try:
                    table, entries = _open(path)
                    for hit, entry in table.find(keys[missing], entries):
                        if not known.any():
                            values = np.empty((n, *entry.shape[1:]), entry.dtype)
                        if _form(values) == _form(entry):
                            values[first[missing[hit]]] = entry
                            known[missing[hit]] = True
                except FileNotFoundError:
                    vanished = True
                except (OSError, ValueError) as error:
                    known[missing] = False
                    self._discard(path, error)
            if not vanished:
                break
        return known, values

    def _files(self, name: str) -> list[Path]:
        return sorted(self.folder.glob(f"{name}-*.entries"))

    def _discard(self, path: Path, error: Exception) -> None:
        if isinstance(error, ValueError):
            _remove(path)
        self._warn(
            "read",
            f"memory: the stored results in {path} cannot be used ({error}). They are computed "
            "again.",
        )

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn_caller(message, CacheWarning)

    def _add(self, name: str, keys: NDArray[Any], array: NDArray[Any]) -> None:
        """Store entries; if that fails, warn once and continue."""
        if not array.size or "write" in self._warned:
            return
        try:
            try:
                self._write(name, keys, array)
            except FileNotFoundError:  # the folder was removed in the meantime
                self._write(name, keys, array)
        except OSError as error:
            self._warn(
                "write",
                f"memory: results cannot be stored in {self.folder} ({error}). They are "
                "computed without being stored. Free space there, or set memory to another folder.",
            )

    def _write(self, name: str, keys: NDArray[Any], array: NDArray[Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.unfinished"):
            with suppress(FileNotFoundError):  # its writer has finished it
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    _remove(path)
        entries = _entry_bytes(array)
        sums = np.frombuffer(b"".join(map(_sum, entries)), f"S{_SUM}")
        merged = []
        for path in sorted(self._files(name), key=lambda path: path.stat().st_size):
            try:
                table, there = _open(path)
            except (OSError, ValueError):
                continue  # a warning is issued when it is read
            if _form(there) != _form(array) or len(there) > len(keys) or there.nbytes > _LARGE:
                continue
            merged.append(path)
            keys = np.concatenate([keys, table.keys])
            sums = np.concatenate([sums, table.sums])
            entries = np.concatenate([entries, _entry_bytes(there)])
        keys, once = np.unique(keys, return_index=True)
        target = self.folder / f"{name}-{uuid.uuid4().hex}.entries"
        work = target.with_suffix(".unfinished")
        try:
            with open(work, "xb") as file:
                file.write(_head(keys, sums[once], array))
                file.write(entries[once].data)
            os.replace(work, target)
        finally:
            _remove(work)
        for path in merged:
            _remove(path)


class _Table(NamedTuple):
    """The header of a file, before the entries."""

    keys: NDArray[np.bytes_]  # sorted
    sums: NDArray[np.bytes_]
    form: tuple[np.dtype[Any], tuple[int, ...]]
    start: int

    def find(
        self, keys: NDArray[Any], entries: NDArray[Any]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield indices of keys in this table (m,), and copies of their entries (m, ...).

        Raises
        ------
        ValueError
            If an entry is damaged.
        """
        place = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        hit = np.flatnonzero(self.keys[place] == keys)
        for start in range(0, len(hit), _TOGETHER):
            some = hit[start : start + _TOGETHER]
            found = np.array(entries[place[some]])
            if b"".join(map(_sum, _entry_bytes(found))) != self.sums[place[some]].tobytes():
                raise ValueError("a checksum does not match")
            yield some, found


def _open(path: Path) -> tuple[_Table, NDArray[Any]]:
    """Table and memory-mapped entries (n, ...) of a file; the table is read once."""
    stat = path.stat()
    table = _read_table(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    dtype, shape = table.form
    return table, np.memmap(path, dtype, "r", table.start, (len(table.keys), *shape))


@functools.lru_cache(maxsize=1024)
def _read_table(path: Path, size: int, *version: int) -> _Table:
    with open(path, "rb") as file:
        total, length = file.read(_TOTAL), int.from_bytes(file.read(8), "little")
        head = file.read(min(length, size))
    if hashlib.blake2b(head, digest_size=_TOTAL).digest() != total:
        raise ValueError("a checksum does not match")
    form, _, rest = head.partition(b"\n")
    n, dtype, *shape = json.loads(form)
    keys = np.frombuffer(rest, f"S{_KEY}", n)
    sums = np.frombuffer(rest, f"S{_SUM}", n, offset=keys.nbytes)
    start = _TOTAL + 8 + length
    if start + n * np.dtype(dtype).itemsize * math.prod(shape) != size:
        raise ValueError("it is not complete")
    return _Table(keys, sums, (np.dtype(dtype), tuple(shape)), start)


def _head(keys: NDArray[Any], sums: NDArray[Any], array: NDArray[Any]) -> bytes:
    dtype, shape = _form(array)
    head = json.dumps([len(keys), dtype.str, *shape]).encode() + b"\n"
    head += keys.tobytes() + sums.tobytes()
    total = hashlib.blake2b(head, digest_size=_TOTAL).digest()
    return total + len(head).to_bytes(8, "little") + head


def _form(array: NDArray[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and the shape of an entry."""
    return array.dtype, array.shape[1:]


def _entry_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of each entry (n, n_bytes)."""
    return np.ascontiguousarray(array).reshape(len(array), -1).view(np.uint8)


def _sum(entry: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(entry.data, digest_size=_SUM).digest()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # owned by another user, or in use


def sample_keys(X: Any) -> list[bytes]:
    """Digest every sample (16 bytes each) from its values, dtype, shape and column names."""
    return [*_keys(X)]


def _keys(X: Any) -> Iterator[bytes]:
    head, samples = _samples(X)
    key = hashlib.blake2b(head.encode(), digest_size=_KEY).digest()
    return (hashlib.blake2b(s, digest_size=_KEY, key=key).digest() for s in samples)


def _samples(X: Any) -> tuple[str, Iterator[bytes]]:
    """Description common to all samples, and the bytes of each."""
    if sparse.issparse(X):
        dense = (X[i : i + 1024].toarray() for i in range(0, X.shape[0], 1024))
        return f"{X.dtype} {X.shape[1:]}", (sample.tobytes() for block in dense for sample in block)
    if not hasattr(X, "columns"):
        samples = (sample for part in blocks(X) for sample in X[part])
        as_text = X.dtype.hasobject
        return f"{X.dtype} {X.shape[1:]}", (
            _text(s.ravel().tolist()) if as_text else s.tobytes() for s in samples
        )
    columns = [np.asarray(_safe_indexing(X, j, axis=1)) for j in range(X.shape[1])]
    numbers = [c for c in columns if not c.dtype.hasobject]
    others = [c.tolist() for c in columns if c.dtype.hasobject]
    table = np.empty(X.shape[0], [(f"{j}", c.dtype) for j, c in enumerate(numbers)])
    for j, column in enumerate(numbers):
        table[f"{j}"] = column
    texts = zip(*others, strict=True) if others else itertools.repeat((), X.shape[0])
    head = [(str(name), str(dtype)) for name, dtype in zip(X.columns, X.dtypes, strict=True)]
    return f"{head} {table.dtype}", (
        n.tobytes() + _text(t) for n, t in zip(table, texts, strict=True)
    )


def _text(values: Sequence[Any]) -> bytes:
    simple = (str, int, float, bool, type(None))
    return repr([v if type(v) in simple else digest(value=v) for v in values]).encode()
