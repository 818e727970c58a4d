"""What the tour shows: one function for each part, in `PARTS`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

import skboundary
from skboundary._tour._boundary import part_boundary
from skboundary._tour._data import Problem, Recipe, load_problem
from skboundary._tour._missing import part_missing
from skboundary._tour._neighbors import part_neighbors

__all__ = ["PARTS", "Problem", "Recipe", "load_problem", "one_thread", "versions"]

# What the tour shows, in this order; a part prints, may save into `out`, returns its figures.
PARTS: dict[str, Callable[[Problem, Path], dict[str, Any]]] = {
    "neighbors": part_neighbors,
    "boundary": part_boundary,
    "missing": part_missing,
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: more only wait for each other in networks this small.

    And sums come out the same on any machine.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def versions() -> dict[str, str]:
    """Versions that the figures depend on."""
    return {
        "skboundary": skboundary.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
    }
