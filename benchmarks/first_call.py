"""Time to import the package, and of the first call of each estimator in a new process.

    python benchmarks/first_call.py

Each estimator is fitted and used on a small problem in a process of its own, on one thread: once as
the first call of the process, and then again, which costs what every later call costs. The
difference is what torch, scikit-learn and the package set up once. The import of the package is
timed up to its first estimator, after that of torch, skorch, scikit-learn and imbalanced-learn.
Figures are medians over processes, wall time.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results" / "first_call.json"
NETWORK = "FrozenNetwork(net, device='cpu')"
CASES = {
    "FrozenNetwork": f"{NETWORK}.fit(X, y).predict(X)",
    "LatentTransformer": "LatentTransformer(net, device='cpu').fit(X).transform(X)",
    "LatentKNNClassifier": "LatentKNNClassifier(net, device='cpu').fit(X, y).predict(X)",
    "TorchNearestNeighbors": "TorchNearestNeighbors(device='cpu').fit(X).kneighbors(X)",
    "BoundarySampleExtractor": "BoundarySampleExtractor(net, device='cpu').fit(X, y).transform(X)",
    "BoundaryCharacterizer": "BoundaryCharacterizer(net, device='cpu', random_state=0).fit(X, y)",
    "SubspaceMargins": "SubspaceMargins(net, device='cpu').fit(X).transform(X)",
    "BiasedExtrapolationSampler": "BiasedExtrapolationSampler(net, device='cpu', random_state=0)"
    ".fit_resample(X[:150], y[:150])",
}


def prepare() -> dict[str, Any]:
    """Import what the package stands on; return iris and a network trained on it."""
    import gc

    import imblearn.pipeline  # noqa: F401
    import numpy as np
    import skorch  # noqa: F401
    import torch
    from sklearn.datasets import load_iris
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    X, y = load_iris(return_X_y=True)
    X = X.astype(np.float32)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(200):
        loss = nn.functional.cross_entropy(net(torch.from_numpy(X)), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    few = np.r_[0:50, 50:70, 100:110]  # an imbalanced problem
    # The objects of those packages make one pass of the collector take 0.2 s, in whatever call it
    # happens to run.
    gc.freeze()
    return {"X": X[few], "y": y[few], "net": net}


def one(name: str) -> dict[str, float]:
    """Seconds of the import, of the first call and of the median of five later ones."""
    names = prepare()
    start = time.perf_counter()
    exec(f"from skboundary import FrozenNetwork, {name}", names)
    seconds = {"import": time.perf_counter() - start}
    later = []
    for i in range(6):
        start = time.perf_counter()
        exec(CASES[name], names)
        if i == 0:
            seconds["first"] = time.perf_counter() - start
        else:
            later.append(time.perf_counter() - start)
    return seconds | {"later": median(later)}


def measure(name: str, processes: int) -> dict[str, float]:
    """Medians over processes."""
    runs = []
    for _ in range(processes):
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    return {key: median(run[key] for run in runs) for key in runs[0]}


def main() -> None:
    """Run the benchmark, print the results and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--one", choices=CASES, help="measure this estimator in this process")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one)))
        return
    from provenance import machine, versions

    seconds = {}
    print(f"{'milliseconds':28}{'import':>8}{'first':>8}{'later':>8}")
    for name in CASES:
        seconds[name] = measure(name, args.processes)
        print(f"{name:28}" + "".join(f"{1e3 * s:8.0f}" for s in seconds[name].values()))
    results = {
        "command": "python benchmarks/first_call.py",
        "processes": args.processes,
        "machine": machine(),
        "versions": versions("skorch", "imbalanced-learn"),
        "seconds": seconds,
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
