"""The methods of BoundarySampleExtractor: one function each, with one signature, in `METHODS`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends, expand
from skboundary.boundary._pool import Pool
from skboundary.boundary._segment import sides_by_label, sides_by_margin


class Settings(NamedTuple):
    """Parameters of the extractor that methods read."""

    effort: str
    confidence: float
    penalty: float | None
    norm: Any
    margin_tol: float


class Task(NamedTuple):
    """Rows to find a partner for, and what may be used to do so."""

    x: Tensor  # (n, ...) on the device, in the classifier's dtype
    source: Tensor  # (n,) classes to start from
    target: Tensor  # (n,) classes to reach; -1 is any other
    low: Tensor | None  # bounds, broadcastable to x
    high: Tensor | None
    partners: Tensor  # (n, k) rows of the pool across the boundary, nearest first; -1 is none
    pool: Pool
    seed: int  # random directions are the same for all rows of a call


class Method(NamedTuple):
    """A way to find the boundary."""

    search: Callable[[Oracle, Task, Settings], Ends]
    needs: str  # "gradient", "score" or "label"
    norms: tuple[Any, ...]
    n_partners: int  # training rows across the boundary that it starts from
    space: str = "latent"  # in which they are the nearest: "latent" or "input"
    batched: bool = True  # False wants all rows of a call at once


def segment(oracle: Oracle, task: Task, settings: Settings) -> Ends:
    """Look on the segment from each row to its partner, a training row of another class."""
    rows = (task.partners[:, 0] >= 0).nonzero()[:, 0]
    inner, outer = task.x.clone(), task.x.clone()
    n_evaluations = torch.zeros_like(task.source)
    if len(rows):
        ends = task.pool.take(task.partners[rows, 0], task.x)
        found = between(oracle, task.x[rows], ends, task.source[rows], task.target[rows], settings)
        inner[rows], outer[rows], n_evaluations[rows], _ = found
    return Ends(inner, outer, n_evaluations)


def between(
    oracle: Oracle, start: Tensor, end: Tensor, source: Tensor, target: Tensor, settings: Settings
) -> Ends:
    """Find the boundary between pairs of rows (n, ...) that lie on its two sides.

    By the margin of `source` over `target` (-1: over all) to within `margin_tol`, or by labels
    where there is nothing else. A pair that does not lie so has both ends at its start.
    """
    width = end - start

    def at(t: Tensor, rows: Any = slice(None)) -> Tensor:
        return start[rows] + expand(t, width) * width[rows]

    if oracle.response == "label":
        said = oracle.labels(torch.cat([start, end])).chunk(2)
        across = (said[0] == source) & (said[1] != source)
        sides = sides_by_label(lambda t: oracle.labels(at(t)) == source, len(start), start)
    else:
        both = torch.cat([start, end])
        f = oracle.margin(both, source.repeat(2), target.repeat(2)).chunk(2)
        across = (f[0] >= 0) & (f[1] <= 0)  # a tie counts: the labels will tell
        sides = sides_by_margin(
            lambda t, rows: oracle.margin(at(t, rows), source[rows], target[rows]),
            f[0], f[1], settings.margin_tol,
        )  # fmt: skip
    inner = torch.where(across, sides.inner, 0)
    outer = torch.where(across, sides.outer, 0)
    return Ends(at(inner), at(outer), sides.n_evaluations + 2)


METHODS: dict[str, Method] = {
    "segment": Method(segment, "label", (1, 2, float("inf")), n_partners=1),
}

# What method="auto" means for a classifier that offers so much.
AUTO = {"gradient": "segment", "score": "segment", "label": "segment"}

_OFFERS = ("label", "score", "gradient")  # each includes those before it


def choose_method(name: str, norm: Any, response: str, estimator: Any) -> Method:
    """Resolve "auto", and see that method, norm and classifier go together.

    Raises
    ------
    ValueError
        That names the methods which would serve.
    """
    name = AUTO[response] if name == "auto" else name
    method, offered = METHODS[name], _OFFERS[: _OFFERS.index(response) + 1]
    if method.needs not in offered:
        serving = sorted(m for m in METHODS if METHODS[m].needs in offered)
        raise ValueError(
            f"method={name!r} needs a {method.needs}, and {type(estimator).__name__} offers "
            f"{response}s only. Use method='auto' or one of {serving}."
        )
    if norm not in method.norms:
        having = sorted(m for m in METHODS if norm in METHODS[m].norms)
        raise ValueError(
            f"method={name!r} has the norms {list(method.norms)}, not norm={norm!r}; the methods "
            f"that have it are {having}."
        )
    return method
