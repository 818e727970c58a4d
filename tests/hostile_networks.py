"""Base networks for hostile input, sound ones and broken ones, and values of parameters."""

import numpy as np
import torch
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from skboundary import BiasSettings, FrozenNetwork, TorchNearestNeighbors

# ------------------------------------------------------------------------------------- networks


def module(shape, n_outputs, dtype=torch.float32):
    """A multilayer perceptron with fixed weights for samples of a shape."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        n = max(1, int(np.prod(shape)))
        layers = nn.Flatten(), nn.Linear(n, 4), nn.ReLU(), nn.Linear(4, n_outputs)
        return nn.Sequential(*layers).to(dtype)


class Broken(nn.Module):
    """A module whose outputs are changed."""

    def __init__(self, body, change):
        super().__init__()
        self.body, self.change = body, change

    def forward(self, x):
        return self.change(self.body(x))


class BlackBox(ClassifierMixin, BaseEstimator):
    """The class by the sign of the first column; nothing but labels."""

    def fit(self, X, y):
        self.classes_ = np.unique(np.asarray(y))
        return self

    def predict(self, X):
        X = np.asarray(X.toarray() if sparse.issparse(X) else X, dtype=float)
        return self.classes_[(X.reshape(len(X), -1)[:, 0] > 0).astype(int) % len(self.classes_)]


class BrokenLabels(BlackBox):
    def __init__(self, change=None):
        self.change = change

    def predict(self, X):
        return self.change(super().predict(X))


class BrokenProba(BlackBox):
    def __init__(self, value=None, extra=0):
        self.value, self.extra = value, extra

    def predict_proba(self, X):
        return np.full((X.shape[0], len(self.classes_) + self.extra), self.value)


def raising(*_):
    raise RuntimeError("the weights are gone")


def fitted_logistic(shape, labels):
    X = np.random.default_rng(0).normal(size=(30, max(1, int(np.prod(shape)))))
    y = np.resize(labels, 30)
    return FrozenEstimator(LogisticRegression(max_iter=20).fit(X, y))


def tokens(shape, n_outputs):
    n = max(1, int(np.prod(shape)))
    layers = nn.Embedding(4, 2), nn.Flatten(), nn.Linear(2 * n, n_outputs)
    return nn.Sequential(*layers)


def with_labels(shape, labels, dtype=torch.float32):
    return FrozenNetwork(module(shape, len(labels), dtype), classes=labels)


# From the shape of a sample and the class labels to an estimator.
SOUND = {
    "frozen": with_labels,
    "frozen float64": lambda shape, labels: with_labels(shape, labels, torch.float64),
    "frozen float16": lambda shape, labels: with_labels(shape, labels, torch.float16),
    "module": lambda shape, labels: module(shape, len(labels)),
    "module of one output": lambda shape, labels: module(shape, 1, torch.float64),
    "probabilities": lambda shape, labels: FrozenNetwork(
        nn.Sequential(module(shape, len(labels)), nn.Softmax(1)), classes=labels, output="proba"
    ),
    "preprocess": lambda shape, labels: FrozenNetwork(
        module(shape, len(labels)), classes=labels, preprocess=lambda x: x / 2
    ),
    "logistic regression": lambda shape, labels: LogisticRegression(max_iter=20),
    "pipeline": lambda shape, labels: make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=20)
    ),
    "fitted": fitted_logistic,
    "naive Bayes": lambda shape, labels: GaussianNB(),
    "tree": lambda shape, labels: DecisionTreeClassifier(random_state=0),
    "labels alone": lambda shape, labels: BlackBox(),
    "default": lambda shape, labels: None,
}
NETWORKS = SOUND | {
    "tokens": lambda shape, labels: tokens(shape, len(labels)),
    "NaN": lambda shape, labels: Broken(module(shape, len(labels)), lambda z: z * torch.nan),
    "raises": lambda shape, labels: Broken(module(shape, len(labels)), raising),
    "too few outputs": lambda shape, labels: Broken(module(shape, len(labels)), lambda z: z[1:]),
    "no tensor": lambda shape, labels: Broken(module(shape, len(labels)), lambda z: None),
    "integers": lambda shape, labels: Broken(module(shape, len(labels)), lambda z: z.long()),
    "three axes": lambda shape, labels: Broken(module(shape, len(labels)), lambda z: z[..., None]),
    "no outputs": lambda shape, labels: Broken(module(shape, len(labels)), lambda z: z[:, :0]),
    "another device": lambda shape, labels: Broken(
        module(shape, len(labels)), lambda z: z.to("meta")
    ),
    "other columns": lambda shape, labels: module((7,), len(labels)),
    "other classes": lambda shape, labels: FrozenNetwork(module(shape, 5)),
    "unknown labels": lambda shape, labels: BrokenLabels(lambda y: np.full(len(y), "unknown")),
    "too few labels": lambda shape, labels: BrokenLabels(lambda y: y[1:]),
    "NaN probabilities": lambda shape, labels: BrokenProba(np.nan),
    "negative probabilities": lambda shape, labels: BrokenProba(-0.5),
    "extra probabilities": lambda shape, labels: BrokenProba(0.25, extra=1),
    "regressor": lambda shape, labels: LinearRegression(),
    "unfitted": lambda shape, labels: FrozenEstimator(LogisticRegression()),
    "a class": lambda shape, labels: LogisticRegression,
    "an object": lambda shape, labels: object(),
    "a number": lambda shape, labels: 3,
}


# ----------------------------------------------------------------------------------- parameters


class FewNeighbors(NearestNeighbors):
    """Finds one sample less than it is asked for."""

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        return super().kneighbors(X, max(1, n_neighbors - 1), return_distance)


class FarNeighbors(NearestNeighbors):
    """Finds samples that do not exist."""

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        distances, indices = super().kneighbors(X, n_neighbors)
        return (distances, indices + 10**6) if return_distance else indices + 10**6


class NotNumbers(NearestNeighbors):
    """Finds samples at no distance."""

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        distances, indices = super().kneighbors(X, n_neighbors)
        return (distances * np.nan, indices) if return_distance else indices


INTEGERS = [1, 2, 3, 7, 0, -1, 1.5, np.int64(2), True, np.nan, None, "two", np.array([1, 2])]
LARGE = [*INTEGERS, 10**6, 2**70]
SHARES = [0, 0.5, 1, -0.1, 1.1, 1e-30, np.nan, np.inf, np.float32(0.3), True, "half", None]
POSITIVE = [*SHARES, 1e30, 5]

RUNTIME = {
    "device": ["cpu", "auto", torch.device("cpu"), "cuda:99", "meta", "no device", "", 0, None],
    "batch_size": [*LARGE, "auto", "all"],
}
SEARCH = {
    **RUNTIME,
    "bank": [None, 3],
    "n_neighbors": LARGE,
    "metric": ["euclidean", "sqeuclidean", "cosine", "manhattan", None],
    "n_jobs": [None, 1, 2, -1, -99, 0, 2**70, 0.5, "all"],
    "verbose": [0, False, -1, None, "loud"],
}
NETWORK = {
    **RUNTIME,
    "random_state": [0, 7, None, np.random.RandomState(0), -1, 2**40, "seed", 0.5],
    "verbose": [0, False, -1, None, "loud"],
}
LAYER = {"layer": ["auto", 0, -1, 1, 99, -99, "0", "1", "1:input", "no", "", lambda m, x: x, 1.5]}
LAYER["layer"] += [lambda m, x: None, lambda m, x: x[:1], lambda m, x: x.sum(), None]
LATENT = {
    **NETWORK,
    **LAYER,
    "pool": [None, "avg", "max", 1],
    "memory": [None, 3],
    "memory_key": [None, "key", 3],
}
CLASS = ["nearest", "runner_up", 0, 1, "no", True, 1.0, np.nan, 99, "nobody", None]
BOUNDS = ["data", None, (-1, 1), (0, 0), (1, -1), (np.nan, 1), (-np.inf, np.inf), (-1e30, 1e30)]
BOUNDS += [
    (0,),
    (0, 1, 2),
    ([0, 0, 0], [1, 1, 1]),
    np.array([[-9.0], [9.0]]),
    "none",
    3,
    ("a", "b"),
]
SUBSPACES = ["auto", "dct", "pca", "random", None, np.eye(3)[None], np.zeros((1, 2, 3)), "all"]
SUBSPACES += [[np.eye(3)[:1], np.eye(3)], np.full((1, 1, 3), np.nan), np.eye(3), [], [[["a"]]], 3]
SUBSPACES += [1e30 * np.eye(3)[None], 1e-30 * np.eye(3)[None], np.ones((2, 2, 3)), np.eye(4)[None]]
TRANSFORMS = [None, [], [np.negative], (np.negative, np.copy), [np.sum], [str], [3], "flip", 3]
SEARCHES = [
    None,
    NearestNeighbors(),
    TorchNearestNeighbors(),
    TorchNearestNeighbors(metric="cosine"),
]
SEARCHES += [FewNeighbors(), FarNeighbors(), NotNumbers(), 3, "exact", NearestNeighbors]
SETTINGS = [None, BiasSettings(), BiasSettings.paper(), BiasSettings(class_specific="proportional")]
SETTINGS += [BiasSettings(distance_ratio="segment"), BiasSettings(distance_ratio="margin"), {}, 3]
SETTINGS += [BiasSettings(gamma=5), BiasSettings(fraction=np.nan), BiasSettings(tau="high")]
SETTINGS += [BiasSettings(fraction=1e-30), BiasSettings(gamma=1, p_min=0), BiasSettings(gamma=-1)]

PARAMETERS = {
    "TorchNearestNeighbors": {**SEARCH, "radius": POSITIVE},
    "TorchKNeighborsTransformer": {**SEARCH, "mode": ["distance", "connectivity", "both", None]},
    "LatentTransformer": LATENT,
    "LatentKNNClassifier": {
        **LATENT,
        "n_neighbors": LARGE,
        "query_weight": SHARES,
        "metric": ["euclidean", "sqeuclidean", "cosine", "manhattan", None],
        "average": ["proba", "logits", "votes", None],
        "weights": ["uniform", "distance", np.ones_like, np.zeros_like, len, "ranks", None],
        "contribute": ["outputs", "labels", "votes", None],
        "query_transforms": TRANSFORMS,
        "neighbors": SEARCHES,
        "bank": [None, 3],
    },
    "LatentKNNClassifierCV": {
        **LATENT,
        "layer": [*LAYER["layer"], ["auto", "0"], [], ["no"]],
        "n_neighbors": [(1, 2), [3], 3, (0,), (10**6,), (1, 10**6), (), "two", [1.5]],
        "query_weight": [(0.0, 1.0), [0.5], 0.5, (-0.1,), (np.nan,), (), ["half"]],
        "average": [("proba", "logits"), "proba", (), ("votes",)],
        "metric": [("euclidean", "cosine"), "euclidean", (), ("manhattan",)],
        "scoring": [None, "accuracy", "balanced_accuracy", "none", 3],
        "cv": [2, 3, 1, 10**6, "folds", None, [([0, 1], [2])]],
        "validation_fraction": [None, 0.5, *SHARES],
        "refit": [True, False, 1, "yes"],
        "weights": ["uniform", "distance", np.ones_like, np.zeros_like, len, "ranks", None],
        "contribute": ["outputs", "labels", "votes", None],
        "query_transforms": TRANSFORMS,
    },
    "FrozenNetwork": {
        **RUNTIME,
        "classes": [
            None,
            [0, 1, 2],
            [*"cab"],
            [0, 0, 1],
            [0],
            [[0, 1, 2]],
            [0, np.nan, 1],
            [1, "a"],
        ]
        + [3, "abc", [None, 1, 2], np.array([0.5, 1.5, 2.5])],
        "preprocess": [None, torch.neg, torch.sum, lambda x: None, raising, nn.Flatten(), "scale"],
        "output": ["logits", "proba", "labels", None],
        "input_dtype": ["auto", "keep", "int", None],
    },
    "BoundarySampleExtractor": {
        **NETWORK,
        "method": ["auto", "minimal", "pm", "score", "label", "segment", "sparse", "none", None],
        "target": CLASS,
        "returns": ["boundary", "perturbation", "distance", "class_distances", "interval", "all"],
        "effort": ["fast", 20, 30, 50, 1, 0, -1, 2.5, "slow", None],
        "confidence": [0.6, 0.9, 0.999999, 0.5, 1, np.nan, "sure", None],
        "penalty": POSITIVE,
        "norm": [1, 2, np.inf, "2sq", 3, 0, -np.inf, np.nan, "two", None],
        "margin_tol": POSITIVE,
        "bounds": BOUNDS,
        "generator": [None, 3],
        "n_jobs": [None, 1, 0, -1000, 1.5, "all"],
        "immutable": [None, [0], [1, -1], [99], ["x0"], ["no"], [], [0.5], 3],
        "categorical": [None, [0], [99], ["x0"], [], [True, False, False], 3],
        "max_changes": [None, *INTEGERS],
    },
    "BoundaryCharacterizer": {
        **NETWORK,
        "pairs": [
            "all",
            [],
            [(0, 1)],
            [(1, 0), ("no", "yes")],
            [(0, 0)],
            [(0,)],
            [3],
            "some",
            None,
        ],
        "method": ["segment", "pm", "minimal", None],
        "init": ["nearest", "random", "far", None],
        "generator": [None, 3],
        "n_samples": LARGE,
        "n_partners": INTEGERS,
        "max_iter": INTEGERS,
        "effort": ["fast", 20, 1, 0, "slow", None],
        "warm_start": [True, False, 1, "yes", None],
        "n_jobs": [None, 1, 0, -1000, 1.5, "all"],
    },
    "SubspaceMargins": {
        **NETWORK,
        "subspaces": SUBSPACES,
        "window": LARGE,
        "step": LARGE,
        "n_components": LARGE,
        "method": ["gradient", "label", "score", None],
        "overshoot": POSITIVE,
        "censored": ["keep", "inf", "nan", "drop", None],
        "max_iter": INTEGERS,
    },
    "BiasedExtrapolationSampler": {
        **NETWORK,
        "sampling_strategy": [
            "auto",
            "all",
            "minority",
            "not minority",
            0.5,
            1.0,
            2.0,
            -1.0,
            np.nan,
        ]
        + [{0: 20, 1: 20}, {"no": 15}, {0: 1}, {9: 9}, {}, "most", None, lambda y: {y[0]: 30}, 3],
        "class_pairs": ["nearest", "one-to-one", {}, {0: 1}, {0: [1, 2]}, {0: 0}, {9: 0}, {0: []}]
        + ["any", None, 3],
        "instance_pairing": ["one-to-one", "nearest", "nearest-majority", "random", None],
        "neighbors": [*LARGE, *SEARCHES],
        "bias": ["asymmetric", "bottom", "top", "random", "dbr", "left", None],
        "placement": ["boundary", "spread", "center", None],
        "within_class": SHARES,
        "settings": SETTINGS,
    },
    "LogitAdjustedClassifier": {
        **NETWORK,
        "tau": [*POSITIVE, "auto"],
        "prior": [None, [0.5, 0.5], [0.2, 0.3, 0.5], [1, 0, 0], [-1, 1, 1], [np.nan, 1, 1], 3],
        "cv": [2, 3, 1, 10**6, "folds", None, [([0, 1], [2])]],
    },
    "BiasedExtrapolationClassifier": {
        **NETWORK,
        **LAYER,
        "sampler": [None, "passthrough", RandomOverSampler(), SMOTE(k_neighbors=1), "none", 3]
        + [RandomUnderSampler(), RandomOverSampler],
        "head": [None, LogisticRegression(max_iter=5), GaussianNB(), LinearRegression(), 3],
        "n_iter": INTEGERS,
        "growth": [*SHARES, 1e10],
        "epochs_per_iter": INTEGERS,
        "stopping": ["recall", None, "loss", 3],
        "validation_fraction": SHARES,
    },
}
