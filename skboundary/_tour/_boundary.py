"""The second part of the tour: borderline pairs of two classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary._tour._data import Problem
from skboundary._tour._neighbors import _heading
from skboundary._tour._network import Fold, train
from skboundary.boundary import BoundaryPairs, BoundarySampleExtractor
from skboundary.networks import FrozenNetwork

_STARTS = {"noise": "random", "training samples": "data"}  # values of `init`
_LAYOUT = "{:18}{:>8}{:>10}{:>22}{:>12}{:>14}{:>13}"
_N_DRAWN = 5  # pairs of each start in the picture
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
    """Save a picture of z, z + delta and delta of the first pairs, or print why there is none."""
    X = next(iter(pairs.values())).inner
    shown = {name: np.flatnonzero(found.success)[:_N_DRAWN] for name, found in pairs.items()}
    reason = ""
    if X.ndim != 4:
        reason = "samples that are vectors cannot be drawn"
    elif not any(map(len, shown.values())):
        reason = "no pair was found"
    elif find_spec("matplotlib") is None:
        reason = "matplotlib is not installed (the plot extra)"
    if reason:
        print(f"\nNo picture: {reason}.")
        return {"skipped": reason}
    _draw(pairs, shown, out / _PICTURE)
    print(f"\nPicture of z, z + delta and delta: {out / _PICTURE}")
    return {"file": _PICTURE}


def _draw(pairs: dict[str, BoundaryPairs], shown: dict[str, NDArray[np.intp]], path: Path) -> None:
    from matplotlib.figure import Figure

    columns = [(name, pairs[name], i) for name, index in shown.items() for i in index]
    ends = np.concatenate([[p.inner[i], p.outer[i]] for _, p, i in columns])
    low, high = ends.min(), ends.max()
    reach = max(np.abs(p.outer[i] - p.inner[i]).max() for _, p, i in columns) or 1.0
    figure = Figure(figsize=(1.1 * len(columns) + 1, 4.2), layout="constrained")
    axes = figure.subplots(3, len(columns), squeeze=False)
    for column, (name, p, i) in zip(axes.T, columns, strict=True):
        _show(column[0], p.inner[i], low, high, "gray")
        _show(column[1], p.outer[i], low, high, "gray")
        _show(column[2], p.outer[i] - p.inner[i], -reach, reach, "RdBu_r")
        column[0].set_title(f"from {name}" if i == shown[name][0] else "", fontsize=9, loc="left")
        column[0].set_xlabel(f"{p.source[i]}", fontsize=8)
        column[1].set_xlabel(f"{p.target[i]}", fontsize=8)
        column[2].set_xlabel(f"{p.distance[i]:.2f}", fontsize=8)
    for ax, name in zip(axes[:, 0], ("z", "z + delta", "delta"), strict=True):
        ax.set_ylabel(name, fontsize=9)
    figure.savefig(path, dpi=120)


def _show(ax: Any, image: NDArray[Any], low: float, high: float, cmap: str) -> None:
    """Draw an image (channels, height, width): three channels in color, otherwise the first."""
    if len(image) == 3:
        ax.imshow(((image - low) / (high - low or 1)).transpose(1, 2, 0).clip(0, 1))
    else:
        ax.imshow(image[0], cmap=cmap, vmin=low, vmax=high)
    ax.set_xticks([])
    ax.set_yticks([])
