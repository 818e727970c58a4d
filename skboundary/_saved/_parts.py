"""What a saved folder holds besides plain data: weights, files of skops, and names of objects."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from sklearn.base import BaseEstimator, clone
from torch import Tensor, nn

from skboundary._bank_folder import BankFolder
from skboundary._bank_state import STATE_FILE
from skboundary._callbacks import CALLBACK_ATTRIBUTES
from skboundary._npy import map_npy
from skboundary._part_writer import LOCK
from skboundary._plain import Foreign
from skboundary._random import forked_rng
from skboundary._sample_array import SampleArray, blocks
from skboundary._saved._folder import file_named, link_or_copy
from skboundary.neighbors._bank import Stored

_SKOPS_PROBLEMS = (TypeError, ValueError, AttributeError, KeyError, IndexError, RecursionError)


def extra(name: str) -> Any:
    """Import a package of the extra `io`."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{name.split('.')[0]} is needed here: python -m pip install 'skboundary[io]'"
        ) from error


# ------------------------------------------------------------------------------------- save


class PartWriter:
    """Write foreign objects to a folder; what cannot be written is left to the user.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    asked_for : list of str
        Names of the objects that `load` must be given.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked_for: list[str] = []
        self._paths: dict[str, str] = {}  # of unfitted skorch nets, to the names of parameters
        self._banks: dict[Path, tuple[str, BankFolder]] = {}
        self._n_modules = self._n_banks = 0

    def write(self, number: int, part: Foreign) -> dict[str, Any]:
        """Write an object, and return its description."""
        name, path, value = part
        if path.rpartition(".")[2] == "neighbors_":  # a search, of vectors that are saved
            return {"kind": "fitted again", "name": name}
        is_path = isinstance(value, (str, os.PathLike)) and path.rpartition(".")[2] == "bank"
        if is_path and Path(value, STATE_FILE).exists():
            return {"kind": "bank path", "name": name, "file": self._copied(value)[0]}
        if isinstance(value, (BankFolder, Stored)):
            return self._bank(name, value)
        if isinstance(value, SampleArray):
            return self._samples(number, name, value)
        if isinstance(value, nn.Module):
            return self._module(name, value)
        if _is_skorch(value):
            return self._skorch(name, path, value)
        if isinstance(value, BaseEstimator) and self._skops(number, value):
            return {"kind": "skops", "name": name, "file": f"parts/{number:03d}.skops"}
        return self._given(name)

    def _given(self, name: str) -> dict[str, Any]:
        self.asked_for.append(name)
        return {"kind": "given", "name": name}

    def _bank(self, name: str, bank: BankFolder | Stored) -> dict[str, Any]:
        """Latent vectors and outputs as a bank."""
        if isinstance(bank, Stored):
            folder = self._new_bank()
            BankFolder.create(folder).append(bank.latent, bank.outputs)
            (folder / LOCK).unlink(missing_ok=True)
            return {"kind": "bank", "name": name, "file": f"{folder.name}/{STATE_FILE}"}
        file, now = self._copied(bank.path)
        if now.n_samples != bank.n_samples:
            raise ValueError(
                f"The bank {bank.path} holds {now.n_samples} samples by now, and the estimator "
                f"was fitted to {bank.n_samples}. Fit it again, or open it with from_bank."
            )
        return {"kind": "bank", "name": name, "file": file}

    def _samples(self, number: int, name: str, samples: SampleArray) -> dict[str, Any]:
        """Training samples outside of memory, block by block."""
        file = f"samples/{number:03d}.npy"
        (self.folder / "samples").mkdir(exist_ok=True)
        out = open_memmap(self.folder / file, "w+", samples.dtype, samples.shape, version=(1, 0))
        for part in blocks(samples):
            out[part] = samples[part]
        out.flush()
        return {"kind": "samples", "name": name, "file": file}

    def _copied(self, path: Path) -> tuple[str, BankFolder]:
        """Copy a bank once. Its files never change, and get a second name where possible."""
        path = Path(os.path.abspath(path))
        if path not in self._banks:
            bank, folder = BankFolder.open(path), self._new_bank()
            folder.mkdir()
            for file in bank.files:
                link_or_copy(path / file, folder / file)
            self._banks[path] = f"{folder.name}/{STATE_FILE}", bank
        return self._banks[path]

    def _new_bank(self) -> Path:
        number = f"-{self._n_banks}" if self._n_banks else ""
        self._n_banks += 1
        return self.folder / f"bank{number}"

    def _module(self, name: str, module: nn.Module) -> dict[str, Any]:
        name = "module" if self._n_modules == 0 else name
        self.asked_for.append(name)
        return {"kind": "module", "name": name, "weights": self._weights(name, module)}

    def _weights(self, name: str, module: nn.Module) -> str:
        number = f"-{self._n_modules}" if self._n_modules else ""
        file = f"weights{number}.safetensors"
        self._n_modules += 1
        tensors = module.state_dict()
        other = [key for key, tensor in tensors.items() if not isinstance(tensor, Tensor)]
        if other:
            raise ValueError(
                f"The state dict of {name} ({type(module).__name__}) contains {other[0]!r}, which "
                "is not a tensor and cannot be saved. Save the network without get_extra_state."
            )
        # copies, because safetensors refuses memory that tensors share
        tensors = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
        extra("safetensors.torch").save_file(tensors, self.folder / file)
        return file

    def _skorch(self, name: str, path: str, net: Any) -> dict[str, Any]:
        """Weights of a fitted skorch net; the net itself, which names code, is given again."""
        if not getattr(net, "initialized_", False):
            self._paths[path] = name
            return self._given(name)
        # the fitted net is a clone of a parameter, in the same place
        source = self._paths.get(path.replace("estimator_", "estimator", 1), name)
        if source == name:
            self.asked_for.append(name)
        inferred = getattr(net, "classes_inferred_", None)
        return {
            "kind": "skorch",
            "name": source,
            "weights": self._weights(source, net.module_),
            "classes": None if inferred is None else inferred.tolist(),
        }

    def _skops(self, number: int, estimator: BaseEstimator) -> bool:
        """Write an estimator by skops if it can read it back."""
        skops = extra("skops.io")
        try:
            bare = copy.copy(estimator)
            for name in CALLBACK_ATTRIBUTES & vars(bare).keys():
                delattr(bare, name)
            data = skops.dumps(bare)
            skops.loads(data, trusted=skops.get_untrusted_types(data=data))
        except Exception:  # whatever it is, the user is asked for the object
            return False
        (self.folder / "parts").mkdir(exist_ok=True)
        (self.folder / "parts" / f"{number:03d}.skops").write_bytes(data)
        return True


# ------------------------------------------------------------------------------------- load


class PartReader:
    """Read foreign objects from a folder, or take them from the user.

    Parameters
    ----------
    files : dict of Path
        By name.
    parts : list of dict
        As from `PartWriter`.
    module : nn.Module or None
    trusted : sequence of str
        Names that skops may import besides those of scikit-learn, numpy and scipy.
    objects : dict
        By name.

    Raises
    ------
    ValueError
        For objects that are missing or not asked for.
    """

    def __init__(
        self,
        files: dict[str, Path],
        parts: Sequence[dict[str, Any]],
        module: nn.Module | None,
        trusted: Sequence[str],
        objects: dict[str, Any],
    ) -> None:
        self.files, self.parts, self.trusted = files, parts, [*trusted]
        self.objects = objects if module is None else {**objects, "module": module}
        self._read: dict[int, Any] = {}
        names = {part["name"] for part in parts if part["kind"] not in _SAVED}
        missing, unknown = sorted(names - {*self.objects}), sorted({*self.objects} - names)
        if missing:
            how = [f"objects={{{name!r}: ...}}" for name in missing if name != "module"]
            how = ["module=..."] * ("module" in missing) + how
            raise ValueError(
                "estimator.json: the estimator contains objects that are not saved. Give "
                f"{', '.join(how)}."
            )
        if unknown:
            raise ValueError(
                f"estimator.json: the estimator needs {sorted(names) or 'no objects'}, and load "
                f"was given {unknown[0]!r}. Leave it out."
            )

    def __call__(self, number: int) -> Any:
        """Return a part, the same each time."""
        if number not in self._read:
            if type(number) is not int or not 0 <= number < len(self.parts):
                raise ValueError(f"{number!r} is not the number of one of {len(self.parts)} parts")
            self._read[number] = _READERS[self.parts[number]["kind"]](self, self.parts[number])
        return self._read[number]

    def _samples(self, part: dict[str, Any]) -> Any:
        """A memory map, as they were not in memory before."""
        try:
            return map_npy(file_named(self.files, part["file"]))
        except ValueError as error:
            raise ValueError(f"{part['file']}: {error}.") from None

    def _bank(self, part: dict[str, Any]) -> BankFolder:
        return BankFolder.open(file_named(self.files, part["file"]).parent)

    def _given(self, part: dict[str, Any]) -> Any:
        return self.objects[part["name"]]

    def _module(self, part: dict[str, Any]) -> nn.Module:
        given = self.objects[part["name"]]
        if not isinstance(given, nn.Module):
            raise ValueError(f"{part['name']} is a {type(given).__name__}, not a torch.nn.Module.")
        module = copy.deepcopy(given)
        self._load_weights(part, module)
        return module

    def _load_weights(self, part: dict[str, Any], module: nn.Module) -> None:
        """Load weights into a module whose state dict has the same names, shapes and dtypes."""
        file = file_named(self.files, part["weights"])
        own = module.state_dict()
        try:
            saved = extra("safetensors.torch").load_file(file)
        except Exception as error:  # safetensors has an error class of its own
            raise ValueError(f"{file.name}: {error}") from None
        for name in sorted(own.keys() | saved.keys()):
            here, there = (_form(tensors.get(name)) for tensors in (own, saved))
            if here != there:
                raise ValueError(
                    f"{file.name}: {name!r} is {there} in the saved folder, and {here} in "
                    f"{part['name']} ({type(module).__name__}). Give the module that was saved."
                )
        module.load_state_dict(saved)

    def _skorch(self, part: dict[str, Any]) -> Any:
        given = self.objects[part["name"]]
        if not _is_skorch(given):
            raise ValueError(f"{part['name']} is a {type(given).__name__}, not a skorch net.")
        net = clone(given)
        with forked_rng(0):
            net.initialize()
        self._load_weights(part, net.module_)
        if part["classes"] is not None:
            net.classes_inferred_ = np.array(part["classes"])
        return net

    def _skops(self, part: dict[str, Any]) -> Any:
        skops, name = extra("skops.io"), part["file"]
        data = file_named(self.files, name).read_bytes()
        try:
            return skops.loads(data, trusted=self.trusted)
        except Exception as error:  # zip, json, numpy and constructors have errors of their own
            hint = ""
            if type(error).__name__ == "UntrustedTypesFoundException":
                hint = " Give trusted=[...] the names that you trust."
            raise ValueError(f"{name}: {type(error).__name__}: {error}{hint}") from None


_SAVED = ("bank", "bank path", "samples", "skops", "fitted again")


def _form(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"


def _is_skorch(value: Any) -> bool:
    skorch = sys.modules.get("skorch.net")  # if it is not imported, no value is a skorch net
    return skorch is not None and isinstance(value, skorch.NeuralNet)


_READERS = {
    "bank": PartReader._bank,
    "bank path": lambda reader, part: str(reader._bank(part).path),
    "fitted again": lambda reader, part: None,
    "given": PartReader._given,
    "module": PartReader._module,
    "samples": PartReader._samples,
    "skorch": PartReader._skorch,
    "skops": PartReader._skops,
}
