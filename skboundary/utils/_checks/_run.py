"""Running an estimator: data, a seeded clone, and everything its methods return."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone

Data = tuple[Any, Any]
Arrays = dict[str, NDArray[Any]]

BAD_SAMPLE = 7
_METHODS = (
    "predict",
    "predict_proba",
    "decision_function",
    "transform",
    "score_samples",
    "kneighbors",
)


def get_data(data: Data | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Copy the data as float64, or generate three blobs in four columns."""
    if data is None:
        rng = np.random.default_rng(0)
        y = rng.permutation(np.repeat([0, 1, 2], [13, 10, 7]))
        return 3 * np.eye(3, 4)[y] + rng.normal(size=(len(y), 4)), y
    return np.array(data[0], dtype=np.float64, order="C"), np.asarray(data[1])


def fresh(estimator_orig: Any, params: dict[str, Any] | None = None) -> Any:
    """Clone, set parameters, and seed the clone and the estimators inside it."""
    estimator = clone(estimator_orig)
    seeds = [p for p in estimator.get_params() if re.search("(^|__)random_state$", p)]
    return estimator.set_params(**dict.fromkeys(seeds, 0), **(params or {}))


def methods_of(estimator: Any) -> list[str]:
    """List the methods that return results; some exist only after fit."""
    names = ("fit_resample",) if hasattr(estimator, "fit_resample") else _METHODS
    return [name for name in names if hasattr(estimator, name)]


def fit_then_methods(estimator: Any) -> Iterator[str]:
    yield "fit"
    yield from methods_of(estimator)


def call(estimator: Any, method: str, X: Any, y: Any) -> Any:
    arguments = (X, y) if method in ("fit", "fit_resample") else (X,)
    return getattr(estimator, method)(*arguments)


def all_outputs(estimator: Any, X: Any, y: Any) -> Arrays:
    """Call every method of a fitted estimator; each item of a tuple is a result."""
    arrays = {}
    for method in methods_of(estimator):
        result = call(estimator, method, X, y)
        if isinstance(result, tuple):
            arrays.update({f"{method}[{i}]": to_array(item) for i, item in enumerate(result)})
        else:
            arrays[method] = to_array(result)
    return arrays


def fit_and_run(estimator: Any, X: Any, y: Any) -> Arrays:
    estimator.fit(X, y)
    return all_outputs(estimator, X, y)


def results_and_warnings(estimator: Any, X: Any, y: Any) -> tuple[Arrays, list[str]]:
    always = torch.is_warn_always_enabled()  # else torch issues each warning once per process
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results = fit_and_run(estimator, X, y)
    finally:
        torch.set_warn_always(always)
    return results, [str(warning.message) for warning in caught]


def call_and_ignore_errors(estimator: Any, X: Any, y: Any) -> None:
    for method in (*methods_of(estimator), "fit"):  # fit last: it may leave the estimator unfitted
        with suppress(Exception):
            call(estimator, method, X, y)


def to_array(result: Any) -> NDArray[Any]:
    if isinstance(result, torch.Tensor):
        return result.detach().cpu().numpy()
    return np.asarray(result.toarray() if sparse.issparse(result) else result)


def with_bad_sample(X: NDArray[Any], value: float) -> NDArray[Any]:
    X = X.copy()
    X.reshape(len(X), -1)[BAD_SAMPLE, 0] = value
    return X
