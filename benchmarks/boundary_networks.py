"""Networks of boundary.py, what counts their passes, and the last step of all contenders."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skboundary.functional._linearization import polish
from skboundary.functional._margin_problem import CountedNetwork, MarginProblem, box
from skboundary.functional.margins import class_margin

KAPPA = 1e-3
BOX = torch.tensor(0.0), torch.tensor(1.0)


def make_cnn() -> nn.Module:
    """Build two convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def make_fcn() -> nn.Module:
    """Build three linear layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 256),
        nn.ReLU(),
        nn.Linear(256, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def make_cifar() -> nn.Module:
    """Build three convolutions with batch statistics, and a linear layer."""
    layers: list[nn.Module] = []
    for n_in, n_out in [(3, 32), (32, 64), (64, 128)]:
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 10))


NETWORKS = {"cnn": (make_cnn, 3), "fcn": (make_fcn, 8)}  # of MNIST, and the epochs of each
CIFAR = {"cifar": (make_cifar, 4)}


def train(net: nn.Module, X: Tensor, y: Tensor, epochs: int) -> nn.Module:
    """Train with Adam and one cycle of learning rates."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    steps = epochs * math.ceil(len(y) / 128)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for part in torch.randperm(len(y)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X[part]), y[part]).backward()
            optimizer.step()
            cycle.step()
    return net.eval().requires_grad_(False)


def get_network(name: str, cache: Path, data: Any) -> tuple[nn.Module, float]:
    """Return a trained network and its test accuracy."""
    make, epochs = (NETWORKS | CIFAR)[name]
    torch.manual_seed(0)
    net, path = make(), cache / f"{name}.pt"
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        net.eval().requires_grad_(False)
    else:
        train(net, data[0], data[1], epochs)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), path)
    labels = torch.cat([net(part).argmax(1) for part in data[2].split(500)])
    return net, (labels == data[3]).float().mean().item()


class Counter(nn.Module):
    """A network that counts the samples of its forward and backward passes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.n_forward, self.n_backward = net, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        self.n_forward += len(x)
        if x.requires_grad:
            x.register_hook(self._count)
        return self.net(x)

    def _count(self, gradient: Tensor) -> None:
        self.n_backward += len(gradient)


def polished(net: nn.Module, x: Tensor, source: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Apply our last step to the points of another method; also return which succeeded."""
    network, samples, flat = CountedNetwork(net, x), torch.arange(len(x)), points.flatten(1)
    label = network.logits(flat, samples).argmax(1)
    band = x.new_full((len(x),), KAPPA)
    problem = MarginProblem(
        network,
        x.flatten(1),
        samples,
        *box(x, BOX),
        10 * band,
        lambda out, i: class_margin(out, label[i]) - 1.5 * band[i],
        class_margin(network.logits(x.flatten(1), samples), label) - 1.5 * band,
    )
    found = label != source
    problem = problem.select(found.nonzero()[:, 0])
    flat = flat.clone()
    value = problem.value(flat[found], problem.indices())
    flat[found], reached = polish(problem, flat[found], value, band[found] / 2)
    found[found.clone()] = reached
    return flat.view_as(x), found
