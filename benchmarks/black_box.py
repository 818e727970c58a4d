"""Boundary points without gradients against HopSkipJump, at equal queries; part of boundary.py.

    python benchmarks/boundary.py --part black-box [--quick] [--rows 20]

Five kinds of classifiers on held-out samples of digits and of standardized breast cancer data, with
the range of the data as the box. A query is a sample passed to `predict`, and is counted there. The
alternative is HopSkipJump of the adversarial-robustness-toolbox (the `bench` extra; its own
dependencies are numpy, scipy, scikit-learn, six, setuptools and tqdm, so it can be installed with
the pinned versions), once from its own random start and once from the nearest training sample of
another class, which is our first start. Its number of iterations is such that it makes at least as
many queries as our budget. It ends with a step away from the boundary, so its points are moved back
by a bisection that is not counted. Contenders run in turn and are timed by CPU time of the process.
An interrupted run resumes with the missing combinations of classifier and data.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor

from skboundary.functional.query_search import label_search, score_search, segment_search

BUDGET = 2000
N_STARTS = 30
ITERATIONS = 9  # of HopSkipJump, with 100 initial votes: 2,031 queries or more
CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": lambda: LogisticRegression(max_iter=2000),
    "SVC": SVC,
    "KNeighbors": KNeighborsClassifier,
    "HistGradientBoosting": lambda: HistGradientBoostingClassifier(random_state=0),
    "RandomForest": lambda: RandomForestClassifier(random_state=0),
}


def load(name: str) -> tuple[Any, Any, Any]:
    """Load training samples, their labels and held-out samples."""
    X, y = load_digits(return_X_y=True) if name == "digits" else load_breast_cancer(return_X_y=True)
    X, X_test, y, _ = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
    if name == "digits":
        return X / 16, y, X_test / 16
    return (X - X.mean(0)) / X.std(0), y, (X_test - X.mean(0)) / X.std(0)


class Task:
    """A classifier that counts its queries, samples, and starting points."""

    def __init__(self, name: str, data: str, n_samples: int) -> None:
        X, y, X_test = load(data)
        self.clf = CLASSIFIERS[name]().fit(X, y)
        x = X_test[:n_samples]
        self.n_classes, self.n_queries = len(self.clf.classes_), 0
        self.x, self.source = torch.from_numpy(x), torch.from_numpy(self.clf.predict(x))
        predicted = self.clf.predict(X)
        starts = []
        for sample, label in zip(x, self.source.numpy()):
            others = X[predicted != label]
            order = np.argsort(((others - sample) ** 2).sum(1), kind="stable")
            starts.append(others[order[:N_STARTS]])
        self.starts = torch.from_numpy(np.stack(starts))
        self.box = min(X.min(), x.min()), max(X.max(), x.max())
        self.bounds = torch.tensor(self.box[0]), torch.tensor(self.box[1])
        # scores that are continuous and whose largest is that of the predicted class
        self.smooth = name == "LogisticRegression" or (name == "SVC" and self.n_classes == 2)

    def label(self, points: Tensor) -> Tensor:
        """Predict the classes of points."""
        self.n_queries += len(points)
        return torch.from_numpy(self.clf.predict(points.numpy()))

    def score(self, points: Tensor) -> Tensor:
        """Decision values of points, one column per class."""
        self.n_queries += len(points)
        values = torch.from_numpy(self.clf.decision_function(points.numpy()))
        return torch.stack([-values, values], 1) if values.ndim == 1 else values


def ours(task: Task) -> dict[str, Callable[[], Tensor]]:
    """Points of our searches; x where a search fails."""
    start = task.x, task.source

    def common(budget: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(0)
        return dict(bounds=task.bounds, starts=task.starts, generator=generator, budget=budget)

    searches = {
        "ten segments": lambda: segment_search(task.label, *start, starts=task.starts[:, :10]),
        "labels, 100": lambda: label_search(task.label, *start, **common(100)),
        "labels, 2000": lambda: label_search(task.label, *start, **common(BUDGET)),
    }
    if task.smooth:
        searches["scores, 353"] = lambda: score_search(task.score, *start, **common(353))
    return {name: lambda run=run: run().points for name, run in searches.items()}


def peers(task: Task) -> dict[str, Callable[[], Tensor]]:
    """Points of HopSkipJump."""
    try:
        from art.attacks.evasion import HopSkipJump
        from art.estimators.classification import BlackBoxClassifier
    except ImportError:
        sys.exit("The peer needs: python -m pip install -c constraints.txt '.[bench]'")

    def predict(points: Any) -> Any:
        labels = task.label(torch.from_numpy(points)).numpy()
        return np.eye(task.n_classes)[labels]

    classifier = BlackBoxClassifier(
        predict, tuple(task.x.shape[1:]), task.n_classes, clip_values=task.box
    )

    def run(nearest: bool) -> Tensor:
        np.random.seed(0)  # the attack draws from numpy's global generator
        attack = HopSkipJump(
            classifier, max_iter=ITERATIONS, max_eval=10_000, init_eval=100, verbose=False
        )
        first = task.starts[:, 0].numpy().astype(np.float32) if nearest else None
        found = attack.generate(task.x.numpy().astype(np.float32), x_adv_init=first)
        return torch.from_numpy(found).double()

    return {
        "HopSkipJump": lambda: run(False),
        "HopSkipJump, our start": lambda: run(True),
    }


def moved_back(task: Task, points: Tensor) -> Tensor:
    """Move points toward x as far as their class is kept, by 12 bisections."""
    change, high = points - task.x, torch.ones(len(points), dtype=torch.float64)
    low = torch.zeros_like(high)
    for _ in range(12):
        middle = (low + high) / 2
        across = task.label(task.x + middle[:, None] * change) != task.source
        low, high = torch.where(across, low, middle), torch.where(across, middle, high)
    return task.x + high[:, None] * change


def compare(task: Task) -> dict[str, Any]:
    """Distances, queries and times of all contenders on the same samples."""
    n = len(task.x)
    contenders = ours(task) | peers(task)
    points, seconds, queries = {}, {}, {}
    for name, run in contenders.items():
        task.n_queries, begin = 0, time.process_time()
        found = run()
        seconds[name], queries[name] = time.process_time() - begin, task.n_queries
        points[name] = moved_back(task, found) if "HopSkipJump" in name else found
    distances = {}
    for name, at in points.items():
        success = task.label(at) != task.source
        distances[name] = (at - task.x).norm(dim=1).where(success, torch.nan)
    records: dict[str, Any] = {}
    for name, distance in distances.items():
        gain = (distances["labels, 2000"] - distance)[distance.isfinite()]
        records[name] = {
            "success": distance.isfinite().double().mean().item(),
            "mean_distance": distance.nanmean().item(),
            "median_distance": distance.nanmedian().item(),
            "questions": queries[name] / n,
            "cpu_s_per_row": seconds[name] / n,
            "time_ratio": seconds[name] / seconds["labels, 2000"],
            "ours minus it": gain.mean().item(),  # over the samples for which it succeeded
            "standard_error": (gain.std() / len(gain) ** 0.5).item(),
        }
    return records


def black_box(args: argparse.Namespace) -> dict[str, Any]:
    """Run all classifiers on both data sets."""
    partial = args.out.with_suffix(".partial.json")
    records = json.loads(partial.read_text()) if partial.exists() else {}
    for name in CLASSIFIERS:
        for data in ("breast cancer", "digits"):
            key = f"{name}, {data}"
            if records.get(key, {}).get("rows") == args.rows:
                continue
            records[key] = {"rows": args.rows, "contenders": compare(Task(name, data, args.rows))}
            partial.write_text(json.dumps(records))
            for contender, r in records[key]["contenders"].items():
                print(
                    f"{key}, {contender}: {r['success']:.2f} {r['mean_distance']:.4f} "
                    f"{r['questions']:.0f} queries {r['cpu_s_per_row']:.3f} s",
                    flush=True,
                )
    partial.unlink()
    return records


COLUMNS = (
    "ten segments",
    "labels, 100",
    "labels, 2000",
    "scores, 353",
    "HopSkipJump",
    "HopSkipJump, our start",
)


def black_box_tables(records: dict[str, Any]) -> list[list[list[str]]]:
    """Cells of the tables in the user guide: distances with queries in brackets, and times."""
    distances = [["mean distance (queries)", *COLUMNS]]
    times = [["CPU time relative to labels, 2000", *COLUMNS[4:]]]
    for name, record in records.items():
        contenders = record["contenders"]
        line = []
        for column in COLUMNS:
            r = contenders.get(column)
            text = f"{r['mean_distance']:.3f} ({r['questions']:.0f})" if r else "-"
            line.append(text if not r or r["success"] == 1 else f"{text} in {r['success']:.0%}")
        distances.append([name, *line])
        times.append([name, *(f"{contenders[column]['time_ratio']:.1f}" for column in COLUMNS[4:])])
    return [distances, times]
