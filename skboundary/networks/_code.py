"""Code as `digest` sees it: what is installed, in which version, and the globals it names."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import dis
import functools
import importlib
import importlib.metadata
import platform
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Of a class: what names it, describes it, or counts classes in this process.
NOT_CODE = {
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__annotations__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__firstlineno__",
    "__static_attributes__",
    "__orig_bases__",
    "__parameters__",
    "__type_params__",
    "__slotnames__",
    "_abc_impl",
    "_backward_cls",
}
_HEAP_TYPE = 1 << 9  # a class made by Python code or at run time, not a static type of C


def globals_named_by(code: types.CodeType, variables: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Find the values of the globals that a code object names, inner functions included.

    Of a module of the user only the attributes that follow its name count.
    """
    steps = [i for i in dis.get_instructions(code) if i.opname != "EXTENDED_ARG"]
    for n, step in enumerate(steps):
        following = iter(steps[n + 1 :])
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            if step.argval not in variables:
                continue  # a builtin
            name, value = step.argval, variables[step.argval]
            for then in following:
                if not _is_module_of_user(value) or then.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    break
                name, value = f"{name}.{then.argval}", getattr(value, then.argval, None)
            yield f"<global {name}>", value
        elif step.opname == "IMPORT_NAME":
            module = _imported(steps[n - 2].argval, step.argval, variables)
            wanted = [then.argval for then in following if then.opname == "IMPORT_FROM"]
            if _is_module_of_user(module) and steps[n - 1].argval:
                for name in wanted:
                    yield f"<global {step.argval}.{name}>", getattr(module, name, None)
            else:
                yield f"<global {step.argval}>", module
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from globals_named_by(constant, variables)


def _imported(level: int, name: str, variables: dict[str, Any]) -> Any:
    """Import what a function imports when it runs; None where that fails."""
    package = variables.get("__package__") or variables.get("__name__", "").rpartition(".")[0]
    try:
        return importlib.import_module("." * level + name, package)
    except Exception:
        return None


def _is_module_of_user(value: Any) -> bool:
    return isinstance(value, types.ModuleType) and not is_installed_module(value.__name__)


def is_installed(obj: Any) -> bool:
    """Whether an installed package has this class or function under its name."""
    if isinstance(obj, type):  # of C, or Cython's class of functions
        if not (obj.__flags__ & _HEAP_TYPE and isinstance(obj.__module__, str)):
            return True
    if not is_installed_module(obj.__module__):
        return False
    found: Any = sys.modules.get(obj.__module__)
    for name in obj.__qualname__.split("."):
        found = static_attribute(found, name)
    return found is obj or getattr(found, "__func__", None) is obj


def static_attribute(obj: Any, name: str) -> Any:
    """Find an attribute without running a descriptor, nor a module's __getattr__."""
    for one in obj.__mro__ if isinstance(obj, type) else (obj,):
        if name in getattr(one, "__dict__", ()):
            return vars(one)[name]
    return None


def is_installed_module(name: str | None) -> bool:
    if name is None or name == "__main__":
        return False
    if name in sys.stdlib_module_names:
        return True
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    if file is None:  # made in memory, as parts of extensions are
        parent = name.rpartition(".")[0]
        return bool(parent) and is_installed_module(parent)
    return is_installed_file(file)


@functools.cache
def is_installed_file(name: str) -> bool:
    if name.startswith("<"):  # compiled from text, or part of the interpreter
        return name.startswith("<frozen ")
    path = Path(name)
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    standard = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return any(path.is_relative_to(folder) for folder in standard) or any(
        _is_recorded(path.relative_to(folder).parts[0], folder)
        for folder in sys.path
        if folder and path.is_relative_to(folder) and path != Path(folder)
    )


@functools.cache
def _is_recorded(top: str, folder: str) -> bool:
    """Whether a distribution in a folder (of ``pip install --target``) holds a package there.

    The source tree of an editable installation has no RECORD.
    """
    records = (d.read_text("RECORD") for d in importlib.metadata.distributions(path=[folder]))
    return any(f"\n{top}{end}" in f"\n{record}" for record in records for end in "/,")


@functools.cache
def version_of(module: str) -> str:
    """Version of the distribution that a module comes from."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return platform.python_version()
    if top not in sys.modules:
        return ""  # the name that an extension gives itself
    version = getattr(sys.modules[top], "__version__", None)  # lists of files are slow to read
    if isinstance(version, str):
        return version
    names = importlib.metadata.packages_distributions().get(top, ())
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
