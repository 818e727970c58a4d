"""A matrix of numbers as colors, with the numbers in its cells where they can be read."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skboundary.display._style import fitting_font, size_in_points

_MAX_CELLS = 144  # with numbers
_MAX_TICKS = 25
_INSIDE = 0.75  # share of axes that a layout leaves beside a color bar, and gaps between cells


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
        Of the cells that are not NaN, row by row; empty where they would not fit.
    """
    width, height = size_in_points(ax)
    width, height = _INSIDE * width / len(columns), _INSIDE * height / len(rows)
    image = ax.imshow(values, **{"cmap": "viridis", "aspect": "auto", **image_kwargs})
    for axis, labels in ((ax.yaxis, rows), (ax.xaxis, columns)):
        step = -(-len(labels) // _MAX_TICKS)
        axis.set_ticks(range(0, len(labels), step), [str(label) for label in labels[::step]])
    if fitting_font([str(label) for label in columns], width, 9.0) != 9.0:
        ax.tick_params(axis="x", rotation=90)
    numbers = {place: format(v, number_format) for place, v in np.ndenumerate(values) if v == v}
    size = fitting_font([*numbers.values()], width, height)
    texts = []
    for (i, j), number in numbers.items() if size and values.size <= _MAX_CELLS else ():
        style = {"ha": "center", "va": "center", "fontsize": size, **(text_kwargs or {})}
        style.setdefault("color", _contrast(image.cmap(image.norm(values[i, j]))))
        texts.append(ax.text(j, i, number, **style))
    return image, texts


def _contrast(color: tuple[float, ...]) -> str:
    """Black or white, whichever differs more in luminance."""
    return "black" if np.dot(color[:3], (0.299, 0.587, 0.114)) > 0.5 else "white"
