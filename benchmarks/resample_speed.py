"""Time and memory of BiasedExtrapolationSampler in comparison with SMOTE.

    python benchmarks/resample_speed.py [--rows 10000 100000 1000000] [--threads 1 2] [--table]

Samples of 64 features, a tenth of them of the minority class, from overlapping Gaussian clusters.
The classifier is trained beforehand, on 10,000 samples; "default" trains its own on all of them.
"paper" places no samples within the class; the other three of ours place half of theirs there. All
contenders run in turn in one process; a figure is the median over the rounds, of the CPU time of
the process and of wall time. Memory is the largest growth of the process during a call. Records of
other sizes and numbers of threads stay in the JSON. BorderlineSMOTE is left out at a million
samples, where it takes many times as long as SMOTE.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imblearn.over_sampling import SMOTE, BorderlineSMOTE
from peak_memory import added_memory
from provenance import command, machine, versions
from rst_table import insert_table
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from skboundary import BiasedExtrapolationSampler

RESULTS = Path(__file__).parent / "results" / "resample_speed.json"
GUIDE = Path(__file__).parents[1] / "docs" / "user_guide" / "biased_extrapolation.rst"
MARKS = ".. the speed table starts\n", ".. the speed table ends\n"
COLUMNS, SHARE = 64, 0.1
# rounds for each number of samples; SMOTE takes more than a minute for a million
ROUNDS = {10_000: 9, 100_000: 3, 1_000_000: 1}
CONTENDERS = ["SMOTE", "BorderlineSMOTE", "nearest", "paper", "one-to-one", "default"]


def make_data(n: int, seed: int) -> tuple[Any, Any]:
    """Draw float64 samples around 20 majority and 5 minority centers, and their labels."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < SHARE).astype(int)
    centers = rng.normal(scale=0.5, size=(25, COLUMNS))
    centers[20:] += 1.5 / np.sqrt(COLUMNS)
    cluster = np.where(y == 1, rng.integers(20, 25, n), rng.integers(0, 20, n))
    X = rng.normal(size=(n, COLUMNS))
    X += centers[cluster]
    return X, y


def make_samplers(X: Any, y: Any, seed: int) -> dict[str, Any]:
    """Make the contenders; ours with a classifier trained on at most 10,000 samples."""
    trained = FrozenEstimator(LogisticRegression(max_iter=1000).fit(X[:10_000], y[:10_000]))

    def ours(**params: Any) -> BiasedExtrapolationSampler:
        return BiasedExtrapolationSampler(random_state=seed, **params)

    return {
        "SMOTE": SMOTE(random_state=seed),
        "BorderlineSMOTE": BorderlineSMOTE(random_state=seed),
        "nearest": ours(estimator=trained, instance_pairing="nearest"),
        "paper": ours(estimator=trained, instance_pairing="nearest", within_class=0.0),
        "one-to-one": ours(estimator=trained, instance_pairing="one-to-one"),
        "default": ours(),
    }


def set_threads(n: int) -> None:
    """Limit torch, BLAS and OpenMP to n threads."""
    torch.set_num_threads(n)
    threadpool_limits(n)


def measure(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Measure median wall and CPU seconds of each call, taken in turn."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {name: np.median(s, axis=0).tolist() for name, s in seconds.items()}
    return {name: dict(zip(("wall", "cpu"), pair)) for name, pair in medians.items()}


def run(n: int, threads: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure the contenders on n samples."""
    set_threads(threads)
    X, y = make_data(n, args.seed)
    samplers = make_samplers(X, y, args.seed)
    if n >= 1_000_000:
        del samplers["BorderlineSMOTE"]
    samplers = {name: sampler for name, sampler in samplers.items() if name in args.contenders}
    for sampler in samplers.values():  # imports and warms up
        sampler.fit_resample(X[:2000], y[:2000])
    calls = {name: lambda s=s: s.fit_resample(X, y) for name, s in samplers.items()}
    rounds = args.rounds or ROUNDS.get(n, 3)
    seconds = measure(calls, rounds)
    memory = {name: added_memory(call) for name, call in calls.items()} if threads == 1 else {}
    return {
        "rows": n,
        "columns": COLUMNS,
        "n_minority": int(y.sum()),
        "threads": threads,
        "rounds": rounds,
        "data_mb": X.nbytes / 2**20,
        "seconds": seconds,
        "memory_mb": memory,
    }


def table(records: list[dict[str, Any]]) -> str:
    """Format times relative to SMOTE (CPU for one thread, wall for more), and memory."""
    rule = "  ".join(["=" * 9, "=" * 7, "=" * 9, *["=" * 15] * len(CONTENDERS)])
    lines = [rule, line("samples", "threads", "what", CONTENDERS), rule]
    for record in sorted(records, key=lambda r: (r["rows"], r["threads"])):
        n_samples, threads = f"{record['rows']:,}".replace(",", " "), record["threads"]
        clock = "cpu" if threads == 1 else "wall"  # waiting threads count as busy
        time_of = {name: seconds[clock] for name, seconds in record["seconds"].items()}
        smote = time_of["SMOTE"]
        ratios = [f"{time_of[c] / smote:.2f}" if c in time_of else "-" for c in CONTENDERS[1:]]
        lines.append(line(n_samples, threads, f"{clock} time", [f"{smote:.3g} s", *ratios]))
        memory = record["memory_mb"]
        if memory:
            cells = [f"{memory[c]:.0f} MB" if c in memory else "-" for c in CONTENDERS]
            lines.append(line(n_samples, threads, "memory", cells))
    return "\n".join([*lines, rule])


def line(n_samples: Any, threads: Any, what: str, cells: list[str]) -> str:
    """Format one row of the table."""
    start = f"{n_samples:>9}  {threads!s:>7}  {what:9}  "
    return start + "  ".join(f"{cell:15}" for cell in cells).rstrip()


def main() -> None:
    """Run the requested sizes, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10,000 samples only")
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROUNDS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=0, help="0: 9, 3 and 1 by size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--table", action="store_true", help="write the table of the results into the guide"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.out.exists() else {"records": []}
    if args.table:
        print(table(result["records"]))
        insert_table(GUIDE, MARKS, table(result["records"]))
        return
    for n in [10_000] if args.quick else args.rows:
        for threads in args.threads:
            record = run(n, threads, args)
            record["run"] = {
                "command": command(),
                "seed": args.seed,
                "machine": machine(),
                "versions": versions("imbalanced-learn"),
            }
            result["records"] = [
                r for r in result["records"] if (r["rows"], r["threads"]) != (n, threads)
            ] + [record]
            print(table([record]), flush=True)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.out == RESULTS:
        insert_table(GUIDE, MARKS, table(result["records"]))


if __name__ == "__main__":
    main()
