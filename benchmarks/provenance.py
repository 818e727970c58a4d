"""Provenance of a result: command, machine, linear algebra and versions of packages."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

# Options with paths.
_PLACES = ("--out", "--work", "--cache", "--against", "--record", "--surfree", "--cgba")


def command() -> str:
    """Command that runs this script, without paths of its files."""
    words = [
        word
        for before, word in zip(sys.argv, sys.argv[1:])
        if before not in _PLACES and word not in _PLACES
    ]
    return " ".join(["python", _script(), *words])


def note_run(results: dict[str, Any], *packages: str) -> None:
    """Add this run to the runs listed in `results`, which several runs may contribute to."""
    run = {"command": command(), "machine": machine(), "versions": versions(*packages)}
    runs = results.setdefault("runs", [])
    if run not in runs:
        runs.append(run)


def machine() -> dict[str, Any]:
    """CPU model, its cores and the threads used, BLAS of numpy and torch, and GPU."""
    blas = [
        f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip()
        for p in threadpool_info()
        if p["user_api"] == "blas"
    ]
    mkl = re.search(r"Math Kernel Library Version (\S+)", torch.__config__.show())
    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "blas": sorted(set(blas)) + ([f"torch: MKL {mkl[1]}"] if mkl else []),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python, torch, numpy, scikit-learn and the installed ones of `packages`."""
    installed = {d.name: d.version for d in metadata.distributions()}
    names = ["torch", "numpy", "scikit-learn", *packages]
    return {"python": platform.python_version()} | {
        name: installed[name] for name in names if name in installed
    }


def _processor() -> str:
    try:
        model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        model = None
    return model[1] if model else platform.processor() or platform.machine()


def _script() -> str:
    script = Path(sys.argv[0]).resolve()
    root = Path(__file__).parent.parent.resolve()
    return script.relative_to(root).as_posix() if script.is_relative_to(root) else script.name
