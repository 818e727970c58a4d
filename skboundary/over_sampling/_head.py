"""Classification heads on latent vectors, trained in rounds."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone, is_classifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from skboundary._device import to_numpy, to_tensor
from skboundary.networks import Network
from skboundary.networks._linear_head import linear_head

# Adam moves a weight by at most its rate in a step, so the number of steps limits the change in
# a round. It is the same in each epoch, whatever the number of samples.
_LEARNING_RATE = 1e-3
_STEPS = 32


def head_has(method: str) -> Callable[[Any], bool]:
    """Check that the head, fitted or not, has a method; `head=None` has all of them."""

    def check(self: Any) -> bool:
        head = getattr(self, "head_", self.head)
        return head is None or hasattr(head, method)

    return check


def check_head(head: Any) -> None:
    """Raise a ValueError for a head that is not a classifier."""
    if head is not None and not is_classifier(head):
        raise ValueError(
            f"head={type(head).__name__} is not a classifier. Use a classifier, or None "
            "to continue to train the network's last layer."
        )


def new_head(
    head: Any,
    network: Network,
    Z: Tensor,
    logits: Tensor,
    classes: NDArray[Any],
    *,
    epochs: int,
    seed: int,
) -> ContinuedHead | RefittedHead:
    """Return the head to train: the last layer of the network, or another classifier.

    Parameters
    ----------
    head : classifier or None
        None is the last layer of the network if its input is the latent space, and otherwise
        logistic regression.
    network : Network
    Z : Tensor of shape (n_samples, n_latent)
        Latent vectors of the training samples.
    logits : Tensor of shape (n_samples, n_classes)
        Their logits.
    classes : ndarray of shape (n_classes,)
        Labels of the columns of the logits.
    epochs, seed : int

    Returns
    -------
    head : ContinuedHead or RefittedHead
    """
    last = linear_head(network, Z, logits) if head is None else None
    if last is not None:
        generator = torch.Generator().manual_seed(seed)
        return ContinuedHead(*last, classes, Z, epochs, generator)
    return RefittedHead(LogisticRegression(max_iter=1000) if head is None else head, seed)


class ContinuedHead:
    """Cross-entropy training of ``Z @ weight.T + bias``, continued round by round.

    It trains on standardized columns, so that one learning rate suits any latent space; the
    state of the optimizer (Adam) is kept between rounds.

    Parameters
    ----------
    weight : Tensor of shape (n_classes, n_latent)
    bias : Tensor of shape (n_classes,)
        The initial head.
    classes : ndarray of shape (n_classes,)
    Z : Tensor of shape (n_samples, n_latent)
        Provides the mean and the standard deviation of each column.
    epochs : int
        Number of epochs in a round.
    generator : torch.Generator
        Shuffles the samples.
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
        """Return the head of the network, at a cost of 0."""
        return self.to_logistic_regression(self.classes), 0

    def train(self, Z: NDArray[Any], y: NDArray[Any]) -> tuple[LogisticRegression, int]:
        """Train on latent vectors (n, n_latent) with labels (n,).

        Returns
        -------
        head : LogisticRegression
        cost : int
            Samples times epochs.
        """
        standard = (to_tensor(Z, dtype=self.mean.dtype) - self.mean) / self.std
        codes = torch.from_numpy(np.searchsorted(self.classes, y))
        target = torch.nn.functional.one_hot(codes, len(self.classes)).to(standard)
        size = -(-len(codes) // _STEPS)
        for _ in range(self.epochs):
            for batch in torch.randperm(len(codes), generator=self.generator).split(size):
                z, hit = standard[batch], target[batch]
                residual = ((z @ self.weight.T + self.bias).softmax(1) - hit) / len(z)
                # the gradient of cross-entropy; three times slower with autograd
                self.weight.grad, self.bias.grad = residual.T @ z, residual.sum(0)
                self.optimizer.step()
        return self.to_logistic_regression(self.classes), self.epochs * len(codes)

    def boundary(self, head: LogisticRegression, classes: NDArray[Any]) -> LogisticRegression:
        """Return the present head, restricted to some of its classes."""
        return self.to_logistic_regression(classes)

    def to_logistic_regression(self, classes: NDArray[Any]) -> LogisticRegression:
        """Return a fitted `LogisticRegression` with the head's logits of these classes."""
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
    """Any classifier, refitted in each round.

    Parameters
    ----------
    head : classifier
        Cloned.
    seed : int
        For a head whose `random_state` is None.
    """

    epochs = 1

    def __init__(self, head: Any, seed: int) -> None:
        self.head = seeded(clone(head), seed)

    def train(self, Z: NDArray[Any], y: NDArray[Any]) -> tuple[Any, int]:
        """Fit a clone on latent vectors (n, n_latent) with labels (n,), at a cost of n."""
        return clone(self.head).fit(Z, y), len(y)

    start = train

    def boundary(self, head: Any, classes: NDArray[Any]) -> Any:
        """Return the present head."""
        return head


def seeded(estimator: Any, seed: int) -> Any:
    """Set the `random_state` of an estimator if it is None, and return the estimator."""
    if estimator.get_params(deep=False).get("random_state", seed) is None:
        estimator.set_params(random_state=seed)
    return estimator


def finite_scores(head: Any, scores: NDArray[Any]) -> NDArray[Any]:
    """Return the scores (n_samples, ...) of a head; NaN or infinity among them is a ValueError."""
    finite = np.isfinite(scores).reshape(len(scores), -1).all(1)
    if not finite.all():
        raise ValueError(
            f"{type(head).__name__}, the head, gives NaN or infinity for sample "
            f"{finite.argmin()} of X. Scale X, or use another head."
        )
    return scores
