"""Merge the results of one script that was run in parts, on several cores or machines.

    python benchmarks/merge_results.py PART.json [PART.json ...] --out RESULT.json

Tables are merged cell by cell and lists are concatenated. Two parts must not contain different
values of a figure, because they would stem from different settings or from repeated measurements.
Only the commands may differ, and all of them are kept.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
from functools import reduce
from pathlib import Path
from typing import Any


def merge(one: Any, other: Any, place: str = "") -> Any:
    """Merge two parts."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {
            key: merge(one[key], other[key], f"{place}/{key}") if key in other else one[key]
            for key in one
        }
        return both | {key: value for key, value in other.items() if key not in one}
    if isinstance(one, list) and isinstance(other, list):
        return one + [value for value in other if value not in one]
    if one == other:
        return one
    if place == "/command":
        return " && ".join(dict.fromkeys([*one.split(" && "), *other.split(" && ")]))
    raise SystemExit(f"The parts differ at {place}: {one!r} and {other!r}.")


def main() -> None:
    """Read the parts and write the merged results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    whole = reduce(merge, (json.loads(part.read_text()) for part in args.parts))
    args.out.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
