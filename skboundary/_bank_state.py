"""The file bank.json: what a bank holds, read with every field checked."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STATE_FILE = "bank.json"
_SCHEMA = 1
_ARRAYS = {"latent": (1, "biuf"), "outputs": (1, "f"), "labels": (0, "i")}  # axes, kinds
_DTYPES = {"bool", "float16", "float32", "float64"}
_DTYPES |= {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_METRICS = (None, "euclidean", "sqeuclidean", "cosine")
_LARGEST = 2**48


class Form(NamedTuple):
    """Dtype and shape of one sample of an array."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def header(self, n: int) -> bytes:
        """Begin of an npy file with n samples; of the same length for every n."""
        file, shape = io.BytesIO(), (n, *self.shape)
        description = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, description)
        return file.getvalue()

    def to_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype.name, "shape": [*self.shape]}

    @classmethod
    def of_json(cls, form: dict[str, Any]) -> Form:
        return cls(np.dtype(form["dtype"]), tuple(form["shape"]))


def form_of(name: str, array: NDArray[Any]) -> Form:
    """Form of an array to be stored, in native byte order.

    Raises
    ------
    ValueError
        For objects and strings, and for another number of axes.
    """
    axes, kinds = _ARRAYS[name]
    if array.ndim != axes + 1 or array.dtype.kind not in kinds or 0 in array.shape[1:]:
        raise ValueError(
            f"{name} of a bank must be numbers of shape "
            f"{'(n_samples, n)' if axes else '(n_samples,)'}, got dtype {array.dtype} and shape "
            f"{array.shape}."
        )
    return Form(array.dtype.newbyteorder("="), array.shape[1:])


def part_file(folder: Path, name: str, number: int) -> Path:
    """Path of the file of an array in a part."""
    return folder / f"{name}-{number:05d}.npy"


def new_state(**fields: Any) -> dict[str, Any]:
    """The description of a bank without samples."""
    return {"schema": _SCHEMA, **fields, "complete": False, "arrays": {}, "parts": []}


def read_state(folder: Path) -> dict[str, Any]:
    """Read and check bank.json.

    Raises
    ------
    ValueError
        If it is missing or not valid; names the file and the reason.
    """
    file = folder / STATE_FILE
    try:
        state = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"There is no bank in {folder}: {STATE_FILE} is missing. Give the folder that fit has "
            "written."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read ({error}).") from None
    check_state(state, file)
    return state


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace bank.json; a crash leaves the old file or the new one."""
    work = folder / f"{STATE_FILE}.unfinished"
    with open(work, "w", encoding="utf-8") as stream:
        json.dump(state, stream, indent=1, allow_nan=False)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(work, folder / STATE_FILE)
    if os.name != "nt":  # where folders cannot be opened
        entry = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def check_state(state: Any, file: Path) -> None:
    """Raise a ValueError that names the file and the field unless all fields are valid."""

    def need(valid: bool, reason: str) -> None:
        if not valid:
            raise ValueError(f"{file} is not valid: {reason}.")

    need(isinstance(state, dict), "it is no JSON object")
    schema = state.get("schema")
    need(
        type(schema) is int and schema == _SCHEMA,
        f"its schema is {schema!r}, and this version of skboundary reads schema {_SCHEMA}",
    )
    expected = {*new_state(), "metric", "digest", "classes", "layer", "pool", "link", "samples"}
    need(set(state) == expected, f"its fields are {sorted(state)}, not {sorted(expected)}")
    need(state["metric"] in _METRICS, f"metric is {state['metric']!r}")
    for name in ("digest", "pool", "link"):
        need(state[name] is None or type(state[name]) is str, f"{name} is {state[name]!r}")
    need(state["layer"] is None or type(state["layer"]) in (str, int), "layer is no name or number")
    need(type(state["complete"]) is bool, "complete is not true or false")
    need(_is_samples(state["samples"]), f"samples is {state['samples']!r}")
    need(_is_classes(state["classes"]), "classes are no sorted list of distinct labels")
    need(_is_arrays(state["arrays"]), f"arrays is {state['arrays']!r}")
    need(type(state["parts"]) is list, "parts is no list")
    need(bool(state["arrays"]) == bool(state["parts"]), "there are arrays without parts")
    stop = 0
    for i, part in enumerate(state["parts"]):
        need(_is_part(part, state["arrays"], stop), f"part {i} does not continue at {stop}: {part}")
        stop = part["stop"]


def classes_to_json(classes: Any) -> dict[str, Any] | None:
    """Describe labels that JSON can hold.

    Raises
    ------
    ValueError
        For labels other than Booleans, numbers and strings, and for unsorted ones.
    """
    if classes is None:
        return None
    array = np.asarray(classes)
    dtype = "object" if array.dtype == object else array.dtype.str
    description = {"dtype": dtype, "values": array.tolist()}
    if not _is_classes(description):
        raise ValueError(
            f"classes={array.tolist()[:10]} cannot be stored in a bank: sorted and distinct "
            "Booleans, numbers or strings can."
        )
    return description


def classes_from_json(classes: dict[str, Any] | None) -> NDArray[Any] | None:
    """Labels (n_classes,) of their description."""
    return None if classes is None else np.array(classes["values"], dtype=classes["dtype"])


def _is_classes(classes: Any) -> bool:
    if classes is None:
        return True
    if not isinstance(classes, dict) or set(classes) != {"dtype", "values"}:
        return False
    values, dtype = classes["values"], classes["dtype"]
    if type(values) is not list or not values or type(dtype) is not str:
        return False
    kinds = {type(value) for value in values}
    if len(kinds) > 1 or not kinds <= {bool, int, float, str}:
        return False
    if dtype == "object":
        return kinds == {str} and values == sorted(set(values))
    if not re.fullmatch(r"[<>|=][biufU]\d{1,4}", dtype):
        return False
    try:
        return np.array(values, dtype=dtype).tolist() == values == sorted(set(values))
    except (TypeError, ValueError, OverflowError):
        return False


def _is_samples(samples: Any) -> bool:
    if samples is None:
        return True
    if not isinstance(samples, dict) or set(samples) != {"shape", "dtype", "names"}:
        return False
    names = samples["names"]
    return (
        _is_shape(samples["shape"])
        and type(samples["dtype"]) is str
        and samples["dtype"] in {*_DTYPES, "object"}
        and (names is None or (type(names) is list and all(type(n) is str for n in names)))
    )


def _is_arrays(arrays: Any) -> bool:
    if not isinstance(arrays, dict) or not set(arrays) <= set(_ARRAYS):
        return False
    for name, form in arrays.items():
        axes, kinds = _ARRAYS[name]
        if not isinstance(form, dict) or set(form) != {"dtype", "shape"}:
            return False
        if not _is_shape(form["shape"]) or len(form["shape"]) != axes:
            return False
        dtype = form["dtype"]
        if type(dtype) is not str or dtype not in _DTYPES or np.dtype(dtype).kind not in kinds:
            return False
    return not arrays or "latent" in arrays


def _is_shape(shape: Any) -> bool:
    return type(shape) is list and all(type(n) is int and 0 < n < _LARGEST for n in shape)


def _is_part(part: Any, arrays: dict[str, Any], start: int) -> bool:
    if not isinstance(part, dict) or set(part) != {"start", "stop", "sha256", "samples"}:
        return False
    sums, samples = part["sha256"], part["samples"]
    return (
        type(part["start"]) is int
        and part["start"] == start
        and type(part["stop"]) is int
        and start < part["stop"] < _LARGEST
        and isinstance(sums, dict)
        and set(sums) == set(arrays)
        and all(_is_hex(value) for value in sums.values())
        and (samples is None or _is_hex(samples))
    )


def _is_hex(value: Any) -> bool:
    return type(value) is str and re.fullmatch(r"[0-9a-f]{64}", value) is not None
