"""Conversion of module outputs to logits, and of logits to probabilities."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from skboundary._device import at_least_float32

Link = Callable[[Tensor], Tensor]


def softmax(logits: Tensor) -> Tensor:
    """Probabilities (n, c) of networks, `LogisticRegression` and `MLPClassifier`."""
    return logits.softmax(1)


def one_vs_rest(logits: Tensor) -> Tensor:
    """Normalized sigmoids (n, c), as in `SGDClassifier(loss="log_loss")`.

    With two classes, whose logits are minus and plus half the decision value, this is the
    sigmoid of the decision value, as it is for softmax.
    """
    if logits.shape[1] == 2:
        return logits.softmax(1)
    # logarithms, because far from the boundaries all sigmoids may be 0
    return nn.functional.logsigmoid(logits).softmax(1)


def modified_huber(logits: Tensor) -> Tensor:
    """Clipped, normalized decision values (n, c): `SGDClassifier(loss="modified_huber")`."""
    scores = 2 * logits if logits.shape[1] == 2 else logits
    p = (scores.clamp(-1, 1) + 1) / 2
    total = p.sum(1, keepdim=True)
    return torch.where(total > 0, p / total.clamp_min(torch.finfo(p.dtype).tiny), 1 / p.shape[1])


LINKS: dict[str, Link] = {f.__name__: f for f in (softmax, one_vs_rest, modified_huber)}


def check_floats(output: Tensor, name: str) -> None:
    """Raise a ValueError for outputs that cannot be logits."""
    if not output.is_floating_point() or output.layout != torch.strided or output.is_meta:
        raise ValueError(
            f"{name} gives outputs of dtype {output.dtype} and layout {output.layout} on "
            f"{output.device}; logits must be dense floating-point tensors on a real device."
        )


def as_logits(
    output: Tensor, n: int, *, probabilities: bool, name: str, check: bool = True
) -> Tensor:
    """Convert the output of a module for n samples to logits (n, n_classes).

    Parameters
    ----------
    output : Tensor
        A single output represents two classes: a logit becomes minus and plus its half.
    n : int
    probabilities : bool
        Whether the outputs are probabilities instead of logits.
    name : str
        Class of the module, for messages.
    check : bool, default=True
        False leaves out the check of probabilities, which `torch.export` cannot trace.

    Returns
    -------
    logits : Tensor of shape (n, n_classes)
        At least float32.

    Raises
    ------
    ValueError
        For outputs of another shape, or probabilities that are not in [0, 1] or do not sum to 1.
    """
    output = output.to(at_least_float32(output.dtype))
    if output.ndim < 2 and n == 1 and output.numel():  # squeezed
        output = output.reshape(1, -1)
    if output.ndim == 1:
        output = output[:, None]
    if output.ndim != 2 or not output.shape[1]:
        raise ValueError(
            f"{name} gives outputs of shape {tuple(output.shape)}; expected (n_samples, n_classes)."
        )
    if probabilities:
        if check:
            _check_probabilities(output)
        # the smallest number with a finite logarithm in this dtype
        output = torch.cat([1 - output, output], 1) if output.shape[1] == 1 else output
        return output.clamp_min(torch.finfo(output.dtype).tiny).log()
    return torch.cat([-output, output], 1) / 2 if output.shape[1] == 1 else output


def _check_probabilities(p: Tensor) -> None:
    total = p.sum(1) if p.shape[1] > 1 else torch.ones_like(p[:, 0])
    wrong = (p < 0).any(1) | (p > 1 + 1e-3).any(1) | ((total - 1).abs() > 1e-2)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise ValueError(
            "The network was declared to return probabilities, but it returned "
            f"{[round(v, 4) for v in p[first, :5].tolist()]} for a sample. Use output='logits'. "
            "For a skorch net that returns logits use criterion=torch.nn.CrossEntropyLoss, or set "
            "predict_nonlinearity."
        )
