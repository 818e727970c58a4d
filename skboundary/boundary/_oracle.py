"""The outputs of a fitted classifier at points that a search moves."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import to_numpy
from skboundary.boundary._columns import Columns, as_container
from skboundary.functional.margins import class_margin, pairwise_margin
from skboundary.networks import Network

Logits = Callable[[Tensor], Tensor]


class Outputs(NamedTuple):
    """Outputs of a classifier at n points."""

    labels: Tensor  # (n,) positions in `classes_`
    logits: Tensor | None  # (n, n_classes), where a search may use them

    def select(self, index: Tensor) -> Outputs:
        """Outputs at some of the points."""
        return Outputs(self.labels[index], None if self.logits is None else self.logits[index])

    def cast(self, dtype: torch.dtype) -> Outputs:
        """The same outputs, logits in a dtype."""
        return self._replace(logits=None if self.logits is None else self.logits.to(dtype))


class NanWatch:
    """Whether logits were NaN, found out without waiting for their device."""

    def __init__(self) -> None:
        self.seen: Tensor | bool = False

    def note(self, logits: Tensor) -> Tensor:
        """Return the logits."""
        self.seen = logits.detach().isnan().any() | self.seen
        return logits

    def refuse(self, name: str) -> None:
        """Raise a ValueError if there was NaN."""
        if self.seen:
            raise ValueError(
                f"{name} gives NaN at a point of the search, though not at the samples of X. Use a "
                "network that is finite everywhere, or a wider dtype."
            )


class Oracle:
    """A fitted classifier that takes and returns tensors.

    Parameters
    ----------
    network : Network
    response : {"gradient", "score", "label"}
        What a search uses; with "label" scores are never computed.
    columns : Columns, default=None
        Those of the DataFrame on which the classifier was fitted.
    forward : callable, default=None
        Differentiable logits, from `Network.differentiable_logits`.

    Attributes
    ----------
    device, dtype : of the points, and of the logits
    eps : float
        Machine epsilon of the coarsest dtype that takes part in the logits.
    n_runs : int
        Samples that the classifier runs for each that `inspect` gets.
    nan : NanWatch
        Of the logits without gradients.
    """

    def __init__(
        self,
        network: Network,
        response: str,
        columns: Columns | None = None,
        forward: Logits | None = None,
    ) -> None:
        self.network, self.response, self.columns = network, response, columns
        self.device, self.dtype, self.eps = network.device, network.input_dtype, network.eps
        self.n_runs = 1 if network.is_module or response == "label" else 2
        # one dtype throughout a search, whatever the network ends in
        self.forward = None if forward is None else lambda x: forward(x).to(self.dtype)
        self.nan = NanWatch()

    @property
    def gradient_logits(self) -> Logits:
        """Differentiable logits; `choose_method` admits a method that needs them only with them."""
        assert self.forward is not None
        return self.forward

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, n_classes) at points (n, ...), without gradients."""
        if not len(x):  # which a classifier need not take
            return x.new_empty(0, len(self.network.classes_))
        if self.forward is None:
            samples = as_container(to_numpy(x), self.columns)
            return self.network.logits(samples).to(self.device, self.dtype)
        sample_bytes = x[0].numel() * x.element_size()
        size = resolve_batch_size(self.network.batch_size, sample_bytes, self.device)
        forward = self.forward
        with torch.no_grad():
            parts = map_batches(lambda part: forward(x[part]), len(x), size)
            return self.nan.note(torch.cat([*parts]))

    def labels(self, x: Tensor) -> Tensor:
        """Predicted classes (n,) of points (n, ...), as positions in `classes_`."""
        if self.network.is_module or not len(x):
            return _classes_of(self.logits(x))
        return self.network.labels(as_container(to_numpy(x), self.columns)).to(self.device)

    def inspect(self, x: Tensor) -> Outputs:
        """Predicted classes of points (n, ...), and their logits where a search may use them."""
        if self.network.is_module:
            logits = self.logits(x)
            return Outputs(_classes_of(logits), None if self.response == "label" else logits)
        return Outputs(self.labels(x), None if self.response == "label" else self.logits(x))

    def complete(self, x: Tensor, known: Outputs | None) -> tuple[Outputs, int]:
        """Outputs that a search needs at points (n, ...), and how often it took to run them.

        Those that are `known` are not computed again. Predicted classes follow from the logits,
        where a search uses those.
        """
        if known is not None and (self.response == "label" or known.logits is not None):
            return known, 0
        if self.response == "label":
            return Outputs(self.labels(x), None), 1
        logits = self.logits(x)
        return Outputs(logits.argmax(1), logits), 1

    def margin(self, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """`source_margin` at points (n, ...)."""
        return source_margin(self.logits(x), source, target)


def _classes_of(logits: Tensor) -> Tensor:
    """Classes (n,) with the largest logits; -1, which is no class, where a logit is NaN."""
    return logits.argmax(1).masked_fill(logits.isnan().any(1), -1)


def source_margin(logits: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Logit of the class `source` minus that of `target`, (n,): positive on the source's side.

    A target of -1 is the strongest of all other classes.
    """
    over_target = pairwise_margin(logits, source, target.clamp_min(0))
    return torch.where(target < 0, class_margin(logits, source), over_target)
