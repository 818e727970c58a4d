"""Subspaces by name, with defaults that depend on the shape of the samples."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skboundary._device import to_tensor
from skboundary._plain import storable
from skboundary._sample_array import SampleArray, blocks
from skboundary._validation import sample_shape
from skboundary.boundary._inputs import data_range
from skboundary.functional.subspaces import (
    Bases,
    DCTWindows,
    Subspaces,
    WholeSpace,
    component_windows,
    dct_windows,
    explicit_bases,
    pca_components,
    random_components,
)

_RANDOM_COMPONENTS = 640  # ten times the dimensions of the paper's windows on gray images

for _kind in (Bases, DCTWindows, WholeSpace):
    storable(_kind)

Named = tuple[Subspaces, NDArray[Any]]


def make_subspaces(
    kind: Any,
    X: Any,
    dtype: torch.dtype,
    *,
    window: int | None,
    step: int | None,
    n_components: int | None,
    generator: torch.Generator,
) -> Named:
    """Make subspaces of the space of X, and name them.

    Parameters
    ----------
    kind : {"auto", "dct", "pca", "random"}, None or sequence of array-like
        As in `SubspaceMargins`.
    X : array-like of shape (n, ...)
        Training samples; "pca" uses them, the others only their shape.
    dtype : torch.dtype
    window, step, n_components : int or None
    generator : torch.Generator

    Returns
    -------
    subspaces : Subspaces
        On the CPU.
    names : ndarray of shape (n_subspaces,)

    Raises
    ------
    ValueError
        For a parameter that does not match the samples, or has no effect on this kind.
    """
    shape = sample_shape(X)
    if isinstance(kind, str) and kind == "auto":
        kind = "dct" if len(shape) > 1 else "pca"
    named = isinstance(kind, str)
    _refuse_unused(kind, {} if named else {"window": window, "step": step})
    _refuse_unused(kind, {} if named and kind != "dct" else {"n_components": n_components})
    if kind is None:
        return WholeSpace(), np.array(["whole_space"], dtype=object)
    if not named:
        return _given(kind, math.prod(shape), dtype)
    if kind == "dct":
        return _cosines(shape, dtype, window, step)
    n, d = X.shape[0], math.prod(shape)
    if kind == "pca" and n < 2:
        raise ValueError(f"n_samples={n}: subspaces='pca' needs at least 2 samples in fit.")
    limit = d if kind == "random" or n > d else n - 1
    _check_limit("n_components", n_components, limit, f"subspaces={kind!r} of these samples")
    if kind == "pca":
        components = _principal_components(X, n_components, dtype)
    else:
        size = n_components or min(limit, _RANDOM_COMPONENTS)
        components = random_components(size, d, generator=generator, dtype=dtype)
    size = len(components)
    if window is None and step is None:  # ten windows that cover all
        step = max(1, size // 10)
        window = max(1, size - 9 * step)
    window, step = int(window or step or 1), int(step or window or 1)
    _check_limit("window", window, size, f"{size} components")
    step = min(step, size)
    starts = range(0, size - window + 1, step)
    return component_windows(components, window, step), _names(kind, starts, window)


def _principal_components(X: Any, n_components: int | None, dtype: torch.dtype) -> torch.Tensor:
    """`pca_components` of all samples, which are read block by block where that is possible."""
    n, d = X.shape[0], math.prod(X.shape[1:])
    parts = [*blocks(X)] if isinstance(X, (np.ndarray, SampleArray)) else []
    if n <= d or len(parts) < 2:
        return pca_components(to_tensor(X).flatten(1), n_components, dtype=dtype)

    def vectors(part: slice) -> torch.Tensor:
        return to_tensor(X[part], dtype=torch.float64).flatten(1)

    low, high = (torch.as_tensor(end).expand(sample_shape(X)).flatten() for end in data_range(X))
    mean = sum(vectors(part).sum(0) for part in parts) / n
    # squares must not leave the range
    largest = torch.maximum(high - mean, mean - low).max()
    scatter = torch.zeros(d, d, dtype=torch.float64)
    for part in parts:
        centered = (vectors(part) - mean) / largest.clamp_min(torch.finfo(largest.dtype).tiny)
        scatter.addmm_(centered.T, centered)
    return torch.linalg.eigh(scatter).eigenvectors.T.flip(0)[:n_components].to(dtype)


def _cosines(
    shape: tuple[int, ...], dtype: torch.dtype, window: int | None, step: int | None
) -> Named:
    if len(shape) < 2:
        raise ValueError(
            "subspaces='dct' needs images whose last two axes are height and width, and the "
            f"samples of X have shape {shape}. Reshape X, or use subspaces='pca'."
        )
    height, width = shape[-2:]
    size = min(height, width)
    # the paper: 8 and 1 for 28 pixels, 8 and 2 for 32, 16 and 16 for 224
    large = size >= 128
    if window is None:
        window = min(16 if large else 8, max(1, size // 3))
    if step is None:
        step = 16 if large else max(1, size // 16)
    _check_limit("window", window, size, f"images of {height} x {width} pixels")
    starts = range(0, size - window + 1, step)
    return dct_windows(height, width, window, step, dtype=dtype), _names("dct", starts, window)


def _given(bases: Any, d: int, dtype: torch.dtype) -> Named:
    tensors = []
    for s, basis in enumerate(bases):
        try:
            basis = np.asarray(basis, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"subspaces[{s}] does not hold vectors of numbers ({error})."
            ) from None
        if basis.size == 0 or basis.size % d or not np.isfinite(basis).all():
            raise ValueError(
                f"subspaces[{s}] has shape {basis.shape}; give finite vectors of {d} features, one "
                "per row."
            )
        tensors.append(torch.tensor(basis).view(-1, d).to(dtype))
    if not tensors:
        raise ValueError("subspaces holds no basis. Give at least one, or None.")
    return explicit_bases(tensors), _names("subspace", range(len(tensors)), 1)


def _refuse_unused(kind: Any, params: dict[str, int | None]) -> None:
    for name, value in params.items():
        if value is not None:
            what = repr(kind) if isinstance(kind, str) or kind is None else "given bases"
            raise ValueError(f"{name}={value} has no effect on subspaces={what}. Leave it out.")


def _check_limit(name: str, value: int | None, limit: int, what: str) -> None:
    if value is not None and value > limit:
        raise ValueError(f"{name}={value} is too large for {what}: {limit} at most.")


def _names(kind: str, starts: range, window: int) -> NDArray[Any]:
    ends = [f"_{s + window - 1}" if window > 1 else "" for s in starts]
    return np.array([f"{kind}_{s}{end}" for s, end in zip(starts, ends, strict=True)], dtype=object)
