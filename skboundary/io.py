"""Save estimators to a folder, and load them, without pickle."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from torch import nn

import skboundary
from skboundary._callbacks import CALLBACK_ATTRIBUTES
from skboundary._npy import read_npy, write_npy
from skboundary._plain import Decoder, Encoder, storable_classes
from skboundary._sample_array import SampleArray
from skboundary._saved._folder import (
    SCHEMA,
    canonical,
    check_folder,
    check_schema,
    file_named,
    new_folder,
    read_json,
)
from skboundary._saved._parts import PartReader, PartWriter
from skboundary._saved._probe import check_probe, probe
from skboundary.exceptions import SavedVersionWarning, warn_caller
from skboundary.neighbors._bank import Stored
from skboundary.networks._carrier import StoredStateMixin

__all__ = ["load", "save"]

_DOCUMENT = "estimator.json"
_KEYS = {"schema", "class", "versions", "estimator", "objects", "arrays", "parts", "probe"}


def save(estimator: Any, folder: str | os.PathLike[str]) -> list[str]:
    """Save an estimator of this package to a folder, without pickle.

    Read more in the :ref:`User Guide <persistence>`.

    Parameters
    ----------
    estimator : estimator
        Fitted or not. Subclasses of your own are not saved.
    folder : str or path-like
        A folder that does not exist or is empty. It appears complete, or not at all.

    Returns
    -------
    names : list of str
        What `load` must be given again, because it is code of yours: "module" for a network,
        and the names of parameters for its argument `objects`.

    Raises
    ------
    ValueError
        If the folder contains something, or the estimator cannot be saved.
    TypeError
        If it is not an estimator of this package.
    ImportError
        Without the packages of the extra ``skboundary[io]``, where they are needed.

    See Also
    --------
    load : Load it again.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import LatentKNNClassifier
    >>> from skboundary.io import load, save
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = LatentKNNClassifier(random_state=0).fit(X, y)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     save(clf, f"{parent}/classifier")
    ...     other = load(f"{parent}/classifier")
    []
    >>> bool((other.predict_proba(X) == clf.predict_proba(X)).all())
    True
    """
    _check_class(estimator)
    encoder = Encoder(estimator, _is_file, CALLBACK_ATTRIBUTES)
    root = encoder.encode(estimator)
    with new_folder(Path(folder)) as unfinished:
        writer = PartWriter(unfinished)
        document = {
            "schema": SCHEMA,
            "class": type(estimator).__name__,
            "versions": _versions(),
            "estimator": root,
            "objects": encoder.objects,
            "arrays": [_write_array(unfinished, i, *item) for i, item in enumerate(encoder.arrays)],
            "probe": probe(estimator),
            "parts": [writer.write(i, part) for i, part in enumerate(encoder.foreign)],
        }
        (unfinished / _DOCUMENT).write_bytes(canonical(document))
    return writer.asked_for


def load(
    folder: str | os.PathLike[str],
    module: nn.Module | None = None,
    trusted: Sequence[str] = (),
    objects: Mapping[str, Any] | None = None,
) -> Any:
    """Load an estimator that `save` has written.

    All files are compared with their hashes first. No name in the folder is imported, except
    the classes of scikit-learn, numpy and scipy that skops allows and the names in `trusted`.

    Read more in the :ref:`User Guide <persistence>` and about :ref:`security`.

    Parameters
    ----------
    folder : str or path-like
    module : torch.nn.Module, default=None
        The network, if there was one of yours. A copy of it gets the saved weights; names, shapes
        and dtypes of its state dict must be those of the saved one.
    trusted : sequence of str, default=()
        Names of classes and functions that skops may import, such as
        ``"sklearn.tree._tree.Tree"``. Their code runs.
    objects : mapping of str to object, default=None
        Other objects of yours, by the names that `save` has returned.

    Returns
    -------
    estimator : estimator
        On the saved device if this machine has it.

    Raises
    ------
    ValueError
        That names the file and the reason: a file that is missing, additional or changed; another
        schema; a class or a name that is not allowed; content that no estimator has; objects
        that are missing, not asked for, or do not match; and a network with other outputs than
        when it was saved.
    ImportError
        Without the packages of the extra ``skboundary[io]``, where they are needed.

    Warns
    -----
    SavedVersionWarning
        If the versions of the packages are others than when it was saved.
    DeviceWarning
        If this machine lacks the device.

    See Also
    --------
    save : Save an estimator.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder.")
    if isinstance(trusted, str):
        raise TypeError(f"trusted={trusted!r} is one name: give a list, [{trusted!r}].")
    files = check_folder(path)
    document = read_json(path / _DOCUMENT)
    if not isinstance(document, dict) or set(document) != _KEYS:
        raise ValueError(f"{_DOCUMENT}: it does not describe an estimator.")
    check_schema(_DOCUMENT, document["schema"])
    _warn_of_versions(document["versions"])
    try:
        return _build(files, document, module, trusted, dict(objects or {}))
    except (ValueError, ImportError):
        raise
    except Exception as error:  # whatever wrong content leads to
        raise ValueError(
            f"{_DOCUMENT}: no estimator has this content ({type(error).__name__}: {error})."
        ) from error


def _build(
    files: dict[str, Path],
    document: dict[str, Any],
    module: nn.Module | None,
    trusted: Sequence[str],
    objects: dict[str, Any],
) -> Any:
    parts = PartReader(files, document["parts"], module, trusted, objects)
    array = cache(lambda i: _read_array(files, document["arrays"], i))
    try:
        decoder = Decoder(document["objects"], array, parts)
        estimator = decoder.decode(document["estimator"])
        for built in decoder.built:
            if isinstance(built, StoredStateMixin):
                built._validate_params()
        if type(estimator).__name__ != document["class"]:
            raise ValueError(f"the estimator is not a {document['class']}.")
        _check_class(estimator)
        check_probe(estimator, document["probe"])
    except ValueError as error:
        named = re.match(r"[\w./-]+\.(json|npy|skops|safetensors): ", str(error))
        raise error if named else ValueError(f"{_DOCUMENT}: {error}") from error
    return estimator


def _check_class(estimator: Any) -> None:
    names = [name for name, cls in storable_classes().items() if issubclass(cls, StoredStateMixin)]
    if type(estimator) is not storable_classes().get(type(estimator).__name__) or (
        type(estimator).__name__ not in names
    ):
        public = sorted(name for name in names if not name.startswith("_"))
        raise TypeError(
            f"{type(estimator).__name__} cannot be saved; the estimators that can are "
            f"{', '.join(public)}. From a pipeline or a search, save the fitted estimator "
            "inside."
        )


def _is_file(path: str, value: Any) -> bool:
    """Whether a value has files of its own, or is a place here, which no folder may choose."""
    is_place = value is not None and path.rpartition(".")[2] in ("memory", "bank")
    return is_place or isinstance(value, (Stored, SampleArray))


def _versions() -> dict[str, str]:
    packages = {"skboundary": skboundary, "numpy": np, "scikit-learn": sklearn, "torch": torch}
    versions = {name: str(package.__version__) for name, package in packages.items()}
    return {**versions, "python": platform.python_version()}


def _warn_of_versions(saved: Any) -> None:
    now = _versions()
    if not isinstance(saved, dict) or set(saved) != set(now):
        raise ValueError(f"{_DOCUMENT}: its versions are not those of {', '.join(now)}.")
    other = [f"{name} {saved[name]} (now {now[name]})" for name in now if saved[name] != now[name]]
    if other:
        warn_caller(
            f"The estimator was saved with {', '.join(other)}. Its results may differ.",
            SavedVersionWarning,
        )


def _write_array(folder: Path, number: int, path: str, array: Any) -> dict[str, Any]:
    name = re.sub(r"\W+", "-", path, flags=re.ASCII).strip("-_")[-60:]
    file = f"arrays/{number:03d}-{name}.npy"
    (folder / "arrays").mkdir(exist_ok=True)
    with open(folder / file, "wb") as out:
        write_npy(out, array)
    return {"file": file, "dtype": array.dtype.str, "shape": list(array.shape)}


def _read_array(files: dict[str, Path], arrays: Any, number: Any) -> Any:
    if type(number) is not int or not 0 <= number < len(arrays):
        raise ValueError(f"{number!r} is not the number of one of {len(arrays)} arrays")
    described = arrays[number]
    name = described["file"]
    path = file_named(files, name)
    try:
        with open(path, "rb") as file:
            array = read_npy(file, path.stat().st_size)
    except (ValueError, OSError) as error:
        raise ValueError(f"{name}: {error}.") from None
    if [array.dtype.str, list(array.shape)] != [described["dtype"], described["shape"]]:
        raise ValueError(
            f"{name}: it holds {array.dtype.str} of shape {array.shape}, and {_DOCUMENT} says "
            f"{described['dtype']} of shape {described['shape']}."
        )
    return array
