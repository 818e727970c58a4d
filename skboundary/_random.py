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

from skboundary.functional._threads import thread_count

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
    """Limit torch to one thread in the block; blocks in several threads run one after another."""
    with _TRAINING, thread_count(1):
        yield


@contextmanager
def torch_threads(n_jobs: int | None) -> Iterator[None]:
    """Let torch use `n_jobs` threads in the block: at most one for each processor, -1 for all.

    None keeps the number of the calling thread.
    """
    if n_jobs is None:
        yield
        return
    n_jobs, n_cpus = int(n_jobs), cpu_count()  # a bool is one
    with thread_count(min(n_jobs, n_cpus) if n_jobs > 0 else max(n_cpus + 1 + n_jobs, 1)):
        yield
