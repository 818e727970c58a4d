"""Complexity of a boundary: oscillation along segments, linearity, distance from the data."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary.functional._shapes import shapes
from skboundary.functional.nearest_neighbors import build_index, search

__all__ = [
    "Linearity",
    "Oscillation",
    "distance_to_samples",
    "draw_partners",
    "linearity",
    "oscillation",
]

_MAX_NUMBERS = 2**22  # random keys, or elements of a batch, in memory at a time


class Oscillation(NamedTuple):
    """Changes of the predicted class along n segments, (n,) each."""

    changes: Tensor  # how often the predicted class changes
    share: Tensor  # changes / n_points


class Linearity(NamedTuple):
    """How well a hyperplane separates labeled samples; scalars."""

    distance: Tensor  # D_all
    error_distance: Tensor  # D_err; NaN where nothing is on the wrong side
    error_rate: Tensor


def draw_partners(n: int, m: int, generator: torch.Generator) -> Tensor:
    """Draw m other points for each of n points, without replacement.

    Parameters
    ----------
    n : int
    m : int
        At most n - 1 are drawn.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    partners : Tensor of shape (n, min(m, n - 1)), dtype int64
    """
    m = min(m, n - 1)
    if m < 1:
        return torch.empty(n, 0, dtype=torch.int64)
    parts = []
    for points in torch.arange(n)[:, None].split(max(1, _MAX_NUMBERS // n)):
        drawn = torch.rand(len(points), n - 1, generator=generator).topk(m).indices
        parts.append(drawn + (drawn >= points))
    return torch.cat(parts)


@shapes(start="n ...", end="n ...")
def oscillation(
    label: Callable[[Tensor], Tensor], start: Tensor, end: Tensor, *, n_points: int = 50
) -> Oscillation:
    """Count the changes of the predicted class along segments.

    DeepDIG's measure of complexity in the input space [1]_. A segment is evaluated at the points
    ``t start + (1 - t) end`` with ``t = u / n_points`` for u below n_points (so that `start`
    itself is left out); changes between any classes count. The mean share over
    segments between borderline samples is the IDC of a boundary: larger is more complex.

    Parameters
    ----------
    label : callable
        Predicted classes (b,) of points (b, ...).
    start, end : Tensor of shape (n, ...)
    n_points : int, default=50

    Returns
    -------
    oscillation : Oscillation

    Raises
    ------
    ValueError
        For shapes that do not match.

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_, section 4.1.

    Examples
    --------
    >>> import torch
    >>> stripes = lambda x: x[:, 0].floor().long() % 2
    >>> oscillation(stripes, torch.tensor([[0.5]]), torch.tensor([[3.5]])).changes
    tensor([3])
    """
    changes = torch.zeros(len(start), dtype=torch.int64, device=start.device)
    t = torch.arange(n_points, dtype=start.dtype, device=start.device) / n_points
    t = t.view(-1, *[1] * (start.ndim - 1))
    step = max(1, _MAX_NUMBERS // (n_points * max(1, start[:1].numel())))
    for first in range(0, len(start), step):
        part = slice(first, first + step)
        points = t * start[part, None] + (1 - t) * end[part, None]
        classes = label(points.flatten(0, 1)).view(-1, n_points)
        changes[part] = (classes[:, 1:] != classes[:, :-1]).sum(1)
    return Oscillation(changes, changes.to(start.dtype) / n_points)


@shapes(distance="n", positive="n")
def linearity(distance: Tensor, positive: Tensor) -> Linearity:
    """Measure linearity from the signed distances of samples to a hyperplane.

    ``D = mean|d| / (1 + mean|d|)``, over all samples (D_all) and over those on the wrong side
    (D_err), as in DeepDIG [1]_. D_err has the form of the complexity measure L1 [2]_, the error
    rate is L2.

    Parameters
    ----------
    distance : Tensor of shape (n,)
        Decision values divided by the norm of the weights, in units of the samples.
    positive : Tensor of shape (n,), dtype bool
        Which samples belong on the positive side.

    Returns
    -------
    linearity : Linearity
        NaN without samples.

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_, section 4.2.
    .. [2] T. K. Ho, M. Basu, "Complexity measures of supervised classification problems", IEEE
       TPAMI 24(3), 2002, `doi 10.1109/34.990132 <https://doi.org/10.1109/34.990132>`_.

    Examples
    --------
    >>> import torch
    >>> linearity(torch.tensor([1.0, -3.0]), torch.tensor([True, True])).error_distance
    tensor(0.7500)
    """
    wrong = (distance > 0) != positive

    def bounded(d: Tensor) -> Tensor:
        mean = d.abs().mean()
        return mean / (1 + mean)

    return Linearity(bounded(distance), bounded(distance[wrong]), wrong.to(distance.dtype).mean())


@shapes(points="n d", samples="m d")
def distance_to_samples(points: Tensor, samples: Tensor) -> Tensor:
    """Compute the Euclidean distance of each point to the nearest of some samples.

    Parameters
    ----------
    points : Tensor of shape (n, d)
    samples : Tensor of shape (m, d)

    Returns
    -------
    distance : Tensor of shape (n,)
        In the dtype of `points`.

    Raises
    ------
    ValueError
        For shapes that do not match.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.boundary_complexity import distance_to_samples
    >>> distance_to_samples(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0], [9.0, 9.0]]))
    tensor([5.])
    """
    return search(build_index(samples), points, k=1).distances[:, 0].to(points.dtype)
