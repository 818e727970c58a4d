"""Method "segment": the segment to a training sample of another class."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch

from skboundary.boundary._line_search import between
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends
from skboundary.boundary.methods._problem import Problem, Settings


def segment(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Look on the segment from each sample to its partner, a training sample of another class."""
    index = (problem.partners[:, 0] >= 0).nonzero()[:, 0]
    inner, outer = problem.x.clone(), problem.x.clone()
    n_evaluations = torch.zeros_like(problem.source)
    if len(index):
        ends = problem.training.take(problem.partners[index, 0], problem.x)
        found = between(
            oracle,
            problem.x[index],
            ends,
            problem.source[index],
            problem.target[index],
            settings.margin_tol,
        )
        inner[index], outer[index], n_evaluations[index] = found[:3]
    return Ends(inner, outer, n_evaluations)
