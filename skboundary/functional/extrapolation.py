"""Biased extrapolation: selection of majority samples, target probability, and position.

A pair joins a sample of a minority class with a sample of a majority class. Its margin is
``logit[minority class] - logit[majority class]``, so that the pairwise probability of the
minority class is ``p = sigmoid(margin)``. Positions on the segment between the two samples run
from 0 at the minority sample to 1 at the majority sample.

References
----------
.. [1] S. Jeong, S. Lee, "Class specific biased extrapolation of images in latent space for
   imbalanced image classification".
.. [2] H. Lee et al., "Decision boundary re-sampling", IEEE Access, 2020.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skboundary.functional.root_finding import find_root

__all__ = [
    "asymmetric_target",
    "centroid_ratio",
    "margin_ratio",
    "place",
    "place_linear",
    "place_on_grid",
    "reachable",
    "segment_ratio",
    "select_majority",
    "thin",
]

_SLACK = 0.1  # of a pair's probability gap, kept from either end
_MARGIN = 20.0  # larger margins are as good as infinite: 2e-9 from certainty
_TOLERANCE = 1e-3  # of the margin, hence 2.5e-4 of the probability
_GRID = 100  # positions evaluated in decision-boundary re-sampling


# ------------------------------------------------------------------------------- selection


def select_majority(
    margins: Tensor, bias: str, fraction: float, *, generator: torch.Generator
) -> Tensor:
    """Select majority samples on their own side of the boundary by their probability.

    Parameters
    ----------
    margins : Tensor of shape (n,)
        Margins of the majority samples; negative on their own side.
    bias : {"random", "bottom", "top"}
        Whether to select any of them, those with the lowest, or those with the highest
        probability of the majority class.
    fraction : float in (0, 1]
        Share to select of the samples on their own side. If there is one, at least one is
        selected.
    generator : torch.Generator

    Returns
    -------
    selected : Tensor of shape (n_selected,), dtype int64
        Indices into `margins`, ascending. Of equal margins the first are selected.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.extrapolation import select_majority
    >>> margins = torch.tensor([-3.0, -0.1, 2.0, -1.0])
    >>> select_majority(margins, "bottom", 0.5, generator=torch.Generator())
    tensor([1, 3])
    """
    own_side = (margins < 0).nonzero()[:, 0]
    n = min(len(own_side), max(1, round(fraction * len(own_side))))
    if bias == "random" or not n:
        order = torch.randperm(len(own_side), generator=generator).to(margins.device)
        return own_side[order[:n]].sort().values
    key = margins[own_side] if bias == "top" else -margins[own_side]
    last = key.kthvalue(n).values  # not a sort, which takes ten times as long
    tied = (key == last).nonzero()[:, 0]
    selected = key < last
    selected[tied[: n - int(selected.sum())]] = True
    return own_side[selected]


# ---------------------------------------------------------------------- target probability


def centroid_ratio(crossings: Tensor, minority_mean: Tensor, majority_mean: Tensor) -> Tensor:
    """Compute the distance ratio of equation 1 from the class means.

    Parameters
    ----------
    crossings : Tensor of shape (n, d)
        Latent vectors z of the points where the segments cross the boundary.
    minority_mean, majority_mean : Tensor of shape (d,)
        Mean latent vectors of the two classes.

    Returns
    -------
    ratio : Tensor of shape (n,)
        ``|z - majority_mean| / |z - minority_mean|``, a ratio of L2 distances.
    """
    to_majority, to_minority = (
        (crossings - mean).norm(dim=1) for mean in (majority_mean, minority_mean)
    )
    return to_majority / to_minority.clamp_min(torch.finfo(to_minority.dtype).tiny)


def segment_ratio(position: Tensor) -> Tensor:
    """Compute the distance ratio of equation 1 along the segments.

    Parameters
    ----------
    position : Tensor of shape (n,)
        Positions t of the crossings, 0 at the minority and 1 at the majority sample.

    Returns
    -------
    ratio : Tensor of shape (n,)
        ``(1 - t) / t``.
    """
    return (1 - position) / position.clamp_min(torch.finfo(position.dtype).tiny)


def margin_ratio(minority_margins: Tensor, majority_margins: Tensor, fraction: float) -> Tensor:
    """Compute the distance ratio of equation 1 from the margins of the two classes.

    Parameters
    ----------
    minority_margins, majority_margins : Tensor of shape (n_minority,), (n_majority,)
        Samples on the wrong side of the boundary are left out.
    fraction : float in (0, 1]
        Share of each class, those with the smallest absolute margins, that is averaged.

    Returns
    -------
    ratio : Tensor of shape ()
        Mean absolute margin of the majority class over that of the minority class.
    """

    def mean_smallest(margins: Tensor) -> Tensor:
        own_side = margins[margins > 0]
        n = max(1, round(fraction * len(own_side)))
        return own_side.topk(n, largest=False).values.mean()

    return mean_smallest(-majority_margins) / mean_smallest(minority_margins)


def asymmetric_target(ratio: Tensor, gamma: float, p_min: float) -> Tensor:
    """Compute the target probability of equation 1 of the paper.

    `gamma` is the product of the paper's gamma and P_max.

    Parameters
    ----------
    ratio : Tensor
        Distance ratio ``d_normal / d_abnormal``.
    gamma : float
        Strength of the bias. Negative values move the samples into the region of the majority
        class.
    p_min : float
        The target is clipped to [p_min, 1 - p_min].

    Returns
    -------
    target : Tensor of the shape of ratio
        Probabilities ``0.5 + gamma * (max(1, ratio) - 1)`` of the minority class, clipped.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.extrapolation import asymmetric_target
    >>> asymmetric_target(torch.tensor([0.5, 1.5, 9.0]), gamma=-0.4, p_min=0.05)
    tensor([0.5000, 0.3000, 0.0500])
    """
    return (0.5 + gamma * (ratio.clamp_min(1) - 1)).clamp(p_min, 1 - p_min)


def reachable(target: Tensor, minority_margin: Tensor, majority_margin: Tensor) -> Tensor:
    """Clip targets to the probabilities between the parents, a tenth of their gap from either.

    Parameters
    ----------
    target : Tensor of shape (n,)
        Probabilities of the minority class.
    minority_margin, majority_margin : Tensor of shape (n,)
        Margins of the parents.

    Returns
    -------
    target : Tensor of shape (n,)
    """
    low, high = majority_margin.sigmoid(), minority_margin.sigmoid()
    slack = _SLACK * (high - low)
    return target.clamp(low + slack, high - slack)


# -------------------------------------------------------------------------------- position


def place_linear(target: Tensor, minority_margin: Tensor, majority_margin: Tensor) -> Tensor:
    """Compute the position of a probability on segments with a linear margin, in closed form.

    Parameters
    ----------
    target : Tensor of shape (n,)
        Probabilities between those of the parents.
    minority_margin, majority_margin : Tensor of shape (n,)

    Returns
    -------
    position : Tensor of shape (n,)
    """
    return (minority_margin - target.logit()) / (minority_margin - majority_margin)


def place(
    margin: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    minority_margin: Tensor,
    majority_margin: Tensor,
    *,
    max_iter: int = 60,
) -> tuple[Tensor, Tensor]:
    """Find the position of a probability on segments by root finding.

    Parameters
    ----------
    margin : callable
        ``margin(position, index)``: margins (m,) of the pairs `index` (m,) at the positions (m,).
    target : Tensor of shape (n,)
        Probabilities between those of the parents.
    minority_margin, majority_margin : Tensor of shape (n,)
    max_iter : int, default=60
        Maximum number of evaluations per pair.

    Returns
    -------
    position : Tensor of shape (n,)
        Where the probability jumps past the target, the side that is closer to it.
    found : Tensor of shape (n,), dtype bool
        Whether the probability there equals the target within 2.5e-4.
    """
    wanted = target.logit()
    first, last = (m.clamp(-_MARGIN, _MARGIN) - wanted for m in (minority_margin, majority_margin))
    root = find_root(
        lambda t, index: margin(t, index).clamp(-_MARGIN, _MARGIN) - wanted[index],
        torch.zeros_like(wanted),
        torch.ones_like(wanted),
        first,
        last,
        tol=(_TOLERANCE * (first - last)).clamp(max=_TOLERANCE),
        max_iter=max_iter,
    )
    return root.t, root.converged


# ------------------------------------------------------------- decision-boundary re-sampling


def thin(distances: Tensor, n: int) -> Tensor:
    """Select n pairs evenly over the ranks of their distances.

    Parameters
    ----------
    distances : Tensor of shape (n_pairs,)
    n : int

    Returns
    -------
    selected : Tensor of shape (min(n, n_pairs),), dtype int64
        The pairs with the ranks ``round(q * n_pairs / n)``, nearest first.
    """
    n = min(n, len(distances))
    ranks = (torch.arange(n, dtype=torch.float64) * len(distances) / n).round().long()
    return distances.argsort(stable=True)[ranks.to(distances.device)]


def place_on_grid(
    margin: Callable[[Tensor, Tensor], Tensor], majority_margin: Tensor
) -> tuple[Tensor, Tensor]:
    """Choose the position among .01, .02, ..., 1 with the probability closest to 0.5.

    Parameters
    ----------
    margin : callable
        As in `place`.
    majority_margin : Tensor of shape (n,)
        Margins at the position 1.

    Returns
    -------
    position : Tensor of shape (n,)
        In the dtype and on the device of `majority_margin`.
    accepted : Tensor of shape (n,), dtype bool
        Whether the probability there is within 0.1 of 0.5.
    """
    index = torch.arange(len(majority_margin), device=majority_margin.device)
    best = (majority_margin.sigmoid() - 0.5).abs()
    position = torch.ones_like(best)
    for step in range(1, _GRID):  # the paper counts from the majority sample: r = 0, .01, ..., .99
        t = torch.full_like(best, 1 - step / _GRID)
        off = (margin(t, index).sigmoid() - 0.5).abs()
        nearer = off < best
        best[nearer], position[nearer] = off[nearer], t[nearer]
    return position, best < 0.1
