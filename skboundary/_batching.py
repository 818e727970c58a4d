"""Batches that fit into memory, and their progress bar."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch

# A batch holds at most so many bytes of input, and so many rows. Activations of a
# convolutional network are some tens of times its input, hence the modest figures.
BATCH_BYTES = 2**25
_BATCH_ROWS = {"cpu": 512}
_BATCH_ROWS_ACCELERATOR = 4096
# What torch's allocators and libraries say when memory runs out, where it is no OutOfMemoryError.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's CPU allocator
    "out of memory",  # "MPS backend out of memory", "XPU out of memory", CUDA before torch 1.13
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",
)


def resolve_batch_size(batch_size: Any, row_bytes: int, device: torch.device) -> int:
    """Rows in a batch: as asked, or for "auto" what stays within a modest memory."""
    if batch_size != "auto":
        return int(batch_size)
    rows = _BATCH_ROWS.get(device.type, _BATCH_ROWS_ACCELERATOR)
    return max(1, min(rows, BATCH_BYTES // max(row_bytes, 1)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, so that a smaller batch may do."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def map_batches(
    step: Callable[[slice], Any],
    n_rows: int,
    batch_size: int,
    *,
    verbose: int = 0,
    desc: str = "rows",
    bar: Any = None,
) -> Iterator[Any]:
    """Yield ``step(rows)`` for consecutive slices of rows.

    A batch that runs out of memory is halved and tried again, and the smaller size is kept.

    Parameters
    ----------
    step : callable
        Takes a slice.
    n_rows : int
    batch_size : int
    verbose : int, default=0
        A progress bar when positive.
    desc : str, default="rows"
        Its label.
    bar : object, default=None
        What `progress` gave for a whole call that consists of several such passes; None opens
        one for this pass.

    Yields
    ------
    result : object
        What `step` returned.

    Raises
    ------
    MemoryError, RuntimeError
        The out-of-memory error itself, when a single row does not fit.
    """
    with progress(n_rows, desc, verbose) if bar is None else nullcontext(bar) as bar:
        start = 0
        while start < n_rows:
            stop = min(start + batch_size, n_rows)
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


def progress(total: int, desc: str, verbose: int) -> Any:
    """Open a tqdm bar, or a silent stand-in unless `verbose` is positive."""
    if verbose <= 0:  # a tqdm that is disabled still starts a thread that stays
        return _Silent()
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=desc, leave=False)


class _Silent:
    """A progress bar that shows nothing."""

    n = 0

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Take note of nothing."""
