"""The calls into which `faults.py` injects faults: estimators around a small network."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn import get_config
from sklearn.datasets import load_iris
from threadpoolctl import ThreadpoolController

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchKNeighborsTransformer,
    TorchNearestNeighbors,
)

X, Y = (part[::5] for part in load_iris(return_X_y=True))
FEW = X[::3]
SKEWED = np.r_[0:10, 10:15, 20:28]  # samples with classes of several sizes


class Faulty(torch.nn.Module):
    """A small network whose output is passed to `fault` in call number `at`."""

    def __init__(self, body: torch.nn.Module) -> None:
        super().__init__()
        self.body = body
        self.n_calls, self.at = 0, 0
        self.fault: Callable[[torch.Tensor], Any] = torch.clone

    def forward(self, x: torch.Tensor) -> Any:
        self.n_calls += 1
        output = self.body(x)
        return self.fault(output) if self.n_calls == self.at else output


@cache
def trained() -> torch.nn.Module:
    """A network trained on iris in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)
        body = torch.nn.Sequential(*layers).double()
    optimizer = torch.optim.Adam(body.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(body(torch.tensor(X)), torch.tensor(Y)).backward()
        optimizer.step()
    optimizer.zero_grad()
    return body


def faulty() -> Faulty:
    """A network of its own, in training mode, so that a mode that is not restored shows."""
    return Faulty(copy.deepcopy(trained())).train()


class Call(NamedTuple):
    """A method of an estimator around a network."""

    make: Callable[[Any], Any]
    method: str
    arguments: tuple[Any, ...] = (X,)

    def begin(self, module: torch.nn.Module) -> tuple[Any, Callable[[], Any]]:
        """The estimator, fitted unless the method fits it, and the call."""
        estimator = self.make(FrozenNetwork(module, batch_size=8))
        if not self.method.startswith("fit"):
            estimator.fit(X, Y)
        return estimator, lambda: getattr(estimator, self.method)(*self.arguments)


def _latent_knn(net: Any) -> Any:
    return LatentKNNClassifier(net, random_state=0)


def _margins(net: Any) -> Any:
    return SubspaceMargins(net, max_iter=5, n_components=2, random_state=0)


def _classifier(net: Any) -> Any:
    return BiasedExtrapolationClassifier(net, n_iter=1, epochs_per_iter=2, random_state=0)


def _extractor(method: str) -> Callable[[Any], Any]:
    return lambda net: BoundarySampleExtractor(net, method=method, effort="fast", random_state=0)


SEARCHES = ("minimal", "pm", "score", "label", "segment")
# Calls that pass samples through a network of the user.
CALLS = {
    "FrozenNetwork.fit": Call(lambda net: net, "fit", (X, Y)),
    "FrozenNetwork.predict_proba": Call(lambda net: net, "predict_proba"),
    "LatentTransformer.fit": Call(LatentTransformer, "fit", (X, Y)),
    "LatentTransformer.transform": Call(LatentTransformer, "transform"),
    "LatentKNNClassifier.fit": Call(_latent_knn, "fit", (X, Y)),
    "LatentKNNClassifier.predict_proba": Call(_latent_knn, "predict_proba"),
    "BoundarySampleExtractor.fit": Call(_extractor("auto"), "fit", (X, Y)),
    **{
        f'BoundarySampleExtractor("{method}").extract_pairs': Call(
            _extractor(method), "extract_pairs", (FEW,)
        )
        for method in SEARCHES
    },
    "BoundaryCharacterizer.fit": Call(
        lambda net: BoundaryCharacterizer(net, n_samples=3, n_partners=2, random_state=0),
        "fit",
        (X, Y),
    ),
    "SubspaceMargins.fit": Call(_margins, "fit", (X, Y)),
    "SubspaceMargins.transform": Call(_margins, "transform", (FEW,)),
    "BiasedExtrapolationSampler.fit_resample": Call(
        lambda net: BiasedExtrapolationSampler(net, random_state=0),
        "fit_resample",
        (X[SKEWED], Y[SKEWED]),
    ),
    "BiasedExtrapolationClassifier.fit": Call(_classifier, "fit", (X[SKEWED], Y[SKEWED])),
    "BiasedExtrapolationClassifier.predict": Call(_classifier, "predict"),
}
# Calls without a network of the user: they train one, or only search.
OWN_CALLS = {
    "TorchNearestNeighbors.fit": Call(lambda net: TorchNearestNeighbors(2), "fit"),
    "TorchNearestNeighbors.kneighbors": Call(lambda net: TorchNearestNeighbors(2), "kneighbors"),
    "TorchNearestNeighbors.radius_neighbors": Call(
        lambda net: TorchNearestNeighbors(radius=0.5, n_jobs=2), "radius_neighbors"
    ),
    "TorchKNeighborsTransformer.transform": Call(
        lambda net: TorchKNeighborsTransformer(n_neighbors=2, n_jobs=2), "transform"
    ),
    "LatentTransformer(None).fit": Call(
        lambda net: LatentTransformer(random_state=0), "fit", (X, Y)
    ),
    "BiasedExtrapolationSampler(None).fit_resample": Call(
        lambda net: BiasedExtrapolationSampler(random_state=0),
        "fit_resample",
        (X[SKEWED], Y[SKEWED]),
    ),
}


def values(result: Any) -> list[Any]:
    """Everything that a call returned, or that a fitted estimator answers, as arrays."""
    if isinstance(result, dict):
        return [array for value in result.values() for array in values(value)]
    if isinstance(result, tuple):
        return [array for value in result for array in values(value)]
    if isinstance(result, np.ndarray) and result.dtype.kind == "O":  # neighbors within a radius
        return [array for value in result for array in values(value)]
    if sparse.issparse(result):
        return values((result.indptr, result.indices, result.data))
    if hasattr(result, "n_evaluations"):  # pairs
        return values(vars(result))
    if hasattr(result, "report_"):
        return values(dict(result.report_))
    for name in ("predict_proba", "transform", "kneighbors"):
        if hasattr(result, name):
            return values(getattr(result, name)(FEW))
    return [np.asarray(result)]


def same(results: list[Any], others: list[Any]) -> bool:
    """Whether two lists hold the same arrays, to the bit."""
    return len(results) == len(others) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(results, others)
    )


def process_state(module: torch.nn.Module) -> dict[str, Any]:
    """All that a call may change for a while, and has to restore."""
    modules = [*module.modules()]
    return {
        "modes": [m.training for m in modules],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules],
        "gradients": [(p.requires_grad, p.grad is None) for p in module.parameters()],
        "weights": [p._version for p in module.parameters()],
        "threads of torch": torch.get_num_threads(),
        "threads of BLAS": [pool["num_threads"] for pool in _pools().info()],
        "threads": threading.active_count(),
        "generator of torch": torch.get_rng_state().tolist(),
        "generator of numpy": np.random.get_state()[1].tolist(),
        "generator of Python": random.getstate(),
        "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "configuration": get_config(),
    }


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()
