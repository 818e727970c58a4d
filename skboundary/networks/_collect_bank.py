"""Latent vectors and outputs of batches, written to a bank that an interruption keeps."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from skboundary._bank_folder import BankFolder, Block
from skboundary._device import to_numpy
from skboundary.networks._latent_batches import BatchChecker, LatentBatch


class Batch(NamedTuple):
    """A batch of a loader."""

    inputs: Any
    y: NDArray[Any] | None
    n: int | None  # number of samples, None if neither labels nor tensors tell it
    where: str  # number of the batch, for messages


def write_batches(
    bank: BankFolder, batches: Iterable[Batch], run: Callable[[Batch], LatentBatch]
) -> BankFolder:
    """Write latent vectors, outputs and labels to a new bank, or continue one.

    Parameters
    ----------
    bank : BankFolder
    batches : iterable of Batch
        Those that the bank already holds are compared by their digests, and do not run.
    run : callable
        Computes the arrays of a batch; labels are positions among the outputs.

    Returns
    -------
    bank : BankFolder
        Complete.

    Raises
    ------
    ValueError
        If the bank holds results of other batches, or a label is not a position.
    """
    bank.extend(_new_blocks(bank, batches, run))
    bank.finish()
    return bank


def _new_blocks(
    bank: BankFolder, batches: Iterable[Batch], run: Callable[[Batch], LatentBatch]
) -> Iterator[Block]:
    """Yield what the bank does not hold yet, after comparing the batches with what it holds."""
    stored, start = bank.n_samples, 0
    keys: list[tuple[int, bytes]] = []  # of the batches before `stored`, by their first sample
    check = BatchChecker(stored)
    for batch in batches:
        if batch.n is None:
            raise ValueError(
                f"Neither labels nor tensors tell how many samples {batch.where} has, as a bank "
                "needs. Yield (inputs, labels), or collect without bank."
            )
        key, first = _key(batch), start
        start += batch.n
        if first < stored:
            keys.append((first, key))
        if start >= stored and first < stored:
            _compare(bank, keys)
        if start <= stored:
            continue
        part, new = check(run(batch)), slice(max(0, stored - first), None)
        labels = None if part.y is None else _positions(part.y, part.outputs.shape[1], batch.where)
        of_samples = [key, *[b""] * (batch.n - 1)]  # parts may end within a batch
        yield Block(
            part.latent[new],
            part.outputs[new],
            None if labels is None else labels[new],
            of_samples[new],
        )
    if start < stored:
        _refuse(bank)


def _key(batch: Batch) -> bytes:
    """Digest of the inputs and labels of a batch; hash each tensor as an array."""
    arrays = tree_map(lambda v: to_numpy(v) if isinstance(v, Tensor) else v, batch.inputs)
    return bytes.fromhex(joblib.hash((arrays, batch.y)))


def _compare(bank: BankFolder, keys: list[tuple[int, bytes]]) -> None:
    """Compare the digests of batches with those of the parts in which they begin."""
    for part in bank.parts:
        own = b"".join(key for first, key in keys if part["start"] <= first < part["stop"])
        if hashlib.blake2b(own, digest_size=32).hexdigest() != part["samples"]:
            _refuse(bank)


def _refuse(bank: BankFolder) -> None:
    raise ValueError(
        f"The bank {bank.path} holds {bank.n_samples} samples, which are not those of these "
        "batches in the same order and sizes. To continue it, give the same batches, not shuffled; "
        "otherwise give the path of a new folder, or delete this one."
    )


def _positions(y: NDArray[Any], n_outputs: int, where: str) -> NDArray[Any]:
    """Labels as they are stored."""
    wrong = np.ones(len(y), bool) if y.dtype.kind not in "iu" else (y < 0) | (y >= n_outputs)
    if wrong.any():
        raise ValueError(
            f"{where} has the label {y[wrong][0].item()!r}, but a bank stores positions 0 to "
            f"{n_outputs - 1} among the outputs. Encode the labels, or collect without bank."
        )
    return y
