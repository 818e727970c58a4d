"""Samples, class labels and bounds as the user gives them, checked."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import _safe_indexing

from skboundary._device import resolve_dtype
from skboundary._sample_array import SampleArray, blocks
from skboundary._validation import check_finite
from skboundary.boundary._columns import Levels, encode, values_of

_ROUNDINGS = 4  # of a bound, by which a sample that lies on it may come out beyond it


def numbers(X: Any, levels: Levels | None = None) -> Any:
    """Turn samples of any container into a dense array of numbers; a SampleArray stays one.

    Columns of a DataFrame are converted one by one: bool and nullable ones hold numbers, too, and
    those in `levels` become the positions of their categories.

    Raises
    ------
    ValueError
        That names the columns of a DataFrame which hold something else, or the sample in which a
        value is missing.
    """
    if sparse.issparse(X):
        return X.toarray()
    if isinstance(X, SampleArray):
        return X
    if not hasattr(X, "columns"):
        return np.asarray(X)
    columns = []
    for position, name in enumerate(X.columns):
        column, level = _safe_indexing(X, position, axis=1), (levels or {}).get(position)
        columns.append(values_of(column) if level is None else encode(column, level, name))
    names = [
        name
        for name, values in zip(X.columns, columns, strict=True)
        if values.dtype.kind not in "biuf"
    ]
    if names:
        raise ValueError(
            f"Columns {names[:10]} of X do not hold numbers, so there are no points between their "
            "values. Encode them before, or use BoundarySampleExtractor(method='sparse', "
            "categorical=[...])."
        )
    array = np.column_stack(columns)
    check_finite(array)
    return array


def floating(X: NDArray[Any]) -> type:
    """Floating dtype of the points that are found for samples of X."""
    narrow = resolve_dtype(X, torch.device("cpu")) == torch.float32
    return np.float32 if narrow else np.float64


def label_code(label: Any, classes: NDArray[Any], name: str) -> int:
    """Find the position of a class label that was given as the parameter `name`.

    Raises
    ------
    ValueError
        For a label that is not among the classes.
    """
    known = classes.tolist()
    if label not in known:
        raise ValueError(f"{name}={label!r} is not one of the classes {known[:10]}.")
    return known.index(label)


def data_range(X: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest values of X, of each column for vectors and of all elements else."""
    axis = 0 if X.ndim == 2 else None
    ends = ((block.min(axis), block.max(axis)) for block in map(X.__getitem__, blocks(X)))
    low, high = zip(*ends, strict=True)
    return np.asarray(np.min(low, axis=0), float), np.asarray(np.max(high, axis=0), float)


def find_bounds(
    bounds: Any, shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Turn a pair (low, high) into arrays that go with samples of a shape; None stays None.

    Raises
    ------
    ValueError
        For bounds that are not a pair, have another shape than a sample, or are in the wrong order.
    """
    if bounds is None:
        return None
    try:
        low, high = (np.asarray(bound, dtype=float) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds={bounds!r}: use 'data', None or a pair (low, high) of numbers or arrays."
        ) from None
    for name, bound in (("low", low), ("high", high)):
        try:
            np.broadcast_to(bound, shape)
        except ValueError:
            raise ValueError(
                f"bounds: {name} has shape {bound.shape}, but samples have shape {shape}. Use a "
                "number or an array of the shape of a sample."
            ) from None
    if not (low <= high).all():
        raise ValueError(f"bounds={bounds!r}: low must be at most high everywhere.")
    return low, high


def outside(X: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values of X (n, ...) lie outside of bounds by more than rounding."""
    ends = np.stack(np.broadcast_arrays(low, high))
    largest = np.where(np.isfinite(ends), np.abs(ends), 0).max(0)
    dtype = X.dtype if X.dtype.kind == "f" else floating(X)
    slack = _ROUNDINGS * np.finfo(dtype).eps * largest
    return (low - slack > X) | (high + slack < X)


def check_inside(X: Any, low: NDArray[Any], high: NDArray[Any]) -> None:
    """Refuse samples (n, ...) that lie outside of bounds.

    Raises
    ------
    ValueError
        With the first such value and its sample.
    """
    for part in blocks(X):
        block = X[part]
        beyond = outside(block, low, high).reshape(len(block), -1)
        if beyond.any():
            sample, place = np.argwhere(beyond)[0]
            value = block[sample].ravel()[place].item()
            raise ValueError(
                f"bounds exclude the value {value!r} of sample {part.start + sample} of X. Widen "
                "bounds, or use bounds='data' or None."
            )
