"""Distance of the nearest boundary points against the number of gradients; part of boundary.py.

    python benchmarks/boundary.py --part curve [--quick] [--rows 100]
    python benchmarks/boundary.py --part norms [--quick] [--rows 50]

Two MNIST networks and one of CIFAR-10, and the first test samples that they predict correctly, with
the range of the images as the box. Alternatives are DDN of foolbox, and DDN without quantization,
SuperDeepFool and PDGD of adv-lib, each with as many steps as we may take gradients, which are
counted at the input. SuperDeepFool ends by itself: it is run once. The points of the alternatives
undergo the same last step as ours. Interrupted runs resume with the missing networks.

The optimality of AttackBench (Cina et al., AAAI 2025, arXiv 2404.19460) compares areas under the
curve of the accuracy that is left when each sample moves by some distance. For samples that are
predicted correctly this area is the mean of their distances, clipped at the largest distance D of
the best points: with the area A of a contender and B of the best points of all contenders,

    1 - (A - B) / (D - B)

Part "norms" compares the norms 1 and inf with FMN of foolbox, by the same rules.

Requires the folder named by SKBOUNDARY_DATA, foolbox, and adv-lib, whose own dependencies beyond
torch the attacks do not use: python -m pip install --no-deps adv-lib==0.2.8
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from boundary_networks import BOX, CIFAR, KAPPA, NETWORKS, Counter, get_network, polished
from data_folder import load_mnist
from real_latents import load_cifar
from torch import Tensor, nn

from skboundary.functional.nearest_boundary import nearest_boundary

BUDGETS = (10, 30, 100, 300, 1000)
NORM_BUDGETS = (30, 100, 300)
Search = Callable[[nn.Module, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def contenders() -> dict[str, Search]:
    """Functions from a network, samples, their classes and a budget to points and successes."""
    try:
        import foolbox as fb

        attacks = _adv_lib()
    except ImportError as error:
        sys.exit(f"{error}. See the first lines of boundary_curve.py.")

    def ours(net: nn.Module, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        found = nearest_boundary(net, x, y, effort=n, bounds=BOX, margin_tol=KAPPA)
        return found.points, found.success

    def foolbox_ddn(net: nn.Module, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        model = fb.PyTorchModel(net.eval(), bounds=(0, 1))
        attack = fb.attacks.DDNAttack(steps=n)
        points = attack(model, x, fb.criteria.Misclassification(y), epsilons=None)[0]
        return polished(net, x, y, points)

    def ddn_nq(net: nn.Module, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        return polished(net, x, y, attacks.ddn(net, x, y, steps=n, levels=None).detach())

    def pdgd(net: nn.Module, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        return polished(net, x, y, attacks.pdgd(net, x, y, num_steps=n).detach())

    def sdf(net: nn.Module, x: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
        return polished(net, x, y, attacks.sdf(net, x, y).detach())

    return {
        "ours": ours,
        "foolbox DDN": foolbox_ddn,
        "adv-lib DDN-NQ": ddn_nq,
        "adv-lib PDGD": pdgd,
        "adv-lib SuperDeepFool": sdf,
    }


def _adv_lib() -> ModuleType:
    """The attacks of adv-lib, which import packages for images and plots that they do not use."""
    unused = ("torchvision", "torchvision.models", "visdom")
    added = [name for name in unused if name not in sys.modules]
    for name in added:
        sys.modules[name] = ModuleType(name)
    sys.modules["torchvision"].models = sys.modules["torchvision.models"]  # type: ignore[attr-defined]
    try:
        from adv_lib import attacks
    finally:
        for name in added:
            del sys.modules[name]
    return attacks


def optimality(distance: Tensor, best: Tensor) -> float:
    """AttackBench's optimality of distances (n,), infinite without success."""
    area = distance.clamp(max=best.max()).mean()
    return (1 - (area - best.mean()) / (best.max() - best.mean())).item()


def measure_curve(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, dict[str, Any]]:
    """Run all contenders with all budgets."""
    records: dict[str, dict[str, Any]] = {}
    distances: dict[tuple[str, str], Tensor] = {}
    for name, search in contenders().items():
        records[name] = {}
        for n in BUDGETS[:1] if "SuperDeepFool" in name else BUDGETS:
            counter = Counter(net)
            points, success = search(counter, x, y, n)
            success &= net(points).argmax(1) != y
            distance = (points - x).flatten(1).norm(dim=1)
            key = "any" if "SuperDeepFool" in name else str(n)
            distances[name, key] = distance.where(success, torch.inf)
            records[name][key] = {
                "gradients": counter.n_backward / len(x),
                "success": success.float().mean().item(),
                "mean_distance": distance[success].mean().item(),
                "median_distance": distances[name, key].median().item(),
            }
            print(f"  {name} {key}: {records[name][key]}", flush=True)
    best = torch.stack([*distances.values()]).amin(0)
    for (name, key), distance in distances.items():
        records[name][key]["optimality"] = optimality(distance, best)
    return records


def measure_norms(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, dict[str, Any]]:
    """Run our search and FMN of foolbox in the norms 1 and inf."""
    import foolbox as fb

    attacks = {"1": fb.attacks.L1FMNAttack, "inf": fb.attacks.LInfFMNAttack}
    records: dict[str, dict[str, Any]] = {}
    for norm, attack in attacks.items():
        for n in NORM_BUDGETS:
            found = nearest_boundary(
                net, x, y, effort=n, bounds=BOX, margin_tol=KAPPA, norm=float(norm)
            )
            model = fb.PyTorchModel(net.eval(), bounds=(0, 1))
            points = attack(steps=n)(model, x, fb.criteria.Misclassification(y), epsilons=None)[0]
            for name, (ends, success) in {
                "ours": (found.points, found.success),
                "foolbox FMN": polished(net, x, y, points),
            }.items():
                success &= net(ends).argmax(1) != y
                distance = (ends - x).flatten(1).norm(float(norm), dim=1)
                records.setdefault(f"norm {norm}, {name}", {})[str(n)] = {
                    "success": success.float().mean().item(),
                    "mean_distance": distance[success].mean().item(),
                    "median_distance": distance.where(success, torch.inf).median().item(),
                }
                print(f"  norm {norm}, {name} {n}: {distance[success].mean():.4f}", flush=True)
    return records


def curve(args: argparse.Namespace) -> dict[str, Any]:
    """Run the part for the networks of --nets; records of the others are kept."""
    return _by_network(args, measure_curve)


def norms(args: argparse.Namespace) -> dict[str, Any]:
    """Run the part for the networks of --nets; records of the others are kept."""
    return _by_network(args, measure_norms)


def _by_network(
    args: argparse.Namespace, measure: Callable[[nn.Module, Tensor, Tensor], dict[str, Any]]
) -> dict[str, Any]:
    nets = args.nets or [*NETWORKS, *CIFAR]
    stored = json.loads(args.out.read_text()).get(args.part, {}) if args.out.exists() else {}
    records = {k: v for k, v in stored.get("records", {}).items() if k not in nets}
    partial = args.out.with_suffix(f".{args.part}.part")
    if partial.exists():
        records |= json.loads(partial.read_text())
    for name in nets:
        if name in records:
            continue
        data = load_mnist()
        if name in CIFAR:
            X, y, X_test, y_test = load_cifar()
            data = (X + 1) / 2, y, (X_test + 1) / 2, y_test
        net, accuracy = get_network(name, args.cache, data)
        x, y = data[2][: 2 * args.rows], data[3][: 2 * args.rows]
        right = (net(x).argmax(1) == y).nonzero()[: args.rows, 0]
        print(f"{name}: test accuracy {accuracy:.4f}", flush=True)
        found = measure(net, x[right], y[right])
        records[name] = {"accuracy": accuracy, "rows": len(right), "contenders": found}
        partial.write_text(json.dumps(records))
    partial.unlink(missing_ok=True)
    return records


def curve_tables(records: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Titles and cells of the tables of these results in the user guide."""
    tables = []
    for name, record in records.items():
        title = f"{name}, test accuracy {record['accuracy']:.4f}, {record['rows']} samples:"
        cells = [["gradients at most", *map(str, BUDGETS)]]
        for contender, by_budget in record["contenders"].items():
            row = [_cell(by_budget[str(n)]) for n in BUDGETS if str(n) in by_budget]
            if not row:
                (only,) = by_budget.values()
                contender = f"{contender}, {only['gradients']:.0f} gradients"
                row = [""] * len(BUDGETS)
                row[sum(n < only["gradients"] for n in BUDGETS)] = _cell(only)
            cells.append([contender, *row])
        tables.append((title, cells))
    return tables


def _cell(record: dict[str, Any]) -> str:
    missed = "" if record["success"] == 1 else f" in {record['success']:.0%}"
    return f"{record['mean_distance']:.4f}{missed} ({record['optimality']:.3f})"


def norm_tables(records: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Titles and cells of the tables of these results in the user guide: medians."""
    tables = []
    for name, record in records.items():
        title = f"{name}, test accuracy {record['accuracy']:.4f}, {record['rows']} samples:"
        cells = [["gradients at most", *map(str, NORM_BUDGETS)]]
        for contender, by_budget in record["contenders"].items():
            values = (by_budget[str(n)] for n in NORM_BUDGETS)
            row = (
                f"{v['median_distance']:.4f}"
                + ("" if v["success"] == 1 else f" ({v['success']:.0%})")
                for v in values
            )
            cells.append([contender, *row])
        tables.append((title, cells))
    return tables
