"""Distance against queries: searches by labels and scores, HopSkipJump, SurFree and CGBA.

    python benchmarks/black_box_curve.py --surfree DIR --cgba DIR [--quick] [--rows 12]
    python benchmarks/black_box_curve.py --table

DIR are checkouts of https://github.com/t-maho/SurFree and https://github.com/Farhamdur/CGBA, of
which nothing is in this repository. Classifiers of tables and networks of images, held-out samples,
and the range of the data as the box; every search starts from the nearest training sample of
another class (ours from the nearest ten). HopSkipJump is that of the adversarial-robustness-toolbox
(the `bench` extra). The others have their own settings, see query_peers.py: SurFree with its low
frequencies for images, CGBA with a quarter of the frequencies along an axis and with all of them.
Their distance after q queries is that of the nearest point across the boundary among those q; ours
is that of the result of a search with the budget q. Images need the folder named by
SKBOUNDARY_DATA. An interrupted run resumes with the missing combinations.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import query_peers
import torch
from black_box import Task
from boundary_networks import get_network
from data_folder import load_mnist
from provenance import command, machine, versions
from real_latents import load_cifar
from rst_table import rst_table
from torch import Tensor

from skboundary.functional.query_search import label_search, score_search

RESULTS = Path(__file__).parent / "results" / "black_box_curve.json"
BUDGETS = 20, 50, 100, 500, 2000
TABLES = {
    "random forest, breast cancer": ("RandomForest", "breast cancer"),
    "random forest, digits": ("RandomForest", "digits"),
    "boosted trees, digits": ("HistGradientBoosting", "digits"),
    "logistic regression, digits": ("LogisticRegression", "digits"),
}
IMAGES = {"network, MNIST": "cnn", "network, CIFAR-10": "cifar"}
N_TRAINING = 10_000  # images among which the nearest of another class is sought
N_STARTS = 10


class ImageTask:
    """A network, test images of its own classes, and their starting points."""

    def __init__(self, name: str, n_samples: int, cache: Path) -> None:
        if name == "cnn":
            data = load_mnist()
        else:
            X, y, X_test, y_test = load_cifar()
            data = (X + 1) / 2, y, (X_test + 1) / 2, y_test
        self.net, self.accuracy = get_network(name, cache, data)
        self.x, X = data[2][:n_samples], data[0][:N_TRAINING]
        self.source, predicted = self.label(self.x), self.label(X)
        distance = torch.cdist(self.x.flatten(1), X.flatten(1))
        distance[self.source[:, None] == predicted] = torch.inf
        self.starts = X[distance.sort(dim=1, stable=True).indices[:, :N_STARTS]]
        self.box, self.n_classes, self.smooth = (0.0, 1.0), 10, True

    @torch.no_grad()
    def score(self, points: Tensor) -> Tensor:
        """Logits of images, or of their pixels as vectors."""
        return torch.cat(
            [
                self.net(part.unflatten(1, self.x.shape[1:]) if part.ndim == 2 else part)
                for part in points.split(500)
            ]
        )

    def label(self, points: Tensor) -> Tensor:
        """Predict the classes of images, or of their pixels as vectors."""
        return self.score(points).argmax(1)


def ours(task: Any, search: Callable[..., Any], budget: int) -> np.ndarray:
    """Distances (n,) of the results of a search with a budget."""
    is_image = task.x.ndim > 2
    x = task.x.flatten(1)
    found = search(
        task.label if search is label_search else task.score,
        x,
        task.source,
        starts=task.starts[:, :N_STARTS].flatten(2),
        bounds=tuple(torch.tensor(side, dtype=x.dtype) for side in task.box),
        generator=torch.Generator().manual_seed(0),
        image_shape=tuple(task.x.shape[1:]) if is_image else None,
        budget=budget,
    )
    assert found.n_forward.max() <= budget and found.success.all()
    assert (task.label(found.points) != task.source).all()
    return (found.points - x).double().norm(dim=1).numpy()


def curves(task: Any, search: Callable[[query_peers.Recorder], Any]) -> np.ndarray:
    """Distances (n, n_budgets) of another search, from our first start."""
    found = []
    for x, source, starts in zip(task.x, task.source, task.starts):
        start = query_peers.Start(
            task.label, x, int(source), starts[0], task.box, task.n_classes, x.ndim > 1
        )
        found.append(query_peers.run(search, start, max(BUDGETS)))
    return np.stack(found)[:, np.array(BUDGETS) - 1]


def contenders(task: Any, args: argparse.Namespace) -> dict[str, Callable[[], np.ndarray]]:
    """Distances (n, n_budgets) of each search."""

    def by_budget(search: Callable[..., Any]) -> Callable[[], np.ndarray]:
        return lambda: np.stack([ours(task, search, budget) for budget in BUDGETS], 1)

    runs = {"label": by_budget(label_search)}
    if task.smooth:
        runs["score"] = by_budget(score_search)
    peers = {"HopSkipJump": query_peers.hop_skip_jump()}
    if args.surfree:
        peers["SurFree"] = query_peers.surfree(args.surfree)
    if args.cgba:
        for factor in (1, 4) if task.x.ndim > 2 else (1,):
            name = "CGBA" if factor == 1 else "CGBA, low frequencies"
            peers[name] = query_peers.cgba(args.cgba, "CGBA", factor)
    return runs | {name: lambda peer=peer: curves(task, peer) for name, peer in peers.items()}


def summary(distances: np.ndarray, label: np.ndarray) -> dict[str, list[float]]:
    """Means over the samples at each budget, and our distance minus this one."""
    gain = label - distances
    return {
        "mean_distance": distances.mean(0).tolist(),
        "median_distance": np.median(distances, 0).tolist(),
        "label minus it": gain.mean(0).tolist(),
        "standard_error": (gain.std(0, ddof=1) / len(gain) ** 0.5).tolist(),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run all tasks; those in the partial file already are kept."""
    partial = args.out.with_suffix(".partial.json")
    records = json.loads(partial.read_text()) if partial.exists() else {}
    for name in args.tasks:
        if records.get(name, {}).get("rows") == args.rows:
            continue
        if name in TABLES:
            task: Any = Task(*TABLES[name], args.rows)
        else:
            task = ImageTask(IMAGES[name], args.rows, args.cache)
        found = {}
        for contender, run in contenders(task, args).items():
            found[contender] = run()
            means = " ".join(f"{d:.3f}" for d in found[contender].mean(0))
            print(f"{name}, {contender}: {means}", flush=True)
        records[name] = {
            "rows": args.rows,
            "contenders": {key: summary(d, found["label"]) for key, d in found.items()},
        }
        partial.write_text(json.dumps(records))
    partial.unlink()
    return records


def table(results: dict[str, Any]) -> list[str]:
    """Lines of the table in the user guide: mean distances by budget."""
    cells = [["mean distance after queries", *map(str, results["budgets"])]]
    for name, record in results["records"].items():
        for contender, found in record["contenders"].items():
            cells.append(
                [f"{name}: {contender}", *(f"{mean:.3f}" for mean in found["mean_distance"])]
            )
    return rst_table(cells)


def main() -> None:
    """Measure and write the JSON, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--surfree", type=Path, help="checkout of SurFree")
    parser.add_argument("--cgba", type=Path, help="checkout of CGBA")
    parser.add_argument("--rows", type=int, default=12, help="number of samples")
    parser.add_argument("--quick", action="store_true", help="three samples")
    parser.add_argument("--table", action="store_true")
    every = [*TABLES, *IMAGES]
    parser.add_argument("--tasks", nargs="+", choices=every, default=every)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "skboundary")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        print("\n".join(table(json.loads(args.out.read_text()))))
        return
    args.rows = 3 if args.quick else args.rows
    torch.set_num_threads(1)
    results = {
        "command": command(),
        "seed": 0,
        "machine": machine(),
        "versions": versions("adversarial-robustness-toolbox"),
        "budgets": BUDGETS,
        "records": measure(args),
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
