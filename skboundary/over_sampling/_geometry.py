"""Samples, and the segments between them, in the latent space of a trained classifier."""

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

from skboundary._callbacks import pass_task
from skboundary._device import to_numpy
from skboundary.functional.extrapolation import place, place_linear
from skboundary.functional.latent_mixing import class_means
from skboundary.networks import Network

CHUNK = 4096  # points on segments in memory at a time
# Evaluations of a segment: a step function is bisected until none are left.
_MAX_ITER, _MAX_ITER_BLACK_BOX = 60, 24


class LatentGeometry:
    """Latent vectors and logits of X, and the classifier between its samples.

    Parameters
    ----------
    network : Network
    X : ndarray of shape (n_samples, ...)
        Floats.
    codes : ndarray of shape (n_samples,)
        Classes as columns of the logits.
    wrap : callable
        From an array of samples to the container that the classifier takes.
    """

    def __init__(
        self,
        network: Network,
        X: NDArray[Any],
        codes: NDArray[np.intp],
        wrap: Callable[[NDArray[Any]], Any],
    ) -> None:
        self.network, self.X, self.wrap = network, X, wrap
        self.linear = network.affine
        has_activations = network.is_module and not self.linear
        if network.batch_size == "auto" and not has_activations:
            network.batch_size = CHUNK  # fewer calls: each has a fixed cost
        with pass_task("run-network", network.n_batches(X)):
            latent, logits = network.latent_and_logits(wrap(X))
        self.verbose, network.verbose = network.verbose, 0  # from here on new samples are counted
        self.latent = latent.to(network.device)
        self.logits = logits.double()
        self.codes = torch.from_numpy(codes)
        self._margins: dict[tuple[int, int], Tensor] = {}

    @cached_property
    def means(self) -> Tensor:
        """Mean latent vectors (n_classes, n_latent) of the classes, float64."""
        return class_means(self.latent.cpu(), self.codes, self.logits.shape[1])

    def samples_of(self, code: int) -> Tensor:
        """Indices of the samples of a class, ascending."""
        return (self.codes == code).nonzero()[:, 0]

    def margins(self, index: Tensor, minority: int, majority: int) -> Tensor:
        """Margins of samples of X: logit of the minority minus logit of the majority class."""
        if (minority, majority) not in self._margins:
            self._margins[minority, majority] = self.logits[:, minority] - self.logits[:, majority]
        return self._margins[minority, majority][index]

    def logits_of(self, points: NDArray[Any]) -> Tensor:
        """Logits of points between samples, at most a chunk of them, float64."""
        with _between_samples():
            return self.network.logits(self.wrap(points)).double()

    def margin_along(
        self, parents: Tensor, minority: int, majority: int
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the margin as a function of positions (m,) and of segments (m,)."""
        if self.linear:
            first, last = (self.margins(end, minority, majority) for end in parents.unbind(1))
            return lambda t, index: torch.lerp(first[index], last[index], t)

        def margin(t: Tensor, index: Tensor) -> Tensor:
            parts = [
                self.logits_of(segment_points(self.X, pairs, at))
                for pairs, at in zip(parents[index].split(CHUNK), t.split(CHUNK), strict=True)
            ]
            return torch.cat([p[:, minority] - p[:, majority] for p in parts])

        return margin

    def place(
        self, parents: Tensor, target: Tensor, minority: int, majority: int
    ) -> tuple[Tensor, Tensor]:
        """Find the positions of target probabilities, and whether they are attained there."""
        first, last = (self.margins(end, minority, majority) for end in parents.unbind(1))
        if self.linear:
            position = place_linear(target, first, last)
            return position, torch.ones_like(position, dtype=torch.bool)
        return place(
            self.margin_along(parents, minority, majority),
            target,
            first,
            last,
            max_iter=_MAX_ITER if self.network.is_module else _MAX_ITER_BLACK_BOX,
        )

    def latent_at(self, parents: Tensor, position: Tensor) -> Tensor:
        """Latent vectors of points on segments, at most a chunk of them."""
        if not self.linear:
            with _between_samples():
                return self.network.latent(self.wrap(segment_points(self.X, parents, position)))
        first, last = (self.latent[end.to(self.latent.device)] for end in parents.unbind(1))
        return torch.lerp(first, last, position.to(first)[:, None]).cpu()


@contextmanager
def _between_samples() -> Iterator[None]:
    """Add to an error message that the points are not samples of X."""
    try:
        yield
    except ValueError as error:
        where = "At points between samples of X, numbered separately"
        raise ValueError(f"{where}: {error}") from error


def segment_points(
    X: NDArray[Any], parents: Tensor, position: Tensor, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Compute ``first + position * (last - first)`` in the dtype of X."""
    first, last = (to_numpy(end) for end in parents.unbind(1))
    start = X.take(first, axis=0)
    points = X.take(last, axis=0, out=out, mode="clip")  # another mode copies `out`
    points -= start
    points *= to_numpy(position).astype(X.dtype).reshape(-1, *[1] * (X.ndim - 1))
    points += start
    return points
