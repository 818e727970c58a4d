"""Comparison of DeepDIG with its baselines and PM on MNIST and CIFAR-10 (arXiv 1912.11460).

    python benchmarks/reproductions/deepdig.py [--nets cnn fcn] [--methods deepdig nearest ...]
    python benchmarks/reproductions/deepdig.py --table

All ordered pairs of classes are characterized. Methods: "deepdig"; "random" pairs samples at random
(RPBS); "nearest" pairs each sample with the nearest of the other class in the latent space (EPBS);
"pm" is Perturbation Minimization. Each is followed by the same bisection of segments and the same
measures. Networks: the paper's CNN and FCN for MNIST, a small ResNet for CIFAR-10 (its generators
take minutes per pair on a CPU: see --sources, --targets). An interrupted run is resumed, with one
cell per network, method and source class. Networks are stored in a temporary folder. --full uses
all training samples and the paper's epochs and segments, and needs a GPU. Requires the folder named
by SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from skboundary import BoundaryCharacterizer, BoundarySampleExtractor, FrozenNetwork

# a script finds only modules of its own folder
sys.path.insert(0, str(Path(__file__).parent.parent))
from data_folder import data_reader
from provenance import note_run

RESULTS = Path(__file__).parent.parent / "results" / "deepdig.json"
METHODS: dict[str, dict[str, Any]] = {
    "deepdig": {"method": "deepdig"},
    "nearest": {"method": "segment", "init": "nearest"},
    "random": {"method": "segment", "init": "random"},
    "pm": {"method": "pm"},
}
NAMES = {"deepdig": "DeepDIG", "nearest": "EPBS", "random": "RPBS", "pm": "PM"}
Data = tuple[Any, Any, Any, Any]


def load(name: str) -> Data:
    """Load training and test images (n, channels, height, width) in [0, 1] and their labels."""
    reader = data_reader()
    if name == "mnist":
        X, y, X_test, y_test = reader.images("mnist")
        X, X_test = X[:, None], X_test[:, None]
    else:
        (X, y), (X_test, y_test) = reader.cifar10("train"), reader.cifar10("test")
        X, X_test = X.transpose(0, 3, 1, 2), X_test.transpose(0, 3, 1, 2)
    scaled = [np.float32(part) / 255 for part in (X, X_test)]
    return scaled[0], y.astype(int), scaled[1], y_test.astype(int)


def cnn() -> nn.Module:
    """Build the paper's network of two convolutions, with a latent space of 50 dimensions."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(10, 10, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(250, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )


def fcn() -> nn.Module:
    """Build the paper's fully connected network."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)
    )


class Block(nn.Module):
    """Two convolutions with a shortcut connection."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        stride = 1 if n_in == n_out else 2
        self.body = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the feature maps."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet() -> nn.Module:
    """Build a residual network of four blocks."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Block(16, 16),
        Block(16, 32),
        Block(32, 32),
        Block(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETS = {"cnn": (cnn, "mnist"), "fcn": (fcn, "mnist"), "resnet": (resnet, "cifar10")}


def trained(name: str, data: Data, epochs: int, folder: Path) -> tuple[FrozenNetwork, float]:
    """Train a network or load a stored one; return it with its test accuracy."""
    torch.manual_seed(0)
    net, path = NETS[name][0](), folder / f"{name}-{epochs}.pt"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net.to(device)
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
    else:
        X, y = torch.from_numpy(data[0]), torch.from_numpy(data[1])
        steps = epochs * -(-len(y) // 128)
        optimizer = torch.optim.Adam(net.parameters())
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
        for _ in range(epochs):
            for part in torch.randperm(len(y)).split(128):
                optimizer.zero_grad()
                out = net(X[part].to(device))
                nn.functional.cross_entropy(out, y[part].to(device)).backward()
                optimizer.step()
                rate.step()
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), path)
    frozen = FrozenNetwork(net.eval())
    return frozen, float((frozen.predict(data[2]) == data[3]).mean())


def first_of_each_class(X: Any, y: Any, n: int) -> tuple[Any, Any]:
    """Select the first n samples of each class."""
    selected = np.sort(np.concatenate([(y == c).nonzero()[0][:n] for c in np.unique(y)]))
    return X[selected], y[selected]


def characterize(net: FrozenNetwork, data: Data, method: str, source: int, args: Any) -> Any:
    """Compute one cell: all ordered pairs with the given source class."""
    X, y, X_test, y_test = data
    pairs = [(source, t) for t in range(10) if t != source]
    if args.targets:
        pairs = [(source, t) for t in args.targets if t != source]
    model = BoundaryCharacterizer(
        net,
        pairs=pairs,
        n_samples=args.samples,
        n_partners=args.partners,
        effort=args.effort,
        random_state=0,
        **METHODS[method],
    )
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(X, y, X_test=X_test, y_test=y_test)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    report = {name: column.tolist() for name, column in model.report_.items()}
    return {"seconds": seconds, "report": report}


def midpoints(net: FrozenNetwork, data: Data, method: str, args: Any) -> dict[str, float]:
    """Gaps at the midpoints, and margins at both ends, of the pairs of the extractor."""
    parameters = dict(METHODS[method])
    init = parameters.pop("init", "data")
    extractor = BoundarySampleExtractor(net, effort="fast", random_state=0, **parameters)
    extractor.fit(*data[:2])
    if method == "deepdig":  # two class pairs, because generators are trained for each
        parts = [extractor.extract(50, source=s, target=t) for s, t in ((4, 9), (9, 4))]
    else:
        parts = [extractor.extract(180, init=init)]
    gaps, margins = [0.0], []
    for pairs in parts:
        p = net.predict_proba(pairs.midpoint)[pairs.success]
        s, t = pairs.source[pairs.success], pairs.target[pairs.success]
        every = np.arange(len(p))
        gaps += np.abs(p[every, s] - p[every, t]).tolist()
        ends = np.abs([pairs.margin_inner, pairs.margin_outer])
        margins += ends[:, pairs.success].ravel().tolist()
    return {
        "pairs": sum(len(pairs) for pairs in parts),
        "success": float(np.mean(np.concatenate([pairs.success for pairs in parts]))),
        "largest_gap": max(gaps),
        "smallest_margin": min(margins),
        "largest_margin": max(margins),
    }


def write(path: Path, results: dict[str, Any]) -> None:
    """Replace the JSON; an interruption leaves the old file or the new one."""
    note_run(results)
    path.parent.mkdir(exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(path)


def column(results: dict[str, Any], net: str, method: str, name: str) -> list[float]:
    """One figure for every class pair that a method was run on."""
    cells = [c for key, c in results["cells"].items() if key.startswith(f"{net}/{method}/")]
    return [float(v) for cell in cells for v in cell["report"][name]]


def table(results: dict[str, Any]) -> list[str]:
    """Lines of the two tables in the user guide: means over class pairs without NaN."""
    lines = []
    for net in results["nets"]:
        for method, title in NAMES.items():
            cells = [c for k, c in results["cells"].items() if k.startswith(f"{net}/{method}/")]
            if not cells:
                continue

            def mean(name: str) -> float:
                return float(np.nanmean(column(results, net, method, name)))

            n = len(column(results, net, method, "success_rate"))
            yields = [
                f"{min(column(results, net, method, f'yield_{direction}')):.3f}"
                for direction in ("over", "back")
            ]
            yields = yields if method == "deepdig" else ["", ""]
            seconds = sum(cell["seconds"]["cpu"] for cell in cells)
            lines.append(
                f"{net:<8}{title:<9}{n:<7}{yields[0]:<7}{yields[1]:<7}"
                f"{mean('success_rate'):<9.3f}{mean('attempts_success'):<10.1f}"
                f"{mean('length'):<8.2f}{mean('distance_source'):<6.2f}"
                f"{mean('distance_target'):<7.2f}{mean('oscillation'):<8.4f}"
                f"{mean('error_rate_borderline'):<8.3f}{seconds / n:.2f}"
            )
    for net, method in ((net, method) for net in results["nets"] for method in NAMES):
        found = results["midpoints"].get(f"{net}/{method}")
        if found is None:
            continue
        lines.append(
            f"{net:<8}{NAMES[method]:<9}{found['pairs']:<7}{found['success']:<9.3f}"
            f"{found['largest_gap']:<13.1e}{found['smallest_margin']:<17.4f}"
            f"{found['largest_margin']:.4f}"
        )
    return lines


def main() -> None:
    """Run the missing cells and write each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", choices=NETS, default=["cnn", "fcn"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sources", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--targets", nargs="+", type=int, help="default: all but the source")
    parser.add_argument("--rows", type=int, default=1000, help="training samples of each class")
    parser.add_argument("--samples", type=int, default=50, help="segments of each class pair")
    parser.add_argument(
        "--partners",
        type=int,
        default=4,
        help="partners of each borderline sample; 50 in the paper",
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--effort", default="balanced", choices=["fast", "balanced", "thorough"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="the paper's sizes, for a GPU")
    parser.add_argument(
        "--quick", action="store_true", help="a test with two classes and few samples"
    )
    parser.add_argument("--table", action="store_true", help="print the tables of the results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.full:
        args.rows, args.samples, args.partners, args.epochs = 10_000, 1000, 50, 40
        args.nets = list(NETS)
    if args.quick:
        args.rows, args.samples, args.epochs, args.effort = 200, 20, 1, "fast"
        args.sources, args.targets = [4, 9], [4, 9]
    results: dict[str, Any] = {"nets": {}, "cells": {}, "midpoints": {}}
    if args.out.exists():
        results = json.loads(args.out.read_text())
    if args.table:
        print("\n".join(table(results)))
        return
    torch.set_num_threads(args.threads)
    folder = Path(tempfile.gettempdir()) / "skboundary-nets"
    for name in args.nets:
        X, y, X_test, y_test = load(NETS[name][1])
        net, accuracy = trained(name, (X, y, X_test, y_test), args.epochs, folder)
        data = (*first_of_each_class(X, y, args.rows), X_test, y_test)
        results["nets"][name] = {
            "data": NETS[name][1],
            "accuracy": accuracy,
            "epochs": args.epochs,
            "seed": 0,
            "rows": len(data[1]),
        }
        print(f"{name}: test accuracy {accuracy:.4f}", flush=True)
        for method in args.methods:
            for source in args.sources:
                key = f"{name}/{method}/{source}"
                if key in results["cells"]:
                    continue
                cell = characterize(net, data, method, source, args)
                results["cells"][key] = cell | {
                    "samples": args.samples,
                    "partners": args.partners,
                    "effort": args.effort,
                }
                write(args.out, results)
                rates = cell["report"]["success_rate"]
                print(key, f"success {statistics.mean(rates):.3f}", cell["seconds"], flush=True)
            key = f"{name}/{method}"
            if key not in results["midpoints"] and name != "resnet":
                results["midpoints"][key] = midpoints(net, data, method, args)
                write(args.out, results)
                print(key, results["midpoints"][key], flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
