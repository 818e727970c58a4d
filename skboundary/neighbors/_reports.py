"""Reports of LatentKNNClassifier: explanations, and a diagnosis."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import pearsonr
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from skboundary._device import to_numpy
from skboundary._validation import check_targets
from skboundary.functional.latent_mixing import project_between_means
from skboundary.functional.out_of_distribution import head_distances
from skboundary.neighbors._bank import BLOCK, Bank, Found
from skboundary.neighbors._votes import neighbor_weights, resolve_vote
from skboundary.networks._labels import encode_labels


class ReportsMixin:
    """`explain` and `diagnose` of `LatentKNNClassifier`."""

    n_neighbors: int
    query_weight: float
    average: str
    weights: Any
    query_transforms: Any
    verbose: int
    classes_: NDArray[Any]
    neighbors_: Any
    _bank: Bank
    _codes: NDArray[np.intp] | None
    _check: Callable[[Any], Any]
    _collect: Callable[[Any, int], Found]
    _check_n_neighbors: Callable[[int], None]
    _validate: Callable[..., None]
    _validate_params: Callable[[], None]

    def explain(self, X: ArrayLike | None = None) -> Bunch:
        """Show the neighbors behind each prediction.

        A training sample in X is its own nearest neighbor, as in `predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            If None, the training samples; a sample is not considered its own neighbor.

        Returns
        -------
        explanation : Bunch
            `indices`, `distances`, `labels` (those given to fit, None without y) and `weights`
            of shape (n_samples, k); `outputs` (n_samples, k, n_classes) of the neighbors;
            `query_outputs` (n_samples, n_classes) and `query_weight` of the sample itself;
            `query_proba` (n_samples, n_classes), the probabilities without neighbors; `proba`
            (n_samples, n_classes), as from `predict_proba`. The weights of a sample and its
            neighbors sum to 1. With ``contribute="labels"`` it is `labels` that are averaged.
            `agreement` (n_samples,): share of the neighbors whose label is the prediction, None
            without y. `boundary_distance` (n_samples,): distance in the latent space to the
            nearest boundary of the class that the network alone predicts (a lower bound where
            activations have limits such as 0), None if no linear layer maps latent vectors to
            logits.
        """
        check_is_fitted(self)
        self._validate_params()
        w, k, vote = self.query_weight, self.n_neighbors, resolve_vote(self, self._codes)
        if X is None:
            found = Found.joined(self._bank.own_blocks(k))
        else:
            found = self._collect(self._check(X), k)
        weights = neighbor_weights(found.distances, self.weights)
        shares = np.full(found.indices.shape, 1 / k) if weights is None else to_numpy(weights)
        codes = None if self._codes is None else self._codes[found.indices]
        proba = to_numpy(self._bank.mixed(found, vote))
        return Bunch(
            indices=found.indices,
            distances=found.distances,
            labels=None if codes is None else self.classes_[codes],
            outputs=to_numpy(self._bank.neighbor_outputs(found.indices, self.average)),
            weights=(1 - w) * shares,
            query_outputs=to_numpy(self._bank.outputs(found.logits, self.average)),
            query_weight=w,
            query_proba=to_numpy(self._bank.outputs(found.logits, "proba")),
            proba=proba,
            agreement=None if codes is None else (codes == proba.argmax(1)[:, None]).mean(1),
            boundary_distance=nearest_boundary_distance(self._bank, found),
        )

    def diagnose(self, X: ArrayLike | None = None, y: ArrayLike | None = None) -> Bunch:
        """Relate neighbors, distances and errors, as in section 3.2 of the paper.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...), default=None
            If None, the training samples; a sample is not considered its own neighbor.
        y : array-like of shape (n_samples,), default=None
            True labels of X; omitted together with X.

        Returns
        -------
        diagnosis : Bunch
            `purity` (n_samples,): number of the k neighbors with the label of the sample. Training
            samples with a low purity are probably labeled wrongly.
            `mean_distance` (n_samples,): mean distance to the k neighbors.
            `correlation`, `p_value`: Pearson correlation of the two, and its p-value.
            `same_prediction`: share of samples whose prediction the neighbors do not change.
            `distance_correct`, `distance_wrong`, `distance_changed`: mean of `mean_distance`
            over samples that the base network predicts correctly, incorrectly, and over those
            whose prediction the neighbors change (NaN if there are none).
            `changed` (n_samples,): mask of the latter.
            `projections` (n_samples, n_classes): position on the line from the mean of each
            class (0) to the nearest other class mean (1), see `nearest_class` (n_classes,).

        Raises
        ------
        ValueError
            If y was not given to fit, or X is given without y.
        """
        check_is_fitted(self)
        if self._codes is None:
            raise ValueError("diagnose needs the labels of the training samples: pass y to fit.")
        k, bank = self.n_neighbors, self._bank
        if X is None:
            self._validate_params()
            codes, blocks = self._codes, bank.own_blocks(k)
        else:
            X = self._check(X)
            y = check_targets(self, X, y)
            if y is None:
                raise ValueError(
                    "diagnose needs the labels of X: pass y as well, or neither for the training "
                    "samples."
                )
            codes = encode_labels(y, self.classes_)
            self._check_n_neighbors(k)
            blocks = bank.blocks(X, k, self.query_transforms, self.verbose)
        metric = getattr(self.neighbors_, "metric", None)  # which may have been set since fit
        squared = getattr(self.neighbors_, "effective_metric_", metric) == "sqeuclidean"
        vote = resolve_vote(self, self._codes)
        means = bank.class_means(self._codes, len(self.classes_))
        parts = []
        for found in blocks:
            mixed = bank.mixed(found, vote)
            projections, nearest = project_between_means(found.latent, means)
            near = np.sqrt(found.distances) if squared else found.distances
            of_base, of_mixed = to_numpy(found.logits.argmax(1)), to_numpy(mixed.argmax(1))
            parts.append((found.indices, near, of_base, of_mixed, to_numpy(projections)))
        indices, distances, base, changed, positions = map(np.concatenate, zip(*parts, strict=True))
        return Bunch(
            **diagnosis(
                codes=codes,
                neighbor_codes=self._codes[indices],
                distances=distances,
                base=base,
                mixed=changed,
            ),
            projections=positions,
            nearest_class=self.classes_[to_numpy(nearest)],
        )


def nearest_boundary_distance(bank: Bank, found: Found) -> NDArray[np.float64] | None:
    """Distances (n,) in the latent space to the nearest boundary; None without a linear head."""
    parts = []
    for latent, logits in zip(found.latent.split(BLOCK), found.logits.split(BLOCK), strict=True):
        head = bank.head(latent, logits)
        if head is None:
            return None
        parts.append(head_distances(latent, *head).amin(1))
    return to_numpy(torch.cat(parts))


def diagnosis(
    *,
    codes: NDArray[np.intp],
    neighbor_codes: NDArray[np.intp],
    distances: NDArray[Any],
    base: NDArray[np.intp],
    mixed: NDArray[np.intp],
) -> dict[str, Any]:
    """Relate neighbors, distances and errors; see `LatentKNNClassifier.diagnose`.

    Parameters
    ----------
    codes, base, mixed : ndarray of shape (n,)
        True class, prediction of the base network, and prediction after averaging, as columns.
    neighbor_codes, distances : ndarray of shape (n, k)
    """
    purity, near = (neighbor_codes == codes[:, None]).sum(1), distances.mean(1)
    changed = mixed != base
    constant = np.ptp(purity) == 0 or np.ptp(near) == 0
    correlation, p_value = (np.nan, np.nan) if constant else pearsonr(purity, near)

    def mean_over(mask: NDArray[np.bool_]) -> float:
        return float(near[mask].mean()) if mask.any() else float("nan")

    return dict(
        purity=purity,
        mean_distance=near,
        correlation=float(correlation),
        p_value=float(p_value),
        same_prediction=float(1 - changed.mean()),
        distance_correct=mean_over(base == codes),
        distance_wrong=mean_over(base != codes),
        distance_changed=mean_over(changed),
        changed=changed,
    )
