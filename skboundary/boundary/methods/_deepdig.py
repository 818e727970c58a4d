"""Method "deepdig": generators move samples across the boundary and back; it lies in between."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skboundary._random import forked_rng
from skboundary.boundary._ends import Ends
from skboundary.boundary._line_search import between
from skboundary.boundary._oracle import Oracle, Outputs
from skboundary.boundary._points import along
from skboundary.boundary._training_samples import TrainingSamples, finite_bounds
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.functional.deepdig import autoencoder, generate, train_autoencoders
from skboundary.functional.margins import equally_probable, margin_band, runner_up
from skboundary.functional.root_finding import Middle, find_middle

_SIDE_BY_SIDE = 16  # class pairs trained in one batch
_CPU_BATCH = 128  # samples in a batch of the classifier on a CPU, whose cache holds no more
_BYTES = 2**28  # of training samples at most, where a class alone has fewer
_BATCH = 512  # samples in a batch of a generator when it is applied


class TrainingEffort(NamedTuple):
    """Effort of the method: how long a generator is trained."""

    max_iter: int  # steps at most
    patience: int | None  # windows without a higher success rate; None: no limit, as in the paper


class Carried(NamedTuple):
    """Adversarial and re-adversarial samples that generators made of n samples."""

    over: Tensor  # (n, ...) A_1(x), beyond the boundary
    back: Tensor  # (n, ...) A_2(A_1(x)), on this side again
    success: Tensor  # (n,) both have the wanted class
    at_over: Outputs  # of the classifier
    at_back: Outputs
    n_evaluations: Tensor  # (n,)
    yields: dict[tuple[int, int], tuple[float, float]]  # success rates of I and II in training

    def successful(self) -> tuple[Tensor, Carried]:
        """Positions of those with success, and those alone."""
        index = self.success.nonzero()[:, 0]
        part = self._replace(
            over=self.over[index],
            back=self.back[index],
            success=self.success[index],
            at_over=self.at_over.select(index),
            at_back=self.at_back.select(index),
            n_evaluations=self.n_evaluations[index],
        )
        return index, part


def deepdig(oracle: Oracle, problem: Problem, settings: Settings) -> Ends:
    """Search between what the two generators of each class pair make of a sample."""
    x, source = problem.x, problem.source
    at_x, n_runs = oracle.complete(x, problem.known)
    assert at_x.logits is not None
    rival = runner_up(at_x.logits, source).label
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
    n_evaluations = carried.n_evaluations + n_runs
    index, carried = carried.successful()
    start, end, known = carried.back, carried.over, (carried.at_back, carried.at_over)
    s, t = source[index], target[index]
    middle = halve(oracle, start, end, s, t, known=known)
    n_evaluations[index] += middle.n_evaluations
    inner[index] = outer[index] = along(start, end, middle.t)
    good = (~middle.third_class).nonzero()[:, 0]
    if len(good):
        inner[index[good]], outer[index[good]], spent = between(
            oracle,
            start[good],
            end[good],
            s[good],
            t[good],
            settings.margin_tol,
            known=(known[0].select(good), known[1].select(good)),
            pairs=settings.pairs,
        )
        n_evaluations[index[good]] += spent
    return Ends(inner, outer, target, n_evaluations)


def halve(
    oracle: Oracle,
    start: Tensor,
    end: Tensor,
    source: Tensor,
    target: Tensor,
    max_iter: int = 50,
    *,
    known: tuple[Outputs | None, Outputs | None] = (None, None),
) -> Middle:
    """Halve segments (n, ...) between points predicted as `source` and as `target`.

    Where only labels are used no two classes are equally probable: the limit ends the search, or
    the resolution of the positions. Outputs `known` at the ends are not computed again.
    """
    by_labels = oracle.response == "label"
    if not by_labels:
        ends = [oracle.complete(x, k)[0].logits for x, k in zip((start, end), known, strict=True)]
        logits = [out for out in ends if out is not None]
        band = margin_band(0.0, oracle.eps, *logits, ends=(start, end))

    def look(t: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        x = along(start[index], end[index], t)
        if by_labels:
            labels = oracle.labels(x)
            return labels, torch.zeros_like(labels, dtype=torch.bool)
        logits = oracle.logits(x)
        equal = equally_probable(
            oracle.network.proba(logits), logits, source[index], target[index], band[index]
        )
        return logits.argmax(1), equal

    return find_middle(look, source, target, dtype=start.dtype, max_iter=max_iter)


def carry_over(
    oracle: Oracle,
    training: TrainingSamples,
    x: Tensor,
    source: Tensor,
    target: Tensor,
    effort: TrainingEffort,
    architecture: Any,
    seed: int,
    bounds: tuple[Any, Any] | None = None,
) -> Carried:
    """Train two generators for each ordered pair of classes among n samples, and apply them.

    Parameters
    ----------
    oracle : Oracle
        Of a classifier with gradients.
    training : TrainingSamples
        Its usable samples of the source class train the first generator; the adversarial samples
        that this one makes of them train the second.
    x : Tensor of shape (n, ...)
    source, target : Tensor of shape (n,)
    effort : TrainingEffort
    architecture : callable or None
        From the shape of a sample to a module; None is `functional.deepdig.autoencoder`.
    seed : int
    bounds : tuple of two ndarray that broadcast to a sample, default=None
        Of the outputs of generators. None takes [0, 1] where that holds the training samples,
        else their range.

    Returns
    -------
    carried : Carried
        A class pair has the same generators whatever other pairs there are.
    """
    over, back = x.clone(), x.clone()
    n_evaluations, yields = torch.zeros_like(source), {}
    labels = torch.full((2, len(x)), -1, device=x.device)
    logits = x.new_zeros(2, len(x), len(oracle.network.classes_))
    pairs = torch.stack([source, target], 1).unique(dim=0)
    low, high = (torch.as_tensor(b).to(x) for b in _range(training, bounds))
    largest = np.bincount(training.codes[training.usable], minlength=1).max() * x[:1].nbytes
    for some in pairs.split(min(_SIDE_BY_SIDE, max(1, _BYTES // max(1, int(largest))))):
        trained = _train(oracle, training, x, some, low, high, effort, architecture, seed)
        for (s, t), (first, second, rates) in zip(some.tolist(), trained, strict=True):
            yields[s, t] = rates
            index = ((source == s) & (target == t)).nonzero()[:, 0]
            if not rates[1]:
                continue
            over[index] = _apply(first, x[index], low, high)
            back[index] = _apply(second, over[index], low, high)
            out = oracle.logits(torch.cat([over[index], back[index]])).unflatten(0, (2, -1))
            logits[:, index], labels[:, index] = out, out.argmax(2)
            n_evaluations[index] = 2
    success = (labels[0] == target) & (labels[1] == source)
    at_over, at_back = map(Outputs, labels, logits)
    return Carried(over, back, success, at_over, at_back, n_evaluations, yields)


def _train(
    oracle: Oracle,
    training: TrainingSamples,
    x: Tensor,
    pairs: Tensor,
    low: Tensor,
    high: Tensor,
    effort: TrainingEffort,
    architecture: Any,
    seed: int,
) -> list[tuple[nn.Module, nn.Module, tuple[float, float]]]:
    """Train both generators of some class pairs (m, 2): those, and their success rates."""
    forward, chunk = oracle.gradient_logits, _CPU_BATCH if x.device.type == "cpu" else 2**31
    build = architecture or autoencoder
    draws, made = [], []
    for s, t in pairs.tolist():
        seed_of_pair = int(np.random.SeedSequence((seed, s, t)).generate_state(1)[0])
        draws.append(torch.Generator().manual_seed(seed_of_pair))
        with forked_rng(seed_of_pair):
            made.append([build(tuple(x.shape[1:])).to(x) for _ in range(2)])
    yields = np.zeros((len(pairs), 2))
    sets = [training.take(training.of_class(s)).to(x) for s in pairs[:, 0].tolist()]
    for which, wanted in enumerate((pairs[:, 1], pairs[:, 0])):
        todo = [i for i, samples in enumerate(sets) if len(samples)]
        if not todo:
            break
        samples = torch.cat(sets)
        members = torch.arange(len(samples), device=x.device).split([len(s) for s in sets])
        train_autoencoders(
            [made[i][which] for i in todo],
            lambda x: torch.cat([forward(part) for part in x.split(chunk)]),
            samples,
            [members[i] for i in todo],
            wanted[todo],
            [draws[i] for i in todo],
            low=low,
            high=high,
            **effort._asdict(),
        )
        for i in todo:
            moved = _apply(made[i][which], sets[i], low, high)
            kept = oracle.labels(moved) == wanted[i]
            yields[i, which] = float(kept.float().mean())
            sets[i] = moved[kept]
    return [(one, two, (i, ii)) for (one, two), (i, ii) in zip(made, yields.tolist(), strict=True)]


def _apply(module: nn.Module, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.cat([generate(module, part, low=low, high=high) for part in x.split(_BATCH)])


def _range(
    training: TrainingSamples, bounds: tuple[NDArray[Any], NDArray[Any]] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = finite_bounds(bounds, training.X)
    if bounds is None and low.min() >= 0 and high.max() <= 1:
        return np.zeros_like(low), np.ones_like(high)
    return low, high
