"""Small estimators that pass every check: a classifier, a transformer, a search, a sampler."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import resolve_device, resolve_dtype, to_numpy, to_tensor
from skboundary._random import draw_seed
from skboundary._validation import check_input


class TorchEstimator(BaseEstimator):
    """What the reference estimators share: parameters, and batches through `_forward`."""

    def __init__(self, *, device="auto", batch_size="auto", random_state=None):
        self.device = device
        self.batch_size = batch_size
        self.random_state = random_state

    def _begin_fit(self, X):
        X = check_input(self, X, reset=True)
        self.device_ = resolve_device(self.device)
        return X, self._tensor(X)

    def _tensor(self, X):
        return to_tensor(X, device=self.device_, dtype=resolve_dtype(X, self.device_))

    def _map(self, forward, X):
        check_is_fitted(self)
        X = check_input(self, X, reset=False)
        size = resolve_batch_size(self.batch_size, X[:1].nbytes, self.device_)
        outputs = map_batches(lambda index: forward(self._tensor(X[index])), len(X), size)
        return to_numpy(torch.cat(list(outputs)))


class Centroids(ClassifierMixin, TorchEstimator):
    """Nearest class mean."""

    def fit(self, X, y):
        X, x = self._begin_fit(X)
        self.classes_, codes = np.unique(y, return_inverse=True)
        draw_seed(self.random_state)
        self._means = torch.stack([x[codes == c].mean(0) for c in range(len(self.classes_))])
        self._means = self._means.cpu()
        return self

    def _forward(self, x):
        means = self._means.to(x)
        distances = (x[:, None] - means).flatten(2).norm(dim=2)
        return torch.softmax(-distances / (1 + means.abs().max()), dim=1)

    def predict_proba(self, X):
        return self._map(self._forward, X)

    def predict(self, X):
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]


class Projection(TransformerMixin, TorchEstimator):
    """Random directions."""

    def fit(self, X, y=None):
        X, x = self._begin_fit(X)
        generator = torch.Generator().manual_seed(draw_seed(self.random_state))
        size = (x[0].numel(), 2)
        self._directions = torch.randn(size, generator=generator, dtype=torch.float64)
        return self

    def transform(self, X):
        return self._map(lambda x: x.flatten(1) @ self._directions.to(x), X)


class Neighbors(TorchEstimator):
    """Exact neighbors."""

    def __init__(self, n_neighbors=3, *, metric="euclidean", device="auto", batch_size="auto"):
        super().__init__(device=device, batch_size=batch_size)
        self.n_neighbors = n_neighbors
        self.metric = metric

    def fit(self, X, y=None):
        X, x = self._begin_fit(X)
        if self.n_neighbors > len(X):
            raise ValueError(f"n_neighbors={self.n_neighbors} exceeds the {len(X)} samples.")
        self._samples = x.cpu()
        return self

    def _distances(self, x):
        return (x[:, None] - self._samples.to(x)).flatten(2).norm(dim=2)

    def kneighbors(self, X):
        distances = self._map(self._distances, X)
        order = distances.argsort(axis=1, kind="stable")[:, : self.n_neighbors]
        return np.take_along_axis(distances, order, axis=1), order


class Sampler(TorchEstimator):
    """Repeats samples with noise until the classes are equally large."""

    def fit(self, X, y):
        self._begin_fit(X)
        return self

    def fit_resample(self, X, y):
        X, x = self._begin_fit(X)
        generator = torch.Generator().manual_seed(draw_seed(self.random_state))
        classes, counts = np.unique(y, return_counts=True)
        new = [np.resize(np.flatnonzero(y == c), max(counts) - n) for c, n in zip(classes, counts)]
        new = np.concatenate(new)
        noise = torch.randn(x[new].shape, generator=generator, dtype=torch.float64)
        made = x[new] + noise.to(x)
        return to_numpy(torch.cat([x, made])), np.concatenate([y, y[new]])


class Network(ClassifierMixin, TorchEstimator):
    """Predicts with a trained module, in its dtype."""

    def __init__(self, estimator, *, device="auto", batch_size="auto", random_state=None):
        super().__init__(device=device, batch_size=batch_size, random_state=random_state)
        self.estimator = estimator

    def fit(self, X, y=None):
        X, x = self._begin_fit(X)
        self.device_ = next(self.estimator.parameters()).device
        self.classes_ = np.arange(self._forward(x[:1]).shape[1])
        return self

    def _forward(self, x):
        flags = {part: part.training for part in self.estimator.modules()}
        try:
            self.estimator.eval()
            with torch.no_grad():
                return self._logits(x)
        finally:
            for part, flag in flags.items():
                part.training = flag

    def _logits(self, x):
        return self.estimator(x.to(torch.float32, copy=True))

    def predict_proba(self, X):
        return self._map(lambda x: torch.softmax(self._forward(x), dim=1), X)

    def predict(self, X):
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]


def make_module():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = torch.nn.Linear(4, 5)
        return torch.nn.Sequential(
            linear, torch.nn.BatchNorm1d(5), torch.nn.ReLU(), torch.nn.Linear(5, 3)
        ).eval()


def make_images():
    """Images of two classes, and a convolutional network for them."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1], [18, 12]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten()]
        module = torch.nn.Sequential(*layers, torch.nn.Linear(8, 2))
    return (y[:, None, None, None] + rng.normal(size=(30, 1, 4, 4)), y), module
