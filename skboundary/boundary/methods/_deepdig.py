"""DeepDIG: generators carry rows over the boundary and back, and the boundary lies in between."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skboundary._random import forked_rng
from skboundary.boundary._line_search import between
from skboundary.boundary._oracle import Oracle
from skboundary.boundary._pairs import Ends, expand
from skboundary.boundary._training_samples import TrainingSamples, finite_bounds
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.deepdig import autoencoder, generate, train_generators
from skboundary.functional.margins import equally_probable, margin_band, runner_up
from skboundary.functional.root_finding import Middle, find_middle

# Steps at most, and how many windows without growth of the yield end the training (None: none
# does, as in the paper).
_EFFORT: dict[str, tuple[int, int | None]] = {
    "fast": (500, 2),
    "balanced": (5000, 4),
    "thorough": (5000, None),
}
_SIDE_BY_SIDE = 16  # class pairs trained in one batch
_CPU_ROWS = 128  # that the classifier takes at a time on a CPU, whose cache holds no more
_BYTES = 2**28  # of training rows at most, where a class alone has fewer
_ROWS = 512  # that a generator takes at a time when it is applied


class Carried(NamedTuple):
    """What generators made of n rows."""

    over: Tensor  # (n, ...) A_1(x), beyond the boundary
    back: Tensor  # (n, ...) A_2(A_1(x)), on this side again
    success: Tensor  # (n,) both have the wanted class
    yields: dict[tuple[int, int], tuple[float, float]]  # of I and II on the training rows


def deepdig(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Look between what the two generators of each class pair make of a row."""
    x, source = problem.x, problem.source
    rival = runner_up(oracle.logits(x), source).label
    target = torch.where(problem.target < 0, rival, problem.target)
    carried = carry_over(
        oracle,
        problem.training,
        x,
        source,
        target,
        settings.effort,
        settings.generator,
        problem.seed,
        problem.box,
    )
    inner, outer = x.clone(), x.clone()
    n_evaluations = torch.full_like(source, 2)
    rows = carried.success.nonzero()[:, 0]
    start, end, s, t = (v[rows] for v in (carried.back, carried.over, source, target))
    middle = halve(oracle, start, end, s, t)
    n_evaluations[rows] += middle.n_evaluations + 2
    inner[rows] = outer[rows] = start + expand(middle.t, start) * (end - start)
    good = (~middle.third_class).nonzero()[:, 0]
    if len(good):
        found = between(oracle, start[good], end[good], s[good], t[good], settings.margin_tol)
        inner[rows[good]], outer[rows[good]] = found.inner, found.outer
        n_evaluations[rows[good]] += found.n_evaluations
    return Ends(inner, outer, n_evaluations, target=target)


def halve(
    oracle: Oracle,
    start: Tensor,
    end: Tensor,
    source: Tensor,
    target: Tensor,
    max_iter: int = 50,
) -> Middle:
    """Halve segments (n, ...) from rows predicted as `source` to rows predicted as `target`.

    Where only labels count no two classes are equally probable: the limit ends the search, or
    the resolution of the positions.
    """
    width = end - start
    by_labels = oracle.response == "label"
    if not by_labels:
        band = margin_band(
            0.0, oracle.eps, *oracle.logits(torch.cat([start, end])).chunk(2), ends=(start, end)
        )

    def look(t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        x = start[rows] + expand(t, start) * width[rows]
        if by_labels:
            said = oracle.labels(x)
            return said, torch.zeros_like(said, dtype=torch.bool)
        logits = oracle.logits(x)
        equal = equally_probable(
            oracle.network.proba(logits), logits, source[rows], target[rows], band[rows]
        )
        return logits.argmax(1), equal

    return find_middle(look, source, target, dtype=start.dtype, max_iter=max_iter)


def carry_over(
    oracle: Oracle,
    training: TrainingSamples,
    x: Tensor,
    source: Tensor,
    target: Tensor,
    effort: str,
    architecture: Any,
    seed: int,
    bounds: tuple[Any, Any] | None = None,
) -> Carried:
    """Train two generators for each ordered pair of classes among n rows, and apply them.

    Parameters
    ----------
    oracle : Oracle
        Of a classifier with gradients.
    training : TrainingSamples
        Its usable rows of the source class train the first generator; those which that one
        carries over train the second.
    x : Tensor of shape (n, ...)
    source, target : Tensor of shape (n,)
    effort : {"fast", "balanced", "thorough"}
    architecture : callable or None
        From the shape of a row to a module; None is `functional.deepdig.autoencoder`.
    seed : int
    bounds : tuple of two ndarray that broadcast to a sample, default=None
        What generators make lies between them. None takes [0, 1] where that holds the training
        samples, else their range.

    Returns
    -------
    carried : Carried
        A class pair has the same generators whatever others are asked for.
    """
    over, back = x.clone(), x.clone()
    success = torch.zeros_like(source, dtype=torch.bool)
    yields = {}
    pairs = torch.stack([source, target], 1).unique(dim=0)
    low, high = (torch.as_tensor(b).to(x) for b in _range(training, bounds))
    largest = np.bincount(training.codes[training.usable], minlength=1).max() * x[:1].nbytes
    for some in pairs.split(min(_SIDE_BY_SIDE, max(1, _BYTES // max(1, int(largest))))):
        trained = _train(oracle, training, x, some, low, high, effort, architecture, seed)
        for (s, t), (first, second, found) in zip(some.tolist(), trained, strict=True):
            yields[s, t] = found
            rows = ((source == s) & (target == t)).nonzero()[:, 0]
            if not found[1]:
                continue
            over[rows] = _apply(first, x[rows], low, high)
            back[rows] = _apply(second, over[rows], low, high)
            said = oracle.labels(torch.cat([over[rows], back[rows]])).chunk(2)
            success[rows] = (said[0] == t) & (said[1] == s)
    return Carried(over, back, success, yields)


def _train(
    oracle: Oracle,
    training: TrainingSamples,
    x: Tensor,
    pairs: Tensor,
    low: Tensor,
    high: Tensor,
    effort: str,
    architecture: Any,
    seed: int,
) -> list[tuple[nn.Module, nn.Module, tuple[float, float]]]:
    """Train both generators of some class pairs (m, 2): those, and their yields."""
    forward, chunk = oracle.forward, _CPU_ROWS if x.device.type == "cpu" else 2**31
    assert forward is not None
    max_iter, patience = _EFFORT[effort]
    build = architecture or autoencoder
    draws, made = [], []
    for s, t in pairs.tolist():
        seed_of_pair = int(np.random.SeedSequence((seed, s, t)).generate_state(1)[0])
        draws.append(torch.Generator().manual_seed(seed_of_pair))
        with forked_rng(seed_of_pair):
            made.append([build(tuple(x.shape[1:])).to(x) for _ in range(2)])
    yields = np.zeros((len(pairs), 2))
    sets = [training.take(training.of_class(s), x) for s in pairs[:, 0].tolist()]
    for which, wanted in enumerate((pairs[:, 1], pairs[:, 0])):
        todo = [i for i, rows in enumerate(sets) if len(rows)]
        if not todo:
            break
        rows = torch.cat(sets)
        members = list(torch.arange(len(rows), device=x.device).split([len(r) for r in sets]))
        train_generators(
            [made[i][which] for i in todo],
            lambda x: torch.cat([forward(part) for part in x.split(chunk)]),
            rows,
            [members[i] for i in todo],
            wanted[todo],
            [draws[i] for i in todo],
            low=low,
            high=high,
            max_iter=max_iter,
            patience=patience,
        )
        for i in todo:
            moved = _apply(made[i][which], sets[i], low, high)
            kept = oracle.labels(moved) == wanted[i]
            yields[i, which] = float(kept.float().mean())
            sets[i] = moved[kept]
    return [(one, two, (i, ii)) for (one, two), (i, ii) in zip(made, yields.tolist(), strict=True)]


def _apply(module: nn.Module, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.cat([generate(module, part, low=low, high=high) for part in x.split(_ROWS)])


def _range(
    training: TrainingSamples, bounds: tuple[NDArray[Any], NDArray[Any]] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = finite_bounds(bounds, training.X)
    if bounds is None and low.min() >= 0 and high.max() <= 1:
        return np.zeros_like(low), np.ones_like(high)
    return low, high
