"""Wrong labels found by neighbors in a latent space, by cleanlab, and by the network itself.

Labels of training samples are permuted, or flipped to the next class, and a network is trained on
them until it has memorized them. Contenders score the labels:

- "vote", "rank": `label_issues` on the latent space of that network, 30 neighbors;
- "pixels": the vote of 30 neighbors in X;
- "self": one minus the probability that the network gives to the label, which it was trained on;
- "cleanlab": confident learning out of five folds, five further trainings. Datalab gives the same
  scores to these probabilities.

The tables have the area under the ROC curve, and the test accuracy of the network as trained,
stopped early, and trained again without the issues of "vote", with its suggestions, or without the
issues of cleanlab. The average precision is printed as well, and with --times the seconds beyond
the first training, which need an idle machine.

Usage: python benchmarks/label_issues.py [--data digits mnist cifar10] [--rates 5 10 20 40]
[--seeds 3] [--times] [--out benchmarks/results/label_issues.json]. SKBOUNDARY_DATA names the folder
of the data other than digits. cleanlab is needed beyond the requirements of the package.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boundary_networks import make_cifar, make_cnn
from data_folder import data_reader
from numpy.typing import NDArray
from provenance import note_run
from rst_table import rst_table
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from skboundary import FrozenNetwork, LatentKNNClassifier, TorchNearestNeighbors
from skboundary.neighbors._label_issues import label_issues

RESULTS = Path(__file__).parent / "results/label_issues.json"
K = 30
TABLES = ["optical_digits", "satimage", "pen_digits"]


def make_mlp(n_features: int, n_classes: int) -> nn.Module:
    """Build two hidden layers."""
    return nn.Sequential(
        nn.Linear(n_features, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, n_classes),
    )


def load(name: str) -> tuple[Callable[[], nn.Module], int, list[NDArray[Any]]]:
    """Network, epochs until it has memorized labels, and X, y, X_test, y_test."""
    if name not in ("mnist", "cifar10"):  # a table
        X, y = load_digits(return_X_y=True) if name == "digits" else data_reader().tabular(name)
        X, y = (
            StandardScaler().fit_transform(X).astype(np.float32),
            np.unique(y, return_inverse=True)[1],
        )
        X, X_test, y, y_test = train_test_split(X, y, test_size=1 / 3, random_state=0, stratify=y)
        make = partial(make_mlp, X.shape[1], y.max() + 1)
        return make, math.ceil(2500 * 64 / len(y)), [X, y, X_test, y_test]
    source = {"mnist": "mnist", "cifar10": "cifar10_small"}[name]
    X, y, X_test, y_test = data_reader().images(source)
    X, X_test = (
        (a[:, None] if a.ndim == 3 else a.transpose(0, 3, 1, 2)).astype(np.float32) / 255
        for a in (X[:6000], X_test[:2000])
    )
    make, epochs = (make_cnn, 25) if name == "mnist" else (make_cifar, 40)
    return make, epochs, [X, y[:6000].astype(int), X_test, y_test[:2000].astype(int)]


def corrupt(y: NDArray[Any], kind: str, rate: float, rng: np.random.Generator) -> NDArray[Any]:
    """Permute a share of the labels, or flip it to the next class."""
    given = y.copy()
    chosen = rng.permutation(len(y))[: round(rate * len(y))]
    flipped = (y[chosen] + 1) % (y.max() + 1)
    given[chosen] = y[rng.permutation(chosen)] if kind == "permuted" else flipped
    return given


def train(
    make: Callable[[], nn.Module], X: NDArray[Any], y: NDArray[Any], epochs: int, seed: int
) -> tuple[nn.Module, nn.Module]:
    """Train on all samples; return the network at the end, and at its best validation accuracy.

    The validation samples are a tenth of X, with labels as noisy. A second training, on the others,
    yields the network that is stopped early.
    """
    order = np.random.default_rng([seed, 1]).permutation(len(y))  # not the one of the labels
    held, rest = order[: len(y) // 10], order[len(y) // 10 :]
    last = _epochs(make, X, y, epochs, seed)[-1]
    best, best_score = last, -1.0
    for net in _epochs(make, X[rest], y[rest], epochs, seed):
        score = accuracy(net, X[held], y[held])
        if score > best_score:
            best, best_score = net, score
    return last, best


def _epochs(
    make: Callable[[], nn.Module], X: NDArray[Any], y: NDArray[Any], epochs: int, seed: int
) -> list[nn.Module]:
    """Networks after the epochs of one training, the last one at the end."""
    torch.manual_seed(seed)
    net, (samples, labels) = make(), map(torch.from_numpy, (X, y))
    optimizer, snapshots = torch.optim.Adam(net.parameters(), 1e-3), []
    for _ in range(epochs):
        net.train()
        for part in torch.randperm(len(labels)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(samples[part]), labels[part]).backward()
            optimizer.step()
        snapshots.append(copy.deepcopy(net).eval())
    return snapshots


def outputs(net: nn.Module, X: NDArray[Any]) -> Tensor:
    """Compute probabilities batch by batch."""
    with torch.no_grad():
        return torch.cat([net(part).softmax(1) for part in torch.from_numpy(X).split(512)])


def accuracy(net: nn.Module, X: NDArray[Any], y: NDArray[Any]) -> float:
    """Share of correct predictions."""
    return float((outputs(net, X).argmax(1).numpy() == y).mean())


def contenders(
    make: Callable[[], nn.Module],
    epochs: int,
    net: nn.Module,
    X: NDArray[Any],
    given: NDArray[Any],
    seed: int,
) -> dict[str, tuple[NDArray[Any], float, Any]]:
    """Scores, seconds beyond the training of `net`, and the issues where they are needed."""
    results: dict[str, tuple[NDArray[Any], float, Any]] = {}
    clock = time.perf_counter()

    def add(name: str, score: NDArray[Any], issues: Any = None, before: float = 0.0) -> None:
        nonlocal clock
        results[name] = score, time.perf_counter() - clock + before, issues
        clock = time.perf_counter()

    clf = LatentKNNClassifier(FrozenNetwork(net)).fit(X, given)
    issues = clf.label_issues(n_neighbors=K)
    add("vote", issues.score, issues)
    clf = LatentKNNClassifier(FrozenNetwork(net)).fit(X, given)
    add("rank", clf.label_issues(n_neighbors=K, method="rank").score)
    flat = X.reshape(len(X), -1)
    near = TorchNearestNeighbors(K).fit(flat).kneighbors(return_distance=False)
    add("pixels", label_issues(given, given[near], np.unique(given), "vote").score)
    each = np.arange(len(X)), given
    add("self", 1 - outputs(net, X).numpy()[each])
    p = np.empty((len(X), given.max() + 1))
    for fold, held in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, given):
        p[held] = outputs(_epochs(make, X[fold], given[fold], epochs, seed)[-1], X[held]).numpy()
    training = time.perf_counter() - clock
    clock = time.perf_counter()
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    found = find_label_issues(given, p, n_jobs=1)
    add("cleanlab", 1 - get_label_quality_scores(given, p), found, training)
    return results


def measure(name: str, kind: str, rate: int, seed: int, times: bool) -> dict[str, Any]:
    """Scores and accuracies of one data set, noise and seed."""
    make, epochs, (X, y, X_test, y_test) = load(name)
    given = corrupt(y, kind, rate / 100, np.random.default_rng(seed))
    net, stopped = train(make, X, given, epochs, seed)
    scored = contenders(make, epochs, net, X, given, seed)
    wrong, issues = given != y, scored["vote"][2]
    relabeled = np.where(issues.is_issue, issues.suggested_label, given)
    kept, cleaned = ~issues.is_issue, ~scored["cleanlab"][2]
    trained = {
        "as given": net,
        "stopped early": stopped,
        "removed": _epochs(make, X[kept], given[kept], epochs, seed)[-1],
        "relabeled": _epochs(make, X, relabeled, epochs, seed)[-1],
        "removed by cleanlab": _epochs(make, X[cleaned], given[cleaned], epochs, seed)[-1],
    }
    return {
        "data": name,
        "noise": kind,
        "rate": rate,
        "seed": seed,
        "memorized": accuracy(net, X, given),
        "contenders": {
            contender: {
                "auroc": float(roc_auc_score(wrong, score)),
                "average_precision": float(average_precision_score(wrong, score)),
                **({"seconds": seconds} if times else {}),
            }
            for contender, (score, seconds, _) in scored.items()
        },
        "accuracy": {k: accuracy(each, X_test, y_test) for k, each in trained.items()},
    }


def table(results: dict[str, Any]) -> list[str]:
    """Areas under the ROC curve in the form of the guide, means over the seeds."""
    names = [*results["records"][0]["contenders"]]
    cells = [["labels", *names]]
    for key, group in _groups(results["records"]).items():
        means = [np.mean([r["contenders"][n]["auroc"] for r in group]) for n in names]
        cells.append([key, *(f"{mean:.3f}" for mean in means)])
    return rst_table(cells)


def accuracies(results: dict[str, Any]) -> list[str]:
    """Test accuracies in the form of the guide, means over the seeds."""
    kinds = [*results["records"][0]["accuracy"]]
    cells = [["labels", *kinds]]
    for key, group in _groups(results["records"]).items():
        means = [np.mean([r["accuracy"][kind] for r in group]) for kind in kinds]
        cells.append([key, *(f"{mean:.3f}" for mean in means)])
    return rst_table(cells)


def show(results: dict[str, Any]) -> None:
    """Print the tables, and the other measures."""
    print("\n".join([*table(results), "", *accuracies(results)]))
    for key, group in _groups(results["records"]).items():
        for name, measured in group[0]["contenders"].items():
            means = {m: np.mean([r["contenders"][name][m] for r in group]) for m in measured}
            print(f"{key}, {name}: " + ", ".join(f"{m} {v:.3f}" for m, v in means.items()))


def _groups(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(f"{run['data']}, {run['rate']} % {run['noise']}", []).append(run)
    return groups


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", default=["digits", *TABLES, "mnist", "cifar10"])
    parser.add_argument("--rates", nargs="+", type=int, default=[5, 10, 20, 40])
    parser.add_argument("--noises", nargs="+", default=["permuted", "flipped"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"records": []}
    note_run(results, "cleanlab")
    for name in args.data:
        for kind in args.noises:
            for rate in args.rates:
                for seed in range(args.seeds):
                    results["records"].append(measure(name, kind, rate, seed, args.times))
    show(results)
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
