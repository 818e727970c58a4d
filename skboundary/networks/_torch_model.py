"""A torch module as the part of a classifier that gives latent vectors and logits."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skboundary._runtime import (
    at_least_float32,
    coarsest_eps,
    module_dtype,
    resolve_device,
    to_tensor,
)
from skboundary.networks._layers import (
    Layer,
    Tap,
    find_tap,
    first_tensor,
    flatten_latent,
    run_tapped,
)
from skboundary.networks._lift import Link, softmax

# Hooks and flags belong to a module, not to a thread: one thread at a time.
_LOCK = threading.RLock()


@contextmanager
def borrowed(*modules: nn.Module) -> Iterator[None]:
    """Freeze modules in evaluation mode, and give every flag back whatever happens."""
    with _LOCK:
        training = [(m, m.training) for module in modules for m in module.modules()]
        gradients = [(p, p.requires_grad) for module in modules for p in module.parameters()]
        try:
            for m, _ in training:
                m.training = False  # not .eval(), which a module may have overridden
            for p, _ in gradients:
                p.requires_grad_(False)
            yield
        finally:
            for m, flag in training:
                m.training = flag
            for p, flag in gradients:
                p.requires_grad_(flag)


class TorchModel:
    """Latent vectors and raw logits of a module, batch by batch.

    Parameters
    ----------
    module : nn.Module
        Used as it is; a copy where it has to run on another device.
    layer, pool : see `LatentTransformer`
    device : torch.device
    output : {"logits", "proba"}, default="logits"
        What the module ends in.
    link : callable, default=softmax
        From logits to probabilities.
    preprocess : callable, default=None
        Tensor to tensor, run before the module in its dtype.

    Attributes
    ----------
    input_dtype : torch.dtype
        Of the points that a search moves, float32 at least. `forward` casts them to the dtype of
        the module, so half precision does not round the points themselves.
    dtype : torch.dtype
        Of latent vectors and logits, float32 at least; they are wider where the module's own
        outputs are.
    eps : float
        Machine epsilon of the coarsest floating dtype that takes part: parameters, buffers, and
        the outputs seen so far. Logits are rounded to about eps times the largest of them.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        layer: Layer,
        pool: str | None,
        device: torch.device,
        output: str = "logits",
        link: Link = softmax,
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.module = _on_device(module, device)
        self.layer, self.pool, self.device = layer, pool, device
        self.output, self.link = output, link
        self.preprocess = (
            _on_device(preprocess, device) if isinstance(preprocess, nn.Module) else preprocess
        )
        self._module_dtype = module_dtype(self.module)
        self.dtype = self.input_dtype = at_least_float32(self._module_dtype)
        self.eps = coarsest_eps(self.module, self._module_dtype)
        self.steps: list[Any] = []  # of a pipeline: transformers that run on arrays
        self.front: nn.Module | None = None  # of a pipeline: affine steps, as a module
        self.tap: Tap | None = None
        self.probed = False

    def add_front(self, front: nn.Module, dtype: torch.dtype) -> None:
        """Put affine steps before the network; they compute in the dtype of X."""
        self.input_dtype = dtype
        self.front = front.to(device=self.device, dtype=dtype)

    def borrow(self) -> AbstractContextManager[None]:
        """Freeze the module, and the preprocessing where that is one too."""
        parts = (self.module, self.preprocess)
        return borrowed(*(part for part in parts if isinstance(part, nn.Module)))

    def forward(self, x: Tensor) -> Tensor:
        """Raw logits (n, n_outputs) of a batch on the device, differentiable."""
        return self._as_logits(first_tensor(self.module(self._prepare(x))))

    def probe(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Run one row to find the layer; return its latent vector and logits."""
        x = self._load(rows)
        with self.borrow(), torch.no_grad():
            x = self._prepare(x)
            self.tap, latent, output = find_tap(self.module, self.layer, x)
        self.probed = True
        return self._as_latent(latent, len(x)), self._as_logits(output)

    def run(self, rows: Any, *, latent: bool, logits: bool) -> tuple[Tensor | None, Tensor | None]:
        """Latent vectors (n, n_latent) and logits (n, n_outputs), each when asked for."""
        x = self._load(rows)
        with self.borrow(), torch.no_grad():
            if not latent:
                return None, self.forward(x)
            z, output = run_tapped(
                self.module, self.layer, self.tap, self._prepare(x), logits=logits
            )
        return self._as_latent(z, len(x)), None if output is None else self._as_logits(output)

    def digest(self) -> str:
        """Name what this model computes: weights, code, layer and pool."""
        h = hashlib.blake2b(digest_size=16)
        parts = [self.module, self.preprocess, self.front, self.layer, self.pool, self.output]
        for part in parts:
            _update(h, part)
        if self.steps:
            import joblib

            h.update(joblib.hash(self.steps).encode())
        return h.hexdigest()

    def _load(self, rows: Any) -> Tensor:
        for step in self.steps:
            rows = step.transform(rows)
        return to_tensor(rows, device=self.device, dtype=self.input_dtype)

    def _prepare(self, x: Tensor) -> Tensor:
        if self.front is not None:
            x = self.front(x.flatten(1))
        x = x.to(self._module_dtype)
        return x if self.preprocess is None else self.preprocess(x)

    def _as_latent(self, latent: Tensor, n: int) -> Tensor:
        if latent.ndim == 0 or len(latent) != n:
            raise ValueError(
                f"layer={self.layer!r} gives an activation of shape {tuple(latent.shape)} for "
                f"{n} rows: its first axis must count them. Choose another layer."
            )
        return flatten_latent(latent.to(at_least_float32(latent.dtype)), self.pool)

    def _as_logits(self, output: Tensor) -> Tensor:
        """Raw logits whatever the net ends in; one logit becomes minus and plus its half."""
        self.eps = max(self.eps, torch.finfo(output.dtype).eps)
        output = output.to(at_least_float32(output.dtype))
        if output.ndim == 1:
            output = output[:, None]
        if output.ndim != 2:
            raise ValueError(
                f"The network gives outputs of shape {tuple(output.shape)}; a classifier gives "
                "(n_samples, n_classes)."
            )
        if self.output == "proba":
            _check_probabilities(output)
            # the smallest number that has a logarithm in this dtype
            output = torch.cat([1 - output, output], 1) if output.shape[1] == 1 else output
            return output.clamp_min(torch.finfo(output.dtype).tiny).log()
        return torch.cat([-output, output], 1) / 2 if output.shape[1] == 1 else output

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for key in ("module", "front", "preprocess"):  # a pickle opens without an accelerator
            if isinstance(state[key], nn.Module):
                state[key] = _on_device(state[key], torch.device("cpu"))
        state["device"] = str(self.device)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            self.device = resolve_device(state["device"])
        except ValueError:
            self.device = resolve_device("auto")
        for key in ("module", "front", "preprocess"):
            if isinstance(state[key], nn.Module):
                state[key].to(self.device)


def _on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module itself where it is on the device already, else a copy there."""
    tensors = [*module.parameters(), *module.buffers()]
    same = all(
        t.device.type == device.type and device.index in (None, t.device.index) for t in tensors
    )
    return module if same else copy.deepcopy(module).to(device)


def _check_probabilities(p: Tensor) -> None:
    total = p.sum(1) if p.shape[1] > 1 else torch.ones_like(p[:, 0])
    wrong = (p < 0).any(1) | (p > 1 + 1e-3).any(1) | ((total - 1).abs() > 1e-2)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"output='proba' says that the network ends in probabilities, but it gave "
            f"{[round(v, 4) for v in p[row, :5].tolist()]} for a row. Use output='logits'."
        )


def _update(h: Any, part: Any) -> None:
    """Feed what a module or function computes: its weights and the code of its forward."""
    if isinstance(part, nn.Module):
        for name, m in part.named_modules():
            h.update(f"{name} {type(m).__qualname__} {m.extra_repr()}".encode())
            h.update(getattr(getattr(type(m).forward, "__code__", None), "co_code", b""))
        for name, t in [*part.named_parameters(), *part.named_buffers()]:
            h.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
            raw = t.detach().cpu().contiguous().flatten().view(torch.uint8)
            h.update(np.ascontiguousarray(raw.numpy()))
    elif callable(part):
        h.update(getattr(part, "__qualname__", type(part).__qualname__).encode())
        code = getattr(part, "__code__", None)
        if code is None:
            raise TypeError(
                f"memory cannot tell what {part!r} computes. Pass a function or an nn.Module, "
                "or memory=None."
            )
        h.update(code.co_code + repr((code.co_names, code.co_varnames)).encode())
        h.update(repr([c for c in code.co_consts if not hasattr(c, "co_code")]).encode())
        h.update(repr(part.__defaults__).encode())
        for cell in part.__closure__ or ():
            _update(h, cell.cell_contents)
    else:
        h.update(repr(part).encode())
