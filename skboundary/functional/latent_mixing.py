"""LaSeNN: outputs of a classifier averaged with its outputs for nearest neighbors."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor

from skboundary.functional._float64 import float64_device
from skboundary.functional._shapes import shapes

__all__ = [
    "average_neighbors",
    "class_means",
    "flip_bound",
    "inverse_distances",
    "merge_lists",
    "mix",
    "project_between_means",
]

_CHUNK = 4096  # samples whose float64 copies are in memory at a time


def mix(query: Tensor, neighbors: Tensor, query_weight: float) -> Tensor:
    """Average a sample's output with the mean output of its neighbors.

    The first formula of LaSeNN [1]_: ``w C(x_q) + (1 - w) / k * sum of C(x) over the k
    neighbors``.

    Parameters
    ----------
    query : Tensor of shape (..., n_classes)
        Outputs C(x_q) of the samples.
    neighbors : Tensor of shape (..., k, n_classes)
        Outputs C(x) for their neighbors: predicted, not the true labels.
    query_weight : float in [0, 1]
        The weight w.

    Returns
    -------
    mixed : Tensor of shape (..., n_classes)

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       `arXiv 2310.03927 <https://arxiv.org/abs/2310.03927>`_, algorithm 1.

    Examples
    --------
    >>> import torch
    >>> mix(torch.tensor([0.6, 0.4]), torch.tensor([[0.0, 1.0], [0.2, 0.8]]), 0.5)
    tensor([0.3500, 0.6500])
    """
    return query_weight * query + (1 - query_weight) * neighbors.mean(-2)


def average_neighbors(neighbors: Tensor, weights: Tensor | None = None) -> Tensor:
    """Compute the weighted mean of what the neighbors of a sample contribute.

    ``sum_i a_i v_i``. With labels as ``v_i`` and ``a_i`` proportional to ``exp(-d_i)`` it is the
    distribution of kNN-LM [1]_.

    Parameters
    ----------
    neighbors : Tensor of shape (..., k, n_classes)
        Outputs of the neighbors, or their labels as 0 and 1.
    weights : Tensor of shape (..., k), default=None
        Their sum over k is 1. None is 1/k each.

    Returns
    -------
    mean : Tensor of shape (..., n_classes)

    References
    ----------
    .. [1] U. Khandelwal et al., "Generalization through memorization: nearest neighbor language
       models", `arXiv 1911.00172 <https://arxiv.org/abs/1911.00172>`_.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.latent_mixing import average_neighbors
    >>> average_neighbors(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0.75, 0.25]))
    tensor([0.2500, 0.7500])
    """
    if weights is None:
        return neighbors.mean(-2)
    return (weights.to(neighbors.dtype)[..., None] * neighbors).sum(-2)


def inverse_distances(distances: Tensor) -> Tensor:
    """Weigh neighbors by the inverse of their distances, relative to the nearest one.

    ``a_i = min_j d_j / d_i``. If some neighbors are at distance 0, they weigh 1 and all others 0.

    Parameters
    ----------
    distances : Tensor of shape (..., k)
        At least 0.

    Returns
    -------
    weights : Tensor of shape (..., k)
        In [0, 1].

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.latent_mixing import inverse_distances
    >>> inverse_distances(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]]))
    tensor([[1.0000, 0.5000, 0.2500],
            [1.0000, 1.0000, 0.0000]])
    """
    nearest = distances.amin(-1, keepdim=True)
    return torch.where(distances > nearest, nearest / distances, 1.0)


def flip_bound(query_weight: float) -> float:
    """Compute the largest lead of the first class over the second that neighbors can overturn.

    With probabilities, ``p1 - p2 < (1 - w) / w`` is necessary for a prediction to change.

    Parameters
    ----------
    query_weight : float in [0, 1]

    Returns
    -------
    bound : float
        Infinite for a weight of 0.

    Examples
    --------
    >>> round(flip_bound(0.88), 4)
    0.1364
    """
    return (1 - query_weight) / query_weight if query_weight > 0 else float("inf")


@shapes(distances="n m", indices="n m")
def merge_lists(distances: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Merge several neighbor lists of a sample, each training sample counted once.

    Parameters
    ----------
    distances, indices : Tensor of shape (n, m)
        Concatenated lists. A training sample may be in several; its smallest distance counts.
    k : int
        At least k different training samples must be listed for every sample.

    Returns
    -------
    distances, indices : Tensor of shape (n, k)
        The k closest; ties are resolved by the lowest index.

    Raises
    ------
    ValueError
        For shapes that do not match.

    Examples
    --------
    >>> import torch
    >>> d, i = torch.tensor([[1.0, 2.0, 0.5, 3.0]]), torch.tensor([[7, 8, 8, 9]])
    >>> merge_lists(d, i, 2)
    (tensor([[0.5000, 1.0000]]), tensor([[8, 7]]))
    """
    distances, order = distances.sort(dim=1, stable=True)
    indices, by_index = indices.gather(1, order).sort(dim=1, stable=True)
    distances = distances.gather(1, by_index)
    again = indices[:, 1:] == indices[:, :-1]
    distances[:, 1:] = distances[:, 1:].masked_fill(again, torch.inf)
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], indices.gather(1, order)[:, :k]


@shapes(latent="n d", labels="n")
def class_means(latent: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """Compute the mean latent vector of each class, in float64.

    Parameters
    ----------
    latent : Tensor of shape (n, d)
    labels : Tensor of shape (n,)
        Integers below n_classes.
    n_classes : int

    Returns
    -------
    means : Tensor of shape (n_classes, d)
        NaN for a class without samples. On the device of `latent`, or on the CPU where that has
        no float64.

    Examples
    --------
    >>> import torch
    >>> class_means(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]), 2)
    tensor([[1.],
            [5.]], dtype=torch.float64)
    """
    device = float64_device(latent)
    sums = torch.zeros(n_classes, latent.shape[1], dtype=torch.float64, device=device)
    for some, of_class in zip(latent.split(_CHUNK), labels.split(_CHUNK), strict=True):
        sums.index_add_(0, of_class.to(device), some.to(device, torch.float64))
    return sums / torch.bincount(labels.to(device), minlength=n_classes)[:, None]


@shapes(latent="n d", means="c d")
def project_between_means(latent: Tensor, means: Tensor) -> tuple[Tensor, Tensor]:
    """Project samples on the line from each class mean to the nearest other class mean.

    ``t(x) = (x - mu_0) . (mu_1 - mu_0) / ||mu_1 - mu_0||^2``: 0 at the class's own mean, 1 at
    the other one. LaSeNN [1]_ shows changed predictions in the gap between them.

    Parameters
    ----------
    latent : Tensor of shape (n, d)
    means : Tensor of shape (n_classes, d)

    Returns
    -------
    projections : Tensor of shape (n, n_classes)
        Column c is for the line that starts at class c. In float64, on the device of `latent` or
        on the CPU where that has no float64.
    nearest : Tensor of shape (n_classes,)
        The class at the other end of each line.

    References
    ----------
    .. [1] J. Schneider, "Improving classifier decision boundaries using nearest neighbors",
       `arXiv 2310.03927 <https://arxiv.org/abs/2310.03927>`_, section 3.2.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.latent_mixing import project_between_means
    >>> means = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    >>> project_between_means(torch.tensor([[1.0, 7.0]]), means)[0]
    tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    device = float64_device(latent)
    center = means.nanmean(0).to(device, torch.float64)  # an offset of all would cancel below
    means = means.to(device, torch.float64) - center
    gaps = (means[:, None] - means[None]).norm(dim=2)
    gaps = gaps.fill_diagonal_(torch.inf).nan_to_num(torch.inf, posinf=torch.inf)
    nearest = gaps.argmin(1)
    direction = means[nearest] - means
    start = (means * direction).sum(1)
    scale = direction.square().sum(1)
    parts = [
        ((some.to(device, torch.float64) - center) @ direction.T - start) / scale
        for some in latent.split(_CHUNK)
    ]
    return torch.cat(parts), nearest
