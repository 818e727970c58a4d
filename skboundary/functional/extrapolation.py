"""Biased extrapolation: which majors, which probability, which point of a segment.

A pair joins a sample of a small class (the minor) with one of a larger class (the major). Margins
are ``logit[minor class] - logit[major class]``, so the pairwise probability of the minor class is
``p = sigmoid(margin)``; positions on a segment run from 0 at the minor to 1 at the major.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skboundary.functional.root_finding import find_root

_SLACK = 0.1  # of a pair's probability gap, kept from either end
_MARGIN = 20.0  # margins beyond are as good as infinite: 2e-9 from certainty
_TOLERANCE = 1e-3  # of the margin, hence 2.5e-4 of the probability
_GRID = 100  # positions that DBR tries


# ------------------------------------------------------------------------------- selection


def select_majors(
    margins: Tensor, bias: str, fraction: float, *, generator: torch.Generator
) -> Tensor:
    """Select majors by their probability, among those on their own side of the boundary.

    Parameters
    ----------
    margins : Tensor of shape (n_majors,)
    bias : {"random", "bottom", "top"}
        Any of them, those that are least, or those that are most sure of their class.
    fraction : float in (0, 1]
        Share of the majors on their side; at least one is selected when there is one.
    generator : torch.Generator

    Returns
    -------
    selected : Tensor of shape (n_selected,)
        Ascending positions in `margins`; of equal margins the first are selected.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.extrapolation import select_majors
    >>> margins = torch.tensor([-3.0, -0.1, 2.0, -1.0])
    >>> select_majors(margins, "bottom", 0.5, generator=torch.Generator())
    tensor([1, 3])
    """
    own_side = (margins < 0).nonzero()[:, 0]
    n = min(len(own_side), max(1, round(fraction * len(own_side))))
    if bias == "random":
        order = torch.randperm(len(own_side), generator=generator).to(margins.device)
    else:
        order = margins[own_side].argsort(descending=bias == "bottom", stable=True)
    return own_side[order[:n]].sort().values


# -------------------------------------------------------------------------- the probability


def centroid_ratio(crossings: Tensor, minor_mean: Tensor, major_mean: Tensor) -> Tensor:
    """Compute how much farther a crossing is from the center of the majors than of the minors.

    Parameters
    ----------
    crossings : Tensor of shape (n, d)
        Where segments meet the boundary.
    minor_mean, major_mean : Tensor of shape (d,)

    Returns
    -------
    ratio : Tensor of shape (n,)
        ``|z - major_mean| / |z - minor_mean|``.
    """
    to_major, to_minor = ((crossings - mean).norm(dim=1) for mean in (major_mean, minor_mean))
    return to_major / to_minor.clamp_min(torch.finfo(to_minor.dtype).tiny)


def segment_ratio(position: Tensor) -> Tensor:
    """Compute how much farther a crossing is from its major than from its minor.

    Parameters
    ----------
    position : Tensor of shape (n,)
        Of the crossings, 0 at the minor and 1 at the major.

    Returns
    -------
    ratio : Tensor of shape (n,)
        ``(1 - t) / t``.
    """
    return (1 - position) / position.clamp_min(torch.finfo(position.dtype).tiny)


def margin_ratio(minor_margins: Tensor, major_margins: Tensor, fraction: float) -> Tensor:
    """Compare the mean margin of the least sure majors with that of the least sure minors.

    Parameters
    ----------
    minor_margins, major_margins : Tensor of shape (n_minors,), (n_majors,)
        Those on the wrong side of the boundary are left out.
    fraction : float in (0, 1]
        Share of each class that is least sure.

    Returns
    -------
    ratio : Tensor of shape ()
    """

    def unsure(margins: Tensor) -> Tensor:
        own_side = margins[margins > 0]
        n = max(1, round(fraction * len(own_side)))
        return own_side.topk(n, largest=False).values.mean()

    return unsure(-major_margins) / unsure(minor_margins)


def asymmetric_target(ratio: Tensor, gamma: float, p_max: float, p_min: float) -> Tensor:
    """Compute the probability that equation 1 of the paper asks for.

    Parameters
    ----------
    ratio : Tensor
        ``d_normal / d_abnormal``.
    gamma : float
        Negative moves the new samples into the majors' region.
    p_max : float
    p_min : float
        The result is clipped to [p_min, 1 - p_min].

    Returns
    -------
    target : Tensor of the shape of ratio
        ``0.5 + gamma * p_max * (max(1, ratio) - 1)``, clipped.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.extrapolation import asymmetric_target
    >>> asymmetric_target(torch.tensor([0.5, 1.5, 9.0]), gamma=-0.4, p_max=1.0, p_min=0.05)
    tensor([0.5000, 0.3000, 0.0500])
    """
    return (0.5 + gamma * p_max * (ratio.clamp_min(1) - 1)).clamp(p_min, 1 - p_min)


def reachable(target: Tensor, minor_margin: Tensor, major_margin: Tensor) -> Tensor:
    """Clip targets to what lies between the parents, a tenth of their gap from either.

    Parameters
    ----------
    target : Tensor of shape (n,)
        Probabilities of the minor class.
    minor_margin, major_margin : Tensor of shape (n,)

    Returns
    -------
    target : Tensor of shape (n,)
    """
    low, high = major_margin.sigmoid(), minor_margin.sigmoid()
    slack = _SLACK * (high - low)
    return target.clamp(low + slack, high - slack)


# ---------------------------------------------------------------------------- the position


def place_linear(target: Tensor, minor_margin: Tensor, major_margin: Tensor) -> Tensor:
    """Find the position of a probability where the margin is linear: in closed form.

    Parameters
    ----------
    target : Tensor of shape (n,)
        Probabilities between those of the parents.
    minor_margin, major_margin : Tensor of shape (n,)

    Returns
    -------
    position : Tensor of shape (n,)
    """
    return (minor_margin - target.logit()) / (minor_margin - major_margin)


def place(
    margin: Callable[[Tensor, Tensor], Tensor],
    target: Tensor,
    minor_margin: Tensor,
    major_margin: Tensor,
    *,
    max_iter: int = 60,
) -> tuple[Tensor, Tensor]:
    """Find the position of a probability by root finding.

    Parameters
    ----------
    margin : callable
        ``margin(position, rows)``: margins (m,) of the pairs numbered `rows` (m,) at the
        positions (m,).
    target : Tensor of shape (n,)
        Probabilities between those of the parents.
    minor_margin, major_margin : Tensor of shape (n,)
    max_iter : int, default=60
        Evaluations of a pair at most.

    Returns
    -------
    position : Tensor of shape (n,)
        Where the probability jumps over the target, the side that is nearer to it.
    found : Tensor of shape (n,)
        Whether the probability there is the target's to 2.5e-4.
    """
    wanted = target.logit()
    first, last = (m.clamp(-_MARGIN, _MARGIN) - wanted for m in (minor_margin, major_margin))
    root = find_root(
        lambda t, rows: margin(t, rows).clamp(-_MARGIN, _MARGIN) - wanted[rows],
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
    """Take every so-manieth pair in the order of their distances, n in all.

    Parameters
    ----------
    distances : Tensor of shape (n_pairs,)
    n : int

    Returns
    -------
    taken : Tensor of shape (min(n, n_pairs),)
        The pairs of the ranks ``round(q * n_pairs / n)``, nearest first.
    """
    n = min(n, len(distances))
    ranks = (torch.arange(n, dtype=torch.float64) * len(distances) / n).round().long()
    return distances.argsort(stable=True)[ranks.to(distances.device)]


def place_on_grid(
    margin: Callable[[Tensor, Tensor], Tensor], major_margin: Tensor
) -> tuple[Tensor, Tensor]:
    """Try the positions .01, .02, ..., 1 of each segment; keep the one nearest to p = 0.5.

    Parameters
    ----------
    margin : callable
        As in `place`.
    major_margin : Tensor of shape (n,)
        At the position 1.

    Returns
    -------
    position : Tensor of shape (n,)
        With the dtype and the device of `major_margin`.
    accepted : Tensor of shape (n,)
        Whether the probability there is within 0.1 of 0.5.
    """
    rows = torch.arange(len(major_margin), device=major_margin.device)
    best = (major_margin.sigmoid() - 0.5).abs()
    position = torch.ones_like(best)
    for step in range(1, _GRID):  # DBR counts from the major: r = 0, .01, ..., .99
        t = torch.full_like(best, 1 - step / _GRID)
        off = (margin(t, rows).sigmoid() - 0.5).abs()
        nearer = off < best
        best[nearer], position[nearer] = off[nearer], t[nearer]
    return position, best < 0.1
