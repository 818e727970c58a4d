"""The pictures of the tour, drawn by the displays of the package."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def save_picture(
    path: Path, size: tuple[float, float], draw: Callable[[Any], Any], skip: str = ""
) -> dict[str, Any]:
    """Save what `draw` draws on a figure, or print why there is no picture."""
    if not skip and find_spec("matplotlib") is None:
        skip = "matplotlib is not installed (the plot extra)"
    if skip:
        print(f"\nNo picture: {skip}.")
        return {"skipped": skip}
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    figure.savefig(path, dpi=120)
    print(f"\nPicture: {path}")
    return {"file": path.name}
