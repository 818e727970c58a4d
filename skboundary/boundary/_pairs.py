"""Pairs of points on either side of a boundary, as the user gets them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils._optional_dependencies import check_pandas_support

STATUSES = np.array(["ok", "collapsed", "third_class", "already_target", "not_found", "failed"])
OK, COLLAPSED, THIRD_CLASS, ALREADY_TARGET, NOT_FOUND, FAILED = range(6)


@dataclass(frozen=True, eq=False)
class BoundaryPairs:
    """Pairs of points, one on either side of the boundary between two classes.

    Read more in the :ref:`User Guide <boundary_samples>`.

    Parameters
    ----------
    inner : ndarray of shape (n_pairs, ...)
        The point that is predicted as `source`, with a margin of 1 to 2 times `margin_tol`, or of
        8 eps max|logit| where that is more; or with PM's confidence.
    outer : ndarray of shape (n_pairs, ...)
        The point that is predicted as `target`.
    midpoint : ndarray of shape (n_pairs, ...)
        On the segment between them, where the two classes are equally probable: to within 1e-4,
        or to within what the rounding of the logits, 8 eps max|logit|, or of larger terms that
        cancel in them allows. The middle if only predicted labels are used.
    distance : ndarray of shape (n_pairs,)
        Between inner and outer, in the extractor's norm; NaN where there is no pair.
    start : ndarray of shape (n_pairs, ...)
        The sample that the search of a pair started from.
    start_distance : ndarray of shape (n_pairs,)
        Between start and outer: what `transform` calls the distance.
    index : ndarray of shape (n_pairs,) of int
        Position of the start among the samples given to `extract_pairs`, or as `init` to `extract`;
        otherwise among the training samples, and -1 for noise.
    source, target : ndarray of shape (n_pairs,)
        Class labels.
    margin_inner, margin_outer : ndarray of shape (n_pairs,)
        Score of `source` minus score of `target`: positive at `inner`, negative at `outer`. NaN
        if only predicted labels are used.
    success : ndarray of shape (n_pairs,) of bool
        Status "ok". The others hold the last points of their search, or the sample where these are
        not finite.
    status : ndarray of shape (n_pairs,)
        "ok"; "collapsed": PM's penalty was too large for the slope there; "third_class": an end
        is predicted as neither class; "already_target": the sample is of the target class;
        "not_found"; "failed": its task failed three times on a cluster, and it is left as it was.
    n_evaluations : ndarray of shape (n_pairs,)
        Forward and backward passes of a pair, to predict, to search and to verify; the training
        of "deepdig" is not counted.
    feature_names : ndarray of shape (n_features,), default=None
        Names of the columns, where the extractor was fitted on a DataFrame.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skboundary import BoundarySampleExtractor
    >>> X, y = load_iris(return_X_y=True)
    >>> extractor = BoundarySampleExtractor(method="segment", random_state=0).fit(X, y)
    >>> pairs = extractor.extract(6)
    >>> pairs
    <BoundaryPairs of shape (4,): 4 ok, 2 third_class>
    >>> X_border, y_border = pairs.to_dataset()
    >>> bool((extractor.estimator_.predict(X_border) == y_border).all())
    True
    """

    inner: NDArray[Any]
    outer: NDArray[Any]
    midpoint: NDArray[Any]
    distance: NDArray[Any]
    start: NDArray[Any]
    start_distance: NDArray[Any]
    index: NDArray[np.intp]
    source: NDArray[Any]
    target: NDArray[Any]
    margin_inner: NDArray[Any]
    margin_outer: NDArray[Any]
    success: NDArray[np.bool_]
    status: NDArray[Any]
    n_evaluations: NDArray[np.int64]
    feature_names: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.success)

    def __repr__(self) -> str:  # the arrays themselves would fill pages
        names, counts = np.unique(self.status, return_counts=True)
        statuses = [f"{count} {name}" for name, count in zip(names, counts, strict=True)]
        return f"<BoundaryPairs of shape {self.inner.shape[1:]}: {', '.join(statuses) or 'none'}>"

    def to_dataset(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Collect the ends of the successful pairs.

        Returns
        -------
        X : ndarray of shape (2 * n_successful, ...)
            All inner points, then all outer points.
        y : ndarray of shape (2 * n_successful,)
            Their predicted classes.
        """
        ok = self.success
        X = np.concatenate([self.inner[ok], self.outer[ok]])
        return X, np.concatenate([self.source[ok], self.target[ok]])

    def to_frame(self) -> Any:
        """List what changes from each sample to its point beyond the boundary.

        Returns
        -------
        frame : pandas.DataFrame
            For each successful pair one row per changed column, indexed by "sample" (`index`) and
            "column": the value "before" (of `start`) and "after" (of `outer`), and the "change",
            all in the units of X. The change of a value that is no number is NaN.

        Raises
        ------
        ImportError
            Where pandas is not installed.
        ValueError
            For samples that are no vectors.
        """
        pandas = check_pandas_support("BoundaryPairs.to_frame")
        if self.start.ndim != 2:
            raise ValueError(
                f"to_frame lists columns, but samples have the shape {self.start.shape[1:]}. Use "
                "outer - start."
            )
        before, after = self.start[self.success], self.outer[self.success]
        names = self.feature_names
        if names is None:
            names = np.array([f"x{i}" for i in range(before.shape[1])], dtype=object)
        pair, column = (before != after).nonzero()
        old, new = before[pair, column], after[pair, column]
        if old.dtype == object:
            change = [
                b - a if isinstance(a, Real) else np.nan for a, b in zip(old, new, strict=True)
            ]
        else:
            change = new - old
        index = [self.index[self.success][pair], names[column]]
        return pandas.DataFrame(
            {"before": old, "after": new, "change": change},
            index=pandas.MultiIndex.from_arrays(index, names=["sample", "column"]),
        )


def name_pairs(classes: NDArray[Any], pairs: Iterable[tuple[int, int]]) -> str:
    """Name the first few of some pairs of classes; a target of -1 is any other class."""
    found = sorted({*pairs})
    names = [f"{classes[s]} and {'others' if t < 0 else classes[t]}" for s, t in found[:4]]
    return ", ".join(names + ["..."] * (len(found) > 4))
