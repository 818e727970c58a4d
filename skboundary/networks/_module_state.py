"""State of torch modules: evaluation mode, locks, frozen parameters, copies on other devices."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn


class Tree(NamedTuple):
    """A module and its submodules in the order of `nn.Module.modules`, and their tensors."""

    modules: list[nn.Module]
    parameters: list[Tensor]
    tensors: list[Tensor]  # parameters and then buffers


def tree_of(root: nn.Module) -> Tree:
    """Traverse a module once, which is faster than `modules`, `parameters` and `buffers`."""
    found: dict[nn.Module, None] = {}
    ahead: list[nn.Module | None] = [root]
    while ahead:
        module = ahead.pop()
        if module is not None and module not in found:
            found[module] = None
            if module._modules:
                ahead += reversed([*module._modules.values()])
    with_parameters = [m._parameters for m in found if m._parameters]
    parameters: list[Tensor] = [p for d in with_parameters for p in d.values() if p is not None]
    with_buffers = [m._buffers for m in found if m._buffers]
    buffers = [b for d in with_buffers for b in d.values() if b is not None]
    return Tree(list(found), parameters, parameters + buffers)


# ------------------------------------------------------------------------------------------ locks


_NUMBERS = itertools.count()


class _Lock:
    def __init__(self) -> None:
        self.number = next(_NUMBERS)  # locks are acquired in this order, which prevents deadlocks
        self.lock = threading.RLock()


_GUARD = threading.Lock()
# Hooks, flags and copies belong to a module, not to a thread. A module shares its lock with the
# modules below it, so networks that have a module in common have a lock in common. By id, which
# is faster than a WeakKeyDictionary; entries are removed with their modules.
_LOCKS: dict[int, _Lock] = {}
_REFERENCES: dict[int, ref[nn.Module]] = {}


def _locks_of(modules: list[nn.Module]) -> list[_Lock]:
    locks = set(map(_LOCKS.get, map(id, modules)))
    if None in locks:
        with _GUARD:
            own = _LOCKS.get(id(modules[0])) or _Lock()
            for module in modules:
                if id(module) not in _LOCKS:
                    _REFERENCES[id(module)] = ref(module, _forget(id(module)))
                    _LOCKS[id(module)] = own
            locks = {_LOCKS[id(module)] for module in modules}
    return sorted((lock for lock in locks if lock is not None), key=attrgetter("number"))


def _forget(key: int) -> Any:
    def remove(_: Any) -> None:
        _LOCKS.pop(key, None)
        _REFERENCES.pop(key, None)

    return remove


@contextmanager
def _locked(modules: list[nn.Module]) -> Iterator[None]:
    """Let one thread at a time use these modules."""
    with ExitStack() as stack:
        for lock in _locks_of(modules):
            stack.enter_context(lock.lock)
        yield


@contextmanager
def evaluation_mode(*trees: Tree, frozen: bool = False) -> Iterator[None]:
    """Set modules to evaluation mode and lock them; flags are restored in any case.

    Parameters
    ----------
    *trees : Tree
    frozen : bool, default=False
        Whether parameters require no gradients in the context, for derivatives with respect to
        the input.
    """
    modules = [module for tree in trees for module in tree.modules]
    with _locked(modules):
        flags = [module.training for module in modules]
        parameters = [p for tree in trees for p in tree.parameters] if frozen else []
        thawed = [p for p in parameters if p.requires_grad]
        try:
            if any(flags):
                for module in modules:
                    module.training = False  # not .eval(), which a module may have overridden
            for p in thawed:
                p.requires_grad_(False)
            yield
        finally:
            if [module.training for module in modules] != flags:
                for module, flag in zip(modules, flags, strict=True):
                    module.training = flag
            for p in thawed:
                p.requires_grad_(True)


# ----------------------------------------------------------------------------------------- copies

# Copies of modules on other devices, with the contents of the modules when they were copied.
_COPIES: WeakKeyDictionary[nn.Module, dict[torch.device, tuple[Any, nn.Module]]]
_COPIES = WeakKeyDictionary()


def placed(module: nn.Module, device: torch.device) -> tuple[nn.Module, Tree]:
    """Return the module itself if it is on the device, otherwise a copy that is kept there.

    The copy is updated if the module has changed: weights modified in place or replaced, or
    attributes set. Weights created in inference mode are copied as well, because they do not
    propagate gradients.

    Parameters
    ----------
    module : nn.Module
    device : torch.device

    Returns
    -------
    module : nn.Module
    tree : Tree
    """
    tree = tree_of(module)
    if _is_on(tree, device):
        return module, tree
    with _locked(tree.modules):
        state, copies = _contents(tree), _COPIES.setdefault(module, {})
        if device not in copies or copies[device][0] != state:
            with torch.inference_mode(False):
                copies[device] = state, copy.deepcopy(module).to(device)
        other = copies[device][1]
    return other, tree_of(other)


def _is_on(tree: Tree, device: torch.device) -> bool:
    tensors = tree.tensors
    if any(map(Tensor.is_inference, tensors)):
        return False
    if device.type == "cpu":  # devices are slow to compare
        return all(map(attrgetter("is_cpu"), tensors))
    return all(t.device == device for t in tensors)


def on_device(module: nn.Module, device: torch.device) -> nn.Module:
    """The module of `placed`."""
    return placed(module, device)[0]


def _contents(tree: Tree) -> list[Any]:
    """Contents of a module, which differ if its weights or attributes have changed."""
    tensors = [  # tensors created in inference mode have no version counter
        (t.data_ptr(), t.sum().item() if t.is_inference() else t._version) for t in tree.tensors
    ]
    attributes = [
        (key, value if isinstance(value, (str, int, float, type(None))) else id(value))
        for part in tree.modules
        for key, held in vars(part).items()
        if key != "training"
        for value in (held.values() if isinstance(held, dict) else [held])
    ]
    return [tensors, attributes]
