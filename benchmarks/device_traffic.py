"""Transfers, synchronizations and launches of each estimator's main methods on an accelerator.

    python benchmarks/device_traffic.py

Counted on the stand-in for an accelerator of the tests (`tests/standin_device.py`), so no
accelerator is needed. Blocks have 512 samples here, digits that go through a small network: what a
second block of the same samples adds to a call is the count of a block, and the rest is what each
call adds. Methods without blocks get 512 samples, and their counts are those of a call.

A transfer is a copy between host and device, whatever its size. A synchronization is an operation
for which the host waits because it needs a value (`item`, `nonzero`, a mask as an index). A launch
is any other operation than a view or an allocation; it may start several kernels.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from provenance import command, versions
from rst_table import rst_table
from sklearn.datasets import load_digits

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchNearestNeighbors,
)
from skboundary.neighbors import _bank, _exact_search

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests import standin_device

RESULTS = Path(__file__).parent / "results" / "device_traffic.json"
BLOCK = 512
GUIDE = Path(__file__).parent.parent / "docs" / "user_guide" / "accelerators.rst"
BEGIN, END = ".. begin of the counts", ".. end of the counts"
KINDS = ["transfers_in", "transfers_out", "synchronizations", "launches"]
# Methods that take any number of samples in blocks, and those that work on all samples at once.
IN_BLOCKS = {
    "FrozenNetwork.predict_proba": lambda net: FrozenNetwork(**net).predict_proba,
    "LatentTransformer.transform": lambda net: _fit(LatentTransformer(FrozenNetwork(**net))),
    "TorchNearestNeighbors.kneighbors": lambda net: _fit(
        TorchNearestNeighbors(device=net["device"], batch_size=BLOCK), "kneighbors"
    ),
    "LatentKNNClassifier.predict_proba": lambda net: _fit(
        LatentKNNClassifier(FrozenNetwork(**net)), "predict_proba"
    ),
    "BiasedExtrapolationClassifier.predict_proba": lambda net: _fit(
        BiasedExtrapolationClassifier(FrozenNetwork(**net), n_iter=1, random_state=0),
        "predict_proba",
    ),
    **{
        f'BoundarySampleExtractor("{method}").transform': lambda net, method=method: _fit(
            BoundarySampleExtractor(
                FrozenNetwork(**net), method=method, effort="fast", random_state=0
            )
        )
        for method in ("segment", "minimal", "pm", "score", "label")
    },
    'SubspaceMargins("gradient").transform': lambda net: _fit(
        SubspaceMargins(FrozenNetwork(**net), n_components=8, max_iter=10, random_state=0)
    ),
}
AT_ONCE = {
    "BoundaryCharacterizer.fit": lambda net: (
        lambda X: BoundaryCharacterizer(
            FrozenNetwork(**net), method="segment", n_samples=5, n_partners=2, random_state=0
        ).fit(X, _labels(X))
    ),
    "BiasedExtrapolationSampler.fit_resample": lambda net: (
        lambda X: BiasedExtrapolationSampler(
            estimator=FrozenNetwork(**net), random_state=0
        ).fit_resample(X[: len(X) - 100], _labels(X)[: len(X) - 100])
    ),
}


def _fit(estimator: Any, method: str = "transform") -> Callable[[Any], Any]:
    X, y = _digits()
    return getattr(estimator.fit(X, y), method)


def _digits() -> tuple[Any, Any]:
    """The samples of a block, and their labels."""
    X, y = load_digits(return_X_y=True)
    return (X[:BLOCK] / 16).astype(np.float32), y[:BLOCK]


def _labels(X: Any) -> Any:
    return np.tile(_digits()[1], len(X) // BLOCK + 1)[: len(X)]


def network() -> torch.nn.Module:
    """A small network trained on the samples of a block, on the CPU."""
    X, y = (torch.from_numpy(a) for a in _digits())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        )
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(100):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(X), y).backward()
            optimizer.step()
    return module.to(standin_device.NAME)


def measure(name: str, module: torch.nn.Module) -> dict[str, Any]:
    """Counts of a block, and of a call besides its blocks; of a call for methods without blocks."""
    with patch.multiple(_exact_search, _BATCHES_TOGETHER=1), patch.multiple(_bank, BLOCK=BLOCK):
        return _measure(name, module)


def _measure(name: str, module: torch.nn.Module) -> dict[str, Any]:
    X, params = _digits()[0], dict(module=module, device=standin_device.NAME, batch_size=BLOCK)

    def counts(run: Callable[[Any], Any], n_blocks: int) -> tuple[Any, Any]:
        with warnings.catch_warnings(), standin_device.count() as traffic:
            warnings.simplefilter("ignore")
            run(np.tile(X, (n_blocks, 1)))
        return np.array([getattr(traffic, kind) for kind in KINDS]), traffic.names

    if name in AT_ONCE:
        total, names = counts(AT_ONCE[name](params), 1)
        return {"call": dict(zip(KINDS, total.tolist())), "names": dict(names)}
    run = IN_BLOCKS[name](params)
    counts(run, 1)  # what is done once for a fitted estimator
    (one, names), (two, more) = counts(run, 1), counts(run, 2)
    return {
        "block": dict(zip(KINDS, (two - one).tolist())),
        "call": dict(zip(KINDS, (2 * one - two).tolist())),
        "names": dict(more - names),
    }


def table(records: dict[str, Any]) -> str:
    """The table of the guide."""
    cells = [["method", "in", "out", "waits", "launches", "per call"]]
    for name, record in records.items():
        block = record.get("block", record["call"])
        call = "\\-"
        if "block" in record:
            call = ", ".join(str(record["call"][kind]) for kind in KINDS)
        cells.append([name, *(str(block[kind]) for kind in KINDS), call])
    return "\n".join([BEGIN, "", *rst_table(cells), "", END])


def main() -> None:
    """Count, print the table, and write the JSON and the table of the guide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="methods whose names contain this; not recorded")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    standin_device.register()
    module = network()
    records = {name: measure(name, module) for name in [*IN_BLOCKS, *AT_ONCE] if args.only in name}
    print(table(records))
    if args.only:
        print(json.dumps(records, indent=1))
        return
    results = {"command": command(), "seed": 0, "versions": versions(), "records": records}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.out == RESULTS:
        text = GUIDE.read_text()
        before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
        GUIDE.write_text(before + table(records) + after)


if __name__ == "__main__":
    main()
