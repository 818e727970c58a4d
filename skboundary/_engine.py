"""Where tasks run: in this process, in several through joblib, or on a cluster of dask.

An algorithm submits its tasks and gathers their results; it does not know which of these it uses.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from joblib import Parallel, delayed, effective_n_jobs

from skboundary._task_store import LARGE, TaskStore, in_worker, load
from skboundary.exceptions import FailedTaskWarning, warn_caller
from skboundary.functional._threads import thread_count
from skboundary.networks._digest import digest
from skboundary.networks._travel import name_of, receive, send

_SHARES = 64  # of the work for a cluster, whatever the number of its workers
_SMALL = 2**16  # bytes of an argument that goes with its task
_PATIENCE = 60.0  # seconds without a worker
_INTERVAL = 5.0  # seconds between two looks at the workers


class Failed(NamedTuple):
    """Takes the place of the result of a task that failed."""

    reason: str


class ClusterLost(RuntimeError):
    """The cluster ended, or has no workers any more."""


class Engine(Protocol):
    """Three functions that run tasks."""

    @property
    def shares(self) -> int:
        """Into how many tasks to divide work."""

    def submit(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Hand over a task, which depends on its arguments alone."""

    def gather(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield results in the order of the tasks; `Failed` where a task failed."""

    def workers(self) -> int:
        """Number of tasks that run at the same time."""


def find_engine(n_jobs: int | None) -> Engine:
    """The cluster of an active client of dask, or else `n_jobs` processes of joblib.

    Inside a task of a cluster, it is this process alone: tasks do not wait for other tasks.
    """
    if in_worker():
        return Processes(1)
    distributed = sys.modules.get("distributed")
    try:
        client = None if distributed is None else distributed.default_client()
    except ValueError:
        client = None
    if client is None or client.status == "closed":
        return Processes(n_jobs)
    if client.asynchronous:
        raise ValueError(
            "The active client of dask is asynchronous, and results are awaited here. Use "
            "Client(..., asynchronous=False)."
        )
    return Cluster(client)


class Processes:
    """Processes of joblib; with one, tasks run in this process when they are gathered."""

    def __init__(self, n_jobs: int | None = None) -> None:
        self.n_jobs = n_jobs

    @property
    def shares(self) -> int:
        """Number of processes."""
        return effective_n_jobs(self.n_jobs)

    def submit(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Hand over a task."""
        return delayed(_on_threads)(torch.get_num_threads(), function, *args)

    def gather(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield results; an error of a task is raised."""
        tasks = list(tasks)
        n_jobs = self.n_jobs if len(tasks) > 1 else 1
        yield from Parallel(n_jobs=n_jobs, return_as="generator")(tasks)

    def workers(self) -> int:
        """Number of processes."""
        return effective_n_jobs(self.n_jobs)


def _on_threads(n: int, function: Callable[..., Any], *args: Any) -> Any:
    """Compute a task on at most n threads of torch: joblib gives its processes a number of its own.

    The order of the sums of a matrix product depends on it.
    """
    if torch.get_num_threads() <= n:
        return function(*args)
    with thread_count(n):
        return function(*args)


class Cluster:
    """The workers of a client of dask.

    Arguments are written to files once, and results that are not small, too. Finished tasks are
    not computed again, whatever ended in the meantime.

    Parameters
    ----------
    client : distributed.Client
    """

    shares = _SHARES

    def __init__(self, client: Any) -> None:
        self.client, self.store = client, TaskStore.open()
        self.sent: dict[int, tuple[Any, str, Any]] = {}  # the object too: its id must stay taken

    def submit(self, what: str, function: Callable[..., Any], *args: Any) -> Any:
        """Hand over a task."""
        names, sent = zip(*map(self._send, args), strict=True)
        key = digest(function=self._send(function)[0], args=names)
        name = f"{function.__name__}-{what.replace(' ', '-')}-{self.store.run}-{key}"
        return self.client.submit(
            run_task, *self.store, key, what, function, sent, key=name, pure=False
        )

    def gather(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield results; a warning tells of tasks that failed.

        Raises
        ------
        ValueError, TypeError
            Those of a task.
        ClusterLost
            If the cluster has no worker for a minute, or ended.
        """
        tasks = list(tasks)
        reasons = []
        for task in tasks:
            try:
                result = self._result(task)
            except (ValueError, TypeError, ClusterLost):
                raise
            except Exception as error:
                result = Failed(str(error))
                reasons.append(result.reason)
            yield load(result) if isinstance(result, Path) else result
        if reasons:
            warn_caller(
                f"{len(reasons)} of {len(tasks)} tasks failed on the cluster. The first: "
                f"{reasons[0]}",
                FailedTaskWarning,
            )

    def workers(self) -> int:
        """Number of threads of all workers that are there now."""
        if self.client.status != "running":
            return 0
        return sum(self.client.nthreads().values())

    def _send(self, arg: Any) -> tuple[str, Any]:
        """The name of an argument, and what goes with the task in its place."""
        if id(arg) not in self.sent:
            import cloudpickle

            if len(cloudpickle.dumps(arg)) < _SMALL:
                name, sent = name_of(arg), arg
            else:
                sent = Path(send(arg, self.store.folder))
                name = sent.name
            self.sent[id(arg)] = arg, name, sent
        return self.sent[id(arg)][1:]

    def _result(self, task: Any) -> Any:
        """Wait for a task as long as there are workers."""
        from distributed import CancelledError

        seen = time.monotonic()
        while True:
            try:
                return task.result(timeout=_INTERVAL)
            except CancelledError as error:
                raise ClusterLost(f"The cluster ended ({error}). {self._kept}") from error
            except TimeoutError:
                if self.workers():
                    seen = time.monotonic()
                elif time.monotonic() - seen > _PATIENCE:
                    raise ClusterLost(
                        f"The cluster has had no worker for {_PATIENCE:.0f} seconds. {self._kept}"
                    ) from None

    @property
    def _kept(self) -> str:
        return f"Finished parts are in {self.store.folder}, and the same call continues from them."


def run_task(
    folder: str,
    run: str,
    key: str,
    what: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> Any:
    """Compute a task on a worker, unless its result is stored.

    Parameters
    ----------
    folder, run : str
        See `TaskStore`.
    key, what : str
        See `TaskStore.finish`.
    function : callable
    args : tuple
        A path stands for an object in that file.

    Returns
    -------
    result : object or Path
        The path of a large one.
    """

    def call() -> Any:
        return function(*(receive(str(a)) if isinstance(a, Path) else a for a in args))

    result, part = TaskStore(folder, run).finish(key, what, call)
    return part if part.stat().st_size > LARGE else result
