"""Margins between class logits, and the rounding error that they carry."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "RunnerUp",
    "class_margin",
    "equally_probable",
    "margin_band",
    "pairwise_margin",
    "runner_up",
]

_ROUNDINGS = 8  # machine epsilons of the largest logit by which a margin may be wrong


def margin_band(
    margin_tol: float, eps: float, *logits: Tensor, ends: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Compute the least margin of each sample that is both wanted and safe from rounding.

    Parameters
    ----------
    margin_tol : float
        The least margin that is wanted, in units of the logits.
    eps : float
        Machine epsilon of the coarsest dtype that takes part in the logits.
    *logits : Tensor of shape (n, n_classes)
        At one or more points of each sample, such as both ends of a search.
    ends : (Tensor, Tensor) of shape (n, ...), default=None
        The points to which two `logits` belong.

    Returns
    -------
    band : Tensor of shape (n,)
        ``max(margin_tol, 8 eps max|logit|)``, in units of the logits: logits of 1e5 in float32
        differ by a tenth from one batch to another, and no search can bring their margin nearer
        to zero than that. With `ends`, at least the effect of rounding the points, ``2 eps
        ||point||`` times the slope between them: large terms may cancel in a logit.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional.margins import margin_band
    >>> margin_band(1e-3, 2**-23, torch.tensor([[2.0, -1.0], [5e5, 2**20]]))
    tensor([0.0010, 1.0000])
    """
    largest = torch.stack([each.abs().amax(1) for each in logits]).amax(0)
    band = _ROUNDINGS * largest
    if ends is not None:
        start, end = (points.flatten(1) for points in ends)
        change = logits[0] - logits[1]
        slope = (change.amax(1) - change.amin(1)) / (end - start).norm(dim=1)
        size = torch.maximum(start.norm(dim=1), end.norm(dim=1))
        band = torch.fmax(band, 2 * size * slope)  # NaN where the ends are the same
    return (eps * band).clamp(min=margin_tol)


def equally_probable(
    proba: Tensor, logits: Tensor, source: Tensor, target: Tensor, band: Tensor, tol: float = 1e-4
) -> Tensor:
    """Find where two classes are equally probable, within `tol` or within rounding error.

    Parameters
    ----------
    proba, logits : Tensor of shape (n, n_classes)
    source, target : Tensor of shape (n,)
    band : Tensor of shape (n,)
        The `margin_band` for a `margin_tol` of 0, in units of the logits.
    tol : float, default=1e-4
        Largest difference of the probabilities, exclusive; the threshold of DeepDIG [1]_.

    Returns
    -------
    equal : Tensor of shape (n,)
        ``|p_source - p_target| < tol``, or the logits differ by no more than the band.

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.
    """
    margin = pairwise_margin(logits, source, target).abs()
    gap = pairwise_margin(proba, source, target).abs()
    # a sigmoid of a large logit is 1 for both of two classes, one of which leads by far
    return (margin <= band) | ((gap > 0) & (gap < tol))


class RunnerUp(NamedTuple):
    """The strongest rival of a class, for each sample."""

    logit: Tensor  # (n,)
    label: Tensor  # (n,)


def runner_up(logits: Tensor, label: Tensor) -> RunnerUp:
    """Find the largest logit of the classes other than `label`.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
    label : Tensor of shape (n,)

    Returns
    -------
    rival : RunnerUp
        Its logit and its class, (n,) each; ties are resolved by the lowest index.
    """
    return RunnerUp(*logits.scatter(1, label[:, None], -float("inf")).max(1))


def class_margin(logits: Tensor, label: Tensor) -> Tensor:
    """Compute the lead of `label` over its strongest rival; positive where it is predicted.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
    label : Tensor of shape (n,)

    Returns
    -------
    margin : Tensor of shape (n,)
        ``logits[label] - max over the other classes``.
    """
    return logits.gather(1, label[:, None])[:, 0] - runner_up(logits, label).logit


def pairwise_margin(logits: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Compute the lead of `source` over `target`; positive where it is still ahead.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
    source, target : Tensor of shape (n,)

    Returns
    -------
    margin : Tensor of shape (n,)
        ``logits[source] - logits[target]``, the log of the ratio of their probabilities.
    """
    return (logits.gather(1, source[:, None]) - logits.gather(1, target[:, None]))[:, 0]
