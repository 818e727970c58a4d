"""The folder of real data that SKBOUNDARY_DATA names, and the readers that lie in it."""

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
    """The folder; a clear line and the end of the script where the variable is unset."""
    folder = os.environ.get("SKBOUNDARY_DATA")
    if not folder:
        sys.exit("Set SKBOUNDARY_DATA to the folder that holds load.py and the data it reads.")
    return Path(folder)


def data_reader() -> ModuleType:
    """The folder's own readers, load.py."""
    spec = importlib.util.spec_from_file_location("load", data_folder() / "load.py")
    assert spec and spec.loader
    load = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load)
    return load


def load_mnist() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (n, 1, 28, 28) in [0, 1] and labels, training and test."""
    X, y, X_test, y_test = data_reader().images("mnist")
    images = [torch.from_numpy(a).float().div(255)[:, None] for a in (X, X_test)]
    labels = [torch.from_numpy(a).long() for a in (y, y_test)]
    return images[0], labels[0], images[1], labels[1]
