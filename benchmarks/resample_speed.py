"""Over-samplers beside each other: time and memory of BiasedExtrapolationSampler and SMOTE.

    python benchmarks/resample_speed.py [--quick] [--rows 10000 100000] [--threads 1 2] [--table]

Rows of 64 columns, a tenth of them minors, from Gaussian clusters that overlap. The classifier is
trained beforehand, on a sample of the rows; "default" trains its own on all of them. All contenders
run in turn in one process, round after round; a figure is the median over the rounds. Peak memory
is what one call adds to a process of its own that holds the data.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imblearn
import numpy as np
import sklearn
import torch
from imblearn.over_sampling import SMOTE, BorderlineSMOTE
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from skboundary import BiasedExtrapolationSampler

RESULTS = Path(__file__).parent / "results" / "resample_speed.json"
COLUMNS, SHARE = 64, 0.1
# rounds for each number of rows; SMOTE takes more than a minute for a million
ROUNDS = {10_000: 9, 100_000: 3, 1_000_000: 1}
CONTENDERS = ["SMOTE", "BorderlineSMOTE", "nearest", "one-to-one", "default"]
BARS = {10_000: 1.5, 100_000: 1.0, 1_000_000: 0.6}  # "nearest" over SMOTE


def make_data(n: int, seed: int) -> tuple[Any, Any]:
    """Float64 rows around 20 centres of majors and 5 of minors, and their labels."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < SHARE).astype(int)
    centres = rng.normal(scale=0.5, size=(25, COLUMNS))
    centres[20:] += 1.5 / np.sqrt(COLUMNS)
    cluster = np.where(y == 1, rng.integers(20, 25, n), rng.integers(0, 20, n))
    X = rng.normal(size=(n, COLUMNS))
    X += centres[cluster]
    return X, y


def make_samplers(X: Any, y: Any, seed: int) -> dict[str, Any]:
    """Give the contenders; ours with a classifier trained on 10,000 rows at most."""
    trained = FrozenEstimator(LogisticRegression(max_iter=1000).fit(X[:10_000], y[:10_000]))
    return {
        "SMOTE": SMOTE(random_state=seed),
        "BorderlineSMOTE": BorderlineSMOTE(random_state=seed),
        "nearest": BiasedExtrapolationSampler(
            estimator=trained, instance_pairing="nearest", random_state=seed
        ),
        "one-to-one": BiasedExtrapolationSampler(
            estimator=trained, instance_pairing="one-to-one", random_state=seed
        ),
        "default": BiasedExtrapolationSampler(random_state=seed),
    }


def set_threads(n: int) -> None:
    """Limit torch, BLAS and OpenMP to n threads."""
    torch.set_num_threads(n)
    threadpool_limits(n)


def measure(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Median wall and process CPU seconds of each call, taken in turn."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {name: np.median(s, axis=0).tolist() for name, s in seconds.items()}
    return {name: dict(zip(("wall", "cpu"), pair)) for name, pair in medians.items()}


def status(key: str) -> float:
    """Read a figure of this process from the kernel, in MB."""
    (kilobytes,) = re.findall(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return int(kilobytes) / 1024


def added_memory(n: int, name: str, seed: int) -> float:
    """Peak memory that one call adds to this process, in MB."""
    X, y = make_data(n, seed)
    small = slice(0, 2000)
    samplers = make_samplers(X, y, seed)
    samplers[name].fit_resample(X[small], y[small])  # loads what it needs
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    samplers[name].fit_resample(X, y)
    return status("VmHWM") - before


def ask_for_memory(n: int, name: str, seed: int) -> float:
    """Measure memory in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", name, "--rows", str(n), "--seed", str(seed)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run(n: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all contenders on n rows: a record for each number of threads."""
    X, y = make_data(n, args.seed)
    samplers = {k: s for k, s in make_samplers(X, y, args.seed).items() if k in args.contenders}
    memory = {name: ask_for_memory(n, name, args.seed) for name in samplers}
    records = []
    for threads in args.threads:
        set_threads(threads)
        for sampler in samplers.values():
            sampler.fit_resample(X[:2000], y[:2000])
        calls = {name: lambda s=s: s.fit_resample(X, y) for name, s in samplers.items()}
        seconds = measure(calls, args.rounds or ROUNDS.get(n, 3))
        records.append({
            "rows": n, "columns": COLUMNS, "minors": int(y.sum()), "threads": threads,
            "seconds": seconds, "memory_mb": memory, "data_mb": X.nbytes / 2**20,
        })  # fmt: skip
        print(table(records[-1:], header=len(records) == 1), flush=True)
    return records


def table(records: list[dict[str, Any]], header: bool = True) -> str:
    """CPU seconds over SMOTE's, and added memory, as the guide shows them."""
    lines = ["rows     threads  " + "  ".join(f"{name:>15}" for name in CONTENDERS)] * header
    for record in records:
        smote = record["seconds"]["SMOTE"]["cpu"]
        cells = [f"{smote:.2f} s"]
        cells += [f"{record['seconds'][name]['cpu'] / smote:.2f}" for name in CONTENDERS[1:]]
        lines.append(
            f"{record['rows']:<7}  {record['threads']:<7}  " + "  ".join(f"{c:>15}" for c in cells)
        )
    for record in records[:: max(1, len({r["threads"] for r in records}))]:
        cells = [f"{record['memory_mb'][name]:.0f} MB" for name in CONTENDERS]
        lines.append(f"{record['rows']:<7}  memory   " + "  ".join(f"{c:>15}" for c in cells))
    return "\n".join(lines)


def main() -> None:
    """Run the sizes asked for, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROUNDS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=0, help="0: 9, 3 and 1 by size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-of", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="print that of the results")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    if args.memory_of:
        print(added_memory(args.rows[0], args.memory_of, args.seed))
        return
    if args.table:
        print(table(json.loads(args.out.read_text())["records"]))
        return
    if args.quick:
        args.rows = [n for n in args.rows if n <= 10_000]
    records = [record for n in args.rows for record in run(n, args)]
    result = {
        "command": " ".join(["python", "benchmarks/resample_speed.py", *sys.argv[1:]]),
        "seed": args.seed,
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count()},
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__,
            "numpy": np.__version__, "scikit-learn": sklearn.__version__,
            "imbalanced-learn": imblearn.__version__,
        },
        "bars": {str(n): bar for n, bar in BARS.items()},
        "records": records,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
