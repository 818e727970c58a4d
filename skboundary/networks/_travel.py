"""Objects that go to the workers of a cluster as files, which each worker reads once."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any
from uuid import uuid4

import skboundary
from skboundary._task_store import load, write_whole
from skboundary.networks import _digest as digests

_PACKAGE = Path(skboundary.__file__).parent
_KEPT = 4  # objects in the memory of a worker


def send(obj: Any, folder: str) -> str:
    """Write an object to a file.

    Parameters
    ----------
    obj : object
        Classes and functions of `__main__` are written with it; a bank on disk stays there.
    folder : str

    Returns
    -------
    path : str
        Named after the content, so that tasks are recognized by the names of their arguments. An
        object whose content cannot be read gets a random name.
    """
    import cloudpickle

    path = Path(folder, f"{name_of(obj)}.pkl")
    if not path.exists():
        write_whole(path, cloudpickle.dumps(obj))
    return str(path)


@lru_cache(maxsize=_KEPT)
def receive(path: str) -> Any:
    """Read an object; the last ones are kept."""
    return load(Path(path))


def name_of(obj: Any) -> str:
    """Digest of the content of an object, or a random name if it cannot be read."""
    try:
        return _Walk().digest("", obj).hex()
    except (ValueError, RecursionError):
        return uuid4().hex


class _Walk(digests.Walk):
    """Digests with the objects of this package as they are stored, and its code as a whole."""

    def content(self, obj: Any) -> digests.Content:
        kind = type(obj)
        if isinstance(obj, type | FunctionType) and _is_ours(obj):
            yield f"{obj.__module__}.{obj.__qualname__}".encode() + _source()
        elif _is_ours(kind):
            yield b"ours"
            yield ".__class__", kind
            stored = hasattr(obj, "_stored_state")
            yield "", obj._stored_state() if stored else obj.__reduce_ex__(4)[1:]
        else:
            yield from super().content(obj)


def _is_ours(obj: Any) -> bool:
    return str(obj.__module__).partition(".")[0] == _PACKAGE.name


@lru_cache(maxsize=1)
def _source() -> bytes:
    """Digest of the source files of this package: edited code computes other results."""
    files = sorted(_PACKAGE.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).digest()
