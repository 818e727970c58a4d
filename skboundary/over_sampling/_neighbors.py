"""Nearest neighbor searches for the sampler: the exact one, or an object given by the user."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from sklearn.base import clone
from torch import Tensor

from skboundary._device import to_numpy
from skboundary.functional.pairing import Find, find_nearest


def resolve_neighbors(neighbors: Any) -> tuple[int, Find]:
    """Return the number of neighbors and the search that the parameter `neighbors` specifies.

    Parameters
    ----------
    neighbors : int or object with `fit`, `kneighbors` and `n_neighbors`

    Returns
    -------
    n_neighbors : int
    find : callable

    Raises
    ------
    ValueError
        When an object has no `n_neighbors`.
    TypeError
        For a class.
    """
    if not hasattr(neighbors, "fit"):
        return int(neighbors), find_nearest
    if isinstance(neighbors, type):
        raise TypeError(f"neighbors={neighbors!r} is a class: pass an instance.")
    if not hasattr(neighbors, "n_neighbors"):
        raise ValueError(
            f"neighbors={neighbors!r} has no attribute n_neighbors, which gives the number of "
            "neighbors. Add it, or use an int for the exact search."
        )
    return int(neighbors.n_neighbors), partial(_find_with, neighbors)


def _find_with(
    neighbors: Any, samples: Tensor, queries: Tensor, k: int, exclude: Tensor | None = None
) -> Tensor:
    fitted = clone(neighbors, safe=False).fit(to_numpy(samples))
    n = k if exclude is None else k + 1
    found = torch.as_tensor(fitted.kneighbors(to_numpy(queries), n)[1]).long()
    if found.shape != (len(queries), n) or not ((found >= 0) & (found < len(samples))).all():
        raise ValueError(
            f"neighbors={neighbors!r} did not find {n} of {len(samples)} samples for each of "
            f"{len(queries)} queries. Use an exact search, or make it more accurate."
        )
    if exclude is None:
        return found
    # the query is moved to the end and cut off; among duplicates it may be missing
    itself = found == exclude.cpu()[:, None]
    return found.gather(1, itself.int().argsort(dim=1, stable=True))[:, :k]
