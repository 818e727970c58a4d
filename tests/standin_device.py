"""A stand-in for an accelerator: its tensors lie in CPU memory, and what it does is counted.

`register` makes ``device="standin"`` known to torch. Its tensors report that device and raise when
they meet tensors on the CPU, as on a real device, so code that mixes the two fails, and results are
those of the CPU to the last bit. `count` counts transfers, synchronizations and launches.

It is built on a private function of torch, `_setup_privateuseone_for_python_backend`;
`unavailable` returns the reason where a release lacks it.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "standin"
_CPU = torch.device("cpu")
# Operations that wait for the device, because the host needs a value or a number of elements.
_SYNCHRONIZING = {
    "_local_scalar_dense",  # item, bool, int, float
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "equal",
    "bincount",
    "repeat_interleave",
    "_linalg_svd",
    "_linalg_eigh",
    "_linalg_solve_ex",
    "linalg_cholesky_ex",
}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
_ALLOCATING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_FREE = {*_ALLOCATING, "_unsafe_view", "_reshape_alias", "is_same_size", "resolve_conj"}


@dataclass
class Traffic:
    """What a stand-in was asked to do."""

    transfers_in: int = 0  # copies from the host
    transfers_out: int = 0  # copies to the host
    synchronizations: int = 0  # waits of the host for the device, besides copies
    launches: int = 0  # operations, without views and allocations
    names: Counter[str] = field(default_factory=Counter)  # of what is no launch

    def note(self, kind: str, name: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        if kind != "launches":
            self.names[f"{kind}: {name}"] += 1


_counting: list[Traffic] = []
_libraries: list[torch.library.Library] = []


class StandIn(Tensor):
    """A tensor that reports another device and holds its values in a tensor on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> StandIn:
        assert type(held) is Tensor and held.is_cpu
        tensor = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.held = held
        return tensor

    def __repr__(self) -> str:
        return f"StandIn({self.held!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()  # as torch does, though not for subclasses

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if name in ("copy_", "_copy_from"):
            return _copy(name, *args)
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        _refuse_mixed(func, name, args, tensors)
        on_cpu = False
        if kwargs.get("device") is not None:
            on_cpu = torch.device(kwargs["device"]).type == "cpu"
            kwargs["device"] = _CPU
        out = func(*pytree.tree_map(_held, args), **pytree.tree_map(_held, kwargs))
        if on_cpu and name == "_to_copy":
            _note("transfers_out", name)
            return out
        _note_operation(func, name, args)
        if on_cpu:
            return out
        return _wrapped(func, args, kwargs, out)


def unavailable() -> str | None:
    """Reason why there is no stand-in: this release of torch, or a real device; None if there is.

    The backward pass fails where both are known to torch.
    """
    if torch.cuda.is_available():
        return "there is a real accelerator; the stand-in is tested where there is none"
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        return f"torch {torch.__version__} has no devices written in Python"
    return None


def register() -> None:
    """Make the device known to torch, for the rest of the process."""
    if _libraries:
        return
    module = types.SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,  # random numbers come from the generator of the CPU
        get_rng_state=lambda device=0: torch.get_rng_state(),
        set_rng_state=lambda state, device=0: None,
        get_amp_supported_dtype=lambda: [torch.bfloat16],
    )
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
    library = torch.library.Library("aten", "IMPL")
    for name, op in _factories():
        library.impl(name, _on_cpu(op), "PrivateUse1")
    library.impl("_copy_from", lambda *args: _copy("_copy_from", *args), "PrivateUse1")
    _libraries.append(library)


@contextmanager
def count() -> Iterator[Traffic]:
    """Count what the device is asked to do in the context."""
    traffic = Traffic()
    _counting.append(traffic)
    try:
        yield traffic
    finally:
        _counting.remove(traffic)


def _note(kind: str, name: str) -> None:
    for traffic in _counting:
        traffic.note(kind, name)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, StandIn) else value


def _copy(name: str, *args: Any) -> Tensor:
    """Copy between devices or on one: ``copy_(to, from)`` or ``_copy_from(from, to)``."""
    to, source = args[:2] if name == "copy_" else (args[1], args[0])
    if isinstance(to, StandIn) == isinstance(source, StandIn):
        _note("launches", name)
    else:
        _note("transfers_in" if isinstance(to, StandIn) else "transfers_out", name)
    _held(to).copy_(_held(source))
    return to


def _refuse_mixed(func: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raise for tensors on both devices; numbers and indices may be on the CPU, as with CUDA."""
    here = [t for t in tensors if not isinstance(t, StandIn) and t.dim() > 0]
    if name in _INDEXING and isinstance(args[0], StandIn):
        for index in args[1]:
            if index is not None and not isinstance(index, StandIn):
                _note("transfers_in", name)
        here = [t for t in args[2:3] if not isinstance(t, StandIn) and t.dim() > 0]
    if here:
        shapes = [tuple(tensor.shape) for tensor in here]
        raise RuntimeError(f"{func}: tensors on {NAME}:0 meet tensors {shapes} on the CPU")


def _note_operation(func: Any, name: str, args: Any) -> None:
    if name in _FREE or _is_view(func):
        return
    _note("launches", name)
    waits = name in _SYNCHRONIZING
    if name in _INDEXING:  # a mask has as many indices as it has ones; filling counts none
        fills = len(args) > 2 and args[2].dim() == 0
        waits = not fills and any(i is not None and i.dtype == torch.bool for i in args[1])
    if waits:
        _note("synchronizations", name)


@cache
def _is_view(func: Any) -> bool:
    aliases = [r.alias_info for r in func._schema.returns if r.alias_info is not None]
    return bool(aliases) and not any(alias.is_write for alias in aliases)


def _wrapped(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    """Results as tensors of the device; what was written to is returned itself."""
    given = {id(_held(t)): t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, StandIn)}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in given:
            return StandIn(value)
        if given[id(value)].shape != value.shape:
            raise NotImplementedError(f"{func} changes the shape of a tensor on {NAME}")
        return given[id(value)]

    return pytree.tree_map(wrap, out)


def _factories() -> Iterator[tuple[str, Any]]:
    """Operations that make a tensor on a device from none."""
    for full in torch._C._dispatch_get_all_op_names():
        space, _, name = full.partition("::")
        if space != "aten":
            continue
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if op is None or not _is_factory(op._schema):
            continue
        if not torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd"):
            yield name, op


def _is_factory(schema: Any) -> bool:
    takes = [str(argument.type) for argument in schema.arguments]
    gives = [str(value.type) for value in schema.returns]
    names = [argument.name for argument in schema.arguments]
    return gives == ["Tensor"] and "device" in names and not any("Tensor" in t for t in takes)


def _on_cpu(op: Any) -> Callable[..., StandIn]:
    def make(*args: Any, **kwargs: Any) -> StandIn:
        kwargs.pop("pin_memory", None)
        if op.overloadpacket.__name__ not in _ALLOCATING:
            _note("launches", op.overloadpacket.__name__)
        return StandIn(op(*args, **{**kwargs, "device": _CPU}))

    return make
