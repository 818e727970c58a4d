"""Objects of the package as plain data: JSON, arrays, and a list of what is not theirs.

Pickles and saved folders are two ways to store the same plain data. An object appears once,
however many others refer to it, and so does the memory of an array.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import dataclasses
import importlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Bunch
from torch import Tensor

from skboundary._sample_array import SampleArray

State = dict[str, Any]
Class = TypeVar("Class", bound=type)

_DICTS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "Bunch": lambda items: Bunch(**dict(items)),
}
_DTYPES = {str(v)[6:]: v for v in vars(torch).values() if isinstance(v, torch.dtype)}
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Codec(NamedTuple):
    """How objects of a class are taken apart into a state, and put together again."""

    name: str
    take: Callable[[Any], State]
    make: Callable[[State], Any]


_PACKAGES = ("networks", "neighbors", "boundary", "over_sampling")
_CODECS: dict[type, Codec] = {}
_CLASSES: dict[str, type] = {}


def storable(cls: Class) -> Class:
    """Decorate a class whose objects are stored as plain data.

    The state of a named tuple and of a dataclass are its fields. Other objects have the methods
    `_stored_state` and `_restore` of `StoredStateMixin`.
    """
    if hasattr(cls, "_fields"):
        names = set(cls._fields)
        register(cls, lambda obj: obj._asdict(), lambda state: cls(**_of_names(state, names)))
    elif dataclasses.is_dataclass(cls):
        names = {field.name for field in dataclasses.fields(cls)}
        register(cls, _fields_of, lambda state: cls(**_of_names(state, names)))
    else:
        register(cls, lambda obj: obj._stored_state(), lambda state: _restored(cls, state))
    return cls


def register(
    cls: type,
    take: Callable[[Any], State],
    make: Callable[[State], Any],
    name: str | None = None,
) -> None:
    """Store objects of exactly this class as plain data.

    Parameters
    ----------
    cls : type
    take : callable
        Returns the state of an object, a dict.
    make : callable
        Returns the object with a state, and raises a ValueError for one that is not possible.
    name : str, default=None
        The name of the class in the data; None is the one in its definition.
    """
    name = cls.__name__ if name is None else name
    assert name not in _CLASSES, name
    _CODECS[cls], _CLASSES[name] = Codec(name, take, make), cls


def register_estimator(cls: Any, name: str | None = None) -> None:
    """Store estimators of exactly this class as plain data, attribute by attribute."""

    def make(state: State) -> Any:
        check_attributes(cls, state)
        estimator = cls.__new__(cls)
        estimator.__dict__.update(state)
        return estimator

    register(cls, lambda estimator: dict(vars(estimator)), make, name)


def storable_classes() -> dict[str, type]:
    """Classes whose objects are stored as plain data, by name: all of the package's."""
    for package in _PACKAGES:
        importlib.import_module(f"skboundary.{package}")
    return _CLASSES


def _restored(cls: Any, state: State) -> Any:
    check_attributes(cls, state)
    obj = cls.__new__(cls)
    obj._restore(state)
    return obj


def _fields_of(obj: Any) -> State:
    return {field.name: getattr(obj, field.name) for field in dataclasses.fields(obj)}


def _of_names(state: State, names: set[str]) -> State:
    if set(state) != names:
        raise ValueError(f"it has the fields {sorted(state)} instead of {sorted(names)}")
    return state


def check_attributes(cls: Any, state: State) -> None:
    """Raise a ValueError for attributes that would hide those of the class, or lack parameters."""
    hidden = [name for name in state if not name.isidentifier() or hasattr(cls, name)]
    if hidden:
        raise ValueError(f"{hidden} are not attributes of an instance")
    names = cls._get_param_names() if issubclass(cls, BaseEstimator) else []
    missing = [name for name in names if name not in state]
    if missing:
        raise ValueError(f"it lacks the parameters {missing}")


# ----------------------------------------------------------------------------------- encoder


class Foreign(NamedTuple):
    """An object that is not stored as plain data."""

    name: str  # that of the parameter if it is one, as in `get_params`
    path: str  # attribute by attribute
    value: Any


class Encoder:
    """Turn objects into plain data.

    Parameters
    ----------
    estimator : object
        Its parameters give foreign objects their names.
    is_foreign : callable, default=None
        Maps a path and a value to whether the value is foreign, whatever its type.
    left_out : set of str
        Attributes of objects that are not stored.

    Attributes
    ----------
    objects : list of dict
        The class and the state of each object. It refers to earlier ones only.
    arrays : list of (str, ndarray)
        Their paths and values.
    foreign : list of Foreign
    """

    def __init__(
        self,
        estimator: Any,
        is_foreign: Callable[[str, Any], bool] | None = None,
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        named = [*_parameters(estimator)]
        self._names = {id(value): name for name, value in reversed(named)}
        self._is_foreign, self._left_out = is_foreign, left_out
        self.objects: list[dict[str, Any]] = []
        self.arrays: list[tuple[str, Any]] = []
        self.foreign: list[Foreign] = []
        self._known: dict[Any, tuple[Any, Any]] = {}  # a key to a value, kept alive, and its node
        self._open: set[int] = set()

    def encode(self, value: Any, path: str = "") -> Any:
        """Return the JSON of a value.

        Parameters
        ----------
        value : object
        path : str
            Names of attributes, joined by dots.
        """
        kind = type(value)
        if self._is_foreign is not None and self._is_foreign(path, value):
            return self._foreign(value, path, path.replace(".", "__"))
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if kind in (list, tuple):
            if any(callable(v) and not hasattr(v, "get_params") for v in value):
                return self._foreign(value, path)
            items = [self.encode(v, _join(path, str(i))) for i, v in enumerate(value)]
            return items if kind is list else {"tuple": items}
        if kind in (dict, OrderedDict, Bunch):
            pairs = [
                [self.encode(k, path), self.encode(v, _join(path, str(k)))]
                for k, v in value.items()
            ]
            return {"dict": pairs, "type": kind.__name__}
        return self._leaf(value, path)

    def _leaf(self, value: Any, path: str) -> Any:
        value = np.asarray(value) if isinstance(value, SampleArray) else value
        kind = type(value)
        if isinstance(value, torch.dtype):
            return {"dtype": str(value)[6:]}  # without "torch."
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, np.generic) and value.dtype.kind in "biufU":
            return {"scalar": self.encode(value.item()), "type": value.dtype.str}
        if isinstance(value, Tensor) and value.layout == torch.strided:
            if value.dtype != torch.bfloat16:
                return {"tensor": self._array(value.detach().cpu().numpy(), path)}
        if kind is np.ma.MaskedArray:
            masked: Any = value
            mask = np.ma.getmaskarray(masked)
            return {"masked": self.encode(masked.data, path), "mask": self.encode(mask, path)}
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                items = [self.encode(v, path) for v in value.ravel().tolist()]
                return {"objects": items, "shape": list(value.shape)}
            if value.dtype.kind in "biufcmMSU":
                return {"array": self._array(np.asarray(value), path)}
        if kind in _CODECS:
            return self._object(value, path)
        return self._foreign(value, path)

    def _array(self, array: Any, path: str) -> int:
        where = array.__array_interface__
        key = (where["data"][0], where["strides"], where["shape"], where["typestr"])
        if key not in self._known:
            self._known[key] = array, len(self.arrays)
            self.arrays.append((path, array))
        return int(self._known[key][1])

    def _object(self, value: Any, path: str) -> Any:
        if id(value) not in self._known:
            if id(value) in self._open:
                raise ValueError(f"{path} ({type(value).__name__}) contains itself.")
            self._open.add(id(value))
            codec = _CODECS[type(value)]
            state = codec.take(value).items()
            kept = ((name, v) for name, v in state if name not in self._left_out)
            encoded = {name: self.encode(v, _join(path, name)) for name, v in kept}
            self._known[id(value)] = value, {"ref": len(self.objects)}
            self.objects.append({"class": codec.name, "state": encoded})
            self._open.remove(id(value))
        return self._known[id(value)][1]

    def _foreign(self, value: Any, path: str, name: str | None = None) -> Any:
        if id(value) not in self._known:
            name = self._names.get(id(value), path) if name is None else name
            self._known[id(value)] = value, {"foreign": len(self.foreign)}
            self.foreign.append(Foreign(name, path, value))
        return self._known[id(value)][1]


def _parameters(estimator: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of parameters, also of estimators inside a FrozenEstimator."""
    for name, value in getattr(estimator, "get_params", dict)().items():
        yield prefix + name, value
        if isinstance(value, FrozenEstimator):
            yield from _parameters(value.estimator, f"{prefix}{name}__estimator__")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


# ----------------------------------------------------------------------------------- decoder


class Decoder:
    """Turn plain data into objects.

    Parameters
    ----------
    objects : list of dict
        As from `Encoder`.
    array, foreign : callable
        Return array number i and foreign object number i.

    Raises
    ------
    ValueError, TypeError, KeyError, IndexError
        For data that no encoder returns.

    Attributes
    ----------
    built : list of object
    """

    def __init__(
        self,
        objects: Sequence[Mapping[str, Any]],
        array: Callable[[int], Any],
        foreign: Callable[[int], Any],
    ) -> None:
        self._array, self._foreign = array, foreign
        self.built: list[Any] = []
        for number, entry in enumerate(objects):
            name = entry["class"]
            if name not in _CLASSES and name not in storable_classes():
                raise ValueError(f"the class {name!r} is not one of those that can be loaded")
            state = {key: self.decode(node) for key, node in entry["state"].items()}
            try:
                self.built.append(_CODECS[_CLASSES[name]].make(state))
            except ValueError as error:
                raise ValueError(f"object {number}, of class {name}: {error}") from error

    def decode(self, node: Any) -> Any:
        """Return the value of a JSON node."""
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        kind = next((key for key in node if key in _READERS), None)
        if kind is None:
            raise ValueError(f"a value has the keys {[*node]}, none of which is a kind of value")
        return _READERS[kind](self, node)

    def _reference(self, node: Any) -> Any:
        return _at(self.built, node["ref"])

    def _dict(self, node: Any) -> Any:
        items = [(self.decode(key), self.decode(value)) for key, value in node["dict"]]
        return _DICTS[node["type"]](items)

    def _objects(self, node: Any) -> Any:
        items = [self.decode(item) for item in node["objects"]]
        array = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):  # all at once, sequences would become axes
            array[i] = item
        return array.reshape(node["shape"])

    def _masked(self, node: Any) -> Any:
        data, mask = self.decode(node["masked"]), self.decode(node["mask"])
        return np.ma.MaskedArray(data, mask)

    def _scalar(self, node: Any) -> Any:
        value, dtype = self.decode(node["scalar"]), np.dtype(node["type"])
        if dtype.kind == "U" and isinstance(value, str):
            return np.str_(value)
        if dtype.kind not in "biuf":
            raise ValueError(f"{value!r} is not a number or a string of dtype {dtype}")
        return np.array(value, dtype)[()]


def _at(values: list[Any], index: Any) -> Any:
    if type(index) is not int or not 0 <= index < len(values):
        raise ValueError(f"{index!r} is not the number of one of the {len(values)} objects before")
    return values[index]


_READERS: dict[str, Callable[[Decoder, Any], Any]] = {
    "float": lambda decoder, node: _FLOATS[node["float"]],
    "tuple": lambda decoder, node: tuple(decoder.decode(node["tuple"])),
    "dict": Decoder._dict,
    "dtype": lambda decoder, node: _DTYPES[node["dtype"]],
    "device": lambda decoder, node: torch.device(node["device"]),
    "scalar": Decoder._scalar,
    "array": lambda decoder, node: decoder._array(node["array"]),
    "tensor": lambda decoder, node: torch.from_numpy(decoder._array(node["tensor"])),
    "masked": Decoder._masked,
    "objects": Decoder._objects,
    "ref": Decoder._reference,
    "foreign": lambda decoder, node: decoder._foreign(node["foreign"]),
}


def _of_random_state(state: State) -> np.random.RandomState:
    position = state["state"]["pos"]
    if state["bit_generator"] != "MT19937" or type(position) is not int:
        raise ValueError("it is not the state of an MT19937")
    if not 0 <= position <= 624:  # numpy would read outside of its memory
        raise ValueError(f"its position is {position}, and the largest is 624")
    random_state = np.random.RandomState()
    random_state.set_state(state)
    return random_state


register(np.random.RandomState, lambda r: r.get_state(legacy=False), _of_random_state)
