"""Time and memory of SubspaceMargins for CIFAR-10 images.

    python benchmarks/margins_speed.py [--images 100 1000] [--threads 1 2]

The residual network of reproductions/hold_me_tight.py, trained for three epochs on 20,000 images
and stored in --work, and its 13 subspaces of frequencies. Each cell is measured in a process of its
own, without the fit; memory is the largest growth of that process. Requires the folder named by
SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peak_memory import added_memory
from provenance import command, machine, versions
from quiet import OtherLoad
from reproductions.hold_me_tight import Scale, chosen, load_images, resnet, train
from rst_table import insert_table, rst_table
from torch import nn

from skboundary import SubspaceMargins

RESULTS = Path(__file__).parent / "results" / "margins_speed.json"
GUIDE = Path(__file__).parents[1] / "docs" / "user_guide" / "subspace_margins.rst"
MARKS = ".. the speed table starts\n", ".. the speed table ends\n"
TRAINED_ON, EPOCHS = 20_000, 3


def make_network(file: Path) -> nn.Module:
    """Load the network from a file, or train it and store it there."""
    torch.manual_seed(0)
    net = nn.Sequential(Scale(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)), *resnet())
    if file.exists():
        net.load_state_dict(torch.load(file, weights_only=True))
        return net.eval()
    X, y, _, _ = load_images("cifar", TRAINED_ON)
    net[0] = Scale(X.mean((0, 2, 3), keepdim=True), X.std((0, 2, 3), keepdim=True))
    train(net, X, y, EPOCHS)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), file)
    return net


def measure(n: int, threads: int, file: Path) -> dict[str, Any]:
    """Margins of n images: seconds, and memory in MB."""
    torch.set_num_threads(threads)
    X = chosen(load_images("cifar", 1)[2], n).numpy()
    margins = SubspaceMargins(make_network(file)).fit(X)
    others, start = OtherLoad(), (time.perf_counter(), time.process_time())
    added = added_memory(lambda: margins.transform(X))
    return {
        "images": n,
        "threads": threads,
        "subspaces": margins.n_subspaces_,
        "wall_seconds": time.perf_counter() - start[0],
        "cpu_seconds": time.process_time() - start[1],
        "added_mb": added,
        "cores_of_others": others.cores(),
    }


def table(records: list[dict[str, Any]]) -> str:
    """The table of the guide."""
    cells = [["images", "threads", "wall time", "CPU time", "memory"]]
    for r in records:
        seconds = [f"{r[clock]:.1f} s" for clock in ("wall_seconds", "cpu_seconds")]
        cells.append([str(r["images"]), str(r["threads"]), *seconds, f"{r['added_mb']:.0f} MB"])
    return "\n".join(rst_table(cells))


def main() -> None:
    """Run the cells; write the JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "skboundary")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    file = args.work / "margins_speed.pt"
    if args.child:
        print(json.dumps(measure(args.images[0], args.threads[0], file)))
        return
    make_network(file)
    records = []
    for threads in args.threads:
        for n in args.images:
            call = [sys.executable, __file__, "--child", "--work", str(args.work)]
            call += ["--images", str(n), "--threads", str(threads)]
            done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
            records.append(json.loads(done.stdout.splitlines()[-1]))
            print(records[-1], flush=True)
    run = {"command": command(), "seed": 0, "machine": machine(), "versions": versions()}
    args.out.write_text(json.dumps(run | {"records": records}, indent=1) + "\n")
    if args.out == RESULTS:
        insert_table(GUIDE, MARKS, table(records))


if __name__ == "__main__":
    main()
