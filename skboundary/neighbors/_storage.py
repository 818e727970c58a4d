"""Where LatentKNNClassifier keeps its training samples, in memory or in a bank on disk."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import _fit_context

from skboundary._bank_folder import BankFolder
from skboundary._batching import BATCH_BYTES
from skboundary._callbacks import pass_task
from skboundary._device import resolve_device, to_numpy
from skboundary._plain import State
from skboundary._validation import all_or_nothing, check_targets
from skboundary.neighbors._bank import BLOCK, Bank, Stored, fit_search
from skboundary.neighbors._bank_writing import sample_form, write_samples
from skboundary.neighbors._exact import TorchNearestNeighbors
from skboundary.networks import Network
from skboundary.networks._digest import digest
from skboundary.networks._factory import is_trained
from skboundary.networks._labels import encode_labels
from skboundary.networks._outputs import LINKS, Link


class StorageMixin:
    """`partial_fit` and `from_bank` of `LatentKNNClassifier`, and the storage behind its `fit`."""

    estimator: Any
    layer: Any
    pool: str | None
    n_neighbors: int
    metric: str
    neighbors: Any
    memory_key: str | None
    device: Any
    verbose: int
    bank: Any
    classes_: NDArray[Any]
    n_samples_fit_: int
    neighbors_: Any
    device_: Any
    _network: Any
    _bank: Bank
    _codes: NDArray[np.intp] | None
    _check: Callable[[Any], Any]
    _check_n_neighbors: Callable[[int], None]
    _trained_network: Callable[[Any, int], tuple[Any, Network]]
    _validate_params: Callable[[], None]
    fit: Callable[..., Any]

    @_fit_context(prefer_skip_nested_validation=False)
    @all_or_nothing()
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike | None = None, classes: Any = None, **fit_params: Any
    ) -> Self:
        """Add training samples; the network is used as it is, and not trained further.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Required if, and only if, the samples before have labels.
        classes : array-like of shape (n_classes,), default=None
            All classes, which the network must know. There is no need to pass them.
        **fit_params : dict
            As in `fit`, in the first call only.

        Returns
        -------
        self : LatentKNNClassifier
            The first call is equivalent to `fit`.

        Raises
        ------
        ValueError
            If y contains a class that the network does not have, if it is missing although the
            samples before have labels or vice versa, if `classes` contains one that the network
            does not have, or if another process has written to the bank.
        TypeError
            If a later call gets `fit_params`.
        """
        if not hasattr(self, "_bank"):
            self.fit(X, y, **fit_params)
        elif given := sorted(k for k, value in fit_params.items() if value is not None):
            raise TypeError(
                f"partial_fit got {given}, but the network is not trained further. "
                "Omit them, or call fit."
            )
        else:
            self._append(X, y)
        unknown = [] if classes is None else np.setdiff1d(classes, self.classes_).tolist()
        if unknown:
            raise ValueError(
                f"classes={np.asarray(classes).tolist()} contains {unknown}, which the network, "
                f"with the classes {self.classes_.tolist()}, does not know. Omit classes."
            )
        return self

    @classmethod
    def from_bank(cls, bank: str | os.PathLike[str], estimator: Any = None, **params: Any) -> Self:
        """Open a bank that `fit` has written, without its training samples.

        Parameters
        ----------
        bank : str or path-like
            The folder.
        estimator : torch.nn.Module, FrozenNetwork or FrozenEstimator, default=None
            The trained classifier that has written the bank. Without it only methods that need no
            network are available: `explain`, `kneighbors`, `diagnose` and `score_samples` without
            X, and those that take latent vectors.
        **params : object
            Other parameters of the classifier. `layer`, `pool` and `metric` are those of the bank
            by default; a `layer` that is a callable must be given.

        Returns
        -------
        classifier : LatentKNNClassifier
            Fitted.

        Raises
        ------
        ValueError
            If the bank is damaged or its fit was interrupted, or if it was written by another
            network, layer or pool, or with another metric.
        """
        folder = BankFolder.open(bank)
        own = {"layer": folder.layer, "pool": folder.pool, "metric": folder.metric}
        params = {name: value for name, value in own.items() if value is not None} | params
        opened = cls(estimator, bank=os.fspath(bank), **params)  # type: ignore[call-arg]
        return opened._open(folder)

    def _store(self, X: Any) -> Self:
        """Run the training samples through the network, and keep what comes out."""
        network = self._network
        assert network is not None
        if self.bank is None:
            with pass_task("run-network", network.n_batches(X)):
                stored = Stored(*map(to_numpy, network.latent_and_logits(X)))
            return self._keep(stored, self._search(), network.link)
        bank = BankFolder.open_or_create(
            self.bank,
            metric=self.metric,
            layer=int(self.layer) if isinstance(self.layer, Integral) else _name(self.layer),
            pool=self.pool,
            link=network.link.__name__,
            classes=self.classes_,
            samples=sample_form(self, X),
            digest=self._digest(network),
        )
        with pass_task("run-network", network.n_batches(X)):
            stored = self._write(bank, X, self._codes)
        return self._keep(stored, self._search(), network.link)

    def _search(self) -> Any:
        """The search of the parameters, not fitted."""
        if self.neighbors is not None:
            return self.neighbors
        return TorchNearestNeighbors(self.n_neighbors, metric=self.metric, device=self.device_)

    def _check_search(self) -> None:
        """Raise an error for parameters that exclude each other, and for a class as search."""
        if isinstance(self.neighbors, type):
            raise TypeError(f"neighbors={self.neighbors!r} is a class: pass an instance.")
        if self.neighbors is not None and self.metric != "euclidean":
            raise ValueError(
                f"metric={self.metric!r} has no effect on neighbors={self.neighbors!r}. Set the "
                "metric of that object, and leave metric at its default."
            )
        if self.neighbors is not None and self.bank is not None:
            raise ValueError(
                f"bank={self.bank!r} is searched exactly, part by part, and neighbors="
                f"{self.neighbors!r} cannot do that. Set one of them to None."
            )

    def _append(self, X: Any, y: Any) -> None:
        stored, network = self._bank.stored, self._bank.network
        X = self._check(X)
        y = check_targets(self, X, y)
        if (y is None) != (self._codes is None):
            raise ValueError(
                "The training samples before have no labels: omit y."
                if self._codes is None
                else "The training samples before have labels: pass y."
            )
        codes = None if y is None else encode_labels(y, self.classes_)
        if isinstance(stored, BankFolder):
            # it may hold samples of an interrupted call
            stored = self._write(stored.reopened(), X, codes, first=self.n_samples_fit_)
        else:
            new = map(to_numpy, network.latent_and_logits(X))
            stored = Stored(*map(np.concatenate, zip(stored, new, strict=True)))
        self.n_samples_fit_ += X.shape[0]
        if codes is not None:
            self._codes = np.concatenate([self._codes, codes])
        self._keep(stored, self.neighbors_, self._bank.link)

    def _open(self, folder: BankFolder) -> Self:
        """Take the fitted state from a bank."""
        self._validate_params()
        self._check_bank(folder)
        form: Any = folder.samples
        labels, outputs, classes = folder.labels, folder.outputs, folder.classes
        assert outputs is not None and classes is not None
        self.n_samples_fit_ = folder.n_samples
        self._check_n_neighbors(self.n_neighbors)
        self.classes_ = classes
        self._codes = None if labels is None else np.array(labels)
        if form is not None:
            self.input_shape_ = tuple(form["shape"])
            self.n_features_in_ = form["shape"][0]
            if form["names"] is not None:
                self.feature_names_in_ = np.array(form["names"], dtype=object)
        self._network, self.device_ = None, resolve_device(self.device)
        if self.estimator is not None:
            like = np.empty((0, *form["shape"]), form["dtype"])
            self.estimator_, self._network = self._trained_network(like, outputs.shape[1])
            self.device_ = self._network.device
            if self._digest(self._network) != folder.digest:
                raise ValueError(
                    f"The bank {folder.path} was written by another network, layer or pool than "
                    f"estimator={type(self.estimator).__name__}(...), layer={self.layer!r}, "
                    f"pool={self.pool!r}. Give the network that has written it, or fit again with "
                    "a new folder."
                )
        return self._keep(folder, self._search(), LINKS[str(folder.link)])

    def _check_bank(self, folder: BankFolder) -> None:
        """Raise a ValueError if a bank cannot be opened with the parameters."""
        reason = None
        if not folder.complete:
            reason = (
                f"is not complete: its fit was interrupted after {folder.n_samples} samples. Call "
                "fit with the same X to continue it"
            )
        elif folder.metric not in (None, self.metric):
            reason = f"was written with metric={folder.metric!r}, not {self.metric!r}"
        elif self.neighbors is not None:
            reason = f"is searched exactly: neighbors={self.neighbors!r} cannot be used. Omit it"
        elif folder.outputs is None or folder.classes is None or folder.link not in LINKS:
            reason = "holds no outputs of a network: it was not written by LatentKNNClassifier"
        elif folder.outputs.shape[1] != len(folder.classes):
            reason = f"has {len(folder.classes)} classes, but {folder.outputs.shape[1]} outputs"
        elif folder.labels is not None and not _all_below(folder.labels, len(folder.classes)):
            reason = f"has labels that are no positions among its {len(folder.classes)} classes"
        elif self.estimator is not None and not is_trained(self.estimator):
            reason = (
                f"needs a trained classifier, and {type(self.estimator).__name__} would be fitted. "
                "Wrap it in sklearn.frozen.FrozenEstimator"
            )
        elif self.estimator is not None and folder.samples is None:
            reason = "does not tell which samples its network takes. Omit estimator"
        if reason:
            raise ValueError(f"The bank {folder.path} {reason}.")

    def _keep(
        self, stored: Stored | BankFolder, search: Any, link: Link, columns: Any = None
    ) -> Self:
        """Search in what is stored; `columns` sorts outputs that the user gives, if they are not.

        Parameters
        ----------
        stored : Stored or BankFolder
        search : object
        link : callable
        columns : ndarray of shape (n_classes,), default=None
        """
        self.neighbors_, self._columns = fit_search(search, stored), columns
        self._bank = Bank(stored, self.neighbors_, link, self._network)
        return self

    def _stored_state(self) -> State:
        state = super()._stored_state()  # type: ignore[misc]
        if "_bank" in state:
            state["_bank"], state["_link"] = self._bank.stored, self._bank.link.__name__
            if isinstance(self.neighbors_, TorchNearestNeighbors):
                state["neighbors_"] = self.neighbors_._without_samples()
        return state

    def _restore(self, state: State) -> None:
        stored, link = state.get("_bank"), LINKS.get(state.get("_link", ""))
        super()._restore({k: v for k, v in state.items() if k != "_link"})  # type: ignore[misc]
        if stored is None:
            return
        if link is None:
            raise ValueError(f"it has the link {state.get('_link')!r} instead of one of {[*LINKS]}")
        n, codes = self.n_samples_fit_, self._codes
        if isinstance(stored, BankFolder) and stored.metric is None:  # saved from memory
            stored = Stored(np.asarray(stored.latent), np.asarray(stored.outputs))
        lengths = [stored.n_samples] if isinstance(stored, BankFolder) else map(len, stored)
        if {n} != {*lengths, n if codes is None else len(codes)}:
            raise ValueError(f"its latent vectors, outputs or labels are not {n}")
        if isinstance(self.neighbors_, TorchNearestNeighbors):
            self.neighbors_._search_in(stored.latent if isinstance(stored, Stored) else stored)
        elif self.neighbors_ is None:  # a search of the user, which is not saved
            self.neighbors_ = fit_search(self.neighbors, stored)
        self._bank = Bank(stored, self.neighbors_, link, self._network)

    def _write(
        self, bank: BankFolder, X: Any, codes: NDArray[np.intp] | None, first: int = 0
    ) -> BankFolder:
        """Write latent vectors and outputs to a bank while the network computes them."""
        assert self._network is not None
        network = self._network.snapshot()

        def compute(samples: Any, bar: Any) -> tuple[NDArray[Any], NDArray[Any]]:
            latent, logits = network.latent_and_logits(samples, bar)
            return to_numpy(latent), to_numpy(logits)

        numbers = max(network.n_latent, len(self.classes_))
        block = max(1, min(BLOCK, BATCH_BYTES // (numbers * network.dtype.itemsize)))
        return write_samples(
            bank, X, compute, block=block, codes=codes, first=first, verbose=self.verbose
        )

    def _digest(self, network: Network) -> str:
        """Digest of a network with its layer and pool, and of its classes."""
        return digest(network=network.digest(self.memory_key), classes=network.classes_.tolist())


def _name(layer: Any) -> str | None:
    return None if callable(layer) else layer


def _all_below(labels: Any, n_classes: int) -> bool:
    codes = np.asarray(labels)
    return bool(((codes >= 0) & (codes < n_classes)).all())
