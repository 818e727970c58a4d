"""Checks of input: dtypes, labels, memory layouts and batch sizes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skboundary.utils._checks._assertions import assert_same, find_difference, must_work
from skboundary.utils._checks._modules import modules_of
from skboundary.utils._checks._run import (
    Arrays,
    Data,
    call,
    fit_and_run,
    fit_then_methods,
    fresh,
    get_data,
    results_and_warnings,
)

_PRESERVING = ("predict_proba", "transform", "kneighbors[0]", "fit_resample[0]")


def check_integer_input(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that integers give the results of the same values as float64 (uint8: or float32)."""
    X, y = get_data(data)
    X = np.rint((X - X.min()) * (255 / np.ptp(X)))
    double = fit_and_run(fresh(estimator_orig), X, y)
    single = fit_and_run(fresh(estimator_orig), X.astype(np.float32), y)
    for dtype, references in (("uint8", [double, single]), ("int64", [double])):
        estimator = fresh(estimator_orig)
        with must_work(name, f"with {dtype} samples"):
            results = fit_and_run(estimator, X.astype(dtype), y)
        differences = [find_difference(estimator, results, reference) for reference in references]
        if all(differences):
            raise AssertionError(
                f"{name} gives other results for {dtype} samples than for the same values as "
                f"floats: {differences[0]}."
            )


def check_duplicates_and_zero_samples(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that repeated samples and samples of zeros work and give finite results."""
    X, y = get_data(data)
    X = np.concatenate([X, X[:3], np.zeros_like(X[:2])])
    y = np.concatenate([y, y[:3], y[:2]])
    with must_work(name, "with repeated samples and samples of zeros"):
        results = fit_and_run(fresh(estimator_orig), X, y)
    for method, result in results.items():
        if result.dtype.kind == "f" and not np.isfinite(result).all():
            raise AssertionError(
                f"{method} of {name} is not finite with repeated samples and samples of zeros."
            )


def check_float32_preserved(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that float32 samples give float32 probabilities, features, distances and samples."""
    X, y = get_data(data)
    with must_work(name, "with float32 samples"):
        results = fit_and_run(fresh(estimator_orig), X.astype(np.float32), y)
    for method in _PRESERVING:
        if method in results and results[method].dtype != np.float32:
            raise AssertionError(
                f"{method} of {name} gives {results[method].dtype} for float32 samples."
            )


def check_string_labels(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that labels may be strings, booleans, and negative or non-contiguous integers."""
    X, y = get_data(data)
    codes = np.unique(y, return_inverse=True)[1]
    numbers = np.arange(codes.max() + 1)
    strings = np.array([f"class {number:03d}" for number in numbers])
    for y, kinds in (
        (codes, [strings, strings.astype(object), numbers - 1, 10 * numbers + 3]),
        ((codes > 0).astype(int), [np.array([False, True])]),
    ):
        expected = fit_and_run(fresh(estimator_orig), X, y)
        for labels in kinds:
            _assert_labels(name, estimator_orig, X, y, labels, expected)


def check_read_only_and_strided_input(
    name: str, estimator_orig: Any, data: Data | None = None
) -> None:
    """Check that the memory layout of X neither changes results nor causes warnings."""
    X, y = get_data(data)
    expected, usual = results_and_warnings(fresh(estimator_orig), X, y)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for what, samples in _memory_layouts(X, Path(folder)):
            estimator = fresh(estimator_orig)
            with must_work(name, f"with {what}"):
                results, messages = results_and_warnings(estimator, samples, y)
            assert_same(name, estimator, results, expected, f"with {what}")
            new = [message for message in messages if message not in usual]
            if new:
                raise AssertionError(f"{name} warns with {what}: {new[0]}")


def check_input_untouched(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that X is not modified, even if a network inside writes to its input."""
    X, y = get_data(data)
    for dtype in (np.float32, np.float64):  # a network with this dtype might share the memory of X
        estimator, samples = fresh(estimator_orig), X.astype(dtype)
        with ExitStack() as hooks, must_work(name, "with a network that writes to its input"):
            for method in fit_then_methods(estimator):
                for module in modules_of(estimator):  # some exist only after fit
                    hooks.callback(module.register_forward_pre_hook(_write_to_input).remove)
                call(estimator, method, samples, y)
                if not np.array_equal(samples, X.astype(dtype)):
                    raise AssertionError(f"{method} of {name} changes the values of X.")


def check_batch_size_invariance(name: str, estimator_orig: Any, data: Data | None = None) -> None:
    """Check that results do not depend on `batch_size`."""
    X, y = get_data(data)
    for dtype in (np.float64, np.float32):
        expected = None
        for batch_size in ("auto", 1, 7):
            estimator = fresh(estimator_orig, {"batch_size": batch_size})
            with must_work(name, f"with batch_size={batch_size!r}"):
                results = fit_and_run(estimator, X.astype(dtype), y)
            expected = results if expected is None else expected
            what = f"with batch_size={batch_size!r} instead of 'auto'"
            assert_same(name, estimator, results, expected, what)


def _write_to_input(module: torch.nn.Module, args: Any) -> None:
    args[0].add_(1)


def _memory_layouts(X: NDArray[Any], folder: Path) -> Iterator[tuple[str, Any]]:
    read_only = X.copy()
    read_only.flags.writeable = False
    np.save(folder / "X.npy", X)
    yield "a read-only array", read_only
    yield "a memory map", np.load(folder / "X.npy", mmap_mode="r")
    yield "negative strides", X[::-1, ::-1].copy()[::-1, ::-1]
    yield "every second sample of an array", np.repeat(X, 2, axis=0)[::2]
    yield "Fortran order", np.asfortranarray(X)
    yield "a tensor", torch.tensor(X)
    yield "a tensor that requires gradients", torch.tensor(X, requires_grad=True)


def _assert_labels(
    name: str,
    estimator_orig: Any,
    X: NDArray[Any],
    codes: NDArray[Any],
    labels: NDArray[Any],
    expected: Arrays,
) -> None:
    """Check that sorted labels give the same results as their codes."""
    expected = {**expected, "predict": labels[expected["predict"]]}
    estimator = fresh(estimator_orig)
    what = f"with labels {labels.tolist()}"
    with must_work(name, what):
        results = fit_and_run(estimator, X, labels[codes])
    if not np.array_equal(estimator.classes_, labels):
        raise AssertionError(f"{name} {what} has classes_ {estimator.classes_}, not sorted.")
    if results["predict"].dtype.kind != np.asarray(estimator.classes_).dtype.kind:
        raise AssertionError(f"{name} {what} predicts {results['predict'].dtype}, not classes_.")
    assert_same(name, estimator, results, expected, f"{what} than with their codes")
