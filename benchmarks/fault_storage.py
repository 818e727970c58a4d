"""Faults of files, processes, threads and neighbor searches, for `faults.py`.

Each function injects its fault into some steps and returns the trace of each, which is empty if all
went as expected.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import builtins
import errno
import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from fault_calls import CALLS, X, Y, faulty, same, trained, values
from sklearn.neighbors import NearestNeighbors

from skboundary import BiasedExtrapolationSampler, FrozenNetwork, LatentKNNClassifier
from skboundary._bank_folder import BankFolder
from skboundary.exceptions import CacheWarning
from skboundary.networks import _sample_store


def _cached(folder: str | Path) -> Any:
    """Predictions through a cache in a folder."""
    clf = LatentKNNClassifier(FrozenNetwork(trained(), batch_size=8), memory=str(folder))
    return values(clf.fit(X, Y).predict_proba(X))


def _warned(folder: Path) -> tuple[Any, bool]:
    """Predictions, and whether they came with a warning of the cache."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _cached(folder)
    return found, any(issubclass(w.category, CacheWarning) for w in caught)


def _plain() -> Any:
    clf = LatentKNNClassifier(FrozenNetwork(trained(), batch_size=8))
    return values(clf.fit(X, Y).predict_proba(X))


@contextmanager
def _full_disk(at: int) -> Iterator[list[int]]:
    """Let writing to the cache fail, from operation number `at` on; 0 never fails."""
    count = [0]

    def step() -> None:
        count[0] += 1
        if 0 < at <= count[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        """A file whose writes are counted."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def write(self, data: Any) -> None:
            step()
            self.file.write(data)

    def open_file(path: Any, mode: str = "r") -> Any:
        if mode == "rb":
            return builtins.open(path, mode)
        step()
        return Full(builtins.open(path, mode))

    def replace(*paths: Any) -> None:
        step()
        os.rename(*paths)

    with (
        patch.object(_sample_store, "open", open_file, create=True),
        patch.object(_sample_store.os, "replace", replace),
    ):
        yield count


def full_disk(most: int) -> list[str]:
    """The disk is full from the i-th operation of the cache on."""
    want = _plain()
    with tempfile.TemporaryDirectory() as folder, _full_disk(0) as count:
        _cached(folder)
    went_well = []
    for at in range(1, min(count[0], most) + 1):
        with tempfile.TemporaryDirectory() as folder:
            with _full_disk(at):
                found, warned = _warned(Path(folder))
            unfinished = [*Path(folder).rglob("*.unfinished")]
            again, _ = _warned(Path(folder))
            went_well.append(same(found, want) and warned and not unfinished and same(again, want))
    return ["" if well else "the result" for well in went_well]


def corrupt_file(most: int) -> list[str]:
    """A byte of a file of the cache is flipped, or the file is cut there."""
    want, went_well = _plain(), []
    with tempfile.TemporaryDirectory() as folder:
        _cached(folder)
        contents = {path: path.read_bytes() for path in Path(folder).rglob("*.entries")}
    rng = np.random.default_rng(0)
    for i in range(most):
        path, data = [*contents.items()][i % len(contents)]
        place = int(rng.integers(len(data)))
        damaged = data[:place]
        if i % 4:
            damaged += bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]
        path.parent.mkdir(parents=True, exist_ok=True)
        for other, content in contents.items():
            other.write_bytes(content)
        path.write_bytes(damaged)
        found, warned = _warned(path.parents[3])
        went_well.append(same(found, want) and warned)
        for other in path.parent.glob("*"):
            other.unlink()
    return ["" if well else "the result" for well in went_well]


def damaged_bank(most: int) -> list[str]:
    """A byte of a part of a bank is flipped, or a file of it is cut."""
    rng, traces = np.random.default_rng(0), []
    for i in range(most):
        with tempfile.TemporaryDirectory() as folder:
            bank = BankFolder.create(Path(folder, "bank"))
            for _ in range(2):
                bank.append(rng.normal(size=(20, 4)), rng.normal(size=(20, 3)))
            files = sorted(path for path in bank.path.iterdir() if path.suffix in (".npy", ".json"))
            path = files[i % len(files)]
            data = path.read_bytes()
            place = int(rng.integers(len(data) - 1))
            damaged = data[:place]
            if path.suffix == ".npy" and i % 4:
                damaged += bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]
            path.write_bytes(damaged)
            try:
                BankFolder.open(bank.path).verify()
                traces.append(f"no error for {path.name} at byte {place}")
            except ValueError as error:
                traces.append("" if path.name in str(error) else f"the error {error!r}")
    return traces


_PROCESS = """
import sys, warnings
warnings.simplefilter("error")
sys.path.insert(0, {path!r})
from fault_storage import _cached, _plain, same
print(same(_cached({folder!r}), _plain()))
"""


def two_processes(_: int) -> list[str]:
    """Two processes fill one cache at the same time, and a third one reads it."""
    with tempfile.TemporaryDirectory() as folder:
        code = textwrap.dedent(_PROCESS).format(path=str(Path(__file__).parent), folder=folder)
        run = [sys.executable, "-c", code]
        both = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        outputs = [process.communicate(timeout=300)[0].strip() for process in both]
        outputs.append(str(same(_cached(folder), _plain())))
    return ["" if output == "True" else "the result" for output in outputs]


def spawned(_: int) -> list[str]:
    """An estimator predicts in a process that was spawned."""
    clf = LatentKNNClassifier(FrozenNetwork(trained())).fit(X, Y)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(clf.predict_proba, (X,))
    return ["" if same(values(found), values(clf.predict_proba(X))) else "the result"]


def eight_threads(_: int) -> list[str]:
    """Eight threads call one estimator at the same time."""
    went_well = []
    for call in CALLS.values():
        if call.method.startswith("fit"):
            continue
        _, run = call.begin(faulty())
        want = values(run())
        with ThreadPoolExecutor(8) as pool:
            found = [future.result(120) for future in [pool.submit(run) for _ in range(8)]]
        went_well += [same(values(result), want) for result in found]
    return ["" if well else "the result" for well in went_well]


class FewNeighbors(NearestNeighbors):
    """Finds a sample less than it is asked for."""

    def kneighbors(self, X: Any = None, n_neighbors: Any = None, **_: Any) -> Any:
        return super().kneighbors(X, n_neighbors - 1)


class UnknownNeighbors(NearestNeighbors):
    """Finds samples that do not exist."""

    def kneighbors(self, X: Any = None, n_neighbors: Any = None, **_: Any) -> Any:
        distances, indices = super().kneighbors(X, n_neighbors)
        return distances, indices + self.n_samples_fit_


def poor_neighbors(_: int) -> list[str]:
    """A search object finds too few samples, or samples that do not exist."""
    y = np.minimum(Y, 1)
    traces: list[str] = []
    for search in (FewNeighbors(n_neighbors=3), UnknownNeighbors(n_neighbors=3)):
        knn = LatentKNNClassifier(FrozenNetwork(trained()), neighbors=search).fit(X, Y)
        sampler = BiasedExtrapolationSampler(FrozenNetwork(trained()), neighbors=search)
        calls: list[Callable[[], Any]] = [
            lambda: knn.predict(X),
            lambda: knn.explain(X),
            lambda: knn.kneighbors(X),
            lambda: knn.kneighbors(),
            lambda: knn.diagnose(),
            lambda: sampler.fit_resample(X, y),
        ]
        for call in calls:
            try:
                call()
                traces.append("the result")
            except ValueError as error:
                traces.append("" if "neighbors" in str(error) else f"the error {error!r}")
            except Exception as error:
                traces.append(f"the error {error!r}")
    return traces


# From the fault to the expected result or error, and the function that injects it.
STORAGE = {
    "neighbors: too few samples, or unknown ones": ("ValueError", poor_neighbors),
    "cache: the disk is full": ("right result, CacheWarning", full_disk),
    "cache: a damaged file": ("right result, CacheWarning", corrupt_file),
    "cache: two processes": ("right result", two_processes),
    "bank: a damaged file": ("ValueError", damaged_bank),
    "threads: eight on one estimator": ("right result", eight_threads),
    "process: spawned": ("right result", spawned),
}
