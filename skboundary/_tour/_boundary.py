"""The second part of the tour: borderline pairs of two classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary._tour._data import Problem
from skboundary._tour._neighbors import _heading
from skboundary._tour._network import Fold, train
from skboundary._tour._pictures import save_picture
from skboundary.boundary import BoundaryPairs, BoundarySampleExtractor
from skboundary.display import BoundaryPairsDisplay
from skboundary.networks import FrozenNetwork

_STARTS = {"noise": "random", "training samples": "data"}  # values of `init`
_LAYOUT = "{:18}{:>8}{:>10}{:>22}{:>12}{:>14}{:>13}"
_PICTURE = "borderline.png"


def part_boundary(problem: Problem, out: Path) -> dict[str, Any]:
    """Extract borderline pairs of two classes, from noise and from training samples."""
    source, target = problem.classes[:2]
    _heading(f"Borderline pairs between {source} and {target}")
    seed, everything = problem.recipe.seeds[0], np.arange(len(problem.y_train))
    net, epochs = train(problem, Fold(everything, everything, problem.y_train), seed)["last"]
    reason = _reason_to_skip(problem, net)
    if reason:
        print(reason)
        return {"skipped": reason}
    extractor = BoundarySampleExtractor(
        net, method="pm", device=problem.device, random_state=seed
    ).fit(problem.X_train, problem.y_train)
    pairs = {
        name: extractor.extract(problem.recipe.pairs, source=source, target=target, init=init)
        for name, init in _STARTS.items()
    }
    print(
        f"PM finds pairs z and z + delta with the shortest delta for which the network predicts "
        f"one as {source} and the\nother as {target}, each with a probability of about "
        f"{extractor.confidence:g}. Medians of the pairs that were found:\n"
    )
    print(
        _LAYOUT.format(
            "z starts from",
            "pairs",
            "found",
            "length of delta",
            f"p({source}) at z",
            f"p({target}) beyond",
            "evaluations",
        )
    )
    figures = {name: _figures(net, found) for name, found in pairs.items()}
    for name, figure in figures.items():
        print(
            _LAYOUT.format(
                name,
                figure["pairs"],
                figure["found"],
                *("-" if v is None else f"{v:.3g}" for v in figure["median"].values()),
            )
        )
    return {
        "classes": problem.classes[:2].tolist(),
        "network": {"epochs": epochs, "accuracy": net.score(problem.X_test, problem.y_test)},
        "starts": figures,
        "picture": _picture(pairs, out),
    }


def _reason_to_skip(problem: Problem, net: FrozenNetwork) -> str:
    """Return why there are no samples to start from, in one line, or an empty string."""
    correct = problem.y_train[net.predict(problem.X_train) == problem.y_train]
    for label in problem.classes[:2]:
        if label not in correct:
            return f"Skipped: the network predicts no training sample of class {label} correctly."
    return ""


def _figures(net: FrozenNetwork, pairs: BoundaryPairs) -> dict[str, Any]:
    ok = pairs.success
    values: dict[str, NDArray[Any]] = {
        "length": pairs.distance[ok],
        "p_source": _proba(net, pairs.inner[ok], pairs.source[ok]),
        "p_target": _proba(net, pairs.outer[ok], pairs.target[ok]),
        "evaluations": pairs.n_evaluations[ok],
    }
    status, counts = np.unique(pairs.status, return_counts=True)
    return {
        "pairs": len(pairs),
        "found": int(ok.sum()),
        "status": dict(zip(status.tolist(), counts.tolist(), strict=True)),
        "median": {k: float(np.median(v)) if len(v) else None for k, v in values.items()},
    }


def _proba(net: FrozenNetwork, X: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    """Predicted probability of the given label of each sample."""
    if not len(X):
        return np.empty(0)
    columns = np.searchsorted(net.classes_, labels)
    return net.predict_proba(X)[np.arange(len(X)), columns]


def _picture(pairs: dict[str, BoundaryPairs], out: Path) -> dict[str, Any]:
    """Save a picture of the first pairs from each start."""
    found = {name: _drawable(p) for name, p in pairs.items() if p.success.any()}
    if not found:
        return save_picture(out / _PICTURE, (1, 1), lambda figure: None, "no pair was found")
    images = next(iter(found.values())).inner.ndim == 4

    def draw(figure: Any) -> None:
        parts = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
        for part, (name, p) in zip(parts, found.items(), strict=True):
            part.suptitle(f"Starts from {name}")
            BoundaryPairsDisplay.from_pairs(p, n=8 if images else 4, ax=part.subplots())

    width, height = (9.0, 4.0) if images else (13.0, 3.6)
    return save_picture(out / _PICTURE, (width, height * len(found)), draw)


def _drawable(pairs: BoundaryPairs) -> BoundaryPairs:
    """Keep the first channel of images with neither one nor three."""
    if pairs.inner.ndim != 4 or pairs.inner.shape[1] in (1, 3):
        return pairs
    return replace(pairs, inner=pairs.inner[:, :1], outer=pairs.outer[:, :1])
