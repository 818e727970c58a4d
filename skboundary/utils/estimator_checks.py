"""Common checks for estimators around a network, in addition to scikit-learn's own.

Each check takes the name of the estimator, the estimator and optionally data: a pair of
floating-point samples X (at least 8, of any shape, because a trained network prescribes it)
and labels y. It works on a clone and raises an AssertionError that describes the problem.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, update_wrapper
from typing import Any

import torch
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator

from skboundary.utils._checks._errors import (
    check_n_neighbors_too_large,
    check_nonfinite_sample_named,
    check_unknown_device,
)
from skboundary.utils._checks._input import (
    check_batch_size_invariance,
    check_duplicates_and_zero_samples,
    check_float32_preserved,
    check_input_untouched,
    check_integer_input,
    check_read_only_and_strided_input,
    check_string_labels,
)
from skboundary.utils._checks._modules import modules_of, walk
from skboundary.utils._checks._run import Data
from skboundary.utils._checks._state import (
    check_clone_and_grid_search,
    check_module_untouched,
    check_no_global_rng_use,
    check_parameters_not_written_back,
    check_pickle_holds_cpu_tensors,
)

__all__ = [
    "check_batch_size_invariance",
    "check_clone_and_grid_search",
    "check_duplicates_and_zero_samples",
    "check_float32_preserved",
    "check_input_untouched",
    "check_integer_input",
    "check_module_untouched",
    "check_n_neighbors_too_large",
    "check_no_global_rng_use",
    "check_nonfinite_sample_named",
    "check_parameters_not_written_back",
    "check_pickle_holds_cpu_tensors",
    "check_read_only_and_strided_input",
    "check_string_labels",
    "check_unknown_device",
    "estimator_checks_generator",
    "yield_checks",
]


def estimator_checks_generator(
    estimator: Any, *, data: Data | None = None, fixed_classes: bool | None = None
) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """Yield the estimator with each check that applies to it.

    Parameters
    ----------
    estimator : estimator
        A classifier, transformer, sampler or neighbor index. It is not modified.
    data : tuple (X, y), default=None
        Samples and labels for the checks; None generates three blobs in four columns.
    fixed_classes : bool, default=None
        Whether the estimator holds a trained model, which cannot learn other labels. None
        decides by its parameters.

    Yields
    ------
    estimator : estimator
    check : callable
        Takes the estimator. Its name is the id in pytest.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from skboundary.utils.estimator_checks import estimator_checks_generator
    >>> estimator, check = next(estimator_checks_generator(KNeighborsClassifier()))
    >>> check.__name__
    'check_no_global_rng_use'
    >>> check(estimator)
    """
    name = type(estimator).__name__
    for check in yield_checks(estimator, fixed_classes=fixed_classes):
        yield estimator, update_wrapper(partial(check, name, data=data), check)


def yield_checks(
    estimator: Any, *, fixed_classes: bool | None = None
) -> Iterator[Callable[..., None]]:
    """Yield the checks that apply to an estimator, given its methods and parameters.

    Parameters
    ----------
    estimator : estimator
    fixed_classes : bool, default=None
        As in `estimator_checks_generator`.

    Yields
    ------
    check : callable
        ``check(name, estimator, data=None)``.
    """
    params = estimator.get_params(deep=False)
    if fixed_classes is None:
        fixed_classes = any(
            isinstance(held, (torch.nn.Module, FrozenEstimator)) for held in walk(estimator)
        )
    yield check_no_global_rng_use
    yield check_parameters_not_written_back
    yield check_integer_input
    yield check_duplicates_and_zero_samples
    yield check_float32_preserved
    yield check_pickle_holds_cpu_tensors
    yield check_clone_and_grid_search
    yield check_nonfinite_sample_named
    yield check_read_only_and_strided_input
    yield check_input_untouched
    if "batch_size" in params:
        yield check_batch_size_invariance
    if "device" in params:
        yield check_unknown_device
    if isinstance(params.get("n_neighbors"), int) and not hasattr(estimator, "fit_resample"):
        yield check_n_neighbors_too_large
    if is_classifier(estimator) and not fixed_classes:
        yield check_string_labels
    if modules_of(estimator):
        yield check_module_untouched
