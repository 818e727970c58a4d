"""The table of the methods, and the choice of one for a classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from skboundary.boundary._ends import Ends
from skboundary.boundary._oracle import Oracle
from skboundary.boundary.methods._deepdig import TrainingEffort, deepdig
from skboundary.boundary.methods._minimal import minimal
from skboundary.boundary.methods._pm import pm
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.boundary.methods._query import Queries, label, score
from skboundary.boundary.methods._segment import segment
from skboundary.functional.nearest_boundary import EFFORTS


class Method(NamedTuple):
    """A method to find the boundary."""

    search: Callable[[Oracle, Problem, Settings], Ends]
    needs: str  # "gradient", "score" or "label"
    norms: tuple[Any, ...]
    efforts: Mapping[str, Any]  # what `Settings.effort` holds for each level
    n_partners: int = 0  # training samples across the boundary that it starts from
    space: str = "latent"  # in which they are the nearest: "latent" or "input"
    batched: bool = True  # False: all samples of a call at once
    one_sided: bool = True  # `transform` needs the outer end alone
    uses_training: bool = True  # it looks at training samples
    trains: bool = False  # networks of its own

    @property
    def uses_latent(self) -> bool:
        """Whether it measures distances in the latent space."""
        return self.n_partners > 0 and self.space == "latent"


METHODS: dict[str, Method] = {
    "minimal": Method(minimal, "gradient", (2,), EFFORTS, uses_training=False),
    "pm": Method(
        pm,
        "gradient",
        (2, "2sq", 1, math.inf),
        {"fast": 12, "balanced": 30, "thorough": 300},  # iterations
        one_sided=False,
        uses_training=False,
    ),
    "score": Method(
        score,
        "score",
        (2,),
        {
            "fast": Queries(100),
            "balanced": Queries(2000, capped=True),
            "thorough": Queries(10000),
        },
        n_partners=10,
        space="input",
    ),
    "label": Method(
        label,
        "label",
        (2,),
        {
            "fast": Queries(100, walk=False),
            "balanced": Queries(2000),
            "thorough": Queries(10000),
        },
        n_partners=10,
        space="input",
    ),
    "segment": Method(
        segment,
        "label",
        (1, 2, math.inf),
        dict.fromkeys(("fast", "balanced", "thorough")),  # the same for all
        n_partners=1,
    ),
    "deepdig": Method(
        deepdig,
        "gradient",
        (1, 2, math.inf),
        {
            "fast": TrainingEffort(500, 2),
            "balanced": TrainingEffort(5000, 4),
            "thorough": TrainingEffort(5000, None),
        },
        batched=False,
        trains=True,
    ),
}

# The default method for each response.
AUTO = {"gradient": "minimal", "score": "score", "label": "label"}

_RESPONSES = ("label", "score", "gradient")  # each includes those before it


def choose_method(name: str, norm: Any, response: str, estimator: Any) -> Method:
    """Resolve "auto", and check that method, norm and classifier go together.

    Raises
    ------
    ValueError
        The message names the methods that support the classifier.
    """
    name = AUTO[response] if name == "auto" else name
    method, offered = METHODS[name], _RESPONSES[: _RESPONSES.index(response) + 1]
    if method.needs not in offered:
        serving = sorted(m for m in METHODS if METHODS[m].needs in offered)
        raise ValueError(
            f"method={name!r} needs {method.needs}s, and {type(estimator).__name__} offers only "
            f"{response}s. Use method='auto' or one of {serving}."
        )
    if norm not in method.norms:
        having = sorted(m for m in METHODS if norm in METHODS[m].norms)
        raise ValueError(
            f"method={name!r} supports the norms {list(method.norms)}, not norm={norm!r}; the "
            f"methods that support it are {having}."
        )
    return method
