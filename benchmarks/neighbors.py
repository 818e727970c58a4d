"""Exact nearest neighbors against scikit-learn, faiss and the matrix product alone.

    python benchmarks/neighbors.py --data clustered      # replaces the records of this part only
    python benchmarks/neighbors.py --data latents        # on real data, see real_latents.py
    python benchmarks/neighbors.py --table               # only write the table of the guide

All contenders run in turn in one process, round after round; a figure is the median over the
rounds: CPU time on one thread, wall time on more. scikit-learn, and Panorama where a call has many
queries, are by far the slowest and run in the first round only. "ours" is the search with the
method it has chosen in a call before, "product" the same search held to the full product. "mm"
is torch.mm with the same number of operations in the blocks of our search, with all results
written. "panorama" is faiss.IndexFlatL2Panorama on principal axes. Correctness is the share of
neighbors equal to those of scikit-learn on float64 data. accelerator.py times searches elsewhere.

Nothing is recorded where other processes used more than a fifth of a core; --busy prints such
figures all the same.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# The OpenBLAS in faiss's wheel may not recognize a new processor and fall back to a kernel about
# six times slower, so a supported kernel is set before faiss is loaded.
_FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
if __name__ == "__main__" and "avx512f" in _FLAGS:
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")

import numpy as np
import torch
from peak_memory import added_memory
from provenance import command, machine, versions
from quiet import LIMIT, OtherLoad
from real_latents import load
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from skboundary.functional._search_index import SearchIndex, product_table
from skboundary.functional._shortlist import SCORES, n_strips_of_block
from skboundary.functional.nearest_neighbors import build_index, search

# At its first search scikit-learn records which BLAS libraries it limits to one thread. If faiss's
# were among them, which shares the setting of OpenMP, scikit-learn would limit itself as well.
NearestNeighbors(algorithm="brute").fit(np.eye(9)).kneighbors()

try:
    import faiss
except ImportError:
    faiss = None


class Workload(NamedTuple):
    """What is searched: synthetic samples, or `latents` of a real data set."""

    n: int
    d: int
    k: int
    queries: int
    metric: str = "euclidean"
    latents: str | None = None
    calls: int = 1  # that share the queries


# Below 128000 queries x dimensions faiss uses no matrix product.
WORKLOADS = {
    "50kx512-k3": Workload(50_000, 512, 3, 2048),
    "50kx2048-k3": Workload(50_000, 2048, 3, 512),
    "1Mx64-k5": Workload(1_000_000, 64, 5, 2048),
    "10kx64-k10": Workload(10_000, 64, 10, 10_240),
    "50kx128-k10": Workload(50_000, 128, 10, 4096),
    "50kx128-k50": Workload(50_000, 128, 50, 4096),
}
for _name, _n, _d in [
    ("cifar512", 50_000, 512),
    ("mnist512", 60_000, 512),
    ("mnist128", 60_000, 128),
    ("mobilenet1280", 16_000, 1280),
    ("mnist_pixels", 60_000, 784),
]:
    for _k in (3, 10, 50):
        WORKLOADS[f"{_name}-k{_k}"] = Workload(_n, _d, _k, 1024, latents=_name)
    WORKLOADS[f"{_name}-k10-cos"] = Workload(_n, _d, 10, 1024, "cosine", _name)
for _queries, _calls in ((1, 64), (32, 8)):
    WORKLOADS[f"mnist_pixels-k10-q{_queries}"] = Workload(
        60_000, 784, 10, _queries * _calls, latents="mnist_pixels", calls=_calls
    )
PEERS = ["faiss", "panorama", "sklearn"]
MANY = 512  # queries of a call for which Panorama is slow
LATENTS = "latents"  # the kind of data of workloads on real data
CHOICE = 2048  # queries of the call in which a method is chosen; twice as many for few samples
RESULTS = Path(__file__).parent / "results" / "neighbors.json"
PAGE = Path(__file__).parents[1] / "docs" / "user_guide" / "nearest_neighbors.rst"
COLUMNS = "ours/faiss", "ours/panor.", "ours/mm", "product/ours", "sklearn/ours"
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
    block = n_strips_of_block(len(strips), batch_size, SCORES[0])
    buffer = strips.new_empty(block, batch_size, strips.shape[2])
    for batch in queries.split(batch_size):
        for group in strips.split(block):
            out = buffer[: len(group), : len(batch)]
            for strip, scores in zip(group, out):
                torch.mm(batch, strip, out=scores)


def contenders(
    X: torch.Tensor, Q: torch.Tensor, work: Workload, batch_size: int
) -> tuple[dict[str, Callable], Callable]:
    """Return calls that search all of Q and return the indices, and one that searches others."""
    k, metric = work.k, work.metric
    index, held = build_index(X, metric), build_index(X, metric)
    held.tables.methods[k] = None  # no method but the full product
    parts = Q.tensor_split(work.calls)

    def over_parts(find: Callable) -> Callable:
        return lambda: np.concatenate([find(part) for part in parts])

    def search_in(searched: SearchIndex) -> Callable:
        return over_parts(
            lambda part: search(searched, part, k, batch_size=batch_size).indices.numpy()
        )

    def multiply() -> None:
        for part in parts:
            product(part, product_table(held).strips, min(batch_size, len(part)))

    calls = {"ours": search_in(index), "mm": multiply}

    def choose(others: torch.Tensor) -> None:
        search(index, others, k, batch_size=batch_size)

    calls["product"] = search_in(held)
    exact = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric).fit(X.numpy())
    calls["sklearn"] = over_parts(lambda part: exact.kneighbors(part.numpy())[1])
    if faiss is not None:
        if metric == "cosine":
            X = torch.nn.functional.normalize(X)
        d = X.shape[1]
        flat = faiss.IndexFlatIP(d) if metric == "cosine" else faiss.IndexFlatL2(d)
        flat.add(X.numpy())
        calls["faiss"] = over_parts(lambda part: flat.search(part.numpy(), k)[1])
        if metric == "euclidean" and hasattr(faiss, "IndexFlatL2Panorama"):
            axes = faiss.PCAMatrix(d, d)
            axes.train(X[:: max(1, len(X) // 10_000)].numpy())
            panorama = faiss.IndexPreTransform(axes, faiss.IndexFlatL2Panorama(d, 8))
            panorama.add(X.numpy())
            calls["panorama"] = over_parts(lambda part: panorama.search(part.numpy(), k)[1])
    return calls, choose


def measure(calls: dict[str, Callable], rounds: int, slow: set[str]) -> dict[str, dict[str, float]]:
    """Median wall and process CPU seconds of each call, taken in turn; slow ones once."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for i in range(rounds):
        for name, call in calls.items():
            if i == 0 or name not in slow:
                seconds[name].append(timed(call))
    medians = {name: np.median(s, axis=0).tolist() for name, s in seconds.items()}
    return {name: dict(zip(("wall", "cpu"), pair)) for name, pair in medians.items()}


def timed(call: Callable) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
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
    work = WORKLOADS[name]
    n, d, k, q, metric, latents, n_calls = work
    if args.quick:
        n, q = max(n // 20, 2000), min(q, max(q // 8, 128_000 // d + 1))
    first = max(q, CHOICE if n >= 2**15 else 2 * CHOICE)
    X, pool = load(latents) if latents else make_data(kind, n, d, first, args.seed)
    X, pool, Q = X[:n], pool.repeat(-(-first // len(pool)), 1)[:first], pool[:q]
    set_threads(os.cpu_count() or 1)
    built: list[Any] = []
    memory = {
        "data": X.nbytes / 2**20,
        "index": added_memory(lambda: built.append(build_index(X, metric))),
        "search": added_memory(lambda: search(built[0], pool, k, batch_size=args.batch_size)),
    }
    built.clear()
    some = slice(0, 512)
    reference = NearestNeighbors(n_neighbors=k, algorithm="brute", metric=metric)
    reference.fit(X.double().numpy())
    truth = reference.kneighbors(Q[some].double().numpy(), return_distance=False)
    del reference
    calls, choose = contenders(X, Q, work, args.batch_size)
    calls = {peer: call for peer, call in calls.items() if peer not in args.without}
    choosing = {"cpu": timed(lambda: choose(pool))[1], "queries": len(pool)}
    slow = {"sklearn"} if q // n_calls < MANY else {"sklearn", "panorama"}
    searches = calls.keys() & {"ours", "product", "faiss", "panorama"} - slow  # an untimed round
    equal = {name: float((calls[name]()[some] == truth).mean()) for name in sorted(searches)}
    records = []
    for threads in args.threads:
        set_threads(threads)
        load_of_others = OtherLoad()
        times = measure(calls, args.rounds, slow)
        records.append(
            {
                "workload": name,
                "data": kind,
                "rows": n,
                "dimensions": d,
                "k": k,
                "metric": metric,
                "queries": q,
                "calls": n_calls,
                "threads": threads,
                "seconds": times,
                "choosing": choosing,
                "equal": equal,
                "memory_mb": memory,
            }
        )
        print_record(records[-1])
        others = load_of_others.cores()
        if others is not None and others > LIMIT and not args.busy:
            print(f"not recorded: other processes used {others:.2f} cores")
            records.pop()
    return records


def place(record: dict[str, Any]) -> tuple[Any, ...]:
    """Sort key of a record."""
    order = list(WORKLOADS).index(record["workload"])
    return order, record["data"], record["threads"]


def ratios(record: dict[str, Any]) -> list[float | None]:
    """Ours over faiss, over Panorama and over mm; the full product and scikit-learn over ours.

    CPU time on one thread, wall time on more; None for what was not measured.
    """
    clock = "cpu" if record["threads"] == 1 else "wall"
    times = {name: taken[clock] for name, taken in record["seconds"].items()}

    def over(first: str, second: str) -> float | None:
        return times[first] / times[second] if {first, second} <= times.keys() else None

    pairs = [("ours", other) for other in ("faiss", "panorama", "mm")]
    return [over(*pair) for pair in (*pairs, ("product", "ours"), ("sklearn", "ours"))]


def choosing_ratio(record: dict[str, Any]) -> float:
    """CPU time of the call in which a method is chosen over that of the full product."""
    of_product = record["seconds"]["product"]["cpu"] / record["queries"]
    return record["choosing"]["cpu"] / record["choosing"]["queries"] / of_product


def beyond_data(record: dict[str, Any]) -> float:
    """Megabytes of the index and the search beyond the size of the data."""
    memory = record["memory_mb"]
    return memory["index"] + memory["search"] - memory["data"]


def print_record(record: dict[str, Any]) -> None:
    """Print one line."""
    wall = record["seconds"]["ours"]["wall"]
    print(
        f"{record['workload']:22} {record['data']:9} {record['threads']:3} "
        f"{1e6 * wall / record['queries']:9.1f} " + figures(record, 13),
        f"{record['equal']['ours']:8.5f} {beyond_data(record):8.0f}",
        flush=True,
    )


def figures(record: dict[str, Any], width: int) -> str:
    """Ratios in columns of one width."""
    return "".join(f"{'-' if r is None else f'{r:.2f}':<{width}}" for r in ratios(record))


def table(results: dict[str, Any]) -> str:
    """The table of the guide, computed from the JSON alone."""
    rule = "  ".join("=" * width for width in (22, 9, 7, *[12] * 5, 11))
    names = [f"{name:<14}" for name in COLUMNS]
    lines = [rule, f"{'workload':<24}data       threads  {''.join(names)}beyond data", rule]
    lines += [
        f"{record['workload']:<24}{record['data']:<11}{record['threads']:<9}"
        f"{figures(record, 14)}{beyond_data(record):.0f} MB"
        for record in results["records"]
    ]
    whole = [r for r in results["records"] if r.get("calls") == 1 and r["threads"] == 1]
    choices = [choosing_ratio(r) for r in whole]
    if choices:
        cost = f"{min(choices):.1f} to {max(choices):.1f} times the CPU time of the full product"
        rule += f"\n\nThe call in which a method is chosen took {cost}."
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
    parser.add_argument("--busy", action="store_true", help="print on a busy machine, save nothing")
    parser.add_argument("--without", nargs="+", choices=PEERS, default=[], help="peers left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        return write_table(json.loads(args.out.read_text()))
    if faiss is None:
        print("faiss is not installed: measured without it (pip install faiss-cpu)")
    columns = "".join(f"{name:<13}" for name in COLUMNS)
    print(f"{'workload':22} data      thr  us/query {columns}   equal MB beyond data")
    records = [
        record
        for name in args.workloads
        for kind in args.data
        if (kind == LATENTS) == bool(WORKLOADS[name].latents)
        for record in run(name, kind, args)
    ]
    if args.busy:
        return None
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
