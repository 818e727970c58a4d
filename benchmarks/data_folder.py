"""The folder of real data named by SKBOUNDARY_DATA, and its readers."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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


def load_images(name: str, n_train: int, n_test: int | None = None) -> list[NDArray[Any]]:
    """Load training and test images (n, channels, height, width) in [0, 1] and their labels."""
    reader = data_reader()
    if name == "mnist":
        X, y, X_test, y_test = reader.images("mnist")
        X, X_test = X[:n_train, None], X_test[:n_test, None]
    else:
        (X, y), (X_test, y_test) = reader.cifar10("train", n_train), reader.cifar10("test", n_test)
        X, X_test = X.transpose(0, 3, 1, 2), X_test.transpose(0, 3, 1, 2)
    # torch convolves images that are stored channel by channel in another time
    X, X_test = (np.ascontiguousarray(a, dtype=np.float32) / 255 for a in (X, X_test))
    return [X, y[:n_train].astype(np.int64), X_test, y_test[:n_test].astype(np.int64)]
