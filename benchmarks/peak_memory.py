"""Peak memory of a call, as reported by the kernel."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
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


def status(key: str) -> float:
    """Read a memory figure of this process from the kernel, in MB."""
    (kilobytes,) = re.findall(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(kilobytes) / 1024
