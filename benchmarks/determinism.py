"""How far results depend on threads, batch sizes, jobs and processes, in float64 and float32.

    python benchmarks/determinism.py

Each search runs on the same digits with 1 and 2 threads of torch and in batches of 1, 7, 64 and all
samples. The results are compared with those of one thread and one batch: statuses and classes, and
the points, which count as moved if they lie further from those of the reference than 1 % of their
distance from the sample. Then all of it runs in a second process and in 2 jobs, whose results must
have the same bytes.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import command, versions
from rst_table import rst_table
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from skboundary import (
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchNearestNeighbors,
)

RESULTS = Path(__file__).parent / "results" / "determinism.json"
GUIDE = Path(__file__).parent.parent / "docs" / "user_guide" / "determinism.rst"
BEGIN, END = ".. begin of the shares", ".. end of the shares"
METHODS = ["minimal", "pm", "score", "label", "segment"]
BATCHES = [1, 7, 64, "all"]
MOVED = 0.01  # of its distance from the sample
N_SAMPLES = 80


def digits(dtype: Any) -> tuple[Any, Any]:
    X, y = load_digits(return_X_y=True)
    return (X[:600].reshape(-1, 1, 8, 8) / 16).astype(dtype), y[:600]


def network(dtype: torch.dtype) -> torch.nn.Module:
    """A small convolutional network, trained in float64 on one thread."""
    X, y = (torch.from_numpy(part) for part in digits(np.float64))
    with one_setting(1), torch.random.fork_rng():
        torch.manual_seed(0)
        module = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(128, 32),
            torch.nn.ReLU(),
            torch.nn.Linear(32, 10),
        ).double()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(X), y).backward()
            optimizer.step()
    return module.to(dtype)


@contextmanager
def one_setting(threads: int) -> Iterator[None]:
    """Run torch with a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pairs(
    module: torch.nn.Module,
    method: str,
    X: Any,
    batch_size: Any,
    *,
    n: int = N_SAMPLES,
    n_jobs: int | None = None,
) -> Any:
    """The pairs of one search, for n samples that the extractor was not fitted on."""
    size = len(X) if batch_size == "all" else batch_size
    extractor = BoundarySampleExtractor(
        FrozenNetwork(module),
        method=method,
        effort="fast",
        batch_size=size,
        n_jobs=n_jobs,
        random_state=0,
    )
    return extractor.fit(X[:400]).extract_pairs(X[400 : 400 + n])


def compare(module: torch.nn.Module, method: str, X: Any, n: int = N_SAMPLES) -> dict[str, Any]:
    """Compare the pairs of all settings with those of one thread and one batch."""
    counts = dict.fromkeys(("pairs", "statuses", "classes", "found", "moved"), 0)
    largest = 0.0
    with one_setting(1):
        reference = pairs(module, method, X, "all", n=n)
    starts = X[400 : 400 + n]
    length = norms(reference.outer - starts)
    for threads in (1, 2):
        for batch_size in BATCHES:
            with one_setting(threads):
                found = pairs(module, method, X, batch_size, n=n)
            both = found.success & reference.success
            shift = norms(found.outer - reference.outer)[both] / length[both]
            counts["pairs"] += len(found)
            counts["statuses"] += int((found.status != reference.status).sum())
            counts["classes"] += int((found.target != reference.target)[both].sum())
            counts["found"] += int(both.sum())
            counts["moved"] += int((shift > MOVED).sum())
            largest = max(largest, float(shift.max(initial=0)))
    return counts | {"largest_shift": largest}


def norms(X: Any) -> Any:
    return np.linalg.norm(X.reshape(len(X), -1).astype(float), axis=1)


def everything(n_jobs: int | None = None) -> dict[str, str]:
    """A digest of the results of each estimator, in float32 on one thread."""
    X, y = digits(np.float32)
    module, queries = network(torch.float32), X[400:440]
    flat = X.reshape(len(X), -1)
    results: dict[str, Any] = {}
    for method in METHODS:
        found = pairs(module, method, X, 16, n=20, n_jobs=n_jobs)
        results[f"extractor, {method}"] = asdict(found)
    box = BoundarySampleExtractor(SVC(), method="label", effort=60, n_jobs=n_jobs, random_state=0)
    results["extractor, black box"] = asdict(box.fit(flat[:400], y[:400]).extract_pairs(flat[400:]))
    margins = SubspaceMargins(module, max_iter=10, random_state=0).fit(X)
    results["subspace margins"] = margins.transform(queries[:10])
    knn = LatentKNNClassifier(FrozenNetwork(module), random_state=0).fit(X[:400], y[:400])
    results["latent neighbors"] = knn.predict_proba(queries)
    results["nearest neighbors"] = TorchNearestNeighbors().fit(flat).kneighbors()
    default = LatentTransformer(None, random_state=0).fit(flat[:200], y[:200])
    results["default network"] = default.transform(flat[:20])
    characterizer = BoundaryCharacterizer(
        FrozenNetwork(module),
        pairs=[(0, 1), (1, 2), (2, 0), (3, 4), (4, 3)],
        n_samples=5,
        n_partners=2,
        n_jobs=n_jobs,
        random_state=0,
    )
    results["characterizer"] = dict(characterizer.fit(X[:400], y[:400]).report_)
    sampler = BiasedExtrapolationSampler(estimator=FrozenNetwork(module), random_state=0)
    results["sampler"] = sampler.fit_resample(X[:300], y[:300])[0]
    return {name: digest(result) for name, result in results.items()}


def digest(result: Any) -> str:
    """A digest of the bytes of all arrays in a result."""
    total = hashlib.blake2b(digest_size=16)
    for array in result.values() if isinstance(result, dict) else np.atleast_1d(result):
        array = np.ascontiguousarray(array)
        total.update(repr(array.tolist()).encode() if array.dtype.hasobject else array.tobytes())
    return total.hexdigest()


def second_process() -> dict[str, str]:
    """The digests of `everything` in a new process."""
    code = [sys.executable, __file__, "--digests"]
    return json.loads(subprocess.run(code, capture_output=True, text=True, check=True).stdout)


def table(records: dict[str, Any]) -> str:
    """The table of the guide."""
    cells = [["method", "dtype", "pairs", "other status", "other class", "moved", "largest shift"]]
    for dtype, methods in records.items():
        for name, r in methods.items():
            share = f"{r['moved'] / max(r['found'], 1):.2%}"
            counts = [str(r[key]) for key in ("pairs", "statuses", "classes")]
            cells.append([name, dtype, *counts, share, f"{r['largest_shift']:.1e}"])
    return "\n".join([BEGIN, "", *rst_table(cells), "", END])


def main() -> None:
    """Compare, print the table, and write the JSON and the table of the guide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--digests", action="store_true", help="print the digests of all results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.digests:
        print(json.dumps(everything()))
        return
    records = {
        str(dtype).removeprefix("torch."): {
            method: compare(network(dtype), method, digits(str(dtype).removeprefix("torch."))[0])
            for method in METHODS
        }
        for dtype in (torch.float64, torch.float32)
    }
    print(table(records))
    here = everything()
    equal = {
        "two processes": sorted(n for n, d in second_process().items() if d == here[n]),
        "two jobs": sorted(n for n, d in everything(n_jobs=2).items() if d == here[n]),
    }
    for what, names in equal.items():
        print(f"the same bytes in {what}: {len(names)} of {len(here)} results")
    results = {"command": command(), "seed": 0, "versions": versions(), "records": records}
    results["equal"] = equal
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.out == RESULTS:
        text = GUIDE.read_text()
        before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
        GUIDE.write_text(before + table(records) + after)


if __name__ == "__main__":
    main()
