"""Estimators that fail one check each, and pass all others."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import warnings

import numpy as np
import torch

from skboundary._device import resolve_device, to_tensor
from tests.utils.sound_estimators import Centroids, Neighbors, Network, Projection, Sampler


class SeedsTorch(Centroids):
    def fit(self, X, y):
        torch.manual_seed(0)
        return super().fit(X, y)


class DrawsFromNumpyInPredict(Centroids):
    def predict(self, X):
        np.random.permutation(3)
        return super().predict(X)


class StandardizesBatches(Centroids):
    def _forward(self, x):
        return super()._forward(x - x.mean(0))


class WritesDeviceBack(Centroids):
    def fit(self, X, y):
        self.device = resolve_device(self.device)
        return super().fit(X, y)


class ForgetsDevice(Sampler):
    def fit_resample(self, X, y):
        resampled = super().fit_resample(X, y)
        self.device_ = str(self.device_)
        return resampled


class KeepsIntegers(Centroids):
    def _tensor(self, X):  # torch takes no mean of integers
        return to_tensor(X, device=self.device_)


class OverflowsBytes(Projection):
    def _tensor(self, X):
        return super()._tensor(X + X)


class DividesByNorm(Projection):
    def transform(self, X):
        return self._map(lambda x: x.flatten(1) / x.flatten(1).norm(dim=1)[:, None], X)


class RefusesDuplicates(Neighbors):
    def fit(self, X, y=None):
        super().fit(X)
        if len(self._samples.unique(dim=0)) < len(self._samples):
            raise ValueError("X holds a duplicate sample.")
        return self


class ReturnsFloat64(Neighbors):
    def kneighbors(self, X):
        distances, indices = super().kneighbors(X)
        return distances.astype(np.float64), indices


class SwapsColumnsOfStrings(Centroids):
    def predict_proba(self, X):
        proba = super().predict_proba(X)
        return proba if self.classes_.dtype.kind in "ib" else proba[:, ::-1]

    def predict(self, X):
        proba = Centroids.predict_proba(self, X)
        return self.classes_[proba.argmax(axis=1)]


class PredictsCodes(Centroids):
    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)


class PredictsIntegersForBooleans(Centroids):
    def predict(self, X):
        predictions = super().predict(X)
        return predictions.astype(int) if predictions.dtype == bool else predictions


class ClassesAsTheyAppear(Centroids):
    def fit(self, X, y):
        super().fit(X, y)
        seen = [np.flatnonzero(y == c)[0] for c in self.classes_]
        order = np.argsort(seen) if y.dtype.kind != "i" else np.arange(len(seen))
        self.classes_, self._means = self.classes_[order], self._means[order]
        return self


class PicklesAnotherDevice(Projection):
    def fit(self, X, y=None):
        super().fit(X)
        self._state = {"cache": [torch.empty(2, device="meta")]}
        return self


class ForgetsWhenPickled(Projection):
    def __setstate__(self, state):
        super().__setstate__(state)
        if hasattr(self, "_directions"):
            self._directions = -self._directions


class CannotBePickled(Projection):
    def fit(self, X, y=None):
        super().fit(X)
        self._activation = lambda x: x
        return self


class ClonesToDefaults(Projection):
    def __sklearn_clone__(self):
        return type(self)()


class ScoresFail(Centroids):
    def score(self, X, y):
        raise NotImplementedError("no score")


class RefusesWithoutSample(Centroids):
    def fit(self, X, y):
        with refused_as(ValueError("X is not finite."), only="in sample"):
            return super().fit(X, y)


class PredictsNaN(Projection):
    def transform(self, X):
        x = X.detach().numpy() if isinstance(X, torch.Tensor) else X
        return super().transform(np.nan_to_num(x))


class ClampsNeighbors(Neighbors):
    def fit(self, X, y=None):
        given, self.n_neighbors = self.n_neighbors, min(self.n_neighbors, len(X))
        super().fit(X)
        self.n_neighbors = given
        return self


class FailsInTopK(Neighbors):
    def fit(self, X, y=None):
        if self.n_neighbors > len(X):
            raise RuntimeError("selected index k out of range")
        return super().fit(X)


class WarnsAboutReadOnly(Projection):
    def _tensor(self, X):
        torch.from_numpy(np.ascontiguousarray(X))
        return super()._tensor(X)


class WarnsAboutOrder(Projection):
    def fit(self, X, y=None):
        if isinstance(X, np.ndarray) and not X.flags.c_contiguous:
            warnings.warn("X is copied", stacklevel=2)
        return super().fit(X)


class IgnoresStrides(Projection):
    def _tensor(self, X):
        return super()._tensor(X if X.flags.c_contiguous else np.ravel(X, "K").reshape(X.shape))


class SharesMemory(Network):
    def _logits(self, x):
        return self.estimator(x.float())


class RoundsUp(Projection):
    def transform(self, X):
        result = super().transform(X)
        if isinstance(X, np.ndarray) and X.flags.writeable and X.dtype.kind == "f":
            np.nextafter(X, np.inf, out=X)
        return result


class UsesAnotherDevice(Centroids):
    def _begin_fit(self, X):
        given, self.device = self.device, "cpu"
        result = super()._begin_fit(X)
        self.device = given
        return result


class HidesDevice(Centroids):
    def _begin_fit(self, X):
        with refused_as(ValueError("There is no such accelerator."), only="not available"):
            return super()._begin_fit(X)


class LeavesEval(Network):
    def _forward(self, x):
        self.estimator.eval()
        with torch.no_grad():
            return self._logits(x)


class LeavesEvalAfterAnError(Network):
    def _forward(self, x):
        if len(x) == 1:  # in fit
            return super()._forward(x)
        flags = {part: part.training for part in self.estimator.modules()}
        self.estimator.eval()
        with torch.no_grad():
            logits = self._logits(x)
        for part, flag in flags.items():
            part.training = flag
        return logits


class LeavesEvalAfterInvalidSamples(Network):
    def predict(self, X):
        flags = {part: part.training for part in self.estimator.modules()}
        self.estimator.eval()
        predictions = super().predict(X)
        for part, flag in flags.items():
            part.training = flag
        return predictions


class Freezes(Network):
    def _logits(self, x):
        self.estimator.requires_grad_(False)
        return super()._logits(x)


class ClearsGradients(Network):
    def _logits(self, x):
        self.estimator.zero_grad()
        return super()._logits(x)


class AddsGradients(Network):
    def _logits(self, x):
        with torch.enable_grad():
            super()._logits(x).sum().backward()
        return super()._logits(x)


class ChangesWeights(Network):
    def _logits(self, x):
        self.estimator[0].weight += 1e-6
        return super()._logits(x)


class ChangesBuffers(Network):
    def _logits(self, x):
        self.estimator[1].num_batches_tracked += 1
        return super()._logits(x)


class LeavesHooks(Network):
    def _logits(self, x):
        self.estimator[0].register_forward_hook(do_nothing)
        return super()._logits(x)


class ChangesDtype(Network):
    def _logits(self, x):
        return self.estimator.double()(x.to(torch.float64, copy=True)).float()


def do_nothing(module, args, output):
    return None


class refused_as:
    """Replace a ValueError by another one."""

    def __init__(self, error, only):
        self.error, self.only = error, only

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None and issubclass(kind, ValueError) and self.only in str(value):
            raise self.error
