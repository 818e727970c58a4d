"""Iteration over batches that fit into memory, with a progress bar."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from skboundary._callbacks import counted

# Largest batch in bytes of input and in samples. The activations of a convolutional network take
# some tens of times the memory of its input, hence the low limits.
BATCH_BYTES = 2**25
_BATCH_SIZE = {"cpu": 512}
_BATCH_SIZE_ACCELERATOR = 4096
# Out-of-memory messages of torch's allocators and libraries that raise another RuntimeError.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's CPU allocator
    "out of memory",  # "MPS backend out of memory", "XPU out of memory", CUDA before torch 1.13
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
)


def resolve_batch_size(batch_size: int | str, sample_bytes: int, device: torch.device) -> int:
    """Resolve the batch size; "auto" bounds the memory and the samples of a batch."""
    if batch_size != "auto":
        return min(int(batch_size), 2**62)  # what torch takes
    largest = _BATCH_SIZE.get(device.type, _BATCH_SIZE_ACCELERATOR)
    return max(1, min(largest, BATCH_BYTES // max(sample_bytes, 1)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, so that a smaller batch may fit."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def map_batches(
    step: Callable[[slice], Any],
    n_samples: int,
    batch_size: int,
    *,
    verbose: int = 0,
    desc: str = "samples",
    bar: Any = None,
) -> Iterator[Any]:
    """Yield ``step(batch)`` for consecutive slices of the samples.

    A batch that runs out of memory is halved and tried again; later batches keep the smaller size.

    Parameters
    ----------
    step : callable
        Called with a slice of sample indices.
    n_samples : int
    batch_size : int
    verbose : int, default=0
        A positive value shows a progress bar.
    desc : str, default="samples"
        Label of the progress bar.
    bar : object, default=None
        A bar opened by `progress`, shared by several passes; None opens one for this pass.

    Yields
    ------
    result : object
        What `step` returned.

    Raises
    ------
    MemoryError, RuntimeError
        The out-of-memory error, if a single sample does not fit.
    """
    with progress(n_samples, desc, verbose) if bar is None else nullcontext(bar) as bar:
        start = 0
        while start < n_samples:
            stop = min(start + batch_size, n_samples)
            too_large = False
            try:
                result = step(slice(start, stop))
            except (MemoryError, RuntimeError) as error:
                if stop - start == 1 or not is_out_of_memory(error):
                    raise
                too_large = True
            if too_large:  # outside the handler, whose traceback holds the tensors
                batch_size = (stop - start) // 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            yield result
            bar.update(stop - start)
            start = stop


def joined(parts: Iterable[Sequence[Any]], n_samples: int) -> list[Any]:
    """Join the consecutive parts of several arrays, each of which is allocated once.

    A concatenation would hold the parts and the result at the same time.

    Parameters
    ----------
    parts : iterable of sequences of Tensor or ndarray
        The same number of arrays in each part, on the CPU and of one length (m, ...).
    n_samples : int
        Sum of the lengths.

    Returns
    -------
    arrays : list of Tensor or ndarray
        Of shape (n_samples, ...); a single part is returned as it is.

    Raises
    ------
    ValueError
        If the shapes after the first axis differ between parts.
    """
    arrays: list[Any] = []
    start = 0
    for part in parts:
        stop = start + len(part[0])
        if not arrays:
            arrays = [*part] if stop == n_samples else [_room(p, n_samples) for p in part]
        if stop - start < n_samples:
            arrays = [_written(a, p, start, stop) for a, p in zip(arrays, part, strict=True)]
        start = stop
    return arrays


def _room(like: Any, n: int) -> Any:
    shape = (n, *like.shape[1:])
    return like.new_empty(shape) if isinstance(like, torch.Tensor) else np.empty(shape, like.dtype)


def _written(whole: Any, part: Any, start: int, stop: int) -> Any:
    """Write a part to its place; in a wider dtype if the part has one, as concatenation does."""
    if part.shape[1:] != whole.shape[1:]:
        shapes = tuple(whole.shape[1:]), tuple(part.shape[1:])
        raise ValueError(
            f"Samples before number {start} have results of shape {shapes[0]}, and those from it "
            f"on {shapes[1]}. They must have one shape."
        )
    if part.dtype != whole.dtype and isinstance(part, torch.Tensor):
        whole = whole.to(torch.promote_types(whole.dtype, part.dtype))
    elif part.dtype != whole.dtype:
        whole = whole.astype(np.result_type(whole, part))
    whole[start:stop] = part
    return whole


def progress(total: int, desc: str, verbose: int) -> Any:
    """Open a tqdm bar if `verbose` is positive, and otherwise a bar that shows nothing.

    Inside `pass_task` it also counts blocks for callbacks.
    """
    if verbose <= 0:  # even a disabled tqdm starts a monitor thread
        return counted(_Silent(), total)
    from tqdm.auto import tqdm

    return counted(tqdm(total=total, desc=desc, leave=False), total)


class _Silent:
    """A progress bar that shows nothing."""

    n = 0

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Do nothing."""
