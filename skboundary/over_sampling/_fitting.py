"""The classifier of BiasedExtrapolationSampler: the default, and how it is fitted."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from typing import Any

from numpy.typing import NDArray
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController

from skboundary.networks import Network


def default_request() -> LogisticRegression:
    """What `estimator=None` requests of metadata: weights, in both of its steps."""
    with config_context(enable_metadata_routing=True):
        return LogisticRegression().set_fit_request(sample_weight=True)


def fit_network(
    sampler: Any, X: Any, y: NDArray[Any], seed: int, metadata: dict[str, Any]
) -> tuple[Any, Network]:
    """Fit the classifier of a sampler unless it is trained.

    Parameters
    ----------
    sampler : BiasedExtrapolationSampler
    X : array-like of shape (n_samples, ...)
    y : ndarray of shape (n_samples,)
    seed : int
    metadata : dict
        Further arguments of `fit`.

    Returns
    -------
    estimator_ : classifier
    network : Network
    """
    estimator, context = sampler.estimator, {}
    if estimator is None:
        if X.ndim > 2:
            raise ValueError(
                f"X has samples of shape {X.shape[1:]}, but estimator=None takes vectors. "
                "Give an estimator that takes such samples."
            )
        estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        unknown = sorted(metadata.keys() - {"sample_weight"})
        if unknown:
            raise TypeError(
                f"fit got {unknown}, but the default classifier takes sample_weight alone. Give an "
                "estimator whose fit takes them."
            )
        steps = estimator.named_steps
        metadata = {f"{step}__{name}": metadata[name] for step in steps for name in metadata}
        context = {"enable_metadata_routing": False}  # metadata are named by their step
    n_features = getattr(estimator, "n_features_in_", X.shape[1])
    if isinstance(estimator, FrozenEstimator) and n_features != X.shape[1]:
        raise ValueError(
            f"X has {X.shape[1]} features, but estimator was fitted with {n_features}. Give "
            "an estimator that was fitted on the columns of X."
        )
    # the products of logistic regression are so small that several threads slow it down
    with ExitStack() as stack:
        if sampler.estimator is None:
            stack.enter_context(_thread_pools().limit(limits=1))
        # imbalanced-learn skips the validation of nested estimators
        stack.enter_context(config_context(skip_parameter_validation=False, **context))
        return sampler._as_network(
            X, y, estimator=estimator, random_state=seed, fit_params=metadata
        )


@cache
def _thread_pools() -> ThreadpoolController:
    """Controller of the thread pools; searching for them takes milliseconds."""
    return ThreadpoolController()
