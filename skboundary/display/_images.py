"""Samples as images, side by side in one picture."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_images(X: NDArray[Any], image_shape: tuple[int, ...] | None = None) -> NDArray[Any] | None:
    """Samples as images (n, height, width) or (n, height, width, 3), None for vectors.

    Parameters
    ----------
    X : ndarray of shape (n, ...)
    image_shape : tuple of int, default=None
        Shape of one sample: height and width, with an axis of 1 or 3 channels before or after.
        None is that of X.

    Raises
    ------
    ValueError
        For a shape that does not hold the values of a sample, or is not that of an image.
    """
    if image_shape is None:
        if X.ndim == 2:
            return None
        image_shape = X.shape[1:]
    size = int(np.prod(X.shape[1:]))
    if np.prod(image_shape) != size:
        raise ValueError(
            f"image_shape={image_shape} holds {np.prod(image_shape)} values, but a sample has "
            f"{size}. Give the shape of one sample."
        )
    images = X.reshape(len(X), *image_shape)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3):
        return images
    raise ValueError(
        f"image_shape={image_shape} is not that of an image. Give (height, width), with an axis of "
        "1 or 3 channels before or after."
    )


def side_by_side(images: NDArray[Any], gap: int = 1) -> tuple[NDArray[Any], NDArray[Any]]:
    """Join images (n, height, width, ...) to one, with the centers (n,) of its parts.

    Gray images have NaN in the gaps, which is transparent; images in color have 1.
    """
    n, height, width, *channels = images.shape
    fill = 1.0 if channels else np.nan
    wide = np.full((height, n, width + gap, *channels), fill)
    wide[:, :, :width] = np.moveaxis(images, 0, 1)
    joined = wide.reshape(height, n * (width + gap), *channels)
    return joined[:, : joined.shape[1] - gap], np.arange(n) * (width + gap) + (width - 1) / 2


def show(
    ax: Any, images: NDArray[Any], low: float, high: float, **kwargs: Any
) -> tuple[Any, NDArray[Any]]:
    """Draw images side by side, values from `low` to `high`.

    Returns
    -------
    image : matplotlib AxesImage
    centers : ndarray of shape (n,)
        Horizontal positions of the images.
    """
    color = images.ndim == 4
    if color:
        images = ((images - low) / ((high - low) or 1.0)).clip(0, 1)
    gap = max(1, images.shape[2] // 12)
    joined, centers = side_by_side(images, gap)
    style = {} if color else {"cmap": "gray", "vmin": low, "vmax": high, **kwargs}
    image = ax.imshow(joined, interpolation="nearest", **style)
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, labelsize="small")
    return image, centers


def largest_change(first: NDArray[Any], last: NDArray[Any]) -> NDArray[Any]:
    """Differences (n, height, width): of channels the one that changes most, with its sign."""
    change = last.astype(np.float64) - first
    if change.ndim == 3:
        return change
    channel = np.abs(change).argmax(3)
    return np.take_along_axis(change, channel[..., None], 3)[..., 0]
