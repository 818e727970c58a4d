"""Wrong labels found by neighbors in a latent space, by cleanlab, and by the network itself.

Labels of training samples are permuted, or flipped to the next class, and a network is trained on
them for so long that it predicts nearly all of them. Contenders score the labels:

- "vote", "rank": `label_issues` on the latent space of that network, 30 neighbors;
- "earlier": the vote in the layer before that one, where less is memorized;
- "stopped": the vote in the latent space of a network that was stopped early instead;
- "in X": the vote in X, without a network;
- "kNN": the share of other labels among 30 neighbors in X;
- "Datalab": that share among ten neighbors in the latent space, which is what Datalab makes of
  features without probabilities;
- "self": one minus the probability that the network gives to the label, which it was trained on;
- "cleanlab": confident learning out of five folds, five further trainings. Datalab gives the same
  scores to these probabilities.

"accuracy" is that on test samples, of the network as trained, stopped early, and trained again
without the issues of "vote", with its suggestions, or without the issues of "stopped" or cleanlab.
--times measures what each contender takes beyond the training of its network, the median of three
rounds on 20 % permuted labels; it needs an idle machine. Networks run on a GPU if there is one.

Usage: python benchmarks/label_issues.py [--data digits satimage mnist cifar10] [--seeds 3]
[--times] [--jobs 1] [--out benchmarks/results/label_issues.json], and --table to print the tables
of the guide; with --seeds 0 --times nothing but the times is measured. SKBOUNDARY_DATA names the
folder of the data other than digits. cleanlab is needed beyond the requirements of the package,
and Pillow for cifar10. Parts are merged by benchmarks/merge_results.py.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from boundary_networks import make_cifar, make_cnn
from data_folder import data_reader, load_images
from numpy.typing import NDArray
from provenance import note_run
from quiet import median_seconds
from rst_table import rst_table
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier, TorchNearestNeighbors
from skboundary.neighbors._label_issues import label_issues, label_shares, vote_weights

RESULTS = Path(__file__).parent / "results/label_issues.json"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
K = 30
DATA = ["digits", "optical_digits", "satimage", "pen_digits", "mnist", "cifar10"]
N_TABLE, N_IMAGES = 1_000, (6_000, 2_000)  # samples for training; for training and test


class Problem(NamedTuple):
    """Data, and how a network memorizes its labels."""

    make: Callable[[], nn.Module]
    earlier: str  # the hidden layer before the last
    steps: int
    batch: int
    rate: float  # of Adam
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]


def make_mlp(n_features: int, n_classes: int) -> nn.Module:
    """Build two hidden layers."""
    return nn.Sequential(
        nn.Linear(n_features, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, n_classes),
    )


@cache
def load(name: str) -> Problem:
    """Load a table, or images."""
    if name in ("mnist", "cifar10"):
        return _images(name)
    X, y = load_digits(return_X_y=True) if name == "digits" else data_reader().tabular(name)
    X = StandardScaler().fit_transform(X).astype(np.float32)
    y = np.unique(y, return_inverse=True)[1]
    X, X_test, y, y_test = train_test_split(X, y, train_size=N_TABLE, random_state=0, stratify=y)
    make = partial(make_mlp, X.shape[1], y.max() + 1)
    return Problem(make, "1", 500, 256, 5e-3, X, y, X_test, y_test)


def _images(name: str) -> Problem:
    make, earlier = (make_cnn, "5") if name == "mnist" else (make_cifar, "7")
    return Problem(make, earlier, 2000, 128, 2e-3, *load_images(name, *N_IMAGES))


def corrupt(y: NDArray[Any], kind: str, rate: float, seed: int) -> NDArray[Any]:
    """Permute a share of the labels, or flip it to the next class."""
    rng, given = np.random.default_rng(seed), y.copy()
    chosen = rng.permutation(len(y))[: round(rate * len(y))]
    flipped = (y[chosen] + 1) % (y.max() + 1)
    given[chosen] = y[rng.permutation(chosen)] if kind == "permuted" else flipped
    return given


def train(
    problem: Problem, X: NDArray[Any], y: NDArray[Any], seed: int, held: Any = None
) -> nn.Module:
    """Train a network; with held-out samples, return the one of the epoch that was best on them."""
    torch.manual_seed(seed)
    net = problem.make().to(DEVICE)
    samples, labels = (torch.from_numpy(a).to(DEVICE) for a in (X, y))
    optimizer = torch.optim.Adam(net.parameters(), problem.rate)
    best, best_score = net, -1.0
    for _ in range(math.ceil(problem.steps * problem.batch / len(problem.y))):
        net.train()
        for part in torch.randperm(len(labels), device=DEVICE).split(problem.batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(samples[part]), labels[part]).backward()
            optimizer.step()
        if held is not None:
            score = accuracy(net.eval(), *held)
            if score > best_score:
                best, best_score = copy.deepcopy(net), score
    return best.eval()


def stopped_early(problem: Problem, y: NDArray[Any], seed: int) -> nn.Module:
    """Train on nine tenths of the samples; the others, with labels as noisy, select the epoch."""
    order = np.random.default_rng([seed, 1]).permutation(len(y))  # not the one of the labels
    held, rest = order[: len(y) // 10], order[len(y) // 10 :]
    return train(problem, problem.X[rest], y[rest], seed, (problem.X[held], y[held]))


def outputs(net: nn.Module, X: NDArray[Any]) -> NDArray[Any]:
    """Compute probabilities batch by batch."""
    with torch.no_grad():
        parts = torch.from_numpy(X).split(512)
        return torch.cat([net(part.to(DEVICE)).softmax(1) for part in parts]).cpu().numpy()


def accuracy(net: nn.Module, X: NDArray[Any], y: NDArray[Any]) -> float:
    """Share of correct predictions."""
    return float((outputs(net, X).argmax(1) == y).mean())


def contenders(
    problem: Problem, net: nn.Module, stopped: nn.Module, given: NDArray[Any], seed: int
) -> dict[str, Callable[[], Any]]:
    """Return functions that compute the `score` of each label, and what else is needed of them."""
    X, each = problem.X, (np.arange(len(given)), given)

    def latent(method: str, layer: str = "auto", net: nn.Module = net) -> Any:
        clf = LatentKNNClassifier(FrozenNetwork(net), layer=layer).fit(X, given)
        return clf.label_issues(n_neighbors=K, method=method)

    def in_samples(repeated: bool) -> Any:
        flat = X.reshape(len(X), -1)
        near = TorchNearestNeighbors(K).fit(flat).kneighbors(return_distance=False)
        return _vote(given, near, repeated)

    def datalab() -> Any:
        clf = LatentKNNClassifier(FrozenNetwork(net)).fit(X, given)
        return _vote(given, clf.kneighbors(n_neighbors=10)[1], False)

    def cleanlab() -> Any:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        p = np.empty((len(X), given.max() + 1))
        for fold, held in StratifiedKFold(5, shuffle=True, random_state=seed).split(X, given):
            p[held] = outputs(train(problem, X[fold], given[fold], seed), X[held])
        found = find_label_issues(given, p, n_jobs=1)
        return Bunch(score=1 - get_label_quality_scores(given, p), is_issue=found)

    return {
        "vote": partial(latent, "vote"),
        "rank": partial(latent, "rank"),
        "earlier": partial(latent, "vote", problem.earlier),
        "stopped": partial(latent, "vote", net=stopped),
        "in X": partial(in_samples, True),
        "kNN": partial(in_samples, False),
        "Datalab": datalab,
        "self": lambda: Bunch(score=1 - outputs(net, X)[each]),
        "cleanlab": cleanlab,
    }


def _vote(given: NDArray[Any], near: NDArray[Any], repeated: bool) -> Any:
    weights = vote_weights(given, near) if repeated else np.ones(len(given))
    classes = np.unique(given)
    shares = label_shares(given[near], weights[near], len(classes))
    return label_issues(given, shares, classes, "vote")


def measure(name: str, kind: str, rate: int, seed: int) -> dict[str, Any]:
    """Scores and accuracies of one data set, noise and seed."""
    torch.set_num_threads(1)
    problem = load(name)
    given = corrupt(problem.y, kind, rate / 100, seed)
    wrong, X = given != problem.y, problem.X
    net, stopped = train(problem, X, given, seed), stopped_early(problem, given, seed)
    scores = contenders(problem, net, stopped, given, seed)
    found = {k: score() for k, score in scores.items()}

    def without(issues: Any) -> nn.Module:
        return train(problem, X[~issues.is_issue], given[~issues.is_issue], seed)

    vote = found["vote"]
    relabeled = np.where(vote.is_issue, vote.suggested_label, given)
    trained = {
        "as given": net,
        "stopped early": stopped,
        "removed": without(vote),
        "relabeled": train(problem, X, relabeled, seed),
        "removed by stopped": without(found["stopped"]),
        "removed by cleanlab": without(found["cleanlab"]),
    }
    return {
        "data": name,
        "noise": kind,
        "rate": rate,
        "seed": seed,
        "memorized": accuracy(net, X, given),
        "auroc": {k: float(roc_auc_score(wrong, f.score)) for k, f in found.items()},
        "average precision": {
            k: float(average_precision_score(wrong, f.score)) for k, f in found.items()
        },
        "accuracy": {k: accuracy(n, problem.X_test, problem.y_test) for k, n in trained.items()},
    }


def _measure(key: tuple[int, str, str, int]) -> dict[str, Any]:
    seed, *setting = key
    return measure(*setting, seed)


def measure_times(name: str, rounds: int = 3) -> dict[str, Any]:
    """Median seconds of each contender, all in turn."""
    problem = load(name)
    given = corrupt(problem.y, "permuted", 0.2, 0)
    nets = train(problem, problem.X, given, 0), stopped_early(problem, given, 0)
    scores = contenders(problem, *nets, given, 0)
    seconds = median_seconds(scores, rounds)
    return {"data": name, "samples": len(given), "device": DEVICE.type, "seconds": seconds}


def table(results: dict[str, Any], figure: str = "auroc") -> list[str]:
    """Form the table of the guide, means over rates and seeds: "auroc" or "accuracy"."""
    names = [*results["records"][0][figure]]
    cells = [["labels", *names]]
    for key, means in _means(results["records"], figure, "data", "noise").items():
        cells.append([", ".join(key), *(f"{mean:.3f}" for mean in means)])
    return rst_table(cells)


def shortfall_table(results: dict[str, Any]) -> list[str]:
    """Form the table of how far each contender is behind the best one in each setting."""
    means = np.array([*_means(results["records"], "auroc", "data", "noise", "rate").values()])
    behind = means.max(1, keepdims=True) - means
    cells = [["contender", "mean", "within .01", "largest shortfall"]]
    for i, name in enumerate(results["records"][0]["auroc"]):
        within = f"{(behind[:, i] <= 0.01).sum()} of {len(behind)}"
        cells.append([name, f"{means[:, i].mean():.3f}", within, f"{behind[:, i].max():.3f}"])
    return rst_table(cells)


def time_table(results: dict[str, Any]) -> list[str]:
    """Form the table of seconds in the guide."""
    names = [*results["times"][0]["seconds"]]
    cells = [["data", "samples", "on", *names]]
    for r in results["times"]:
        figures = [f"{r['seconds'][name]:.3f}" for name in names]
        cells.append([r["data"], f"{r['samples']:,}", r["device"], *figures])
    return rst_table(cells)


def _means(
    records: list[dict[str, Any]], figure: str, *keys: str
) -> dict[tuple[Any, ...], NDArray[np.float64]]:
    """Means of a figure of all contenders over the records with the same values of some keys."""
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for r in records:
        groups.setdefault(tuple(r[key] for key in keys), []).append([*r[figure].values()])
    return {key: np.mean(values, axis=0) for key, values in groups.items()}


def save(results: dict[str, Any], path: Path | None) -> None:
    """Write what has been measured so far."""
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")


def show(results: dict[str, Any]) -> None:
    """Print the tables of the guide, and figures that it leaves out."""
    if "records" in results:
        for figure in ("auroc", "average precision", "accuracy"):
            print("\n".join([figure, *table(results, figure), ""]))
        print("\n".join([*shortfall_table(results), ""]))
        for r in results["records"]:
            print(*(r[key] for key in ("data", "noise", "rate", "seed", "memorized")))
    if "times" in results:
        print("\n".join(time_table(results)))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--noises", nargs="+", default=["permuted", "flipped"])
    parser.add_argument("--rates", nargs="+", type=int, default=[5, 10, 20, 40])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--times", action="store_true")
    jobs = 8 if DEVICE.type == "cuda" else 1
    parser.add_argument("--jobs", type=int, default=jobs, help="processes that train and score")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        show(json.loads(RESULTS.read_text()))
        return
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    note_run(results, "cleanlab")
    if args.seeds:
        results["records"] = []
        # seeds vary slowest, so that what is saved of an interrupted run covers the settings
        keys = product(range(args.seeds), args.data, args.noises, args.rates)
        with get_context("spawn").Pool(args.jobs) as pool:
            for record in pool.imap(_measure, keys):
                results["records"].append(record)
                save(results, args.out)
    if args.times:
        results["times"] = [measure_times(name) for name in args.data]
        save(results, args.out)
    show(results)


if __name__ == "__main__":
    main()
