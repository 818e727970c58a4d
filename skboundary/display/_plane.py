"""Planes through samples of many dimensions."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator

from skboundary._batching import BATCH_BYTES
from skboundary._device import to_numpy
from skboundary.display._response import Response
from skboundary.networks import FrozenNetwork, as_network

_PARALLEL = 1e-3  # sine of the angle below which a direction counts as parallel
_N_STEPS, _N_ROUNDS = 64, 5  # of a segment, to 64**-5 of its length


@dataclass(frozen=True, eq=False)
class Plane:
    """The points ``origin + a * directions[0] + b * directions[1]``.

    Parameters
    ----------
    origin : ndarray of shape (n_features,)
    directions : ndarray of shape (2, n_features)
        Orthonormal.
    """

    origin: NDArray[Any]
    directions: NDArray[Any]

    def points(
        self, coordinates: NDArray[Any], shape: tuple[int, ...], dtype: Any
    ) -> Iterator[NDArray[Any]]:
        """Batches of the points (n, *shape) at coordinates (n, 2)."""
        step = max(1, BATCH_BYTES // self.origin.nbytes)
        for start in range(0, len(coordinates), step):
            points = self.origin + coordinates[start : start + step] @ self.directions
            yield points.reshape(-1, *shape).astype(dtype)

    def project(self, X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Coordinates (n, 2) of samples (n, n_features), and their distances (n,)."""
        step = max(1, BATCH_BYTES // self.origin.nbytes)
        coordinates, distances = [np.empty((0, 2))], [np.empty(0)]
        for start in range(0, len(X), step):
            offset = X[start : start + step].astype(np.float64) - self.origin
            coordinates.append(offset @ self.directions.T)
            rest = offset - coordinates[-1] @ self.directions
            distances.append(np.linalg.norm(rest, axis=1))
        return np.concatenate(coordinates), np.concatenate(distances)


def through(origin: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> Plane | None:
    """The plane from a point along two directions, None if they are parallel."""
    u = first / (np.linalg.norm(first) or 1.0)
    length = np.linalg.norm(second)
    v = second - (second @ u) * u
    v -= (v @ u) * u  # again, for what rounding has left
    if not first.any() or np.linalg.norm(v) <= _PARALLEL * length:
        return None
    return Plane(origin.astype(np.float64), np.stack([u, v / np.linalg.norm(v)]))


def through_triplet(X: NDArray[Any]) -> Plane:
    """The plane through the first three of samples (n, n_features).

    Raises
    ------
    ValueError
        If there are fewer than three, or if they lie on a line.
    """
    if len(X) < 3:
        raise ValueError(f"plane='triplet' needs 3 samples, but X has {len(X)}.")
    origin, *ends = X[:3].astype(np.float64)
    plane = through(origin, *(end - origin for end in ends))
    if plane is None:
        raise ValueError(
            "The first 3 samples of X lie on a line, so they define no plane. Give others."
        )
    return plane


def through_principal(X: NDArray[Any]) -> Plane:
    """The plane through the mean of samples (n, n_features) that is nearest to them.

    Raises
    ------
    ValueError
        If they have fewer than two samples or features.
    """
    if min(X.shape) < 2:
        raise ValueError(
            f"plane='pca' needs 2 samples and 2 features, but X has {len(X)} and {X.shape[1]}."
        )
    pca = PCA(2, random_state=0).fit(X)
    directions = np.linalg.qr(pca.components_.T.astype(np.float64))[0].T
    directions *= np.sign((directions * pca.components_).sum(1))[:, None]
    return Plane(pca.mean_.astype(np.float64), directions)


def through_normal(response: Response, X: NDArray[Any]) -> Plane:
    """The plane through the first two samples (n, ...) and the normal of the boundary.

    If the normal is parallel to the segment between them, every plane through the segment holds
    it; the one chosen is nearest to the other samples.

    Raises
    ------
    ValueError
        If both samples have the same class, if the classifier has no gradient, or if there are no
        samples to choose a plane by.
    """
    if len(X) < 2:
        raise ValueError(f"plane='normal' needs 2 samples, but X has {len(X)}.")
    start, end = X[:2].astype(np.float64).reshape(2, -1)
    crossing, source, target = find_crossing(response, start, end, X)
    normal = gradient(response, crossing, source, target, X)
    plane = through(start, end - start, normal)
    if plane is None:
        along = (end - start) / np.linalg.norm(end - start)
        rest = X.reshape(len(X), -1)[2:] - start
        rest -= np.outer(rest @ along, along)
        if rest.any():
            plane = through(start, end - start, np.linalg.svd(rest, full_matrices=False)[2][0])
    if plane is None:
        raise ValueError(
            "The segment between the first 2 samples of X is normal to the boundary, so it lies in "
            "many planes. Append other samples to X, by which one is chosen."
        )
    return plane


def find_crossing(
    response: Response, start: NDArray[Any], end: NDArray[Any], like: NDArray[Any]
) -> tuple[NDArray[Any], int, int]:
    """The first point on a segment where the predicted class changes, and both classes."""
    low, high = 0.0, 1.0
    for _ in range(_N_ROUNDS):
        at = np.linspace(low, high, _N_STEPS + 1)
        points = start + at[:, None] * (end - start)
        codes = response(points.reshape(-1, *like.shape[1:]).astype(like.dtype))[0]
        changed = (codes != codes[0]).nonzero()[0]
        if not len(changed):
            break
        low, high = at[changed[0] - 1], at[changed[0]]
        source, target = int(codes[0]), int(codes[changed[0]])
    if high == 1.0 and low == 0.0:
        raise ValueError(
            f"The first 2 samples of X are both predicted as {response.classes[codes[0]]!r}, as is "
            "the segment between them. Give samples of two classes."
        )
    return start + (low + high) / 2 * (end - start), source, target


def gradient(
    response: Response, point: NDArray[Any], source: int, target: int, like: NDArray[Any]
) -> NDArray[Any]:
    """The gradient of the logit of `target` minus that of `source` at a point."""
    estimator = response.estimator
    trained = estimator if isinstance(estimator, FrozenNetwork) else FrozenEstimator(estimator)
    _, network = as_network(trained, like[:2], None, latent=False, labels=True)
    if not network.differentiable:
        raise ValueError(
            f"{response.name} has no gradient, so the normal of its boundary is unknown. Use "
            "plane='triplet' or 'pca'."
        )
    with network.differentiable_logits() as logits:
        x = torch.from_numpy(point.reshape(1, *like.shape[1:]))
        x = x.to(network.device, network.input_dtype).requires_grad_()
        out = logits(x)[0]
        (slope,) = torch.autograd.grad(out[target] - out[source], x)
    return to_numpy(slope).ravel().astype(np.float64)


def grid_over(
    points: NDArray[Any], resolution: int, expand: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A grid over points (n, 2); as high as wide where they lie on a line."""
    low, high = points.min(0), points.max(0)
    extent = high - low
    flat = extent <= 1e-9 * extent.max()
    low, high = (
        np.where(flat, low - extent.max() / 2, low),
        np.where(flat, high + extent.max() / 2, high),
    )
    extent = high - low
    sides = np.linspace(low - expand * extent, high + expand * extent, resolution).T
    xx0, xx1 = np.meshgrid(*sides)
    return xx0, xx1


def predict_on(
    response: Response, plane: Plane, xx0: NDArray[Any], xx1: NDArray[Any], like: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[Any] | None]:
    """Classes and confidence on the grid, each of its shape."""
    coordinates = np.column_stack([xx0.ravel(), xx1.ravel()])
    batches = plane.points(coordinates, like.shape[1:], like.dtype)
    codes, confidence = zip(*map(response, batches), strict=True)
    known = confidence[0] is not None
    return np.concatenate(codes).reshape(xx0.shape), (
        np.concatenate(confidence).reshape(xx0.shape) if known else None
    )
