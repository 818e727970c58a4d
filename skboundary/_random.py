"""Seeds, random number generators, and torch's process-wide state."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from joblib import cpu_count
from sklearn.utils import check_random_state

RandomStateLike = int | np.random.RandomState | None

_MAX_SEED = 2**31 - 1
# torch's global generators are process-wide, so trainings run one at a time.
_TRAINING = threading.RLock()


def draw_seed(random_state: RandomStateLike) -> int:
    """Draw one seed from `random_state`: the only random number that a fit takes from it."""
    return int(check_random_state(random_state).randint(_MAX_SEED))


def spawn_generators(seed: int, n: int) -> list[torch.Generator]:
    """Create `n` independent CPU generators, for instance one per class."""
    parent = torch.Generator().manual_seed(seed)
    seeds = torch.randint(_MAX_SEED, (n,), generator=parent).tolist()
    return [torch.Generator().manual_seed(s) for s in seeds]


@contextmanager
def forked_rng(seed: int) -> Iterator[None]:
    """Seed torch's global generators in the block and restore their states afterwards.

    The generators are process-wide, so blocks in several threads run one after another.
    """
    with _TRAINING, ExitStack() as stack:
        fork = torch.random.fork_rng
        stack.enter_context(fork(devices=range(torch.cuda.device_count())))
        if torch.xpu.is_available():
            xpus = range(torch.xpu.device_count())
            stack.enter_context(fork(devices=xpus, device_type="xpu"))
        if torch.backends.mps.is_available():
            stack.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread in the block; blocks in several threads run one after another.

    `torch.set_num_threads` sets the count of the calling thread and of threads started later. A
    thread that was started in such a block begins with 1, so the count to restore is read in a
    new thread.
    """
    with _TRAINING:
        count: list[int] = []
        fresh = threading.Thread(target=lambda: count.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        try:
            torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(count[0])


@contextmanager
def torch_threads(n_jobs: int | None) -> Iterator[None]:
    """Let torch use `n_jobs` threads in the block: at most one for each processor, -1 for all.

    None keeps the number of the calling thread, which is restored afterwards.
    """
    if n_jobs is None:
        yield
        return
    before, n_cpus = torch.get_num_threads(), cpu_count()
    n_threads = min(n_jobs, n_cpus) if n_jobs > 0 else max(n_cpus + 1 + n_jobs, 1)
    try:
        torch.set_num_threads(n_threads)
        yield
    finally:
        torch.set_num_threads(before)
