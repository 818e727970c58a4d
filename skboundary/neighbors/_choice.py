"""Scores of many settings of LatentKNNClassifier from one pass of the network."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid

from skboundary._callbacks import pass_task
from skboundary._device import to_numpy
from skboundary.exceptions import SeenSamplesWarning, warn_caller
from skboundary.neighbors._bank import Bank, Found, Stored, Transforms, merged, passes
from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.neighbors._votes import Vote
from skboundary.networks import Network
from skboundary.networks._several_layers import single_layers

Grid = dict[str, list[Any]]

_ALL_RIGHT, _ENOUGH = 0.995, 200  # accuracy, of that many samples, that suggests seen samples


def values_of(name: str, values: Any, validate: Callable[..., None]) -> list[Any]:
    """Check the values of one parameter.

    Raises
    ------
    ValueError
        If they are not a list, or empty, or if `validate` does not allow one.
    """
    if isinstance(values, str) or not np.iterable(values):
        raise ValueError(f"{name}={values!r} is not a list of values: pass [{values!r}].")
    values = [*values]
    if not values:
        raise ValueError(f"{name} is empty: omit it for the default values.")
    for value in values:
        validate(**{name: value})
    return values


def grid_of(given: dict[str, Any], validate: Callable[..., None]) -> Grid:
    """Check the values of all parameters, and sort the numbers of neighbors."""
    grid = {name: values_of(name, values, validate) for name, values in given.items()}
    grid["n_neighbors"] = sorted(set(grid["n_neighbors"]))
    return grid


def leave_out(grid: Grid, n_train: int) -> None:
    """Remove numbers of neighbors above the number of training samples.

    Raises
    ------
    ValueError
        If none is left.
    """
    below = [k for k in grid["n_neighbors"] if k <= n_train]
    if not below:
        raise ValueError(
            f"n_neighbors={grid['n_neighbors']} are all above the number of training samples "
            f"of a split, {n_train}. Add a smaller number."
        )
    grid["n_neighbors"] = below


class Space(NamedTuple):
    """A latent space with a distance: the layer and the metric of a setting."""

    columns: slice  # of the latent vectors of the network that runs
    bank: Bank


Spaces = dict[tuple[Hashable, str], Space]  # by layer and metric


class Trained(NamedTuple):
    """A network with its training samples in each latent space."""

    estimator: Any
    network: Any
    spaces: Spaces
    classes: NDArray[Any]
    codes: NDArray[np.intp] | None

    def fitted(self, clf: Any, X: Any) -> Any:
        """Fit a `LatentKNNClassifier` to these samples X, without another pass of the network."""
        bank = self.spaces[clf.layer, clf.metric].bank
        clf._check_X(X, reset=True)
        clf.n_samples_fit_ = len(bank.stored.latent)
        clf.estimator_, clf._network = self.estimator, bank.network
        clf.device_ = bank.network.device
        clf.classes_, clf._codes = self.classes, self.codes
        clf.neighbors_, clf._bank = bank.search.set_params(n_neighbors=clf.n_neighbors), bank
        return clf


def make_spaces(
    network: Network, X: Any, layers: list[Any], metrics: Iterable[str]
) -> tuple[Spaces, Stored]:
    """Run the training samples once, and index their latent vectors for each layer and metric.

    Parameters
    ----------
    network : Network
        With one layer, or from `several_layers`.
    X : array-like of shape (n_train, ...)
    layers : list
        The layers of the network.
    metrics : iterable of str

    Returns
    -------
    spaces : dict of Space
    stored : Stored
        Outputs for X, with the latent vectors of all layers side by side.
    """
    with pass_task("run-network", network.n_batches(X)):
        stored = Stored(*map(to_numpy, network.latent_and_logits(X)))
    spaces = {}
    for layer, (single, columns) in zip(layers, single_layers(network, X), strict=True):
        part = stored._replace(latent=np.ascontiguousarray(stored.latent[:, columns]))
        for metric in metrics:
            search = TorchNearestNeighbors(metric=metric, device=network.device).fit(part.latent)
            spaces[layer, metric] = Space(columns, Bank(part, search, network.link, single))
    return spaces, stored


def find_in(
    spaces: Spaces, network: Network, X: Any, k: int, transforms: Transforms, verbose: int
) -> dict[tuple[Hashable, str], Found]:
    """Find the k nearest training samples of X in each space, in one pass of the network."""
    parts: dict[Any, list[Found]] = {key: [] for key in spaces}
    block = next(iter(spaces.values())).bank.block_size(X, k, transforms)
    with pass_task("find-neighbors", network.n_batches(X)):
        for latents, logits in passes(network, X, transforms, block, verbose):
            for key, (columns, bank) in spaces.items():
                own = [latent[:, columns].contiguous() for latent in latents]
                near = merged([bank.neighbors(latent, k) for latent in own], k)
                parts[key].append(Found(own[0], logits, *near))
    return {key: Found.joined(found) for key, found in parts.items()}


def warn_of_seen_samples(
    spaces: Spaces, found: dict[tuple[Hashable, str], Found], codes: NDArray[np.intp]
) -> None:
    """Warn if samples to choose on seem to be training samples of the bank or the network.

    Parameters
    ----------
    spaces : dict of Space
    found : dict of Found
        Neighbors of the samples in each space.
    codes : ndarray of shape (n,)
        Labels of the samples, as positions among the classes.
    """
    (_, bank), first = next(iter(spaces.values())), next(iter(found.values()))
    stored = bank.holds(first).mean()
    right = (to_numpy(first.logits.argmax(1)) == codes).mean()
    if stored > 0.5:
        warn_caller(
            f"{stored:.1%} of the samples to choose settings on are among the training samples, "
            "where each is its own neighbor and the network is right by memory. Pass samples that "
            "were in no training.",
            SeenSamplesWarning,
        )
    elif right > _ALL_RIGHT and len(codes) >= _ENOUGH:
        warn_caller(
            f"The base network is right on {right:.1%} of the samples to choose settings on, as it "
            "is on samples that it was trained on, where neighbors seem useless. Pass samples that "
            "were in no training; if these are, little is left to choose.",
            SeenSamplesWarning,
        )


def score_grid(
    grid: Grid,
    spaces: Spaces,
    found: dict[tuple[Hashable, str], Found],
    vote_of: Callable[..., Vote],
    classes: NDArray[Any],
    X: Any,
    y: NDArray[Any],
    scoring: Any,
    **metadata: Any,
) -> NDArray[np.float64]:
    """Score every setting.

    Parameters
    ----------
    grid : dict of lists
        Without "layer" and "metric" if there is one space.
    spaces : dict of Space
    found : dict of Found
        Neighbors of X in each space, at least as many as the largest "n_neighbors".
    vote_of : callable
        Takes `query_weight` and `average`, returns a Vote.
    classes : ndarray of shape (n_classes,)
    X, y : what the scorer is given
    scoring : str, callable or None
    **metadata : dict
        Such as `sample_weight`, for the scorer.

    Returns
    -------
    scores : ndarray of shape (n_settings,)
        In the order of `ParameterGrid`.
    """
    only = next(iter(spaces))
    own = mean = torch.empty(0)
    blank = _FixedOutputs(classes, to_numpy(own))
    score = _accuracy if scoring is None else check_scoring(blank, scoring)
    scores, mean_of = [], None
    for setting in ParameterGrid(grid):
        key = setting.get("layer", only[0]), setting.get("metric", only[1])
        bank, k = spaces[key].bank, setting["n_neighbors"]
        vote = vote_of(query_weight=setting["query_weight"], average=setting["average"])
        if mean_of != (key, k, vote.average):  # the weight varies fastest
            own = bank.outputs(found[key].logits, vote.average)
            mean = bank.mean_of_neighbors(found[key].nearest(k), vote)
            mean_of = key, k, vote.average
        fixed = _FixedOutputs(classes, to_numpy(bank.mix(own, mean, vote)))
        scores.append(score(fixed, X, y, **metadata))
    return np.array(scores, dtype=np.float64)


def _accuracy(clf: Any, X: Any, y: NDArray[Any], sample_weight: Any = None) -> Any:
    """`clf.score`; without weights checks of y would take most of the time of a setting."""
    if sample_weight is None:
        return np.mean(clf.predict(X) == y)
    return clf.score(X, y, sample_weight)


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


def as_cv_results(grid: Grid, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Arrange scores of shape (n_splits, n_settings) in the form of `cv_results_`."""
    params, mean = list(ParameterGrid(grid)), scores.mean(0)
    columns: dict[str, Any] = {
        name: np.ma.array([p[name] for p in params], dtype=object if name == "layer" else None)
        for name in sorted(grid)
    }
    return {
        **{f"param_{name}": column for name, column in columns.items()},
        "params": params,
        **{f"split{i}_test_score": split for i, split in enumerate(scores)},
        "mean_test_score": mean,
        "std_test_score": scores.std(0),
        "rank_test_score": rankdata(-mean, method="min").astype(np.int32),
    }


def best_of(results: dict[str, Any]) -> int:
    """The setting of the best score; of equals the one nearest to the base network."""
    ranks, params = results["rank_test_score"], results["params"]
    return min(range(len(params)), key=lambda i: (ranks[i], -params[i]["query_weight"]))
