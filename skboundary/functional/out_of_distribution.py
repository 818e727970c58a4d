"""Scores of samples that are unlike the training data, and p-values from calibration samples."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor

from skboundary.functional._float64 import float64_device
from skboundary.functional._shapes import shapes

__all__ = ["boundary_score", "conformal_p_values", "head_distances"]


@shapes(latent="n d", weight="c d", bias="c")
def head_distances(latent: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the distances of latent vectors from the boundaries of a linear head.

    With logits ``w_c . z + b_c`` and the predicted class y, the points where y and c are equally
    probable are a hyperplane at the distance ``(w_y . z + b_y - w_c . z - b_c) / ||w_y - w_c||``
    (equation 5 of [1]_). The smallest of them is the distance to the nearest boundary.

    Parameters
    ----------
    latent : Tensor of shape (n, d)
    weight : Tensor of shape (n_classes, d)
    bias : Tensor of shape (n_classes,)

    Returns
    -------
    distances : Tensor of shape (n, n_classes)
        At least 0, in units of `latent` and in float64, on the device of `latent` or on the CPU
        where that has no float64. Infinite for the predicted class, and for a class with the same
        weights, from which no boundary separates it.

    References
    ----------
    .. [1] L. Liu, Y. Qin, "Fast decision boundary based out-of-distribution detector",
       `arXiv 2312.11536 <https://arxiv.org/abs/2312.11536>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.out_of_distribution import head_distances
    >>> weight, bias = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([0.0, -5.0])
    >>> head_distances(torch.tensor([[5.0, 0.0]]), weight, bias)
    tensor([[inf, 4.]], dtype=torch.float64)
    """
    latent, weight, bias = (_as_float64(part, latent) for part in (latent, weight, bias))
    logits = latent @ weight.T + bias
    largest, predicted = logits.max(1, keepdim=True)
    # products would leave a distance between equal weights
    apart = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist")[
        predicted[:, 0]
    ]
    return torch.where(apart > 0, (largest - logits) / apart, torch.inf)


@shapes(latent="n d", weight="c d", bias="c", center="d")
def boundary_score(latent: Tensor, weight: Tensor, bias: Tensor, center: Tensor) -> Tensor:
    """Compute the mean distance from the boundaries of a linear head, relative to the center.

    ``mean of the distances to the other classes / ||z - center||``, the score of fDBD (equation 8
    of [1]_).

    Parameters
    ----------
    latent : Tensor of shape (n, d)
    weight : Tensor of shape (n_classes, d)
    bias : Tensor of shape (n_classes,)
    center : Tensor of shape (d,)
        Mean latent vector of the training samples.

    Returns
    -------
    score : Tensor of shape (n,)
        The higher, the more like the training samples. In float64, as from `head_distances`.
        Classes that no boundary separates from the predicted one do not count; where there are no
        others, the score is infinite.

    References
    ----------
    .. [1] L. Liu, Y. Qin, "Fast decision boundary based out-of-distribution detector",
       `arXiv 2312.11536 <https://arxiv.org/abs/2312.11536>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.out_of_distribution import boundary_score
    >>> weight, bias = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([0.0, -5.0])
    >>> boundary_score(torch.tensor([[5.0, 0.0]]), weight, bias, torch.tensor([1.0, 3.0]))
    tensor([0.8000], dtype=torch.float64)
    """
    distances = head_distances(latent, weight, bias)
    counted = distances.isfinite()
    total, number = distances.where(counted, 0.0).sum(1), counted.sum(1)
    from_center = (_as_float64(latent, latent) - _as_float64(center, latent)).norm(dim=1)
    score = total / number / from_center.clamp_min(torch.finfo(torch.float64).tiny)
    return score.where(number > 0, torch.inf)


@shapes(calibration="m")
def conformal_p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """Compare scores with those of calibration samples.

    ``p = (1 + number of calibration scores >= score) / (m + 1)``. If a score and the calibration
    scores are exchangeable, ``P(p <= a) <= a`` for every a [1]_. With equal scores it is lower.

    Parameters
    ----------
    scores : Tensor of shape (...)
        The higher, the stranger.
    calibration : Tensor of shape (m,)

    Returns
    -------
    p : Tensor of shape (...)
        Float64, in [1 / (m + 1), 1].

    References
    ----------
    .. [1] G. Shafer, V. Vovk, "A tutorial on conformal prediction", JMLR 9, 2008,
       `arXiv 0706.3188 <https://arxiv.org/abs/0706.3188>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.out_of_distribution import conformal_p_values
    >>> conformal_p_values(torch.tensor([0.0, 2.0, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
    tensor([1.0000, 0.7500, 0.2500], dtype=torch.float64)
    """
    below = torch.searchsorted(calibration.sort().values, scores.contiguous())
    return (1 + len(calibration) - below).double() / (len(calibration) + 1)


def _as_float64(values: Tensor, like: Tensor) -> Tensor:
    return values.to(float64_device(like), torch.float64)
