"""collect: latent vectors, logits and labels of all batches of a DataLoader."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset

from skboundary._bank_folder import BankFolder
from skboundary._batching import is_out_of_memory
from skboundary._device import DeviceLike, at_least_float32, resolve_device, to_numpy
from skboundary.networks._collect_bank import Batch, write_batches
from skboundary.networks._latent_batches import LatentBatch, checked, joined
from skboundary.networks._layers import (
    Layer,
    Tap,
    find_tap,
    first_tensor,
    flatten_latent,
    run_tapped,
    tensors_in,
)
from skboundary.networks._module_state import evaluation_mode, placed
from skboundary.networks._outputs import as_logits, check_floats
from skboundary.networks._torch_network import TorchNetwork

_LABELS = ("labels", "label", "y")


def collect(
    module: nn.Module,
    loader: Iterable[Any],
    *,
    layer: Layer = "auto",
    device: DeviceLike = "auto",
    bank: str | os.PathLike[str] | None = None,
) -> LatentBatch:
    """Run a module over a DataLoader once, for latent vectors, logits and labels.

    Read more in the :ref:`User Guide <latents_computed_elsewhere>`.

    Parameters
    ----------
    module : torch.nn.Module
        Runs in evaluation mode and without gradients; its flags are restored. If it is on another
        device, a copy of it runs. Its logits are the attribute or key "logits" of what it returns,
        or else the first tensor. A single logit represents two classes, and becomes minus and
        plus its half.
    loader : iterable of batches
        A :class:`torch.utils.data.DataLoader` or another iterable. A list or tuple of two is
        (inputs, labels), and of one is inputs. A mapping is inputs together with labels under the
        key "labels", "label" or "y", if it has one of them. Anything else is inputs. Inputs that
        are a mapping are passed by keyword, others as the only argument.
    layer : str, int or callable, default="auto"
        The latent space, as in :class:`~skboundary.LatentTransformer`; feature maps are flattened.
        A callable receives the module and the inputs of a batch.
    device : str or torch.device, default="auto"
        "auto" keeps a module on its accelerator if it is on one; otherwise it selects the best
        device available. Tensors in the inputs are moved there and keep their dtype.
    bank : str or path-like, default=None
        A folder to write the results to, instead of memory; `LatentKNNClassifier.from_bank` opens
        it. After an interruption the same call continues after the last complete part, if the
        loader yields the same batches again. Labels must be positions among the outputs.

    Returns
    -------
    latent : ndarray of shape (n_samples, n_latent)
        In the order of the loader, and in the dtype of the activations, at least float32.
    outputs : ndarray of shape (n_samples, n_classes)
        Logits.
    y : ndarray of shape (n_samples,) or None
        Labels; None if the loader has none. With `bank`, all three are arrays on disk that are
        read by slices.

    Raises
    ------
    TypeError
        If `module` is not a torch module, or `loader` is a Dataset.
    ValueError
        If the module fails, if its results are not finite, not one per sample, or of another
        width than in the first batch, if only some batches have labels, if there are no batches,
        or if `layer` does not exist. The message gives the batch or the sample. If `bank` is not
        empty and holds results of other weights, another layer or other batches.

    See Also
    --------
    skboundary.LatentKNNClassifier : The method `fit_latent` takes the three arrays.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from skboundary.networks import collect
    >>> module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> data = TensorDataset(torch.ones(10, 4), torch.arange(10) % 3)
    >>> latent, outputs, y = collect(module, DataLoader(data, batch_size=5))
    >>> latent.shape, outputs.shape, y.shape
    ((10, 8), (10, 3), (10,))
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module is a {type(module).__name__}, not a torch.nn.Module. Give the `module` of a "
            "FrozenNetwork, or the `module_` of a skorch net."
        )
    if isinstance(loader, Dataset):
        raise TypeError(
            f"loader is a Dataset ({type(loader).__name__}), which yields single samples. Give "
            "torch.utils.data.DataLoader(dataset, batch_size=64)."
        )
    runner = _Runner(module, layer, resolve_device(device, module))
    batches = (as_batch(batch, f"Batch {i} of the loader") for i, batch in enumerate(loader))
    if bank is None:
        return joined(checked(map(runner.run, batches)))
    return _collect_to_bank(bank, batches, runner)


def _collect_to_bank(path: Any, batches: Iterator[Batch], runner: _Runner) -> LatentBatch:
    """Run the batches that a bank does not hold, and the first one, which tells the outputs."""
    first = next(batches, None)
    if first is None:
        raise ValueError("There are no batches: the loader yields nothing.")
    result, layer = runner.run(first), runner.layer
    bank = BankFolder.open_or_create(
        path,
        layer=layer if isinstance(layer, (str, int)) else None,
        digest=TorchNetwork(runner.module, device=runner.device, layer=layer).digest(),
        link="softmax",
        classes=np.arange(result.outputs.shape[1]),
    )
    write_batches(
        bank, chain([first], batches), lambda batch: result if batch is first else runner.run(batch)
    )
    return LatentBatch(bank.latent, bank.outputs, bank.labels)


def as_batch(batch: Any, where: str) -> Batch:
    """Split what a loader yields into inputs and labels; see `collect`."""
    inputs, y = batch, None
    if type(batch) in (list, tuple):
        if len(batch) not in (1, 2):
            raise ValueError(
                f"{where} is a {type(batch).__name__} of {len(batch)}; expected (inputs, labels). "
                "Put several inputs into a dict, under the names of the arguments."
            )
        inputs, y = batch if len(batch) == 2 else (batch[0], None)
    elif isinstance(batch, Mapping):
        found = [key for key in _LABELS if key in batch]
        if len(found) > 1:
            raise ValueError(
                f"{where} has the keys {found}, each of which may hold the labels. Keep one of "
                "them, or yield (inputs, labels)."
            )
        inputs = {key: value for key, value in batch.items() if key not in found}
        y = batch[found[0]] if found else None
    if y is not None:
        y = to_numpy(y) if isinstance(y, Tensor) else np.asarray(y)
        if y.ndim != 1:
            raise ValueError(
                f"{where} has labels of shape {y.shape}; expected one label for each sample, "
                "(n_samples,)."
            )
    inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
    sized = next((len(tensor) for tensor in tensors_in(inputs) if tensor.ndim), None)
    return Batch(inputs, y, sized if y is None else len(y), where)


class _Runner:
    """Run a module batch by batch; the first batch determines the layer."""

    def __init__(self, module: nn.Module, layer: Layer, device: torch.device) -> None:
        self.name, self.layer, self.device = type(module).__name__, layer, device
        self.module, self.tree = placed(module, device)
        self.tap: Tap | None = None
        self.latent_ndim = 0  # of the activations; 0 before the first batch

    def run(self, batch: Batch) -> LatentBatch:
        """Latent vectors and logits of a batch, with its labels."""
        inputs = tree_map(
            lambda value: value.to(self.device) if _can_move(value) else value,
            batch.inputs,
            is_leaf=_can_move,
        )
        with evaluation_mode(self.tree), torch.no_grad(), self._explained(inputs, batch.where):
            latent, output = self._forward(inputs)
            latent = first_tensor(latent)  # a callable may return anything
        n = batch.n if batch.n is not None else len(latent) if latent.ndim else 1
        if n == 1 and latent.ndim == self.latent_ndim - 1:  # squeezed
            latent = latent[None]
        if not latent.is_floating_point() or latent.ndim == 0 or len(latent) != n:
            raise ValueError(
                f"{batch.where}: layer={self.layer!r} of {self.name} gives {latent.dtype} of shape "
                f"{tuple(latent.shape)} for {n} samples; expected floats whose first axis is the "
                "batch. Choose another layer."
            )
        check_floats(output, self.name)
        logits = as_logits(output, n, probabilities=False, name=self.name)
        if len(logits) != n:
            raise ValueError(
                f"{batch.where}: {self.name} gives outputs of shape {tuple(output.shape)} for {n} "
                "samples; a classifier gives one row of logits for each."
            )
        latent = flatten_latent(latent.to(at_least_float32(latent.dtype)), None)
        return LatentBatch(to_numpy(latent), to_numpy(logits), batch.y)

    def _forward(self, inputs: Any) -> tuple[Tensor, Tensor]:
        if not self.latent_ndim:
            self.tap, latent, output = find_tap(self.module, self.layer, inputs, _call)
            self.latent_ndim = latent.ndim
            return latent, output
        latent, found = run_tapped(
            self.module, self.layer, self.tap, inputs, logits=True, run=_call
        )
        assert found is not None
        return latent, found

    @contextmanager
    def _explained(self, inputs: Any, where: str) -> Iterator[None]:
        """Add the batch to errors of the user's module."""
        try:
            yield
        except (RuntimeError, TypeError, IndexError, KeyError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            is_dict = isinstance(inputs, dict)
            how = f"the keywords {[*inputs]}" if is_dict else f"one {type(inputs).__name__}"
            raise ValueError(
                f"{where}: {self.name} fails when it is called with {how}: "
                f"{type(error).__name__}: {error}"
            ) from error


def _can_move(value: Any) -> bool:
    return hasattr(value, "to")


def _call(module: nn.Module, inputs: Any) -> Any:
    """Logits, or what contains them, of a batch."""
    result = module(**inputs) if isinstance(inputs, dict) else module(inputs)
    if isinstance(result, Mapping):
        return result.get("logits", result)
    return getattr(result, "logits", result)
