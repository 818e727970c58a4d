"""What `LatentKNNClassifier.sweep` and `LatentKNNClassifier.diagnose` report."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid
from sklearn.utils import Bunch
from torch import Tensor

from skboundary._device import to_numpy
from skboundary.functional.latent_mixing import class_means, project_between_means


class _FixedOutputs(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose probabilities are known, for scorers."""

    def __init__(self, classes: NDArray[Any], proba: NDArray[Any]) -> None:
        self.classes = classes
        self.proba = proba
        self.classes_ = classes

    def fit(self, X: Any, y: Any) -> _FixedOutputs:
        return self

    def predict_proba(self, X: Any) -> NDArray[Any]:
        return self.proba

    def predict(self, X: Any) -> NDArray[Any]:
        return self.classes_[self.proba.argmax(1)]


def score_grid(
    proba: Callable[..., NDArray[Any]],
    grid: dict[str, list[Any]],
    classes: NDArray[Any],
    X: Any,
    y: NDArray[Any],
    scoring: Any,
) -> dict[str, Any]:
    """Score the probabilities of every setting.

    Parameters
    ----------
    proba : callable
        Takes one setting as keywords, returns (n_samples, n_classes).
    grid : dict of lists
    classes : ndarray of shape (n_classes,)
    X, y : what the scorer is given
    scoring : str, callable or None

    Returns
    -------
    results : dict
        In the form of `cv_results_` for a single split.
    """
    params = list(ParameterGrid(grid))
    scores = np.empty(len(params))
    for i, setting in enumerate(params):
        fixed = _FixedOutputs(classes, proba(**setting))
        scores[i] = check_scoring(fixed, scoring=scoring)(fixed, X, y)
    return {
        **{f"param_{name}": np.ma.array([p[name] for p in params]) for name in sorted(grid)},
        "params": params,
        "split0_test_score": scores,
        "mean_test_score": scores,
        "std_test_score": np.zeros_like(scores),
        "rank_test_score": rankdata(-scores, method="min").astype(np.int32),
    }


def diagnosis(
    *,
    latent: Tensor,
    codes: NDArray[np.intp],
    neighbor_codes: NDArray[np.intp],
    distances: NDArray[Any],
    bare: NDArray[np.intp],
    mixed: NDArray[np.intp],
    train_latent: Tensor,
    train_codes: NDArray[np.intp],
    classes: NDArray[Any],
) -> Bunch:
    """Relate neighbors, distances and mistakes; see `LatentKNNClassifier.diagnose`.

    Parameters
    ----------
    latent : Tensor of shape (n, d)
    codes, bare, mixed : ndarray of shape (n,)
        The true class, the network's, and that after averaging, as column numbers.
    neighbor_codes, distances : ndarray of shape (n, k)
    train_latent : Tensor of shape (n_train, d)
    train_codes : ndarray of shape (n_train,)
    classes : ndarray of shape (n_classes,)
    """
    purity, near = (neighbor_codes == codes[:, None]).sum(1), distances.mean(1)
    changed = mixed != bare
    constant = np.ptp(purity) == 0 or np.ptp(near) == 0
    correlation, p_value = (np.nan, np.nan) if constant else pearsonr(purity, near)
    means = class_means(train_latent, torch.from_numpy(train_codes), len(classes))
    projections, nearest = project_between_means(latent, means)

    def mean_over(mask: NDArray[np.bool_]) -> float:
        return float(near[mask].mean()) if mask.any() else float("nan")

    return Bunch(
        purity=purity,
        mean_distance=near,
        correlation=float(correlation),
        p_value=float(p_value),
        same_prediction=float(1 - changed.mean()),
        distance_correct=mean_over(bare == codes),
        distance_wrong=mean_over(bare != codes),
        distance_changed=mean_over(changed),
        changed=changed,
        projections=to_numpy(projections),
        nearest_class=classes[to_numpy(nearest)],
    )
