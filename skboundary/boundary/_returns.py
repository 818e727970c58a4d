"""What `BoundarySampleExtractor.transform` returns, and the names of its columns."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary.boundary._pairs import BoundaryPairs

RETURNS = ("boundary", "perturbation", "distance", "interval", "class_distances")


def check_returns(returns: str, norm: Any, has_categories: bool, has_levels: bool) -> None:
    """Refuse lower bounds in other norms than 2, and differences of what is no number.

    Raises
    ------
    ValueError
        With the parameter to change.
    """
    if returns == "interval" and has_categories:
        raise ValueError(
            "returns='interval' has lower bounds of distances through values in between, which "
            "categorical columns do not have: use returns='distance'."
        )
    if returns == "perturbation" and has_levels:
        raise ValueError(
            "returns='perturbation' are differences, and some categorical columns hold no numbers: "
            "use returns='boundary', or extract_pairs(X).to_frame()."
        )
    if returns == "interval" and norm != 2:
        raise ValueError(
            f"returns='interval' has lower bounds in the norm 2 only, not norm={norm!r}: use "
            "norm=2, or returns='distance'."
        )


def names_of(returns: str, columns: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Names of the columns of the output, from those of X."""
    names = {
        "boundary": columns,
        "perturbation": [f"perturbation_{name}" for name in columns],
        "distance": ["boundary_distance"],
        "interval": ["lower_distance", "upper_distance"],
        "class_distances": [f"distance_{label}" for label in classes],
    }
    return np.array(names[returns], dtype=object)


def successful_distances(pairs: BoundaryPairs) -> NDArray[Any]:
    """Distances (n,) of points beyond the boundary from their samples, NaN where none is found."""
    return np.where(pairs.success, pairs.start_distance, pairs.start_distance.dtype.type(np.nan))


def partners(pairs: BoundaryPairs) -> NDArray[Any]:
    """Points (n, ...) beyond the boundary; the sample where none is found."""
    points = pairs.outer.copy()
    points[~pairs.success] = pairs.start[~pairs.success]
    return points
