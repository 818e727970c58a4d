"""A matrix of numbers as colors, with the numbers in its cells where they can be read."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_CELLS = 144  # with numbers
_MAX_TICKS = 25


def draw_heat_map(
    ax: Any,
    values: NDArray[Any],
    rows: Sequence[Any] | NDArray[Any],
    columns: Sequence[Any] | NDArray[Any],
    number_format: str,
    image_kwargs: Mapping[str, Any],
    text_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Any, list[Any]]:
    """Draw values (n_rows, n_columns); NaN is left white.

    Returns
    -------
    image : matplotlib AxesImage
    texts : list of matplotlib Text
        Of the cells that are not NaN, row by row; empty for many cells.
    """
    image = ax.imshow(values, **{"cmap": "viridis", "aspect": "auto", **image_kwargs})
    for axis, labels in ((ax.yaxis, rows), (ax.xaxis, columns)):
        step = -(-len(labels) // _MAX_TICKS)
        axis.set_ticks(range(0, len(labels), step), [str(label) for label in labels[::step]])
    if len(columns) > 8 or max((len(str(label)) for label in columns), default=0) > 6:
        ax.tick_params(axis="x", rotation=90)
    if values.size > _MAX_CELLS:
        return image, []
    texts = []
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            style = {"ha": "center", "va": "center", "fontsize": "small", **(text_kwargs or {})}
            style.setdefault("color", _contrast(image.cmap(image.norm(value))))
            texts.append(ax.text(j, i, format(value, number_format), **style))
    return image, texts


def _contrast(color: tuple[float, ...]) -> str:
    """Black or white, whichever differs more in luminance."""
    return "black" if np.dot(color[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
