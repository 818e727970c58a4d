"""Validation of X and y, and a decorator that restores an estimator whose `fit` fails."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data
from torch.utils.data import DataLoader, Dataset

from skboundary._device import is_number, to_numpy
from skboundary._sample_array import SampleArray, blocks, is_sliceable


def all_or_nothing(*keep: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate `fit` so that an error or an interruption restores the estimator.

    An estimator that was fitted before keeps its former fitted state; one that was not stays
    unfitted.

    Parameters
    ----------
    *keep : str
        Attributes that are kept after a failure, for a later `fit` to continue from.

    Returns
    -------
    decorator : callable
    """

    def decorate(fit: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fit)
        def fit_or_restore(self: Any, *args: Any, **kwargs: Any) -> Any:
            before = vars(self).copy()
            try:
                return fit(self, *args, **kwargs)
            except BaseException:
                kept = {name: value for name, value in vars(self).items() if name in keep}
                self.__dict__ = before | kept
                raise

        return fit_or_restore

    return decorate


def sample_shape(X: Any) -> tuple[int, ...]:
    """Shape of one sample."""
    return tuple(X.shape[1:])


def check_input(estimator: Any, X: Any, *, reset: bool, keep_frame: bool = False) -> Any:
    """Validate samples of any shape without copying or casting them.

    Sets or checks `n_features_in_`, `feature_names_in_` and `input_shape_` (scikit-learn's
    `n_features_in_` counts the second axis only).

    Parameters
    ----------
    estimator : estimator
        The estimator whose method was called.
    X : array-like of shape (n_samples, ...), torch.Tensor, DataFrame or sparse matrix
        Integers stay integers. A memory map, and any other container with shape, dtype and
        slices of samples (h5py, zarr, dask), is not read into memory as a whole.
    reset : bool
        True in fit, False afterwards.
    keep_frame : bool, default=False
        Return a DataFrame unchanged, for a classifier that selects columns by name. Unless all
        columns are numeric, only their names and number are checked.

    Returns
    -------
    X : ndarray, CSR matrix, DataFrame or SampleArray

    Raises
    ------
    ValueError
        If X contains NaN or infinity (the message gives the index of the sample), if its
        samples have another shape than in fit or hold no values, or if it holds dates.
    TypeError
        If X is a mapping, a Dataset or a DataLoader.
    """
    _check_container(X)
    if isinstance(X, torch.Tensor):
        X = to_numpy(X)
    frame: Any = X if keep_frame and hasattr(X, "columns") else None
    if frame is not None and not all(is_number(dtype) for dtype in frame.dtypes):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        array = frame
    elif _is_valid(estimator, X, reset):
        array = X
        if reset:
            estimator.n_features_in_ = X.shape[1]
        check_finite(array)
    elif is_sliceable(X) and is_number(X.dtype) and 0 not in X.shape[:2]:
        array = SampleArray(X)
        validate_data(estimator, array, reset=reset, skip_check_array=True)
        check_finite(array)
    else:
        array = validate_data(
            estimator, X, reset=reset, accept_sparse="csr", allow_nd=True, ensure_all_finite=False
        )
        if array.dtype.kind in "mM":
            raise ValueError(
                f"X holds {array.dtype}, dates or durations. Convert them to numbers first."
            )
        check_finite(array)
    if 0 in sample_shape(array):
        raise ValueError(
            f"X has samples of shape {sample_shape(array)}, which hold no values. Drop the axis of "
            "length 0."
        )
    if reset:
        estimator.input_shape_ = sample_shape(array)
    elif sample_shape(array) != estimator.input_shape_:
        raise ValueError(
            f"X has samples of shape {sample_shape(array)}, but {type(estimator).__name__} was "
            f"fitted with samples of shape {estimator.input_shape_}. Reshape X."
        )
    return array if frame is None else frame


def _is_valid(estimator: Any, X: Any, reset: bool) -> bool:
    """Whether X is an array that `validate_data`, which takes long to find out, would return."""
    return (
        type(X) is np.ndarray
        and X.ndim >= 2
        and is_number(X.dtype)
        and X.shape[0] > 0
        and X.shape[1] > 0
        and not hasattr(estimator, "feature_names_in_")
        and (reset or X.shape[1] == getattr(estimator, "n_features_in_", None))
    )


def _check_container(X: Any) -> None:
    kind = type(X).__name__
    refuse_masked(X, "X")
    if isinstance(X, (Dataset, DataLoader)):
        raise TypeError(
            f"X is a {kind}; pass the samples in one array or tensor, for instance "
            "torch.stack([x for x, _ in dataset])."
        )
    if isinstance(X, Mapping) and not sparse.issparse(X):  # a DOK matrix is a dict
        raise TypeError(
            f"X is a mapping ({kind}) with keys {[*X][:5]}; pass the samples in one array "
            "or tensor. Wrap a network of several inputs in a module that takes one tensor "
            "and splits it."
        )
    names = [*getattr(X, "columns", ())]
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise ValueError(
            f"X has duplicate column names: {twice[:5]}. Rename or drop these columns."
        )


def refuse_masked(array: Any, name: str) -> None:
    """Raise a ValueError for a masked array with missing values, whose mask numpy would drop."""
    if np.ma.is_masked(array):
        raise ValueError(
            f"{name} is a masked array with {np.ma.count_masked(array)} masked values. Impute or "
            "drop such samples, and pass the result as a plain array."
        )


def check_targets(estimator: Any, X: Any, y: Any) -> NDArray[Any] | None:
    """Validate class labels; None passes where the estimator's tags do not require them.

    Parameters
    ----------
    estimator : estimator
    X : array-like of shape (n_samples, ...)
    y : array-like of shape (n_samples,) or None

    Returns
    -------
    y : ndarray of shape (n_samples,) or None

    Raises
    ------
    ValueError
        If labels are missing, not finite or of several types, if y and X differ in length, or if
        y is a regression target.
    """
    if y is None:
        if get_tags(estimator).target_tags.required:
            raise ValueError(
                f"{type(estimator).__name__} requires y to be passed, but the target y is None."
            )
        return None
    refuse_masked(y, "y")
    y = column_or_1d(to_numpy(y) if isinstance(y, torch.Tensor) else y, warn=True)
    check_labels(y)
    check_classification_targets(y)
    check_consistent_length(X, y)
    return y


@contextmanager
def named(suffix: str) -> Iterator[None]:
    """Say in errors of the block which X and y they are about, as those of a second data set."""
    try:
        yield
    except (ValueError, TypeError) as error:
        error.args = (f"{error} Here X is X_{suffix}, and y is y_{suffix}.",)
        raise


def check_labels(y: NDArray[Any]) -> None:
    """Raise a ValueError for labels that are missing, not finite or of several types."""
    check_finite(y, "y")
    labels = y if y.dtype == object else ()
    kinds = sorted({"str" if isinstance(v, str) else type(v).__name__ for v in labels})
    if len(kinds) > 1:
        raise ValueError(
            f"y holds labels of several types: {', '.join(kinds)}. Use one type, and drop samples "
            "without a label."
        )


def check_finite(X: Any, name: str = "X") -> None:
    """Raise a ValueError for NaN or infinity that gives the index of the first such sample."""
    values = X.data if sparse.issparse(X) else X
    if values.dtype.kind != "f":
        return
    for part in blocks(values):
        block = values[part]
        finite = np.isfinite(block)
        if not finite.all():
            first = int(np.argwhere(~finite)[0, 0])
            value = block[first].ravel()
            first += part.start
            what = "NaN" if np.isnan(value[~np.isfinite(value)][0]) else "infinity"
            if sparse.issparse(X):
                first = int(np.searchsorted(X.indptr, first, side="right")) - 1
            raise ValueError(
                f"Input {name} contains {what} in sample {first}. Impute or drop such samples."
            )
