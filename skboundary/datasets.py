"""Synthetic problems with a decision boundary that is known in closed form."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import Bunch, check_random_state
from torch import Tensor, nn

from skboundary._random import RandomStateLike

__all__ = ["make_checkerboard", "make_circle", "make_linear", "make_sphere", "make_xor"]


class Discriminant(nn.Module):
    """A network with two logits: minus and plus half of a function whose sign is the class.

    Parameters
    ----------
    function : callable
        Maps samples (n, n_features) to values (n,).
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits (n, 2) of a batch."""
        value = self.function(x)
        return torch.stack([-value, value], 1) / 2


def make_linear(
    n_samples: int = 100,
    n_features: int = 2,
    *,
    slope: float = 4.0,
    random_state: RandomStateLike = None,
) -> Bunch:
    """Generate two classes separated by a hyperplane.

    Parameters
    ----------
    n_samples : int, default=100
        Number of samples.
    n_features : int, default=2
        Number of features.
    slope : float, default=4.0
        Norm of the gradient of the difference of the logits.
    random_state : int, RandomState instance or None, default=None
        Controls the draw of the samples and of the hyperplane.

    Returns
    -------
    problem : Bunch
        `data` of shape (n_samples, n_features), standard normal; `target` of shape (n_samples,);
        `module`, a network with the same boundary; `nearest`, a function that maps samples to the
        nearest points of the boundary, both of shape (n, n_features); `weights` and `bias` of the
        hyperplane.

    Examples
    --------
    >>> from skboundary.datasets import make_linear
    >>> problem = make_linear(random_state=0)
    >>> float(abs(problem.nearest(problem.data) @ problem.weights + problem.bias).max()) < 1e-12
    True
    """
    rng = check_random_state(random_state)
    X = rng.standard_normal((n_samples, n_features))
    w = rng.standard_normal(n_features)
    w *= slope / np.linalg.norm(w)
    b = 0.1 * slope * rng.standard_normal()
    weight = torch.from_numpy(w)

    def function(x: Tensor) -> Tensor:
        return x @ weight.to(x) + b

    def nearest(X: NDArray[Any]) -> NDArray[Any]:
        return X - ((X @ w + b) / (w @ w))[:, None] * w

    return _problem(X, function, nearest, weights=w, bias=b)


def make_sphere(
    n_samples: int = 100,
    n_features: int = 3,
    *,
    radius: float = 1.5,
    random_state: RandomStateLike = None,
) -> Bunch:
    """Generate one class inside a sphere around the origin and the other outside.

    Parameters
    ----------
    n_samples : int, default=100
        Number of samples.
    n_features : int, default=3
        Number of features.
    radius : float, default=1.5
        Radius of the sphere.
    random_state : int, RandomState instance or None, default=None
        Controls the draw of the samples.

    Returns
    -------
    problem : Bunch
        As in `make_linear`; the difference of the logits is ``||x||^2 - radius^2``.

    Examples
    --------
    >>> from skboundary.datasets import make_sphere
    >>> make_sphere(50, 5, random_state=0).data.shape
    (50, 5)
    """
    X = check_random_state(random_state).standard_normal((n_samples, n_features))

    def nearest(X: NDArray[Any]) -> NDArray[Any]:
        return radius * X / np.linalg.norm(X, axis=1, keepdims=True)

    return _problem(X, lambda x: (x**2).sum(1) - radius**2, nearest, radius=radius)


def make_circle(
    n_samples: int = 100, *, radius: float = 1.2, random_state: RandomStateLike = None
) -> Bunch:
    """Generate one class inside a circle around the origin and the other outside.

    Parameters
    ----------
    n_samples : int, default=100
        Number of samples.
    radius : float, default=1.2
        Radius of the circle.
    random_state : int, RandomState instance or None, default=None
        Controls the draw of the samples.

    Returns
    -------
    problem : Bunch
        As in `make_linear`, with two features.

    Examples
    --------
    >>> from skboundary.datasets import make_circle
    >>> problem = make_circle(random_state=0)
    >>> problem.nearest(problem.data).shape
    (100, 2)
    """
    return make_sphere(n_samples, 2, radius=radius, random_state=random_state)


def make_xor(n_samples: int = 100, *, random_state: RandomStateLike = None) -> Bunch:
    """Generate two classes in opposite quadrants: the class is the sign of ``x[0] * x[1]``.

    Parameters
    ----------
    n_samples : int, default=100
        Number of samples.
    random_state : int, RandomState instance or None, default=None
        Controls the draw of the samples.

    Returns
    -------
    problem : Bunch
        As in `make_linear`, with two features; the boundary consists of the two axes.

    Examples
    --------
    >>> from skboundary.datasets import make_xor
    >>> problem = make_xor(random_state=0)
    >>> float(abs(problem.nearest(problem.data)).min(axis=1).max())
    0.0
    """
    X = check_random_state(random_state).standard_normal((n_samples, 2))

    def nearest(X: NDArray[Any]) -> NDArray[Any]:
        return np.where(np.abs(X) == np.abs(X).min(1, keepdims=True), 0.0, X)

    return _problem(X, lambda x: 4 * x[:, 0] * x[:, 1], nearest)


def make_checkerboard(
    n_samples: int = 100, *, n_cells: int = 4, random_state: RandomStateLike = None
) -> Bunch:
    """Generate two classes on the cells of a checkerboard over the unit square.

    Parameters
    ----------
    n_samples : int, default=100
        Number of samples.
    n_cells : int, default=4
        Number of cells along each side.
    random_state : int, RandomState instance or None, default=None
        Controls the draw of the samples.

    Returns
    -------
    problem : Bunch
        As in `make_linear`, with two features, uniform on the square; the difference of the
        logits is ``4 sin(pi n_cells x[0]) sin(pi n_cells x[1])``.

    Examples
    --------
    >>> from skboundary.datasets import make_checkerboard
    >>> sorted(set(make_checkerboard(random_state=0).target.tolist()))
    [0, 1]
    """
    X = check_random_state(random_state).uniform(size=(n_samples, 2))

    def function(x: Tensor) -> Tensor:
        return 4 * torch.sin(torch.pi * n_cells * x).prod(1)

    def nearest(X: NDArray[Any]) -> NDArray[Any]:
        lines = np.round(X * n_cells) / n_cells
        nearer = np.abs(X - lines) == np.abs(X - lines).min(1, keepdims=True)
        return np.where(nearer, lines, X)

    return _problem(X, function, nearest, n_cells=n_cells)


def _problem(
    X: NDArray[Any],
    function: Callable[[Tensor], Tensor],
    nearest: Callable[[NDArray[Any]], NDArray[Any]],
    **facts: Any,
) -> Bunch:
    y = (function(torch.from_numpy(X)) > 0).numpy().astype(np.intp)
    return Bunch(data=X, target=y, module=Discriminant(function), nearest=nearest, **facts)
