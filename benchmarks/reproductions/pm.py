"""Reproduction of Perturbation Minimization on MNIST: pairs of Figure 1, curve of Figure 2.

    python benchmarks/reproductions/pm.py [--quick] [--figure 1] [--seeds 0 1 ...] [--pictures DIR]
    python benchmarks/reproductions/pm.py --table

Figure 1: a network of two convolutions and two linear layers is trained on all digits. Pairs
between 0 and 1 are computed from noise and from real images, by the paper's recipe (Adam .01, 300
steps, penalty 1).

Figure 2: the same network learns 0 and 1, then continues with 3 and 4 (Adam, 1e-3) and n samples
that represent 0 and 1; the figure is its accuracy on test images of 0 and 1, with the argmax over
all ten outputs. Mixing is plain (shuffled into the new data) or balanced (half of every batch). The
controls are the same samples with shuffled labels, noise with random labels, images that minimize
the cross-entropy of a single class ("inversion"), and real images ("replay").

Finished cells are stored in the JSON, and a second run resumes there. Requires the folder named by
SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skboundary.functional.perturbation_minimization import (
    PMPair,
    fast_start,
    minimize_perturbation,
)

# a script finds only modules of its own folder
sys.path.insert(0, str(Path(__file__).parent.parent))
from boundary_networks import make_cnn
from data_folder import load_mnist
from provenance import note_run
from rst_table import rst_table

RESULTS = Path(__file__).parent.parent / "results" / "pm.json"
BOX = torch.tensor(0.0), torch.tensor(1.0)
SOURCES = ["random", "random, shuffled", "real", "real, shuffled", "noise", "inversion", "replay"]
MIXINGS = ["plain", "balanced"]


def of_digits(X: Tensor, y: Tensor, *digits: int) -> tuple[Tensor, Tensor]:
    """Select the images of some digits."""
    selected = torch.isin(y, torch.tensor(digits))
    return X[selected], y[selected]


def step(net: nn.Module, optimizer: torch.optim.Optimizer, X: Tensor, y: Tensor) -> None:
    """Take one optimizer step on the cross-entropy of a batch."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(X), y).backward()
    optimizer.step()


def train(net: nn.Module, X: Tensor, y: Tensor, epochs: int, generator: torch.Generator) -> None:
    """Train with Adam, 1e-3 and batches of 64; the last epoch has a tenth of the rate."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for epoch in range(epochs):
        if epoch and epoch == epochs - 1:
            optimizer.param_groups[0]["lr"] = 1e-4
        for part in torch.randperm(len(y), generator=generator).split(64):
            step(net, optimizer, X[part], y[part])


def accuracy(net: nn.Module, X: Tensor, y: Tensor) -> float:
    """Share of samples whose largest output is that of their class."""
    with torch.no_grad():
        labels = torch.cat([net(part).argmax(1) for part in X.split(500)])
    return (labels == y).float().mean().item()


# ---- Figure 1 ------------------------------------------------------------------------------------


def figure_1(data: Any, n: int, pictures: Path | None) -> dict[str, Any]:
    """Compute pairs between 0 and 1 from both starts."""
    X, y, X_test, y_test = data
    torch.manual_seed(0)
    net, generator = make_cnn(), torch.Generator().manual_seed(0)
    train(net, X, y, 4, generator)
    net.eval().requires_grad_(False)
    found: dict[str, Any] = {"accuracy": accuracy(net, X_test, y_test), "starts": {}}
    zeros = X_test[(y_test == 0) & (net(X_test).argmax(1) == 0)][:n]
    starts = {"random": torch.rand(n, 1, 28, 28, generator=generator), "real": zeros}
    source, target = torch.zeros(n).long(), torch.ones(n).long()
    for name, z in starts.items():
        delta = 0.01 * torch.randn(z.shape, generator=generator)
        begin = time.process_time()
        pairs = minimize_perturbation(net, z, source, target=target, delta=delta, bounds=BOX)
        found["starts"][name] = {
            "n": n,
            "success": pairs.success.float().mean().item(),
            "mean_norm": (pairs.points - pairs.inner).flatten(1).norm(dim=1).mean().item(),
            "probability": pairs.probabilities.mean(0).tolist(),
            "moved": (pairs.inner - z).flatten(1).norm(dim=1).mean().item(),
            "cpu_s_per_pair": (time.process_time() - begin) / n,
        }
        if pictures is not None:
            draw(pairs, name, pictures)
    return found


def draw(pairs: PMPair, name: str, folder: Path) -> None:
    """Save z, z + delta and delta of the first eight pairs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    delta = pairs.points - pairs.inner
    figure, axes = plt.subplots(3, 8, figsize=(8, 3.3), layout="constrained")
    rows = [("z", pairs.inner, 0, 1), ("z + delta", pairs.points, 0, 1)]
    rows.append(("delta", delta, -float(delta[:8].abs().max()), float(delta[:8].abs().max())))
    for line, (label, images, low, high) in zip(axes, rows):
        for ax, image in zip(line, images):
            ax.imshow(image[0], vmin=low, vmax=high, cmap="RdBu_r" if low else "gray")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(label)
    figure.suptitle(f"0 and 1, from {name} starts: p = {pairs.probabilities.mean():.2f}")
    figure.savefig(folder / f"pm_{name}.png", dpi=120)
    plt.close(figure)


# ---- Figure 2 ------------------------------------------------------------------------------------


def extract(net: nn.Module, z: Tensor, source: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Extract both ends of n pairs between 0 and 1, with the class of each end as its label."""
    ends, labels, success = [], [], []
    for x, s in zip(z.split(500), source.split(500)):
        start = fast_start(net, x, s, target=1 - s, bounds=BOX)
        rate = 1.5 * start.delta.flatten(1).norm(dim=1) / 28
        pairs = minimize_perturbation(
            net,
            start.inner,
            s,
            target=1 - s,
            delta=start.delta,
            n_iter=30,
            learning_rate=rate,
            betas=(0.5, 0.9),
            bounds=BOX,
        )
        ends.append(torch.stack([pairs.inner, pairs.points], 1).flatten(0, 1))
        labels.append(torch.stack([s, 1 - s], 1).flatten())
        success.append(pairs.success)
    return torch.cat(ends), torch.cat(labels), {"success": torch.cat(success).float().mean().item()}


def invert(net: nn.Module, x: Tensor, labels: Tensor, n_iter: int = 30) -> Tensor:
    """Minimize the cross-entropy of the labels from x with Adam."""
    x = x.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], 0.04)
    for _ in range(n_iter):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), labels, reduction="sum").backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(*BOX)
    return x.detach()


class Experiment:
    """The network of one seed, trained on 0 and 1, and samples of every kind."""

    def __init__(self, data: Any, seed: int, n: int, n_new: int, path: Path) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        X, y, X_test, y_test = data
        self.old_test, self.new_test = (of_digits(X_test, y_test, *d) for d in ((0, 1), (3, 4)))
        X_old, y_old = of_digits(X, y, 0, 1)
        X_new, y_new = of_digits(X, y, 3, 4)
        selected = torch.randperm(len(y_new), generator=self.generator)[:n_new]
        self.new = X_new[selected], y_new[selected]
        self.net = make_cnn()
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.net.load_state_dict(state.pop("net"))
            self.samples, self.facts = state["samples"], state["facts"]
            return
        train(self.net, X_old, y_old, 2, self.generator)
        frozen = self.net.eval().requires_grad_(False)
        self.facts: dict[str, Any] = {"accuracy": accuracy(frozen, *self.old_test)}
        shuffled = torch.randperm(len(y_old), generator=self.generator)
        X_old, y_old = X_old[shuffled], y_old[shuffled]
        source = torch.arange(n // 2) % 2
        noise = torch.rand(n, 1, 28, 28, generator=self.generator)
        real = torch.empty(n // 2, 1, 28, 28)
        for digit in (0, 1):
            real[source == digit] = X_old[y_old == digit][: int((source == digit).sum())]
        self.samples = {}
        for name, z in (("random", noise[: n // 2]), ("real", real)):
            images, labels, self.facts[name] = extract(frozen, z, source)
            self.samples[name] = images, labels
            self.samples[f"{name}, shuffled"] = images, self.shuffle(labels)
        labels = torch.arange(n) % 2
        self.samples["noise"] = noise, self.shuffle(labels)
        self.samples["inversion"] = invert(frozen, noise, labels), labels
        self.samples["replay"] = X_old[:n].clone(), y_old[:n].clone()
        state = {"net": self.net.state_dict(), "samples": self.samples, "facts": self.facts}
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path)

    def shuffle(self, labels: Tensor) -> Tensor:
        """Shuffle labels."""
        return labels[torch.randperm(len(labels), generator=self.generator)]

    def second_phase(
        self, source: str | None, n: int, mixing: str, epochs: int
    ) -> dict[str, float]:
        """Train on 3 and 4 and n samples; return the accuracy on the old and the new digits."""
        net, generator = make_cnn(), torch.Generator().manual_seed(n)
        net.load_state_dict(self.net.state_dict())
        X, y = self.new
        if source is not None and mixing == "plain":
            images, labels = (t[:n] for t in self.samples[source])
            X, y = torch.cat([X, images]), torch.cat([y, labels])
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(epochs):
            for part in torch.randperm(len(y), generator=generator).split(64):
                batch, targets = X[part], y[part]
                if source is not None and mixing == "balanced":
                    images, labels = self.samples[source]
                    half = torch.randint(n, (len(part),), generator=generator)
                    batch = torch.cat([batch, images[half]])
                    targets = torch.cat([targets, labels[half]])
                step(net, optimizer, batch, targets)
        return {"old": accuracy(net, *self.old_test), "new": accuracy(net, *self.new_test)}


def figure_2(data: Any, args: argparse.Namespace, results: dict[str, Any]) -> None:
    """Run the missing cells, count by count, and write each when it is finished."""
    facts = {"n_new": args.n_new, "epochs": args.epochs, "seeds": {}}
    records = results.setdefault("figure_2", facts)["seeds"]
    experiments: dict[tuple[int, int], Experiment] = {}
    for n in args.counts:
        pool = max(n, args.samples)
        for seed in args.seeds:
            done = records.setdefault(str(seed), {"cells": []})
            have = {(c["source"], c["n"], c["mixing"]) for c in done["cells"]}
            cells = [(s, n, m) for m in args.mixings for s in args.sources]
            cells = cells if n else [(None, 0, "plain")]
            cells = [cell for cell in cells if cell not in have]
            if cells and (seed, pool) not in experiments:
                path = args.cache / f"pm_{seed}_{pool}.pt"
                experiments[seed, pool] = Experiment(data, seed, pool, args.n_new, path)
                done[f"first phase, {pool} samples"] = experiments[seed, pool].facts
                print(f"seed {seed}: {experiments[seed, pool].facts}", flush=True)
            for source, _, mixing in cells:
                begin = time.process_time()
                found = experiments[seed, pool].second_phase(source, n, mixing, args.epochs)
                found["cpu_s"] = time.process_time() - begin
                done["cells"].append({"source": source, "n": n, "mixing": mixing} | found)
                print(f"{n} {mixing} {source}: {found['old']:.3f} {found['new']:.3f}", flush=True)
                write(results, args.out)
            if args.minutes and time.process_time() > 60 * args.minutes:
                sys.exit("Stopped by --minutes; run the same command again to resume.")


# ---- output --------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> list[str]:
    """Lines of the tables in the user guide."""
    lines = []
    if "figure_1" in results:
        found = results["figure_1"]
        lines += [f"Figure 1, network with test accuracy {found['accuracy']:.4f}:", ""]
        cells = [["start", "success", "norm of delta", "p of 0 at z", "p of 1 at z + delta"]]
        for name, r in found["starts"].items():
            p = r["probability"]
            cells.append(
                [name, f"{r['success']:.2f}", f"{r['mean_norm']:.3f}", f"{p[0]:.3f}", f"{p[1]:.3f}"]
            )
        lines += rst_table(cells) + [""]
    if "figure_2" in results:
        seeds = list(results["figure_2"]["seeds"].values())
        counts = sorted({c["n"] for s in seeds for c in s["cells"]})
        for mixing in MIXINGS:
            cells = [["samples"] + [str(n) for n in counts]]
            for source in SOURCES:
                line = ["noise, random labels" if source == "noise" else source]
                for n in counts:
                    key = (source, mixing) if n else (None, "plain")
                    old = [
                        c["old"]
                        for s in seeds
                        for c in s["cells"]
                        if (c["source"], c["mixing"]) == key and c["n"] == n
                    ]
                    spread = f" ± {statistics.stdev(old):.3f}" if len(old) > 1 else ""
                    line.append(f"{statistics.mean(old):.3f}{spread}" if old else "")
                cells.append(line)
            n_new = results["figure_2"]["n_new"]
            title = f"{mixing} mixing, {len(seeds)} seeds, {n_new} images of 3 and 4:"
            first = 1 + (0 in counts)  # the column n = 0 has no samples and no mixing
            cells = [line for line in cells if any(line[first:])]
            if len(cells) > 1:
                lines += [title.capitalize(), "", *rst_table(cells), ""]
    return lines


def write(results: dict[str, Any], out: Path) -> None:
    """Write the results."""
    note_run(results)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Run the missing cells, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few samples")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--figure", type=int, choices=[1, 2], help="only one of the two figures")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures of Figure 1")
    parser.add_argument("--pairs", type=int, default=64, help="pairs of Figure 1 for each start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(5)])
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 1000, 100, 300, 3000])
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES)
    parser.add_argument("--mixings", nargs="+", choices=MIXINGS, default=MIXINGS)
    parser.add_argument(
        "--samples", type=int, default=1000, help="smallest number of samples to extract"
    )
    parser.add_argument("--n-new", type=int, default=4000, help="images of 3 and 4")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "skboundary")
    parser.add_argument("--minutes", type=float, help="stop after this time; resume later")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.counts, args.samples = [0], [0, 300], 300
        args.n_new, args.pairs = 2000, 8
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    if not args.table:
        torch.set_num_threads(1)
        data = load_mnist()
        if args.figure in (None, 2):
            figure_2(data, args, results)
        if args.figure in (None, 1) and "figure_1" not in results:
            results["figure_1"] = figure_1(data, args.pairs, args.pictures)
            write(results, args.out)
    print("\n".join(tables(results)))


if __name__ == "__main__":
    main()
