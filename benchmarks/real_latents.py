"""Latent samples of trained networks, and pixels, for the benchmarks of exact search.

    python benchmarks/real_latents.py [NAME ...]

Trains each network once on one thread (CIFAR-10 for about half an hour, MNIST for two minutes) and
keeps the latents of its training images and, as queries, of its test images in a folder outside the
repository: SKBOUNDARY_CACHE, by default ~/.cache/skboundary. Requires the folder named by
SKBOUNDARY_DATA.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from data_folder import data_reader, load_mnist
from torch import Tensor, nn

CACHE = Path(os.environ.get("SKBOUNDARY_CACHE", "~/.cache/skboundary")).expanduser()
BATCH = 128
N_FOREIGN = 16_000, 2048  # CIFAR-10 images that an ImageNet network sees, and queries


def cifar_network() -> nn.Sequential:
    """Eight convolutions; the mean over space of the last 512 channels is the latent sample."""
    layers: list[nn.Module] = []
    for n_in, n_out in [(3, 64), (64, 128), (128, 256), (256, 512)]:
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(512, 10)
    )


def mnist_network(width: int) -> nn.Sequential:
    """Two convolutions and a layer of `width` units, which is the latent sample."""
    features = nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 49, width),
        nn.ReLU(),
    )
    return nn.Sequential(features, nn.Linear(width, 10))


def train(net: nn.Sequential, X: Tensor, y: Tensor, epochs: int, flip: bool) -> None:
    """Minimize the cross-entropy by SGD with one cycle of the learning rate."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    steps = epochs * -(-len(X) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    for _ in range(epochs):
        for part in torch.randperm(len(X)).split(BATCH):
            images = X[part]
            if flip:
                images = torch.where(torch.rand(len(part), 1, 1, 1) < 0.5, images.flip(3), images)
            loss = nn.functional.cross_entropy(net(images), y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    net.eval()


@torch.no_grad()
def latents(net: nn.Sequential, X: Tensor) -> Tensor:
    """Outputs of the part of the network before its last layer."""
    return torch.cat([net[0](part) for part in X.split(500)])


def trained(net: nn.Sequential, data: tuple[Tensor, ...], epochs: int, flip: bool) -> list[Tensor]:
    """Train a network; return latents of training and test images."""
    X, y, X_test, y_test = data
    train(net, X, y, epochs, flip)
    features = [latents(net, X), latents(net, X_test)]
    with torch.no_grad():
        accuracy = (net[1](features[1]).argmax(1) == y_test).float().mean()
    print(f"test accuracy {accuracy:.4f}", flush=True)
    return features


def load_cifar() -> tuple[Tensor, ...]:
    """CIFAR-10 images (n, 3, 32, 32) in [-1, 1] and their labels, of training and test."""
    load, data = data_reader(), []
    for part in ("train", "test"):
        X, y = load.cifar10(part)
        data += [torch.from_numpy(X).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(y).long()]
    return tuple(data)


def cifar512() -> list[Tensor]:
    """50,000 x 512 and 10,000 queries, of a network trained on them for three epochs."""
    return trained(cifar_network(), load_cifar(), epochs=3, flip=True)


def mnist512() -> list[Tensor]:
    """60,000 x 512 and 10,000 queries, of a network trained on them."""
    return trained(mnist_network(512), load_mnist(), epochs=2, flip=False)


def mnist128() -> list[Tensor]:
    """60,000 x 128 and 10,000 queries, of a network trained on them."""
    return trained(mnist_network(128), load_mnist(), epochs=2, flip=False)


def mnist_pixels() -> list[Tensor]:
    """60,000 x 784 and 10,000 queries."""
    X, _, X_test, _ = load_mnist()
    return [X.flatten(1), X_test.flatten(1)]


@torch.no_grad()
def mobilenet1280() -> list[Tensor]:
    """16,000 x 1280 and 2,048 queries: CIFAR-10 at 64 x 64 in MobileNetV2 trained on ImageNet."""
    net, (X, _, X_test, _) = data_reader().mobilenet(), load_cifar()
    features = []
    for images, n in zip((X, X_test), N_FOREIGN):
        parts = images[:n].split(250)
        larger = (nn.functional.interpolate(p, size=64, mode="bilinear") for p in parts)
        features.append(torch.cat([net(part, features=True)[1] for part in larger]))
    return features


MAKERS = {f.__name__: f for f in (mnist_pixels, mnist128, mnist512, mobilenet1280, cifar512)}


def load(name: str, cache: Path = CACHE) -> tuple[Tensor, Tensor]:
    """Samples and queries of one data set, made and stored when they are not there yet."""
    path = cache / f"{name}.pt"
    if not path.exists():
        start = time.perf_counter()
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.manual_seed(0)
        features = [part.contiguous() for part in MAKERS[name]()]
        torch.set_num_threads(threads)
        cache.mkdir(parents=True, exist_ok=True)
        torch.save(features, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    samples, queries = torch.load(path)
    return samples, queries


def main() -> None:
    """Make the data sets named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MAKERS)}; all by default")
    parser.add_argument("--cache", type=Path, default=CACHE)
    args = parser.parse_args()
    for name in args.names or MAKERS:
        samples, queries = load(name, args.cache)
        print(f"{name}: {tuple(samples.shape)}, queries {tuple(queries.shape)}", flush=True)


if __name__ == "__main__":
    main()
