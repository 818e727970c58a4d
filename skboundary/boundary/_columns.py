"""Columns of a table: names, categories, and the DataFrame that a classifier was fitted on."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import sys
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils._missing import is_pandas_na
from sklearn.utils._set_output import ADAPTERS_MANAGER

from skboundary._plain import storable


@storable
class Level(NamedTuple):
    """The categories of a column that does not hold numbers; its values are their positions."""

    values: NDArray[Any]  # (n_categories,) objects
    dtype: str
    categories: list[Any] | None = None  # of a dtype of categories, which may have others
    ordered: bool = False


Levels = dict[int, Level]  # by the position of the column


@storable
class Columns(NamedTuple):
    """The columns of the DataFrame that a classifier was fitted on."""

    library: str
    names: NDArray[Any]
    levels: Levels

    def frame(self, X: NDArray[Any]) -> Any:
        """A DataFrame of samples (n, d) of numbers, with the categories that they stand for."""
        frame = ADAPTERS_MANAGER.adapters[self.library].create_container(X, X, self.names)
        library = sys.modules[self.library]
        for position, level in self.levels.items():
            name, values = self.names[position], level.values[_codes(X[:, position])]
            if self.library == "polars":
                column = library.Series(name, values.tolist())
                is_categorical = level.dtype.startswith("Categorical")
                frame = frame.with_columns(
                    column.cast(library.Categorical) if is_categorical else column
                )
            elif level.categories is not None:
                frame[name] = library.Categorical(values, level.categories, level.ordered)
            else:
                frame[name] = library.array(values, level.dtype)
        return frame

    def values(self, X: NDArray[Any]) -> NDArray[Any]:
        """Samples (n, d) of numbers as an array of objects, where some stand for categories."""
        if not self.levels:
            return X
        values = X.astype(object)
        for position, level in self.levels.items():
            values[:, position] = level.values[_codes(X[:, position])]
        return values


def columns_of(estimator: Any, X: Any, levels: Levels | None = None) -> Columns | None:
    """The columns on which a classifier was fitted, None for arrays."""
    names = X.columns if levels else getattr(estimator, "feature_names_in_", None)
    if names is None:
        return None
    library = type(X).__module__.split(".")[0] if hasattr(X, "columns") else "pandas"
    return Columns(library, np.asarray(names, dtype=object), levels or {})


def as_container(X: NDArray[Any], columns: Columns | None) -> Any:
    """Put samples (n, d) into a DataFrame where the classifier was fitted on one."""
    return X if columns is None else columns.frame(X)


def find_levels(X: Any, categorical: NDArray[np.bool_]) -> Levels:
    """The categories of those categorical columns of X that do not hold numbers.

    Raises
    ------
    ValueError
        For a column with missing values.
    """
    levels = {}
    for position in categorical.nonzero()[0] if hasattr(X, "columns") else ():
        column = _safe_indexing(X, int(position), axis=1)
        values = values_of(column)
        if values.dtype.kind in "biuf":
            continue
        _refuse_missing(values, X.columns[position])
        first = {value: i for i, value in reversed(list(enumerate(values)))}
        places = np.sort([*first.values()])
        level = Level(values[places].astype(object), str(column.dtype))
        if level.dtype == "category":
            level = level._replace(
                categories=column.dtype.categories.tolist(), ordered=bool(column.dtype.ordered)
            )
        levels[int(position)] = level
    return levels


def encode(column: Any, level: Level, name: Any) -> NDArray[np.float64]:
    """Positions (n,) of the values of a column among its categories.

    Raises
    ------
    ValueError
        For a missing value, or one that is not among them.
    """
    values = values_of(column)
    _refuse_missing(values, name)
    place = {value: i for i, value in enumerate(level.values)}
    codes = np.array([place.get(value, -1) for value in values], dtype=float)
    if (codes < 0).any():
        unknown = values[codes < 0][0]
        raise ValueError(
            f"Column {name!r} of X has the category {unknown!r}, which no sample had in fit: "
            f"{level.values[:10].tolist()}."
        )
    return codes


def values_of(column: Any) -> NDArray[Any]:
    """Turn a column of a DataFrame into an array, with NaN where a number is missing."""
    values = np.asarray(column.to_numpy())
    if str(column.dtype) == "category":  # numbers may name categories, but do not measure
        return values.astype(object)
    if values.dtype.kind == "O":  # of a nullable column with missing values
        numeric = np.array([np.nan if v is None or is_pandas_na(v) else v for v in values])
        return numeric if numeric.dtype.kind in "biuf" else values
    return values


def mark_columns(
    wanted: Any, name: str, n_columns: int, names: NDArray[Any] | None
) -> NDArray[np.bool_]:
    """Mark columns that are given by position or by name.

    Parameters
    ----------
    wanted : array-like of int or of str, or None
    name : str
        Of the parameter.
    n_columns : int
    names : ndarray of shape (n_columns,) or None

    Returns
    -------
    mask : ndarray of shape (n_columns,)

    Raises
    ------
    ValueError
        For a position or a name that does not exist.
    """
    mask = np.zeros(n_columns, dtype=bool)
    for column in () if wanted is None else wanted:
        if isinstance(column, str):
            if names is None:
                raise ValueError(
                    f"{name}={list(wanted)!r} names columns, but fit got an array without names. "
                    "Fit on a DataFrame, or give positions."
                )
            if column not in names:
                raise ValueError(f"{name}: there is no column {column!r} in {list(names)[:10]}.")
            mask[list(names).index(column)] = True
        elif isinstance(column, Integral) and 0 <= int(column) < n_columns:
            mask[int(column)] = True
        else:
            raise ValueError(
                f"{name}: {column!r} is not the name of a column, nor a position from 0 to "
                f"{n_columns - 1}."
            )
    return mask


def _codes(values: NDArray[Any]) -> NDArray[np.intp]:
    return np.rint(values).astype(np.intp)


def _is_missing(value: Any) -> bool:
    return value is None or is_pandas_na(value) or value != value


def _refuse_missing(values: NDArray[Any], name: Any) -> None:
    missing = [i for i, value in enumerate(values) if _is_missing(value)]
    if missing:
        raise ValueError(
            f"Column {name!r} of X has no value in sample {missing[0]}. Impute or drop such "
            "samples."
        )
