"""Distance and cost of boundary points against DeepFool, DDN and Carlini-Wagner, and PM's pairs.

    python benchmarks/boundary.py --part gradient [--quick] [--rows 150] [--rounds 3]
    python benchmarks/boundary.py --part curve [--quick] [--rows 100]
    python benchmarks/boundary.py --part norms [--quick] [--rows 50]
    python benchmarks/boundary.py --part black-box [--quick] [--rows 20]
    python benchmarks/boundary.py --table

Part "gradient": two MNIST networks and held-out samples, with the range of the images as the box.
Contenders run in turn in one process; a time is the median of the CPU time of the process over the
rounds, and gradients are counted at the input. The points of the alternatives undergo the same last
step as ours. Networks are trained here and stored in --cache. Requires the folder named by
SKBOUNDARY_DATA and, for the alternatives, foolbox. Parts "curve", "norms" and "black-box" are
described in boundary_curve.py and black_box.py.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from black_box import black_box, black_box_tables
from boundary_curve import curve, curve_tables, norm_tables, norms
from boundary_networks import BOX, CIFAR, KAPPA, NETWORKS, Counter, get_network, polished
from data_folder import load_mnist
from provenance import command, machine, versions
from rst_table import rst_table
from torch import Tensor, nn

from skboundary.functional.margins import class_margin
from skboundary.functional.nearest_boundary import nearest_boundary
from skboundary.functional.perturbation_minimization import (
    fast_start,
    minimize_perturbation,
    penalty_for,
)

RESULTS = Path(__file__).parent / "results" / "boundary.json"


def measure(
    contenders: dict[str, Callable[[nn.Module], Any]],
    net: nn.Module,
    n: int,
    rounds: int,
    once: tuple[str, ...] = (),
) -> dict[str, dict[str, Any]]:
    """Run all contenders in turn.

    Returns CPU seconds per 1000 samples, passes per sample, and the last result of each.
    """
    found: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in contenders}
    for i in range(rounds):
        for name, run in contenders.items():
            if i and name in once:
                continue
            counter, start = Counter(net), time.process_time()
            result = run(counter)
            found[name]["seconds"].append((time.process_time() - start) * 1000 / n)
            found[name] |= {
                "result": result,
                "forward": counter.n_forward / n,
                "backward": counter.n_backward / n,
            }
            print(f"  {name}: {found[name]['seconds'][-1]:.2f} s per 1000", flush=True)
    for record in found.values():
        record["cpu_s_per_1000"] = statistics.median(record["seconds"])
    return found


# ---- part "gradient" -----------------------------------------------------------------------------


def peers(x: Tensor, source: Tensor) -> dict[str, Callable[[nn.Module], Tensor]]:
    """Functions that map a network to the points of an attack of foolbox."""
    try:
        import foolbox as fb
    except ImportError:
        sys.exit(
            "The alternatives need foolbox: python -m pip install -c constraints.txt '.[bench]'"
        )
    attacks = {
        "DDN 40": fb.attacks.DDNAttack(steps=40),
        "DDN 100": fb.attacks.DDNAttack(steps=100),
        "DDN 300": fb.attacks.DDNAttack(steps=300),
        "DeepFool": fb.attacks.L2DeepFoolAttack(),
        "Carlini-Wagner": fb.attacks.L2CarliniWagnerAttack(
            binary_search_steps=6, steps=100, stepsize=0.05, initial_const=1.0
        ),
    }

    def points(attack: Any, net: nn.Module) -> Tensor:
        model = fb.PyTorchModel(net.eval(), bounds=(0, 1))
        return attack(model, x, fb.criteria.Misclassification(source), epsilons=None)[0]

    return {
        name: lambda net, attack=attack: polished(net, x, source, points(attack, net))
        for name, attack in attacks.items()
    }


def ours(x: Tensor, source: Tensor) -> dict[str, Callable[[nn.Module], Any]]:
    """Functions that map a network to our points, one for each effort."""

    def run(net: nn.Module, effort: str) -> tuple[Tensor, Tensor]:
        crossing = nearest_boundary(net, x, source, effort=effort, bounds=BOX, margin_tol=KAPPA)
        return crossing.points, crossing.success

    return {
        f"ours, {effort}": lambda net, effort=effort: run(net, effort)
        for effort in ("fast", "balanced", "thorough")
    }


def nearest_points(net: nn.Module, x: Tensor, rounds: int) -> dict[str, Any]:
    """Distances of all contenders, and their differences from DDN on the same samples."""
    source = net(x).argmax(1)
    slow = ("DDN 300", "DeepFool", "Carlini-Wagner")
    found = measure(ours(x, source) | peers(x, source), net, len(x), rounds, slow)
    records, distances = {}, {}
    for name, record in found.items():
        points, success = record.pop("result")
        distance = (points - x).flatten(1).norm(dim=1)
        distances[name] = distance.where(success, torch.nan)
        margin = class_margin(net(points), source).neg()[success]
        records[name] = record | {
            "success": success.float().mean().item(),
            "mean_distance": distance[success].mean().item(),
            "median_distance": distance[success].median().item(),
            "margin": [margin.min().item(), margin.max().item()],
        }
    for name in records:
        for peer in ("DDN 40", "DDN 100"):
            gain = distances[name] - distances[peer]
            gain = gain[gain.isfinite()]
            records[name][f"minus {peer}"] = {
                "mean": gain.mean().item(),
                "standard_error": (gain.std() / len(gain) ** 0.5).item(),
                "nearer_or_equal": (gain < 1e-3).float().mean().item(),
            }
    return records


def pairs(net: nn.Module, data: Any, per_pair: int, rounds: int) -> dict[str, Any]:
    """PM's pairs for all 90 ordered pairs of classes: the paper's recipe and the fast start."""
    x_test, y_test = data[2], data[3]
    correct = net(x_test[:2000]).argmax(1) == y_test[:2000]
    selected, target = [], []
    for s in range(10):
        own = (correct & (y_test[:2000] == s)).nonzero()[:, 0]
        for i, t in enumerate([t for t in range(10) if t != s] * per_pair):
            selected.append(int(own[i % len(own)]))
            target.append(t)
    x, goal = x_test[selected], torch.tensor(target)
    source = y_test[selected]
    noise = 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def literal(net: nn.Module) -> Any:
        delta = (x + noise).clamp(*BOX) - x
        return minimize_perturbation(
            net,
            x,
            source,
            target=goal,
            delta=delta,
            bounds=BOX,
            penalty=1.0,
            n_iter=300,
            learning_rate=0.01,
        )

    def fast(net: nn.Module, n_iter: int, literal_penalty: bool) -> Any:
        start = fast_start(net, x, source, target=goal, bounds=BOX, margin_tol=KAPPA)
        penalty = 1.0 if literal_penalty else penalty_for(0.9, start.gradient)
        return minimize_perturbation(
            net,
            start.inner,
            source,
            target=goal,
            delta=start.delta,
            penalty=penalty,
            n_iter=n_iter,
            learning_rate=1.5 * start.delta.flatten(1).norm(dim=1) / 28,
            betas=(0.5, 0.9),
            bounds=BOX,
        )

    found = measure(
        {
            "PM 300, literal": literal,
            "fast start + PM 30, penalty 1": lambda net: fast(net, 30, True),
            "fast start + PM 30, confidence .9": lambda net: fast(net, 30, False),
            "fast start + PM 60, penalty 1": lambda net: fast(net, 60, True),
        },
        net,
        len(x),
        rounds,
    )
    records = {}
    for name, record in found.items():
        result = record.pop("result")
        records[name] = record | {
            "n_pairs": len(x),
            "success": result.success.float().mean().item(),
            "collapsed": result.collapsed.float().mean().item(),
            "mean_norm": (result.points - result.inner).flatten(1).norm(dim=1).mean().item(),
            "mean_probability": result.probabilities.mean().item(),
        }
    return records


def gradient(args: argparse.Namespace) -> dict[str, Any]:
    """Run the methods that use gradients."""
    data = load_mnist()
    records: dict[str, Any] = {}
    for name in args.nets or NETWORKS:
        net, accuracy = get_network(name, args.cache, data)
        print(f"{name}: test accuracy {accuracy:.4f}", flush=True)
        # the first test samples, on which no network was trained
        records[name] = {
            "accuracy": accuracy,
            "rows": args.rows,
            "nearest": nearest_points(net, data[2][: args.rows], args.rounds),
            "pairs": pairs(net, data, args.per_pair, args.rounds),
        }
    return records


def gradient_tables(records: dict[str, Any]) -> list[str]:
    """Lines of these results in the user guide."""
    lines = []
    for name, record in records.items():
        lines += [f"{name}, test accuracy {record['accuracy']:.4f}, {record['rows']} samples:", ""]
        cells = [["method", "success", "distance", "gradients", "CPU s", "minus DDN 40"]]
        for method, r in record["nearest"].items():
            difference = r["minus DDN 40"]
            cells.append(
                [
                    method,
                    f"{r['success']:.3f}",
                    f"{r['mean_distance']:.4f}",
                    f"{r['backward']:.1f}",
                    f"{r['cpu_s_per_1000']:.2f}",
                    f"{difference['mean']:+.4f} ± {difference['standard_error']:.4f}",
                ]
            )
        lines += rst_table(cells) + [""]
        cells = [["pairs", "success", "norm", "probability", "gradients", "CPU s"]]
        for method, r in record["pairs"].items():
            cells.append(
                [
                    method,
                    f"{r['success']:.3f}",
                    f"{r['mean_norm']:.3f}",
                    f"{r['mean_probability']:.3f}",
                    f"{r['backward']:.1f}",
                    f"{r['cpu_s_per_1000']:.2f}",
                ]
            )
        lines += rst_table(cells) + [""]
    return lines


# ---- both parts ----------------------------------------------------------------------------------


def curve_lines(records: dict[str, Any]) -> list[str]:
    """Lines of these results in the user guide."""
    return _titled(curve_tables(records))


def norm_lines(records: dict[str, Any]) -> list[str]:
    """Lines of these results in the user guide."""
    return _titled(norm_tables(records))


def _titled(tables: list[tuple[str, list[list[str]]]]) -> list[str]:
    return [line for title, cells in tables for line in [title, "", *rst_table(cells), ""]]


def black_box_lines(records: dict[str, Any]) -> list[str]:
    """Lines of these results in the user guide."""
    return [line for cells in black_box_tables(records) for line in [*rst_table(cells), ""]]


PARTS = {
    "gradient": (gradient, gradient_tables, 150),  # and the number of samples
    "curve": (curve, curve_lines, 100),
    "norms": (norms, norm_lines, 50),
    "black-box": (black_box, black_box_lines, 20),
}


def main() -> None:
    """Run a part and write it to the JSON, or print the tables of the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS, default="gradient")
    parser.add_argument("--quick", action="store_true", help="few samples, one round")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--rows", type=int, help="number of samples")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-pair", type=int, default=1)
    parser.add_argument("--nets", nargs="+", choices=NETWORKS | CIFAR, help="all by default")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "skboundary")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.rows, args.rounds = args.rows or 20, 1
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.table:
        for part, (_, tables, _) in PARTS.items():
            if part in results:
                print("\n".join(tables(results[part]["records"])))
        return
    torch.set_num_threads(1)
    args.rows = args.rows or PARTS[args.part][2]
    records = PARTS[args.part][0](args)
    before = results.get(args.part, {}) if args.nets and args.part in ("curve", "norms") else {}
    results[args.part] = {
        "command": " && ".join([*filter(None, [before.get("command")]), command()]),
        "seed": 0,
        "machine": machine(),
        "versions": versions("foolbox", "adv-lib", "adversarial-robustness-toolbox"),
        "records": records,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(PARTS[args.part][1](records)))


if __name__ == "__main__":
    main()
