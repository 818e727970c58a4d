"""Methods that take dask arrays: a task for each chunk, and a lazy array of the results."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import partial, wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted

from skboundary._task_store import LARGE, TaskStore, in_worker
from skboundary.networks._travel import name_of, receive, send


class Output(NamedTuple):
    """What a method returns for one sample."""

    shape: tuple[int, ...]
    dtype: Any  # of numpy or torch


Outputs = Output | tuple[Output, ...]


def is_dask_array(X: Any) -> bool:
    """Whether X is a dask array, without importing dask."""
    dask_array = sys.modules.get("dask.array")
    return dask_array is not None and isinstance(X, dask_array.Array)


def over_chunks(
    describe: Callable[..., Outputs], divide: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """Decorate a method so that it maps dask arrays lazily, chunk by chunk.

    Parameters
    ----------
    describe : callable
        Receives the estimator, X and the other arguments by name, and returns the shape and dtype
        of the result for one sample, or several of them where the method returns a tuple.
    divide : callable, default=None
        Divides a chunk into several tasks, see `Chunk`: receives the estimator and a chunk, and
        returns its result, a Delayed, or None for a single task.

    Returns
    -------
    decorator : callable
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(method)

        @wraps(method)
        def now_or_lazily(self: Any, *args: Any, **kwargs: Any) -> Any:
            X = args[0] if args else kwargs.get("X")
            if not is_dask_array(X):
                return method(self, *args, **kwargs)
            options = signature.bind(self, *args, **kwargs).arguments
            options = {name: options[name] for name in list(options)[2:]}
            check_is_fitted(self)
            _check_chunks(self, method.__name__, X)
            outputs = _map(_as_numpy, describe(self, X, **options))
            return _lazily(self, method.__name__, X, options, outputs, divide)

        return now_or_lazily

    return decorate


def _as_numpy(output: Output, _: int | None) -> Output:
    if isinstance(output.dtype, torch.dtype):
        return output._replace(dtype=torch.empty(0, dtype=output.dtype).numpy().dtype)
    return output._replace(dtype=np.dtype(output.dtype))


def _check_chunks(estimator: Any, method: str, X: Any) -> None:
    """Refuse chunks that are not whole samples, and samples of another shape than in fit."""
    if any(n > 1 for n in X.numblocks[1:]):
        raise ValueError(
            f"X has chunks of shape {X.chunksize}, which divide samples of shape {X.shape[1:]}. "
            "Use X.rechunk({i: -1 for i in range(1, X.ndim)})."
        )
    shape = getattr(estimator, "input_shape_", None)
    if shape is not None and X.shape[1:] != shape:
        raise ValueError(
            f"X has samples of shape {X.shape[1:]}, but {type(estimator).__name__} was "
            f"fitted with samples of shape {shape}. Reshape X."
        )
    if method == "transform" and _get_output_config(method, estimator)["dense"] != "default":
        raise ValueError(
            "transform of a dask array returns a dask array: use set_output(transform='default')."
        )


def _lazily(
    estimator: Any,
    method: str,
    X: Any,
    options: dict[str, Any],
    outputs: Outputs,
    divide: Callable[..., Any] | None,
) -> Any:
    """Dask arrays of the results of a method, one chunk for each of X."""
    import dask.array as da

    store = TaskStore.open()
    path, blocks = send(estimator, store.folder), X.to_delayed().ravel()
    found = []
    for what, block in zip(_names(X.chunks[0]), blocks, strict=True):
        chunk = Chunk(store, path, options, block, what, outputs)
        divided = None if divide is None else divide(estimator, chunk)
        found.append(chunk.task(method) if divided is None else divided)

    def joined(arrays: list[Any], output: Output) -> Any:
        shapes = [(n, *output.shape) for n in X.chunks[0]]
        return da.concatenate(
            [
                da.from_delayed(array, shape, dtype=output.dtype)
                for array, shape in zip(arrays, shapes, strict=True)
            ]
        )

    if isinstance(outputs, Output):
        return joined(found, outputs)
    return tuple(joined([f[i] for f in found], output) for i, output in enumerate(outputs))


class Chunk(NamedTuple):
    """Samples of X in a lazy call.

    Parameters
    ----------
    store : TaskStore
    path : str
        File of the estimator.
    options : dict
        Arguments of the method besides X.
    block : Delayed
        The samples (n, ...).
    what : str
        Its name, for errors.
    outputs : Output or tuple of Output
        What is returned for one sample.
    """

    store: TaskStore
    path: str
    options: dict[str, Any]
    block: Any
    what: str
    outputs: Outputs

    def task(self, call: str | Callable[..., Any]) -> Any:
        """Make the task that calls a method, or a function of the estimator and the samples."""
        from dask import delayed

        name = call if isinstance(call, str) else call.__name__
        return delayed(run_chunk, pure=False)(
            *self.store,
            self.path,
            call,
            self.options,
            self.block,
            self.what,
            self.outputs,
            dask_key_name=f"{name}-{self.what.replace(' ', '-')}-{self.store.run}",
        )


def _names(sizes: tuple[float, ...]) -> Iterator[str]:
    """What each chunk contains; sizes are NaN where dask does not know them."""
    if np.isnan(sizes).any():
        yield from (f"chunk {i} of X" for i in range(len(sizes)))
        return
    for start, stop in pairwise(np.cumsum([0, *sizes])):
        yield f"samples {start} to {stop - 1} of X"


def run_chunk(
    folder: str,
    run: str,
    path: str,
    call: str | Callable[..., Any],
    options: dict[str, Any],
    block: NDArray[Any],
    what: str,
    outputs: Outputs,
) -> Any:
    """Run a task of a chunk, unless its result is stored.

    Parameters
    ----------
    folder, run : str
        See `TaskStore`.
    path, options, what, outputs : object
        See `Chunk`.
    call : str or callable
        See `Chunk.task`.
    block : ndarray of shape (n, ...)

    Returns
    -------
    result : ndarray or tuple of ndarray
    """
    if not block.shape[0]:
        return _map(lambda output, _: np.empty((0, *output.shape), output.dtype), outputs)
    key = name_of((Path(path).name, call, options, block))

    def result() -> Any:
        estimator = receive(path)
        function = getattr(estimator, call) if isinstance(call, str) else partial(call, estimator)
        return function(block, **options)

    found, part = TaskStore(folder, run).finish(key, what, result)
    if not in_worker():
        return found
    from skboundary._file_array import FileArray

    return _map(
        lambda array, i: array if array.nbytes <= LARGE else FileArray.of(array, part, i), found
    )


def _map(function: Callable[[Any, int | None], Any], values: Any) -> Any:
    """Apply a function to a value, or to each of a tuple with its position."""
    if type(values) is not tuple:
        return function(values, None)
    return tuple(function(value, i) for i, value in enumerate(values))
