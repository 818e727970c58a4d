"""Results of the sampler and of the classifier against arrays recorded in an earlier version.

    python tests/over_sampling/test_recorded.py

records them anew. Do that only after a change that is meant to change results.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BiasSettings,
    FrozenNetwork,
)

RECORDED = Path(__file__).parent / "recorded.npz"
PAPER = {"placement": "boundary", "within_class": 0.0}

pytestmark = pytest.mark.filterwarnings("ignore::skboundary.exceptions.FewParentsWarning")


def data(n_classes):
    """Overlapping classes of 60, 25 and 12 samples."""
    y = np.repeat([0, 1, 2], [60, 25, 12])[: 85 if n_classes == 2 else 97]
    X = np.random.RandomState(n_classes).normal(size=(len(y), 3))
    X[:, 0] += 1.3 * (y == 1)
    X[:, 1] += 1.5 * (y == 2)
    return X, y


def linear(n_classes):
    """A classifier of fixed coefficients, which no solver rounds."""
    model = LogisticRegression()
    coef = np.array([[-1.5, -0.4, 0.1], [1.6, -0.7, 0.0], [-0.3, 1.8, -0.2]])
    model.coef_, model.intercept_ = coef[:n_classes], np.array([0.9, -0.2, -0.6])[:n_classes]
    if n_classes == 2:
        model.coef_, model.intercept_ = coef[1:2] - coef[:1], np.array([-1.1])
    model.classes_, model.n_features_in_ = np.arange(n_classes), 3
    return FrozenEstimator(model)


class Curved(nn.Module):
    """Two logits with a curved boundary."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 2).double()
        self.last.load_state_dict(
            {
                "weight": torch.tensor([[0.0, 0.0], [1.0, -0.25]]),
                "bias": torch.tensor([0.0, -0.6]),
            }
        )

    def forward(self, x):
        return self.last(torch.stack([x[:, 0] ** 3 + 2 * x[:, 0], x[:, 1] ** 2], 1))


BIASES = ("asymmetric", "bottom", "top", "random", "dbr")
PAIRINGS = ("one-to-one", "nearest", "nearest-majority")
# name: estimator, number of classes, parameters of the sampler, of its settings
SAMPLER = {
    "default": (None, 2, {}, {}),
    "default, three classes": (None, 3, {}, {}),
    "default, Algorithm 1": (None, 3, {}, {"class_specific": "threshold", "tau": 0.73}),
    "default, Algorithm 2": (None, 3, {}, {"class_specific": "proportional"}),
    "paper": ("linear", 2, PAPER, {}),
    **{bias: ("linear", 2, {**PAPER, "bias": bias}, {}) for bias in BIASES[1:]},
    **{how: ("linear", 2, {"instance_pairing": how}, {}) for how in PAIRINGS},
    "two neighbors": ("linear", 2, {"neighbors": 2, "instance_pairing": "nearest"}, {}),
    "within the class": ("linear", 2, {"within_class": 1.0}, {}),
    "gamma": ("linear", 2, PAPER, {"gamma": 0.3}),
    "fraction": ("linear", 2, PAPER, {"fraction": 0.8}),
    "p_min": ("linear", 2, PAPER, {"p_min": 0.3, "gamma": -1.0}),
    "segment": ("linear", 2, PAPER, {"distance_ratio": "segment"}),
    "margin": ("linear", 2, PAPER, {"distance_ratio": "margin", "gamma": -0.1}),
    "three classes": ("linear", 3, PAPER, {}),
    "Algorithm 1": ("linear", 3, PAPER, {"class_specific": "threshold", "tau": 0.75}),
    "Algorithm 2": ("linear", 3, {}, {"class_specific": "proportional"}),
    "class pairs": ("linear", 3, {"class_pairs": {2: [0, 1]}}, {}),
    "one-to-one classes": ("linear", 3, {"class_pairs": "one-to-one"}, {}),
    "curved": ("curved", 2, PAPER, {}),
    "curved, spread": ("curved", 2, {}, {"fraction": 0.9}),
    "curved, dbr": ("curved", 2, {"bias": "dbr"}, {}),
    "black box": ("black box", 2, {}, {}),
    "repeated pairs": ("linear", 2, {**PAPER, "sampling_strategy": {1: 150}}, {"fraction": 0.03}),
}
CLASSIFIER = {
    "rounds": ({"stopping": None}, {}),
    "stopping": ({"n_iter": 8, "growth": 0.4}, {}),
    "rounds, Algorithm 1": ({"stopping": None}, {"class_specific": "threshold", "tau": 0.85}),
    "rounds, Algorithm 2": ({"stopping": None}, {"class_specific": "proportional"}),
    "rounds, refitted": ({"stopping": None, "head": LogisticRegression()}, {}),
}


def resample(estimator, n_classes, params, settings):
    X, y = data(n_classes)
    kinds = {
        None: lambda: None,
        "linear": lambda: linear(n_classes),
        "curved": lambda: FrozenNetwork(Curved()),
        "black box": lambda: FrozenEstimator(GaussianNB().fit(X, y)),
    }
    sampler = BiasedExtrapolationSampler(
        kinds[estimator](), random_state=0, settings=BiasSettings(**settings), **params
    )
    X_new, y_new = sampler.fit_resample(X, y)
    return {
        "labels": y_new[len(y) :].astype(np.int8),
        "parents": sampler.parents_.astype(np.int8),
        "points": X_new[len(X) :],
        "probabilities": sampler.probabilities_,
    }


def fit(params, settings):
    X, y = data(3)
    sampler = BiasedExtrapolationSampler(settings=BiasSettings(**settings))
    clf = BiasedExtrapolationClassifier(
        linear(3),
        **{"sampler": sampler, "n_iter": 4, "growth": 0.2, "random_state": 0, **params},
    ).fit(X, y)
    return {
        "rounds": np.array([*clf.n_rounds_per_class_.values(), clf.n_iter_]),
        "samples": np.array([entry["n_samples"] for entry in clf.history_]),
        "reduction": np.array(clf.cost_reduction_),
        "probabilities": clf.predict_proba(X),
    }


def results():
    """Yield the name of each array and how to make it."""
    for name, case in SAMPLER.items():
        yield name, lambda case=case: resample(*case)
    for name, case in CLASSIFIER.items():
        yield name, lambda case=case: fit(*case)


@pytest.mark.parametrize(("name", "make"), [pytest.param(n, m, id=n) for n, m in results()])
def test_results_are_those_recorded(name, make):
    with np.load(RECORDED) as recorded:
        for part, found in make().items():
            expected = recorded[f"{name}/{part}"]
            if part in ("labels", "parents", "rounds", "samples"):
                np.testing.assert_array_equal(found, expected)
            else:  # a solver, and with it the default estimator, depends on the BLAS
                tol = 1e-4 if name.startswith(("default", "rounds, refitted")) else 1e-9
                np.testing.assert_allclose(found, expected, rtol=tol, atol=tol)


if __name__ == "__main__":
    arrays = {f"{n}/{part}": array for n, make in results() for part, array in make().items()}
    np.savez_compressed(RECORDED, **arrays)
