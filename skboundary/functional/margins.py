"""Margins on logits: who wins, and by how much."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_ROUNDINGS = 8  # of the largest logit that a margin may be wrong by


def margin_band(
    margin_tol: float, eps: float, *logits: Tensor, ends: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Compute the least margin of each sample that is safe from rounding, and wanted.

    Parameters
    ----------
    margin_tol : float
        The least margin that is wanted, in units of the logits.
    eps : float
        Machine epsilon of the coarsest dtype that takes part in the logits.
    *logits : Tensor of shape (n, n_classes)
        Of the samples at both ends of a search, or where they are known.
    ends : (Tensor, Tensor) of shape (n, ...), default=None
        The points to which two `logits` belong.

    Returns
    -------
    band : Tensor of shape (n,)
        ``max(margin_tol, 8 eps max|logit|)``: logits of 1e5 in float32 differ by a tenth from one
        batch to another, and no search can bring their margin nearer to zero than that. With
        `ends` not less than what rounding the points does, ``2 eps ||point||`` times the slope
        between them: large terms may cancel in a logit.

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
    """Tell where two classes are equally probable, as far as rounding lets one tell.

    Parameters
    ----------
    proba, logits : Tensor of shape (n, n_classes)
    source, target : Tensor of shape (n,)
    band : Tensor of shape (n,)
        What `margin_band` gives for a `margin_tol` of 0.
    tol : float, default=1e-4
        By less than it probabilities may differ; the threshold of DeepDIG's paper.

    Returns
    -------
    equal : Tensor of shape (n,)
        ``|p_source - p_target| < tol``, or the logits differ by no more than the band.
    """
    margin = pairwise_margin(logits, source, target).abs()
    gap = pairwise_margin(proba, source, target).abs()
    # a sigmoid of a large logit is 1 for both of two classes, one of which leads by far
    return (margin <= band) | ((gap > 0) & (gap < tol))


class RunnerUp(NamedTuple):
    """The strongest rival of a class, for each row."""

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
        Its logit and its class, (n,) each; of equal logits the first.
    """
    return RunnerUp(*logits.scatter(1, label[:, None], -float("inf")).max(1))


def class_margin(logits: Tensor, label: Tensor) -> Tensor:
    """Compute by how much `label` leads its strongest rival; positive where it is predicted.

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
    """Compute by how much `target` leads `source`, whatever the other classes do.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
    source, target : Tensor of shape (n,)

    Returns
    -------
    margin : Tensor of shape (n,)
        ``logits[target] - logits[source]``, the log of the ratio of their probabilities.
    """
    return (logits.gather(1, target[:, None]) - logits.gather(1, source[:, None]))[:, 0]
