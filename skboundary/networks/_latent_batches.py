"""Batches of latent vectors, outputs and labels that were computed elsewhere: validation."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import BATCH_BYTES
from skboundary._device import is_number, to_numpy
from skboundary.exceptions import ProbabilityOutputWarning, warn_caller
from skboundary.networks._agreement import look_like_probabilities

_PROBES = 64  # samples whose outputs are compared with probabilities


class LatentBatch(NamedTuple):
    """Latent vectors, outputs and labels of some samples."""

    latent: Any  # (n, n_latent)
    outputs: Any  # (n, n_classes)
    y: Any  # (n,) or None


def checked(batches: Iterable[Any]) -> Iterator[LatentBatch]:
    """Yield batches as arrays, after comparing each with the first one.

    Parameters
    ----------
    batches : iterable of (latent, outputs) or (latent, outputs, y)
        Arrays or tensors.

    Yields
    ------
    batch : LatentBatch
        Of arrays.

    Raises
    ------
    ValueError
        If there are no batches, or if one has arrays of another shape, NaN or infinity, or labels
        where another has none. The message gives the batch or the sample.
    """
    check = BatchChecker()
    for batch in batches:
        yield check(batch)
    if check.first is None:
        raise ValueError("There are no batches of latent vectors.")


class BatchChecker:
    """Convert batches to arrays and compare each with the first one; see `checked`.

    Parameters
    ----------
    start : int, default=0
        Number of the first sample, for messages.
    """

    def __init__(self, start: int = 0) -> None:
        self.first: LatentBatch | None = None
        self.number, self.start = 0, start

    def __call__(self, batch: Any) -> LatentBatch:
        part = _as_arrays(batch, f"Batch {self.number}: ")
        if self.first is None:
            warn_of_probabilities(part.outputs)
            self.first = part
        _compare(part, self.first, self.number)
        for what in ("latent", "outputs"):
            check_all_finite(getattr(part, what), what, self.start)
        self.number, self.start = self.number + 1, self.start + len(part.latent)
        return part


def check_pair(latent: Any, outputs: Any, y: Any = None) -> LatentBatch:
    """Validate arrays of samples without copying them; a memory map is read by blocks.

    Parameters
    ----------
    latent : array-like of shape (n_samples, n_latent)
    outputs : array-like of shape (n_samples, n_classes)
    y : array-like of shape (n_samples,), default=None

    Returns
    -------
    batch : LatentBatch
        Of arrays.

    Raises
    ------
    ValueError
        For arrays of other shapes, without samples, or with NaN or infinity.
    """
    latent, outputs = check_matrix(latent, "latent"), check_matrix(outputs, "outputs")
    return _as_arrays((latent, outputs, y))


def check_matrix(values: Any, name: str) -> NDArray[Any]:
    """Validate numbers (n_samples, n), at least one sample, all finite."""
    array = _as_matrix(values, name)
    if not len(array):
        raise ValueError(f"{name} has 0 samples; at least 1 is required.")
    check_all_finite(array, name)
    return array


def joined(batches: Iterable[LatentBatch]) -> LatentBatch:
    """Concatenate copies of batches, whose arrays the next batch may overwrite."""
    parts = [
        LatentBatch(
            np.array(batch.latent),
            np.array(batch.outputs),
            None if batch.y is None else np.array(batch.y),
        )
        for batch in batches
    ]
    latent, outputs, y = zip(*parts, strict=True)
    labels = None if y[0] is None else np.concatenate(y)
    return LatentBatch(np.concatenate(latent), np.concatenate(outputs), labels)


def check_all_finite(values: NDArray[Any], name: str, start: int = 0) -> None:
    """Raise a ValueError for NaN or infinity; `start` is the number of the first sample."""
    if values.dtype.kind != "f":
        return
    step = max(1, BATCH_BYTES // max(1, values[:1].nbytes))
    for offset in range(0, len(values), step):
        block = values[offset : offset + step]
        finite = np.isfinite(block).all(1)
        if not finite.all():
            i = int(np.flatnonzero(~finite)[0])
            what = "NaN" if np.isnan(block[i]).any() else "infinity"
            hint = ""
            if name == "outputs" and what == "infinity":
                hint = " They are logits: give log(max(p, 1e-12)) for probabilities p."
            raise ValueError(f"{name} contains {what} in sample {start + offset + i}.{hint}")


def _as_arrays(batch: Any, where: str = "") -> LatentBatch:
    if type(batch) not in (tuple, list, LatentBatch) or len(batch) not in (2, 3):
        raise ValueError(
            f"{where}got {type(batch).__name__}; expected a tuple (latent, outputs) or (latent, "
            "outputs, y)."
        )
    latent, outputs = (
        _as_matrix(values, name, where)
        for values, name in zip(batch, ("latent", "outputs"), strict=False)
    )
    y = _as_array(batch[2]) if len(batch) == 3 and batch[2] is not None else None
    if y is not None and y.ndim != 1:
        raise ValueError(f"{where}y has the shape {y.shape}; expected (n_samples,).")
    sizes = [len(values) for values in (latent, outputs, y) if values is not None]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"{where}latent, outputs and y have {' and '.join(map(str, sizes))} samples; their "
            "numbers must be equal."
        )
    return LatentBatch(latent, outputs, y)


def _as_matrix(values: Any, name: str, where: str = "") -> NDArray[Any]:
    array = _as_array(values)
    if array.ndim != 2 or not is_number(array.dtype) or not array.shape[1]:
        raise ValueError(
            f"{where}{name} has the dtype {array.dtype} and the shape {array.shape}; expected "
            f"numbers of shape (n_samples, {'n_latent' if name == 'latent' else 'n_classes'})."
        )
    return array


def warn_of_probabilities(outputs: NDArray[Any]) -> None:
    """Warn if outputs that are used as logits look like probabilities."""
    if look_like_probabilities(torch.from_numpy(outputs[:_PROBES].astype(np.float64))):
        warn_caller(
            "The outputs look like probabilities, but are used as logits, whose softmax would be "
            "nearly uniform. Give log(max(p, 1e-12)) for probabilities p, or a module without its "
            "last softmax.",
            ProbabilityOutputWarning,
        )


def _as_array(values: Any) -> NDArray[Any]:
    return to_numpy(values) if isinstance(values, Tensor) else np.asarray(values)


def _compare(part: LatentBatch, first: LatentBatch, number: int) -> None:
    """Compare a batch with the first one."""
    for what in ("latent", "outputs"):
        width, expected = (getattr(some, what).shape[1] for some in (part, first))
        if width != expected:
            raise ValueError(
                f"Batch {number} has {what} of {width} columns, but batch 0 of {expected}."
            )
    kinds = [
        "no labels" if y is None else "numbers as labels" if is_number(y.dtype) else "other labels"
        for y in (part.y, first.y)
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(f"Batch {number} has {kinds[0]}, but batch 0 has {kinds[1]}.")
