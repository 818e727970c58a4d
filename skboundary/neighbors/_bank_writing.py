"""Writing samples to a bank: what an interrupted call has written is kept and continued."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing, gen_batches

from skboundary._bank_folder import BankFolder, Block
from skboundary._batching import progress
from skboundary._device import is_number, resolve_dtype
from skboundary._sample_array import SampleArray, blocks
from skboundary.networks._sample_store import sample_keys

_KEYED = 4096  # samples whose keys are in memory at once
# A block of samples, and a progress bar, to their latent vectors and outputs.
Compute = Callable[[Any, Any], tuple[NDArray[Any], NDArray[Any] | None]]


def sample_form(estimator: Any, X: Any) -> dict[str, Any]:
    """Shape, dtype and names of the samples of a validated X, for `BankFolder.create`."""
    dtype = getattr(X, "dtype", None)
    if dtype is None or not is_number(dtype) or dtype.itemsize > 8:
        dtype = np.dtype(str(resolve_dtype(X, torch.device("cpu"))).removeprefix("torch."))
    names = getattr(estimator, "feature_names_in_", None)
    return {
        "shape": [*estimator.input_shape_],
        "dtype": dtype.name,
        "names": None if names is None else names.tolist(),
    }


def write_samples(
    bank: BankFolder,
    X: Any,
    compute: Compute,
    *,
    block: int,
    codes: NDArray[np.intp] | None = None,
    first: int = 0,
    verbose: int = 0,
) -> BankFolder:
    """Append samples to a bank, except those that an interrupted call has appended before.

    Parameters
    ----------
    bank : BankFolder
        With `first` samples, or more if a call was interrupted.
    X : array-like of shape (n_samples, ...)
        Read by slices.
    compute : callable
    block : int
        Samples computed at a time.
    codes : ndarray of shape (n_samples,), default=None
        Labels, as positions among the classes.
    first : int, default=0
        Number of samples before those of X.
    verbose : int, default=0

    Returns
    -------
    bank : BankFolder

    Raises
    ------
    ValueError
        If the bank holds other samples or labels after the first.
    """
    n, done = X.shape[0], _n_written(bank, X, codes, first)
    block = _at_once(X, block)

    def computed(bar: Any) -> Iterator[Block]:
        for start in range(done, n, block):
            part = slice(start, min(n, start + block))
            samples = _safe_indexing(X, part)
            latent, outputs = compute(samples, bar)
            labels = None if codes is None else codes[part]
            yield Block(latent, outputs, labels, sample_keys(samples))
            bar.update(part.stop - bar.n)  # samples in a cache did not pass through the network

    if done < n:
        with progress(n, "bank", verbose) as bar:
            bar.update(done)
            bank.extend(computed(bar))
    if not bank.complete:
        bank.finish()
    return bank


def _n_written(bank: BankFolder, X: Any, codes: NDArray[np.intp] | None, first: int) -> int:
    """Number of samples of X that the bank holds after its first."""
    n, done = X.shape[0], 0
    if bank.n_samples - first > n:
        raise ValueError(
            f"The bank {bank.path} holds {bank.n_samples - first} samples, more than the {n} of X. "
            "Open it with LatentKNNClassifier.from_bank, or give the path of a new folder."
        )
    labels = bank.labels if bank.n_samples else None
    for part in bank.parts:
        start, stop = part["start"] - first, part["stop"] - first
        if start < 0:
            continue
        if part["samples"] != _digest(X, start, stop):
            raise ValueError(
                f"The bank {bank.path} holds other samples than X in the range {start} to "
                f"{stop - 1}. Give the path of a new folder, or delete this one."
            )
        known: Any = None if labels is None else labels[part["start"] : part["stop"]]
        given: Any = None if codes is None else codes[start:stop]
        if (known is None) != (given is None) or not np.array_equal(known, given):
            raise ValueError(
                f"The bank {bank.path} was written with other labels y in the range {start} to "
                f"{stop - 1}. Give the path of a new folder, or delete this one."
            )
        done = stop
    return done


def _digest(X: Any, start: int, stop: int) -> str:
    """Digest of the keys of samples, as `BankFolder` stores it for a part."""
    whole = hashlib.blake2b(digest_size=32)
    for part in gen_batches(stop - start, _at_once(X, _KEYED)):
        samples = _safe_indexing(X, slice(start + part.start, start + part.stop))
        whole.update(b"".join(sample_keys(samples)))
    return whole.hexdigest()


def _at_once(X: Any, most: int) -> int:
    """Number of samples of X to take at once: fewer where slices are copies."""
    return min(most, next(blocks(X)).stop) if isinstance(X, SampleArray) else most
