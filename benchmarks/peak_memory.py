"""Peak memory of a call, as reported by the kernel."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import ctypes
import gc
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def added_memory(call: Callable[[], Any]) -> float:
    """Largest growth of the memory of this process during a call, in MB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # return freed memory of earlier calls
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    call()
    return status("VmHWM") - before


def status(key: str, pid: str = "self") -> float:
    """Read a memory figure of a process from the kernel, in MB."""
    text = Path("/proc", pid, "status").read_text()
    (kilobytes,) = re.findall(rf"^{key}:\s+(\d+) kB", text, re.M)
    return int(kilobytes) / 1024


def added_anonymous_memory(call: Callable[[], Any]) -> float:
    """Largest growth during a call of the memory that no file backs, in MB.

    Pages of a memory map are not counted: the kernel drops them when it needs their memory. Of
    this process and its children, the one that grows most counts.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    first: dict[str, float] = {}
    largest, stop = [0.0], threading.Event()

    def look() -> None:
        for pid in ["self", *_children()]:
            with suppress(OSError, ValueError):  # it has ended
                size = status("RssAnon", pid)
                largest[0] = max(largest[0], size - first.setdefault(pid, size))

    def watch() -> None:
        while not stop.wait(0.002):
            look()

    look()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
        look()
    finally:
        stop.set()
        watcher.join()
    del result
    return largest[0]


def _children() -> list[str]:
    """Process ids of the children of this process."""
    return [
        pid for path in Path("/proc/self/task").glob("*/children") for pid in _read(path).split()
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # a thread that has ended
        return ""
