"""What the displays share: matplotlib, axes, and the color and shape of classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARKERS = "os^DvPX<>p"
MAX_LEGEND = 10  # classes; a longer legend cannot be read
TEXT = {"fontsize": "small"}
_CHARACTER = 0.6  # width of a character, in font sizes


def load_pyplot(caller: str) -> Any:
    """Import `matplotlib.pyplot`.

    Parameters
    ----------
    caller : str
        Name for the message.

    Raises
    ------
    ImportError
        With the line that installs matplotlib.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib. Install it by pip install 'skboundary[plot]'."
        ) from error
    return pyplot


def class_color(code: int) -> tuple[float, float, float]:
    """Color of a class: Petroff's ten colors in cycles."""
    import matplotlib
    from matplotlib.colors import to_rgb

    colors = matplotlib.color_sequences["petroff10"]
    return to_rgb(colors[code % len(colors)])


def class_marker(code: int) -> str:
    """Shape of a class; the first hundred differ in their color or shape."""
    return MARKERS[(code + code // len(MARKERS)) % len(MARKERS)]


def outline(width: float = 2.0) -> list[Any]:
    """A white outline, with which text can be read on any color."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="white")]


def line_style(defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge the user's keywords of a line into the defaults; "lw" replaces "linewidth".

    Raises
    ------
    TypeError
        If a keyword is given by two names.
    """
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    return {**defaults, **normalize_kwargs(dict(given or {}), Line2D)}


def line_styles(
    defaults: Sequence[Mapping[str, Any]],
    given: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    """Keywords of several lines; a single dict holds for all.

    Raises
    ------
    ValueError
        If a list has another length than there are lines.
    """
    if given is None or isinstance(given, Mapping):
        return [line_style(default, given) for default in defaults]
    if len(given) != len(defaults):
        raise ValueError(
            f"curve_kwargs has {len(given)} entries, but there are {len(defaults)} curves. Give "
            "one dict for each, or a single one for all."
        )
    return [line_style(*pair) for pair in zip(defaults, given, strict=True)]


def one_axes(ax: Any, figsize: tuple[float, float] | None = None) -> Any:
    """The axes given, or those of a new figure."""
    pyplot = load_pyplot("plot")
    return pyplot.subplots(figsize=figsize, layout="constrained")[1] if ax is None else ax


def many_axes(
    ax: Any, n_rows: int, n_columns: int, figsize: tuple[float, float], **grid: Any
) -> tuple[NDArray[Any], Any]:
    """Axes of a grid: of a new figure, those given, or parts of the one given.

    Returns
    -------
    axes : ndarray of shape (n_rows, n_columns)
    bounding_ax : Axes or None
        The axes that were split.

    Raises
    ------
    ValueError
        For a list of another length, or axes outside of a grid.
    """
    pyplot = load_pyplot("plot")
    shape = (n_rows, n_columns)
    if ax is None:
        figure = pyplot.figure(figsize=figsize, layout="constrained")
        return figure.subplots(*shape, squeeze=False, gridspec_kw=grid), None
    if not hasattr(ax, "get_subplotspec"):
        axes = np.ravel(np.array(ax, dtype=object))
        if len(axes) != math.prod(shape):
            raise ValueError(
                f"ax holds {len(axes)} axes, but {math.prod(shape)} are drawn. Give as many, or "
                "a single one, which is split."
            )
        return axes.reshape(shape), None
    if ax.get_subplotspec() is None:
        raise ValueError(
            "ax was placed by hand, so it cannot be split. Give axes made by plt.subplots, or a "
            f"list of {math.prod(shape)} axes."
        )
    ax.set_axis_off()
    parts = ax.get_subplotspec().subgridspec(*shape, **grid)
    axes = np.empty(shape, dtype=object)
    for place in product(*map(range, shape)):
        axes[place] = ax.figure.add_subplot(parts[place])
    return axes, ax


def scatter_classes(
    ax: Any,
    points: NDArray[Any],
    codes: NDArray[np.intp],
    classes: NDArray[Any],
    alpha: NDArray[Any] | None = None,
    **kwargs: Any,
) -> dict[int, Any]:
    """Draw points (n, 2) with the color and shape of their classes.

    Returns
    -------
    collections : dict
        From the position in `classes` to the artist, whose label is the class.
    """
    drawn = {}
    for code in np.unique(codes).tolist():
        of = codes == code
        style = {"s": 22, "edgecolors": "black", "linewidths": 0.5, "zorder": 3, **kwargs}
        drawn[code] = ax.scatter(
            *points[of].T,
            color=class_color(code),
            marker=class_marker(code),
            alpha=None if alpha is None else alpha[of],
            label=str(classes[code]),
            **style,
        )
    return drawn


def class_keys(codes: Sequence[int], classes: NDArray[Any], **kwargs: Any) -> list[Any]:
    """Entries of a legend for classes, opaque whatever the points are."""
    from matplotlib.lines import Line2D

    style = {"linestyle": "none", "markeredgecolor": "black", "markeredgewidth": 0.5, **kwargs}
    return [
        Line2D(
            [],
            [],
            marker=class_marker(code),
            color=class_color(code),
            label=str(classes[code]),
            **style,
        )
        for code in codes
    ]


def size_in_points(ax: Any) -> tuple[float, float]:
    """Width and height of axes, before a layout makes room for their labels."""
    box, dpi = ax.get_window_extent(), ax.figure.dpi
    return 72 * box.width / dpi, 72 * box.height / dpi


def fitting_font(texts: Sequence[str], width: float, height: float) -> float | None:
    """Font size up to 9 with which the longest text fits into a box, None below 5."""
    longest = max((len(text) for text in texts), default=0)
    size = min(9.0, width / (_CHARACTER * max(longest, 1)), height)
    return size if size >= 5 else None


def legend_beside(ax: Any, handles: Sequence[Any], **kwargs: Any) -> Any:
    """A legend right of the axes, or None if it would be too long to read."""
    if not 0 < len(handles) <= MAX_LEGEND:
        return None
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.3}
    return ax.legend(handles=handles, **{**place, **TEXT, "frameon": False, **kwargs})


def strip(ax: Any) -> None:
    """Remove ticks and frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
