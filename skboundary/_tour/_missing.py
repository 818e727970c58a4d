"""The tour's third part: which samples are missing?"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from skboundary._tour._data import Problem
from skboundary._tour._neighbors import _heading
from skboundary._tour._network import Fold, train
from skboundary.networks import FrozenNetwork, LatentTransformer
from skboundary.over_sampling import BiasedExtrapolationSampler

_OURS = "biased extrapolation"
_METRICS = ("PR-AUC", "balanced accuracy")
_LAYOUT = "{:28}{:>20}{:>20}"
_NEIGHBORS = 5  # of SMOTE, which needs one sample more than that


def part_missing(problem: Problem, out: Path) -> dict[str, Any]:
    """Over-sampling in the latent space of a network that saw too few of every second class."""
    minors = problem.classes[1::2]
    _heading("Which samples are missing? Every second class made small")
    reason = _reason_to_skip(problem, minors)
    if reason:
        print(reason)
        return {"skipped": reason}
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in problem.recipe.seeds:
        rows = _thin_out(problem, seed)
        net, _ = train(problem, Fold(rows, rows, problem.y_train), seed)["last"]
        for name, scores in _assess(problem, rows, net, seed).items():
            runs.setdefault(name, []).append(scores)
    labels, counts = np.unique(problem.y_train[rows], return_counts=True)
    figures = {name: _summary(scores) for name, scores in runs.items()}
    print(
        f"{len(minors)} of {len(problem.classes)} classes keep a tenth of their training rows. A "
        "network is trained on what is left,\nand a logistic regression on its latent vectors, "
        "with and without new samples there. All test rows:\nmean +- deviation of "
        f"{len(problem.recipe.seeds)} seeds; PR-AUC is the mean over the small classes.\n"
    )
    print(_LAYOUT.format("training rows of the head", *_METRICS))
    for name, figure in figures.items():
        cells = [f"{figure['mean'][m]:.3f} +- {figure['std'][m]:.3f}" for m in _METRICS]
        print(_LAYOUT.format(name, *cells))
    verdict = _verdict(figures)
    print("\n" + verdict)
    return {
        "small_classes": minors,
        "rows": dict(
            zip(map(str, labels.tolist()), counts.tolist(), strict=True)
        ),  # of the last seed
        "methods": figures,
        "verdict": verdict.replace("\n", " "),
    }


def _reason_to_skip(problem: Problem, minors: NDArray[Any]) -> str:
    """Why there is nothing to show, in one line; empty when there is."""
    labels, counts = np.unique(problem.y_train, return_counts=True)
    if counts.min() < 2:
        return f"Skipped: class {labels[counts.argmin()]} has 1 training row, and SMOTE needs 2."
    if not np.isin(minors, problem.y_test).any():
        return "Skipped: the test rows hold none of the classes that would be made small."
    return ""


def _thin_out(problem: Problem, seed: int) -> NDArray[np.intp]:
    """Rows in random order, of which every second class keeps a tenth, or what SMOTE needs."""
    rng = np.random.default_rng(seed)
    parts = []
    for i, label in enumerate(problem.classes):
        part = rng.permutation(np.flatnonzero(problem.y_train == label))
        keep = max(_NEIGHBORS + 1, round(len(part) / problem.recipe.imbalance))
        parts.append(part[:keep] if i % 2 else part)
    return rng.permutation(np.concatenate(parts))


def _assess(
    problem: Problem, rows: NDArray[np.intp], net: FrozenNetwork, seed: int
) -> dict[str, dict[str, float]]:
    """Fit each chain on the thinned rows; score it on all test rows."""
    X, y = problem.X_train[rows], problem.y_train[rows]
    least = np.unique(y, return_counts=True)[1].min()
    samplers: dict[str, Any] = {
        "no new samples": "passthrough",
        "SMOTE": SMOTE(k_neighbors=min(_NEIGHBORS, max(1, least - 1)), random_state=seed),
        _OURS: BiasedExtrapolationSampler(device="cpu", random_state=seed),
    }
    proba = {}
    for name, sampler in samplers.items():
        chain = make_pipeline(
            LatentTransformer(net, device=problem.device),
            sampler,
            LogisticRegression(max_iter=1000),
        )
        chain.fit(X, y)
        proba[name] = chain.predict_proba(problem.X_test)
    # post-hoc logit adjustment: the share of each class among the rows is divided out again
    prior = np.unique(y, return_counts=True)[1] / len(y)
    adjusted = proba["no new samples"] / prior
    proba["no new samples, adjusted"] = adjusted / adjusted.sum(1, keepdims=True)
    return {name: _scores(problem, p) for name, p in proba.items()}


def _scores(problem: Problem, p: NDArray[Any]) -> dict[str, float]:
    """Score probabilities (n_test, n_classes)."""
    y, said = problem.y_test, problem.classes[p.argmax(1)]
    there = [(i, y == label) for i, label in enumerate(problem.classes) if (y == label).any()]
    return {
        "PR-AUC": float(np.mean([average_precision_score(t, p[:, i]) for i, t in there if i % 2])),
        "balanced accuracy": float(np.mean([(said == y)[t].mean() for _, t in there])),
    }


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    scores = {metric: [run[metric] for run in runs] for metric in _METRICS}
    return {
        "scores": scores,
        "mean": {m: float(np.mean(values)) for m, values in scores.items()},
        "std": {m: float(np.std(values, ddof=len(runs) > 1)) for m, values in scores.items()},
    }


def _verdict(figures: dict[str, Any]) -> str:
    """Say for each metric what is best, and where biased extrapolation stands beside it."""
    lines = []
    for metric in _METRICS:
        mean = {name: figure["mean"][metric] for name, figure in figures.items()}
        best = max(mean, key=lambda name: mean[name])
        lines.append(f"Best {metric}: {best} ({mean[best]:.3f}).")
        if best != _OURS:
            gap = mean[best] - mean[_OURS]
            noise = max(figures[best]["std"][metric], figures[_OURS]["std"][metric])
            within = "within" if gap <= noise else "beyond"
            lines.append(f"  {_OURS} is {gap:.3f} below, {within} the deviation between seeds.")
    return "\n".join(lines)
