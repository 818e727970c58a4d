"""Method "segment": the segment to a training sample of another class."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch

from skboundary.boundary._ends import MIDPOINT, Ends
from skboundary.boundary._line_search import between
from skboundary.boundary._oracle import Oracle
from skboundary.boundary.methods._problem import Problem, Settings

_LIMIT = 120  # evaluations of a segment at most
_OTHERS = MIDPOINT + 5  # with the prediction, the latent vector and both ends


def segment(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Search the segment from each sample to its partner, a training sample of another class."""
    assert problem.partners is not None  # of the method's entry in the table
    index = problem.partners.exist[:, 0].nonzero()[:, 0]
    inner, outer = problem.x.clone(), problem.x.clone()
    n_evaluations = torch.zeros_like(problem.source)
    if len(index):
        part, nearest = problem.select(index), problem.partners.select((index, 0))
        inner[index], outer[index], n_evaluations[index] = between(
            oracle,
            part.x,
            nearest.points,
            part.source,
            part.target,
            settings.margin_tol,
            limit=_LIMIT if part.budget is None else part.budget - _OTHERS - 2 * oracle.n_runs,
            known=(part.known, nearest.known),
            pairs=settings.pairs,
        )
    return Ends(inner, outer, problem.target, n_evaluations)
