"""Checks of errors: invalid input and parameters are refused, and the message says which."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from skboundary.utils._checks._assertions import assert_refused, must_work
from skboundary.utils._checks._run import (
    BAD_SAMPLE,
    Data,
    call,
    fit_and_run,
    fresh,
    get_data,
    methods_of,
    with_bad_sample,
)


def check_nonfinite_sample_named(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that NaN and infinity are refused by an error that names the sample."""
    X, y = get_data(data)
    for value in (np.nan, np.inf):
        estimator = fresh(estimator_orig)
        wrong = with_bad_sample(X, value)
        fit = partial(estimator.fit, wrong, y)
        assert_refused(
            name, fit, [f"sample {BAD_SAMPLE}"], f"fit with {value} in sample {BAD_SAMPLE}"
        )
        with must_work(name, "in fit"):
            estimator.fit(X, y)
        for method in methods_of(estimator):
            bad_call = partial(call, estimator, method, wrong, y)
            what = f"{method} with {value} in sample {BAD_SAMPLE}"
            assert_refused(name, bad_call, [f"sample {BAD_SAMPLE}"], what)


def check_n_neighbors_too_large(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that more neighbors than training samples are refused by an error with the limit."""
    X, y = get_data(data)
    estimator = fresh(estimator_orig, {"n_neighbors": len(X) + 1})
    words = ["n_neighbors", str(len(X) + 1), str(len(X))]
    what = f"n_neighbors={len(X) + 1} with {len(X)} training samples"
    assert_refused(name, partial(fit_and_run, estimator, X, y), words, what)


def check_unknown_device(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that a device that does not exist is refused by an error that names it."""
    X, y = get_data(data)
    for device in ("cuda:99", "no-such-device"):
        estimator = fresh(estimator_orig, {"device": device})
        bad_call = partial(fit_and_run, estimator, X, y)
        assert_refused(name, bad_call, ["device", device], f"device={device!r}")
