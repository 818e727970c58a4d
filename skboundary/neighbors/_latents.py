"""LatentKNNClassifier for latent vectors and outputs that were computed elsewhere."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

from skboundary._bank_folder import BankFolder
from skboundary._device import resolve_device, resolve_dtype, to_numpy, to_tensor
from skboundary._validation import all_or_nothing, check_targets
from skboundary.neighbors._bank import BLOCK, Bank, Stored
from skboundary.neighbors._votes import resolve_vote
from skboundary.networks import Network
from skboundary.networks._collect_bank import Batch, write_batches
from skboundary.networks._labels import encode_labels
from skboundary.networks._latent_batches import (
    LatentBatch,
    check_matrix,
    check_pair,
    checked,
    joined,
    warn_of_probabilities,
)
from skboundary.networks._outputs import softmax

# Parameters that are about a network, with their defaults.
_OF_NETWORK = {"estimator": None, "layer": "auto", "pool": None, "query_transforms": None}
_OF_X = ("estimator_", "input_shape_", "n_features_in_", "feature_names_in_")


class LatentsMixin:
    """Methods of `LatentKNNClassifier` that take latent vectors instead of X."""

    n_neighbors: int
    metric: str
    bank: Any
    query_transforms: Any
    device: Any
    device_: torch.device
    classes_: NDArray[Any]
    n_samples_fit_: int
    _bank: Bank
    _codes: NDArray[np.intp] | None
    _check_n_neighbors: Callable[[int], None]
    _check_search: Callable[[], None]
    _keep: Callable[..., Any]
    _search: Callable[[], Any]
    _network: Network | None
    _columns: NDArray[np.intp] | None
    _validate: Callable[..., None]
    _validate_params: Callable[[], None]

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    def fit_latent(
        self, latent: Any, outputs: Any = None, y: Any = None, *, classes: Any = None
    ) -> Any:
        """Index latent vectors and outputs that were computed elsewhere; no network runs.

        Parameters
        ----------
        latent : array-like of shape (n_samples, n_latent), or iterable of batches
            Latent vectors of the training samples. An iterable yields tuples (latent, outputs) or
            (latent, outputs, y), and is passed alone. With `bank` it need not fit into memory.
        outputs : array-like of shape (n_samples, n_classes)
            Logits, whose softmax are probabilities. Columns are in the order of `classes`. If only
            probabilities p are known, pass ``np.log(np.maximum(p, 1e-12))``.
        y : array-like of shape (n_samples,), default=None
            Labels, for `explain` and `diagnose`.
        classes : array-like of shape (n_classes,), default=None
            The class of each column of `outputs`. None is the sorted labels in y, or without y the
            numbers 0 to n_classes - 1.

        Returns
        -------
        self : LatentKNNClassifier

        Raises
        ------
        ValueError
            If the arrays do not match, or contain NaN or infinity, if there are not as many
            classes as columns, if y contains a label that is not among them, if there are fewer
            samples than neighbors, or if `estimator`, `layer`, `pool` or `query_transforms` is
            set, because there is no network.
        """
        for name, default in _OF_NETWORK.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} has no effect on latent vectors that were "
                    f"computed elsewhere. Leave {name} at its default, {default!r}."
                )
        self._check_search()
        batches: Iterable[LatentBatch]
        if outputs is None and self.bank is not None:  # which need not fit into memory
            parts = checked(latent)
            whole = next(parts)
            batches = chain([whole], parts)
            if whole.y is not None and classes is None:
                raise ValueError(
                    "The labels of all batches are not known when the first one is written to "
                    "bank. Pass classes, one for each column of outputs."
                )
        else:
            whole = _all_samples(latent, outputs, y)
            batches = (
                LatentBatch(*(None if a is None else a[part] for a in whole))
                for part in gen_batches(len(whole.latent), BLOCK)
            )
        resolve_vote(self, whole.y)
        y = None if whole.y is None else check_targets(self, whole.latent, whole.y)
        given = _classes_of(y, classes, whole.outputs.shape[1])
        columns = np.argsort(given, kind="stable")
        self.classes_, self.device_ = given[columns], resolve_device(self.device)
        for name in _OF_X:
            vars(self).pop(name, None)
        self._network = None
        stored: Any
        if self.bank is None:
            stored = Stored(self._floats(whole.latent), self._floats(whole.outputs[:, columns]))
            self._codes = None if y is None else encode_labels(y, self.classes_)
        else:
            stored = self._write_latents(batches, columns)
            self._codes = None if stored.labels is None else np.asarray(stored.labels)
        self.n_samples_fit_ = len(stored.latent)
        self._check_n_neighbors(self.n_neighbors)
        return self._keep(stored, self._search(), softmax, columns)

    def _write_latents(
        self, batches: Iterable[LatentBatch], columns: NDArray[np.intp]
    ) -> BankFolder:
        """Write batches to the bank of the parameters, or compare them with what it holds."""
        bank = BankFolder.open_or_create(
            self.bank, metric=self.metric, link="softmax", classes=self.classes_, digest=None
        )

        def as_stored(part: LatentBatch, number: int) -> Batch:
            codes = None if part.y is None else encode_labels(part.y, self.classes_)
            arrays = self._floats(part.latent), self._floats(part.outputs)[:, columns]
            return Batch(arrays, codes, len(part.latent), f"Batch {number}")

        return write_batches(
            bank,
            (as_stored(part, i) for i, part in enumerate(batches)),
            lambda batch: LatentBatch(batch.inputs[0], batch.inputs[1], batch.y),
        )

    def predict_latent(self, latent: ArrayLike, outputs: ArrayLike) -> NDArray[Any]:
        """Predict classes from latent vectors and outputs.

        Parameters
        ----------
        latent : array-like of shape (n_samples, n_latent)
        outputs : array-like of shape (n_samples, n_classes)
            As in `predict_proba_latent`.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        best = self.predict_proba_latent(latent, outputs).argmax(1)
        return self.classes_[best]

    def predict_proba_latent(self, latent: ArrayLike, outputs: ArrayLike) -> NDArray[Any]:
        """Predict class probabilities from latent vectors and outputs.

        Parameters
        ----------
        latent : array-like of shape (n_samples, n_latent)
        outputs : array-like of shape (n_samples, n_classes)
            Logits, as in `fit_latent` and with columns in the same order; after `fit` in the order
            of `classes_`.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Columns follow `classes_`.

        Raises
        ------
        ValueError
            If the arrays do not match each other or those of the training samples, or contain NaN
            or infinity, or if `query_transforms` is set, which transforms X.
        """
        check_is_fitted(self)
        k, vote = self.n_neighbors, resolve_vote(self, self._codes)
        z, logits, _ = check_pair(latent, outputs)
        self._check_latent(z, k)
        if logits.shape[1] != len(self.classes_):
            raise ValueError(
                f"outputs has {logits.shape[1]} columns, but there are {len(self.classes_)} "
                "classes. Pass one logit for each class."
            )
        columns = getattr(self, "_columns", None)
        logits = logits if columns is None else logits[:, columns]
        blocks = self._bank.latent_blocks(self._floats(z), self._floats(logits), k)
        return np.concatenate([to_numpy(self._bank.mixed(found, vote)) for found in blocks])

    def kneighbors_latent(
        self, latent: ArrayLike, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """Find the training samples nearest to latent vectors.

        Parameters
        ----------
        latent : array-like of shape (n_samples, n_latent)
        n_neighbors : int, default=None
            Number of neighbors; None is the parameter of the estimator.
        return_distance : bool, default=True
            Whether to return the distances.

        Returns
        -------
        distances : ndarray of shape (n_samples, n_neighbors)
            Distances to the neighbors, only if `return_distance` is True.
        indices : ndarray of shape (n_samples, n_neighbors)
            Indices of the training samples.

        Raises
        ------
        ValueError
            As in `predict_proba_latent`.
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        self._validate(n_neighbors=k)
        z = check_matrix(latent, "latent")
        self._check_latent(z, k)
        distances, indices = self._bank.neighbors(torch.from_numpy(self._floats(z)), k)
        return (distances, indices) if return_distance else indices

    def _check_latent(self, latent: NDArray[Any], k: int) -> None:
        self._validate_params()  # which may have been set since fit
        self._check_n_neighbors(k)
        if self.query_transforms:
            raise ValueError(
                "query_transforms transform X, and there are only latent vectors here. Set "
                "query_transforms=None."
            )
        width = self._bank.stored.latent.shape[1]
        if latent.shape[1] != width:
            raise ValueError(
                f"latent has {latent.shape[1]} columns, but the training samples have {width}. "
                "Pass activations of the same layer."
            )

    def _floats(self, values: NDArray[Any]) -> NDArray[Any]:
        """Convert numbers to the dtype of a network that gives them; a memory map is not read."""
        return to_numpy(to_tensor(values, dtype=resolve_dtype(values, self.device_)))


def _all_samples(latent: Any, outputs: Any, y: Any) -> LatentBatch:
    """The arguments of `fit_latent` as arrays of all samples."""
    if outputs is not None:
        whole = check_pair(latent, outputs, y)
        warn_of_probabilities(whole.outputs)
        return whole
    if y is not None or hasattr(latent, "shape"):
        raise ValueError(
            "outputs is missing: pass the logits of the network for the same samples. Only an "
            "iterable of batches (latent, outputs, y) is passed alone."
        )
    return joined(checked(latent))


def _classes_of(y: NDArray[Any] | None, classes: Any, n_outputs: int) -> NDArray[Any]:
    """The class of each column of the outputs."""
    if classes is None:
        classes = np.arange(n_outputs) if y is None else np.unique(y)
    given = to_numpy(classes) if isinstance(classes, torch.Tensor) else np.asarray(classes)
    if given.shape != (n_outputs,):
        raise ValueError(
            f"outputs has {n_outputs} columns, but there are {given.size} classes: "
            f"{given.ravel()[:10].tolist()}. Pass classes, one for each column and in its order."
        )
    if len(set(given.tolist())) < n_outputs:
        raise ValueError(
            f"classes={given.tolist()} contains duplicates. Pass another class for each column."
        )
    return given
