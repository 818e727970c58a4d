"""A digest of what an object computes: its data by value, the user's code by its content."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import collections
import enum
import functools
import hashlib
import re
import sys
import types
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
import torch
from scipy import sparse
from sklearn.neighbors import BallTree, KDTree
from sklearn.utils import Bunch
from torch import Tensor, nn

from skboundary._callbacks import CALLBACK_ATTRIBUTES
from skboundary.networks._code import (
    NOT_CODE,
    globals_named_by,
    is_installed,
    is_installed_file,
    is_installed_module,
    static_attribute,
    version_of,
)

_ATOMS = {type(None), bool, int, float, complex, str, bytes, range, type(...)}
_ATOMS |= {type(NotImplemented), torch.dtype, torch.device, torch.layout, torch.memory_format}
_ARRAYS = (np.ndarray, np.memmap)  # joblib hands large arrays to its workers as memory maps
_STATISTICS_OF_A_TREE = slice(7, 11)  # of the state of KDTree and BallTree: queries change them

# What a digest is fed with: bytes, or the step of a path and the object that it leads to.
Content = Iterator[bytes | memoryview | tuple[str, Any]]


def digest(**parts: Any) -> str:
    """Name what objects compute, the same in every process.

    Data count by value. Functions and classes count by their content: bytecode, constants,
    defaults, closures and the values of the globals that they name. Those of installed
    packages, whose files nobody edits, go by qualified name and version.

    Parameters
    ----------
    **parts : object
        Each under the name that an error calls it by.

    Returns
    -------
    key : str
        A sha256, in hexadecimal digits.

    Raises
    ------
    ValueError
        That names the object whose content cannot be read.
    """
    walk = Walk()
    whole = hashlib.sha256()
    for name, part in parts.items():
        try:
            whole.update(name.encode() + walk.digest(name, part))
        except RecursionError:
            raise walk.refusal(part, "it is nested too deeply", [name]) from None
    return whole.hexdigest()


class Walk:
    """Digests of objects, each made once from the digests of what it holds.

    An object that holds itself is named, inside itself, by its depth and by the order in which
    such objects are met.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, bytes]] = {}  # the object too: its id must stay taken
        self.depth: dict[int, int] = {}
        self.cycles: dict[int, bytes] = {}
        self.path: list[str] = []

    def digest(self, step: str, obj: Any) -> bytes:
        if type(obj) in _ATOMS:
            return hashlib.sha256(f"{type(obj).__name__} {obj!r}".encode()).digest()
        if id(obj) in self.known:
            return self.known[id(obj)][1]
        if id(obj) in self.depth:
            name = f"cycle {len(self.cycles)} {self.depth[id(obj)]}"
            return self.cycles.setdefault(id(obj), hashlib.sha256(name.encode()).digest())
        self.depth[id(obj)] = len(self.depth)
        self.path.append(step)
        whole = hashlib.sha256()
        try:
            for part in self.content(obj):
                if isinstance(part, tuple):
                    whole.update(f"object {len(part[0])} {part[0]}".encode() + self.digest(*part))
                else:
                    whole.update(f"bytes {len(part)} ".encode())
                    whole.update(part)
        finally:
            del self.depth[id(obj)]
            self.path.pop()
        self.known[id(obj)] = obj, whole.digest()
        return self.known[id(obj)][1]

    def refusal(self, obj: Any, why: str, path: list[str] | None = None) -> ValueError:
        where = "".join(self.path if path is None else path)
        return ValueError(
            f"memory cannot determine what {where} computes: {why} ({type(obj).__name__}). Give "
            "the network a name with memory_key='...', which then stands for its code and "
            "attributes, or set memory=None."
        )

    def content(self, obj: Any) -> Content:
        """Yield the contents that identify an object."""
        kind = type(obj)
        if kind in (list, tuple, torch.Size):
            yield kind.__name__.encode()
            yield from ((f"[{i}]", value) for i, value in enumerate(obj))
        elif kind in (dict, types.MappingProxyType, collections.OrderedDict, Bunch):
            yield b"mapping"
            for key, value in obj.items():
                yield "", key
                yield f"[{key!r}]" if type(key) in _ATOMS else "[...]", value
        elif isinstance(obj, nn.Module):
            yield from self.of_network(obj)
        elif isinstance(obj, Tensor):
            yield from self.of_tensor(obj)
        elif isinstance(obj, type):
            yield from self.of_class(obj)
        elif isinstance(obj, types.ModuleType):
            yield from self.of_module(obj)
        elif isinstance(obj, types.FunctionType):
            yield from self.of_function(obj)
        elif isinstance(obj, types.CodeType):
            yield from self.of_code(obj)
        else:
            yield from self.of_callable(obj)

    def of_callable(self, obj: Any) -> Content:
        """Content of a callable or descriptor that is not a function, else of a value."""
        kind = type(obj)
        if isinstance(obj, types.BuiltinFunctionType | types.MethodWrapperType):
            module = getattr(obj, "__module__", None) or ""
            yield f"builtin {module}.{obj.__qualname__} {version_of(module)}".encode()
            yield ".__self__", obj.__self__
        elif isinstance(obj, types.MethodType):
            yield b"method"
            yield ".__self__", obj.__self__
            yield "", obj.__func__
        elif isinstance(obj, np.ufunc):
            yield from self.of_ufunc(obj)
        elif isinstance(obj, functools.partial):
            yield b"partial"
            yield ".__class__", kind
            yield ".func", obj.func
            yield ".args", obj.args
            yield ".keywords", obj.keywords
        elif isinstance(obj, property):
            yield b"property"
            yield ".__class__", kind
            yield "", (obj.fget, obj.fset, obj.fdel)
        elif isinstance(obj, functools.cached_property):
            yield b"cached property"
            yield ".__class__", kind
            yield "", obj.func
        elif isinstance(obj, staticmethod | classmethod):
            yield b"static or class method"
            yield ".__class__", kind
            yield "", obj.__func__
        elif isinstance(obj, functools._lru_cache_wrapper):
            yield b"cached"
            yield "", obj.__wrapped__
        elif isinstance(obj, _DESCRIPTORS):
            yield f"descriptor {obj.__name__}".encode()
            yield "", obj.__objclass__
        else:
            yield from self.of_value(obj)

    def of_value(self, obj: Any) -> Content:
        """Content of a value of Python, numpy, scipy or scikit-learn, else of an instance."""
        kind = type(obj)
        if kind is slice:
            yield b"slice"
            yield "", (obj.start, obj.stop, obj.step)
        elif isinstance(obj, types.CellType):
            yield b"cell"
            yield from _contents(obj)
        elif isinstance(obj, weakref.ref):
            yield b"weak reference"
            yield "", obj()
        elif isinstance(obj, np.ma.MaskedArray):
            yield b"masked"
            yield "", (obj.data, obj.mask, obj.fill_value)
        elif isinstance(obj, np.ndarray):
            yield from self.of_array(obj)
        elif isinstance(obj, np.dtype):
            yield f"dtype {obj!r}".encode()
        elif isinstance(obj, np.generic):
            yield b"scalar"
            yield "", np.asarray(obj)
        elif sparse.issparse(obj):
            matrix = obj.tocsr(copy=True)
            matrix.sum_duplicates()  # the flags of the original tell what was done with it
            yield f"sparse {kind.__name__} {obj.shape}".encode()
            yield "", (matrix.data, matrix.indices, matrix.indptr)
        elif isinstance(obj, KDTree | BallTree):
            state = list(obj.__getstate__())
            del state[_STATISTICS_OF_A_TREE]
            yield kind.__name__.encode()
            yield "", state
        elif isinstance(obj, enum.Enum):
            yield b"enum"
            yield "", (kind, obj.name, obj.value)
        elif isinstance(obj, re.Pattern):
            yield b"pattern"
            yield "", (obj.pattern, obj.flags)
        elif kind in (set, frozenset):
            yield b"set"
            yield b"".join(sorted(self.digest("{...}", value) for value in obj))
        elif any(cls.__module__ == "skorch.net" for cls in kind.__mro__):
            yield b"skorch"  # its state for pickle holds bytes of another pickle
            yield ".__class__", kind
            yield from self.of_attributes(kind, vars(obj))
        else:
            yield from self.of_instance(obj)

    def of_instance(self, obj: Any) -> Content:
        kind = type(obj)
        yield b"instance"
        yield ".__class__", kind
        own = not is_installed(kind) and hasattr(obj, "__dict__")
        if own:  # a __getstate__ of the user's may leave out what counts
            yield from self.of_attributes(kind, vars(obj))
        try:
            reduced = obj.__reduce_ex__(4)
        except Exception:
            if own and any(
                static_attribute(kind, name) is not vars(object)[name] for name in _PICKLING
            ):
                return  # the user's own code refuses to be pickled
            raise self.refusal(obj, "its content cannot be read") from None
        if isinstance(reduced, str):
            name = getattr(obj, "__module__", None) or kind.__module__
            found = is_installed_module(name) and static_attribute(sys.modules[name], reduced)
            if not own and found is not obj:
                raise self.refusal(obj, "its content cannot be read")
            yield f"{name}.{reduced} {version_of(name)}".encode()
            return
        function, args, state, items, pairs = [*reduced, None, None, None][:5]
        yield "", function
        yield "", args
        if isinstance(state, dict) and all(isinstance(name, str) for name in state):
            yield from self.of_attributes(kind, state)
        else:
            yield "", state
        yield "", None if items is None else list(items)
        yield "", None if pairs is None else list(pairs)

    def of_attributes(self, kind: type, attributes: Mapping[str, Any]) -> Content:
        for name in sorted(attributes.keys() - CALLBACK_ATTRIBUTES):
            if not isinstance(static_attribute(kind, name), functools.cached_property):
                yield f".{name}", attributes[name]

    def of_network(self, module: nn.Module) -> Content:
        attributes = dict(vars(module))
        order = [*module._forward_hooks, *module._forward_pre_hooks]
        for name, value in vars(module).items():
            # hooks count in their order: what names them numbers them in this process
            if name in _FLAGS_OF_HOOKS:
                attributes[name] = [n for n, hook in enumerate(order) if hook in value]
            elif name.endswith("_hooks") and isinstance(value, dict):
                attributes[name] = list(value.values())
            else:
                continue
            if not value:
                del attributes[name]
        if isinstance(module, torch.fx.GraphModule):
            attributes.pop("_graph", None)  # its forward was made from it
        yield b"network"
        yield ".__class__", type(module)
        for group in ("_parameters", "_buffers", "_modules"):
            yield group.encode()
            yield from ((f".{name}", part) for name, part in attributes.pop(group).items())
        yield from self.of_attributes(type(module), attributes)

    def of_tensor(self, tensor: Tensor) -> Content:
        yield f"tensor {tensor.dtype} {tuple(tensor.shape)}".encode()
        if not isinstance(tensor, nn.Parameter) and type(tensor) is not Tensor:
            yield ".__class__", type(tensor)
            yield "", vars(tensor)
        try:
            flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
            yield flat.view(torch.uint8).numpy().data
        except (RuntimeError, NotImplementedError, TypeError):
            raise self.refusal(tensor, f"its layout is {tensor.layout}") from None

    def of_array(self, array: np.ndarray) -> Content:
        yield f"array {array.dtype.str} {array.shape}".encode()
        if type(array) not in _ARRAYS:
            yield ".__class__", type(array)
            yield "", vars(array) if hasattr(array, "__dict__") else None
        array = np.asarray(array)
        if array.dtype.names is not None:  # field by field: what lies between them is random
            yield from ((f"[{name!r}]", array[name]) for name in array.dtype.names)
        elif array.dtype.hasobject:
            yield "", array.ravel().tolist()
        else:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data

    def of_ufunc(self, function: np.ufunc) -> Content:
        for module in (np, scipy.special):
            if getattr(module, function.__name__, None) is function:
                name = module.__name__
                yield f"{name}.{function.__name__} {version_of(name)}".encode()
                return
        raise self.refusal(function, "neither numpy nor scipy.special has it by name")

    def of_class(self, cls: type) -> Content:
        if is_installed(cls):
            module = cls.__module__ if isinstance(cls.__module__, str) else "cython"
            yield f"{module}.{cls.__qualname__} {version_of(module)}".encode()
            return
        yield f"class {cls.__qualname__}".encode()
        yield ".__class__", type(cls)
        yield ".__bases__", cls.__bases__
        for name, value in sorted(vars(cls).items()):
            if name not in NOT_CODE:
                yield f".{name}", value

    def of_module(self, module: types.ModuleType) -> Content:
        file = getattr(module, "__file__", None)
        if is_installed_module(module.__name__):
            yield f"module {module.__name__} {version_of(module.__name__)}".encode()
        elif file is not None and not file.endswith(".py"):
            yield Path(file).read_bytes()  # an extension
        else:
            yield b"module"
            for name, value in sorted(vars(module).items()):
                if not (name.startswith("__") and name.endswith("__")):
                    yield f".{name}", value

    def of_function(self, function: types.FunctionType) -> Content:
        code = function.__code__
        installed = is_installed_file(code.co_filename)
        if installed and is_installed(function):
            name = f"{function.__module__}.{function.__qualname__}"
            yield f"{name} {version_of(function.__module__)}".encode()
            return
        yield f"function {function.__qualname__}".encode()
        yield "", code
        yield ".__defaults__", function.__defaults__
        yield ".__kwdefaults__", function.__kwdefaults__
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            yield f"<variable {name}>", cell
        if not installed:  # a closure that an installed function made names installed globals
            yield from self.of_attributes(types.FunctionType, vars(function))
            yield from globals_named_by(code, function.__globals__)

    def of_code(self, code: types.CodeType) -> Content:
        yield b"code"
        yield code.co_code
        yield getattr(code, "co_exceptiontable", b"")
        yield "", (code.co_flags, code.co_argcount, code.co_posonlyargcount)
        yield "", (code.co_kwonlyargcount, code.co_names, code.co_varnames)
        yield "", (code.co_freevars, code.co_cellvars)
        yield "<constants>", code.co_consts


_PICKLING = ("__reduce_ex__", "__reduce__", "__getstate__")
_DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
_FLAGS_OF_HOOKS = {
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks_with_kwargs",
}


def _contents(cell: types.CellType) -> Content:
    try:
        yield "", cell.cell_contents
    except ValueError:
        pass  # empty
