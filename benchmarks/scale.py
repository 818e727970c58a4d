"""Time and memory of each estimator against the size of its problem, and time on a cluster.

    python benchmarks/scale.py

Each line varies one of n (training samples), d (columns), k (neighbors), classes, queries (samples
that a method is called for) and pairs, at four values, and the others stay at those of BASE. All
calls are on one thread. Figures are medians of three calls after the fit, in a process for each
line; an exponent is the slope of the logarithms by least squares. Memory is the largest growth of
the process. The classifier is an untrained network with one hidden layer.

The cluster has one and two worker processes with one thread each, and computes
BoundarySampleExtractor.transform of a dask array.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peak_memory import added_memory
from provenance import command, machine, versions
from quiet import OtherLoad
from rst_table import insert_table, rst_table
from torch import nn

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

RESULTS = Path(__file__).parent / "results" / "scale.json"
GUIDE = Path(__file__).parents[1] / "docs" / "user_guide" / "distributed.rst"
MARKS = ".. the tables of scale start\n", ".. the tables of scale end\n"
BASE = {"n": 4000, "d": 64, "k": 5, "classes": 10, "queries": 500, "pairs": 90}
STEPS = {
    "n": [4000, 8000, 16000, 32000],
    "d": [64, 128, 256, 512],
    "k": [5, 10, 20, 40],
    "classes": [5, 10, 20, 40],
    "queries": [500, 1000, 2000, 4000],
    "pairs": [90, 180, 360, 720],
}
ROWS, WORKERS, CHUNK = [2000, 4000, 8000, 16000], [1, 2], 500
Call = Callable[[], Any]


def problem(n: int, d: int, classes: int) -> tuple[np.ndarray, np.ndarray, FrozenNetwork]:
    """Samples of Gaussian classes, and a network that tells them apart at random."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    X = rng.normal(size=(classes, d))[y] + rng.normal(size=(n, d))
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, classes))
    return X.astype(np.float32), y, FrozenNetwork(module, classes=np.arange(classes))


def neighbors(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    model = TorchNearestNeighbors(s["k"]).fit(X)
    return lambda: model.kneighbors(X[: s["queries"]])


def latent_knn(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    model = LatentKNNClassifier(net, n_neighbors=s["k"]).fit(X, y)
    return lambda: model.predict(X[: s["queries"]])


def latent(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    model = LatentTransformer(net).fit(X)
    return lambda: model.transform(X)


def extractor(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    model = BoundarySampleExtractor(net, effort="fast", random_state=0).fit(X)
    return lambda: model.transform(X[: s["queries"]])


def pairs(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    model = BoundarySampleExtractor(net, effort="fast", random_state=0).fit(X)
    return lambda: model.extract(s["pairs"])


def margins(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    model = SubspaceMargins(net, subspaces="random", max_iter=20, random_state=0).fit(X)
    return lambda: model.transform(X[: s["queries"] // 5])


def characterizer(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    settings: Any = {"n_samples": 10, "n_partners": 2, "random_state": 0}
    return lambda: BoundaryCharacterizer(net, **settings).fit(X, y)


def sampler(X: np.ndarray, y: np.ndarray, net: FrozenNetwork, s: dict[str, int]) -> Call:
    keep = (y > 0) | (np.arange(len(y)) % 4 == 0)  # the first class is the minority
    return lambda: BiasedExtrapolationSampler(random_state=0).fit_resample(X[keep], y[keep])


CALLS: dict[str, tuple[Any, list[str]]] = {
    "TorchNearestNeighbors.kneighbors": (neighbors, ["n", "d", "k", "queries"]),
    "LatentKNNClassifier.predict": (latent_knn, ["n", "d", "k", "classes", "queries"]),
    "LatentTransformer.transform": (latent, ["n", "d"]),
    "BoundarySampleExtractor.transform": (extractor, ["n", "d", "classes", "queries"]),
    "BoundarySampleExtractor.extract": (pairs, ["d", "classes", "pairs"]),
    "SubspaceMargins.transform": (margins, ["d", "classes", "queries"]),
    "BoundaryCharacterizer.fit": (characterizer, ["n", "d", "classes"]),
    "BiasedExtrapolationSampler.fit_resample": (sampler, ["n", "d", "classes"]),
}


def measure(name: str, factor: str) -> dict[str, Any]:
    """Seconds and MB of a call at the values of one factor."""
    torch.set_num_threads(1)
    make, _ = CALLS[name]
    seconds, megabytes = [], []
    for value in STEPS[factor]:
        s = BASE | {factor: value}
        s["n"] = max(s["n"], s["queries"])
        call = make(*problem(s["n"], s["d"], s["classes"]), s)
        call()  # libraries keep the buffers of their first use
        megabytes.append(max(added_memory(call), 0.1))
        times = []
        for _ in range(3):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        seconds.append(float(np.median(times)))
    return {"call": name, "factor": factor, "values": STEPS[factor]} | {
        "seconds": seconds,
        "mb": megabytes,
        "exponents": {
            "seconds": slope(STEPS[factor], seconds),
            "mb": slope(STEPS[factor], megabytes),
        },
    }


def slope(x: list[int], y: list[float]) -> float:
    """Slope of the logarithms by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def measure_cluster(workers: int) -> dict[str, Any]:
    """Seconds of a lazy transform against the number of its samples."""
    import dask.array as da
    from dask import config
    from distributed import Client

    X, _, net = problem(max(ROWS), BASE["d"], BASE["classes"])
    model = BoundarySampleExtractor(net, random_state=0).fit(X[: BASE["n"]])
    seconds = []
    with tempfile.TemporaryDirectory() as folder, config.set({"temporary-directory": folder}):
        options: Any = {"threads_per_worker": 1, "dashboard_address": None}
        with Client(n_workers=workers, **options) as client:
            client.run(torch.set_num_threads, 1)
            for rows in [CHUNK * workers, *ROWS]:  # the first imports the package
                lazy = model.transform(da.from_array(X[:rows] + 0.0, chunks=(CHUNK, -1)))
                start = time.perf_counter()
                lazy.sum().compute()
                seconds.append(time.perf_counter() - start)
                model.set_params(random_state=len(seconds))  # so that nothing is stored
    return {"workers": workers, "rows": ROWS, "seconds": seconds[1:]} | {
        "exponent": slope(ROWS, seconds[1:])
    }


def tables(results: dict[str, Any]) -> str:
    """The two tables of the guide."""
    cells = [["call", "factor", "values", "seconds", "exponent", "MB", "exponent"]]
    for r in results["records"]:
        ends = [f"{r[key][0]:.3g} to {r[key][-1]:.3g}" for key in ("seconds", "mb")]
        slopes = [f"{r['exponents'][key]:.2f}" for key in ("seconds", "mb")]
        values = f"{r['values'][0]} to {r['values'][-1]}"
        cells.append([r["call"], r["factor"], values, ends[0], slopes[0], ends[1], slopes[1]])
    rows = results["cluster"][0]["rows"]
    cluster = [["workers", *(f"{n} samples" for n in rows), "exponent"]]
    for r in results["cluster"]:
        times = [f"{s:.2f} s" for s in r["seconds"]]
        cluster.append([str(r["workers"]), *times, f"{r['exponent']:.2f}"])
    return "\n".join([*rst_table(cells), "", *rst_table(cluster)])


def main() -> None:
    """Run all lines, each in a process of its own; write the JSON and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", default="", help="measure the calls whose name contains this")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        found = measure(*args.child) if len(args.child) > 1 else measure_cluster(int(*args.child))
        print(json.dumps(found))
        return
    others = OtherLoad()

    def child(*words: str) -> dict[str, Any]:
        call = [sys.executable, __file__, "--child", *words]
        done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(found, flush=True)
        return found

    results = {"command": command(), "seed": 0, "machine": machine()}
    results |= {"versions": versions("dask", "distributed")}
    chosen = {name: factors for name, (_, factors) in CALLS.items() if args.only in name}
    results["records"] = [child(name, f) for name, factors in chosen.items() for f in factors]
    results["cluster"] = [] if args.only else [child(str(n)) for n in WORKERS]
    results["cores_of_others"] = others.cores()
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.out == RESULTS:
        insert_table(GUIDE, MARKS, tables(results))


if __name__ == "__main__":
    main()
