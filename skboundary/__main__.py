"""``python -m skboundary``: a tour of the package on real data."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skboundary._tour import Recipe

_ABOUT = """\
Train small networks on scikit-learn's handwritten digits, or on your own data, and show what
skboundary says of them: the bare network against LatentKNNClassifier with clean and with permuted
labels, the sweep over k and query_weight, the neighbors of the test rows that the network is least
certain of; borderline pairs of the first two classes by BoundarySampleExtractor, from noise and
from training rows, saved as a picture; and BiasedExtrapolationSampler against SMOTE and logit
adjustment in the latent space of a network that saw too few rows of every second class. Every
figure printed is also written to DIR/figures.json.
"""

_DATA = """\
your own data: a numpy archive with X_train, y_train, X_test and y_test. Rows are images (n, H, W),
(n, H, W, C) or (n, C, H, W), where the shorter of the second and last axis counts the channels, or
vectors (n, d). Labels may be of any kind. At most 2,000 training and 2,000 test rows are used,
drawn with a seed where there are more, which keeps the time to a minute or so.
"""


def main(argv: Sequence[str] | None = None, recipe: Recipe | None = None) -> int:
    """Run the tour.

    Parameters
    ----------
    argv : sequence of str, default=None
        The command line after the program's name; None reads the real one.
    recipe : Recipe, default=None
        Sizes and seeds other than the tour's own.

    Returns
    -------
    code : int
        0, or 2 for input that cannot be used.
    """
    arguments = _parser().parse_args(argv)
    start = time.perf_counter()
    from skboundary import _tour  # torch: only now, so that --help is quick
    from skboundary._device import resolve_device

    try:
        device = resolve_device(arguments.device)
        problem = _tour.load_problem(arguments.data, device, recipe or _tour.Recipe())
        path = _claim(Path(arguments.out))
    except (ValueError, OSError) as error:
        print("skboundary:", " ".join(str(error).split()), file=sys.stderr)
        return 2

    print(problem.description)
    figures: dict[str, Any] = {
        "arguments": vars(arguments),
        "versions": _tour.versions(),
        "recipe": problem.recipe._asdict(),
        "problem": problem.description,
    }
    seconds = {}
    with _tour.one_thread():
        for name, part in _tour.PARTS.items():
            before = time.perf_counter()
            figures[name] = part(problem, path.parent)
            seconds[name] = round(time.perf_counter() - before, 1)
    figures["seconds"] = {**seconds, "total": round(time.perf_counter() - start, 1)}
    path.write_text(json.dumps(figures, indent=1, default=_plain, allow_nan=False) + "\n")
    print(f"\n{figures['seconds']['total']} seconds. All figures: {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m skboundary", description=_ABOUT)
    parser.add_argument("--data", metavar="FILE.npz", help=_DATA)
    parser.add_argument(
        "--out", metavar="DIR", default="tour", help="where figures.json goes (default: ./tour)"
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, mps ...; auto (the default) takes the best"
    )
    return parser


def _claim(folder: Path) -> Path:
    """Make the folder and see now, not after a minute, whether figures.json can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "figures.json"
    path.open("a").close()
    return path


def _plain(value: Any) -> Any:
    """Turn numpy's scalars and arrays into what JSON knows."""
    return value.tolist()


if __name__ == "__main__":
    sys.exit(main())
