"""Time of the main methods on an accelerator, beside the same calls on the CPU of that machine.

    python benchmarks/accelerator.py [--device cuda]

The classifier is a small convolutional network, trained on MNIST, and the samples are its images;
two searches have synthetic samples. Seconds are medians of three calls after one that is not
counted, from arrays of the host to arrays of the host; the CPU uses all of its cores. "agreement"
is the share of samples whose results are equal on both: neighbors, classes, targets of boundary
samples, margins up to 1 %.

Peers on the accelerator: for searches ``torch.cdist`` with ``topk`` in batches, whose "exact" is
the share of queries for which it finds the nearest samples in their order; for
LatentKNNClassifier the prediction of the network alone. Requires the folder named by
SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boundary_networks import make_cnn
from data_folder import load_mnist
from neighbors import make_data
from provenance import command, machine, versions
from rst_table import insert_table, rst_table
from torch import Tensor, nn

from skboundary import (
    BiasedExtrapolationSampler,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    SubspaceMargins,
    TorchNearestNeighbors,
)

RESULTS = Path(__file__).parent / "results" / "accelerator.json"
GUIDE = Path(__file__).parents[1] / "docs" / "user_guide" / "accelerators.rst"
MARKS = ".. the table of accelerators starts\n", ".. the table of accelerators ends\n"
Call = Callable[[], Any]
Case = dict[str, Call]  # by what it runs on, and the peer; each returns what is compared


def places(device: str) -> dict[str, str]:
    """Devices of the two calls that are compared."""
    return {"accelerator": device, "cpu": "cpu"}


def train(X: Tensor, y: Tensor, device: str, epochs: int = 2) -> nn.Module:
    """Train the network on a device and return it on the CPU."""
    torch.manual_seed(0)
    net, X, y = make_cnn().to(device), X.to(device), y.to(device)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(y), device=device).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X[part]), y[part]).backward()
            optimizer.step()
    return net.cpu().eval().requires_grad_(False)


def search_case(X: np.ndarray, Q: np.ndarray, k: int, device: str) -> Case:
    """Indices of the k nearest samples."""
    ours = {
        name: TorchNearestNeighbors(n_neighbors=k, device=place).fit(X)
        for name, place in places(device).items()
    }
    samples = torch.from_numpy(X).to(device)

    def peer() -> np.ndarray:
        found = []
        for batch in torch.from_numpy(Q).split(512):
            distances = torch.cdist(batch.to(device), samples)
            found.append(distances.topk(k, largest=False).indices.cpu())
        return torch.cat(found).numpy()

    case: Case = {n: lambda s=s: s.kneighbors(Q, return_distance=False) for n, s in ours.items()}
    return case | {"cdist, topk": peer}


def cases(device: str, quick: bool) -> dict[str, Callable[[], Case]]:
    """The calls of the table; `quick` takes few samples."""
    X, y, X_test, _ = load_mnist()
    if quick:
        X, y, X_test = X[:2000], y[:2000], X_test[:200]
    module = train(X, y, device)
    images, labels, queries = X.numpy(), y.numpy(), X_test.numpy()
    n_moved = len(queries) // 10
    few = np.arange(len(labels)) % 10 == 0
    rare = np.flatnonzero((labels > 2) | few)[:20_000]

    def network(place: str) -> FrozenNetwork:
        return FrozenNetwork(module, device=place)

    def both(make: Callable[[FrozenNetwork], Call]) -> Case:
        return {name: make(network(place)) for name, place in places(device).items()}

    def predict() -> Case:
        case = both(
            lambda net: (
                lambda m=LatentKNNClassifier(net, n_neighbors=10).fit(images): m.predict(queries)
            )
        )
        alone = network(device).fit(images[:10], labels[:10])
        return case | {"network alone": lambda: alone.predict(queries)}

    def boundary(method: str, n: int) -> Case:
        def make(net: FrozenNetwork) -> Call:
            extractor = BoundarySampleExtractor(net, method=method, random_state=0)
            extractor.fit(images[:5000], labels[:5000])
            return lambda: extractor.extract_pairs(queries[:n]).target

        return both(make)

    def margins() -> Case:
        def make(net: FrozenNetwork) -> Call:
            fitted = SubspaceMargins(net, random_state=0).fit(images[:100])
            return lambda: fitted.transform(queries[: n_moved // 10])

        return both(make)

    def resample() -> Case:
        def make(net: FrozenNetwork) -> Call:
            sampler = BiasedExtrapolationSampler(net, random_state=0)
            return lambda: sampler.fit_resample(images[rare], labels[rare])[1]

        return both(make)

    scale = 50 if quick else 1
    many = [a.numpy() for a in make_data("clustered", 1_000_000 // scale, 64, 10_000 // scale, 0)]
    wide = [a.numpy() for a in make_data("clustered", 50_000 // scale, 512, 10_000 // scale, 0)]
    flat = images.reshape(len(images), -1), queries.reshape(len(queries), -1)
    return {
        "TorchNearestNeighbors, 1,000,000 x 64, k = 5": lambda: search_case(*many, 5, device),
        "TorchNearestNeighbors, 50,000 x 512, k = 10": lambda: search_case(*wide, 10, device),
        "TorchNearestNeighbors, MNIST pixels, k = 10": lambda: search_case(*flat, 10, device),
        "LatentKNNClassifier.predict": predict,
        'BoundarySampleExtractor("minimal")': lambda: boundary("minimal", n_moved),
        'BoundarySampleExtractor("segment")': lambda: boundary("segment", n_moved),
        'BoundarySampleExtractor("pm")': lambda: boundary("pm", n_moved // 2),
        "SubspaceMargins.transform": margins,
        "BiasedExtrapolationSampler.fit_resample": resample,
    }


def timed(call: Call, rounds: int) -> tuple[float, Any]:
    """Median seconds after one call that is not counted, and the result."""
    result, seconds = call(), []
    for _ in range(rounds):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


def measure(case: Case) -> dict[str, Any]:
    """Seconds of each call of a case, and how far results agree."""
    record: dict[str, Any] = {"seconds": {}}
    results = {}
    for name, call in case.items():
        record["seconds"][name], results[name] = timed(call, 1 if name == "cpu" else 3)
    ours, on_cpu = results["accelerator"], results["cpu"]
    record["results"] = len(ours)
    record["agreement"] = _share_equal(ours, on_cpu)
    if "cdist, topk" in results:
        record["exact"] = {"cdist, topk": _share_equal(results["cdist, topk"], on_cpu)}
    return record


def _share_equal(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} results.")
    equal = np.isclose(a, b, rtol=0.01, atol=0) if a.dtype.kind == "f" else a == b
    return float(equal.reshape(len(a), -1).all(1).mean())


def table(results: dict[str, Any]) -> str:
    """The table of the guide."""
    cells = [
        ["method", "accelerator", "CPU", "CPU / accelerator", "agreement", "peer / accelerator"]
    ]
    for name, record in results["records"].items():
        seconds = dict(record["seconds"])
        ours, cpu = seconds.pop("accelerator"), seconds.pop("cpu")
        peers = [f"{peer}: {s / ours:.2f}" for peer, s in seconds.items()]
        exact = [f"{share:.2%} exact" for share in record.get("exact", {}).values()]
        agreement = f"{record['agreement']:.2%}"
        times = [f"{ours:.3f} s", f"{cpu:.3f} s", f"{cpu / ours:.1f}"]
        cells.append([name, *times, agreement, ", ".join(peers + exact)])
    return "\n".join(rst_table(cells))


def main() -> None:
    """Measure the cases; write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, saves nothing")
    parser.add_argument("--only", default="", help="measure the methods whose name contains this")
    parser.add_argument("--table", action="store_true", help="only write the table of the guide")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        return insert_table(GUIDE, MARKS, table(json.loads(args.out.read_text())))
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {"command": command(), "machine": machine(), "versions": versions()}
    results["records"] = {}
    for name, make in cases(args.device, args.quick).items():
        if args.only in name:
            results["records"][name] = record = measure(make())
            print(name, record, flush=True)
            if not args.quick:
                args.out.write_text(json.dumps(results, indent=1) + "\n")
    if not args.quick and args.out == RESULTS:
        insert_table(GUIDE, MARKS, table(results))
    return None


if __name__ == "__main__":
    main()
