"""The data of the tour: scikit-learn's digits, or a file of the user."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets

from skboundary._validation import check_finite

_KEYS = ("X_train", "y_train", "X_test", "y_test")
_MIN_TRAIN = 50


class Recipe(NamedTuple):
    """Sizes, seeds and settings of the tour."""

    seeds: tuple[int, ...] = (0, 1, 2)
    max_train: int = 2000
    max_test: int = 2000
    validation: float = 0.2  # share of the training samples that are held out
    noise: float = 0.32  # share of the training labels that are permuted
    imbalance: int = 10  # factor by which every second class is reduced
    max_epochs: int = 80
    enough: float = 0.99  # training accuracy at which training stops
    batch_size: int = 64
    learning_rate: float = 0.002
    n_neighbors: tuple[int, ...] = (1, 3, 8, 20)
    query_weight: tuple[float, ...] = (0.0, 0.25, 0.52, 0.76, 0.88, 0.94, 1.0)
    pairs: int = 100  # borderline pairs from each start


class Problem(NamedTuple):
    """The data: images (n, channels, height, width) or vectors (n, n_features), and labels."""

    description: str
    X_train: NDArray[Any]
    y_train: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    train_index: NDArray[np.intp]  # positions in the data that the samples were drawn from
    test_index: NDArray[np.intp]
    classes: NDArray[Any]
    device: torch.device
    recipe: Recipe


def load_problem(path: str | None, device: torch.device, recipe: Recipe) -> Problem:
    """Load scikit-learn's digits, or the samples of a file.

    Raises
    ------
    ValueError, OSError
        If the file cannot be used; the message is one line.
    """
    if path is None:
        return _digits(device, recipe)
    parts = _read(Path(path))
    X_train, X_test = _images_or_vectors(parts, "X_train"), _images_or_vectors(parts, "X_test")
    if X_train.shape[1:] != X_test.shape[1:]:
        raise ValueError(
            f"X_train has samples of shape {parts['X_train'].shape[1:]}, but X_test has samples of "
            f"shape {parts['X_test'].shape[1:]}."
        )
    y_train, y_test = _labels(parts, "train"), _labels(parts, "test")
    if len(y_train) < _MIN_TRAIN:
        raise ValueError(
            f"X_train has {len(y_train)} samples; the tour needs {_MIN_TRAIN} or more."
        )
    classes = np.unique(y_train)
    if len(classes) < 2:
        raise ValueError(f"y_train holds 1 class, {classes[0]}; the tour needs 2 or more.")
    known = set(classes.tolist())
    unknown = [c for c in np.unique(y_test).tolist() if c not in known]
    if unknown:
        raise ValueError(
            f"y_test contains the label {unknown[0]!r}, which y_train does not contain."
        )
    train = _draw(len(y_train), recipe.max_train)
    test = _draw(len(y_test), recipe.max_test)
    description = (
        f"{path}: {len(train)} of {len(y_train)} training samples and {len(test)} of {len(y_test)} "
        f"test samples of shape {parts['X_train'].shape[1:]}, {len(classes)} classes."
    )
    y_test = classes[np.searchsorted(classes, y_test)]  # one dtype
    return Problem(
        description,
        X_train[train],
        y_train[train],
        X_test[test],
        y_test[test],
        train,
        test,
        classes,
        device,
        recipe,
    )


def _digits(device: torch.device, recipe: Recipe) -> Problem:
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 1, 8, 8).astype(np.uint8)
    train, test = train_test_split(np.arange(len(y)), test_size=1 / 3, stratify=y, random_state=0)
    train, test = train[: recipe.max_train], test[: recipe.max_test]
    description = (
        f"scikit-learn's handwritten digits, 8 x 8 pixels: {len(train)} training and "
        f"{len(test)} test images."
    )
    return Problem(
        description, X[train], y[train], X[test], y[test], train, test, np.unique(y), device, recipe
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is not an npz file, as numpy.savez writes it.")
        file.seek(0)
        try:
            archive = np.load(file, allow_pickle=False)
            missing = [key for key in _KEYS if key not in archive.files]
            parts = {} if missing else {key: np.asarray(archive[key]) for key in _KEYS}
        except (ValueError, EOFError, RuntimeError, MemoryError, BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; it contains {', '.join(archive.files)}."
        )
    return parts


def _images_or_vectors(parts: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """Check samples; move the channels of images first; integers stay integers."""
    X = parts[name]
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {X.dtype}, not numbers.")
    if X.ndim not in (2, 3, 4) or X.size == 0:
        raise ValueError(
            f"{name} has shape {X.shape}; expected images (n, H, W), (n, H, W, C) or "
            "(n, C, H, W), or vectors (n, n_features)."
        )
    check_finite(X, name)
    if X.dtype.kind == "f":
        with np.errstate(over="ignore"):
            X = X.astype(np.float32)  # the dtype of the network
        check_finite(X, f"{name} as float32")
    if X.ndim == 3:
        return X[:, None]
    if X.ndim == 4 and X.shape[3] < X.shape[1]:
        return X.transpose(0, 3, 1, 2)
    return X


def _labels(parts: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    y, n_samples = parts[f"y_{name}"], len(parts[f"X_{name}"])
    if y.ndim != 1:
        raise ValueError(
            f"y_{name} has shape {y.shape}; expected one label per sample, shape (n,)."
        )
    if len(y) != n_samples:
        raise ValueError(f"X_{name} has {n_samples} samples, but y_{name} has {len(y)} labels.")
    if y.dtype.kind not in "biufUS":
        raise ValueError(f"y_{name} holds {y.dtype}, neither numbers nor strings.")
    check_finite(y, f"y_{name}")
    y = y.astype(str) if y.dtype.kind == "S" else y
    check_classification_targets(y)
    return y


def _draw(n_samples: int, most: int) -> NDArray[np.intp]:
    """Indices of all samples, or of at most `most` random ones, in increasing order."""
    if n_samples <= most:
        return np.arange(n_samples)
    return np.sort(np.random.default_rng(0).permutation(n_samples)[:most])
