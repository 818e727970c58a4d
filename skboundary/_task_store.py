"""Arguments and results of tasks on disk, from which a later run of the same tasks continues."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import getpass
import os
import pickle
import re
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

LARGE = 2**20  # bytes of a result that travels as a file
TRIES = 3  # of a task: one and two retries


def task_folder() -> Path:
    """The folder of this user in the temporary directory of dask.

    Returns
    -------
    folder : Path
        Made if it is missing, for this user alone, because its files are unpickled.

    Raises
    ------
    ValueError
        If other users may write to it.
    """
    import dask

    owner = os.getuid() if hasattr(os, "getuid") else None
    base = Path(dask.config.get("temporary-directory", None) or tempfile.gettempdir()).absolute()
    folder = base / f"skboundary-{getpass.getuser() if owner is None else owner}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if owner is not None and (not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or writable):
        raise ValueError(
            f"{folder} is not a folder that only this user can write to, and its files would be "
            "unpickled. Remove it, or set temporary-directory in the configuration of dask."
        )
    return folder


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears by a rename: complete, or not at all."""
    work = path.with_name(f"{path.name}.{uuid4().hex}")
    try:
        with open(work, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise


class TaskStore(NamedTuple):
    """Results of finished tasks in a folder, each in a file of its own.

    Parameters
    ----------
    folder : str
    run : str
        Identifies a call. Tries are counted for each, those that ended with their process too.
    """

    folder: str
    run: str

    @classmethod
    def open(cls) -> TaskStore:
        """Those of a new call, in `task_folder`."""
        return cls(str(task_folder()), uuid4().hex)

    def finish(self, key: str, what: str, task: Callable[[], Any]) -> tuple[Any, Path]:
        """Load the result of a task, or compute and store it.

        Parameters
        ----------
        key : str
            Identifies all that the result depends on.
        what : str
            What the task computes, for errors.
        task : callable

        Returns
        -------
        result : object
        path : Path
            Its file.

        Raises
        ------
        ValueError, TypeError
            Those of the task, which is not tried again.
        RuntimeError
            If the task failed three times, or its process ended as often.
        """
        part = Path(self.folder, f"part-{key}.pkl")
        if part.exists():
            return load(part), part
        tries = Path(self.folder, f"tries-{self.run}-{key}-{re.sub('[^0-9a-z]+', '-', what)}")
        reason, cause = "its process ended", None
        while not tries.exists() or tries.stat().st_size < TRIES:
            with open(tries, "ab") as file:
                file.write(b".")
            try:
                result = task()
            except (ValueError, TypeError) as error:
                tries.unlink()
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(f"{what}: {error}") from error
            except Exception as error:  # memory, files, devices: another try may succeed
                reason, cause = f"{type(error).__name__}: {error}", error
                continue
            write_whole(part, pickle.dumps(result, protocol=5))
            tries.unlink()
            return result, part
        tries.unlink()
        raise RuntimeError(
            f"{what} failed {TRIES} times ({reason}). Finished parts are in {self.folder}, and the "
            "same call continues from them."
        ) from cause


def load(path: Path) -> Any:
    """Load a result."""
    with open(path, "rb") as file:
        return pickle.load(file)


def in_worker() -> bool:
    """Whether this code runs in a task of a cluster."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True
