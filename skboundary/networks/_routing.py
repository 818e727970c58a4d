"""Metadata of `fit`, such as weights of samples, for what an estimator fits inside."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.model_selection import check_cv
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing

from skboundary._device import to_numpy
from skboundary._validation import refuse_masked
from skboundary.exceptions import warn_caller
from skboundary.networks._chunks import is_dask_array
from skboundary.networks._factory import is_trained, refuse_metadata

Metadata = dict[str, Any]

_PER_SAMPLE = ("sample_weight", "groups")


class Routed(NamedTuple):
    """Metadata of `fit` by the method that gets them."""

    fit: Metadata  # of the classifier
    split: Metadata  # of the cross-validation splitter
    score: Metadata  # of the scorer


class RoutingMixin:
    """Mixin for estimators whose `fit(X, y, **fit_params)` fits another one inside.

    With `enable_metadata_routing=True` each consumer gets what it requests. Otherwise, as in
    scikit-learn's `GridSearchCV`, `groups` go to the splitter, `sample_weight` to the classifier
    and a scorer that takes it, and all others to the classifier.
    """

    estimator: Any
    _callers: ClassVar[tuple[str, ...]] = ("fit",)  # methods that fit what is inside

    def _consumers(self) -> dict[str, tuple[Any, str]]:
        """What metadata can be routed to, by role, with the method that gets them."""
        unfitted = self.estimator is None or is_trained(self.estimator)
        return {} if unfitted else {"estimator": (self.estimator, "fit")}

    def get_metadata_routing(self) -> Any:
        """Get the routing of metadata to what is fitted inside.

        Returns
        -------
        routing : MetadataRouter
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        callers = [*self._callers]
        if hasattr(self, "fit_transform"):  # scikit-learn 1.9.0 does not infer it from `fit`
            callers.append("fit_transform")
        for name, (consumer, callee) in self._consumers().items():
            mapping = MethodMapping()
            for caller in callers:
                mapping.add(caller=caller, callee=callee)
            router.add(method_mapping=mapping, **{name: consumer})
        return router

    def _route(
        self, params: Mapping[str, Any], X: Any, idle: Mapping[str, str] | None = None
    ) -> Routed:
        """Divide the metadata of `fit` among those that get them.

        Parameters
        ----------
        params : dict
        X : array-like of shape (n_samples, ...)
        idle : dict, default=None
            From the role of each consumer that this call does not use to the reason.

        Returns
        -------
        routed : Routed

        Raises
        ------
        TypeError
            For metadata that nothing gets.
        ValueError
            For weights or groups of another number of samples, or with masked values.
        """
        given = {k: _as_array(k, value) for k, value in params.items() if value is not None}
        if not given:
            return Routed({}, {}, {})
        consumers, idle = self._consumers(), idle or {}
        fitted = "estimator" in consumers
        if get_config()["enable_metadata_routing"]:
            if not fitted:  # with the reason, which scikit-learn does not know
                unused = given.keys() - self.get_metadata_routing().consumes("fit", given)
                refuse_metadata(self.estimator, unused)
            found = process_routing(self, self._callers[0], **given)
            routed = {name: found[name][callee] for name, (_, callee) in consumers.items()}
        else:
            routed = _by_convention(given, consumers, idle)
            if not fitted:
                refuse_metadata(self.estimator, routed["estimator"])
        for name in idle:
            if routed.get(name):
                raise TypeError(
                    f"{type(self).__name__} got {sorted(routed[name])} for its {name}, but "
                    f"{idle[name]}. Omit them."
                )
        for name, value in [item for part in routed.values() for item in part.items()]:
            if name.rpartition("__")[2] in _PER_SAMPLE and np.ndim(value):
                check_consistent_length(X, value)
        return Routed(*(routed.get(name, {}) for name in ("estimator", "splitter", "scorer")))


def _by_convention(
    params: Metadata, consumers: Mapping[str, Any], idle: Mapping[str, str]
) -> dict[str, Metadata]:
    """Divide metadata without requests."""
    routed: dict[str, Metadata] = {"estimator": params.copy()}
    if "splitter" in consumers and "groups" in params:
        routed["splitter"] = {"groups": routed["estimator"].pop("groups")}
    if "scorer" in consumers and "scorer" not in idle and "sample_weight" in params:
        scorer, _ = consumers["scorer"]
        if _takes_weights(scorer):
            routed["scorer"] = {"sample_weight": params["sample_weight"]}
        else:
            warn_caller(
                f"scoring={scorer} takes no sample_weight, so that scores count all samples "
                "equally. Use a scorer whose metric takes sample_weight, as by make_scorer.",
                UserWarning,
            )
    return routed


def _takes_weights(scorer: Any) -> bool:
    """Whether a scorer of scikit-learn, or a callable, takes `sample_weight`."""
    if hasattr(scorer, "_accept_sample_weight"):
        return bool(scorer._accept_sample_weight())
    return "sample_weight" in inspect.signature(scorer).parameters


def _as_array(name: str, value: Any) -> Any:
    """Metadata that can be indexed and that any estimator takes; arrays stay themselves."""
    refuse_masked(value, name)
    if isinstance(value, torch.Tensor):
        return to_numpy(value)
    return np.asarray(value) if is_dask_array(value) else value


def folds_of(cv: Any, X: Any, y: NDArray[Any], **metadata: Any) -> list[tuple[Any, Any]]:
    """Indices of training and test samples of each fold; metadata are for `split`.

    Raises
    ------
    ValueError
        If `cv` gives an index that X does not have.
    """
    if metadata and not hasattr(cv, "split"):
        raise TypeError(
            f"fit got {sorted(metadata)}, which cv={cv!r} does not use. Use a splitter that does, "
            "such as GroupKFold()."
        )
    n, folds = X.shape[0], [*check_cv(cv, y, classifier=True).split(X, y, **metadata)]
    for part in (np.asarray(part) for fold in folds for part in fold):
        beyond = part[(part >= n) | (part < -n)]
        if len(beyond):
            raise ValueError(f"cv gives the index {beyond[0]}, but X has {n} samples. Change cv.")
    return folds


def weights_of_last_step(estimator: Any, params: Metadata) -> Any:
    """The weights of samples that the classifier in pipelines and searches is trained with.

    Parameters
    ----------
    estimator : classifier
    params : dict
        Metadata of its `fit`.

    Returns
    -------
    sample_weight : array-like of shape (n_samples,) or None
    """
    while isinstance(estimator, (Pipeline, BaseSearchCV)):
        piped = isinstance(estimator, Pipeline)
        name, last = estimator.steps[-1] if piped else ("estimator", estimator.estimator)
        if get_config()["enable_metadata_routing"]:
            params = process_routing(estimator, "fit", **params)[name]["fit"]
        elif piped:
            start = f"{name}__"
            params = {k.removeprefix(start): v for k, v in params.items() if k.startswith(start)}
        estimator = last
    return params.get("sample_weight")
