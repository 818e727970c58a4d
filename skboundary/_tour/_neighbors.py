"""The tour's first part: what do the neighbors say?"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skboundary._tour._data import Problem, Recipe
from skboundary._tour._network import Fold, train
from skboundary.neighbors import LatentKNNClassifier
from skboundary.networks import FrozenNetwork


class Assessed(NamedTuple):
    """A trained network and what it reaches on the test rows."""

    clf: LatentKNNClassifier  # with the setting that the validation rows chose
    net: FrozenNetwork
    epochs: int
    scores: dict[str, float]


def part_neighbors(problem: Problem, out: Path) -> dict[str, Any]:
    """LatentKNNClassifier: where it helps, its two parameters, and what it explains."""
    recipe, noise = problem.recipe, problem.recipe.noise
    noisy = f"{noise:.0%} permuted"
    rows: dict[str, list[Assessed]] = {
        "clean, last epoch": [],
        f"{noisy}, last epoch": [],
        f"{noisy}, early stop": [],
    }
    clean, memorized, stopped = rows
    folds = {}
    for seed in recipe.seeds:
        fold = _fold(problem, seed, 0.0)
        rows[clean].append(_assess(problem, fold, *train(problem, fold, seed)["last"]))
        fold = folds[seed] = _fold(problem, seed, noise)
        snapshots = train(problem, fold, seed)
        rows[memorized].append(_assess(problem, fold, *snapshots["last"]))
        rows[stopped].append(_assess(problem, fold, *snapshots["early"]))
    first = recipe.seeds[0]
    return {
        "accuracy": _print_accuracy(rows, recipe),
        "verdict": _print_verdict(rows[memorized], rows[stopped]),
        "sweep": _print_sweep(problem, rows[memorized][0].clf, first),
        "least_certain": _print_explanations(problem, rows[memorized][0], folds[first], first),
    }


def _fold(problem: Problem, seed: int, noise: float) -> Fold:
    """Permute a share of the labels among themselves (some keep theirs), then split."""
    rng = np.random.default_rng(seed)
    y = problem.y_train.copy()
    n_validation = round(problem.recipe.validation * len(y))
    order = rng.permutation(len(y))
    touched = rng.permutation(len(y))[: round(noise * len(y))]
    y[touched] = y[rng.permutation(touched)]
    return Fold(order[n_validation:], order[:n_validation], y)


def _assess(problem: Problem, fold: Fold, net: FrozenNetwork, epochs: int) -> Assessed:
    recipe, X, (fit, val, y) = problem.recipe, problem.X_train, fold
    test = problem.X_test, problem.y_test
    clf = LatentKNNClassifier(net, metric="cosine", device=problem.device).fit(X[fit], y[fit])
    scores = {
        "train": net.score(X[fit], y[fit]),
        "bare": net.score(*test),
        "paper": clf.score(*test),
    }
    swept = clf.sweep(
        X[val], y[val], n_neighbors=recipe.n_neighbors, query_weight=recipe.query_weight
    )
    # of equally good settings the one nearest to the bare network
    ranked = zip(swept["rank_test_score"], swept["params"], strict=True)
    chosen = min(ranked, key=lambda pair: (pair[0], -pair[1]["query_weight"]))[1]
    scores["chosen"] = clf.set_params(**chosen).score(*test)
    return Assessed(clf, net, epochs, scores)


def _print_accuracy(rows: dict[str, list[Assessed]], recipe: Recipe) -> dict[str, Any]:
    _heading("LatentKNNClassifier against the bare network")
    print(
        f"Accuracy on the test rows, whose labels are clean: mean +- deviation of "
        f"{len(recipe.seeds)} seeds.\nPaper: k=3, w=0.88. Chosen: the k and w that are best on "
        f"validation rows, a {recipe.validation:.0%}\nof the training rows that the network does "
        "not see and whose labels are as noisy.\n"
    )
    layout = "{:25}{:>6}{:>7}{:>17}{:>17}{:>17}"
    print(layout.format("training labels", "epochs", "train", "bare net", "paper", "chosen"))
    figures = {name: _summary(runs) for name, runs in rows.items()}
    for name, figure in figures.items():
        mean, std = figure["mean"], figure["std"]
        cells = [f"{mean[key]:.3f} +- {std[key]:.3f}" for key in ("bare", "paper", "chosen")]
        epochs = f"{np.mean(figure['epochs']):.0f}"
        print(layout.format(name, epochs, f"{mean['train']:.3f}", *cells))
    print("\nChosen k/w of each seed:")
    for name, figure in figures.items():
        print(f"{name:25}", " ".join(f"{k}/{w:g}" for k, w in figure["settings"]))
    return figures


def _summary(runs: list[Assessed]) -> dict[str, Any]:
    scores = {key: [float(run.scores[key]) for run in runs] for key in runs[0].scores}
    return {
        "scores": scores,
        "mean": {key: float(np.mean(values)) for key, values in scores.items()},
        "std": {key: float(np.std(values, ddof=len(runs) > 1)) for key, values in scores.items()},
        "epochs": [run.epochs for run in runs],
        "settings": [(run.clf.n_neighbors, run.clf.query_weight) for run in runs],
    }


def _print_verdict(memorized: list[Assessed], stopped: list[Assessed]) -> str:
    """Say what early stopping does by itself, and whether there was anything to repair."""
    last, early = _summary(memorized), _summary(stopped)
    bare, neighbors = last["mean"]["bare"], max(last["mean"]["paper"], last["mean"]["chosen"])
    stopped_bare = early["mean"]["bare"]
    gap = stopped_bare - max(bare, neighbors)
    first, then = "beats both", "and"
    if gap <= 0:
        first, then = ("beats", "but not") if stopped_bare > bare else ("beats neither", "nor")
    lines = [
        f"The bare early-stopped net ({stopped_bare:.3f}) {first} the bare net of the last epoch "
        f"({bare:.3f})",
        f"{then} that net with its neighbors ({neighbors:.3f}); with its own neighbors it "
        f"reaches {early['mean']['chosen']:.3f}.",
    ]
    if 0 < abs(gap) <= max(early["std"]["bare"], last["std"]["chosen"]):
        lines.append(f"The gap of {abs(gap):.3f} is no larger than the deviation between seeds.")
    if last["mean"]["train"] < 0.9:
        lines.append(
            f"The noisy labels are not memorized (training accuracy {last['mean']['train']:.3f}): "
            "expect less of neighbors."
        )
    print("\n" + "\n".join(lines))
    return " ".join(lines)


def _print_sweep(problem: Problem, clf: LatentKNNClassifier, seed: int) -> dict[str, Any]:
    recipe = problem.recipe
    ks, ws = recipe.n_neighbors, recipe.query_weight
    swept = clf.sweep(problem.X_test, problem.y_test, n_neighbors=ks, query_weight=ws)
    grid = swept["mean_test_score"].reshape(len(ks), len(ws))
    _heading("Sweep over k and query_weight")
    print(
        f"Accuracy on the test rows: permuted labels, last epoch, seed {seed}. The star marks "
        "what the\nvalidation rows chose; w=1 is the bare net.\n"
    )
    print("  k \\ w" + "".join(f"{w:>8g}" for w in ws))
    for k, scores in zip(ks, grid, strict=True):
        stars = ["*" if (k, w) == (clf.n_neighbors, clf.query_weight) else " " for w in ws]
        print(
            f"{k:>7}"
            + "".join(f"{s:>7.3f}{t}" for s, t in zip(scores, stars, strict=True)).rstrip()
        )
    return {
        "seed": seed,
        "rows": "test",
        "n_neighbors": ks,
        "query_weight": ws,
        "accuracy": grid,
        "chosen": (clf.n_neighbors, clf.query_weight),
    }


def _print_explanations(
    problem: Problem, run: Assessed, fold: Fold, seed: int
) -> list[dict[str, Any]]:
    clf = run.clf
    certainty = run.net.predict_proba(problem.X_test).max(1)
    least = np.argsort(certainty, kind="stable")[:3]
    why = clf.explain(problem.X_test[least])
    _heading("Neighbors of the test rows that the bare net is least certain of")
    print(
        f"Permuted labels, last epoch, seed {seed}, k={clf.n_neighbors}, w={clf.query_weight:g}; "
        f"at most five are listed. Each neighbor\ncounts {why.weights[0, 0]:.3f}, with what "
        "the network says of it, not with its label."
    )
    found = []
    for i, row in enumerate(least):
        figures = {
            "test_row": problem.test_rows[row],
            "true": problem.y_test[row],
            "before": _said(problem.classes, why.query_outputs[i]),
            "after": _said(problem.classes, why.proba[i]),
            "neighbors": [
                {
                    "train_row": problem.train_rows[j],
                    "given": why.labels[i, place],
                    "true": problem.y_train[j],
                    "says": _said(problem.classes, why.outputs[i, place]),
                    "distance": why.distances[i, place],
                }
                for place, j in enumerate(fold.fit[why.indices[i]])
            ],
        }
        _print_explanation(figures)
        found.append(figures)
    return found


def _print_explanation(figures: dict[str, Any]) -> None:
    before, after = figures["before"], figures["after"]
    print(
        f"\ntest row {figures['test_row']}: true {figures['true']}; bare net {before[0]} "
        f"({before[1]:.2f}); with neighbors {after[0]} ({after[1]:.2f})"
    )
    for near in figures["neighbors"][:5]:
        says, probability = near["says"]
        print(
            f"    training row {near['train_row']:>5}: distance {near['distance']:.4f}, given "
            f"{near['given']}, true {near['true']}, network says {says} ({probability:.2f})"
        )


def _said(classes: NDArray[Any], outputs: NDArray[Any]) -> tuple[Any, float]:
    return classes[outputs.argmax()], float(outputs.max())


def _heading(title: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}")
