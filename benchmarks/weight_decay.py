"""Effect of weight decay on the decision boundaries of a network.

    python benchmarks/weight_decay.py [--seeds 5] [--decays 0 1] [--noise 0.1] [--table]

A multilayer perceptron is trained on scikit-learn's handwritten digits, with random labels for a
tenth of the training samples, with and without weight decay, and characterized by
BoundaryCharacterizer with method "segment". It takes a minute on one core.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import command, machine, versions
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skboundary import BoundaryCharacterizer, FrozenNetwork

RESULTS = Path(__file__).parent / "results" / "weight_decay.json"
COLUMNS = ("length", "oscillation", "error_rate_borderline", "success_rate")


def train(X: Any, y: Any, decay: float, seed: int) -> FrozenNetwork:
    """Train for 80 epochs with AdamW."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=decay)
    for _ in range(80):
        for part in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X[part]), y[part]).backward()
            optimizer.step()
    return FrozenNetwork(net.eval())


def run(decay: float, seed: int, noise: float) -> dict[str, Any]:
    """Train one network and characterize its 90 boundaries."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(np.float32(X / 16), y, test_size=0.3, random_state=seed)
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(len(y)) < noise, rng.integers(10, size=len(y)), y)
    net = train(torch.from_numpy(X), torch.from_numpy(y), decay, seed)
    model = BoundaryCharacterizer(net, n_samples=50, random_state=0)
    report = model.fit(X, y, X_test=X_test, y_test=y_test).report_
    return {
        "decay": decay,
        "seed": seed,
        "accuracy": float((net.predict(X_test) == y_test).mean()),
        "train_accuracy": float((net.predict(X) == y).mean()),
        "report": {name: values.tolist() for name, values in report.items()},
    }


def sharpest(report: dict[str, list[float]]) -> int:
    """Index of the ordered pair with the shortest segments across its boundary."""
    return int(np.nanargmin(report["length"]))


def table(results: dict[str, Any]) -> list[str]:
    """Lines of the tables in the user guide."""
    lines = []
    decays = sorted({record["decay"] for record in results["records"]})
    for decay in decays:
        records = [r for r in results["records"] if r["decay"] == decay]
        means = [np.mean([np.nanmean(r["report"][name]) for r in records]) for name in COLUMNS]
        accuracy = np.mean([r["accuracy"] for r in records])
        train_accuracy = np.mean([r["train_accuracy"] for r in records])
        figures = [train_accuracy, accuracy, *means]
        lines.append(f"{decay:<7g}" + "".join(f"{v:<11.4f}" for v in figures).rstrip())
    without = {r["seed"]: r["report"] for r in results["records"] if r["decay"] == decays[0]}
    with_decay = {r["seed"]: r["report"] for r in results["records"] if r["decay"] == decays[-1]}
    for seed, before in without.items():
        i, after = sharpest(before), with_decay[seed]
        j = sharpest(after)
        pair = f"{before['source'][i]} to {before['target'][i]}"
        figures = [report[name][i] for name in COLUMNS[:2] for report in (before, after)]
        figures += [np.nanmean(report["oscillation"]) for report in (before, after)]
        lines.append(
            f"{seed:<6}{pair:<8}"
            + "".join(f"{v:<8.4f}" for v in figures)
            + f"{after['source'][j]} to {after['target'][j]}"
        )
    return lines


def main() -> None:
    """Run the benchmark, print the results and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--decays", nargs="+", type=float, default=[0.0, 1.0])
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--table", action="store_true", help="print the tables of the results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        print("\n".join(table(json.loads(args.out.read_text()))))
        return
    torch.set_num_threads(1)
    results = {
        "command": command(),
        "machine": machine(),
        "versions": versions(),
        "noise": args.noise,
        "records": [run(d, seed, args.noise) for seed in range(args.seeds) for d in args.decays],
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
