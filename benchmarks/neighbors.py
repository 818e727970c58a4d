"""Exact nearest neighbors against scikit-learn, faiss and the matrix product alone.

    python benchmarks/neighbors.py --data clustered      # replaces the records of this part only
    python benchmarks/neighbors.py --table               # only write the table of the guide

All contenders run in turn in one process, round after round; a figure is the median over the
rounds: CPU time on one thread, wall time on more. scikit-learn, by far the slowest, runs in the
first round only. "mm" is torch.mm with the same number of operations in the blocks of our search,
with all results written. Correctness is the share of neighbors equal to those of scikit-learn on
float64 data. With --device cuda only our search and the product are timed, by CUDA events.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The OpenBLAS in faiss's wheel may not recognize a new processor and fall back to a kernel about
# six times slower, so a supported kernel is set before faiss is loaded.
_FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
if "avx512f" in _FLAGS:
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")

import numpy as np
import torch
from peak_memory import added_memory
from provenance import command, machine, versions
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from skboundary.functional._shortlist import n_strips_of_block
from skboundary.functional.nearest_neighbors import build_index, search

# At its first search scikit-learn records which BLAS libraries it limits to one thread. If faiss's
# were among them, which shares the setting of OpenMP, scikit-learn would limit itself as well.
NearestNeighbors(algorithm="brute").fit(np.eye(9)).kneighbors()

try:
    import faiss
except ImportError:
    faiss = None

# name: samples, dimensions, neighbors, queries. Below 128000 queries x dimensions faiss uses no
# matrix product.
WORKLOADS = {
    "50kx512-k3": (50_000, 512, 3, 2048),
    "50kx2048-k3": (50_000, 2048, 3, 512),
    "1Mx64-k5": (1_000_000, 64, 5, 2048),
    "10kx64-k10": (10_000, 64, 10, 10_240),
    "50kx128-k10": (50_000, 128, 10, 4096),
    "50kx128-k50": (50_000, 128, 50, 4096),
}
RESULTS = Path(__file__).parent / "results" / "neighbors.json"
PAGE = Path(__file__).parents[1] / "docs" / "user_guide" / "nearest_neighbors.rst"
BEGIN, END = ".. begin of the table", ".. end of the table"


def make_data(kind: str, n: int, d: int, q: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw samples and queries from one distribution: a "gaussian", or 100 "clustered" ones."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n + q, d, generator=generator)
    if kind == "clustered":
        centers = 2 * torch.randn(100, d, generator=generator)
        X += centers[torch.randint(100, (n + q,), generator=generator)]
    return X[:n].clone(), X[n:].clone()


def product(queries: torch.Tensor, strips: torch.Tensor, batch_size: int) -> None:
    """Compute all scores without reading them: a lower bound for searches of all samples."""
    block = n_strips_of_block(len(strips), batch_size)
    buffer = strips.new_empty(block, batch_size, strips.shape[2])
    for batch in queries.split(batch_size):
        for group in strips.split(block):
            out = buffer[: len(group), : len(batch)]
            if strips.is_cuda:
                torch.bmm(batch.expand(len(group), -1, -1), group, out=out)
            else:
                for strip, scores in zip(group, out):
                    torch.mm(batch, strip, out=scores)


def contenders(
    X: torch.Tensor, Q: torch.Tensor, k: int, batch_size: int, device: torch.device
) -> dict[str, Callable]:
    """Return calls that search all of Q and return the indices."""
    index, queries = build_index(X.to(device)), Q.to(device)
    calls = {
        "ours": lambda: search(index, queries, k, batch_size=batch_size).indices.cpu().numpy(),
        "mm": lambda: product(queries, index.table, batch_size),
    }
    if device.type != "cpu":
        return calls
    exact = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X.numpy())
    calls["sklearn"] = lambda: exact.kneighbors(Q.numpy(), return_distance=True)[1]
    if faiss is not None:
        flat = faiss.IndexFlatL2(X.shape[1])
        flat.add(X.numpy())
        calls["faiss"] = lambda: flat.search(Q.numpy(), k)[1]
    return calls


def measure(
    calls: dict[str, Callable], rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Median wall and process CPU seconds of each call, taken in turn."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for i in range(rounds):
        for name, call in calls.items():
            if i == 0 or name != "sklearn":
                seconds[name].append(timed(call, device))
    medians = {name: np.median(s, axis=0).tolist() for name, s in seconds.items()}
    return {name: dict(zip(("wall", "cpu"), pair)) for name, pair in medians.items()}


def timed(call: Callable, device: torch.device) -> tuple[float, float]:
    """Wall and CPU seconds of one call; on a GPU the time between two events, twice."""
    if device.type == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        return (start.elapsed_time(stop) / 1e3,) * 2
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


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
    built: list[Any] = []
    memory = {
        "data": X.nbytes / 2**20,
        "index": added_memory(lambda: built.append(build_index(X))),
        "search": added_memory(lambda: search(built[0], Q, k, batch_size=args.batch_size)),
    }
    built.clear()
    some = slice(0, 512)
    reference = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X.double().numpy())
    truth = reference.kneighbors(Q[some].double().numpy(), return_distance=False)
    del reference
    calls = contenders(X, Q, k, args.batch_size, args.device)
    calls["mm"]()
    searches = calls.keys() & {"ours", "faiss"}  # an untimed first round
    equal = {name: float((calls[name]()[some] == truth).mean()) for name in sorted(searches)}
    records = []
    for threads in args.threads:
        set_threads(threads)
        times = measure(calls, args.rounds, args.device)
        records.append(
            {
                "workload": name,
                "data": kind,
                "rows": n,
                "dimensions": d,
                "k": k,
                "queries": q,
                "threads": threads,
                "device": str(args.device),
                "seconds": times,
                "equal": equal,
                "memory_mb": memory,
            }
        )
        print_record(records[-1])
    return records


def place(record: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key of a record."""
    order = list(WORKLOADS).index(record["workload"])
    return order, record["data"], record["threads"], record.get("device", "cpu")


def ratios(record: dict[str, Any]) -> list[float | None]:
    """Ours over faiss, ours over mm, scikit-learn over ours, by CPU time on one thread."""
    clock = "cpu" if record["threads"] == 1 else "wall"
    times = {name: taken[clock] for name, taken in record["seconds"].items()}
    ours = times["ours"]
    return [
        ours / times["faiss"] if "faiss" in times else None,
        ours / times["mm"],
        times["sklearn"] / ours if "sklearn" in times else None,
    ]


def beyond_data(record: dict[str, Any]) -> float:
    """Megabytes of the index and the search beyond the size of the data."""
    memory = record["memory_mb"]
    return memory["index"] + memory["search"] - memory["data"]


def print_record(record: dict[str, Any]) -> None:
    """Print one line."""
    figures = ["-" if r is None else f"{r:.2f}" for r in ratios(record)]
    wall = record["seconds"]["ours"]["wall"]
    print(
        f"{record['workload']:12} {record['data']:10} {record['threads']:3} "
        f"{1e6 * wall / record['queries']:9.1f} " + "".join(f"{f:>13}" for f in figures),
        f"{record['equal']['ours']:8.5f} {beyond_data(record):8.0f}",
        flush=True,
    )


def table(results: dict[str, Any]) -> str:
    """The table of the guide, computed from the JSON alone."""
    rule = "  ".join("=" * width for width in (11, 9, 7, 10, 7, 12, 11))
    names = "workload     data       threads  ours/faiss  ours/mm  sklearn/ours  beyond data"
    lines = [rule, names, rule]
    for record in results["records"]:
        faiss_ratio, mm_ratio, sklearn_ratio = ratios(record)
        lines.append(
            f"{record['workload']:<13}{record['data']:<11}{record['threads']:<9}"
            f"{faiss_ratio:<12.2f}{mm_ratio:<9.2f}{sklearn_ratio:<14.2f}"
            f"{beyond_data(record):.0f} MB"
        )
    return "\n".join([*lines, rule]) + "\n"


def write_table(results: dict[str, Any]) -> None:
    """Write the table into the guide, between its two marks."""
    text = PAGE.read_text()
    first, last = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:first]}\n\n{table(results)}\n{text[last:]}")


def main() -> None:
    """Run the workloads, print the results, and write the JSON and the table of the guide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, as a test")
    parser.add_argument("--table", action="store_true", help="only write the table of the guide")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--data", nargs="+", default=["clustered", "gaussian"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        return write_table(json.loads(args.out.read_text()))
    if faiss is None:
        print("faiss is not installed: measured without it (pip install faiss-cpu)")
    print(
        "workload     data       thr  us/query    ours/faiss      ours/mm sklearn/ours    equal "
        "MB beyond data"
    )
    records = [r for name in args.workloads for kind in args.data for r in run(name, kind, args)]
    run_of = {
        "command": command(),
        "seed": args.seed,
        "machine": machine(),
        "versions": versions("faiss-cpu"),
    }
    old = json.loads(args.out.read_text())["records"] if args.out.exists() else []
    records = [*old, *(record | {"run": run_of} for record in records)]
    merged = {place(record): record for record in records}
    result = {"records": [merged[key] for key in sorted(merged)]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.out == RESULTS:
        write_table(result)
    return None


if __name__ == "__main__":
    main()
