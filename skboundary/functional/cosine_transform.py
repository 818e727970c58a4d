"""The discrete cosine transform of images, and filters of their frequencies."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dct2", "dct_matrix", "frequency_flip", "high_pass", "idct2", "low_pass"]


def dct_matrix(
    n: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Build the orthonormal cosine transform (DCT-II).

    ``C[k, i] = sqrt(2 / n) cos(pi (2 i + 1) k / (2 n))``, its first row divided by sqrt(2).

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
    phase = (2 * i + 1) * i[:, None] % (4 * n)  # in integers: a large angle would be rounded
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
    """The transforms along the height and the width of images."""
    height, width = x.shape[-2:]
    return (
        dct_matrix(height, dtype=x.dtype, device=x.device),
        dct_matrix(width, dtype=x.dtype, device=x.device),
    )


def frequency_flip(x: Tensor) -> Tensor:
    """Exchange low and high frequencies [1]_; applied twice, it returns the image.

    Parameters
    ----------
    x : Tensor of shape (..., height, width)

    Returns
    -------
    flipped : Tensor of shape (..., height, width)

    References
    ----------
    .. [1] G. Ortiz-Jimenez, A. Modas, S. Moosavi-Dezfooli, P. Frossard, "Hold me tight!
       Influence of discriminative features on deep network boundaries", `arXiv 2002.06349
       <https://arxiv.org/abs/2002.06349>`_.
    """
    return idct2(dct2(x).flip(-2, -1))


def low_pass(x: Tensor, bandwidth: int) -> Tensor:
    """Keep the `bandwidth` x `bandwidth` lowest frequencies of every image [1]_.

    Parameters
    ----------
    x : Tensor of shape (..., height, width)
    bandwidth : int

    Returns
    -------
    x : Tensor of shape (..., height, width)

    References
    ----------
    .. [1] G. Ortiz-Jimenez, A. Modas, S. Moosavi-Dezfooli, P. Frossard, "Hold me tight!
       Influence of discriminative features on deep network boundaries", `arXiv 2002.06349
       <https://arxiv.org/abs/2002.06349>`_.
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
