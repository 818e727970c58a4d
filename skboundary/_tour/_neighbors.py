"""The first part of the tour: LatentKNNClassifier against its base network."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skboundary._tour._data import Problem, Recipe
from skboundary._tour._network import Fold, train
from skboundary._tour._pictures import save_picture
from skboundary.display import NeighborsDisplay, QueryWeightDisplay
from skboundary.neighbors import LatentKNNClassifier, LatentKNNClassifierCV
from skboundary.networks import FrozenNetwork


class Assessed(NamedTuple):
    """A trained network and its scores on the test samples."""

    clf: LatentKNNClassifier  # with the setting selected on the validation samples
    net: FrozenNetwork
    epochs: int
    scores: dict[str, float]


def part_neighbors(problem: Problem, out: Path) -> dict[str, Any]:
    """Compare LatentKNNClassifier with its base network, sweep it and explain predictions."""
    recipe, noise = problem.recipe, problem.recipe.noise
    noisy = f"{noise:.0%} permuted"
    runs: dict[str, list[Assessed]] = {
        "clean, last epoch": [],
        f"{noisy}, last epoch": [],
        f"{noisy}, early stop": [],
    }
    clean, memorized, stopped = runs
    folds = {}
    for seed in recipe.seeds:
        fold = _fold(problem, seed, 0.0)
        runs[clean].append(_assess(problem, fold, *train(problem, fold, seed)["last"]))
        fold = folds[seed] = _fold(problem, seed, noise)
        snapshots = train(problem, fold, seed)
        runs[memorized].append(_assess(problem, fold, *snapshots["last"]))
        runs[stopped].append(_assess(problem, fold, *snapshots["early"]))
    first, run = recipe.seeds[0], runs[memorized][0]
    swept = run.clf.sweep(
        problem.X_test,
        problem.y_test,
        n_neighbors=recipe.n_neighbors,
        query_weight=recipe.query_weight,
    )
    least = np.argsort(run.net.predict_proba(problem.X_test).max(1), kind="stable")[:3]
    return {
        "accuracy": _print_accuracy(runs, recipe),
        "verdict": _print_verdict(runs[memorized], runs[stopped]),
        "sweep": _print_sweep(recipe, swept, run.clf, first, out),
        "least_certain": _print_explanations(problem, run, folds[first], first, least),
        "picture": _picture(problem, run.clf, folds[first], least, out),
    }


def _fold(problem: Problem, seed: int, noise: float) -> Fold:
    """Permute a share of the labels (a few keep their value), then split."""
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
    choice = LatentKNNClassifierCV(
        net,
        n_neighbors=recipe.n_neighbors,
        query_weight=recipe.query_weight,
        metric=["cosine"],
        device=problem.device,
    ).fit(X[fit], y[fit], X_val=X[val], y_val=y[val])
    clf, chosen = choice.best_estimator_, choice.best_params_
    scores = {
        "train": net.score(X[fit], y[fit]),
        "base": net.score(*test),
        "paper": clf.set_params(n_neighbors=3, query_weight=0.88).score(*test),
    }
    scores["chosen"] = clf.set_params(**chosen).score(*test)
    return Assessed(clf, net, epochs, scores)


def _print_accuracy(runs: dict[str, list[Assessed]], recipe: Recipe) -> dict[str, Any]:
    _heading("LatentKNNClassifier against the base network")
    print(
        "Accuracy on the test samples, whose labels are clean: mean +- standard deviation over "
        f"{len(recipe.seeds)} seeds.\nPaper: k=3, w=0.88. Chosen: the k and w with the best "
        f"accuracy on a held-out {recipe.validation:.0%} of\nthe training samples, whose labels "
        "are as noisy.\n"
    )
    layout = "{:25}{:>6}{:>7}{:>17}{:>17}{:>17}"
    print(layout.format("training labels", "epochs", "train", "base network", "paper", "chosen"))
    figures = {name: _summary(assessed) for name, assessed in runs.items()}
    for name, figure in figures.items():
        mean, std = figure["mean"], figure["std"]
        cells = [f"{mean[key]:.3f} +- {std[key]:.3f}" for key in ("base", "paper", "chosen")]
        epochs = f"{np.mean(figure['epochs']):.0f}"
        print(layout.format(name, epochs, f"{mean['train']:.3f}", *cells))
    print("\nChosen k/w for each seed:")
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
    """Compare with early stopping, and state whether there was noise to correct."""
    last, early = _summary(memorized), _summary(stopped)
    base, neighbors = last["mean"]["base"], max(last["mean"]["paper"], last["mean"]["chosen"])
    stopped_base = early["mean"]["base"]
    gap = stopped_base - max(base, neighbors)
    first, then = "beats both", "and"
    if gap <= 0:
        first, then = ("beats", "but not") if stopped_base > base else ("beats neither", "nor")
    lines = [
        f"The base network stopped early ({stopped_base:.3f}) {first} the base network of the "
        f"last epoch ({base:.3f})",
        f"{then} LatentKNNClassifier on the latter ({neighbors:.3f}).",
        f"On the network stopped early, LatentKNNClassifier reaches {early['mean']['chosen']:.3f}.",
    ]
    if 0 < abs(gap) <= max(early["std"]["base"], last["std"]["chosen"]):
        lines.append(f"The gap of {abs(gap):.3f} is within one standard deviation over the seeds.")
    if last["mean"]["train"] < 0.9:
        lines.append(
            f"The noisy labels are not memorized (training accuracy {last['mean']['train']:.3f}), "
            "so neighbors are expected to help less."
        )
    print("\n" + "\n".join(lines))
    return " ".join(lines)


def _print_sweep(
    recipe: Recipe, swept: dict[str, Any], clf: LatentKNNClassifier, seed: int, out: Path
) -> dict[str, Any]:
    ks, ws = recipe.n_neighbors, recipe.query_weight
    grid = swept["mean_test_score"].reshape(len(ks), len(ws))
    _heading("Sweep over k and query_weight")
    print(
        f"Accuracy on the test samples: permuted labels, last epoch, seed {seed}. The star marks "
        "the setting\nselected on the validation samples; w=1 is the base network.\n"
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
        "samples": "test",
        "n_neighbors": ks,
        "query_weight": ws,
        "accuracy": grid,
        "chosen": (clf.n_neighbors, clf.query_weight),
        "picture": save_picture(
            out / "sweep.png",
            (2.0 + 0.8 * len(ws), 1.5 + 0.6 * len(ks)),
            lambda figure: QueryWeightDisplay.from_sweep(swept, ax=figure.subplots()),
        ),
    }


def _print_explanations(
    problem: Problem, run: Assessed, fold: Fold, seed: int, least: NDArray[np.intp]
) -> list[dict[str, Any]]:
    clf = run.clf
    explanation = clf.explain(problem.X_test[least])
    _heading("Neighbors of the test samples with the least confident predictions")
    print(
        f"Permuted labels, last epoch, seed {seed}, k={clf.n_neighbors}, w={clf.query_weight:g}; "
        f"at most five neighbors are listed.\nEach neighbor contributes the network's output for "
        f"it, not its label, with weight {explanation.weights[0, 0]:.3f}."
    )
    found = []
    for i, sample in enumerate(least):
        figures = {
            "test_sample": problem.test_index[sample],
            "true": problem.y_test[sample],
            "before": _prediction(problem.classes, explanation.query_outputs[i]),
            "after": _prediction(problem.classes, explanation.proba[i]),
            "neighbors": [
                {
                    "training_sample": problem.train_index[j],
                    "given": explanation.labels[i, rank],
                    "true": problem.y_train[j],
                    "predicted": _prediction(problem.classes, explanation.outputs[i, rank]),
                    "distance": explanation.distances[i, rank],
                }
                for rank, j in enumerate(fold.fit[explanation.indices[i]])
            ],
        }
        _print_explanation(figures)
        found.append(figures)
    return found


def _print_explanation(figures: dict[str, Any]) -> None:
    before, after = figures["before"], figures["after"]
    print(
        f"\ntest sample {figures['test_sample']}: true label {figures['true']}; base network "
        f"{before[0]} ({before[1]:.2f}); with neighbors {after[0]} ({after[1]:.2f})"
    )
    for neighbor in figures["neighbors"][:5]:
        label, probability = neighbor["predicted"]
        print(
            f"    training sample {neighbor['training_sample']:>5}: distance "
            f"{neighbor['distance']:.4f}, given label {neighbor['given']}, true label "
            f"{neighbor['true']}, predicted as {label} ({probability:.2f})"
        )


def _picture(
    problem: Problem, clf: LatentKNNClassifier, fold: Fold, least: NDArray[np.intp], out: Path
) -> dict[str, Any]:
    """Save a picture of the neighbors of the least confident predictions."""
    X, k = problem.X_train, clf.n_neighbors
    images = X.ndim == 4 and X.shape[1] in (1, 3)
    size = (5.0 + k, 5.4) if images else (9.0, 2.4 + k)

    def draw(figure: Any) -> None:
        NeighborsDisplay.from_estimator(
            clf,
            problem.X_test[least],
            X_train=X[fold.fit] if images else None,
            ax=figure.subplots(),
        )

    return save_picture(out / "neighbors.png", size, draw)


def _prediction(classes: NDArray[Any], outputs: NDArray[Any]) -> tuple[Any, float]:
    return classes[outputs.argmax()], float(outputs.max())


def _heading(title: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}")
