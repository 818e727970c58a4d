"""LatentKNNClassifierCV on networks that have memorized wrong labels, and the time of its fit.

Labels are permuted, or flipped to the next class, and a network is trained on four fifths of the
samples until it has memorized them. The others, whose labels are as noisy, are there to choose on.
The accuracies are on test samples with correct labels:

- "network": of that network;
- "default": of LatentKNNClassifier with its default parameters;
- "by hand": of the setting of the default grid of LatentKNNClassifierCV that is best on the samples
  to choose on, where LatentKNNClassifier is set to each of them in turn;
- "CV": of LatentKNNClassifierCV with these samples as X_val;
- "best": of the setting that is best on the test samples, which no choice can exceed.

--times compares `fit` of LatentKNNClassifierCV, for one layer and one metric, with one `fit` and
`predict` of LatentKNNClassifier with its default number of neighbors, and with the largest of the
grid; all in turn, medians. It needs an idle machine.

Usage: python benchmarks/automatic_choice.py [--data digits satimage mnist] [--seeds 3] [--times]
[--out benchmarks/results/automatic_choice.json], and --table to print the tables of the guide; with
--seeds 0 --times nothing but the times is measured. SKBOUNDARY_DATA names the folder of the data
other than digits.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_issues import Problem, accuracy, corrupt, load, train
from numpy.typing import NDArray
from provenance import note_run
from quiet import median_seconds
from rst_table import rst_table
from sklearn.model_selection import ParameterGrid, train_test_split

from skboundary import FrozenNetwork, LatentKNNClassifier, LatentKNNClassifierCV

RESULTS = Path(__file__).parent / "results/automatic_choice.json"
N_TEST = 1000  # samples at most
TABLES = ["digits", "optical_digits", "satimage", "pen_digits"]


def split(problem: Problem, given: NDArray[Any], seed: int) -> list[NDArray[Any]]:
    """Return X and y for the network, and to choose on."""
    parts = train_test_split(problem.X, given, test_size=0.2, random_state=seed, stratify=given)
    return [parts[0], parts[2], parts[1], parts[3]]


def by_hand(net: FrozenNetwork, X: Any, y: Any, X_val: Any, y_val: Any, test: Any) -> Any:
    """Test accuracy of the setting that is best on the samples to choose on, and of the best."""
    cv = LatentKNNClassifierCV()
    grid = {"n_neighbors": cv.n_neighbors, "query_weight": cv.query_weight}
    scores, best = [], 0.0
    for metric in cv.metric:
        clf = LatentKNNClassifier(net, metric=metric).fit(X, y)
        for setting in ParameterGrid(grid):
            score = clf.set_params(**setting).score(X_val, y_val)
            scores.append((score, metric, setting))
        best = max(best, clf.sweep(*test, **grid)["mean_test_score"].max())
    _, metric, setting = max(scores, key=lambda chosen: chosen[0])
    return LatentKNNClassifier(net, metric=metric, **setting).fit(X, y).score(*test), float(best)


def measure(name: str, kind: str, rate: int, seed: int) -> dict[str, Any]:
    """Accuracies of one data set, noise and seed."""
    problem = load(name)
    given = corrupt(problem.y, kind, rate / 100, seed)
    X, y, X_val, y_val = split(problem, given, seed)
    module = train(problem, X, y, seed)
    net, test = FrozenNetwork(module), (problem.X_test[:N_TEST], problem.y_test[:N_TEST])
    cv = LatentKNNClassifierCV(net).fit(X, y, X_val=X_val, y_val=y_val)
    hand, best = by_hand(net, X, y, X_val, y_val, test)
    return {
        "data": name,
        "noise": kind,
        "rate": rate,
        "seed": seed,
        "memorized": accuracy(module, X, y),
        "chosen": {k: cv.best_params_[k] for k in ("metric", "n_neighbors", "query_weight")},
        "accuracy": {
            "network": accuracy(module, *test),
            "default": LatentKNNClassifier(net).fit(X, y).score(*test),
            "by hand": hand,
            "CV": cv.score(*test),
            "best": best,
        },
    }


def measure_times(name: str, rounds: int) -> dict[str, Any]:
    """Median seconds of all, for one layer and one metric."""
    problem = load(name)
    given = corrupt(problem.y, "permuted", 0.2, 0)
    X, y, X_val, y_val = split(problem, given, 0)
    net = FrozenNetwork(train(problem._replace(steps=100), X, y, 0))  # weights do not matter
    cv = LatentKNNClassifierCV(net, metric=["euclidean"])

    def once(k: int) -> None:
        LatentKNNClassifier(net, n_neighbors=k).fit(X, y).predict(X_val)

    contenders = {
        "k = 3": lambda: once(3),
        "k = 100": lambda: once(max(cv.n_neighbors)),
        "CV": lambda: cv.fit(X, y, X_val=X_val, y_val=y_val),
    }
    seconds = median_seconds(contenders, rounds)
    return {
        "data": name,
        "samples": [len(y), len(y_val)],
        "settings": len(cv.cv_results_["params"]),
        "seconds": seconds,
        "ratios": {k: seconds["CV"] / seconds[k] for k in ("k = 3", "k = 100")},
    }


def table(results: dict[str, Any]) -> list[str]:
    """Form the table of accuracies in the guide, means over the seeds."""
    names = [*results["records"][0]["accuracy"]]
    groups: dict[str, list[Any]] = {}
    for r in results["records"]:
        values = [r["accuracy"][name] for name in names]
        groups.setdefault(f"{r['data']}, {r['rate']} % {r['noise']}", []).append(values)
    cells = [["labels", *names]]
    cells += [[key, *(f"{v:.3f}" for v in np.mean(rows, 0))] for key, rows in groups.items()]
    return rst_table(cells)


def time_table(results: dict[str, Any]) -> list[str]:
    """Form the table of times in the guide, in milliseconds."""
    cells = [["data", "samples", "to choose on", "k = 3", "k = 100", "CV", "/ k = 3", "/ k = 100"]]
    for r in results["times"]:
        figures = [f"{1e3 * s:.1f}" for s in r["seconds"].values()]
        figures += [f"{ratio:.2f}" for ratio in r["ratios"].values()]
        cells.append([r["data"], *(f"{n:,}" for n in r["samples"]), *figures])
    return rst_table(cells)


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    if "records" in results:
        print("\n".join(table(results)))
    if "times" in results:
        print("\n".join(time_table(results)))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", default=TABLES)
    parser.add_argument("--noises", nargs="+", default=["permuted", "flipped"])
    parser.add_argument("--rates", nargs="+", type=int, default=[20, 40])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        show(json.loads(RESULTS.read_text()))
        return
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    note_run(results)
    if args.seeds:
        keys = product(args.data, args.noises, args.rates, range(args.seeds))
        results["records"] = [measure(*key) for key in keys]
    if args.times:
        results["times"] = [measure_times(name, args.rounds) for name in args.data]
    show(results)
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
