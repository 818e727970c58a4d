"""Method "sparse": the fewest changed columns, with values of training samples."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

import torch

from skboundary._device import to_tensor
from skboundary.boundary._ends import Ends
from skboundary.boundary._oracle import Oracle
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.sparse_search import sparse_search


class Sparsity(NamedTuple):
    """Effort of the method."""

    n_values: int  # of a column, that the growth tries
    n_paths: int  # that each of its steps continues
    n_starts: int  # partners whose columns are set back


def sparse(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Change the fewest columns; scores guide the search where there are any, labels decide."""
    assert problem.partners is not None  # of the method's entry in the table
    effort: Sparsity = settings.effort
    x, table = problem.x, settings.table
    points, exist = (part[:, : effort.n_starts] for part in problem.partners[:2])
    found = sparse_search(
        oracle.labels,
        x,
        problem.source,
        target=problem.target,
        bounds=problem.bounds(),
        values=to_tensor(problem.training.X).to(x),
        starts=torch.where(exist[:, :, None], points, x[:, None]),
        score=oracle.logits if oracle.network.has_scores else None,
        categorical=None if table is None else torch.from_numpy(table.categorical).to(x.device),
        max_changes=None if table is None else table.max_changes,
        n_values=effort.n_values,
        n_paths=effort.n_paths,
    )
    return Ends(x, found.points, problem.target, found.n_forward, found=found.success)
