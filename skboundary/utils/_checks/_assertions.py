"""Assertions about results and errors, with messages that name the estimator."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skboundary.utils._checks._modules import modules_of
from skboundary.utils._checks._run import Arrays


@contextmanager
def must_work(name: str, what: str) -> Iterator[None]:
    """Turn any error into an AssertionError that names the estimator."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{name} fails {what}: {type(error).__name__}: {error}") from error


def assert_refused(name: str, call: Callable[[], Any], words: list[str], what: str) -> None:
    """Check that a call raises a ValueError whose message contains all words."""
    try:
        call()
    except ValueError as error:
        missing = [w for w in words if not re.search(rf"(?<!\w){re.escape(w)}(?!\w)", str(error))]
        if missing:
            raise AssertionError(
                f"{name} refuses {what}, but its message does not contain {missing}: {error}"
            ) from error
    except Exception as error:
        raise AssertionError(
            f"{name} raises {type(error).__name__}, not ValueError, for {what}: {error}"
        ) from error
    else:
        raise AssertionError(f"{name} accepts {what}; it must raise a ValueError.")


def find_difference(estimator: Any, results: Arrays, expected: Arrays) -> str:
    """Describe where two results differ by more than rounding; "" if nowhere."""
    if results.keys() != expected.keys():
        return f"methods {sorted(results)} instead of {sorted(expected)}"
    for method, want in expected.items():
        got = results[method]
        if got.shape != want.shape:
            return f"{method} has shape {got.shape} instead of {want.shape}"
        if want.dtype.kind == "f":
            tolerance = _tolerance(estimator, want)
            scale = np.abs(want[np.isfinite(want)]).max(initial=0)
            same = np.isclose(got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
        else:
            same = np.asarray(got == want)
        if not same.all():
            return f"{method} differs in {np.sum(~same)} of {same.size} values"
    return ""


def assert_same(name: str, estimator: Any, results: Arrays, expected: Arrays, what: str) -> None:
    difference = find_difference(estimator, results, expected)
    if difference:
        raise AssertionError(f"{name} gives other results {what}: {difference}.")


def assert_equal_params(name: str, params: dict[str, Any], cloned: dict[str, Any]) -> None:
    if params.keys() != cloned.keys():
        raise AssertionError(f"A clone of {name} has other parameters: {sorted(cloned)}.")
    for key, value in params.items():
        plain = isinstance(value, (str, bool, int, float, type(None)))
        if type(cloned[key]) is not type(value) or (plain and repr(cloned[key]) != repr(value)):
            raise AssertionError(f"A clone of {name} has {key}={cloned[key]!r}, not {value!r}.")


def _tolerance(estimator: Any, array: NDArray[Any]) -> float:
    """Relative tolerance: half the digits of the least precise dtype involved."""
    weights = [w for module in modules_of(estimator) for w in module.parameters()]
    eps = [torch.finfo(w.dtype).eps for w in weights if w.is_floating_point()]
    return float(np.sqrt(max(eps + [float(np.finfo(array.dtype).eps)])))
