"""Method "segment": the segment to a training sample of another class."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch

from skboundary.boundary._line_search import between
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends
from skboundary.boundary.methods._problem import Settings, Task


def segment(oracle: Oracle, task: Task, settings: Settings) -> Ends:
    """Look on the segment from each row to its partner, a training row of another class."""
    rows = (task.partners[:, 0] >= 0).nonzero()[:, 0]
    inner, outer = task.x.clone(), task.x.clone()
    n_evaluations = torch.zeros_like(task.source)
    if len(rows):
        ends = task.pool.take(task.partners[rows, 0], task.x)
        found = between(
            oracle, task.x[rows], ends, task.source[rows], task.target[rows], settings.margin_tol
        )
        inner[rows], outer[rows], n_evaluations[rows] = found[:3]
    return Ends(inner, outer, n_evaluations)
