"""Compare the results of every estimator before and after a refactoring.

    python benchmarks/equivalence.py --record FILE    # in a checkout of the code before
    python benchmarks/equivalence.py --against FILE [--changed PATTERN ...]   # in the one after

Small data, about a minute of one thread. The comparison writes `results/equivalence.json`; the test
that no result is older than what it measures then accepts code that changed before that record.
Arrays of integers and labels must be equal, floats to 1e-9 of the largest (1e-5 in float32). Counts
of evaluations may differ, and results may gain fields. Names that match a PATTERN ("*/score/*")
changed on purpose: they are not compared, the record lists them, and what measures them has to run
again.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import subprocess
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import command, machine, versions
from sklearn.datasets import load_digits, load_iris, load_wine, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale
from sklearn.svm import SVC
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
)

RESULTS = Path(__file__).parent / "results" / "equivalence.json"
METHODS = ["auto", "minimal", "pm", "score", "label", "segment"]
QUERY_METHODS = {"score", "label"}  # slower, so they get fewer samples
SAMPLERS: list[dict[str, Any]] = [
    {},
    {"placement": "boundary", "within_class": 0},
    {"instance_pairing": "one-to-one", "within_class": 0},
    {"class_pairs": "one-to-one"},
    {"bias": "top"},
    {"bias": "bottom"},
]
IGNORED = {"n_evaluations", "seconds"}

Named = Iterator[tuple[str, Any]]


def train(module: nn.Module, X: np.ndarray, y: np.ndarray, steps: int) -> nn.Module:
    """Train in place, all samples in each step."""
    inputs, labels = torch.as_tensor(X), torch.as_tensor(y)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    return module.eval()


def problems() -> dict[str, tuple[Any, np.ndarray, np.ndarray]]:
    """Classifiers of every kind, with their training samples."""
    iris, wine, digits = (load(return_X_y=True) for load in (load_iris, load_wine, load_digits))
    wine = scale(wine[0]), wine[1]
    images = (digits[0][:500].reshape(-1, 1, 8, 8) / 16).astype(np.float32), digits[1][:500]
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    cnn = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    return {
        "mlp": (train(mlp, *iris, 150), *iris),
        "cnn": (train(cnn, *images, 60), *images),
        "default": (None, *iris),
        "logistic": (LogisticRegression(), *wine),
        "svc": (SVC(), *wine),
        "forest": (RandomForestClassifier(20, random_state=0), *wine),
    }


def neighbors(estimator: Any, X: np.ndarray, y: np.ndarray) -> Named:
    """Results of LatentKNNClassifier and LatentTransformer."""
    clf = LatentKNNClassifier(estimator, n_neighbors=5, query_weight=0.6, random_state=0)
    yield "predict_proba", clf.fit(X, y).predict_proba(X[::3])
    yield "kneighbors", clf.kneighbors(X[:50])
    yield "sweep", clf.sweep(X, y)["mean_test_score"]
    yield "diagnose", clf.diagnose()
    yield "explain", clf.explain(X[:10])
    yield "logits", clf.set_params(average="logits").predict_proba(X[:40])
    yield "latent", LatentTransformer(estimator, random_state=0).fit(X, y).transform(X[:40])


def boundary(estimator: Any, X: np.ndarray, y: np.ndarray) -> Named:
    """Results of BoundarySampleExtractor with each method that the classifier supports."""
    for method in METHODS:
        few = method in QUERY_METHODS
        n, effort = (12, "fast") if few else (40, "balanced")
        extractor = BoundarySampleExtractor(estimator, method=method, effort=effort, random_state=0)
        try:
            extractor.fit(X, y)
        except ValueError:  # the classifier lacks gradients or scores
            continue
        yield f"{method}/pairs", extractor.extract_pairs(X[:n])
        yield f"{method}/transform", extractor.transform(X[-n:])
        yield f"{method}/extract", extractor.extract(n)
        yield f"{method}/random", extractor.extract(n, init="random")
        extractor.set_params(returns="perturbation", target="runner_up")
        yield f"{method}/perturbation", extractor.transform(X[:n])


def others(cases: dict[str, tuple[Any, np.ndarray, np.ndarray]]) -> Named:
    """Norms, class distances, reports, subspace margins, samplers."""
    mlp, X, y = cases["mlp"]
    for norm in (1, np.inf, "2sq"):
        extractor = BoundarySampleExtractor(mlp, method="pm", norm=norm, penalty=0.01)
        yield f"pm/{norm}", extractor.fit(X, y).extract_pairs(X[:30])
    extractor = BoundarySampleExtractor(mlp, returns="class_distances", bounds=(0, 8))
    yield "class_distances", extractor.fit(X, y).transform(X[:30])
    for name, method in (("mlp", "segment"), ("mlp", "pm"), ("svc", "segment")):
        estimator, X, y = cases[name]
        report = BoundaryCharacterizer(estimator, method=method, n_samples=20, random_state=0)
        yield f"report/{name}/{method}", report.fit(X, y, X_test=X[::2], y_test=y[::2]).report_
    for name, method, n in (
        ("cnn", "gradient", 10),
        ("logistic", "gradient", 20),
        ("forest", "label", 5),
    ):
        estimator, X, y = cases[name]
        margins = SubspaceMargins(estimator, method=method, random_state=0).fit(X, y)
        yield f"margins/{name}", margins.transform(X[:n])
    X, y = make_classification(
        600, 10, n_informative=5, n_classes=3, weights=[0.7, 0.2, 0.1], random_state=0
    )
    for name in ("logistic", "default", "forest"):
        for params in SAMPLERS:
            sampler = BiasedExtrapolationSampler(estimator=cases[name][0], random_state=0, **params)
            yield f"sampler/{name}/{params}", sampler.fit_resample(X, y)
            yield f"sampler/{name}/{params}/probabilities", sampler.probabilities_
    clf = BiasedExtrapolationClassifier(random_state=0).fit(X, y)
    yield "iterations", clf.predict_proba(X)


def results() -> dict[str, np.ndarray]:
    """All arrays by name."""
    arrays: dict[str, np.ndarray] = {}
    cases = problems()
    for name, case in cases.items():
        for kind in (neighbors, boundary):
            for key, value in kind(*case):
                _flatten(f"{name}/{key}", value, arrays)
    for key, value in others(cases):
        _flatten(key, value, arrays)
    return arrays


def _flatten(name: str, value: Any, arrays: dict[str, np.ndarray]) -> None:
    """Add the arrays inside a tuple, a named tuple or dataclass, or a mapping."""
    fields = getattr(value, "__dataclass_fields__", None) or getattr(value, "_fields", None)
    if fields is not None:
        value = {field: getattr(value, field) for field in fields}
    if isinstance(value, tuple):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in IGNORED and part is not None:
                _flatten(f"{name}/{key}", part, arrays)
    else:
        array = np.asarray(value)
        arrays[name] = array.astype(str) if array.dtype == object else array


def differ(old: np.ndarray, new: np.ndarray) -> bool:
    """Whether two arrays are not the same result."""
    if old.shape != new.shape:
        return True
    if old.dtype.kind != "f":
        return bool((old != new).any())
    finite = np.abs(old[np.isfinite(old)])
    tolerance = 1e-9 if new.dtype == np.float64 else 1e-5
    limit = tolerance * finite.max(initial=0.0)
    return not np.allclose(new, old, rtol=tolerance, atol=limit, equal_nan=True)


def commit() -> str:
    """Commit of the checkout."""
    run = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def main() -> None:
    """Parse the arguments; record, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--record", type=Path, metavar="FILE", help="write the arrays, an .npz file")
    group.add_argument("--against", type=Path, metavar="FILE", help="compare with these arrays")
    parser.add_argument("--changed", nargs="+", default=[], metavar="PATTERN")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    arrays = results()
    if args.record:
        np.savez(args.record, **arrays, commit=np.array(commit()))
        return
    with np.load(args.against) as file:
        before = dict(file)
    baseline = str(before.pop("commit"))
    kept = {
        name for name in before if not any(fnmatchcase(name, pattern) for pattern in args.changed)
    }
    wrong = [
        name for name in sorted(kept) if name not in arrays or differ(before[name], arrays[name])
    ]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(kept)} arrays differ: {wrong[:20]}")
    record = {"command": command(), "machine": machine(), "versions": versions("imbalanced-learn")}
    record |= {"before": baseline, "after": commit(), "arrays": len(kept)}
    record |= {"changed": args.changed}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    print(f"all {len(kept)} arrays equal those of {baseline[:7]}")


if __name__ == "__main__":
    main()
