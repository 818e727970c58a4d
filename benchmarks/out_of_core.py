"""Memory of the estimators on samples that stay in a file.

    python benchmarks/out_of_core.py

writes 2 GB of random float32 numbers, runs each estimator on a memory map of them in a process of
its own, records the largest growth of its anonymous memory beside the bound that the guide states,
and prints the table of the guide.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from peak_memory import added_anonymous_memory
from provenance import command, machine, versions
from rst_table import rst_table

from skboundary import (
    BiasedExtrapolationSampler,
    BoundarySampleExtractor,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchNearestNeighbors,
)

RESULT = Path(__file__).parent / "results/out_of_core.json"
ROWS, COLUMNS = 2**19, 2**10  # 2 GB
LATENT, CLASSES, MINORITY = 16, 2, 0.02
BASE = 300  # MB

MB = 2**20


class Sizes(NamedTuple):
    """What a bound depends on."""

    n: int  # samples
    d: int  # numbers of a sample
    m: int = LATENT
    c: int = CLASSES
    n_new: int = 0  # samples of the over-sampler
    q: int = 0  # samples to search from
    s: int = 2  # subspaces

    @property
    def batch(self) -> int:
        """Bytes of a batch."""
        return 4 * self.d * min(512, max(1, 2**25 // (4 * self.d)))


class Case(NamedTuple):
    """An estimator: what is run, and how many bytes it may take beyond the base and 4 batches.

    `run` gets X, y, the samples to search from and an empty folder.
    """

    run: Callable[[Any, Any, Any, Path], Any]
    formula: str
    bound: Callable[[Sizes], float]
    searched: int = 2**16
    columns: int = COLUMNS


@cache
def network(columns: int = COLUMNS) -> torch.nn.Module:
    """A network for which a share of random samples belongs to the second class."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Linear(columns, LATENT), torch.nn.ReLU(), torch.nn.Linear(LATENT, CLASSES)
    )
    with torch.no_grad():
        x = torch.rand(2_000, columns, generator=torch.Generator().manual_seed(1))
        logits = module(x)
        module[2].bias[1] -= (logits[:, 1] - logits[:, 0]).quantile(1 - MINORITY)
    return module.eval()


def transformer(X: Any, y: Any, queries: Any, folder: Path) -> Any:
    return LatentTransformer(network()).fit(X).transform(X)


def cached_transformer(X: Any, y: Any, queries: Any, folder: Path) -> Any:
    return LatentTransformer(network(), memory=str(folder)).fit(X).transform(X)


def latent_knn(X: Any, y: Any, queries: Any, folder: Path, on_disk: bool = False) -> Any:
    bank = folder if on_disk else None
    model = LatentKNNClassifier(network(), query_weight=0.5, bank=bank).fit(X, y)
    return model, model.predict(queries)


def neighbors(X: Any, y: Any, queries: Any, folder: Path, on_disk: bool = False) -> Any:
    model = TorchNearestNeighbors(5, bank=folder if on_disk else None).fit(X)
    return model, model.kneighbors(queries)


def margins(X: Any, y: Any, queries: Any, folder: Path) -> Any:
    half = COLUMNS // 2
    model = SubspaceMargins(network(), window=half, step=half, max_iter=3).fit(X)
    return model, model.transform(queries)


def extractor(X: Any, y: Any, queries: Any, folder: Path, **params: Any) -> Any:
    params = {"effort": 10, "returns": "distance"} | params
    model = BoundarySampleExtractor(network(X.shape[1]), **params).fit(X, y)
    return model, model.transform(queries)


def sampler(X: Any, y: Any, queries: Any, folder: Path) -> Any:
    model = BiasedExtrapolationSampler(
        network(), sampling_strategy={1: 3 * int(y.sum())}, random_state=0
    )
    return model.fit_resample(X, y)


DISTANCES = "4 n c + 20 n + 100 q", lambda s: (4 * s.c + 20) * s.n + 100 * s.q
CASES = {
    "LatentTransformer": Case(transformer, "4 n m", lambda s: 4 * s.n * s.m),
    "LatentTransformer(memory=)": Case(
        cached_transformer, "4 n m + 100 n", lambda s: 4 * s.n * s.m + 100 * s.n
    ),
    "LatentKNNClassifier": Case(
        latent_knn,
        "4 n (2.6 m + 3 c) + 24 n",
        lambda s: 4 * s.n * (2.6 * s.m + 3 * s.c) + 24 * s.n,
    ),
    "LatentKNNClassifier(bank=)": Case(
        partial(latent_knn, on_disk=True), "24 n + 8 q c", lambda s: 24 * s.n + 8 * s.q * s.c
    ),
    "TorchNearestNeighbors": Case(
        neighbors, "6.4 n d + 24 q k", lambda s: 6.4 * s.n * s.d + 24 * s.q * 5, searched=2000
    ),
    "TorchNearestNeighbors(bank=)": Case(
        partial(neighbors, on_disk=True), "24 q k", lambda s: 24 * s.q * 5, searched=2000
    ),
    "SubspaceMargins": Case(margins, "40 d² + 5 q s", lambda s: 40 * s.d**2 + 5 * s.q * s.s),
    "BoundarySampleExtractor, distances": Case(extractor, *DISTANCES),
    "BoundarySampleExtractor, samples of 256 kB": Case(
        extractor, *DISTANCES, searched=2**10, columns=2**16
    ),
    "BoundarySampleExtractor, points": Case(
        partial(extractor, returns="boundary"),
        "4 n c + 20 n + 100 q + 4 q d",
        lambda s: (4 * s.c + 20) * s.n + (100 + 4 * s.d) * s.q,
    ),
    "BoundarySampleExtractor, n_jobs=2": Case(partial(extractor, n_jobs=2), *DISTANCES),
    "BiasedExtrapolationSampler": Case(
        sampler,
        "4 n m + 32 n c + 4 (n + 2 n') d",
        lambda s: 4 * s.n * s.m + 32 * s.n * s.c + 4 * (s.n + 2 * s.n_new) * s.d,
    ),
}


def write(path: Path, rows: int) -> None:
    """Write random samples, some at a time."""
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(path, "w+", np.float32, (rows, COLUMNS))
    for start in range(0, rows, 2**13):
        rng.random(dtype=np.float32, out=X[start : start + 2**13])


def labels(X: NDArray[Any]) -> NDArray[np.intp]:
    """Classes that the network predicts."""
    module, few = network(X.shape[1]), max(1, 2**22 // X.shape[1])
    with torch.no_grad():
        parts = [module(torch.tensor(X[i : i + few])).argmax(1) for i in range(0, len(X), few)]
    return torch.cat(parts).numpy()


def measure(
    name: str, path: Path, base: float = BASE, searched: int | None = None
) -> dict[str, Any]:
    """Run a case in this process, first on a few samples: its growth and its bound in MB."""
    case = CASES[name]
    X = np.load(path, mmap_mode="r").reshape(-1, case.columns)
    y = labels(X)
    few = np.sort(np.concatenate([np.flatnonzero(y == c)[:300] for c in range(CLASSES)]))
    queries = X[: searched or case.searched]
    with tempfile.TemporaryDirectory() as folder:
        start = np.array(X[few])
        case.run(start, y[few], start, Path(folder, "few"))
        measured = added_anonymous_memory(lambda: case.run(X, y, queries, Path(folder, "all")))
    sizes = Sizes(len(X), X.shape[1], n_new=2 * int(y.sum()), q=len(queries))
    bound = base + (4 * sizes.batch + case.bound(sizes)) / MB
    return {"estimator": name, "formula": case.formula, "bound": bound, "measured": measured}


def table(records: Iterable[dict[str, Any]]) -> str:
    """The table of the guide."""
    cells = [["estimator", "bytes beyond 300 MB and 4 batches", "bound, MB", "measured, MB"]]
    cells += [
        [r["estimator"], r["formula"], f"{r['bound']:.0f}", f"{r['measured']:.0f}"] for r in records
    ]
    return "\n".join(rst_table(cells))


def in_child(name: str, path: Path, threads: int = 1) -> dict[str, Any]:
    """Measure in a process of its own."""
    options = ["--case", name, "--cache", str(path), "--threads", str(threads)]
    done = subprocess.run(
        [sys.executable, __file__, *options], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.case:
        torch.set_num_threads(args.threads)
        print(json.dumps(measure(args.case, args.cache)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = args.cache or Path(folder, "X.npy")
        if not path.exists():
            write(path, ROWS)
        records = []
        for name in CASES:
            records.append(in_child(name, path, args.threads))
            print(records[-1], flush=True)
    result = {"records": records, "command": command()}
    result |= {"machine": machine(), "versions": versions("scipy", "joblib")}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(records))


if __name__ == "__main__":
    main()
