"""Cost of LatentKNNClassifier relative to its base network, on CIFAR-10.

    python benchmarks/latent_knn.py [--reference 50000] [--queries 2000] [--rounds 5]

The network is a small convolutional one, trained for one epoch on 5,000 images so that its
features form clusters; the time of a pass does not depend on the weights. All contenders are timed
in turn in one process, and figures are medians over the rounds. Requires the folder named by
SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_reader
from provenance import command, machine, versions
from quiet import median_seconds
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier, TorchNearestNeighbors

try:
    import faiss
except ImportError:
    faiss = None

RESULTS = Path(__file__).parent / "results" / "latent_knn.json"
PAGE = Path(__file__).parents[1] / "docs" / "user_guide" / "latent_knn.rst"


def load_cifar(reference: int, queries: int) -> tuple[Any, Any, Any, Any]:
    """Load CIFAR-10 as uint8 images (n, 3, 32, 32) with the reader of the data folder."""
    load = data_reader()
    X, y = load.cifar10("train", limit=reference)
    X_test, y_test = load.cifar10("test", limit=queries)
    return X.transpose(0, 3, 1, 2), y.astype(int), X_test.transpose(0, 3, 1, 2), y_test.astype(int)


def make_network(X: Any, y: Any) -> nn.Module:
    """Train a VGG-like network of six convolutions for one epoch."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for n_in, n_out in [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]:
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
        if n_in == n_out:
            layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(128 * 16, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for part in torch.randperm(len(y)).split(128):
        loss = nn.functional.cross_entropy(
            net(scale(torch.from_numpy(X[part]).float())), torch.from_numpy(y[part])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def scale(x: torch.Tensor) -> torch.Tensor:
    """Scale bytes to [-1, 1]."""
    return x / 127.5 - 1


def end_to_end(net: FrozenNetwork, X: Any, y: Any, X_test: Any, y_test: Any, rounds: int) -> Any:
    """Time predictions and sweeps against the base network, and searches for one query."""
    clf = LatentKNNClassifier(net, metric="cosine").fit(X, y)
    grid = {"n_neighbors": [1, 2, 3, 8], "query_weight": list(np.linspace(0, 1, 10))}
    seconds = median_seconds(
        {
            "base predict": lambda: net.predict(X_test),
            "predict": lambda: clf.predict(X_test),
            "sweep of 40": lambda: clf.sweep(X_test, y_test, **grid),
        },
        rounds,
    )
    latent = clf._network.latent(X_test[:1]).numpy()
    stored = np.asarray(clf._bank.stored.latent)
    unit, query = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (stored, latent))
    ours = TorchNearestNeighbors(3).fit(unit)
    theirs = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(unit)
    searches = {
        "TorchNearestNeighbors": lambda: ours.kneighbors(query),
        "scikit-learn": lambda: theirs.kneighbors(query),
    }
    if faiss is not None:
        index = faiss.IndexFlatL2(unit.shape[1])
        index.add(unit)
        searches["faiss"] = lambda: index.search(query, 3)
    return seconds, median_seconds(searches, 20 * rounds), list(stored.shape)


def grid_search(net: FrozenNetwork, X: Any, y: Any, rounds: int) -> dict[str, float]:
    """Time a grid search over 12 settings with memory against one fit and score of one fold."""
    grid = {"n_neighbors": [1, 3, 8], "query_weight": [0.25, 0.52, 0.76, 0.88]}
    half = len(X) // 2

    def one() -> None:
        LatentKNNClassifier(net).fit(X[:half], y[:half]).score(X[half:], y[half:])

    def search() -> None:
        with tempfile.TemporaryDirectory() as folder:
            clf = LatentKNNClassifier(net, memory=folder)
            GridSearchCV(clf, grid, cv=2, refit=False).fit(X, y)

    return median_seconds({"fit and score": one, "search of 12": search}, rounds)


def write_guide(results: dict[str, Any], page: Path = PAGE) -> None:
    """Write the ratios, and the milliseconds of one query, into the tables of the guide."""
    milliseconds = {name: 1e3 * value for name, value in results["one_query_seconds"].items()}
    text = page.read_text()
    for name, value in (results["ratios"] | milliseconds).items():
        line = rf"^({re.escape(name)} +)[\d.]+$"
        text = re.sub(line, rf"\g<1>{value:.2f}", text, count=1, flags=re.MULTILINE)
    page.write_text(text)


def main() -> None:
    """Run the benchmark, print the results, and write the JSON and the guide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    X, y, X_test, y_test = load_cifar(args.reference, args.queries)
    net = FrozenNetwork(make_network(X[:5000], y[:5000]), preprocess=scale)
    seconds, query, shape = end_to_end(net, X, y, X_test, y_test, args.rounds)
    small = slice(0, args.reference // 10)
    search = grid_search(net, X[small], y[small], max(1, args.rounds // 2))
    results = {
        "command": command(),
        "machine": machine(),
        "versions": versions("faiss-cpu"),
        "reference": shape,
        "queries": len(X_test),
        "grid_search_rows": len(y[small]),
        "seconds": seconds | search,
        "one_query_seconds": query,
        "ratios": {
            "predict / base predict": seconds["predict"] / seconds["base predict"],
            "sweep of 40 / predict": seconds["sweep of 40"] / seconds["predict"],
            "search of 12 / fit and score": search["search of 12"] / search["fit and score"],
        },
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.out == RESULTS:
        write_guide(results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
