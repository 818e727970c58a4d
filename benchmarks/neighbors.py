"""Exact nearest neighbours beside scikit-learn, faiss and the bare matrix product.

    python benchmarks/neighbors.py [--quick] [--workloads 50kx512-k3 ...] [--threads 1 2]

All contenders run in turn in one process, round after round; a figure is the median over the
rounds. "mm" is torch.mm of the same FLOPs in the blocks of our search. Correctness is the share
of neighbours equal to scikit-learn's on float64 data.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The OpenBLAS in faiss's wheel may not know a new processor and fall back to a kernel some six
# times slower: name one that the processor has, before faiss is loaded.
_FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
if "avx512f" in _FLAGS:
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")

import numpy as np  # noqa: E402
import sklearn  # noqa: E402
import torch  # noqa: E402
from sklearn.neighbors import NearestNeighbors  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from skboundary.functional.search import _block_width, build_index, search  # noqa: E402

# At its first search scikit-learn notes which BLAS it will hold to one thread. Were faiss's
# among them, which shares OpenMP's setting, scikit-learn would hold itself to one thread too.
NearestNeighbors(algorithm="brute").fit(np.eye(9)).kneighbors()

try:
    import faiss
except ImportError:
    faiss = None

# name: rows, dimensions, neighbours, queries. Queries x dimensions stay above 128000, below
# which faiss leaves its matrix product.
WORKLOADS = {
    "50kx512-k3": (50_000, 512, 3, 2048),
    "50kx2048-k3": (50_000, 2048, 3, 1024),
    "1Mx64-k5": (1_000_000, 64, 5, 2048),
    "10kx64-k10": (10_000, 64, 10, 10_240),
    "50kx128-k10": (50_000, 128, 10, 4096),
    "50kx128-k50": (50_000, 128, 50, 4096),
}
RESULTS = Path(__file__).parent / "results" / "neighbors.json"


def make_data(kind: str, n: int, d: int, q: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and queries from one distribution: "gaussian", or 100 "clustered" Gaussians."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n + q, d, generator=generator)
    if kind == "clustered":
        centres = 2 * torch.randn(100, d, generator=generator)
        X += centres[torch.randint(100, (n + q,), generator=generator)]
    return X[:n].clone(), X[n:].clone()


def product(n: int, queries: torch.Tensor, table: torch.Tensor, batch_size: int) -> None:
    """Compute every score and look at none: a floor for anything that compares all rows."""
    width = _block_width(n, batch_size)
    buffer = torch.empty(batch_size * width)
    for start in range(0, len(queries), batch_size):
        rows = queries[start : start + batch_size]
        for column in range(0, n, width):
            columns = table[column : column + width]
            out = buffer[: len(rows) * len(columns)].view(len(rows), -1)
            torch.mm(rows, columns.T, out=out)


class PeakMemory:
    """Largest growth of this process's resident memory inside the block, in MB."""

    def __enter__(self) -> PeakMemory:
        self.start = self.peak = self._resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()
        self.megabytes = (max(self.peak, self._resident()) - self.start) / 2**20

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, self._resident())

    @staticmethod
    def _resident() -> int:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


def contenders(X: torch.Tensor, Q: torch.Tensor, k: int, batch_size: int) -> dict[str, Callable]:
    """Give calls that search all of Q and return the indices."""
    index = build_index(X)
    exact = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X.numpy())
    calls = {
        "ours": lambda: search(index, Q, k, batch_size=batch_size).indices.numpy(),
        "sklearn": lambda: exact.kneighbors(Q.numpy(), return_distance=True)[1],
        "mm": lambda: product(len(X), Q, X, batch_size),
    }
    if faiss is not None:
        flat = faiss.IndexFlatL2(X.shape[1])
        flat.add(X.numpy())
        calls["faiss"] = lambda: flat.search(Q.numpy(), k)[1]
    return calls


def measure(calls: dict[str, Callable], rounds: int) -> dict[str, dict[str, float]]:
    """Median wall and process CPU seconds of each call, taken in turn."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {name: np.median(s, axis=0).tolist() for name, s in seconds.items()}
    return {name: dict(zip(("wall", "cpu"), pair)) for name, pair in medians.items()}


def set_threads(n: int) -> None:
    """Limit torch, BLAS and faiss to n threads."""
    torch.set_num_threads(n)
    threadpool_limits(n)
    if faiss is not None:
        faiss.omp_set_num_threads(n)


def run(name: str, kind: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one workload on one kind of data: a record for each number of threads."""
    n, d, k, q = WORKLOADS[name]
    if args.quick:
        n, q = max(n // 20, 2000), max(q // 8, 128_000 // d + 1)
    X, Q = make_data(kind, n, d, q, args.seed)
    set_threads(os.cpu_count() or 1)
    with PeakMemory() as building:
        index = build_index(X)
    with PeakMemory() as searching:
        found = search(index, Q, k, batch_size=args.batch_size).indices.numpy()
    del index
    some = slice(0, 512)
    reference = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X.double().numpy())
    truth = reference.kneighbors(Q[some].double().numpy(), return_distance=False)
    del reference
    calls = contenders(X, Q, k, args.batch_size)
    equal = {"ours": float((found[some] == truth).mean())}
    for other in calls.keys() - {"ours", "mm"}:
        equal[other] = float((calls[other]()[some] == truth).mean())
    records = []
    for threads in args.threads:
        set_threads(threads)
        times = measure(calls, args.rounds)
        records.append({
            "workload": name, "data": kind, "rows": n, "dimensions": d, "k": k, "queries": q,
            "threads": threads, "seconds": times, "equal": equal,
            "memory_mb": {"data": X.nbytes / 2**20, "index": building.megabytes,
                          "search": searching.megabytes},
        })  # fmt: skip
        print_record(records[-1])
    return records


def print_record(record: dict[str, Any]) -> None:
    """Print one line of the table."""
    wall = {name: times["wall"] for name, times in record["seconds"].items()}
    ours = wall["ours"]
    flat = f"{ours / wall['faiss']:10.2f}" if "faiss" in wall else "         -"
    memory = record["memory_mb"]
    print(
        f"{record['workload']:12} {record['data']:10} {record['threads']:3} "
        f"{1e6 * ours / record['queries']:9.1f} {flat} {ours / wall['mm']:8.2f} "
        f"{wall['sklearn'] / ours:13.2f} {record['equal']['ours']:8.5f} "
        f"{memory['index'] + memory['search'] - memory['data']:11.0f}",
        flush=True,
    )


def main() -> None:
    """Run the workloads asked for, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--data", nargs="+", default=["clustered", "gaussian"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if faiss is None:
        print("faiss is not installed: measured without it (pip install faiss-cpu)")
    print(
        "workload     data       thr  us/query ours/faiss  ours/mm  sklearn/ours    equal "
        "MB beyond data"
    )
    records = [r for name in args.workloads for kind in args.data for r in run(name, kind, args)]
    result = {
        "command": " ".join(["python", "benchmarks/neighbors.py", *sys.argv[1:]]),
        "seed": args.seed,
        "machine": {"processor": platform.processor(), "cpus": os.cpu_count()},
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "scikit-learn": sklearn.__version__,
            "faiss": getattr(faiss, "__version__", None),
        },
        "records": records,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
