"""Mixin of the estimators that contain a network: validation, the network, tags."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

from skboundary._plain import State
from skboundary._site import DocLinkMixin
from skboundary._validation import check_input, check_targets
from skboundary.networks import _stored_network  # noqa: F401 - networks become storable
from skboundary.networks._cache import CachedNetwork
from skboundary.networks._carrier import StoredStateMixin
from skboundary.networks._factory import (
    as_network,
    is_trained,
    takes_frames,
    takes_sparse,
    trained_network,
    with_memory,
)
from skboundary.networks._parameters import LATENT_CONSTRAINTS
from skboundary.networks._protocol import Network
from skboundary.networks._routing import RoutingMixin


class NetworkHostMixin(RoutingMixin, StoredStateMixin, DocLinkMixin):
    """Mixin for estimators that contain a network.

    A new estimator lists `NETWORK_CONSTRAINTS` (or `LATENT_CONSTRAINTS`) among its own, names
    the shared parameters as lines ``{estimator}``, ``{device}``, ... in its docstring under
    `fill_docstring`, and begins its `fit(X, y, **fit_params)`, a task by `fit_tasks`, with::

        X, y = self._check_fit(X, y)
        metadata = self._route(fit_params, X).fit
        self.estimator_, self._network = self._as_network(X, y, fit_params=metadata)
        self.device_ = self._network.device
    """

    estimator: Any
    memory_key: str | None  # where there is a parameter `memory`

    @property
    def _n_trainings(self) -> int:
        """1 if `estimator` is fitted here, else 0."""
        return int(not is_trained(self.estimator))

    def _check_fit(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Validate the arguments of `fit`; y may be None where the tags do not require it."""
        X = self._check_X(X, reset=True)
        return X, check_targets(self, X, y)

    def _check_X(self, X: Any, *, reset: bool = False) -> Any:
        """Validate X; a DataFrame stays one for a classifier that may select columns."""
        return check_input(self, X, reset=reset, keep_frame=takes_frames(self.estimator))

    def _as_network(self, X: Any, y: Any, **other: Any) -> tuple[Any, Network]:
        """Fit `estimator` where it is not trained; keywords of `as_network` come first."""
        names = [name for name in LATENT_CONSTRAINTS if hasattr(self, name)]
        params = {name: getattr(self, name) for name in names} | other
        return as_network(params.pop("estimator"), X, y, **params)

    def _stored_state(self) -> State:
        state = super()._stored_state()
        network = state.get("_network")
        if isinstance(network, CachedNetwork):
            state["_network"] = network.network
        return state

    def _restore(self, state: State) -> None:
        super()._restore(state)
        memory = getattr(self, "memory", None)
        if memory is not None and "_network" in state and is_trained(self.estimator):
            self._network = with_memory(state["_network"], memory, self.memory_key)

    def _trained_network(self, like: Any, n_outputs: int) -> tuple[Any, Network]:
        """Network of a trained `estimator`, without a sample; see `trained_network`."""
        names = [n for n in LATENT_CONSTRAINTS if hasattr(self, n) and n != "random_state"]
        params = {name: getattr(self, name) for name in names}
        return trained_network(params.pop("estimator"), like, n_outputs, **params)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = not is_trained(self.estimator)
        tags.input_tags.sparse = takes_sparse(self.estimator)
        return tags
