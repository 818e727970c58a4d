"""The third part of the tour: over-sampling of rare classes in a latent space."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from skboundary._tour._data import Problem
from skboundary._tour._neighbors import _heading
from skboundary._tour._network import Fold, train
from skboundary._tour._pictures import save_picture
from skboundary.display import ResamplingDisplay
from skboundary.networks import FrozenNetwork, LatentTransformer
from skboundary.over_sampling import BiasedExtrapolationSampler, LogitAdjustedClassifier

_OURS = "biased extrapolation"
_METRICS = ("PR-AUC", "balanced accuracy")
_PICTURE = "over_sampling.png"
_LAYOUT = "{:28}{:>20}{:>20}"
_NEIGHBORS = 5  # of SMOTE, which needs one sample more


def part_over_sampling(problem: Problem, out: Path) -> dict[str, Any]:
    """Compare over-samplers in the latent space of a network with rare classes."""
    minorities = problem.classes[1::2]
    _heading("Over-sampling: every second class made rare")
    reason = _reason_to_skip(problem, minorities)
    if reason:
        print(reason)
        return {"skipped": reason}
    runs: dict[str, list[dict[str, float]]] = {}
    for seed in problem.recipe.seeds:
        kept = _thin_out(problem, seed)
        net, _ = train(problem, Fold(kept, kept, problem.y_train), seed)["last"]
        for name, scores in _assess(problem, kept, net, seed).items():
            runs.setdefault(name, []).append(scores)
    labels, counts = np.unique(problem.y_train[kept], return_counts=True)
    figures = {name: _summary(scores) for name, scores in runs.items()}
    print(
        f"{len(minorities)} of {len(problem.classes)} classes keep a tenth of their training "
        "samples. A network is trained on the rest,\nand a logistic regression on its latent "
        "vectors, with and without synthetic samples.\nScores on all test samples: mean +- "
        f"standard deviation over {len(problem.recipe.seeds)} seeds; PR-AUC is the\nmean over the "
        "rare classes.\n"
    )
    print(_LAYOUT.format("method", *_METRICS))
    for name, figure in figures.items():
        cells = [f"{figure['mean'][m]:.3f} +- {figure['std'][m]:.3f}" for m in _METRICS]
        print(_LAYOUT.format(name, *cells))
    verdict = _verdict(figures)
    print("\n" + verdict)
    return {
        "rare_classes": minorities,
        "n_samples": dict(  # of the last seed
            zip(map(str, labels.tolist()), counts.tolist(), strict=True)
        ),
        "methods": figures,
        "verdict": verdict.replace("\n", " "),
        "picture": _picture(problem, kept, net, minorities, seed, out),
    }


def _reason_to_skip(problem: Problem, minorities: NDArray[Any]) -> str:
    """Return why the part cannot be run, in one line, or an empty string."""
    labels, counts = np.unique(problem.y_train, return_counts=True)
    if counts.min() < 2:
        return f"Skipped: class {labels[counts.argmin()]} has 1 training sample, and SMOTE needs 2."
    if not np.isin(minorities, problem.y_test).any():
        return "Skipped: the test samples contain none of the classes that would be made rare."
    return ""


def _thin_out(problem: Problem, seed: int) -> NDArray[np.intp]:
    """Shuffled samples, with a tenth of every second class, or as many as SMOTE needs."""
    rng = np.random.default_rng(seed)
    parts = []
    for i, label in enumerate(problem.classes):
        part = rng.permutation(np.flatnonzero(problem.y_train == label))
        keep = max(_NEIGHBORS + 1, round(len(part) / problem.recipe.imbalance))
        parts.append(part[:keep] if i % 2 else part)
    return rng.permutation(np.concatenate(parts))


def _assess(
    problem: Problem, kept: NDArray[np.intp], net: FrozenNetwork, seed: int
) -> dict[str, dict[str, float]]:
    """Fit each pipeline on the samples kept; score it on all test samples."""
    X, y = problem.X_train[kept], problem.y_train[kept]
    least = np.unique(y, return_counts=True)[1].min()
    samplers: dict[str, Any] = {
        "no over-sampling": "passthrough",
        "SMOTE": SMOTE(k_neighbors=min(_NEIGHBORS, max(1, least - 1)), random_state=seed),
        _OURS: BiasedExtrapolationSampler(device="cpu", random_state=seed),
    }
    proba = {}
    for name, sampler in samplers.items():
        pipeline = make_pipeline(
            LatentTransformer(net, device=problem.device),
            sampler,
            LogisticRegression(max_iter=1000),
        )
        pipeline.fit(X, y)
        proba[name] = pipeline.predict_proba(problem.X_test)
        if sampler == "passthrough":
            adjusted = LogitAdjustedClassifier(FrozenEstimator(pipeline), device="cpu").fit(X, y)
    proba["logit adjustment"] = adjusted.predict_proba(problem.X_test)
    return {name: _scores(problem, p) for name, p in proba.items()}


def _scores(problem: Problem, p: NDArray[Any]) -> dict[str, float]:
    """Score probabilities (n_test, n_classes)."""
    y, predicted = problem.y_test, problem.classes[p.argmax(1)]
    present = [(i, y == label) for i, label in enumerate(problem.classes) if (y == label).any()]
    return {
        "PR-AUC": float(
            np.mean([average_precision_score(t, p[:, i]) for i, t in present if i % 2])
        ),
        "balanced accuracy": float(np.mean([(predicted == y)[t].mean() for _, t in present])),
    }


def _summary(runs: list[dict[str, float]]) -> dict[str, Any]:
    scores = {metric: [run[metric] for run in runs] for metric in _METRICS}
    return {
        "scores": scores,
        "mean": {m: float(np.mean(values)) for m, values in scores.items()},
        "std": {m: float(np.std(values, ddof=len(runs) > 1)) for m, values in scores.items()},
    }


def _verdict(figures: dict[str, Any]) -> str:
    """Name the best method for each metric, and the gap to biased extrapolation."""
    lines = []
    for metric in _METRICS:
        mean = {name: figure["mean"][metric] for name, figure in figures.items()}
        best = max(mean, key=lambda name: mean[name])
        lines.append(f"Best {metric}: {best} ({mean[best]:.3f}).")
        if best != _OURS:
            gap = mean[best] - mean[_OURS]
            noise = max(figures[best]["std"][metric], figures[_OURS]["std"][metric])
            within = "within" if gap <= noise else "beyond"
            lines.append(f"  {_OURS} is {gap:.3f} below, {within} one standard deviation.")
    return "\n".join(lines)


def _picture(
    problem: Problem,
    kept: NDArray[np.intp],
    net: FrozenNetwork,
    minorities: NDArray[Any],
    seed: int,
    out: Path,
) -> dict[str, Any]:
    """Save a picture of the synthetic samples between a rare class and another one."""
    y = problem.y_train[kept]
    latent = LatentTransformer(net, device=problem.device).fit_transform(problem.X_train[kept], y)
    sampler = BiasedExtrapolationSampler(device="cpu", random_state=seed)
    sampler.fit_resample(latent, y)
    rare = [pair for pair in sampler.pairs_ if pair[0] in minorities]

    def draw(figure: Any) -> None:
        ResamplingDisplay.from_sampler(sampler, latent, y, pair=rare[0], ax=figure.subplots())

    return save_picture(
        out / _PICTURE, (10.0, 4.2), draw, "" if rare else "no rare class has synthetic samples"
    )
