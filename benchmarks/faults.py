"""Faults that are injected into the calls of every estimator, and what came of them, counted.

    python benchmarks/faults.py [--most N] [--only TEXT]

A fault is injected at every step of a call where it can occur, at N steps at most, spread over the
call: at a call of the network, at a line of this package, at a write of the cache. After it, the
result must be right, or the error must be the expected one; the estimator, the modules, the
generators and the threads must be as before; and the same call, made again in another thread, must
give the result of a call without a fault, to the bit. No times are recorded.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import ast
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from fault_calls import CALLS, OWN_CALLS, Call, Faulty, faulty, process_state, same, trained, values
from fault_storage import STORAGE
from provenance import command, versions
from rst_table import rst_table

import skboundary

RESULTS = Path(__file__).parent / "results" / "faults.json"
GUIDE = Path(__file__).parent.parent / "docs" / "user_guide" / "faults.rst"
BEGIN, END = ".. begin of the counts", ".. end of the counts"
PACKAGE = str(Path(skboundary.__file__).parent)
MOST = 60  # steps of a call at which a fault is injected
# What BoundaryCharacterizer keeps of a fit that failed, for warm_start.
KEPT = {"_classifier", "_rng", "_cache", "_measured"}


def interrupt(_: Any = None) -> Any:
    raise KeyboardInterrupt


def fail(_: Any) -> Any:
    raise RuntimeError("a kernel failed")


def fail_otherwise(_: Any) -> Any:
    raise ZeroDivisionError("a bug of the network")


class Fault(NamedTuple):
    """What a network does in one of its calls, and the error that it leads to."""

    act: Callable[[torch.Tensor], Any]
    error: type[BaseException]
    result: str = ""  # what may come instead of the error


NETWORK = {
    "KeyboardInterrupt": Fault(interrupt, KeyboardInterrupt),
    "RuntimeError": Fault(fail, ValueError),
    "ZeroDivisionError": Fault(fail_otherwise, ZeroDivisionError),
    "NaN": Fault(lambda z: z * torch.nan, ValueError, "verified pairs"),
    "a sample less": Fault(lambda z: z[1:], ValueError),
    "a class less": Fault(lambda z: z[:, 1:], ValueError),
    "a tensor on another device": Fault(lambda z: z.to("meta"), ValueError),
    "no tensor": Fault(lambda z: None, ValueError),
}


# ------------------------------------------------------------------------------------ injection


def spread(n: int, most: int) -> list[int]:
    """Steps from 1 to n, evenly spread, at most `most`."""
    return sorted({*np.linspace(1, n, min(n, most)).round().astype(int).tolist()})


@cache
def cleanup_lines(filename: str) -> frozenset[int]:
    """Lines of `finally`, `except` and `with`: no interruption comes during the cleanup."""
    tree = ast.parse(Path(filename).read_text())
    bodies = [node.finalbody for node in ast.walk(tree) if isinstance(node, ast.Try)]
    bodies += [node.body for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    statements = [statement for body in bodies for statement in body]
    lines = {n for s in statements for n in range(s.lineno, (s.end_lineno or 0) + 1)}
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.With)]  # left at their line
    return frozenset(lines | {n for b in blocks for n in range(b.lineno, b.body[0].lineno)})


@contextmanager
def interrupted_at(step: int) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt before the line of this package that is executed as number `step`.

    Yields the number of lines executed; step 0 is never reached.
    """
    executed, before = [0], sys.gettrace()

    def in_frame(frame: Any, event: str, _: Any) -> Any:
        if event == "line" and frame.f_lineno not in cleanup_lines(frame.f_code.co_filename):
            executed[0] += 1
            if executed[0] == step:
                raise KeyboardInterrupt
        return in_frame

    sys.settrace(lambda frame, *_: in_frame if PACKAGE in frame.f_code.co_filename else None)
    try:
        yield executed
    finally:
        sys.settrace(before)


def in_thread(call: Callable[[], Any]) -> Any:
    """The result of a call in a new thread, which would wait for a lock that is still held."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(60)


def trace_of(
    call: Call, inject: Callable[[Faulty, Callable[[], Any]], Any], fault: Fault, want: list[Any]
) -> str:
    """What a fault changed besides the end of its call; nothing if all went as expected."""
    module = faulty()
    estimator, run = call.begin(module)
    before = {name: value for name, value in vars(estimator).items() if name not in KEPT}
    state = process_state(module)
    try:
        result = inject(module, run)
    except fault.error as error:
        now = {name: value for name, value in vars(estimator).items() if name not in KEPT}
        as_before = now.keys() == before.keys() and all(now[n] is before[n] for n in before)
        traces = [] if as_before else ["the estimator"]
        if fault.error is ValueError and "Faulty" not in str(error):
            traces.append(f"the error {error!r}")
    except Exception as error:
        traces = [f"the error {error!r}"]
    else:
        module.at = 0
        traces = [] if is_right(result, want, fault) else ["the result"]
    module.at = 0
    found = process_state(module)
    traces += [name for name, value in state.items() if found[name] != value]
    if not same(values(in_thread(run)), want):
        traces.append("the next result")
    return ", ".join(traces)


def is_right(result: Any, want: list[Any], fault: Fault) -> bool:
    """Whether a result is that of a call without a fault, or what the fault may lead to."""
    if same(values(result), want):
        return True
    if fault.result != "verified pairs" or not hasattr(result, "n_evaluations"):
        return False
    ok = result.success
    ends = ((result.inner[ok], result.source[ok]), (result.outer[ok], result.target[ok]))
    return all(
        (trained()(torch.tensor(points)).argmax(1).numpy() == labels).all()
        for points, labels in ends
    )


def without_fault(call: Call) -> tuple[list[Any], int]:
    """What a call returns, and how often it calls the network."""
    module = faulty()
    _, run = call.begin(module)
    module.n_calls = 0
    result = run()
    n_calls = module.n_calls
    return values(result), n_calls


def network_faults(name: str, what: str, most: int) -> list[str]:
    """Inject a fault into calls of the network; the trace of each."""
    call, fault = CALLS[name], NETWORK[what]
    want, n_calls = without_fault(call)

    def at(step: int) -> str:
        def inject(module: Faulty, run: Callable[[], Any]) -> Any:
            module.n_calls, module.at, module.fault = 0, step, fault.act
            return run()

        return trace_of(call, inject, fault, want)

    return [at(step) for step in spread(n_calls, most)]


def interruptions(name: str, most: int) -> list[str]:
    """Interrupt a call at lines of this package; the trace of each."""
    call = (CALLS | OWN_CALLS)[name]
    want, _ = without_fault(call)
    _, run = call.begin(faulty())
    with interrupted_at(0) as executed:
        run()

    def at(step: int) -> str:
        def inject(_: Faulty, run: Callable[[], Any]) -> Any:
            with interrupted_at(step):
                return run()

        return trace_of(call, inject, NETWORK["KeyboardInterrupt"], want)

    return [at(step) for step in spread(executed[0], most)]


# ---------------------------------------------------------------------------------------- table


def measure(most: int, only: str = "") -> Iterator[dict[str, Any]]:
    """Yield a record for each kind of fault and each call."""
    for what, fault in NETWORK.items():
        expected = " or ".join(filter(None, [fault.error.__name__, fault.result]))
        for name in CALLS:
            if only in f"network: {what} {name}":
                yield record(f"network: {what}", name, expected, network_faults(name, what, most))
    for name in CALLS | OWN_CALLS:
        if only in f"line: {name}":
            traces = interruptions(name, most)
            yield record("line: KeyboardInterrupt", name, "KeyboardInterrupt", traces)
    for what, (expected, inject) in STORAGE.items():
        if only in what:
            yield record(what, "", expected, inject(most))


def record(fault: str, where: str, expected: str, traces: list[str]) -> dict[str, Any]:
    """A record of the faults of one kind in one call."""
    for trace in filter(None, traces):
        print(f"{fault}, {where}: {trace}", file=sys.stderr)
    keys = "fault", "where", "expected", "injected", "as_expected"
    return dict(zip(keys, (fault, where, expected, len(traces), traces.count(""))))


def table(records: list[dict[str, Any]]) -> str:
    """The table of the guide: one line for each kind of fault."""
    cells = [["fault", "result or error", "calls", "injected", "as expected"]]
    for fault in dict.fromkeys(r["fault"] for r in records):
        of_kind = [r for r in records if r["fault"] == fault]
        sums = (sum(r[key] for r in of_kind) for key in ("injected", "as_expected"))
        cells.append([fault, of_kind[0]["expected"], str(len(of_kind)), *map(str, sums)])
    return "\n".join([BEGIN, "", *rst_table(cells), "", END])


def main() -> None:
    """Inject, print the table, and write the JSON and the table of the guide."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=MOST, help="steps of a call, at most")
    parser.add_argument("--only", default="", help="faults and calls with this; not recorded")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    records = [*measure(args.most, args.only)]
    print(table(records))
    if args.only:
        return
    results = {"command": command(), "versions": versions(), "records": records}
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    if args.out == RESULTS:
        text = GUIDE.read_text()
        before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
        GUIDE.write_text(before + table(records) + after)


if __name__ == "__main__":
    main()
