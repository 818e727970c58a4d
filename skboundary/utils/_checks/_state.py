"""Checks of state: parameters, random generators, clones, pickles and the user's network."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV

from skboundary.utils._checks._assertions import assert_equal_params, assert_same, must_work
from skboundary.utils._checks._modules import (
    interrupted,
    module_state,
    modules_of,
    unusual_flags,
)
from skboundary.utils._checks._run import (
    Data,
    all_outputs,
    call,
    call_and_ignore_errors,
    fit_and_run,
    fit_then_methods,
    fresh,
    get_data,
    with_bad_sample,
)


def check_no_global_rng_use(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that the global random state of numpy and torch does not change."""
    X, y = get_data(data)
    estimator = fresh(estimator_orig)
    with _restored_rng():
        for method in fit_then_methods(estimator):
            # so that a call that seeds with the same number twice is detected as well
            np.random.random_sample()
            torch.rand(1)
            before = _rng_state()
            with must_work(name, f"in {method}"):
                call(estimator, method, X, y)
            after = _rng_state()
            changed = [library for library in before if after[library] != before[library]]
            if changed:
                raise AssertionError(
                    f"{method} of {name} changes the global random state of "
                    f"{' and '.join(changed)}. Use a local generator."
                )


def check_parameters_not_written_back(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that parameters are not overwritten and `device_` is a torch.device."""
    X, y = get_data(data)
    estimator = fresh(estimator_orig)
    before = estimator.get_params(deep=False)
    with must_work(name, "in fit or predict"):
        fit_and_run(estimator, X, y)
    after = estimator.get_params(deep=False)
    changed = [param for param in before if after[param] is not before[param]]
    if changed:
        raise AssertionError(f"{name} writes to its parameters {', '.join(changed)}.")
    if "device" in before and not isinstance(getattr(estimator, "device_", None), torch.device):
        raise AssertionError(f"{name} has no `device_` that is a torch.device after fit.")


def check_clone_and_grid_search(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that a clone has equal parameters and fits, and that a grid search runs."""
    X, y = get_data(data)
    estimator = fresh(estimator_orig)
    with must_work(name, "to be cloned and fitted"):
        fitted = fit_and_run(estimator, X, y)
        cloned = clone(estimator)
        refitted = fit_and_run(cloned, X, y)
    for each in (estimator_orig, estimator):
        assert_equal_params(name, each.get_params(), clone(each).get_params())
    assert_same(name, cloned, refitted, fitted, "after being cloned")
    if is_classifier(estimator):
        params = estimator.get_params(deep=False)
        grids: dict[str, list[int]] = {"batch_size": [8, 16], "n_neighbors": [1, 2]}
        grid = next(({param: grids[param]} for param in grids if param in params), {})
        with must_work(name, "in a grid search with two processes"):
            GridSearchCV(cloned, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)


def check_pickle_holds_cpu_tensors(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that a pickle loads without an accelerator and gives the same results."""
    X, y = get_data(data)
    estimator = fresh(estimator_orig)
    file = io.BytesIO()
    pickler = _DevicePickler(file)
    with must_work(name, "to be pickled"):
        expected = fit_and_run(estimator, X, y)
        pickler.dump(estimator)
    elsewhere = sorted(pickler.devices - {"cpu"})
    if elsewhere:
        raise AssertionError(
            f"A pickle of {name} holds tensors on {', '.join(elsewhere)}. "
            "Move them to the CPU in __getstate__."
        )
    with must_work(name, "from a pickle"):
        results = all_outputs(pickle.loads(file.getvalue()), X, y)
    assert_same(name, estimator, results, expected, "after being pickled")


def check_module_untouched(
    name: str,
    estimator_orig: Any,
    module: torch.nn.Module | None = None,
    data: Data | None = None,
) -> None:
    """Check that the user's network is unchanged, also after calls that fail.

    Compared are training and gradient flags, gradients, devices, dtypes, weights, buffers and
    the number of hooks.

    Parameters
    ----------
    name : str
    estimator_orig : estimator
    module : torch.nn.Module, default=None
        The network inside the estimator. The estimator itself is then fitted, not a clone,
        which may hold a copy of the network. None checks all networks in the parameters of a clone.
    data : tuple (X, y), default=None
    """
    X, y = get_data(data)
    estimator = fresh(estimator_orig) if module is None else estimator_orig
    modules = modules_of(estimator) if module is None else [module]
    with unusual_flags(modules):
        before = module_state(modules)
        with must_work(name, "in fit or predict"):
            fit_and_run(estimator, X, y)
        _assert_untouched(name, modules, before, "fit or predict")
        for wrong in (with_bad_sample(X, np.nan), X[..., :-1]):
            call_and_ignore_errors(estimator, wrong, y)
            _assert_untouched(name, modules, before, "a call with invalid samples")
        for each in modules:
            with must_work(name, "in fit"):
                estimator.fit(X, y)
            with interrupted(each):
                before = module_state(modules)
                call_and_ignore_errors(estimator, X, y)
                _assert_untouched(name, modules, before, "an error in the forward pass")


class _DevicePickler(pickle.Pickler):
    """Pickle as usual, and record the devices of all tensors in the pickle."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.devices: set[str] = set()

    def persistent_id(self, obj: Any) -> None:
        if isinstance(obj, (torch.Tensor, torch.UntypedStorage, torch.Generator)):
            self.devices.add(obj.device.type)


def _rng_state() -> dict[str, bytes]:
    state = {
        "numpy": pickle.dumps(np.random.get_state()),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    for i in range(torch.cuda.device_count()):
        state[f"torch on cuda:{i}"] = torch.cuda.get_rng_state(i).numpy().tobytes()
    return state


@contextmanager
def _restored_rng() -> Iterator[None]:
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        np.random.set_state(state)


def _assert_untouched(
    name: str, modules: list[torch.nn.Module], before: dict[str, Any], what: str
) -> None:
    after = module_state(modules)
    changed = [k for k in before.keys() | after.keys() if before.get(k) != after.get(k)]
    if changed:
        raise AssertionError(f"In {name} {what} changes the {min(changed)} of the network.")
