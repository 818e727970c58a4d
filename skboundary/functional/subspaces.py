"""Subspaces of the input: windows of frequencies, of components, and explicit bases."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from skboundary.functional._shapes import shapes
from skboundary.functional.cosine_transform import dct_matrix

__all__ = [
    "Bases",
    "DCTWindows",
    "Subspaces",
    "WholeSpace",
    "component_windows",
    "dct_windows",
    "explicit_bases",
    "pca_components",
    "random_components",
]


class Subspaces(Protocol):
    """Subspaces S_0, S_1, ... of the space of flat samples, each with an orthonormal basis."""

    @property
    def n_subspaces(self) -> int:
        """How many there are."""

    def coordinates(self, w: Tensor, index: Tensor) -> Tensor:
        """``S^T w``: of vectors (..., m, d), the i-th in subspace `index[i]`, as (..., m, k)."""

    def expand(self, c: Tensor, index: Tensor) -> Tensor:
        """``S c``: from coordinates (m, k) in the subspaces `index` (m,) to vectors (m, d)."""


class WholeSpace(NamedTuple):
    """The whole space as the only subspace."""

    @property
    def n_subspaces(self) -> int:
        """One."""
        return 1

    def coordinates(self, w: Tensor, index: Tensor) -> Tensor:
        """Return `w`."""
        return w

    def expand(self, c: Tensor, index: Tensor) -> Tensor:
        """Return `c`."""
        return c


class Bases(NamedTuple):
    """Subspaces given by their basis vectors."""

    vectors: Tensor  # (n_subspaces, k, d) orthonormal; zeros fill up smaller subspaces

    @property
    def n_subspaces(self) -> int:
        """How many there are."""
        return len(self.vectors)

    def coordinates(self, w: Tensor, index: Tensor) -> Tensor:
        """``S^T w``, subspace by subspace."""
        c = w.new_empty(*w.shape[:-1], self.vectors.shape[1])
        for s in index.unique().tolist():
            c[..., index == s, :] = w[..., index == s, :] @ self.vectors[s].T
        return c

    def expand(self, c: Tensor, index: Tensor) -> Tensor:
        """``S c``, subspace by subspace."""
        x = c.new_empty(*c.shape[:-1], self.vectors.shape[2])
        for s in index.unique().tolist():
            x[..., index == s, :] = c[..., index == s, :] @ self.vectors[s]
        return x


class DCTWindows(NamedTuple):
    """Spans of products of cosines, the same for every channel of an image.

    The basis image of frequencies i and j is the outer product of two rows of `dct_matrix`, so
    coordinates cost two small matrix products and no basis image is ever built.
    """

    rows: Tensor  # (n_subspaces, k, height) cosines down the image
    columns: Tensor  # (n_subspaces, k, width) cosines along it

    @property
    def n_subspaces(self) -> int:
        """How many there are."""
        return len(self.rows)

    def coordinates(self, w: Tensor, index: Tensor) -> Tensor:
        """``C_h w C_w^T`` inside the window, for every channel."""
        images = w.unflatten(-1, (-1, self.rows.shape[2], self.columns.shape[2]))
        left, right = self.rows[index][:, None], self.columns[index][:, None]
        return (left @ images @ right.mT).flatten(-3)

    def expand(self, c: Tensor, index: Tensor) -> Tensor:
        """``C_h^T c C_w`` for every channel."""
        coefficients = c.unflatten(-1, (-1, self.rows.shape[1], self.columns.shape[1]))
        left, right = self.rows[index][:, None], self.columns[index][:, None]
        return (left.mT @ coefficients @ right).flatten(-3)


def dct_windows(
    height: int,
    width: int,
    window: int,
    step: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> DCTWindows:
    """Slide a square window of frequencies along the diagonal [1]_, from low to high.

    Parameters
    ----------
    height, width : int
        Of the images. Where they differ, the window advances by `step` along the shorter axis
        and in proportion, rounded, along the longer one.
    window : int
        Frequencies along each axis, at most ``min(height, width)``. A subspace has
        ``window ** 2`` dimensions for each channel.
    step : int
    dtype : torch.dtype, default=None
    device : torch.device, default=None

    Returns
    -------
    subspaces : DCTWindows
        ``(min(height, width) - window) // step + 1`` of them.

    References
    ----------
    .. [1] G. Ortiz-Jimenez, A. Modas, S. Moosavi-Dezfooli, P. Frossard, "Hold me tight!
       Influence of discriminative features on deep network boundaries", `arXiv 2002.06349
       <https://arxiv.org/abs/2002.06349>`_.

    Examples
    --------
    >>> dct_windows(28, 28, 8, 1).n_subspaces
    21
    """
    starts = torch.arange(0, min(height, width) - window + 1, step)

    def slide(n: int) -> Tensor:
        scale = (n - window) / max(min(height, width) - window, 1)
        first = (starts * scale).round().long()
        return dct_matrix(n, dtype=dtype, device=device)[first[:, None] + torch.arange(window)]

    return DCTWindows(slide(height), slide(width))


@shapes(x="n d")
def pca_components(
    x: Tensor, n_components: int | None = None, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Find the directions of largest variance.

    Parameters
    ----------
    x : Tensor of shape (n, d)
    n_components : int, default=None
        None is the number that the samples determine: d, or n - 1 if n is at most d.
    dtype : torch.dtype, default=None
        Computed in float64 and rounded to it; None is that of x.

    Returns
    -------
    components : Tensor of shape (n_components, d)
        Orthonormal, by decreasing variance.

    Examples
    --------
    >>> pca_components(torch.tensor([[0.0, 0.0], [0.0, 4.0], [1.0, 2.0]]), 1).abs()
    tensor([[0., 1.]])
    """
    n, d = x.shape
    centered = x.double() - x.mean(0, dtype=torch.float64)
    largest = torch.linalg.vector_norm(centered, torch.inf)  # squares must not leave the range
    centered /= largest.clamp_min(torch.finfo(largest.dtype).tiny)
    if n > d:
        components = torch.linalg.eigh(centered.T @ centered).eigenvectors.T.flip(0)
    else:
        components = torch.linalg.svd(centered, full_matrices=False).Vh[: n - 1]
    return components[:n_components].to(dtype or x.dtype)


def random_components(
    n_components: int,
    n_features: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw orthonormal directions, uniformly over all orthonormal systems.

    Parameters
    ----------
    n_components : int
        At most `n_features`.
    n_features : int
    generator : torch.Generator
        On the CPU.
    dtype : torch.dtype, default=None
    device : torch.device, default=None

    Returns
    -------
    components : Tensor of shape (n_components, n_features)
    """
    shape = (n_features, n_components)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(normal).Q.T.to(dtype=dtype or torch.get_default_dtype(), device=device)


@shapes(components="k d")
def component_windows(components: Tensor, window: int, step: int) -> Bases:
    """Slide a window over orthonormal components.

    Parameters
    ----------
    components : Tensor of shape (n_components, d)
        Orthonormal.
    window : int
        Components in a subspace, at most n_components.
    step : int

    Returns
    -------
    subspaces : Bases
        Views: no component is copied.

    Examples
    --------
    >>> component_windows(torch.eye(6), 2, 2).vectors.shape
    torch.Size([3, 2, 6])
    """
    return Bases(components.unfold(0, window, step).mT)


def explicit_bases(bases: Sequence[Tensor]) -> Bases:
    """Build subspaces from given vectors.

    Parameters
    ----------
    bases : sequence of Tensor of shape (k_i, d)
        The vectors of each span a subspace; they need not be orthonormal.

    Returns
    -------
    subspaces : Bases

    Raises
    ------
    ValueError
        For vectors that are linearly dependent.

    Examples
    --------
    >>> explicit_bases([torch.tensor([[3.0, 4.0]]), torch.eye(2)]).n_subspaces
    2
    """
    vectors = bases[0].new_zeros(len(bases), max(map(len, bases)), bases[0].shape[1])
    for s, basis in enumerate(bases):
        _, values, span = torch.linalg.svd(basis.double(), full_matrices=False)
        rank = int((values > values[0] * max(basis.shape) * torch.finfo(basis.dtype).eps).sum())
        if rank < len(basis):
            raise ValueError(
                f"The {len(basis)} vectors of subspace {s} span {rank} dimensions only. Leave out "
                "those that are linear combinations of others."
            )
        vectors[s, :rank] = span.to(vectors)
    return Bases(vectors)
