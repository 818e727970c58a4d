"""Regions of a grid of predicted classes: colors, borders, names and their number."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label

from skboundary.display._style import class_color, fitting_font, line_style, outline, size_in_points

_PALEST, _STRONGEST = 0.2, 0.65  # opacity of a class at the least and the highest confidence
_OVERLAP = 1.5  # width of a name in diameters of the circle inside its region


def count_regions(prediction: NDArray[np.intp]) -> int:
    """Number of connected regions, summed over the classes; corners do not connect."""
    return sum(int(label(prediction == code)[1]) for code in np.unique(prediction))


def region_colors(
    prediction: NDArray[np.intp], confidence: NDArray[Any] | None, n_classes: int
) -> NDArray[Any]:
    """Colors (r, r, 3) of classes (r, r), palest at the least confidence, 1 / n_classes."""
    palette = np.array([class_color(code) for code in range(n_classes)])
    least = 1 / max(n_classes, 2)
    share = np.ones(prediction.shape) if confidence is None else (confidence - least) / (1 - least)
    opacity = _PALEST + (_STRONGEST - _PALEST) * np.clip(share, 0, 1)
    return 1 - opacity[..., None] * (1 - palette[prediction])


def draw_borders(
    ax: Any,
    xx0: NDArray[Any],
    xx1: NDArray[Any],
    prediction: NDArray[np.intp],
    curve_kwargs: Mapping[str, Any] | None,
) -> list[Any]:
    """Draw the borders of the regions of each class but the last, which has none of its own."""
    style = line_style({"color": "black", "linewidth": 1.0}, curve_kwargs)
    names = {"color": "colors", "linewidth": "linewidths", "linestyle": "linestyles"}
    style = {names.get(key, key): value for key, value in style.items()}
    return [
        ax.contour(xx0, xx1, (prediction == code).astype(float), levels=[0.5], **style)
        for code in np.unique(prediction)[:-1]
    ]


def name_regions(
    ax: Any,
    xx0: NDArray[Any],
    xx1: NDArray[Any],
    prediction: NDArray[np.intp],
    classes: NDArray[Any],
) -> list[Any]:
    """Write each class into its largest region, far from the border, where it fits."""
    texts = []
    cell = min(size_in_points(ax)) / max(prediction.shape)
    for code in np.unique(prediction):
        regions, _ = label(prediction == code)
        sizes = np.bincount(regions.ravel())[1:]
        inside = np.pad(regions == 1 + sizes.argmax(), 1)  # the frame is a border, too
        depth = distance_transform_edt(inside)[1:-1, 1:-1]
        place = np.unravel_index(depth.argmax(), depth.shape)
        room = 2 * depth[place] * cell
        size = fitting_font([str(classes[code])], _OVERLAP * room, room)
        if size is None:
            continue
        style = dict(ha="center", va="center", path_effects=outline(), clip_on=True, fontsize=size)
        texts.append(ax.text(xx0[place], xx1[place], str(classes[code]), **style))
    return texts
