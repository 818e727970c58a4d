"""One face for every fitted classifier: logits, latent vectors, input gradients."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from torch import Tensor, nn

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import at_least_float32, to_numpy, to_tensor
from skboundary.networks._black_box import BlackBox, has_scores, predicted_labels
from skboundary.networks._lift import Affine
from skboundary.networks._row_store import RowStore
from skboundary.networks._torch_model import TorchModel

# Layers whose output is affine in their input.
_AFFINE = (nn.Linear, nn.Identity, nn.Flatten, nn.Dropout, Affine)


class NetworkView:
    """Stream rows through a fitted classifier.

    The columns of its logits follow `classes_`, which are sorted.

    Parameters
    ----------
    model : TorchModel or BlackBox
    classes : array-like of shape (n_classes,), default=None
        In the order of the model's columns. None is ``np.arange(n_outputs)``.
    batch_size : "auto" or int, default="auto"
    folder : Path, default=None
        Where outputs are kept; None keeps none.
    memory_key : str, default=None
        See `LatentTransformer`.
    verbose : int, default=0

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Known once a row has run, like `n_latent`.
    n_latent : int
    device : torch.device
        Of the computation.
    input_dtype : torch.dtype
        Of the points that a search moves, never a half precision.
    dtype : torch.dtype
        Of latent vectors and logits: float32, or float64 where the classifier computes in it.
    """

    def __init__(
        self,
        model: TorchModel | BlackBox,
        *,
        classes: Any = None,
        batch_size: Any = "auto",
        folder: Path | None = None,
        memory_key: str | None = None,
        verbose: int = 0,
        estimator: Any = None,
    ) -> None:
        self.estimator = estimator
        self.model, self.batch_size, self.verbose = model, batch_size, verbose
        self.device, self.dtype, self.input_dtype = model.device, model.dtype, model.input_dtype
        self.folder, self.memory_key = folder, memory_key
        self._warned: set[str] = set()  # of what has been said about that folder
        self._given = None if classes is None else np.asarray(classes)
        self.classes_: NDArray[Any] = np.empty(0)
        self.n_latent = 0
        self._order: list[int] = []

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def is_module(self) -> bool:
        return isinstance(self.model, TorchModel)

    @property
    def has_scores(self) -> bool:
        return isinstance(self.model, TorchModel) or has_scores(self.model.head)

    @property
    def has_linear(self) -> bool:
        model = self.model
        return isinstance(model, TorchModel) and any(
            isinstance(part, nn.Linear) for part in model.module.modules()
        )

    @property
    def ends_in_logits(self) -> bool:
        return isinstance(self.model, TorchModel) and self.model.output == "logits"

    @property
    def affine(self) -> bool:
        """Whether logits are known to be affine in X, layer by layer."""
        model = self.model
        if not isinstance(model, TorchModel) or not self.ends_in_logits:
            return False
        if model.steps or model.preprocess is not None:
            return False
        parts = [part for part in (model.front, model.module) if part is not None]
        leaves = [m for part in parts for m in part.modules() if type(m) is not nn.Sequential]
        return all(type(leaf) in _AFFINE for leaf in leaves)

    @property
    def differentiable(self) -> bool:
        """Whether logits have gradients with respect to X."""
        model = self.model
        return isinstance(model, TorchModel) and not model.steps and not model.integers

    @property
    def eps(self) -> float:
        """Machine epsilon of the coarsest floating dtype that takes part in the logits.

        Known for certain once a sample has run: a network may end in a coarser dtype than that
        of its parameters, under `torch.autocast` for instance.
        """
        return self.model.eps

    def latent(self, X: Any, bar: Any = None) -> Tensor:
        """Latent vectors (n_samples, n_latent), on the CPU; `bar` as in `map_batches`."""
        return self._outputs(X, latent=True, logits=False, bar=bar)[0]

    def logits(self, X: Any, index: NDArray[np.intp] | None = None) -> Tensor:
        """Logits (n_samples, n_classes), on the CPU; of the samples at `index` if given."""
        return self._outputs(X, latent=False, logits=True, index=index)[0]

    def latent_and_logits(
        self, X: Any, bar: Any = None, index: NDArray[np.intp] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both in one pass of the network, on the CPU; `bar` as in `map_batches`."""
        latent, logits = self._outputs(X, latent=True, logits=True, bar=bar, index=index)
        return latent, logits

    def proba(self, logits: Tensor) -> Tensor:
        """Probabilities (n, n_classes) that belong to logits (n, n_classes)."""
        return self.model.link(logits)

    def labels(self, X: Any) -> Tensor:
        """Positions (n_samples,) in `classes_` of what `predict` of the classifier returns."""
        if isinstance(self.model, TorchModel):
            return self.logits(X).argmax(1)
        predicted = predicted_labels(self.estimator, X)
        return torch.from_numpy(np.searchsorted(self.classes_, predicted))

    def digest(self, memory_key: str | None = None) -> str:
        return self.model.digest(memory_key)

    @contextmanager
    def differentiable_logits(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Lend the logits as a differentiable function of a batch of rows on the device.

        Yields
        ------
        logits : callable
            From a tensor (n, ...) to (n, n_classes), columns as in `classes_`.

        Raises
        ------
        TypeError
            For a classifier without gradients.
        """
        model = self.model
        if isinstance(model, TorchModel) and model.integers:
            raise TypeError(f"{model.name} takes integers, so there is no gradient in X.")
        if not isinstance(model, TorchModel) or model.steps:
            what = model.head if isinstance(model, BlackBox) else model.steps[0]
            raise TypeError(f"{type(what).__name__} offers no gradient with respect to X.")
        model.refresh()
        # tensors made in inference mode could not be differentiated
        with torch.inference_mode(False), model.borrow(gradients=True):
            yield self._differentiable

    def last_linear(self) -> tuple[Tensor, Tensor] | None:
        """Weight (n_classes, n_latent) and bias (n_classes,) of the layer that `latent` feeds.

        Copies on the CPU, rows as in `classes_`; the layer of a network with one output becomes
        minus and plus its half. None where latent vectors are not the input of a linear layer
        with one output for each class. A row has to have run.
        """
        model = self.model
        if not isinstance(model, TorchModel) or model.tap is None or model.tap.side != "input":
            return None
        layer = model.module.get_submodule(model.tap.name)
        if not isinstance(layer, nn.Linear):
            return None
        weight = layer.weight.detach().to("cpu", at_least_float32(layer.weight.dtype), copy=True)
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        bias = bias.to(weight)
        if len(weight) == 1:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        fits = tuple(weight.shape) == (len(self.classes_), self.n_latent)
        return (weight[self._order], bias[self._order]) if fits else None

    @torch.inference_mode(False)
    def _outputs(
        self,
        X: Any,
        *,
        latent: bool,
        logits: bool,
        bar: Any = None,
        index: NDArray[np.intp] | None = None,
    ) -> list[Tensor]:
        if self.folder is None:
            out = self._run(X, index, latent, logits, bar)
        else:
            # anew in each call: weights, attributes and globals may change in between
            key = self.model.digest(self.memory_key)
            store = RowStore(self.folder / key, self._warned)
            where = np.arange(X.shape[0]) if index is None else index
            arrays = store.through(
                X if index is None else _safe_indexing(X, index),
                ["latent"] * latent + ["logits"] * logits,
                lambda new: [to_numpy(t) for t in self._run(X, where[new], latent, logits, bar)],
            )
            out = [torch.from_numpy(a) for a in arrays]
        if latent:
            self.n_latent = out[0].shape[1]
        if logits:
            out[-1] = self._sorted(out[-1])
        return out

    def _run(
        self, X: Any, index: NDArray[np.intp] | None, latent: bool, logits: bool, bar: Any
    ) -> list[Tensor]:
        """Forward rows of X; None is all of them, uncopied."""
        n = X.shape[0] if index is None else len(index)

        def pick(rows: slice) -> Any:
            return _safe_indexing(X, rows if index is None else index[rows])

        if isinstance(self.model, TorchModel):
            self.model.refresh()
            if latent and not self.model.probed:
                self.model.probe(pick(slice(0, 2)))
        row_bytes = int(np.prod(X.shape[1:])) * self.dtype.itemsize
        size = resolve_batch_size(self.batch_size, row_bytes, self.device)

        def step(rows: slice) -> list[Tensor]:
            both = self.model.run(pick(rows), latent=latent, logits=logits)
            out = [t.cpu() for t in both if t is not None]
            number = np.arange(rows.start, rows.stop) if index is None else index[rows]
            for t in out:
                self._check(t, X, number)
            return out

        parts = map_batches(step, n, size, verbose=self.verbose, desc="network", bar=bar)
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def _differentiable(self, x: Tensor) -> Tensor:
        assert isinstance(self.model, TorchModel)
        logits, name = self.model.forward(x), self.model.name
        if len(logits) != len(x):
            raise ValueError(f"{name} gives {len(logits)} outputs for {len(x)} samples.")
        if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise ValueError(
                f"The logits of {name} have no gradient with respect to X: something in the module "
                "or its preprocess leaves torch (numpy, detach, no_grad). Use functions of torch."
            )
        return self._sorted(logits)

    def _check(self, output: Tensor, X: Any, rows: NDArray[np.intp]) -> None:
        """Refuse outputs that do not belong to the rows of X one by one, or are not finite."""
        name = self.model.name
        if len(output) != len(rows):
            raise ValueError(
                f"{name} gives {len(output)} outputs for a batch of {len(rows)}, from sample "
                f"{rows[0]} of X on; a classifier gives one for each sample."
            )
        finite = output.isfinite().flatten(1).all(1)
        if finite.all():
            return
        first = int((~finite).nonzero()[0, 0])
        what = "NaN" if output[first].isnan().any() else "infinity"
        message = f"{name} gives {what} for sample {rows[first]} of X."
        if not hasattr(X, "columns"):
            limit = torch.finfo(self.model.compute_dtype).max
            largest = to_tensor(_safe_indexing(X, rows[[first]])).double().abs().max().item()
            if largest > limit:
                message += (
                    f" The sample holds {largest:.4g}, more than the {limit:.4g} of "
                    f"{self.model.compute_dtype}: scale X, or compute in a wider dtype."
                )
        raise ValueError(message)

    def _sorted(self, logits: Tensor) -> Tensor:
        """Put the model's columns into the order of `classes_`."""
        self._know_classes(logits.shape[1])
        return logits if self._order == sorted(self._order) else logits[:, self._order]

    def _know_classes(self, n_outputs: int) -> None:
        if len(self._order):
            return
        given = np.arange(n_outputs) if self._given is None else self._given
        if len(given) != n_outputs:
            raise ValueError(
                f"The network has {n_outputs} outputs, but there are {len(given)} classes: "
                f"{given[:10].tolist()}. Give FrozenNetwork(classes=...) one class per output, or "
                "change the network's last layer."
            )
        if len(np.unique(given)) != n_outputs:
            raise ValueError(
                f"classes={given.tolist()} names a class twice. Give each output its own."
            )
        self._order = np.argsort(given, kind="stable").tolist()
        self.classes_ = given[self._order]
