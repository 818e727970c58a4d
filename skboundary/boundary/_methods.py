"""The methods of BoundarySampleExtractor: one function each, with one signature, in `METHODS`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skboundary.boundary._deepdig import deepdig
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends
from skboundary.boundary._pool import Pool
from skboundary.boundary._segment import between


class Settings(NamedTuple):
    """Parameters of the extractor that methods read."""

    effort: str
    confidence: float
    penalty: float | None
    norm: Any
    margin_tol: float
    generator: Any  # of method "deepdig": from the shape of a row to an autoencoder


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
        found = between(
            oracle, task.x[rows], ends, task.source[rows], task.target[rows], settings.margin_tol
        )
        inner[rows], outer[rows], n_evaluations[rows], _ = found
    return Ends(inner, outer, n_evaluations)


METHODS: dict[str, Method] = {
    "segment": Method(segment, "label", (1, 2, float("inf")), n_partners=1),
    "deepdig": Method(deepdig, "gradient", (1, 2, float("inf")), n_partners=0, batched=False),
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
