"""Training through skorch: the default network, and the user's skorch nets."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import dis
import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import Dataset

from skboundary._batching import map_batches
from skboundary._callbacks import fit_tasks, task
from skboundary._device import holds_integers, module_dtype, to_tensor
from skboundary._random import forked_rng, one_thread
from skboundary._sample_array import SampleArray
from skboundary.networks._default_network import DefaultNetwork
from skboundary.networks._layers import begins_with_embedding
from skboundary.networks._module_state import evaluation_mode, tree_of
from skboundary.networks._torch_network import TorchNetwork

_STEPS = 300
_BATCH = 256


class CastSamples(Dataset[tuple[Any, Any]]):
    """Samples of X as tensors of one dtype, cast batch by batch, with their targets.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
    y : ndarray of shape (n_samples,)
    dtype : torch.dtype
    """

    def __init__(self, X: Any, y: NDArray[Any], dtype: torch.dtype) -> None:
        self.X, self.y, self.dtype = X, y, dtype
        self.shape = X.shape  # for callbacks that adapt a module to its input

    def __len__(self) -> int:
        return self.X.shape[0]

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return self.__getitems__([i])[0]

    def __getitems__(self, index: list[int]) -> list[tuple[Any, Any]]:
        """Fetch a batch in one step (torch's DataLoader uses this method)."""
        return list(zip(to_tensor(self.X[index], dtype=self.dtype), self.y[index], strict=True))


class _Epochs(Callback):
    """Tell callbacks of scikit-learn about each epoch of a skorch net.

    Parameters
    ----------
    running : ExitStack
        Holds the epoch that runs.
    """

    def __init__(self, running: ExitStack) -> None:
        self.running = running

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        self.epoch = self.running.enter_context(task("epoch"))

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.running.close()
        if self.epoch.stop:
            raise _Stopped


class _Stopped(Exception):
    """A callback has asked to end the training."""


def _raised_by_callback(error: KeyboardInterrupt) -> bool:
    """Whether a callback of skorch, such as EarlyStopping, raised it to end the training.

    Ctrl-C comes between two instructions, and no statement raises it. A statement counts only in a
    method of the callback, not in a function that it calls.
    """
    entry = error.__traceback__
    assert entry is not None  # it was caught
    while entry.tb_next is not None:
        entry = entry.tb_next
    frame = entry.tb_frame
    # not f_lasti, which is where a handler raised it again
    instruction = dis.opname[frame.f_code.co_code[entry.tb_lasti]]
    return instruction == "RAISE_VARARGS" and isinstance(frame.f_locals.get("self"), Callback)


class SkorchFit(CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Replace a skorch net in a pipeline while it is fitted: cast X and seed torch.

    Parameters
    ----------
    net : skorch.NeuralNet
    seed : int
    """

    def __init__(self, net: Any, seed: int) -> None:
        self.net = net
        self.seed = seed

    @property
    def n_epochs(self) -> int:
        """The most epochs."""
        return int(self.net.max_epochs)

    @fit_tasks(lambda self: self.n_epochs)
    def fit(self, X: Any, y: NDArray[Any], **fit_params: Any) -> SkorchFit:
        """Initialize and train the net on labels 0 to n_classes - 1; it takes no metadata."""
        return self.train(X, y, **fit_params)

    def train(self, X: Any, y: NDArray[Any], **fit_params: Any) -> SkorchFit:
        """Do what `fit` does, with the epochs as parts of the task that runs."""
        if fit_params:
            raise TypeError(
                f"{type(self.net).__name__} got {sorted(fit_params)}: skorch passes arguments of "
                "fit to the forward of the module, and its nets take no metadata of samples. Omit "
                "them, or give an estimator whose fit takes them."
            )
        with torch.inference_mode(False), forked_rng(self.seed):
            self.net.initialize()
            if isinstance(self.net.criterion_, (nn.BCELoss, nn.BCEWithLogitsLoss)):
                y = y.astype(np.float32)
            X = X if sparse.issparse(X) or isinstance(X, SampleArray) else np.asarray(X)
            samples = CastSamples(X, y, _input_dtype(self.net.module_, X))
            # not partial_fit, which ends at Ctrl-C as if the net were trained
            self.net.notify("on_train_begin", X=samples, y=y)
            with ExitStack() as running:
                epochs = ("epochs", _Epochs(running))
                self.net.callbacks_.append(epochs)
                try:
                    self.net.fit_loop(samples, y)
                except _Stopped:
                    pass
                except KeyboardInterrupt as error:
                    if not _raised_by_callback(error):
                        raise
                finally:
                    self.net.callbacks_.remove(epochs)
            self.net.notify("on_train_end", X=samples, y=y)
        return self


def _input_dtype(module: nn.Module, X: Any) -> torch.dtype:
    """Input dtype of a module: int64 for integers if it begins with an `nn.Embedding`."""
    if holds_integers(X):
        with evaluation_mode(tree_of(module)), torch.no_grad():
            x = to_tensor(X[:1], device=next(module.parameters()).device)
            if begins_with_embedding(module, x.long()):
                return torch.int64
    return module_dtype(module)


def output_of(net: Any) -> str | Callable[[Tensor], Tensor]:
    """Determine what the module of a fitted skorch net returns.

    "logits" if skorch applies softmax or sigmoid, otherwise the net's own function from outputs
    to probabilities.
    """
    losses = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss
    # a compiled criterion stores the original
    criterion = getattr(net.criterion_, "_orig_mod", net.criterion_)
    if net.predict_nonlinearity == "auto" and isinstance(criterion, losses):
        return "logits"
    if net.predict_nonlinearity == "auto" and isinstance(criterion, nn.BCELoss):
        return "proba"
    nonlinearity: Callable[[Tensor], Tensor] = net._get_predict_nonlinearity()
    if isinstance(net, NeuralNetBinaryClassifier):  # which passes its outputs flattened
        return partial(_of_flat, nonlinearity)
    return nonlinearity


def _of_flat(nonlinearity: Callable[[Tensor], Tensor], output: Tensor) -> Tensor:
    return nonlinearity(output.reshape(-1))


def query_net(net: Any, network: TorchNetwork, X: Any) -> tuple[NDArray[np.intp] | None, Any]:
    """Return the outputs (n,) that a fitted skorch net predicts, and its probabilities.

    Parameters
    ----------
    net : skorch.NeuralNet
    network : TorchNetwork
        Network of its module.
    X : array-like of shape (n, ...)

    Returns
    -------
    predicted : ndarray of shape (n,) or None
        None if `predict` is not skorch's own and may return other labels.
    proba : ndarray of shape (n, n_outputs)
    """
    trees = [tree_of(p) for p in (net.module_, net.criterion_) if isinstance(p, nn.Module)]
    # a DataLoader draws from torch's global generator
    with forked_rng(0), evaluation_mode(*trees), torch.no_grad():
        x = network.prepared(X)
        proba = net.predict_proba(x)
        own = NeuralNetClassifier.predict, NeuralNetBinaryClassifier.predict
        known = type(net).predict in own and proba.ndim == 2
        return np.asarray(net.predict(x), dtype=np.intp) if known else None, proba


def train_default(
    X: Any,
    y: NDArray[np.intp],
    *,
    dtype: torch.dtype,
    device: torch.device,
    seed: int,
    verbose: int = 0,
) -> nn.Module:
    """Train the default network: a small multilayer perceptron on standardized columns.

    Parameters
    ----------
    X : array-like of shape (n_samples, ...)
        Samples with more than one axis are flattened.
    y : ndarray of shape (n_samples,)
        Labels 0 to n_classes - 1.
    dtype : torch.dtype
    device : torch.device
    seed : int
    verbose : int, default=0

    Returns
    -------
    module : nn.Module
        Returns logits (n, n_classes).
    """
    n, n_features = X.shape[0], int(np.prod(X.shape[1:]))
    scaler = StandardScaler()

    def learn(batch: slice) -> bool:
        scaler.partial_fit(to_tensor(X[batch], dtype=dtype).flatten(1).numpy())
        return True

    for _ in map_batches(learn, n, max(1, 2**22 // n_features)):
        pass
    with torch.inference_mode(False), forked_rng(seed):
        module = DefaultNetwork(scaler.mean_, scaler.scale_, int(y.max()) + 1).to(dtype)
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=3e-3,
        batch_size=_BATCH,
        max_epochs=math.ceil(_STEPS / math.ceil(n / _BATCH)),
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=None if verbose > 0 else "disable",  # they take much of the time of a small fit
        device=str(device),
        verbose=verbose,
    )
    fit = SkorchFit(net, seed)
    # more threads are slower for layers this small
    with one_thread(), task("fit-estimator", fit.n_epochs):
        return fit.train(X, y).net.module_
