"""Writing the files of a bank: a lock, parts of limited size, and files that appear complete."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skboundary._bank_state import Form, form_of, part_file

PART_BYTES = 2**28  # of the largest file of a part
LOCK, UNFINISHED = "bank.lock", ".unfinished"


class Block(NamedTuple):
    """Consecutive samples, as `BankFolder.extend` takes them."""

    latent: NDArray[Any]  # (n, n_latent)
    outputs: NDArray[Any] | None = None  # (n, n_outputs)
    labels: NDArray[Any] | None = None  # (n,): positions among the classes
    keys: Sequence[bytes] | None = None  # a digest of each sample


class PartWriter:
    """Writes blocks to the files of a part, and begins another part where one is full.

    Parameters
    ----------
    folder : Path
    forms : dict of Form
        Of the arrays; empty if the first block determines them.
    number, n_samples : int
        How many parts and samples there are.
    add : callable
        Called with the description of each part whose files are complete, and the forms.
    """

    def __init__(
        self,
        folder: Path,
        forms: dict[str, Form],
        number: int,
        n_samples: int,
        add: Callable[[dict[str, Any], dict[str, Form]], None],
    ) -> None:
        self.folder, self.forms, self.number, self.start = folder, forms, number, n_samples
        self.add = add
        self.files: dict[str, Any] = {}
        self.n = 0  # samples in the files
        self.keys: Any = None

    def write(self, block: Block) -> None:
        """Write a block.

        Raises
        ------
        ValueError
            If its dtypes or shapes are not those of the bank.
        """
        arrays = self._checked(block)
        limit = max(1, PART_BYTES // max(form.nbytes for form in self.forms.values()))
        start, n = 0, len(block.latent)
        while start < n:
            if not self.files:
                self._begin()
            stop = min(n, start + limit - self.n)
            for name, array in arrays.items():
                self.files[name].write(array[start:stop].data)
            if block.keys is None:
                self.keys = None
            elif self.keys is not None:
                self.keys.update(b"".join(block.keys[start:stop]))
            self.n += stop - start
            start = stop
            if self.n == limit:
                self.finish()

    def finish(self) -> None:
        """Complete the part, if there is one, with the samples whose arrays are all written."""
        files, n = self.files, self.n
        self.files, self.n = {}, 0  # after an error there is nothing left to finish
        with ExitStack() as stack:
            for file in files.values():
                stack.enter_context(file)
            for name, file in files.items():
                form = self.forms[name]
                file.truncate(len(form.header(0)) + n * form.nbytes)
                file.seek(0)
                file.write(form.header(n))
                file.flush()
                os.fsync(file.fileno())
        if n == 0:
            return
        part = {
            "start": self.start,
            "stop": self.start + n,
            "sha256": {name: sha256(Path(file.name)) for name, file in files.items()},
            "samples": None if self.keys is None else self.keys.hexdigest(),
        }
        for name, file in files.items():
            os.replace(file.name, part_file(self.folder, name, self.number))
        self.add(part, self.forms)
        self.number, self.start = self.number + 1, self.start + n

    def _begin(self) -> None:
        self.keys = hashlib.blake2b(digest_size=32)
        for name, form in self.forms.items():
            file = f"{part_file(self.folder, name, self.number)}{UNFINISHED}"
            self.files[name] = open(file, "wb")  # noqa: SIM115
            self.files[name].write(form.header(0))

    def _checked(self, block: Block) -> dict[str, NDArray[Any]]:
        """The arrays of a block by name, contiguous and in native byte order."""
        given = {"latent": block.latent, "outputs": block.outputs, "labels": block.labels}
        arrays = {name: np.asarray(a) for name, a in given.items() if a is not None}
        if "labels" in arrays and arrays["labels"].dtype.kind in "iu":
            arrays["labels"] = arrays["labels"].astype(np.int64)
        forms = {name: form_of(name, array) for name, array in arrays.items()}
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"The arrays of a block differ in length: {lengths}.")
        self.forms = self.forms or forms
        if forms != self.forms:
            raise ValueError(
                f"The bank {self.folder} holds {_listed(self.forms)} of each sample; "
                f"{_listed(forms)} cannot be appended to it."
            )
        return {
            name: np.ascontiguousarray(array, self.forms[name].dtype)
            for name, array in arrays.items()
        }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Exclude other writers; the lock ends with its process, however that ends.

    Raises
    ------
    ValueError
        If another process holds the lock, or the folder cannot be written to.
    """
    try:
        file = open(folder / LOCK, "ab")  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"The bank {folder} cannot be written to ({error}).") from None
    with file:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"Another process is writing to the bank {folder}. Wait for it, or give each "
                "process a folder of its own."
            ) from None
        yield


def sha256(file: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _listed(forms: dict[str, Form]) -> str:
    return ", ".join(f"{name} ({form.dtype}, shape {form.shape})" for name, form in forms.items())
