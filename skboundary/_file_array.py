"""Arrays that travel between the processes of a cluster as the path of a file."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from distributed.protocol.numpy import deserialize_numpy_ndarray, serialize_numpy_ndarray
from distributed.protocol.serialize import dask_deserialize, dask_serialize
from numpy.typing import NDArray

from skboundary._task_store import load


class FileArray(np.ndarray[Any, Any]):
    """A read-only array whose content is in a file of finished parts.

    What is computed from it has no file, and travels like any array.
    """

    source: tuple[str, int | None] | None

    @classmethod
    def of(cls, array: NDArray[Any], path: Path, item: int | None = None) -> FileArray:
        """View an array that a file contains, `item` of a tuple where it contains several."""
        view = array.view(cls)
        view.flags.writeable = False  # or it would no longer equal the file
        view.source = str(path), item
        return view

    def __array_finalize__(self, obj: Any) -> None:
        self.source = None


def read(path: str, item: int | None) -> NDArray[Any]:
    """Read an array from its file."""
    found = load(Path(path))
    return found if item is None else found[item]


@dask_serialize.register(FileArray)
def _serialize(array: FileArray, context: Any = None) -> tuple[dict[str, Any], list[Any]]:
    if array.source is not None and Path(array.source[0]).exists():
        return {"source": array.source}, []
    header, frames = serialize_numpy_ndarray(np.asarray(array), context)
    return {"array": header}, frames


@dask_deserialize.register(FileArray)
def _deserialize(header: dict[str, Any], frames: list[Any]) -> NDArray[Any]:
    if "source" in header:
        return read(*header["source"])
    return deserialize_numpy_ndarray(header["array"], frames)
