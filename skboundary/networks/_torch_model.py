"""A torch module as the part of a classifier that gives latent vectors and logits."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from sklearn.utils import _safe_indexing
from torch import Tensor, nn

from skboundary._batching import is_out_of_memory
from skboundary._device import (
    at_least_float32,
    coarsest_eps,
    holds_integers,
    module_dtype,
    resolve_device,
    to_tensor,
)
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
from skboundary.networks._lift import Link, softmax

# Hooks and flags belong to a module, not to a thread: one thread at a time.
_LOCK = threading.RLock()

# Copies of modules on other devices, with what the modules held when they were copied.
_COPIES: WeakKeyDictionary[nn.Module, dict[torch.device, tuple[Any, nn.Module]]]
_COPIES = WeakKeyDictionary()


@contextmanager
def borrowed(*modules: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Put modules into evaluation mode, and give every flag back whatever happens.

    With `gradients`, for passes that are differentiated, their parameters are frozen too.
    """
    with _LOCK:
        training = [(m, m.training) for module in modules for m in module.modules()]
        parameters = [p for module in modules for p in module.parameters()] if gradients else []
        frozen = [p for p in parameters if p.requires_grad]
        try:
            for m, _ in training:
                m.training = False  # not .eval(), which a module may have overridden
            for p in frozen:
                p.requires_grad_(False)
            yield
        finally:
            for m, flag in training:
                m.training = flag
            for p in frozen:
                p.requires_grad_(True)


class TorchModel:
    """Latent vectors and raw logits of a module, batch by batch.

    Parameters
    ----------
    module : nn.Module
        Used as it is; a copy where it has to run on another device.
    layer, pool : see `LatentTransformer`
    device : torch.device
    output : {"logits", "proba"} or callable, default="logits"
        What the module ends in, or the function that makes probabilities of it.
    link : callable, default=softmax
        From logits to probabilities.
    preprocess : callable, default=None
        Tensor to tensor, run before the module in its dtype.
    keep_integers : bool, default=False
        Hand over integers as integers, also where no `nn.Embedding` comes first.

    Attributes
    ----------
    name : str
        Class of the module, for messages.
    integers : bool or None
        Whether the module takes integers; None until a sample has run.
    input_dtype : torch.dtype
        Of the points that a search moves, float32 at least. `forward` casts them to the dtype of
        the module, so half precision does not round the points themselves.
    dtype : torch.dtype
        Of latent vectors and logits, float32 at least; they are wider where the module's own
        outputs are.
    compute_dtype : torch.dtype
        Of the module, in which it takes its input.
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
        output: str | Callable[[Tensor], Tensor] = "logits",
        link: Link = softmax,
        preprocess: Callable[[Tensor], Tensor] | None = None,
        keep_integers: bool = False,
    ) -> None:
        self._given = module, preprocess
        self.layer, self.pool, self.device = layer, pool, device
        self.output, self.link = output, link
        self.refresh()
        self.compute_dtype = module_dtype(module)
        self.dtype = self.input_dtype = at_least_float32(self.compute_dtype)
        self.eps = coarsest_eps(module, self.compute_dtype)
        self.keep_integers = keep_integers
        self.integers: bool | None = None
        self.steps: list[Any] = []  # of a pipeline: transformers that run on arrays
        self.front: nn.Module | None = None  # of a pipeline: affine steps, as a module
        self.tap: Tap | None = None
        self._latent_ndim = 0
        self.probed = False

    @property
    def name(self) -> str:
        """Class of the module, for messages."""
        return type(self.module).__name__

    def add_front(self, front: nn.Module, dtype: torch.dtype) -> None:
        """Put affine steps before the network; they compute in the dtype of X."""
        self.input_dtype = dtype
        self.front = front.to(device=self.device, dtype=dtype)

    def borrow(self, *, gradients: bool = False) -> AbstractContextManager[None]:
        """Freeze the module, and the preprocessing where that is one too."""
        parts = (self.module, self.preprocess)
        modules = [part for part in parts if isinstance(part, nn.Module)]
        return borrowed(*modules, gradients=gradients)

    def refresh(self) -> None:
        """Take the module, and the preprocessing, on the device and with their present weights."""
        module, preprocess = self._given
        self.module = on_device(module, self.device)
        self.preprocess = (
            on_device(preprocess, self.device) if isinstance(preprocess, nn.Module) else preprocess
        )

    def forward(self, x: Tensor) -> Tensor:
        """Raw logits (n, n_outputs) of a batch on the device, differentiable."""
        with self._explained(x):
            output = first_tensor(self.module(self._prepare(x)))
        return self._as_logits(output, len(x))

    def probe(self, rows: Any) -> None:
        """Find the layer with two samples: one alone may lose its axis to `squeeze`."""
        x = self._load(rows)
        x = torch.cat([x, x])[:2]
        with self.borrow(), torch.no_grad(), self._explained(x):
            self.tap, latent, _ = find_tap(self.module, self.layer, self._prepare(x))
        self._check_latent(latent, 2)
        self._latent_ndim = latent.ndim
        if latent.shape.count(2) > 1:  # is it the first axis that counts the samples?
            x = torch.cat([x, x])[:3]
            with self.borrow(), torch.no_grad(), self._explained(x):
                latent, _ = run_tapped(
                    self.module, self.layer, self.tap, self._prepare(x), logits=False
                )
            self._check_latent(latent, 3)
        self.probed = True

    def run(self, rows: Any, *, latent: bool, logits: bool) -> tuple[Tensor | None, Tensor | None]:
        """Latent vectors (n, n_latent) and logits (n, n_outputs), each when asked for."""
        x = self._load(rows)
        with self.borrow(), torch.no_grad():
            if not latent:
                return None, self.forward(x)
            with self._explained(x):
                z, output = run_tapped(
                    self.module, self.layer, self.tap, self._prepare(x), logits=logits
                )
        n = len(x)
        return self._as_latent(z, n), None if output is None else self._as_logits(output, n)

    def digest(self, memory_key: str | None = None) -> str:
        """Name what this model computes: weights, code and attributes, layer and pool.

        Parameters
        ----------
        memory_key : str, default=None
            Stands for all code and all attributes.

        Returns
        -------
        key : str

        Raises
        ------
        ValueError
            That names what cannot be read, for ``memory_key=None``.
        """
        self.refresh()
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
        with self.borrow():  # no hook of another thread, every flag as in a pass
            return digest(
                weights=weights,
                **code,
                pool=self.pool,
                output=self.output,
                inputs=[self.compute_dtype, self.dtype, self.input_dtype, self.keep_integers],
                autocast=torch.is_autocast_enabled(self.device.type)
                and torch.get_autocast_dtype(self.device.type),
            )

    def _load(self, rows: Any) -> Tensor:
        for step in self.steps:
            rows = step.transform(rows)
        return self._cast(rows)

    def _cast(self, rows: Any) -> Tensor:
        if self.integers is None:
            self.integers = False
            self.integers = holds_integers(rows) and (self.keep_integers or self._has_tokens(rows))
        if not self.integers:
            return to_tensor(rows, device=self.device, dtype=self.input_dtype)
        if not holds_integers(rows):
            raise ValueError(
                f"{self.name} takes integers, and these samples are floats, as all are that lie "
                "between others"
            )
        return to_tensor(rows, device=self.device, dtype=torch.int64)

    def _has_tokens(self, rows: Any) -> bool:
        x = self._cast(_safe_indexing(rows, slice(0, 1)))
        with self.borrow(), torch.no_grad(), self._explained(x):
            return begins_with_embedding(self.module, self._prepare(x))

    def _prepare(self, x: Tensor) -> Tensor:
        """Make what the module takes, in memory of its own: it may write to its input."""
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
                "functions of torch; steps that work on arrays go before the network in a Pipeline."
            )
        return prepared

    @contextmanager
    def _explained(self, x: Tensor, what: str = "") -> Iterator[None]:
        """Name the network and the shape of its samples where the user's code fails."""
        try:
            yield
        except (RuntimeError, TypeError, IndexError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            who = f"{what} of {self.name}" if what else self.name
            hint = ""
            if "Long" in str(error):  # torch's word for integers
                hint = " Integers in X stay integers with FrozenNetwork(input_dtype='keep')."
            raise ValueError(
                f"{who} fails when it is called with one tensor, a batch of samples of shape "
                f"{tuple(x.shape[1:])} and dtype {x.dtype}: {type(error).__name__}: {error}{hint}"
            ) from error

    def _check_latent(self, latent: Any, n: int) -> None:
        if not isinstance(latent, Tensor) or not latent.is_floating_point():
            kind = latent.dtype if isinstance(latent, Tensor) else type(latent).__name__
            raise ValueError(
                f"layer={self.layer!r} of {self.name} gives {kind}; latent vectors are tensors of "
                "floats. Choose another layer."
            )
        if latent.ndim == 0 or len(latent) != n:
            raise ValueError(
                f"layer={self.layer!r} of {self.name} gives an activation of shape "
                f"{tuple(latent.shape)} for {n} samples: its first axis must count them. Choose "
                "another layer."
            )

    def _as_latent(self, latent: Tensor, n: int) -> Tensor:
        if n == 1 and latent.ndim == self._latent_ndim - 1:  # squeezed
            latent = latent[None]
        self._check_latent(latent, n)
        return flatten_latent(latent.to(at_least_float32(latent.dtype)), self.pool)

    def _as_logits(self, output: Tensor, n: int) -> Tensor:
        """Raw logits whatever the net ends in; one logit becomes minus and plus its half."""
        output = output if isinstance(self.output, str) else self.output(output)
        if not output.is_floating_point() or output.layout != torch.strided or output.is_meta:
            raise ValueError(
                f"{self.name} gives outputs of dtype {output.dtype} and layout {output.layout} on "
                f"{output.device}; logits are floats, dense, on a device that computes."
            )
        self.eps = max(self.eps, torch.finfo(output.dtype).eps)
        output = output.to(at_least_float32(output.dtype))
        if n == 1 and output.ndim < 2 and output.numel():  # squeezed
            output = output.reshape(1, -1)
        if output.ndim == 1:
            output = output[:, None]
        if output.ndim != 2:
            raise ValueError(
                f"{self.name} gives outputs of shape {tuple(output.shape)}; a classifier gives "
                "(n_samples, n_classes)."
            )
        if self.output != "logits":
            _check_probabilities(output)
            # the smallest number that has a logarithm in this dtype
            output = torch.cat([1 - output, output], 1) if output.shape[1] == 1 else output
            return output.clamp_min(torch.finfo(output.dtype).tiny).log()
        return torch.cat([-output, output], 1) / 2 if output.shape[1] == 1 else output

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        cpu = torch.device("cpu")  # a pickle opens without an accelerator
        state["_given"] = tuple(
            on_device(part, cpu) if isinstance(part, nn.Module) else part for part in self._given
        )
        state["front"] = None if self.front is None else copy.deepcopy(self.front).to(cpu)
        del state["module"], state["preprocess"]
        state["device"] = str(self.device)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            self.device = resolve_device(state["device"])
        except ValueError:
            self.device = resolve_device("auto")
        if self.front is not None:
            self.front.to(self.device)
        self.refresh()


def _tensors_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """Return the module itself where it is on the device already, else one copy kept there.

    The copy is made anew where the module has changed: weights written in place or replaced,
    attributes set. Weights that were made in inference mode are copied too: no gradient passes
    through them.
    """
    if all(t.device == device and not t.is_inference() for t in _tensors_of(module)):
        return module
    with _LOCK:
        state, copies = _contents(module), _COPIES.setdefault(module, {})
        if device not in copies or copies[device][0] != state:
            with torch.inference_mode(False):
                copies[device] = state, copy.deepcopy(module).to(device)
        return copies[device][1]


def _contents(module: nn.Module) -> list[Any]:
    """Tell the present weights and attributes of a module from former ones."""
    tensors = [  # a tensor made in inference mode counts no versions
        (t.data_ptr(), t.sum().item() if t.is_inference() else t._version)
        for t in _tensors_of(module)
    ]
    attributes = [
        (key, value if isinstance(value, (str, int, float, type(None))) else id(value))
        for part in module.modules()
        for key, held in vars(part).items()
        if key != "training"
        for value in (held.values() if isinstance(held, dict) else [held])
    ]
    return [tensors, attributes]


def _check_probabilities(p: Tensor) -> None:
    total = p.sum(1) if p.shape[1] > 1 else torch.ones_like(p[:, 0])
    wrong = (p < 0).any(1) | (p > 1 + 1e-3).any(1) | ((total - 1).abs() > 1e-2)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            "The network should end in probabilities, but it gave "
            f"{[round(v, 4) for v in p[row, :5].tolist()]} for a row. Use output='logits', or "
            "another predict_nonlinearity in a skorch net."
        )
