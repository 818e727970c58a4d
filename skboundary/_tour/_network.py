"""The network of the tour and its training, which continues until the labels are memorized."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skboundary._device import to_tensor
from skboundary._random import forked_rng
from skboundary._tour._data import Problem
from skboundary.networks import FrozenNetwork


class Fold(NamedTuple):
    """A split of the training samples: one part trains the network, one selects its settings."""

    fit: NDArray[np.intp]
    val: NDArray[np.intp]
    y: NDArray[Any]  # labels of all training samples, with noise if any


class Standardize(nn.Module):
    """Subtract the mean and divide by the standard deviation of each feature, or of all pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, X: NDArray[Any]) -> None:
        super().__init__()
        axis = 0 if X.ndim == 2 else None
        sample = X if X.ndim == 2 else X[:500]  # enough for two moments, and bounds the memory
        std = np.asarray(sample.std(axis=axis, dtype=np.float64))
        self.register_buffer("mean", torch.tensor(sample.mean(axis=axis, dtype=np.float64)).float())
        self.register_buffer("std", torch.tensor(np.where(std > 0, std, 1.0)).float())

    def forward(self, x: Tensor) -> Tensor:
        """Standardize a batch."""
        return (x - self.mean) / self.std


def build_network(shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Build two convolutions and a hidden layer for images, two hidden layers for vectors."""
    if len(shape) == 1:
        front = [nn.Linear(shape[0], 256), nn.ReLU()]
    else:
        # strides reduce an image to about 14 x 14 pixels, and pooling to about 4 x 4
        stride = [max(1, round(side / 14)) for side in shape[1:]]
        pool = [max(1, side // s // 4) for side, s in zip(shape[1:], stride, strict=True)]
        kernel = (stride[0] + 2, stride[1] + 2)
        front = [
            nn.Conv2d(shape[0], 16, kernel, stride=(stride[0], stride[1]), padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d((pool[0], pool[1])),
            nn.Flatten(),
        ]
    width = nn.Sequential(*front)(torch.zeros(1, *shape)).shape[1]
    return nn.Sequential(*front, nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, n_classes))


def train(problem: Problem, fold: Fold, seed: int) -> dict[str, tuple[FrozenNetwork, int]]:
    """Train until the training labels are memorized.

    Returns
    -------
    snapshots : dict
        "last": the network at the end; "early": the same run at its best accuracy on the
        validation samples, whose labels are as noisy as those of the training samples. Each with
        its number of epochs.
    """
    recipe = problem.recipe
    standardize = Standardize(problem.X_train[fold.fit]).to(problem.device)
    X = to_tensor(problem.X_train[fold.fit], device=problem.device)
    codes = np.searchsorted(problem.classes, fold.y[fold.fit])
    y = torch.from_numpy(codes).to(problem.device)
    with forked_rng(seed):
        module = build_network(X.shape[1:], len(problem.classes)).to(problem.device)
        net = FrozenNetwork(
            module, classes=problem.classes, preprocess=standardize, device=problem.device
        )
        optimizer = torch.optim.Adam(module.parameters(), lr=recipe.learning_rate)
        early, early_epoch, best, epoch = net, 0, -1.0, 0
        hits = 0
        while epoch < recipe.max_epochs and hits < recipe.enough * len(y):
            epoch, hits = epoch + 1, 0
            for batch in torch.randperm(len(y)).to(problem.device).split(recipe.batch_size):
                logits = module(standardize(X[batch].float()))
                optimizer.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(logits, y[batch]).backward()
                optimizer.step()
                hits += int((logits.argmax(1) == y[batch]).sum())
            accuracy = net.score(problem.X_train[fold.val], fold.y[fold.val])
            if accuracy > best:
                best, early_epoch = accuracy, epoch
                early = FrozenNetwork(**{**net.get_params(), "module": copy.deepcopy(module)})
    return {"last": (net, epoch), "early": (early, early_epoch)}
