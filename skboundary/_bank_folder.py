"""A bank on disk: latent vectors, outputs and labels as npy files, described by bank.json.

Files of a part appear complete, by a rename, and never change; then bank.json, which names them, is
replaced in the same way. A crash therefore leaves the bank as it was before or after a part.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from sklearn.utils import gen_batches

from skboundary._bank_state import (
    STATE_FILE,
    Form,
    check_state,
    classes_from_json,
    classes_to_json,
    new_state,
    part_file,
    read_state,
    write_state,
)
from skboundary._part_array import PartArray, open_part
from skboundary._part_writer import LOCK, UNFINISHED, Block, PartWriter, locked, sha256

__all__ = ["BankFolder", "Block"]

_BLOCK_BYTES = 2**25  # read at a time from the arrays of `append`


class BankFolder:
    """Latent vectors, outputs and labels of samples, in a folder.

    Use `create` or `open`. The object stands for the samples that were there when it was opened and
    those that it has appended itself. A pickle contains the path and the description, no sample.

    Attributes
    ----------
    path : Path
        Absolute.
    metric, digest, layer, pool, link : str, int or None
        The distance; the digest of the network; its layer and pooling; the name of the function
        that turns outputs into probabilities.
    classes : ndarray of shape (n_classes,) or None
    samples : dict or None
        `shape`, `dtype` and `names` of the samples that the network was given.
    complete : bool
        Whether `finish` was called since samples were appended.
    """

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path, self._state = path, state
        self.metric: str | None = state["metric"]
        self.digest: str | None = state["digest"]
        self.layer: str | int | None = state["layer"]
        self.pool: str | None = state["pool"]
        self.link: str | None = state["link"]
        self.samples: dict[str, Any] | None = state["samples"]
        self.classes: NDArray[Any] | None = classes_from_json(state["classes"])
        self._mapped: dict[str, PartArray] | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        metric: str | None = None,
        digest: str | None = None,
        classes: Any = None,
        layer: str | int | None = None,
        pool: str | None = None,
        link: str | None = None,
        samples: dict[str, Any] | None = None,
    ) -> BankFolder:
        """Write a bank without samples.

        Parameters
        ----------
        path : str or path-like
            A folder that does not exist or is empty.
        metric, digest, classes, layer, pool, link, samples : object
            See the attributes of the class.

        Returns
        -------
        folder : BankFolder

        Raises
        ------
        ValueError
            If the folder contains something.
        """
        folder = Path(os.path.abspath(path))
        folder.mkdir(parents=True, exist_ok=True)
        state = new_state(
            metric=metric,
            digest=digest,
            classes=classes_to_json(classes),
            layer=layer,
            pool=pool,
            link=link,
            samples=samples,
        )
        check_state(state, folder / STATE_FILE)
        with locked(folder):
            others = [
                file.name
                for file in folder.iterdir()
                if file.name != LOCK and file.suffix != UNFINISHED
            ]
            if others:
                raise ValueError(
                    f"{folder} is not empty ({sorted(others)[:3]}). Give the path of a new folder, "
                    "or delete this one."
                )
            write_state(folder, state)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> BankFolder:
        """Open a bank; `bank.json` and the headers and sizes of all files are checked.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        folder : BankFolder

        Raises
        ------
        ValueError
            If there is no bank, or a file of it is not as described; names the file.
        """
        folder = Path(os.path.abspath(path))
        bank = cls(folder, read_state(folder))
        for name, form in bank._forms.items():
            for i, n in enumerate(bank._lengths):
                open_part(part_file(folder, name, i), form.dtype, (n, *form.shape))
        return bank

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], **fields: Any) -> BankFolder:
        """Open the bank of a folder if it is described by `fields`, or create it.

        Parameters
        ----------
        path : str or path-like
        **fields : object
            As of `create`.

        Returns
        -------
        folder : BankFolder

        Raises
        ------
        ValueError
            If the folder holds a bank with other fields; names the first that differs.
        """
        if not Path(path, STATE_FILE).exists():
            return cls.create(path, **fields)
        folder = cls.open(path)
        own, classes = folder._state, classes_to_json(fields.pop("classes", None))
        for name, value in {**fields, "classes": classes}.items():
            if own[name] != value:
                raise ValueError(
                    f"The bank {folder.path} was written with {name}={own[name]!r}, not {value!r}. "
                    "Give the path of a new folder, or delete this one."
                )
        return folder

    def reopened(self) -> BankFolder:
        """Open the same bank again, with the samples that others have appended since.

        Raises
        ------
        ValueError
            If its folder is missing or holds another bank by now.
        """
        self._arrays()
        return BankFolder.open(self.path)

    @property
    def complete(self) -> bool:
        return self._state["complete"]

    @property
    def n_samples(self) -> int:
        return self._state["parts"][-1]["stop"] if self._state["parts"] else 0

    @property
    def parts(self) -> list[dict[str, Any]]:
        """For each part its `start` and `stop`, and `samples`, a digest of the keys of samples."""
        return self._state["parts"]

    @property
    def files(self) -> list[str]:
        """Names of all files of the bank."""
        numbers = range(len(self.parts))
        parts = [part_file(self.path, name, i).name for name in self._forms for i in numbers]
        return [STATE_FILE, *parts]

    @property
    def latent(self) -> PartArray:
        """Latent vectors (n_samples, n_latent).

        Raises
        ------
        ValueError
            If the bank is empty, or if its folder is missing or holds another bank by now.
        """
        arrays = self._arrays()
        if "latent" not in arrays:
            raise ValueError(f"The bank {self.path} has no samples yet.")
        return arrays["latent"]

    @property
    def outputs(self) -> PartArray | None:
        """Outputs of the network (n_samples, n_outputs)."""
        return self._arrays().get("outputs")

    @property
    def labels(self) -> PartArray | None:
        """Positions (n_samples,) of the labels among the classes."""
        return self._arrays().get("labels")

    def append(
        self, latent: Any, outputs: Any = None, labels: Any = None, keys: Any = None
    ) -> None:
        """Append samples; see `extend`.

        Parameters
        ----------
        latent, outputs, labels : array-like of first dimension n
            Read by slices. Of the same dtypes and shapes in every call.
        keys : sequence of bytes, default=None
            A digest of each sample.
        """
        largest = max(a[:1].nbytes for a in (latent, outputs) if a is not None)
        step = max(1, _BLOCK_BYTES // max(1, largest))

        def block(part: slice) -> Block:
            of_part = [None if a is None else a[part] for a in (outputs, labels, keys)]
            return Block(latent[part], *of_part)

        self.extend(block(part) for part in gen_batches(len(latent), step))

    def extend(self, blocks: Iterable[Block]) -> None:
        """Append samples as they come; samples that came before an error are kept.

        Parameters
        ----------
        blocks : iterable of Block

        Raises
        ------
        ValueError
            If a block has other dtypes or shapes than the bank, or if another process writes to the
            bank or has written to it since it was opened.
        """
        with self._writing():
            for old in self.path.glob(f"*{UNFINISHED}"):
                old.unlink()
            writer = PartWriter(self.path, self._forms, len(self.parts), self.n_samples, self._add)
            try:
                for block in blocks:
                    writer.write(block)
            finally:
                writer.finish()

    def finish(self) -> None:
        """Mark the bank as complete."""
        with self._writing():
            self._replace({**self._state, "complete": True})

    def verify(self) -> None:
        """Compare every byte of the bank with its checksums.

        Raises
        ------
        ValueError
            Names the file that has changed.
        """
        for name in self._forms:
            for i, part in enumerate(self.parts):
                file = part_file(self.path, name, i)
                if sha256(file) != part["sha256"][name]:
                    raise ValueError(
                        f"{file} does not have the sha256 of bank.json: it was changed or damaged. "
                        "Delete the folder, and fit again."
                    )

    @property
    def _forms(self) -> dict[str, Form]:
        return {name: Form.of_json(form) for name, form in self._state["arrays"].items()}

    @property
    def _lengths(self) -> list[int]:
        return [part["stop"] - part["start"] for part in self.parts]

    def _arrays(self) -> dict[str, PartArray]:
        """The arrays of the samples of this object, which later ones may follow in the folder."""
        if self._mapped is None:
            now, own = read_state(self.path), self._state
            changed = {"parts", "complete"}
            same = {k: v for k, v in now.items() if k not in changed} == {
                k: v for k, v in own.items() if k not in changed
            }
            if not same or now["parts"][: len(self.parts)] != self.parts:
                raise ValueError(
                    f"{self.path} holds another bank than the one with {self.n_samples} samples "
                    "that was opened here. Fit again, or open it with from_bank."
                )
            files = range(len(self.parts))
            stops = [part["stop"] for part in self.parts]
            self._mapped = {
                name: PartArray([part_file(self.path, name, i) for i in files], stops, *form)
                for name, form in self._forms.items()
            }
        return self._mapped

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with locked(self.path):
            if read_state(self.path) != self._state:
                raise ValueError(
                    f"The bank {self.path} was changed since it was opened, by another process or "
                    "object. Open it again."
                )
            yield

    def _add(self, part: dict[str, Any], forms: dict[str, Form]) -> None:
        arrays = {name: form.to_json() for name, form in forms.items()}
        parts = [*self.parts, part]
        self._replace({**self._state, "complete": False, "arrays": arrays, "parts": parts})

    def _replace(self, state: dict[str, Any]) -> None:
        write_state(self.path, state)
        self._state, self._mapped = state, None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": None}
