"""What the tour shows: its data, its network, and one function for each part."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import platform
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor, nn

import skboundary
from skboundary._runtime import check_finite, forked_rng, to_tensor
from skboundary.neighbors import LatentKNNClassifier
from skboundary.networks import FrozenNetwork

_KEYS = ("X_train", "y_train", "X_test", "y_test")
_MIN_TRAIN = 50


class Recipe(NamedTuple):
    """Sizes, seeds and settings of the tour."""

    seeds: tuple[int, ...] = (0, 1, 2)
    max_train: int = 2000
    max_test: int = 2000
    validation: float = 0.2  # share of the training rows that the network does not see
    noise: float = 0.32  # share of the training labels that are permuted
    max_epochs: int = 80
    enough: float = 0.99  # training accuracy at which training ends
    batch_size: int = 64
    learning_rate: float = 0.002
    n_neighbors: tuple[int, ...] = (1, 3, 8, 20)
    query_weight: tuple[float, ...] = (0.0, 0.25, 0.52, 0.76, 0.88, 0.94, 1.0)


class Problem(NamedTuple):
    """The data: images (n, channels, height, width) or vectors (n, d), and labels."""

    description: str
    X_train: NDArray[Any]
    y_train: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    train_rows: NDArray[np.intp]  # where the rows stand in the data they were drawn from
    test_rows: NDArray[np.intp]
    classes: NDArray[Any]
    device: torch.device
    recipe: Recipe


class Fold(NamedTuple):
    """Training rows of one seed: what the network sees, and what is kept for choosing."""

    fit: NDArray[np.intp]
    val: NDArray[np.intp]
    y: NDArray[Any]  # labels of all training rows, with noise if any


class Assessed(NamedTuple):
    """A trained network and what it reaches on the test rows."""

    clf: LatentKNNClassifier  # with the setting that the validation rows chose
    net: FrozenNetwork
    epochs: int
    scores: dict[str, float]


# ------------------------------------------------------------------------------------ data


def load_problem(path: str | None, device: torch.device, recipe: Recipe) -> Problem:
    """Take scikit-learn's digits, or the rows of a file.

    Raises
    ------
    ValueError, OSError
        For a file that cannot be used, in one line.
    """
    if path is None:
        return _digits(device, recipe)
    parts = _read(Path(path))
    X_train, X_test = _images_or_vectors(parts, "X_train"), _images_or_vectors(parts, "X_test")
    if X_train.shape[1:] != X_test.shape[1:]:
        raise ValueError(
            f"X_train has rows of shape {parts['X_train'].shape[1:]}, but X_test has rows of "
            f"shape {parts['X_test'].shape[1:]}."
        )
    y_train, y_test = _labels(parts, "train"), _labels(parts, "test")
    if len(y_train) < _MIN_TRAIN:
        raise ValueError(f"X_train has {len(y_train)} rows; the tour needs {_MIN_TRAIN} or more.")
    classes = np.unique(y_train)
    if len(classes) < 2:
        raise ValueError(f"y_train holds 1 class, {classes[0]}; the tour needs 2 or more.")
    known = set(classes.tolist())
    unknown = [c for c in np.unique(y_test).tolist() if c not in known]
    if unknown:
        raise ValueError(f"y_test holds {unknown[0]!r}, which y_train does not.")
    train = _draw(len(y_train), recipe.max_train)
    test = _draw(len(y_test), recipe.max_test)
    description = (
        f"{path}: {len(train)} of {len(y_train)} training rows and {len(test)} of {len(y_test)} "
        f"test rows of shape {parts['X_train'].shape[1:]}, {len(classes)} classes."
    )
    y_test = classes[np.searchsorted(classes, y_test)]  # one dtype
    return Problem(
        description, X_train[train], y_train[train], X_test[test], y_test[test], train, test,
        classes, device, recipe,
    )  # fmt: skip


def _digits(device: torch.device, recipe: Recipe) -> Problem:
    X, y = load_digits(return_X_y=True)
    X = X.reshape(-1, 1, 8, 8).astype(np.uint8)
    train, test = train_test_split(np.arange(len(y)), test_size=1 / 3, stratify=y, random_state=0)
    train, test = train[: recipe.max_train], test[: recipe.max_test]
    description = (
        f"scikit-learn's handwritten digits, 8 x 8 pixels: {len(train)} training and "
        f"{len(test)} test images."
    )
    return Problem(
        description, X[train], y[train], X[test], y[test], train, test, np.unique(y), device, recipe
    )


def _read(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is no npz file (numpy.savez writes one).")
        file.seek(0)
        try:
            archive = np.load(file, allow_pickle=False)
            missing = [key for key in _KEYS if key not in archive.files]
            parts = {} if missing else {key: np.asarray(archive[key]) for key in _KEYS}
        except (ValueError, EOFError, RuntimeError, MemoryError, BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive.files)}.")
    return parts


def _images_or_vectors(parts: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """Check rows; images get their channels first, integers stay integers."""
    X = parts[name]
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {X.dtype}, not numbers.")
    if X.ndim not in (2, 3, 4) or X.size == 0:
        raise ValueError(
            f"{name} has shape {X.shape}; images (n, H, W), (n, H, W, C) or (n, C, H, W), or "
            "vectors (n, d) are wanted."
        )
    check_finite(X, name)
    if X.dtype.kind == "f":
        with np.errstate(over="ignore"):
            X = X.astype(np.float32)  # what the network computes in
        check_finite(X, f"{name} as float32")
    if X.ndim == 3:
        return X[:, None]
    if X.ndim == 4 and X.shape[3] < X.shape[1]:
        return X.transpose(0, 3, 1, 2)
    return X


def _labels(parts: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    y, n_rows = parts[f"y_{name}"], len(parts[f"X_{name}"])
    if y.ndim != 1:
        raise ValueError(f"y_{name} has shape {y.shape}; one label a row, (n,), is wanted.")
    if len(y) != n_rows:
        raise ValueError(f"X_{name} has {n_rows} rows, but y_{name} has {len(y)} labels.")
    if y.dtype.kind not in "biufUS":
        raise ValueError(f"y_{name} holds {y.dtype}, neither numbers nor strings.")
    check_finite(y, f"y_{name}")
    y = y.astype(str) if y.dtype.kind == "S" else y
    check_classification_targets(y)
    return y


def _draw(n_rows: int, most: int) -> NDArray[np.intp]:
    """All rows, or `most` of them at random, in their order."""
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(0).permutation(n_rows)[:most])


# --------------------------------------------------------------------------------- network


class Standardize(nn.Module):
    """Subtract a mean and divide by a deviation: of each column, or of all pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, X: NDArray[Any]) -> None:
        super().__init__()
        axis = 0 if X.ndim == 2 else None
        sample = X if X.ndim == 2 else X[:500]  # so many images tell, and large ones fit
        std = np.asarray(sample.std(axis=axis, dtype=np.float64))
        self.register_buffer("mean", torch.tensor(sample.mean(axis=axis, dtype=np.float64)).float())
        self.register_buffer("std", torch.tensor(np.where(std > 0, std, 1.0)).float())

    def forward(self, x: Tensor) -> Tensor:
        """Standardise a batch."""
        return (x - self.mean) / self.std


def build_network(shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Two convolutions and a hidden layer for images, two hidden layers for vectors."""
    if len(shape) == 1:
        front = [nn.Linear(shape[0], 256), nn.ReLU()]
    else:
        # strides bring an image to about 14 x 14 pixels, and pooling to about 4 x 4
        stride = [max(1, round(side / 14)) for side in shape[1:]]
        pool = [max(1, side // s // 4) for side, s in zip(shape[1:], stride)]
        kernel = (stride[0] + 2, stride[1] + 2)
        front = [
            nn.Conv2d(shape[0], 16, kernel, stride=(stride[0], stride[1]), padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d((pool[0], pool[1])),
            nn.Flatten(),
        ]  # fmt: skip
    width = nn.Sequential(*front)(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(*front, nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, n_classes))


def train(problem: Problem, fold: Fold, seed: int) -> dict[str, tuple[FrozenNetwork, int]]:
    """Train until the training labels are known by heart.

    Returns
    -------
    snapshots : dict
        "last": the network at the end; "early": the same run at its best validation accuracy,
        the labels of which are as noisy as those of training. Each with its number of epochs.
    """
    recipe = problem.recipe
    standardize = Standardize(problem.X_train[fold.fit]).to(problem.device)
    X = to_tensor(problem.X_train[fold.fit], device=problem.device)
    codes = np.searchsorted(problem.classes, fold.y[fold.fit])
    y = torch.from_numpy(codes).to(problem.device)
    with forked_rng(seed):
        module = build_network(X.shape[1:], len(problem.classes)).to(problem.device)
        net = FrozenNetwork(
            module, classes=problem.classes, preprocess=standardize, device=problem.device
        )
        optimizer = torch.optim.Adam(module.parameters(), lr=recipe.learning_rate)
        early, early_epoch, best, epoch = net, 0, -1.0, 0
        hits = 0
        while epoch < recipe.max_epochs and hits < recipe.enough * len(y):
            epoch, hits = epoch + 1, 0
            for batch in torch.randperm(len(y)).to(problem.device).split(recipe.batch_size):
                logits = module(standardize(X[batch].float()))
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(logits, y[batch]).backward()
                optimizer.step()
                hits += int((logits.argmax(1) == y[batch]).sum())
            accuracy = net.score(problem.X_train[fold.val], fold.y[fold.val])
            if accuracy > best:
                best, early_epoch = accuracy, epoch
                early = FrozenNetwork(**{**net.get_params(), "module": copy.deepcopy(module)})
    return {"last": (net, epoch), "early": (early, early_epoch)}


# ------------------------------------------------------------------------------ neighbours


def part_neighbours(problem: Problem, out: Path) -> dict[str, Any]:
    """LatentKNNClassifier: where it helps, its two parameters, and what it explains."""
    recipe, noise = problem.recipe, problem.recipe.noise
    noisy = f"{noise:.0%} permuted"
    rows: dict[str, list[Assessed]] = {
        "clean, last epoch": [], f"{noisy}, last epoch": [], f"{noisy}, early stop": []
    }  # fmt: skip
    clean, memorised, stopped = rows
    folds = {}
    for seed in recipe.seeds:
        fold = _fold(problem, seed, 0.0)
        rows[clean].append(_assess(problem, fold, *train(problem, fold, seed)["last"]))
        fold = folds[seed] = _fold(problem, seed, noise)
        snapshots = train(problem, fold, seed)
        rows[memorised].append(_assess(problem, fold, *snapshots["last"]))
        rows[stopped].append(_assess(problem, fold, *snapshots["early"]))
    first = recipe.seeds[0]
    return {
        "accuracy": _print_accuracy(rows, recipe),
        "verdict": _print_verdict(rows[memorised], rows[stopped]),
        "sweep": _print_sweep(problem, rows[memorised][0].clf, first),
        "least_certain": _print_explanations(problem, rows[memorised][0], folds[first], first),
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
        "train": net.score(X[fit], y[fit]), "bare": net.score(*test), "paper": clf.score(*test)
    }  # fmt: skip
    swept = clf.sweep(
        X[val], y[val], n_neighbors=recipe.n_neighbors, query_weight=recipe.query_weight
    )
    # of equally good settings the one nearest to the bare network
    ranked = zip(swept["rank_test_score"], swept["params"])
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


def _print_verdict(memorised: list[Assessed], stopped: list[Assessed]) -> str:
    """Say what early stopping does by itself, and whether there was anything to repair."""
    last, early = _summary(memorised), _summary(stopped)
    bare, neighbours = last["mean"]["bare"], max(last["mean"]["paper"], last["mean"]["chosen"])
    stopped_bare = early["mean"]["bare"]
    gap = stopped_bare - max(bare, neighbours)
    first, then = "beats both", "and"
    if gap <= 0:
        first, then = ("beats", "but not") if stopped_bare > bare else ("beats neither", "nor")
    lines = [
        f"The bare early-stopped net ({stopped_bare:.3f}) {first} the bare net of the last epoch "
        f"({bare:.3f})",
        f"{then} that net with its neighbours ({neighbours:.3f}); with its own neighbours it "
        f"reaches {early['mean']['chosen']:.3f}.",
    ]
    if 0 < abs(gap) <= max(early["std"]["bare"], last["std"]["chosen"]):
        lines.append(f"The gap of {abs(gap):.3f} is no larger than the deviation between seeds.")
    if last["mean"]["train"] < 0.9:
        lines.append(
            f"The noisy labels are not memorised (training accuracy {last['mean']['train']:.3f}): "
            "expect less of neighbours."
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
    for k, scores in zip(ks, grid):
        stars = ["*" if (k, w) == (clf.n_neighbors, clf.query_weight) else " " for w in ws]
        print(f"{k:>7}" + "".join(f"{s:>7.3f}{t}" for s, t in zip(scores, stars)).rstrip())
    return {
        "seed": seed, "rows": "test", "n_neighbors": ks, "query_weight": ws, "accuracy": grid,
        "chosen": (clf.n_neighbors, clf.query_weight),
    }  # fmt: skip


def _print_explanations(
    problem: Problem, run: Assessed, fold: Fold, seed: int
) -> list[dict[str, Any]]:
    clf = run.clf
    certainty = run.net.predict_proba(problem.X_test).max(1)
    least = np.argsort(certainty, kind="stable")[:3]
    why = clf.explain(problem.X_test[least])
    _heading("Neighbours of the test rows that the bare net is least certain of")
    print(
        f"Permuted labels, last epoch, seed {seed}, k={clf.n_neighbors}, w={clf.query_weight:g}; "
        f"at most five are listed. Each neighbour\ncounts {why.weights[0, 0]:.3f}, with what "
        "the network says of it, not with its label."
    )
    found = []
    for i, row in enumerate(least):
        figures = {
            "test_row": problem.test_rows[row],
            "true": problem.y_test[row],
            "before": _said(problem.classes, why.query_outputs[i]),
            "after": _said(problem.classes, why.proba[i]),
            "neighbours": [
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
        f"({before[1]:.2f}); with neighbours {after[0]} ({after[1]:.2f})"
    )
    for near in figures["neighbours"][:5]:
        says, probability = near["says"]
        print(
            f"    training row {near['train_row']:>5}: distance {near['distance']:.4f}, given "
            f"{near['given']}, true {near['true']}, network says {says} ({probability:.2f})"
        )


def _said(classes: NDArray[Any], outputs: NDArray[Any]) -> tuple[Any, float]:
    return classes[outputs.argmax()], float(outputs.max())


# ------------------------------------------------------------------------------ house-keeping

# What the tour shows, in this order; a part prints, may save into `out`, returns its figures.
PARTS: dict[str, Callable[[Problem, Path], dict[str, Any]]] = {"neighbours": part_neighbours}


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: more only wait for each other in networks this small.

    On a busy machine two threads took 25 times as long; and sums come out the same anywhere.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def versions() -> dict[str, str]:
    """Versions that the figures depend on."""
    return {
        "skboundary": skboundary.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
    }


def _heading(title: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}")
