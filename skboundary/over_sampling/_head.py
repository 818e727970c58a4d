"""Heads on latent vectors that are trained round after round."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from skboundary._device import to_numpy, to_tensor

# Adam moves a weight by at most its rate in a step, so steps, not samples, say how far a round
# can go: as many in each epoch, whatever the number of samples.
_LEARNING_RATE = 1e-3
_STEPS = 32


class ContinuedHead:
    """Cross-entropy training of ``Z @ weight.T + bias``, continued round by round.

    It trains on standardized columns, so that one learning rate serves any latent space; the
    state of the optimizer (Adam) is kept between rounds.

    Parameters
    ----------
    weight : Tensor of shape (n_classes, n_latent)
    bias : Tensor of shape (n_classes,)
        Where training starts.
    classes : ndarray of shape (n_classes,)
    Z : Tensor of shape (n_samples, n_latent)
        Gives the mean and the deviation of each column.
    epochs : int
        Of one round.
    generator : torch.Generator
        Shuffles the rows.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        classes: NDArray[Any],
        Z: Tensor,
        epochs: int,
        generator: torch.Generator,
    ) -> None:
        self.mean, deviation = Z.mean(0), Z.std(0, correction=0)
        self.std = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        self.weight = weight * self.std
        self.bias = bias + weight @ self.mean
        self.classes, self.epochs, self.generator = classes, epochs, generator
        self.optimizer = torch.optim.Adam([self.weight, self.bias], lr=_LEARNING_RATE, fused=True)

    def start(self, Z: NDArray[Any], y: NDArray[Any]) -> tuple[LogisticRegression, int]:
        """Return the head as it comes out of the network, and what it cost: nothing."""
        return self.restricted_to(self.classes), 0

    def train(self, Z: NDArray[Any], y: NDArray[Any]) -> tuple[LogisticRegression, int]:
        """Train on rows (n, n_latent) with labels (n,).

        Returns
        -------
        head : LogisticRegression
        cost : int
            Rows times epochs.
        """
        standard = (to_tensor(Z, dtype=self.mean.dtype) - self.mean) / self.std
        codes = torch.from_numpy(np.searchsorted(self.classes, y))
        target = torch.nn.functional.one_hot(codes, len(self.classes)).to(standard)
        size = -(-len(codes) // _STEPS)
        for _ in range(self.epochs):
            for batch in torch.randperm(len(codes), generator=self.generator).split(size):
                z, hit = standard[batch], target[batch]
                residual = ((z @ self.weight.T + self.bias).softmax(1) - hit) / len(z)
                # the gradient of cross-entropy; autograd would take thrice the time
                self.weight.grad, self.bias.grad = residual.T @ z, residual.sum(0)
                self.optimizer.step()
        return self.restricted_to(self.classes), self.epochs * len(codes)

    def restricted_to(self, classes: NDArray[Any]) -> LogisticRegression:
        """Make a fitted `LogisticRegression` that says what the head says of these classes."""
        weight = self.weight / self.std
        bias = self.bias - weight @ self.mean
        kept = torch.from_numpy(np.searchsorted(self.classes, classes))
        weight, bias = weight[kept], bias[kept]
        if len(classes) == 2:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        model = LogisticRegression()
        model.classes_, model.n_features_in_ = classes, weight.shape[1]
        model.coef_, model.intercept_ = to_numpy(weight), to_numpy(bias)
        return model


class RefittedHead:
    """Any classifier, fitted anew in each round.

    Parameters
    ----------
    head : classifier
        Cloned.
    seed : int
        For a head whose `random_state` is None.
    """

    def __init__(self, head: Any, seed: int) -> None:
        self.head = seeded(clone(head), seed)

    def train(self, Z: NDArray[Any], y: NDArray[Any]) -> tuple[Any, int]:
        """Fit a clone on rows (n, n_latent) with labels (n,); it costs n."""
        return clone(self.head).fit(Z, y), len(y)

    start = train


def seeded(estimator: Any, seed: int) -> Any:
    """Set `random_state` where an estimator has one that is None, and return the estimator."""
    if estimator.get_params(deep=False).get("random_state", seed) is None:
        estimator.set_params(random_state=seed)
    return estimator
