"""Random orthonormal directions of the steps along a boundary, of low frequencies for images."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import torch
from torch import Tensor

from skboundary.functional.cosine_transform import idct2


class Directions:
    """Random orthonormal directions of one search, the same for all samples.

    They are drawn from the whole space, from the span of a basis, or for images from the span of
    their lowest frequencies, as many as directions have been drawn so far: q labels cannot tell
    more than q coordinates of the normal of a boundary, and those of low frequency have a larger
    share of it than others for many networks, and not a smaller one for the rest.

    Parameters
    ----------
    x : Tensor of shape (n, d)
        Has the dtype and device of the directions.
    n : int
        Directions of one step, at most the dimension of the space.
    generator : torch.Generator
        On the CPU.
    basis : Tensor of shape (k, d), default=None
        Orthonormal vectors.
    image_shape : tuple of int, default=None
        Shape (..., height, width) of d numbers.
    """

    def __init__(
        self,
        x: Tensor,
        n: int,
        generator: torch.Generator,
        *,
        basis: Tensor | None = None,
        image_shape: tuple[int, ...] | None = None,
    ) -> None:
        self.like, self.generator, self.basis = x, generator, basis
        self.n = max(1, min(n, x.shape[1] if basis is None else len(basis)))
        self.n_drawn = 0
        self.image_shape = image_shape
        if image_shape is not None:
            if len(image_shape) < 2 or math.prod(image_shape) != x.shape[1]:
                raise ValueError(
                    f"image_shape={image_shape} is not (..., height, width) of {x.shape[1]} "
                    "numbers."
                )
            self.order = frequency_order(image_shape)

    def draw(self) -> Tensor:
        """Directions (n, d) of the next step."""
        self.n_drawn += self.n
        if self.image_shape is None:
            return orthonormal_directions(self.like, self.basis, self.generator, self.n)
        d = self.like.shape[1]
        lowest = self.order[: self.n_drawn]
        coefficients = torch.zeros(self.n, d, dtype=torch.float64)
        coefficients[:, lowest] = _orthonormal(len(lowest), self.n, self.generator)
        images = idct2(coefficients.view(self.n, *self.image_shape))
        return images.flatten(1).to(self.like)


def frequency_order(image_shape: tuple[int, ...]) -> Tensor:
    """Positions (d,) of the cosine coefficients of images, by increasing frequency.

    The frequency is the sum of those along both axes, in half periods per pixel.
    """
    height, width = image_shape[-2:]
    frequency = torch.arange(height)[:, None] * width + torch.arange(width) * height  # times h w
    return frequency.expand(image_shape).flatten().argsort(stable=True)


def orthonormal_directions(
    x: Tensor, basis: Tensor | None, generator: torch.Generator, n: int
) -> Tensor:
    """Random orthonormal directions, n at most, of the whole space or of the span of a basis."""
    k = x.shape[1] if basis is None else len(basis)
    directions = _orthonormal(k, min(n, k), generator).to(x)
    return directions if basis is None else directions @ basis


def _orthonormal(k: int, n: int, generator: torch.Generator) -> Tensor:
    """Random orthonormal vectors (n, k) in float64."""
    normal = torch.randn(k, n, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(normal)[0].T
