"""The tour of ``python -m skboundary``: one function for each part, listed in `PARTS`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

import skboundary
from skboundary._tour._boundary import part_boundary
from skboundary._tour._data import Problem, Recipe, load_problem
from skboundary._tour._neighbors import part_neighbors
from skboundary._tour._over_sampling import part_over_sampling

__all__ = ["PARTS", "Problem", "Recipe", "load_problem", "versions"]

# The parts in order; each prints its results, may save files to `out` and returns its figures.
PARTS: dict[str, Callable[[Problem, Path], dict[str, Any]]] = {
    "neighbors": part_neighbors,
    "boundary": part_boundary,
    "over_sampling": part_over_sampling,
}


def versions() -> dict[str, str]:
    """Versions that the figures depend on."""
    return {
        "skboundary": skboundary.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
    }
