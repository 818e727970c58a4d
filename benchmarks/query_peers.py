"""Other searches by labels: HopSkipJump, and SurFree and CGBA from checkouts of their authors.

Each search runs on one sample and is stopped after a number of queries. Its distance after q
queries is that of the nearest point across the boundary among those q, which is at most the
distance of what it would return.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


class Start(NamedTuple):
    """What a search is given."""

    label: Callable[[Tensor], Tensor]  # of points of the shape of x, with a batch axis
    x: Tensor  # one sample without a batch axis
    source: int  # its class
    point: Tensor | None  # another class is predicted there; None: the search finds its own
    box: tuple[float, float]  # range of all columns or pixels
    n_classes: int
    is_image: bool  # (channels, height, width); otherwise a vector


class SearchEndedError(Exception):
    """Raised by the query after the last one, and at points that are not numbers."""


class Recorder:
    """Labels of one sample, and the shortest distance after each query."""

    def __init__(self, start: Start, budget: int) -> None:
        self.start, self.budget = start, budget
        self.best: list[float] = []

    def __call__(self, points: Tensor) -> Tensor:
        """Predict classes (m,) of points (m, ...); those past the budget are not predicted."""
        points = points.detach()[: self.budget - len(self.best)]
        # CGBA divides by the length of its normal, which is 0 if all votes agree
        if not len(points) or not points.isfinite().all():
            raise SearchEndedError
        label = self.start.label(points)
        distance = (points.double() - self.start.x.double()).flatten(1).norm(dim=1)
        across = distance.where((label != self.start.source) & distance.isfinite(), torch.inf)
        best = self.best[-1] if self.best else torch.inf
        self.best += torch.cummin(across, 0).values.clamp(max=best).tolist()
        return label

    def logits(self, points: Tensor) -> Tensor:
        """One for the predicted class, of as many points as were given."""
        labels = self(points)
        out = torch.zeros(len(points), self.start.n_classes)
        out[torch.arange(len(labels)), labels] = 1
        return out

    def curve(self, first: float) -> np.ndarray:
        """Shortest distances (budget,) after each query, at most that of the first point."""
        best = np.minimum(self.best or [first], first)
        return np.pad(best, (0, self.budget - len(best)), mode="edge")


def run(search: Callable[[Recorder], Any], start: Start, budget: int) -> np.ndarray:
    """Distances (budget,) of a search after each query."""
    recorder = Recorder(start, budget)
    with contextlib.suppress(SearchEndedError), contextlib.redirect_stdout(io.StringIO()):
        search(recorder)
    first = np.inf
    if start.point is not None:
        first = (start.point.double() - start.x.double()).norm().item()
    return recorder.curve(first)


def hop_skip_jump() -> Callable[[Recorder], Any]:
    """HopSkipJump of the adversarial-robustness-toolbox, with its defaults."""
    from art.attacks.evasion import HopSkipJump
    from art.estimators.classification import BlackBoxClassifier

    def search(recorder: Recorder) -> None:
        start = recorder.start
        classifier = BlackBoxClassifier(
            lambda points: recorder.logits(torch.from_numpy(points)).numpy(),
            tuple(start.x.shape),
            start.n_classes,
            clip_values=start.box,
        )
        np.random.seed(0)  # the attack draws from numpy's global generator
        attack = HopSkipJump(classifier, max_iter=100, verbose=False)
        first = None if start.point is None else start.point[None].numpy().astype(np.float32)
        y = np.eye(start.n_classes)[[start.source]]
        attack.generate(start.x[None].numpy().astype(np.float32), y, x_adv_init=first)

    return search


@contextlib.contextmanager
def checkout(folder: Path) -> Iterator[None]:
    """Import from a folder, and forget its modules: both checkouts have one named `utils`."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            if name.split(".")[0] in ("utils", "surfree", "proposed_attack"):
                del sys.modules[name]


def load(folder: Path, name: str) -> ModuleType:
    """Import a module from a checkout."""
    with checkout(folder):
        return importlib.import_module(name)


def surfree(folder: Path) -> Callable[[Recorder], Any]:
    """SurFree, with the settings of config_example.json: low frequencies for images."""
    attack = load(folder, "surfree").SurFree

    def search(recorder: Recorder) -> None:
        start = recorder.start
        low, high = start.box
        shape = start.x.shape if start.is_image else (1, 1, *start.x.shape)

        def scaled(points: Tensor) -> Tensor:
            return ((points - low) / (high - low)).float().view(-1, *shape)

        def model(points: Tensor) -> Tensor:
            # its placeholders for samples that are not queried are zero everywhere
            if not points.any():
                return torch.zeros(len(points), start.n_classes)
            return recorder.logits(low + (high - low) * points.view(-1, *start.x.shape))

        x, known = scaled(start.x), []

        def first_is_known(points: Tensor) -> Tensor:
            if torch.equal(points, x) and not known:
                known.append(True)
                return torch.eye(start.n_classes)[[start.source]]
            return model(points)

        kind = dict(basis_type="random")
        if start.is_image:
            kind = dict(
                basis_type="dct", dct_type="full", function="constant", frequence_range=(0, 0.5)
            )
        torch.manual_seed(0)
        attack(
            steps=10_000,
            max_queries=10**9,
            BS_max_iteration=10,
            rho=0.98,
            n_ortho=10,
            quantification=False,
        )(
            first_is_known,
            x,
            torch.tensor([start.source]),
            starting_points=None if start.point is None else scaled(start.point),
            basis_params=kind,
        )

    return search


def cgba(folder: Path, method: str, factor: int) -> Callable[[Recorder], Any]:
    """CGBA or CGBA_H, in the lowest 1 / `factor` of the frequencies along both axes."""
    module = load(folder, "proposed_attack")

    class Attack(module.Proposed_attack):  # type: ignore[name-defined, misc]
        """For any number of channels, from a given start, without a normalization."""

        def inv_tf(self, x: Tensor, mean: Any, std: Any) -> Tensor:
            return x

        def find_random_adversarial(self, image: Tensor) -> tuple[Tensor, int]:
            if self.start is None:
                return super().find_random_adversarial(image)
            return self.start, 0

        def go_to_boundary_CGBA(self, *arguments: Tensor) -> tuple[Tensor, int]:
            before = self.all_queries
            point, _ = super().go_to_boundary_CGBA(*arguments)
            return point, self.all_queries - before  # theirs is one more after 39 failures

        def find_random(self, x: Tensor, n: int) -> Tensor:
            kept = torch.randn(n, *x.shape[1:])
            if factor == 1 or not self.is_image:
                return kept
            out = torch.zeros_like(kept)
            size = x.shape[-1] // factor
            out[..., :size, :size] = kept[..., :size, :size]
            for axis in (3, 2):
                out = torch.from_numpy(module.idct(out.numpy(), axis=axis, norm="ortho"))
            return out

    def search(recorder: Recorder) -> None:
        start = recorder.start
        shape = start.x.shape if start.is_image else (1, 1, *start.x.shape)

        class Model(nn.Module):
            def forward(self, points: Tensor) -> Tensor:
                return recorder.logits(points.view(-1, *start.x.shape))

        model = Model()
        x = start.x.float().view(1, *shape)
        low, high = (torch.full_like(x, value) for value in start.box)
        torch.manual_seed(0)
        n_known = recorder.budget
        recorder.budget += 1  # its constructor predicts x
        attack = Attack(
            model,
            x,
            [],
            [],
            low,
            high,
            dim_reduc_factor=max(factor, 1.001),  # 1 draws three channels
            attack_method=method,
            iteration=10_000,
            verbose_control="No",
        )
        recorder.best.clear()
        recorder.budget = n_known
        attack.is_image = start.is_image
        attack.start = None if start.point is None else start.point.float().view(1, *shape)
        attack.Attack()

    return search
