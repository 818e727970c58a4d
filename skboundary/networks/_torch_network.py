"""Torch modules as networks: preprocessing, layers by forward hooks, gradients."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from sklearn.utils import _safe_indexing
from torch import Tensor, nn

from skboundary._batching import is_out_of_memory
from skboundary._device import at_least_float32, holds_integers, resolve_device, to_tensor
from skboundary.networks._batched import BatchedNetwork
from skboundary.networks._digest import digest
from skboundary.networks._layers import (
    Layer,
    Tap,
    begins_with_embedding,
    find_tap,
    first_tensor,
    flatten_latent,
    run_tapped,
)
from skboundary.networks._lift import Affine
from skboundary.networks._module_state import evaluation_mode, on_device, placed, tree_of
from skboundary.networks._outputs import Link, as_logits, check_floats, softmax
from skboundary.networks._protocol import Logits

# Layers whose output is affine in their input.
_AFFINE = (nn.Linear, nn.Identity, nn.Flatten, nn.Dropout, Affine)


class TorchNetwork(BatchedNetwork):
    """A torch module as a `Network`.

    Samples pass through `steps`, `front`, `preprocess` and the module, in this order.

    Parameters
    ----------
    module : nn.Module
        Used without modification; a copy of it runs if it is on another device.
    device : torch.device
    layer, pool : see `LatentTransformer`
    output : {"logits", "proba"} or callable, default="logits"
        What the module returns, or the function that converts it to probabilities.
    link : callable, default=softmax
        Maps logits to probabilities.
    preprocess : callable, default=None
        Maps a tensor to a tensor, before the module and in its dtype.
    keep_integers : bool, default=False
        Keep integers even if no `nn.Embedding` comes first.
    steps : sequence of transformers, default=()
        Steps of a pipeline that transform arrays.
    front : nn.Module, default=None
        Affine steps of a pipeline, as a module.
    front_dtype : torch.dtype, default=None
        Dtype of `front`.
    classes, batch_size, verbose : see `BatchedNetwork`

    Attributes
    ----------
    integers : bool or None
        Whether the module takes integers; None until a sample has been run.
    compute_dtype : torch.dtype
        Dtype of the module. Points of a wider `input_dtype` are cast to it, so half precision
        does not round the points themselves.
    """

    is_module = has_scores = True
    estimator: Any = None  # the fitted classifier, where one was reduced to this network

    def __init__(
        self,
        module: nn.Module,
        *,
        device: torch.device,
        layer: Layer = "auto",
        pool: str | None = None,
        output: str | Callable[[Tensor], Tensor] = "logits",
        link: Link = softmax,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        keep_integers: bool = False,
        steps: Sequence[Any] = (),
        front: nn.Module | None = None,
        front_dtype: torch.dtype | None = None,
        classes: Any = None,
        batch_size: Any = "auto",
        verbose: int = 0,
    ) -> None:
        self._given_parts, self.device = (module, preprocess), device
        self._refresh()
        self._is_fresh = True  # the first pass, which follows at once, need not look again
        dtypes = dict.fromkeys(map(attrgetter("dtype"), self._trees[0].tensors))  # in this order
        floating = [dtype for dtype in dtypes if dtype.is_floating_point]
        compute_dtype = floating[0] if floating else torch.float32
        dtype = at_least_float32(compute_dtype)
        super().__init__(
            classes=classes,
            device=device,
            dtype=dtype,
            input_dtype=dtype if front_dtype is None else front_dtype,
            compute_dtype=compute_dtype,
            batch_size=batch_size,
            verbose=verbose,
        )
        self.layer, self.pool, self.output, self.link = layer, pool, output, link
        self.steps, self.keep_integers = list(steps), keep_integers
        self.front = None if front is None else front.to(device=device, dtype=front_dtype)
        self.eps = max(torch.finfo(d).eps for d in {compute_dtype, *floating})
        self.integers: bool | None = None
        self.tap: Tap | None = None
        self._columns: Tensor | None = None  # `order` on the device
        self._latent_ndim = 0  # of the activations; 0 until two samples have been run

    @property
    def name(self) -> str:
        """Class of the module, for messages."""
        return type(self.module).__name__

    @property
    def differentiable(self) -> bool:
        """Whether the logits have gradients with respect to X."""
        return not self.steps and not self.integers

    @property
    def affine(self) -> bool:
        """Whether the logits are known to be affine in X, layer by layer."""
        if self.steps or self.preprocess is not None or not self.ends_in_logits:
            return False
        parts = [self.module] if self.front is None else [self.front, self.module]
        layers = [
            m for part in parts for m in tree_of(part).modules if type(m) is not nn.Sequential
        ]
        return all(type(layer) in _AFFINE for layer in layers)

    @property
    def has_linear(self) -> bool:
        """Whether the module contains an `nn.Linear`."""
        return any(isinstance(m, nn.Linear) for m in tree_of(self.module).modules)

    @property
    def ends_in_logits(self) -> bool:
        """Whether the outputs of the module are the logits."""
        return self.output == "logits"

    def proba(self, logits: Tensor) -> Tensor:
        """Probabilities (n, n_classes) of logits (n, n_classes)."""
        return self.link(logits)

    def labels(self, X: Any) -> Tensor:
        """Positions (n_samples,) in `classes_` of the largest logits."""
        return self.logits(X).argmax(1)

    @contextmanager
    def differentiable_logits(self) -> Iterator[Logits]:
        """Logits as a differentiable function; see `Network.differentiable_logits`."""
        if self.integers:
            raise TypeError(f"{self.name} takes integers, so it has no gradient with respect to X.")
        if self.steps:
            raise TypeError(f"{type(self.steps[0]).__name__} has no gradient with respect to X.")
        self._refresh()
        # tensors made in inference mode could not be differentiated
        with torch.inference_mode(False), evaluation_mode(*self._trees, frozen=True):
            yield self._differentiable

    def last_linear(self) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the layer that `latent` feeds; see `Network.last_linear`."""
        if self.tap is None or self.tap.side != "input":
            return None
        layer = self.module.get_submodule(self.tap.name)
        if not isinstance(layer, nn.Linear):
            return None
        weight = layer.weight.detach().to("cpu", at_least_float32(layer.weight.dtype), copy=True)
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        bias = bias.to(weight)
        if len(weight) == 1:
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        fits = tuple(weight.shape) == (len(self.classes_), self.n_latent)
        return (weight[self.order], bias[self.order]) if fits else None

    def digest(self, memory_key: str | None = None) -> str:
        """Digest of weights, code and attributes, layer and pool; see `Network.digest`."""
        self._refresh()
        parts = {"module": self.module, "preprocess": self.preprocess, "front": self.front}
        weights = {
            name: [*part.named_parameters(), *part.named_buffers()]
            for name, part in parts.items()
            if isinstance(part, nn.Module)
        }
        code: dict[str, Any] = {**parts, "steps": self.steps, "layer": self.layer}
        if memory_key is not None:
            layer = "a callable" if callable(self.layer) else self.layer
            code = {"memory_key": memory_key, "layer": layer}
        with evaluation_mode(
            *self._trees
        ):  # without hooks of other threads, and with the flags of a pass
            return digest(
                weights=weights,
                **code,
                pool=self.pool,
                output=self.output,
                inputs=[self.compute_dtype, self.dtype, self.input_dtype, self.keep_integers],
                autocast=torch.is_autocast_enabled(self.device.type)
                and torch.get_autocast_dtype(self.device.type),
            )

    def prepared(self, samples: Any) -> Tensor:
        """Input of the module for samples (n, ...)."""
        return self._prepare(self._load(samples))

    def _refresh(self) -> None:
        """Update the module and the preprocessing on the device to their current weights."""
        module, preprocess = self._given_parts
        module, tree = placed(module, self.device)
        trees = [tree]
        if isinstance(preprocess, nn.Module):
            preprocess, tree = placed(preprocess, self.device)
            trees.append(tree)
        self.module, self.preprocess, self._trees = module, preprocess, trees

    def _begin(self, first: Callable[[], Any], latent: bool) -> None:
        if not self._is_fresh:
            self._refresh()
        self._is_fresh = False
        if latent and not self._latent_ndim:
            self._find_layer(self._load(first()))

    def _find_layer(self, x: Tensor) -> None:
        """Find the layer with two samples; a single one may lose its batch axis (`squeeze`)."""
        x = torch.cat([x, x])[:2]
        with evaluation_mode(*self._trees), torch.no_grad(), self._explained(x):
            self.tap, latent, _ = find_tap(self.module, self.layer, self._prepare(x))
        self._check_latent(latent, 2)
        if latent.shape.count(2) > 1:  # check that the first axis is the batch
            x = torch.cat([x, x])[:3]
            with evaluation_mode(*self._trees), torch.no_grad(), self._explained(x):
                three, _ = run_tapped(
                    self.module, self.layer, self.tap, self._prepare(x), logits=False
                )
            self._check_latent(three, 3)
        self._latent_ndim = latent.ndim

    def _forward(
        self, samples: Any, latent: bool, logits: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        x = self._load(samples)
        with evaluation_mode(*self._trees), torch.no_grad():
            if not latent:
                return None, self._logits(x)
            with self._explained(x):
                z, output = run_tapped(
                    self.module, self.layer, self.tap, self._prepare(x), logits=logits
                )
        n = len(x)
        return self._as_latent(z, n), None if output is None else self._as_logits(output, n)

    def _differentiable(self, x: Tensor) -> Tensor:
        logits = self._logits(x)
        if len(logits) != len(x):
            raise ValueError(f"{self.name} gives {len(logits)} outputs for {len(x)} samples.")
        if x.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise ValueError(
                f"The logits of {self.name} have no gradient with respect to X: something in the "
                "module or its preprocess leaves torch (numpy, detach, no_grad). Use torch "
                "functions."
            )
        self._learn_classes(logits.shape[1])  # from the first logits
        if self._is_sorted:
            return logits
        if self._columns is None or self._columns.device != logits.device:
            self._columns = torch.tensor(self.order, device=logits.device)
        return logits.index_select(1, self._columns)

    def _logits(self, x: Tensor) -> Tensor:
        """Logits (n, n_outputs) of a batch on the device, differentiable."""
        with self._explained(x):
            output = first_tensor(self.module(self._prepare(x)))
        return self._as_logits(output, len(x))

    def _load(self, samples: Any) -> Tensor:
        for step in self.steps:
            samples = step.transform(samples)
        return self._cast(samples)

    def _cast(self, samples: Any) -> Tensor:
        if self.integers is None:
            self.integers = False
            tokens = holds_integers(samples) and (self.keep_integers or self._has_tokens(samples))
            self.integers = tokens
        if not self.integers:
            return to_tensor(samples, device=self.device, dtype=self.input_dtype)
        if not holds_integers(samples):
            raise ValueError(
                f"{self.name} takes integers, but these samples are floats, as are all points "
                "between samples"
            )
        return to_tensor(samples, device=self.device, dtype=torch.int64)

    def _has_tokens(self, samples: Any) -> bool:
        x = self._cast(_safe_indexing(samples, slice(0, 1)))
        with evaluation_mode(*self._trees), torch.no_grad(), self._explained(x):
            return begins_with_embedding(self.module, self._prepare(x))

    def _prepare(self, x: Tensor) -> Tensor:
        """Input of the module in its own memory, since the module may write to it."""
        if self.front is not None:
            x = self.front(x.flatten(1))
        x = x.to(x.dtype if self.integers else self.compute_dtype, copy=self.front is None)
        if self.preprocess is None:
            return x
        with self._explained(x, "preprocess"):
            prepared = self.preprocess(x)
        if not isinstance(prepared, Tensor):
            raise ValueError(
                f"preprocess of {self.name} gives {type(prepared).__name__}, not a tensor. Use "
                "torch functions, or put steps that transform arrays before the network in a "
                "Pipeline."
            )
        return prepared

    @contextmanager
    def _explained(self, x: Tensor, what: str = "") -> Iterator[None]:
        """Add the network and the shape of its samples to errors of the user's code."""
        try:
            yield
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            who = f"{what} of {self.name}" if what else self.name
            hint = ""
            if "Long" in str(error):  # torch's name for int64
                hint = " Integers in X stay integers with FrozenNetwork(input_dtype='keep')."
            raise ValueError(
                f"{who} fails when it is called with one tensor, a batch of samples of shape "
                f"{tuple(x.shape[1:])} and dtype {x.dtype}: {type(error).__name__}: {error}{hint}"
            ) from error

    def _check_latent(self, latent: Any, n: int) -> None:
        if not isinstance(latent, Tensor) or not latent.is_floating_point():
            kind = latent.dtype if isinstance(latent, Tensor) else type(latent).__name__
            raise ValueError(
                f"layer={self.layer!r} of {self.name} gives {kind}; latent vectors must be "
                "floating-point tensors. Choose another layer."
            )
        if latent.ndim == 0 or len(latent) != n:
            raise ValueError(
                f"layer={self.layer!r} of {self.name} gives an activation of shape "
                f"{tuple(latent.shape)} for {n} samples; its first axis must be the batch. "
                "Choose another layer."
            )

    def _as_latent(self, latent: Tensor, n: int) -> Tensor:
        if n == 1 and latent.ndim == self._latent_ndim - 1:  # squeezed
            latent = latent[None]
        self._check_latent(latent, n)
        return flatten_latent(latent.to(at_least_float32(latent.dtype)), self.pool)

    def _as_logits(self, output: Tensor, n: int) -> Tensor:
        """Convert the output of the module to logits (n, n_outputs)."""
        output = output if isinstance(self.output, str) else self.output(output)
        check_floats(output, self.name)
        self.eps = max(self.eps, torch.finfo(output.dtype).eps)
        return as_logits(output, n, probabilities=not self.ends_in_logits, name=self.name)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        cpu = torch.device("cpu")  # pickles can be loaded without an accelerator
        state["_given_parts"] = tuple(
            on_device(part, cpu) if isinstance(part, nn.Module) else part
            for part in self._given_parts
        )
        state["front"] = None if self.front is None else copy.deepcopy(self.front).to(cpu)
        del state["module"], state["preprocess"], state["_trees"]
        state["device"], state["_columns"] = str(self.device), None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            self.device = resolve_device(state["device"])
        except ValueError:
            self.device = resolve_device("auto")
        if self.front is not None:
            self.front.to(self.device)
        self._refresh()
