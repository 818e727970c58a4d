"""Class-specific biased extrapolation on CIFAR-10: five pairs of classes at 3:1, 6:1 and 10:1.

    python benchmarks/reproductions/extrapolation.py [--seeds 0 1 2 3 4] [--minority 1000 500 300]
    python benchmarks/reproductions/extrapolation.py --table

For each seed and number of minority samples a small network is trained on the ten classes (3,000
images of each majority class). Its 64 latent features are extracted once, and each method continues
to train the last layer: the paper's 19 rounds of 10 epochs without a stopping rule, and the same
with one. EOS and latent mixup (latent_samplers.py) add as many samples in the same rounds. PR-AUC
of a pair is that of the minority class on the test images of its two classes, by
p_minority / (p_minority + p_majority). Each finished cell is written at once, and a second run
continues where the first stopped. --full trains VGG-19, for a GPU. Requires the folder named by
SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score
from torch import Tensor, nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BiasSettings,
    FrozenNetwork,
)

# a script finds only modules of its own folder
sys.path.insert(0, str(Path(__file__).parent.parent))
from data_folder import data_reader
from latent_samplers import EOS, Mixup
from provenance import note_run

RESULTS = Path(__file__).parents[1] / "results" / "extrapolation.json"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PAIRS = {1: 0, 8: 9, 4: 7, 2: 6, 3: 5}  # the paper's: minority to majority class
N_MAJORITY = 3000


def make_methods() -> dict[str, dict[str, Any]]:
    """Parameters of the iterating classifier, by the name of the method."""

    def sampler(**changes: Any) -> Any:
        paper = {"placement": "boundary", "within_class": 0.0, "instance_pairing": "one-to-one"}
        return BiasedExtrapolationSampler(class_pairs=PAIRS, **(paper | changes))

    settings = {kind: BiasSettings(class_specific=kind) for kind in ("threshold", "proportional")}
    literal: dict[str, Any] = {
        "none": {"n_iter": 0},
        "retrain only": {"sampler": "passthrough"},
        "EOS": {"sampler": EOS()},
        "latent mixup": {"sampler": Mixup()},
        "random": {"sampler": sampler(bias="random")},
        "bottom": {"sampler": sampler(bias="bottom")},
        "top": {"sampler": sampler(bias="top")},
        "asymmetric": {"sampler": sampler()},
        "Algorithm 1": {"sampler": sampler(settings=settings["threshold"])},
        "Algorithm 2": {"sampler": sampler(settings=settings["proportional"])},
    }
    methods = {name: {"stopping": None, **given} for name, given in literal.items()}
    methods["asymmetric, stop rule"] = {"stopping": "recall", **literal["asymmetric"]}
    return methods


# ---------------------------------------------------------------------------- data and network


def load_cifar() -> tuple[Any, ...]:
    """CIFAR-10 as uint8 images (n, 3, 32, 32) and labels, read by the data folder's own reader."""
    load = data_reader()
    parts = []
    for split, limit in (("train", 32_000), ("test", None)):
        X, y = load.cifar10(split, limit=limit)
        parts += [np.ascontiguousarray(X.transpose(0, 3, 1, 2)), y.astype(int)]
    return tuple(parts)


def draw(y: Any, n_minority: int, seed: int) -> Any:
    """Draw indices: 3,000 of each majority class, `n_minority` of each minority class."""
    rng = np.random.default_rng(seed)
    counts = [n_minority if c in PAIRS else N_MAJORITY for c in range(10)]
    return np.concatenate(
        [rng.permutation(np.flatnonzero(y == c))[:n] for c, n in enumerate(counts)]
    )


def make_network(full: bool) -> nn.Sequential:
    """Three strided convolutions, or the sixteen of VGG-19; 64 latent features."""
    layers: list[nn.Module] = []
    if full:
        plan = [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]
        n_in = 3
        for width in plan:
            if width == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(n_in, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            n_in = width
        n_flat = 512
    else:
        for n_in, width in ((3, 32), (32, 48), (48, 64)):
            layers += [nn.Conv2d(n_in, width, 3, stride=2, padding=1), nn.BatchNorm2d(width)]
            layers.append(nn.ReLU())
        n_flat = 64 * 16
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n_flat, 64), nn.ReLU(), nn.Linear(64, 10))


def scale(x: Tensor) -> Tensor:
    """Scale bytes to about [-1, 1]."""
    return x.float() / 127.5 - 1


def train_network(X: Any, y: Any, seed: int, epochs: int, full: bool, device: str) -> nn.Module:
    """Train with Adam and a one-cycle learning rate; images are flipped at random."""
    torch.manual_seed(seed)
    net = make_network(full).to(device)
    if device == "cpu":
        net = net.to(memory_format=torch.channels_last)
    X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    n_steps = epochs * -(-len(y) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3 / (4 * full + 1), n_steps)
    for _ in range(epochs):
        for part in torch.randperm(len(y)).to(device).split(128):
            x = scale(X[part])
            x = torch.where(torch.rand(len(x), 1, 1, 1, device=device) < 0.5, x.flip(3), x)
            loss = nn.functional.cross_entropy(net(x), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


# ------------------------------------------------------------------------------------- one cell


def latents(net: nn.Module, X: Any, device: str) -> Any:
    """Compute the input of the last layer, (n, 64)."""
    with torch.no_grad():
        parts = [net[:-1](scale(x.to(device))).cpu() for x in torch.from_numpy(X).split(1000)]
    return torch.cat(parts).numpy()


def assess(clf: BiasedExtrapolationClassifier, Z: Any, y: Any) -> dict[str, Any]:
    """Compute PR-AUC of each pair, balanced accuracy, and cost."""
    scores = clf.decision_function(Z)
    found, rounds = {}, [min(n, clf.n_iter_) for n in clf.n_rounds_per_class_.values()]
    for minority, majority in PAIRS.items():
        of_pair = (y == minority) | (y == majority)
        p = scores[of_pair, minority] - scores[of_pair, majority]
        name = f"{CLASSES[minority]} / {CLASSES[majority]}"
        found[name] = average_precision_score(y[of_pair] == minority, p)
    return {
        "PR-AUC": {pair: round(float(v), 5) for pair, v in found.items()},
        "balanced accuracy": round(float(balanced_accuracy_score(y, scores.argmax(1))), 5),
        "rounds": {CLASSES[c]: n for c, n in clf.n_rounds_per_class_.items()},
        "n_iter": clf.n_iter_,
        # the reduction in the paper, which trains once in each round of a pair
        "fewer rounds": round(1 - float(np.mean(rounds)) / 19, 4),
        "n_added": clf.history_[-1]["n_samples"] - clf.history_[0]["n_samples"],
        "cost": clf.history_[-1]["cost"],
        "saved": round(clf.cost_reduction_, 4),
    }


def run_cell(data: Any, n_minority: int, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run all methods on one network."""
    X, y, X_test, y_test = data
    start = time.process_time()
    drawn = draw(y, n_minority, seed)
    net = train_network(X[drawn], y[drawn], seed, args.epochs, args.full, args.device)
    Z, Z_test = latents(net, X[drawn], args.device), latents(net, X_test, args.device)
    last = FrozenNetwork(nn.Sequential(net[-1].cpu()))
    cell: dict[str, Any] = {"training seconds": round(time.process_time() - start, 1)}
    for name, given in make_methods().items():
        start = time.process_time()
        clf = BiasedExtrapolationClassifier(last, random_state=seed, **given).fit(Z, y[drawn])
        cell[name] = assess(clf, Z_test, y_test)
        cell[name]["seconds"] = round(time.process_time() - start, 2)
        accuracy = clf.pair_accuracy_
        if accuracy is not None:
            cell[name]["pair accuracy"] = {
                CLASSES[minority]: round(float(v), 4) for (minority, _), v in accuracy.items()
            }
    return cell


def print_table(results: dict[str, Any]) -> None:
    """Print means over the seeds: PR-AUC of each pair, balanced accuracy, cost reduction."""
    for n_minority, by_seed in results["records"].items():
        cells = list(by_seed.values())
        print(f"\n{N_MAJORITY} majority, {n_minority} minority samples a class, {len(cells)} seeds")
        pairs = list(cells[0]["none"]["PR-AUC"])
        print(
            f"{'':22}"
            + "".join(f"{pair.split()[0]:>11}" for pair in pairs)
            + "       mean  deviation   bal.acc.     added  fewer rounds   saved"
        )
        for name in make_methods():
            if name not in cells[0]:
                continue
            auc = np.array([[cell[name]["PR-AUC"][pair] for pair in pairs] for cell in cells])
            base = np.array([[cell["none"]["PR-AUC"][pair] for pair in pairs] for cell in cells])
            gain = (auc - base).mean(1)
            rest = [
                np.mean([cell[name][key] for cell in cells])
                for key in ("balanced accuracy", "n_added", "fewer rounds", "saved")
            ]
            print(
                f"{name:22}"
                + "".join(f"{v:11.3f}" for v in auc.mean(0))
                + f"{auc.mean():11.3f}{gain.std(ddof=min(1, len(cells) - 1)):11.3f}"
                + f"{rest[0]:11.3f}{rest[1]:10.0f}{rest[2]:14.1%}{rest[3]:8.1%}"
            )


def guide_table(results: dict[str, Any]) -> list[str]:
    """Make the guide's table: means over pairs and seeds, by number of minority samples."""
    records = [list(by_seed.values()) for by_seed in results["records"].values()]
    rule = " ".join(["=" * 21] + ["=" * 7] * 3 * len(records))
    lines = [rule]
    for name in make_methods():
        pr_auc = [np.mean([list(c[name]["PR-AUC"].values()) for c in cells]) for cells in records]
        accuracy, fewer = (
            [np.mean([c[name][key] for c in cells]) for cells in records]
            for key in ("balanced accuracy", "fewer rounds")
        )
        cells = [f"{v:7.3f}" for v in (*pr_auc, *accuracy)] + [f"{v:7.0%}" for v in fewer]
        lines.append(" ".join([name.ljust(21), *cells]))
    return [*lines, rule]


def main() -> None:
    """Run the cells that are missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(5)])
    parser.add_argument("--minority", type=int, nargs="*", default=[1000, 500, 300])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--full", action="store_true", help="VGG-19, for a GPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", action="store_true", help="print the table and leave")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.table:
        print_table(results)
        print("", *guide_table(results), sep="\n")
        return
    torch.set_num_threads(1 if args.device == "cpu" else torch.get_num_threads())
    settings = {"epochs": args.epochs, "network": "VGG-19" if args.full else "three convolutions"}
    if results.setdefault("settings", settings) != settings:
        sys.exit(f"{args.out} was made with {results['settings']}; choose another --out.")
    note_run(results)
    records = results.setdefault("records", {})
    data = load_cifar()
    for seed in args.seeds:
        for n_minority in args.minority:
            cells = records.setdefault(str(n_minority), {})
            if str(seed) not in cells:
                cells[str(seed)] = run_cell(data, n_minority, seed, args)
                args.out.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{n_minority} minority samples, seed {seed}: done", flush=True)
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    print_table(results)


if __name__ == "__main__":
    main()
