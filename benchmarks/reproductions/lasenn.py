"""Reproduction of the tables of LaSeNN on CIFAR-10 (arXiv 2310.03927).

    python benchmarks/reproductions/lasenn.py --jobs 2 [--quick | --full]
    python benchmarks/reproductions/lasenn.py --table     # only write the Markdown

A VGG-like and a ResNet-like network are trained as in the paper (SGD, no augmentation, until the
loss is near zero), with sizes for two cores; --full uses the paper's networks, images and epochs
and needs a GPU. A cell is one network, seed and share of permuted labels; cells that are in the
JSON are not run again. Changes in accuracy are those of LatentKNNClassifier relative to the base
network on the same test images. Requires the folder named by SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor, nn

from skboundary import FrozenNetwork, LatentKNNClassifier

# a script finds only modules of its own folder
sys.path.insert(0, str(Path(__file__).parent.parent))
import itertools

from data_folder import data_reader
from provenance import machine, versions

RESULTS = Path(__file__).parents[1] / "results" / "lasenn.json"
PAGE = Path(__file__).parents[2] / "docs" / "user_guide" / "latent_knn.rst"
BEGIN, END = ".. begin of the changes", ".. end of the changes"
NEIGHBORS = [1, 2, 3, 4, 8, 20]
WEIGHTS = [0.0, 0.25, 0.52, 0.76, 0.88, 0.94, 0.97, 1.0]
NOISES = [0.0, 0.01, 0.04, 0.08, 0.16, 0.32]
# advertorch's defaults for inputs in [0, 1], and a quarter of them, which is what the same numbers
# mean for inputs divided by their standard deviation; the paper does not state its scaling
DEFAULTS = {
    "BIM": {"eps": 0.1, "step": 0.05, "steps": 10, "random": False},
    "PGD": {"eps": 0.3, "step": 0.01, "steps": 40, "random": True},
}
ATTACKS = DEFAULTS | {
    f"{name}, quarter eps": how | {"eps": how["eps"] / 4, "step": how["step"] / 4}
    for name, how in DEFAULTS.items()
}
# Changes in accuracy that the paper reports for ResNet-10 and VGG13 on CIFAR-10.
PAPER: dict[str, dict[str, dict[Any, float]]] = {
    "metric": {
        "resnet": {"euclidean": 0.001, "cosine": 0.002},
        "vgg": {"euclidean": 0.003, "cosine": 0.008},
    },
    "layer": {
        "resnet": {"prior to dense": 0.0, "prior to pool": 0.002, "prior to last block": 0.010},
        "vgg": {
            "prior to dense": 0.001,
            "2nd last conv": -0.001,
            "4th last conv": 0.008,
            "6th last conv": 0.008,
        },
    },
    "query_weight": {
        "resnet": {0.0: 0.001, 0.52: 0.001, 0.76: 0.002, 0.88: 0.002, 0.94: 0.002, 0.97: 0.001},
        "vgg": {0.0: -0.017, 0.52: 0.009, 0.76: 0.015, 0.88: 0.008, 0.94: 0.004, 0.97: 0.002},
    },
    "n_neighbors": {
        "resnet": {8: 0.002, 4: 0.001, 3: 0.002, 2: 0.002, 1: 0.001},
        "vgg": {8: 0.007, 4: 0.008, 3: 0.008, 2: 0.009, 1: 0.010},
    },
    "noise": {
        "resnet": {0.0: 0.002, 0.01: 0.002, 0.04: 0.0, 0.08: 0.003, 0.16: 0.005, 0.32: 0.010},
        "vgg": {0.0: 0.008, 0.01: 0.008, 0.04: 0.013, 0.08: 0.014, 0.16: 0.020, 0.32: 0.026},
    },
    "attack": {"resnet": {"BIM": 0.003, "PGD": 0.003}, "vgg": {"BIM": 0.033, "PGD": 0.024}},
}
# ImageNet (ResNet-34, ConvNeXt-T, MobileNetV3-L), and accuracy before and after with flip queries
PAPER_DIAGNOSTICS = {
    "correlation": "-0.29 to -0.49",
    "same_prediction": ".988 to .993",
    "distance wrong / correct": "1.007 to 1.09",
    "distance changed / correct": "1.02 to 1.16",
}


class Sizes(NamedTuple):
    """Sizes of a run."""

    train: int
    validation: int
    test: int
    attacked: int
    photos: int
    epochs: int
    batch: int
    rate: float  # learning rate, divided by 10 after half and three quarters of the epochs
    vgg: tuple[int, ...]  # widths of the convolutions; 0 is a pooling layer
    resnet: tuple[int, ...]  # widths of the blocks
    stride: int  # of the first convolution
    seeds: tuple[int, ...]
    noises: tuple[float, ...]
    mobilenets: tuple[str, ...]


V1, V2 = "mobilenet_v1_025_128_imagenet_uint8", "mobilenet_v2_imagenet_int8"
SMALL = Sizes(
    8000,
    1000,
    4000,
    500,
    1000,
    40,
    32,
    0.005,
    (16, 16, 0, 32, 48, 0, 96, 128, 0),
    (16, 32, 64, 128),
    2,
    (0, 1, 2),
    tuple(NOISES),
    (V1, V2),
)
QUICK = SMALL._replace(
    train=300,
    validation=60,
    test=80,
    attacked=10,
    photos=40,
    epochs=2,
    seeds=(0,),
    noises=(0.0, 0.32),
    mobilenets=(V1,),
)
FULL = Sizes(
    49_000,
    1000,
    10_000,
    10_000,
    1000,
    80,
    128,
    0.11,
    (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    (64, 128, 256, 512),
    1,
    (0, 1, 2, 3, 4),
    tuple(NOISES),
    (V1, V2),
)


def convolution(n_in: int, n_out: int, stride: int = 1) -> nn.Sequential:
    """Build a 3 x 3 convolution with batch normalization and ReLU."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


class Vgg(nn.Module):
    """A sequence of convolutions and poolings, and one dense layer. Input in [0, 1]."""

    def __init__(self, widths: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential()
        n, n_convolutions, side = 3, 0, 32 // stride
        for place, width in enumerate(widths):
            if width == 0:
                self.body.add_module(f"pool{place}", nn.MaxPool2d(2))
                side //= 2
            else:
                n_convolutions += 1
                layer = convolution(n, width, stride if n_convolutions == 1 else 1)
                self.body.add_module(f"conv{n_convolutions}", layer)
                n = width
        self.head = nn.Linear(n * side * side, 10)
        self.layers = {"prior to dense": "head:input"} | {
            f"{name} last conv": f"body.conv{n_convolutions + 1 - back}"
            for name, back in (("2nd", 2), ("4th", 4), ("6th", 6))
        }
        self.layer = self.layers["4th last conv"]

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (n, 10)."""
        return self.head(self.body((x - 0.47) / 0.25).flatten(1))


class Block(nn.Module):
    """Two convolutions with a shortcut connection."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        inner = [*convolution(n_in, n_out, stride), *convolution(n_out, n_out)]
        self.inner = nn.Sequential(*inner[:-1])
        self.shortcut = nn.Sequential()
        if n_in != n_out or stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the feature maps."""
        return torch.relu(self.inner(x) + self.shortcut(x))


class ResNet(nn.Module):
    """One block per width, and one dense layer. Input in [0, 1]."""

    def __init__(self, widths: tuple[int, ...], stride: int) -> None:
        super().__init__()
        self.stem = convolution(3, widths[0], stride)
        self.block1 = Block(widths[0], widths[0], 1)
        self.block2, self.block3, self.block4 = (
            Block(n_in, n_out, 2) for n_in, n_out in itertools.pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], 10)
        self.layers = {
            "prior to dense": "head:input",
            "prior to pool": "block4",
            "prior to last block": "block3",
        }
        self.layer = "block4"

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (n, 10)."""
        x = self.block2(self.block1(self.stem((x - 0.47) / 0.25)))
        return self.head(self.block4(self.block3(x)).mean((2, 3)))


class Split(NamedTuple):
    """Images (n, 3, 32, 32), float32 in [0, 1], and labels, noisy except for the test images."""

    X: Any
    y: Any
    X_val: Any
    y_val: Any
    X_test: Any
    y_test: Any


def permute_labels(y: Any, share: float, rng: np.random.Generator) -> Any:
    """Permute the labels of a random share of the samples (a few keep their value)."""
    y = y.copy()
    chosen = rng.permutation(len(y))[: round(share * len(y))]
    y[chosen] = y[rng.permutation(chosen)]
    return y


def attack(
    net: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    eps: float,
    step: float,
    steps: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Attack images in [0, 1] by sign steps within eps: PGD, or BIM without a generator.

    The gradient is that of the base network: the attacker does not use the neighbors.
    """
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    moved = x
    if generator is not None:
        noise = 2 * torch.rand(x.shape, generator=generator).to(x) - 1
        moved = torch.minimum(torch.maximum(x + eps * noise, low), high)
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        loss = nn.functional.cross_entropy(net(moved), target, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = torch.minimum(torch.maximum(moved - step * gradient.sign(), low), high)
    return moved.detach()


def train(
    name: str, split: Split, sizes: Sizes, seed: int, device: torch.device
) -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """Train until the loss is near zero.

    Returns the last network, the best one on the validation images, and a log.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net: nn.Module = (
            Vgg(sizes.vgg, sizes.stride) if name == "vgg" else ResNet(sizes.resnet, sizes.stride)
        )
    net = net.to(device, memory_format=torch.channels_last)
    X, y = torch.from_numpy(split.X).to(device), torch.from_numpy(split.y).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(net.parameters(), sizes.rate, momentum=0.9, weight_decay=5e-4)
    decays = [sizes.epochs // 2, 3 * sizes.epochs // 4]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, decays)
    early, best, log = net, -1.0, {"loss": [], "validation": []}
    for epoch in range(sizes.epochs):
        net.train()
        total = 0.0
        for part in torch.randperm(len(y), generator=generator).to(device).split(sizes.batch):
            batch = X[part].contiguous(memory_format=torch.channels_last)
            loss = nn.functional.cross_entropy(net(batch), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(part)
        schedule.step()
        net.eval()
        accuracy = FrozenNetwork(net).score(split.X_val, split.y_val)
        log["loss"].append(total / len(y))
        log["validation"].append(accuracy)
        if accuracy > best:
            best, early, log["early_epochs"] = accuracy, copy.deepcopy(net), epoch + 1
        if total / len(y) < 0.02:
            break
    log["train_accuracy"] = FrozenNetwork(net).score(split.X, split.y)
    return net, early, log


def fitted(net: nn.Module, split: Split, layer: str, metric: str) -> LatentKNNClassifier:
    """Fit a classifier with the paper's k and weight."""
    frozen = FrozenNetwork(net, classes=np.arange(10))
    return LatentKNNClassifier(frozen, layer=layer, metric=metric).fit(split.X, split.y)


def grid(clf: LatentKNNClassifier, X: Any, y: Any, averages: list[str]) -> dict[str, Any]:
    """Accuracy for each average, number of neighbors and weight."""
    table = clf.sweep(X, y, n_neighbors=NEIGHBORS, query_weight=WEIGHTS, average=averages)
    scores = table["mean_test_score"].reshape(len(averages), len(NEIGHBORS), len(WEIGHTS))
    return dict(zip(averages, scores.tolist()))


def with_chosen(clf: LatentKNNClassifier, split: Split) -> dict[str, Any]:
    """Grid of accuracies, and the test accuracy of the best setting on the validation images.

    Ties are resolved by the larger weight.
    """
    scores = grid(clf, split.X_test, split.y_test, ["proba"])
    validation = np.asarray(grid(clf, split.X_val, split.y_val, ["proba"])["proba"])
    ks, ws = np.nonzero(validation == validation.max())
    k, w = max(zip(ks.tolist(), ws.tolist()), key=lambda place: place[1])
    chosen = {"n_neighbors": NEIGHBORS[k], "query_weight": WEIGHTS[w]}
    return scores | {"chosen": chosen | {"accuracy": scores["proba"][k][w]}}


def diagnose(clf: LatentKNNClassifier, X: Any, y: Any) -> dict[str, float]:
    """Diagnostics of section 3.2, and the share of samples midway between two class means."""
    found = clf.diagnose(X, y)
    middle, changed = [], []
    for c, other in enumerate(found.nearest_class):
        of_pair = (y == c) | (y == other)
        inside = abs(found.projections[of_pair, c] - 0.5) < 1 / 6
        middle.append(inside)
        changed.append(found.changed[of_pair])
    inside, moved = np.concatenate(middle), np.concatenate(changed)
    scalars = (
        "correlation",
        "p_value",
        "same_prediction",
        "distance_correct",
        "distance_wrong",
        "distance_changed",
    )
    return {name: found[name] for name in scalars} | {
        "purity": float(found.purity.mean()) / clf.n_neighbors,
        "middle_all": float(inside.mean()),
        "middle_changed": float(inside[moved].mean()) if moved.any() else float("nan"),
    }


def attacked(
    net: nn.Module, clf: LatentKNNClassifier, split: Split, n: int, seed: int
) -> dict[str, Any]:
    """Accuracy, and share of targets reached, under attacks on the base network."""
    device = next(net.parameters()).device
    y = split.y_test[:n]
    target = torch.from_numpy((y + 1) % 10).to(device)
    results = {}
    for name, settings in ATTACKS.items():
        settings = dict(settings)
        generator = torch.Generator().manual_seed(seed) if settings.pop("random") else None
        moved = torch.cat(
            [
                attack(net, x, t, generator=generator, **settings).cpu()
                for x, t in zip(
                    torch.from_numpy(split.X_test[:n]).to(device).split(250), target.split(250)
                )
            ]
        ).numpy()
        scores = grid(clf, moved, y, ["proba"])
        hits = (clf.predict(moved) == target.cpu().numpy()).mean()
        base_hits = (clf.estimator_.predict(moved) == target.cpu().numpy()).mean()
        results[name] = scores | {"target": float(hits), "target_bare": float(base_hits)}
    return results


def run_cell(
    name: str, seed: int, noise: float, clean: Split, sizes: Sizes, device: torch.device
) -> dict[str, Any]:
    """Train one network on noisy labels and compute all figures of the tables."""
    rng = np.random.default_rng(seed)
    y = permute_labels(np.concatenate([clean.y, clean.y_val]), noise, rng)
    split = clean._replace(y=y[: len(clean.y)], y_val=y[len(clean.y) :])
    start = time.process_time()
    net, early, log = train(name, split, sizes, seed, device)
    log["train_cpu_seconds"] = time.process_time() - start
    layer = net.layer
    clf = fitted(net, split, layer, "cosine")
    record: dict[str, Any] = {"log": log, "last": with_chosen(clf, split)}
    record["early"] = with_chosen(fitted(early, split, layer, "cosine"), split)
    if noise == 0:
        record["attacks"] = attacked(net, clf, split, sizes.attacked, seed)
        record["layers"] = {
            title: grid(
                fitted(net, split, place, "cosine"), split.X_test, split.y_test, ["proba", "logits"]
            )
            for title, place in net.layers.items()
        }
        euclidean = fitted(net, split, layer, "euclidean")
        record["euclidean"] = grid(euclidean, split.X_test, split.y_test, ["proba"])
        record["diagnosis"] = diagnose(euclidean, split.X_test, split.y_test)
    return record


class Pooled(nn.Module):
    """A MobileNet on bytes whose pooled features pass through a named layer."""

    def __init__(self, net: nn.Module, side: int) -> None:
        super().__init__()
        self.net, self.side, self.pooled = net, side, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (n, 1001)."""
        x = nn.functional.interpolate(x.float(), self.side, mode="bilinear", antialias=True)
        logits, features = self.net(x / 127.5 - 1, features=True)
        self.pooled(features)
        return logits


def run_photos(which: str, sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Flip queries as in table 9, w = .94, k = 3, with one photo of each class."""
    load = data_reader()
    X, y, _ = load.imagenet_sample(np.arange(sizes.photos))
    X, y = X.transpose(0, 3, 1, 2), y + 1  # output 0 is "background"
    net = Pooled(load.mobilenet(which), 128 if which == V1 else 224).to(device).eval()
    clf = LatentKNNClassifier(
        FrozenNetwork(net, batch_size=50),
        layer="pooled",
        metric="cosine",
        query_weight=0.94,
        query_transforms=[lambda X: X[..., ::-1].copy()],
    ).fit(X[::2])
    queries, truth = X[1::2], y[1::2]
    flipped = clf.explain(queries)
    plain = clf.set_params(query_transforms=None).explain(queries)
    base = flipped.query_outputs.argmax(1)
    distance = flipped.distances.mean(1)
    changed = flipped.proba.argmax(1) != base
    return {
        "reference": len(X[::2]),
        "queries": len(queries),
        "bare": float((base == truth).mean()),
        "plain queries": float((plain.proba.argmax(1) == truth).mean()),
        "flip queries": float((flipped.proba.argmax(1) == truth).mean()),
        "changed by plain queries": float((plain.proba.argmax(1) != base).mean()),
        "changed by flip queries": float(changed.mean()),
        "lists changed by flips": float((plain.indices != flipped.indices).any(1).mean()),
        "distance plain": float(plain.distances.mean()),
        "distance flip": float(distance.mean()),
        "distance correct": float(distance[base == truth].mean()),
        "distance wrong": float(distance[base != truth].mean()),
        "distance changed": float(distance[changed].mean()) if changed.any() else float("nan"),
    }


def change(scores: dict[str, Any], k: int = 3, w: float = 0.88, average: str = "proba") -> float:
    """Accuracy of a setting minus that of the base network (w = 1)."""
    table = np.asarray(scores[average])
    return float(table[NEIGHBORS.index(k), WEIGHTS.index(w)] - base_accuracy(scores))


def base_accuracy(scores: dict[str, Any]) -> float:
    """Accuracy of the base network."""
    return scores["proba"][0][WEIGHTS.index(1.0)]


def default_layer(cell: dict[str, Any]) -> dict[str, Any]:
    """Grid of both averages for the paper's layer."""
    layers = cell["layers"]
    return layers.get("4th last conv", layers.get("prior to pool"))


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and standard deviation over the seeds."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def delta_row(label: str, values: list[float], paper: float | None, extra: str = "") -> str:
    """One row: the measured change, the paper's, and whether their signs differ."""
    mean = float(np.mean(values))
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    ours = f"{mean:+.4f}{deviation}"
    if paper is None:
        return f"| {label} | {ours} | | | {extra}|"
    differs = "differs" if round(mean, 3) * paper < 0 else ""
    return f"| {label} | {ours} | {paper:+.3f} | {differs} | {extra}|"


def delta_table(title: str, first: str, rows: list[str]) -> list[str]:
    """A Markdown table of changes in accuracy."""
    head = [f"| {first} | change | paper | sign | base |", "|---|---|---|---|---|"]
    return ["", f"**{title}**", "", *head, *rows]


def network_tables(name: str, cells: dict[str, Any]) -> list[str]:
    """Tables 3 to 8 and the diagnostics for one kind of network."""
    runs = {
        noise: [c for key, c in cells.items() if key.split("/")[::2] == [name, f"{noise:g}"]]
        for noise in NOISES
    }
    clean, paper = runs[0.0], {key: table[name] for key, table in PAPER.items()}
    if not clean:
        return []
    last = [c["last"] for c in clean]
    epochs = np.mean([len(c["log"]["loss"]) for c in clean])
    text = [
        "",
        f"## {'VGG-like' if name == 'vgg' else 'ResNet-like'} network",
        "",
        f"{len(clean)} seeds; base test accuracy {spread([base_accuracy(s) for s in last])}, "
        f"training accuracy {spread([c['log']['train_accuracy'] for c in clean])} after "
        f"{epochs:.0f} epochs, final loss {spread([c['log']['loss'][-1] for c in clean])}.",
    ]
    euclidean = [c["euclidean"] for c in clean]
    text += delta_table(
        "Table 3: metric",
        "metric",
        [
            delta_row("L2", [change(s) for s in euclidean], paper["metric"]["euclidean"]),
            delta_row("cosine", [change(s) for s in last], paper["metric"]["cosine"]),
        ],
    )
    text += delta_table(
        "Table 4: layer",
        "layer",
        [
            delta_row(title, [change(c["layers"][title]) for c in clean], paper["layer"][title])
            for title in clean[0]["layers"]
        ],
    )
    text += delta_table(
        "Table 5: weight of the query",
        "w",
        [
            delta_row(f"{w:g}", [change(s, w=w) for s in last], paper["query_weight"].get(w))
            for w in WEIGHTS[:-1]
        ],
    )
    text += [
        "",
        "**Probabilities or logits**, the same layer; the paper does not say which",
        "",
        "| w | probabilities | logits | paper |",
        "|---|---|---|---|",
    ]
    for w in WEIGHTS[:-1]:
        both = [
            np.mean([change(default_layer(c), w=w, average=average) for c in clean])
            for average in ("proba", "logits")
        ]
        figure = paper["query_weight"].get(w)
        text.append(
            f"| {w:g} | {both[0]:+.4f} | {both[1]:+.4f} | "
            f"{'' if figure is None else f'{figure:+.3f}'} |"
        )
    text += delta_table(
        "Table 6: number of neighbors",
        "k",
        [
            delta_row(str(k), [change(s, k=k) for s in last], paper["n_neighbors"].get(k))
            for k in reversed(NEIGHBORS)
        ],
    )
    text += delta_table(
        "Table 7: permuted labels, k = 3, w = .88",
        "share",
        [
            delta_row(
                f"{noise:g}{'' if len(of_noise) == len(clean) else f' ({len(of_noise)} seeds)'}",
                [change(c["last"]) for c in of_noise],
                paper["noise"][noise],
                spread([base_accuracy(c["last"]) for c in of_noise]) + " ",
            )
            for noise, of_noise in runs.items()
            if of_noise
        ],
    )
    text += [
        "",
        "**Permuted labels: the setting selected on the (noisy) validation images, and the "
        'network stopped early on the same images**; "trained" is the training accuracy',
        "",
        "| share | trained | base | chosen | early, base | early, paper | early, chosen |",
        "|---|---|---|---|---|---|---|",
    ]
    for noise, of_noise in runs.items():
        if of_noise:
            columns = [
                [c["log"]["train_accuracy"] for c in of_noise],
                [base_accuracy(c["last"]) for c in of_noise],
                [c["last"]["chosen"]["accuracy"] for c in of_noise],
                [base_accuracy(c["early"]) for c in of_noise],
                [base_accuracy(c["early"]) + change(c["early"]) for c in of_noise],
                [c["early"]["chosen"]["accuracy"] for c in of_noise],
            ]
            text.append(f"| {noise:g} | " + " | ".join(spread(v) for v in columns) + " |")
    text += delta_table(
        "Table 8: targeted attacks on the base network",
        "attack",
        [
            delta_row(
                attack_name,
                [change(c["attacks"][attack_name]) for c in clean],
                paper["attack"].get(attack_name),
                spread([base_accuracy(c["attacks"][attack_name]) for c in clean]) + " ",
            )
            for attack_name in ATTACKS
        ],
    )
    targets = {
        key: [f"{np.mean([c['attacks'][a][key] for c in clean]):.3f}" for a in ATTACKS]
        for key in ("target_bare", "target")
    }
    text += [
        "",
        f"Targets reached ({', '.join(ATTACKS)}): base {', '.join(targets['target_bare'])}; "
        f"with neighbors {', '.join(targets['target'])}.",
        "",
        "**Section 3.2, L2, k = 3, w = .88**",
        "",
        "| | measured | paper, ImageNet |",
        "|---|---|---|",
    ]
    found = [c["diagnosis"] for c in clean]
    for title, values in {
        "correlation": [d["correlation"] for d in found],
        "same_prediction": [d["same_prediction"] for d in found],
        "distance wrong / correct": [d["distance_wrong"] / d["distance_correct"] for d in found],
        "distance changed / correct": [
            d["distance_changed"] / d["distance_correct"] for d in found
        ],
        "purity": [d["purity"] for d in found],
        "midway between two class means, all samples": [d["middle_all"] for d in found],
        "midway between two class means, changed predictions": [d["middle_changed"] for d in found],
    }.items():
        text.append(f"| {title} | {spread(values)} | {PAPER_DIAGNOSTICS.get(title, '')} |")
    text.append(f"| largest p-value | {max(d['p_value'] for d in found):.1e} | |")
    return text


def markdown(results: dict[str, Any]) -> str:
    """All tables, computed from the JSON alone."""
    sizes, cells = results["sizes"], results["cells"]
    seconds = sum(c["cpu_seconds"] for c in cells.values())
    text = [
        "# LaSeNN (arXiv 2310.03927) on CIFAR-10",
        "",
        f"Generated from lasenn.json by `{results['command']} --table`. {sizes['train']:,} "
        f"training, {sizes['validation']:,} validation, {sizes['test']:,} test images "
        f"(JPEG copies), {sizes['attacked']:,} of them attacked; at most {sizes['epochs']} epochs "
        f"of SGD without augmentation, stopped at a loss of .02. {seconds / 60:.0f} minutes of "
        f"{results['machine']['processor']}, one thread per cell.",
        "",
        "A change is the accuracy with neighbors minus that of the base network on the same "
        "images, mean and standard deviation over seeds; k = 3, w = .88, cosine distance and the "
        'paper\'s layer unless stated otherwise. "Paper" is ResNet-10 and VGG13 with all 50,000 '
        "images. Signs are compared after rounding to three digits.",
    ]
    wanted = [
        f"{name}/{seed}/{noise:g}"
        for noise in sizes["noises"]
        for seed in sizes["seeds"]
        for name in ("vgg", "resnet")
    ]
    if missing := [key for key in wanted if key not in cells]:
        text += ["", f"Not run yet (network/seed/share): {', '.join(missing)}."]
    for name in ("vgg", "resnet"):
        text += network_tables(name, cells)
    photos = {key.split("/")[1]: c for key, c in cells.items() if key.startswith("photos/")}
    if photos:
        text += [
            "",
            "## Flip queries with pretrained MobileNets on ImageNet photos (table 9)",
            "",
            "There is one photo per class. Half of the classes are references and the others "
            "queries, so no neighbor has the class of its query: the table shows what flip queries "
            "change, not how much they improve accuracy. w = .94, k = 3, cosine, pooled features. "
            "The paper reports +.0005 to +.0010 for three larger networks.",
            "",
            "| | " + " | ".join(photos) + " |",
            "|---|" + "---|" * len(photos),
        ]
        for row in next(iter(photos.values())):
            if row != "cpu_seconds":
                values = " | ".join(f"{c[row]:.4g}" for c in photos.values())
                text.append(f"| {row.replace('bare', 'base')} | {values} |")
    return "\n".join(text) + "\n"


def summary(results: dict[str, Any]) -> str:
    """The table of mean changes in accuracy in the guide, computed from the JSON alone."""
    cells = results["cells"]

    def mean(name: str, noise: str, figure: Any) -> str:
        values = [figure(c) for key, c in cells.items() if key.split("/")[::2] == [name, noise]]
        return f"{np.mean(values):+.4f}"

    rows = {
        f"clean, w = {w:g}": ("0", lambda c, w=w: change(c["last"], w=w))
        for w in (0.97, 0.88, 0.76, 0.52, 0.0)
    }
    rows |= {
        "clean, w = 0.76, logits": (
            "0",
            lambda c: change(default_layer(c), w=0.76, average="logits"),
        ),
        "BIM, a quarter of eps": ("0", lambda c: change(c["attacks"]["BIM, quarter eps"])),
        "32% permuted, w = 0.88": ("0.32", lambda c: change(c["last"])),
        "32% permuted, chosen": (
            "0.32",
            lambda c: c["last"]["chosen"]["accuracy"] - base_accuracy(c["last"]),
        ),
        "32% permuted, stopped early": (
            "0.32",
            lambda c: base_accuracy(c["early"]) - base_accuracy(c["last"]),
        ),
    }
    rule = "===========================  ========  ======="
    lines = [rule, "change in accuracy           VGG-like  ResNet", rule]
    lines += [
        f"{title:29}" + "   ".join(mean(name, *row) for name in ("vgg", "resnet"))
        for title, row in rows.items()
    ]
    return "\n".join([*lines, rule]) + "\n"


def main() -> None:
    """Run the missing cells; write the JSON after each, and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few images, as a test")
    parser.add_argument("--full", action="store_true", help="the paper's sizes, for a GPU")
    parser.add_argument("--table", action="store_true", help="only write the tables")
    parser.add_argument("--jobs", type=int, default=1, help="cells run at a time, one thread each")
    parser.add_argument(
        "--minutes", type=float, default=np.inf, help="start no cell after this time"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    sizes = FULL if args.full else QUICK if args.quick else SMALL
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options = [option for option in ("--quick", "--full") if option in sys.argv]
    results = {
        "command": " ".join(["python benchmarks/reproductions/lasenn.py", *options]),
        "machine": machine() | {"jobs": args.jobs},
        "versions": versions(),
        "sizes": json.loads(json.dumps(sizes._asdict())),
        "settings": {"n_neighbors": NEIGHBORS, "query_weight": WEIGHTS, "attacks": ATTACKS},
        "cells": {},
    }
    if args.out.exists():
        stored = json.loads(args.out.read_text())
        if args.table:
            results = stored
        elif any(stored[key] != results[key] for key in ("sizes", "settings")):
            sys.exit(f"{args.out} contains a run of other sizes; give another file with --out.")
        results["cells"] = stored["cells"]
    if not args.table:
        deadline = time.monotonic() + 60 * args.minutes
        run_missing(results, sizes, device, args.out, deadline, args.jobs)
    args.out.with_suffix(".md").write_text(markdown(results))
    if args.out == RESULTS:
        text = PAGE.read_text()
        first, last = text.index(BEGIN) + len(BEGIN), text.index(END)
        PAGE.write_text(f"{text[:first]}\n\n{summary(results)}\n{text[last:]}")


def run_missing(
    results: dict[str, Any],
    sizes: Sizes,
    device: torch.device,
    out: Path,
    deadline: float,
    n_jobs: int,
) -> None:
    """Run the cells, clean labels first, and store each."""
    load = data_reader()
    n = sizes.train + sizes.validation
    X, y = load.cifar10("train", limit=n)
    X_test, y_test = load.cifar10("test", limit=sizes.test)
    X, X_test = (a.transpose(0, 3, 1, 2).astype(np.float32) / 255 for a in (X, X_test))
    y, y_test = y.astype(int), y_test.astype(int)
    clean = Split(
        X[: sizes.train], y[: sizes.train], X[sizes.train :], y[sizes.train :], X_test, y_test
    )
    jobs: dict[str, Any] = {f"photos/{which}": (run_photos, (which,)) for which in sizes.mobilenets}
    jobs |= {
        f"{name}/{seed}/{noise:g}": (run_cell, (name, seed, noise, clean))
        for noise in sorted(sizes.noises, key=lambda share: (share > 0, -share))
        for seed in sizes.seeds
        for name in ("vgg", "resnet")
    }
    missing = (
        delayed(timed)(key, run, *arguments, sizes, device)
        for key, (run, arguments) in jobs.items()
        if key not in results["cells"] and time.monotonic() < deadline
    )
    # memory-mapped images would be read-only, about which torch warns
    parallel = Parallel(
        n_jobs, pre_dispatch=n_jobs, max_nbytes=None, return_as="generator_unordered"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    for key, record in parallel(missing):
        results["cells"][key] = record
        out.write_text(json.dumps(results, indent=1) + "\n")
        print(key, f"{record['cpu_seconds']:.0f} s", flush=True)


def timed(key: str, run: Any, *arguments: Any) -> tuple[str, dict[str, Any]]:
    """Run a cell on one thread; return its key and its record."""
    torch.set_num_threads(1)
    start = time.process_time()
    return key, run(*arguments) | {"cpu_seconds": time.process_time() - start}


if __name__ == "__main__":
    main()
