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
Train small networks on scikit-learn's handwritten digits, or on your own data, and run the main
estimators of skboundary on them. The first part compares LatentKNNClassifier with its base network,
for clean and for permuted labels, sweeps k and query_weight, and lists the neighbors of the least
confident predictions. The second part extracts borderline pairs of the first two classes with
BoundarySampleExtractor, from noise and from training samples. The third part compares
BiasedExtrapolationSampler with SMOTE and logit adjustment in the latent space of a network trained
with few samples of every second class. Each part saves a picture, if matplotlib is installed, and
all printed figures are also written to DIR/figures.json.
"""

_DATA = """\
your own data: an npz file with X_train, y_train, X_test and y_test. Samples are images (n, H, W),
(n, H, W, C) or (n, C, H, W), where the shorter of the second and the last axis holds the channels,
or vectors (n, n_features). Labels may be numbers or strings. At most 2,000 training and 2,000 test
samples are used, drawn with a fixed seed, which limits the time to about a minute.
"""


def main(argv: Sequence[str] | None = None, recipe: Recipe | None = None) -> int:
    """Run the tour.

    Parameters
    ----------
    argv : sequence of str, default=None
        Command-line arguments; None reads those of the process.
    recipe : Recipe, default=None
        Sizes, seeds and settings; None takes the defaults of the tour.

    Returns
    -------
    code : int
        Exit status: 0, or 2 for invalid input.
    """
    arguments = _parser().parse_args(argv)
    start = time.perf_counter()
    from skboundary import _tour  # imports torch; done here, so that --help is fast
    from skboundary._device import resolve_device
    from skboundary._random import one_thread

    try:
        device = resolve_device(arguments.device)
        problem = _tour.load_problem(arguments.data, device, recipe or _tour.Recipe())
        path = _make_output(Path(arguments.out))
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
    with one_thread():  # faster for small networks, and sums are the same on any machine
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
        "--out",
        metavar="DIR",
        default="tour",
        help="folder for figures.json and the pictures (default: ./tour)",
    )
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, mps ...; auto (the default) takes an accelerator if there is one",
    )
    return parser


def _make_output(folder: Path) -> Path:
    """Create the folder and check at once that figures.json can be written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "figures.json"
    path.open("a").close()
    return path


def _plain(value: Any) -> Any:
    """Convert numpy scalars and arrays to types that JSON supports."""
    return value.tolist()


if __name__ == "__main__":
    sys.exit(main())
