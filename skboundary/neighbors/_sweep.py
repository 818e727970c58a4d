"""Scores of LatentKNNClassifier over a grid of its parameters."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skboundary._validation import check_targets
from skboundary.neighbors._bank import Bank, fit_search
from skboundary.neighbors._choice import (
    Grid,
    Space,
    Spaces,
    as_cv_results,
    find_in,
    grid_of,
    make_spaces,
    score_grid,
    warn_of_seen_samples,
)
from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.neighbors._votes import resolve_vote
from skboundary.networks import Network
from skboundary.networks._labels import encode_labels
from skboundary.networks._several_layers import several_layers


class SweepMixin:
    """`sweep` of `LatentKNNClassifier`."""

    neighbors: Any
    query_transforms: Any
    verbose: int
    n_samples_fit_: int
    device_: Any
    classes_: NDArray[Any]
    neighbors_: Any
    _bank: Bank
    _codes: NDArray[np.intp] | None
    _check: Callable[[Any], Any]
    _check_n_neighbors: Callable[[int], None]
    _validate: Callable[..., None]

    def sweep(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        n_neighbors: Iterable[int] = (1, 2, 3, 8),
        query_weight: Iterable[float] = (0.0, 0.52, 0.76, 0.88, 0.94, 0.97, 1.0),
        average: Iterable[str] = ("proba",),
        layer: Iterable[Any] | None = None,
        metric: Iterable[str] | None = None,
        X_train: ArrayLike | None = None,
        scoring: Any = None,
    ) -> dict[str, Any]:
        """Score all combinations of parameters in one pass of the network.

        Use data that the network was not trained on: its predictions for its own training
        samples are near perfect.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,)
        n_neighbors, query_weight, average : iterable
            Values to combine, as allowed for the parameter.
        layer, metric : iterable, default=None
            Values of these parameters, which take effect in `fit`. None is that of `fit`.
        X_train : array-like of shape (n_samples_fit, ...), default=None
            The samples of `fit`, which the classifier does not keep, to run several layers.
        scoring : str or callable, default=None
            A scikit-learn scorer; None is accuracy.

        Returns
        -------
        results : dict
            In the form of `GridSearchCV.cv_results_` for a single split: `params`, `param_*`,
            `split0_test_score`, `mean_test_score`, `std_test_score`, `rank_test_score`. Equal
            scores share a rank, and the settings are in the order of `ParameterGrid`.

        Raises
        ------
        ValueError
            For a value that is not allowed for the parameter, or no values at all, for a label
            that is not in `classes_`, and if one of `layer` and `X_train` lacks the other.

        Warns
        -----
        SeenSamplesWarning
            If X seems to have been seen in training.

        See Also
        --------
        LatentKNNClassifierCV : Chooses the setting in `fit`.
        """
        check_is_fitted(self)
        X = self._check(X)
        y = check_targets(self, X, y)
        if y is None:
            raise ValueError("sweep compares predictions with the labels of X: give y.")
        codes = encode_labels(y, self.classes_)
        given = {
            "n_neighbors": n_neighbors,
            "query_weight": query_weight,
            "average": average,
            "layer": layer,
            "metric": metric,
        }
        wanted = {name: values for name, values in given.items() if values is not None}
        grid = grid_of(wanted, self._validate)
        k = grid["n_neighbors"][-1]
        self._check_n_neighbors(k)
        network, spaces = self._spaces(grid, X_train)
        found = find_in(spaces, network, X, k, self.query_transforms, self.verbose)
        warn_of_seen_samples(spaces, found, codes)
        vote_of = partial(resolve_vote, self, self._codes)
        scores = score_grid(grid, spaces, found, vote_of, self.classes_, X, y, scoring)
        return as_cv_results(grid, scores[None])

    def _spaces(self, grid: Grid, X_train: Any) -> tuple[Network, Spaces]:
        """Network to run, and latent spaces of the layers and metrics of a sweep."""
        bank, own = self._bank, getattr(self.neighbors_, "effective_metric_", "")
        layers, metrics = grid.get("layer"), grid.get("metric", [own])
        if self.neighbors is not None and "metric" in grid:
            raise ValueError(
                f"metric has no effect on neighbors={self.neighbors!r}. Omit metric, or fit with "
                "neighbors=None."
            )
        if (layers is None) != (X_train is None):
            raise ValueError(
                "sweep runs the samples of fit again for other layers: pass both layer and "
                "X_train, or neither."
            )
        if layers is not None:
            return self._spaces_of_layers(layers, metrics, X_train)
        spaces: Spaces = {}
        for metric in metrics:
            search = self.neighbors_
            if metric != own:
                search = TorchNearestNeighbors(metric=metric, device=self.device_)
                search = fit_search(search, bank.stored)
            of_metric = Bank(bank.stored, search, bank.link, bank.network)
            spaces[None, metric] = Space(slice(None), of_metric)
        return bank.network, spaces

    def _spaces_of_layers(
        self, layers: list[Any], metrics: list[str], X_train: Any
    ) -> tuple[Network, Spaces]:
        if self.neighbors is not None:
            raise ValueError(
                "sweep indexes other layers with TorchNearestNeighbors, and not with "
                f"neighbors={self.neighbors!r}. Omit layer, or fit with neighbors=None."
            )
        X_train, network = self._check(X_train), several_layers(self._bank.network, layers)
        spaces, stored = make_spaces(network, X_train, layers, metrics)
        fitted = np.asarray(self._bank.stored.outputs)
        scale = np.abs(fitted).max()
        if fitted.shape != stored.outputs.shape or (
            np.abs(fitted - stored.outputs).max() > 1e-2 * scale
        ):
            raise ValueError(
                f"X_train has {len(stored.outputs)} samples whose outputs are not those of the "
                f"{self.n_samples_fit_} samples of fit. Pass the samples of fit, in their order."
            )
        return network, spaces
