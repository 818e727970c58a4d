"""Plans: the parents and positions of synthetic samples, and the samples made from them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import progress
from skboundary._callbacks import pass_task
from skboundary.over_sampling._geometry import CHUNK, LatentGeometry, segment_points


class Plan(NamedTuple):
    """Synthetic samples before they are made."""

    parents: Tensor  # (n, 2) indices of samples of X
    positions: Tensor  # (n,) from 0 at the first parent to 1 at the second
    targets: Tensor  # (n,) target probabilities, NaN = none
    classes: Tensor  # (n, 2) columns of the logits: minority and majority class
    n_fallback: int = 0


def join(plans: list[Plan]) -> Plan:
    """Concatenate plans."""
    none = torch.empty(0, dtype=torch.float64)
    empty = Plan(torch.empty(0, 2).long(), none, none, torch.empty(0, 2).long())
    plans = [empty, *plans]
    return Plan(
        torch.cat([plan.parents for plan in plans]),
        torch.cat([plan.positions for plan in plans]),
        torch.cat([plan.targets for plan in plans]),
        torch.cat([plan.classes for plan in plans]),
        sum(plan.n_fallback for plan in plans),
    )


def make_samples(
    geometry: LatentGeometry,
    plan: Plan,
    finish: Callable[[NDArray[Any]], NDArray[Any]] | None,
) -> tuple[NDArray[Any], Tensor]:
    """Make the samples of a plan, and compute their probabilities.

    Parameters
    ----------
    geometry : LatentGeometry
        Its latent vectors are not used.
    plan : Plan
    finish : callable, default=None
        Applied to the samples, in place.

    Returns
    -------
    samples : ndarray of shape (n, ...)
    probabilities : Tensor of shape (n,)
        Pairwise probabilities of the minority class.
    """
    samples = np.empty((len(plan.parents), *geometry.X.shape[1:]), dtype=geometry.X.dtype)
    margins = torch.empty(len(samples), dtype=torch.float64)
    with (
        pass_task("new-samples", -(-len(samples) // CHUNK)),
        progress(len(samples), "new samples", geometry.verbose) as bar,
    ):
        for start in range(0, len(samples), CHUNK):
            part = slice(start, start + CHUNK)
            parents, classes = plan.parents[part], plan.classes[part]
            points = segment_points(geometry.X, parents, plan.positions[part], samples[part])
            if finish is not None:
                points = finish(points)
            if geometry.linear and finish is None:
                first, last = (geometry.logits[end].gather(1, classes) for end in parents.unbind(1))
                logits = torch.lerp(first, last, plan.positions[part, None])
            else:
                logits = geometry.logits_of(points).gather(1, classes)
            margins[part] = logits[:, 0] - logits[:, 1]
            bar.update(len(points))
    return samples, margins.sigmoid()
