"""Fitted estimators of every kind, their results, and what it takes to load them elsewhere.

``python -m tests.io_cases FOLDER`` loads those that `save_all` has saved, in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

import skboundary as skb
from skboundary.io import load, save

FOREST = "sklearn.tree._tree.Tree"


class Net(nn.Module):
    """A network of the user, with tied weights, buffers and float32 outputs."""

    def __init__(self, seed=None):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.body = nn.Linear(4, 4)
        self.again = self.body
        self.head = nn.Linear(4, 3)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for tensor in [*self.parameters(), self.norm.running_mean]:
                tensor.data.normal_(generator=generator)

    def forward(self, x):
        return self.head(self.again(torch.relu(self.body(self.norm(x)))))


class Furthest:
    """A search of the user's own."""

    def fit(self, X):
        self.X_ = X
        return self

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        distances = np.linalg.norm((self.X_ if X is None else X)[:, None] - self.X_, axis=2)
        indices = distances.argsort(axis=1, kind="stable")[:, -n_neighbors:]
        found = np.take_along_axis(distances, indices, axis=1), indices
        return found if return_distance else indices


def halve(x):
    return x / 2


def shift(X):
    return X + 0.01


def skorch_net():
    criterion = nn.CrossEntropyLoss
    return NeuralNetClassifier(Net, max_epochs=1, verbose=0, criterion=criterion, train_split=None)


def iris():
    X, y = load_iris(return_X_y=True)
    return X, y


NAMES = np.array(["a", "b", "c"])


def _knn(clf, X):
    near = clf.kneighbors(X, 4)
    return [clf.predict_proba(X), clf.predict(X), *near, clf.kneighbors(None, 2)[1]]


def _resampled(sampler, X):
    return [sampler.parents_, *sampler.fit_resample(*imbalanced())]


def _report(model, X):
    return [*model.report_.values()]


def imbalanced():
    X, y = iris()
    keep = np.r_[0:50, 50:80, 100:115]
    return X[keep], y[keep]


# name: estimator, labels, dtype, results, what load is given besides the folder
CASES = {
    "FrozenNetwork": (
        lambda: skb.FrozenNetwork(Net(0), classes=[*NAMES]),
        NAMES,
        np.float32,
        lambda net, X: [net.predict_proba(X), net.predict(X)],
        lambda: {"module": Net()},
    ),
    "LatentTransformer": (
        lambda: skb.LatentTransformer(random_state=0),
        None,
        np.float64,
        lambda model, X: [model.transform(X), model.get_feature_names_out()],
        dict,
    ),
    "LatentKNNClassifier-default": (
        lambda: skb.LatentKNNClassifier(random_state=0, metric="cosine"),
        NAMES,
        np.float64,
        _knn,
        dict,
    ),
    "LatentKNNClassifier-given": (
        lambda: skb.LatentKNNClassifier(
            FrozenEstimator(
                make_pipeline(StandardScaler(), skb.FrozenNetwork(Net(1), preprocess=halve)).fit(
                    *iris()
                )
            ),
            query_transforms=[shift],
            neighbors=Furthest(),
            layer="body",
        ),
        None,
        np.float32,
        lambda clf, X: [clf.predict_proba(X), *clf.kneighbors(X, 2)],
        lambda: {
            "module": Net(),
            "objects": {
                "estimator__estimator__frozennetwork__preprocess": halve,
                "query_transforms": [shift],
                "neighbors": Furthest(),
            },
        },
    ),
    "LatentKNNClassifier-skorch": (
        lambda: skb.LatentKNNClassifier(
            make_pipeline(StandardScaler(), skorch_net()), random_state=0
        ),
        NAMES,
        np.float64,
        _knn,
        lambda: {"objects": {"estimator__neuralnetclassifier": skorch_net()}},
    ),
    "LatentKNNClassifierCV": (
        lambda: skb.LatentKNNClassifierCV(random_state=0),
        NAMES,
        np.float64,
        lambda clf, X: [*_knn(clf.best_estimator_, X), clf.predict_proba(X), clf.scores_],
        dict,
    ),
    "TorchNearestNeighbors": (
        lambda: skb.TorchNearestNeighbors(3),
        None,
        np.float32,
        lambda search, X: [
            *search.kneighbors(X),
            *search.kneighbors(),
            *map(np.concatenate, search.radius_neighbors(X, 0.5)),
        ],
        dict,
    ),
    "TorchKNeighborsTransformer": (
        lambda: skb.TorchKNeighborsTransformer(n_neighbors=3, metric="cosine"),
        None,
        np.float32,
        lambda search, X: [search.transform(X).toarray(), search.get_feature_names_out()],
        dict,
    ),
    "BoundarySampleExtractor": (
        lambda: skb.BoundarySampleExtractor(LogisticRegression(max_iter=300), random_state=0),
        NAMES,
        np.float64,
        lambda model, X: [model.transform(X[::10]), *model.bounds_, model.extract(3).outer],
        dict,
    ),
    "BoundarySampleExtractor-forest": (
        lambda: skb.BoundarySampleExtractor(
            RandomForestClassifier(5, random_state=0), random_state=0, effort="fast"
        ),
        NAMES,
        np.float64,
        lambda model, X: [model.transform(X[::30])],
        lambda: {"trusted": [FOREST]},
    ),
    "SubspaceMargins": (
        lambda: skb.SubspaceMargins(Net(0), subspaces="random", random_state=0),
        None,
        np.float32,
        lambda model, X: [model.transform(X[::10]), model.get_feature_names_out()],
        lambda: {"module": Net()},
    ),
    "BoundaryCharacterizer": (
        lambda: skb.BoundaryCharacterizer(LogisticRegression(), n_samples=5, random_state=0),
        NAMES,
        np.float64,
        _report,
        dict,
    ),
    "LogitAdjustedClassifier": (
        lambda: skb.LogitAdjustedClassifier(random_state=0),
        NAMES,
        np.float64,
        lambda clf, X: [clf.predict_proba(X), clf.predict(X), clf.prior_],
        dict,
    ),
    "BiasedExtrapolationSampler": (
        lambda: skb.BiasedExtrapolationSampler(settings=skb.BiasSettings(gamma=-0.2)),
        None,
        np.float64,
        _resampled,
        dict,
    ),
    "BiasedExtrapolationClassifier": (
        lambda: skb.BiasedExtrapolationClassifier(n_iter=2, random_state=0),
        NAMES,
        np.float64,
        lambda clf, X: [clf.predict_proba(X), clf.predict(X), clf.cost_reduction_],
        dict,
    ),
}


def fitted(name):
    make, labels, dtype, _, _ = CASES[name]
    X, y = imbalanced() if name.startswith("Biased") else iris()
    estimator = make()
    if isinstance(estimator, skb.BiasedExtrapolationSampler):
        estimator.random_state = np.random.RandomState(3)
        estimator.fit_resample(X, y)
        return estimator
    return estimator.fit(X.astype(dtype), y if labels is None else labels[y])


def results(name, estimator):
    _, _, dtype, run, _ = CASES[name]
    return [np.asarray(value) for value in run(estimator, iris()[0].astype(dtype))]


def save_all(folder, estimators):
    return {name: save(estimator, folder / name) for name, estimator in estimators.items()}


def load_all(folder):
    torch.set_num_threads(1)
    return {name: load(folder / name, **case[4]()) for name, case in CASES.items()}


if __name__ == "__main__":
    where = Path(sys.argv[1])
    found = {
        f"{name}/{i}": value.astype(str) if value.dtype == object else value
        for name, estimator in load_all(where).items()
        for i, value in enumerate(results(name, estimator))
    }
    np.savez(
        where / "results.npz",
        **{k: v.astype(str) if v.dtype == object else v for k, v in found.items()},
    )
