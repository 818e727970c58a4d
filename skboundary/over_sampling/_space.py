"""Rows and the segments between them, as a trained classifier sees them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._device import to_numpy
from skboundary.functional.extrapolation import place, place_linear
from skboundary.functional.latent_mixing import class_means
from skboundary.networks import Network

_CHUNK = 4096  # rows on segments that exist at a time
# Evaluations of a segment: a step function is bisected for as long as there are any.
_MAX_ITER, _MAX_ITER_BLACK_BOX = 60, 24


class Space:
    """Latent vectors and margins of X, and what the classifier says between its rows.

    Parameters
    ----------
    network : Network
    X : ndarray of shape (n_samples, ...)
        Floats.
    codes : ndarray of shape (n_samples,)
        Classes as columns of the logits.
    wrap : callable
        From an array of rows to what the classifier takes.
    """

    def __init__(
        self, network: Network, X: NDArray[Any], codes: NDArray[np.intp], wrap: Callable
    ) -> None:
        self.network, self.X, self.wrap = network, X, wrap
        self.linear = network.affine
        is_network = network.is_module and not self.linear
        if network.batch_size == "auto" and not is_network:
            network.batch_size = _CHUNK  # no activations to hold, and each call has its price
        latent, logits = network.latent_and_logits(wrap(X))
        self.verbose, network.verbose = network.verbose, 0  # from here on new samples are counted
        self.latent = latent.to(network.device)
        self.logits = logits.double()
        self.codes = torch.from_numpy(codes)

    @cached_property
    def means(self) -> Tensor:
        """Mean latent vectors (n_classes, n_latent) of the classes, float64."""
        return class_means(self.latent.cpu(), self.codes, self.logits.shape[1])

    def rows_of(self, code: int) -> Tensor:
        """Give the rows of a class, ascending."""
        return (self.codes == code).nonzero()[:, 0]

    def margins(self, rows: Tensor, minor: int, major: int) -> Tensor:
        """Compute by how much the minor class leads the major class, for rows of X."""
        return self.logits[rows, minor] - self.logits[rows, major]

    def logits_of(self, points: NDArray[Any]) -> Tensor:
        """Compute logits of (not too many) points between samples, float64."""
        with _none_of_X():
            return self.network.logits(self.wrap(points)).double()

    def along(self, parents: Tensor, minor: int, major: int) -> Callable[[Tensor, Tensor], Tensor]:
        """Give the margins on segments as a function of positions (m,) and segments (m,)."""
        if self.linear:
            first, last = (self.margins(rows, minor, major) for rows in parents.unbind(1))
            return lambda t, rows: torch.lerp(first[rows], last[rows], t)

        def margin(t: Tensor, rows: Tensor) -> Tensor:
            parts = [
                self.logits_of(segment_points(self.X, pair, at))
                for pair, at in zip(parents[rows].split(_CHUNK), t.split(_CHUNK), strict=True)
            ]
            return torch.cat([p[:, minor] - p[:, major] for p in parts])

        return margin

    def place(
        self, parents: Tensor, target: Tensor, minor: int, major: int
    ) -> tuple[Tensor, Tensor]:
        """Find where the probability of the minor class is the target, and where it is not."""
        first, last = (self.margins(rows, minor, major) for rows in parents.unbind(1))
        if self.linear:
            position = place_linear(target, first, last)
            return position, torch.ones_like(position, dtype=torch.bool)
        steps = self.network.is_module
        return place(
            self.along(parents, minor, major),
            target,
            first,
            last,
            max_iter=_MAX_ITER if steps else _MAX_ITER_BLACK_BOX,
        )

    def latent_at(self, parents: Tensor, position: Tensor) -> Tensor:
        """Latent vectors of points on (not too many) segments."""
        if not self.linear:
            with _none_of_X():
                return self.network.latent(self.wrap(segment_points(self.X, parents, position)))
        first, last = (self.latent[rows.to(self.latent.device)] for rows in parents.unbind(1))
        return torch.lerp(first, last, position.to(first)[:, None]).cpu()


@contextmanager
def _none_of_X() -> Iterator[None]:
    """Say of an error that the points are none of the user's."""
    try:
        yield
    except ValueError as error:
        where = "At points between samples of X, counted by themselves"
        raise ValueError(f"{where}: {error}") from error


def segment_points(X: NDArray[Any], parents: Tensor, position: Tensor) -> NDArray[Any]:
    """Compute ``first + position * (last - first)`` in the dtype of X."""
    first, last = (X[to_numpy(rows)] for rows in parents.unbind(1))
    last -= first
    last *= to_numpy(position).astype(X.dtype).reshape(-1, *[1] * (X.ndim - 1))
    last += first
    return last
