"""Number of torch's threads, in a block."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_own = threading.local()  # depth: in how many blocks the thread is
_open = _default = 0  # blocks of all threads; the number of threads to restore


@contextmanager
def thread_count(n: int) -> Iterator[None]:
    """Let torch use n threads in the block.

    `torch.set_num_threads` sets the number of the calling thread and of all threads started later.
    Of several blocks at the same time the last one restores it for later threads. A thread that was
    started during a block of another one began with n, and leaves a block of its own with the
    number that is restored.
    """
    global _open, _default
    depth, entered = getattr(_own, "depth", 0), False
    try:
        with _lock:
            if not _open:
                _default = _in_new_thread(torch.get_num_threads)
            before = _default if _open and not depth else torch.get_num_threads()
            _open += 1
            entered = True  # Ctrl-C cannot come between these two lines
        _own.depth = depth + 1
        torch.set_num_threads(n)
        yield
    finally:
        _own.depth = depth
        if entered:
            with _lock:
                torch.set_num_threads(before)
                _open -= 1
                if not _open and before != _default:
                    _in_new_thread(torch.set_num_threads, _default)


def _in_new_thread(function: Callable[..., Any], *args: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function(*args)))
    thread.start()
    thread.join()
    return found[0]
