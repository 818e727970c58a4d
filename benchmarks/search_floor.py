"""Cost of the passes of an exact search relative to the matrix product, on one thread.

    python benchmarks/search_floor.py

512 queries and 16 strips of 512 samples; each pass is timed in turn. Figures are medians of CPU
time, relative to the product whose scores stay in the cache. The design of
functional/nearest_neighbors.py is based on them.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from provenance import machine, versions
from quiet import median_seconds

RESULTS = Path(__file__).parent / "results" / "search_floor.json"
QUERIES, STRIPS, STRIP, GROUP = 512, 16, 512, 8


def passes(d: int) -> dict[str, Callable[[], Any]]:
    """Return calls that each run one pass over the same scores."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(QUERIES, d + 1, generator=generator)
    samples = torch.randn(STRIPS, STRIP, d + 1, generator=generator)
    wide_queries, wide_strips = queries, samples.transpose(1, 2).contiguous()
    queries, strips = queries[:, :d].contiguous(), wide_strips[:, :d].contiguous()
    flat, halves = samples[:, :, :d].reshape(-1, d), samples[:, :, d].contiguous()
    cached, block = torch.empty(QUERIES, STRIP), torch.empty(STRIPS, QUERIES, STRIP)
    whole = block.view(QUERIES, -1)
    low = torch.empty(STRIPS, QUERIES, STRIP // GROUP)
    half_queries, half_strips, half_cached = (t.bfloat16() for t in (queries, strips, cached))

    def minima(scores: Any) -> None:
        for out, least in zip(scores, low):
            torch.amin(out.view(QUERIES, GROUP, -1), 1, out=least)

    return {
        "product, scores stay in the cache": lambda: [
            torch.mm(queries, strip, out=cached) for strip in strips
        ],
        "product, scores written to a block": lambda: [
            torch.mm(queries, strip, out=out) for strip, out in zip(strips, block)
        ],
        "the same, half norms added": lambda: [
            torch.addmm(half, queries, strip, alpha=-1, out=out)
            for half, strip, out in zip(halves, strips, block)
        ],
        "the same, half norms as one more column": lambda: [
            torch.mm(wide_queries, strip, out=out) for strip, out in zip(wide_strips, block)
        ],
        "the same, one product for all strips": lambda: torch.mm(queries, flat.T, out=whole),
        "product in bfloat16": lambda: [
            torch.mm(half_queries, strip, out=half_cached) for strip in half_strips
        ],
        "minima, each strip in the cache": lambda: minima([cached] * STRIPS),
        "minima, out of the block": lambda: minima(block),
    }


def measure(d: int, rounds: int) -> dict[str, float]:
    """Median CPU time of each pass relative to that of the first."""
    medians = median_seconds(passes(d), rounds, time.process_time)
    unit = medians["product, scores stay in the cache"]
    return {name: value / unit for name, value in medians.items()}


def main() -> None:
    """Run the benchmark, print the results and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ratios = {str(d): measure(d, args.rounds) for d in (64, 128, 512)}
    for name in ratios["64"]:
        print(f"{name:40}" + "".join(f"{of_d[name]:6.2f}" for of_d in ratios.values()))
    results = {
        "command": "python benchmarks/search_floor.py",
        "seed": 0,
        "rounds": args.rounds,
        "machine": machine(),
        "versions": versions(),
        "ratios": ratios,
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
