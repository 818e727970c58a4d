"""The table of the methods, and the choice of one for a classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

from sklearn.utils._param_validation import Interval, StrOptions

from skboundary.boundary._ends import Ends
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._table import Table
from skboundary.boundary.methods._deepdig import TrainingEffort, deepdig
from skboundary.boundary.methods._minimal import minimal
from skboundary.boundary.methods._pm import pm
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.boundary.methods._query import Queries, label, score
from skboundary.boundary.methods._segment import segment
from skboundary.boundary.methods._sparse import Sparsity, sparse
from skboundary.functional.nearest_boundary import EFFORTS, LEAST_GRADIENTS, Effort


class Method(NamedTuple):
    """A method to find the boundary."""

    search: Callable[[Oracle, Problem, Settings], Ends]
    needs: str  # "gradient", "score" or "label"
    norms: tuple[Any, ...]
    efforts: Mapping[str, Any]  # what `Settings.effort` holds for each level
    n_partners: int = 0  # training samples across the boundary that it starts from
    space: str = "latent"  # in which they are the nearest: "latent", "input" or "scaled" columns
    pairs_at_once: int = 0  # class pairs of a batch; 0: batches are numbers of samples
    one_sided: bool = True  # `transform` needs the outer end alone
    within: Callable[[int], Any] | None = None  # what `Settings.effort` holds for a number
    least: int = 0  # such number
    uses_training: bool = True  # it looks at training samples
    trains: bool = False  # networks of its own
    in_between: bool = True  # it moves columns to values that no sample has
    keeps_columns: bool = True  # it can leave columns as they are

    @property
    def uses_latent(self) -> bool:
        """Whether it measures distances in the latent space."""
        return self.n_partners > 0 and self.space == "latent"

    def settle(self, effort: str | int) -> tuple[Any, int | None]:
        """`Settings.effort` and `Settings.budget` for a level or a number.

        Raises
        ------
        ValueError
            For a number that is too small, or that the method does not take.
        """
        if isinstance(effort, str):
            return self.efforts[effort], None
        name = self.search.__name__
        if self.within is None:
            raise ValueError(
                f"effort={effort!r} is a number, which method={name!r} does not take: use one of "
                f"{list(self.efforts)}."
            )
        if effort < self.least:
            raise ValueError(
                f"effort={effort!r}: method={name!r} needs at least {self.least} "
                f"{'gradients' if self.needs == 'gradient' else 'queries'} per sample."
            )
        return self.within(int(effort)), int(effort)


METHODS: dict[str, Method] = {
    "minimal": Method(
        minimal,
        "gradient",
        (2, 1, math.inf),
        EFFORTS,
        within=Effort.within,
        least=2 * LEAST_GRADIENTS,  # for two legs
        uses_training=False,
    ),
    "pm": Method(
        pm,
        "gradient",
        (2, "2sq", 1, math.inf),
        {"fast": 12, "balanced": 30, "thorough": 300},  # iterations, of two gradients each
        within=lambda n: n // 4,  # the other half is for their start
        least=20,
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
        within=Queries,
        least=50,
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
        within=Queries,
        least=20,
    ),
    "segment": Method(
        segment,
        "label",
        (1, 2, math.inf),
        dict.fromkeys(("fast", "balanced", "thorough")),  # the same for all
        n_partners=1,
        within=Queries,
        least=30,
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
        pairs_at_once=16,  # trained side by side
        trains=True,
        keeps_columns=False,
    ),
    "sparse": Method(
        sparse,
        "label",
        (1, 2, math.inf),
        {
            "fast": Sparsity(4, 1, 1),
            "balanced": Sparsity(8, 2, 3),
            "thorough": Sparsity(16, 4, 10),
        },
        n_partners=10,
        space="scaled",
        in_between=False,
    ),
}

# Of the parameter; each method has a least number of its own.
EFFORT_CONSTRAINT = [
    StrOptions({"fast", "balanced", "thorough"}),
    Interval(Integral, 1, None, closed="left"),
]

# The default method for each response.
AUTO = {"gradient": "minimal", "score": "score", "label": "label"}

_RESPONSES = ("label", "score", "gradient")  # each includes those before it


def choose_method(
    name: str, norm: Any, response: str, estimator: Any, table: Table | None = None
) -> Method:
    """Resolve "auto", and check that method, norm, classifier and rules for columns go together.

    Raises
    ------
    ValueError
        The message names the methods that support the classifier.
    """
    if name == "auto":
        has_categories = table is not None and table.categorical.any()
        name = "sparse" if has_categories else AUTO[response]
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
    if table is not None:
        _check_table(name, method, table)
    return method


def _check_table(name: str, method: Method, table: Table) -> None:
    if method.in_between and table.categorical.any():
        raise ValueError(
            f"method={name!r} moves columns to values in between, which categorical columns do "
            "not have. Use method='sparse'."
        )
    if method.in_between and table.max_changes is not None:
        raise ValueError(
            f"max_changes={table.max_changes!r}: method={name!r} changes all columns. Use "
            "method='sparse', or max_changes=None."
        )
    if not method.keeps_columns and table.keeps:
        keeping = sorted(m for m in METHODS if METHODS[m].keeps_columns)
        raise ValueError(
            f"method={name!r} cannot keep immutable columns; the methods that can are {keeping}."
        )
    if table.immutable.all():
        raise ValueError(
            f"immutable names all {len(table.immutable)} columns, so that nothing can change."
        )
