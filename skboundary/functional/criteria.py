"""Margins on logits: who wins, and by how much."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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
