"""Fixed cost of a prediction of FrozenNetwork relative to the pass of its module, on one thread.

    python benchmarks/fixed_costs.py

64 samples through 100 pairs of a Linear(32, 32) and a ReLU, float32: a deep network of small
layers, whose own pass is short. Plain torch is the module in evaluation mode under `no_grad`.
Figures are medians of CPU time over rounds in which all calls run in turn.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import machine, versions
from torch import nn

from skboundary import FrozenNetwork

RESULTS = Path(__file__).parent / "results" / "fixed_costs.json"
SAMPLES, WIDTH, DEPTH = 64, 32, 100


def calls() -> dict[str, Callable[[], Any]]:
    """Return the calls to time, plain torch first."""
    torch.manual_seed(0)
    layers = [(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(DEPTH)]
    module = nn.Sequential(*(layer for pair in layers for layer in pair)).eval()
    X = np.random.default_rng(0).normal(size=(SAMPLES, WIDTH)).astype(np.float32)
    x, network = torch.from_numpy(X), FrozenNetwork(module, device="cpu")
    fitted = FrozenNetwork(module, device="cpu").fit(X)

    def plain() -> torch.Tensor:
        with torch.no_grad():
            return module(x)

    return {
        "plain torch": plain,
        "predict_proba": lambda: network.predict_proba(X),
        "predict_proba, after fit": lambda: fitted.predict_proba(X),
    }


def measure(rounds: int) -> dict[str, float]:
    """Median CPU time of each call in seconds."""
    seconds: dict[str, list[float]] = {}
    timed = calls()
    for i in range(rounds + 10):
        for name, call in timed.items():
            start = time.process_time()
            call()
            if i >= 10:
                seconds.setdefault(name, []).append(time.process_time() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def main() -> None:
    """Run the benchmark, print the results and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    seconds = measure(args.rounds)
    ratios = {name: value / seconds["plain torch"] for name, value in seconds.items()}
    for name, ratio in ratios.items():
        print(f"{name:26}{1e3 * seconds[name]:8.2f} ms{ratio:8.2f}")
    results = {
        "command": "python benchmarks/fixed_costs.py",
        "seed": 0,
        "rounds": args.rounds,
        "machine": machine(),
        "versions": versions(),
        "seconds": seconds,
        "ratios": ratios,
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
