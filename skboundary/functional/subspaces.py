"""Subspaces of the input: windows of the cosine transform, of components, explicit bases."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Subspaces(Protocol):
    """Subspaces S_0, S_1, ... of the space of flattened rows, each with an orthonormal basis."""

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


# ---------------------------------------------------------------------------- frequencies


def dct_matrix(
    n: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Build the orthonormal cosine transform (DCT-II).

    ``C[k, i] = sqrt(2 / n) cos(pi (2 i + 1) k / (2 n))``, the first row divided by sqrt(2).

    Parameters
    ----------
    n : int
    dtype : torch.dtype, default=None
        Computed in float64 and rounded to it.
    device : torch.device, default=None

    Returns
    -------
    C : Tensor of shape (n, n)
        Orthogonal: its transpose is the inverse transform.

    Examples
    --------
    >>> dct_matrix(2, dtype=torch.float32)
    tensor([[ 0.7071,  0.7071],
            [ 0.7071, -0.7071]])
    """
    i = torch.arange(n)
    phase = (2 * i + 1) * i[:, None] % (4 * n)  # in whole numbers: a large angle would round
    C = math.sqrt(2 / n) * torch.cos(math.pi * phase.double() / (2 * n))
    C[0] /= math.sqrt(2)
    return C.to(dtype=dtype or torch.get_default_dtype(), device=device)


def dct2(x: Tensor) -> Tensor:
    """Transform images to frequencies: ``C_h x C_w^T`` on the last two axes.

    Parameters
    ----------
    x : Tensor of shape (..., height, width)

    Returns
    -------
    coefficients : Tensor of shape (..., height, width)
        The lowest frequency first.
    """
    left, right = _transforms(x)
    return left @ x @ right.T


def idct2(coefficients: Tensor) -> Tensor:
    """Transform frequencies back to images; the inverse of `dct2`.

    Parameters
    ----------
    coefficients : Tensor of shape (..., height, width)

    Returns
    -------
    x : Tensor of shape (..., height, width)
    """
    left, right = _transforms(coefficients)
    return left.T @ coefficients @ right


def _transforms(x: Tensor) -> tuple[Tensor, Tensor]:
    height, width = x.shape[-2:]
    return (
        dct_matrix(height, dtype=x.dtype, device=x.device),
        dct_matrix(width, dtype=x.dtype, device=x.device),
    )


def frequency_flip(x: Tensor) -> Tensor:
    """Exchange low and high frequencies; twice gives the image back.

    Parameters
    ----------
    x : Tensor of shape (..., height, width)

    Returns
    -------
    flipped : Tensor of shape (..., height, width)
    """
    return idct2(dct2(x).flip(-2, -1))


def low_pass(x: Tensor, bandwidth: int) -> Tensor:
    """Keep the `bandwidth` x `bandwidth` lowest frequencies of every image.

    Parameters
    ----------
    x : Tensor of shape (..., height, width)
    bandwidth : int

    Returns
    -------
    x : Tensor of shape (..., height, width)
    """
    kept = dct2(x)
    kept[..., bandwidth:, :] = 0
    kept[..., bandwidth:] = 0
    return idct2(kept)


def high_pass(x: Tensor, bandwidth: int) -> Tensor:
    """Keep the `bandwidth` x `bandwidth` highest frequencies of every image.

    Parameters
    ----------
    x : Tensor of shape (..., height, width)
    bandwidth : int

    Returns
    -------
    x : Tensor of shape (..., height, width)
    """
    kept = dct2(x)
    kept[..., : x.shape[-2] - bandwidth, :] = 0
    kept[..., : x.shape[-1] - bandwidth] = 0
    return idct2(kept)


def dct_windows(
    height: int,
    width: int,
    window: int,
    step: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> DCTWindows:
    """Let a square window of frequencies slide along the diagonal, from low to high.

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


# ----------------------------------------------------------------------------- components


def pca_components(
    x: Tensor, n_components: int | None = None, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Find the directions of largest variance.

    Parameters
    ----------
    x : Tensor of shape (n, d)
    n_components : int, default=None
        None takes all that the rows determine: d, or n - 1 where there are no more rows than d.
    dtype : torch.dtype, default=None
        Computed in float64 and rounded to it; None is that of x.

    Returns
    -------
    components : Tensor of shape (n_components, d)
        Orthonormal rows, by falling variance.
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
    """Draw orthonormal directions, uniformly over all such systems.

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


def component_windows(components: Tensor, window: int, step: int) -> Bases:
    """Let a window slide over orthonormal components.

    Parameters
    ----------
    components : Tensor of shape (n_components, d)
        Orthonormal rows.
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
    """Take the spans of given vectors.

    Parameters
    ----------
    bases : sequence of Tensor of shape (k_i, d)
        The rows of each span a subspace; they need not be orthonormal.

    Returns
    -------
    subspaces : Bases

    Raises
    ------
    ValueError
        For vectors that depend on each other.

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
                "those that depend on others."
            )
        vectors[s, :rank] = span.to(vectors)
    return Bases(vectors)
