"""The folder of real data named by SKBOUNDARY_DATA, and its readers."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor


def data_folder() -> Path:
    """Return the folder, or exit with a message if the variable is not set."""
    folder = os.environ.get("SKBOUNDARY_DATA")
    if not folder:
        sys.exit("Set SKBOUNDARY_DATA to the folder with load.py and the data that it reads.")
    return Path(folder)


def data_reader() -> ModuleType:
    """Import load.py, the readers of the folder."""
    spec = importlib.util.spec_from_file_location("load", data_folder() / "load.py")
    assert spec and spec.loader
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    return load


def load_mnist() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Load training and test images (n, 1, 28, 28) in [0, 1] and their labels."""
    X, y, X_test, y_test = data_reader().images("mnist")
    images = [torch.from_numpy(a).float().div(255)[:, None] for a in (X, X_test)]
    labels = [torch.from_numpy(a).long() for a in (y, y_test)]
    return images[0], labels[0], images[1], labels[1]
