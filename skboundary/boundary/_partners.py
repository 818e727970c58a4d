"""Partners of samples: training samples across the boundary that a search starts from."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._device import to_tensor
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._table import Table
from skboundary.boundary._training_samples import Starts, find_partners
from skboundary.boundary.methods._problem import Partners
from skboundary.boundary.methods._registry import Method

_TRIED = 20  # partners of a sample whose immutable columns are replaced
_SHARE = 10  # a tenth of the queries, where they are limited, goes to that


def count_partners(method: Method, table: Table | None, budget: int | None) -> int:
    """Number of training samples to look up for each sample."""
    if table is None or not table.keeps or not method.n_partners:
        return method.n_partners
    return _TRIED if budget is None else min(_TRIED, max(1, budget // _SHARE))


def nearest_partners(
    classifier: FittedClassifier,
    method: Method,
    table: Table | None,
    starts: Starts,
    source: NDArray[np.intp],
    target: NDArray[np.intp],
    k: int,
) -> tuple[NDArray[np.intp], int]:
    """Nearest training samples (n, k) across the boundary, and how often it took to run x."""
    n_runs = 0
    if method.space != "latent":
        dtype, training = classifier.network.dtype, classifier.training.X
        queries, space = (to_tensor(X).flatten(1).to(dtype) for X in (starts.X, training))
        if table is not None:
            scaled = method.space == "scaled"
            queries = table.vectors(queries, space, scaled=scaled)
            space = table.vectors(space, space, scaled=scaled)
    else:
        space = classifier.training_latent()
        if starts.latent is not None:
            queries = starts.latent
        else:
            queries, n_runs = classifier.latent(starts.X), int(classifier.network.has_linear)
    return find_partners(classifier.training, space, queries, source, target, k), n_runs


def keep_columns(
    oracle: Oracle,
    partners: Partners,
    x: Tensor,
    source: Tensor,
    target: Tensor,
    table: Table,
    k: int,
) -> Partners:
    """Give partners the immutable columns of x (n, d), and keep k of those still across.

    They are run once for each sample.
    """
    points = table.fix(partners.points, x[:, None])
    known = oracle.inspect(points.flatten(0, 1)).select(
        torch.arange(points.shape[0] * points.shape[1], device=x.device).view(points.shape[:2])
    )
    wanted, own = target[:, None], source[:, None]
    across = torch.where(wanted < 0, known.labels != own, known.labels == wanted) & partners.exist
    order = (~across).byte().argsort(dim=1, stable=True)[:, :k]
    every = torch.arange(len(x), device=x.device)[:, None]
    return Partners(points, across, known).select((every, order))
