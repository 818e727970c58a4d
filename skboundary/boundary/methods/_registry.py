"""The table of the methods, and which of them serves a classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends
from skboundary.boundary.methods._deepdig import deepdig
from skboundary.boundary.methods._minimal import minimal
from skboundary.boundary.methods._pm import pm
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.boundary.methods._query import label, score
from skboundary.boundary.methods._segment import segment


class Method(NamedTuple):
    """A way to find the boundary."""

    search: Callable[[Oracle, Problem, Settings], Ends]
    needs: str  # "gradient", "score" or "label"
    norms: tuple[Any, ...]
    n_partners: int  # training samples across the boundary that it starts from
    space: str = "latent"  # in which they are the nearest: "latent" or "input"
    batched: bool = True  # False wants all samples of a call at once
    one_sided: bool = True  # `transform` needs the outer end alone
    pooled: bool = True  # it looks at training samples
    trains: bool = False  # networks of its own


METHODS: dict[str, Method] = {
    "pm": Method(
        pm, "gradient", (2, "2sq", 1, math.inf), n_partners=0, one_sided=False, pooled=False
    ),
    "minimal": Method(minimal, "gradient", (2,), n_partners=0, pooled=False),
    "score": Method(score, "score", (2,), n_partners=10, space="input"),
    "label": Method(label, "label", (2,), n_partners=10, space="input"),
    "segment": Method(segment, "label", (1, 2, math.inf), n_partners=1),
    "deepdig": Method(
        deepdig, "gradient", (1, 2, math.inf), n_partners=0, batched=False, trains=True
    ),
}

# What method="auto" means for a classifier that offers so much.
AUTO = {"gradient": "minimal", "score": "score", "label": "label"}

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
