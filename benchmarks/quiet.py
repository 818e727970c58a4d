"""Times of contenders in turn, and what other processes took of a measurement."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 0.2  # of a core

_BUSY = slice(0, 3), slice(5, 8)  # columns of /proc/stat: user, nice, system; irq, softirq, steal


class OtherLoad:
    """Cores that other processes used since it was made; None where /proc is missing."""

    def __init__(self) -> None:
        self._start = _used()

    def cores(self) -> float | None:
        """Mean number of cores."""
        now = _used()
        if self._start is None or now is None:
            return None
        wall, busy, own = (b - a for a, b in zip(self._start, now))
        return max(0.0, (busy - own) / max(wall, 1e-9))


def _used() -> tuple[float, float, float] | None:
    """Wall seconds, busy seconds of all cores, and CPU seconds of this process and its children."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    columns = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(sum(columns[part]) for part in _BUSY) / os.sysconf("SC_CLK_TCK")
    return time.perf_counter(), busy, sum(os.times()[:4])


def median_seconds(
    contenders: dict[str, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median time of each contender; all run in turn, after one warm-up round.

    On a GPU a contender must return a result on the CPU, so that it waits for the end.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            if i:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}
