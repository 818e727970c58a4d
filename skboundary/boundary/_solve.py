"""From samples and classes to verified pairs: batches, jobs, bounds and statuses."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import joined, map_batches
from skboundary._device import move, to_numpy, to_tensor
from skboundary._engine import Failed, find_engine
from skboundary._random import forked_rng
from skboundary.boundary._batches import batch_size, cut_into_runs
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._ends import Box, Limits, Verified, verify
from skboundary.boundary._oracle import Oracle, Outputs
from skboundary.boundary._pairs import (
    ALREADY_TARGET,
    FAILED,
    NOT_FOUND,
    OK,
    STATUSES,
    BoundaryPairs,
    name_pairs,
)
from skboundary.boundary._partners import count_partners, keep_columns, nearest_partners
from skboundary.boundary._points import norms
from skboundary.boundary._response import count_nan_gradients
from skboundary.boundary._table import Table
from skboundary.boundary._training_samples import Starts, find_partners
from skboundary.boundary.methods._problem import Partners, Problem, Settings
from skboundary.boundary.methods._registry import Method
from skboundary.exceptions import BoundaryNotFoundWarning, warn_caller
from skboundary.functional.margins import margin_band, runner_up

_WIDENINGS = (8, 64)  # of a band

Codes = NDArray[np.intp]


class SolveOptions(NamedTuple):
    """How to search for the boundary."""

    method: Method
    settings: Settings
    bounds: tuple[Any, Any] | None
    widen: bool  # bounds of samples that lie outside them
    random_partners: bool = False
    n_jobs: int | None = None
    verbose: int = 0

    @property
    def n_partners(self) -> int:
        """Number of training samples that are looked up for each sample."""
        return count_partners(self.method, self.settings.table, self.settings.budget)

    @property
    def kept(self) -> Table | None:
        """Rules for columns, where partners get the immutable ones of their samples."""
        table = self.settings.table
        return table if self.method.n_partners and table is not None and table.keeps else None

    @property
    def pairs(self) -> bool:
        """Whether both ends of a pair have to be right."""
        return self.settings.pairs or not self.method.one_sided


def find_pairs(
    classifier: FittedClassifier,
    options: SolveOptions,
    starts: Starts,
    source: Codes,
    target: Codes,
) -> BoundaryPairs:
    """Find a pair for each sample; samples whose source is their target are left out.

    Parameters
    ----------
    classifier : FittedClassifier
    options : SolveOptions
    starts : Starts
        The floating dtype of its samples (n, ...) is the one of the pairs.
    source, target : ndarray of shape (n,)
        Classes; a target of -1 is any class but the source.

    Returns
    -------
    pairs : BoundaryPairs
    """
    if options.method.pairs_at_once:
        target = _rivals(starts, source, target)
    todo = (source != target).nonzero()[0]
    partners, n_runs = _partners(classifier, options, starts, source, target, todo)
    searched = starts._replace(latent=None)
    engine, tasks = find_engine(options.n_jobs), []
    size = batch_size(classifier, (len(todo), *starts.X.shape[1:]), options.method, engine.shares)
    cut = cut_into_runs(source[todo], target[todo], options.method, size, engine.shares)
    runs = [todo[run] for run in cut]
    for index in runs:
        codes = source[index], target[index]
        named = zip(codes[0].tolist(), codes[1].tolist(), strict=True)
        what = f"boundary of {name_pairs(classifier.classes, named)}"
        args = searched.select(index), *codes, partners[index], size
        tasks.append(engine.submit(what, _solve, classifier, options, *args))
    found = engine.gather(tasks)
    pairs = _merge(classifier.classes, options.settings, starts, source, target, runs, found)
    pairs.n_evaluations[todo] += n_runs
    return pairs


def _rivals(starts: Starts, source: Codes, target: Codes) -> Codes:
    """Put the strongest rival of the source in place of a target that is any class."""
    if (target >= 0).all():
        return target
    assert starts.logits is not None  # such a method needs gradients
    rival = to_numpy(runner_up(starts.logits, torch.from_numpy(source)).label)
    return np.where(target < 0, rival, target)


def _partners(
    classifier: FittedClassifier,
    options: SolveOptions,
    starts: Starts,
    source: Codes,
    target: Codes,
    todo: Codes,
) -> tuple[NDArray[np.intp], int]:
    """Training samples (n, k) that searches start from, and how often it took to run x.

    They are found in this process, so that they depend neither on the jobs nor on the batches.
    """
    k = options.n_partners
    partners = np.full((len(source), k), -1)
    if not k or not len(todo):
        return partners, 0
    codes = source[todo], target[todo]
    if options.random_partners:
        rng = np.random.default_rng(classifier.seed)
        partners[todo] = find_partners(classifier.training, None, None, *codes, k, rng)
        return partners, 0
    table, some = options.settings.table, starts.select(todo)
    partners[todo], n_runs = nearest_partners(classifier, options.method, table, some, *codes, k)
    return partners, n_runs


def _merge(
    classes: NDArray[Any],
    settings: Settings,
    starts: Starts,
    source: Codes,
    target: Codes,
    runs: list[Codes],
    found: Iterable[Verified | Failed],
) -> BoundaryPairs:
    """Put the pairs of several tasks into the order of the samples."""
    X = starts.X
    n, outer = len(X), X.copy()
    target = np.where(target < 0, source == 0, target)  # where a task failed
    inner, midpoint = (X.copy(), X.copy()) if settings.pairs else (X, X)
    margins, status = np.full((2, n), np.nan, X.dtype), np.full(n, ALREADY_TARGET)
    distance, start_distance = np.full((2, n), np.nan, X.dtype)
    n_evaluations = np.full(n, starts.n_runs)
    for index, part in zip(runs, found, strict=True):
        if isinstance(part, Failed):
            status[index] = FAILED
            continue
        _enter(outer, index, part.outer)
        if settings.pairs:
            _enter(inner, index, part.inner)
            _enter(midpoint, index, part.midpoint)
        target[index], status[index] = part.target, part.status
        n_evaluations[index] += part.n_evaluations.numpy()
        margins[:, index] = part.margin_inner, part.margin_outer
        for lengths, ends in ((distance, part.inner), (start_distance, torch.from_numpy(X[index]))):
            lengths[index] = norms(_differences(part.outer, ends, settings.table), settings.norm)
    distance[status == NOT_FOUND] = start_distance[status == NOT_FOUND] = np.nan
    return BoundaryPairs(
        inner=inner,
        outer=outer,
        midpoint=midpoint,
        distance=distance,
        start=X,
        start_distance=start_distance,
        index=np.arange(n) if starts.place is None else starts.place,
        source=classes[source],
        target=classes[target],
        margin_inner=margins[0],
        margin_outer=margins[1],
        success=status == OK,
        status=STATUSES[status],
        n_evaluations=n_evaluations,
    )


def _differences(points: Tensor, x: Tensor, table: Table | None) -> Tensor:
    return points - x if table is None else table.differences(points, x)


def _enter(points: NDArray[Any], index: Codes, found: torch.Tensor) -> None:
    """Replace samples by the points that were found for them, where these are finite."""
    finite = found.isfinite().flatten(1).all(1).numpy()
    points[index[finite]] = found.numpy()[finite]


def warn_of_failures(classifier: FittedClassifier, status: NDArray[Any], X: Any) -> None:
    """Warn of samples without a boundary point, and name the reason where it is known.

    Parameters
    ----------
    classifier : FittedClassifier
    status : ndarray of shape (n,) or (n, n_searches)
    X : array-like of shape (n, ...)
    """
    failed = status[status != STATUSES[OK]]
    if not len(failed):
        return
    names, counts = np.unique(failed, return_counts=True)
    counted = ", ".join(f"{name}: {n}" for name, n in zip(names, counts, strict=True))
    why = ""
    if classifier.network.differentiable:
        lost = (status == STATUSES[NOT_FOUND]).nonzero()[0]
        n = count_nan_gradients(classifier.network, X, lost)
        why = f" The gradient is NaN at {n} of them." if n else ""
    predicted = np.unique(classifier.training.codes)
    if len(predicted) == 1:
        why += (
            f" {type(classifier.estimator).__name__} predicts all training samples as "
            f"{classifier.classes.tolist()[predicted[0]]!r}: it may be constant."
        )
    warn_caller(
        f"No boundary point was found for {len(failed)} of {status.size} samples ({counted}). "
        f"They are returned unchanged, with the distance NaN.{why}",
        BoundaryNotFoundWarning,
    )


def _solve(
    classifier: FittedClassifier,
    options: SolveOptions,
    starts: Starts,
    source: Codes,
    target: Codes,
    partners: NDArray[np.intp],
    size: int,
) -> Verified:
    """Find pairs for the samples of one task, batch by batch."""
    method, X = options.method, starts.X
    dtype = torch.float32 if X.dtype == np.float32 else torch.float64
    # before the network is locked: a training in another thread may be waiting for it
    with (
        forked_rng(classifier.seed) if method.trains else nullcontext(),
        torch.inference_mode(False),
        torch.enable_grad(),
        classifier.open() as oracle,
    ):
        oracle.eps = max(oracle.eps, torch.finfo(dtype).eps)  # ends are rounded to it
        n_runs = partners.shape[1] * oracle.n_runs if options.kept is not None else 0

        def step(batch: slice) -> Verified:
            codes = source[batch], target[batch], partners[batch]
            problem, limits = _problem(classifier, oracle, options, starts, batch, *codes)
            found = _search(oracle, options, problem, limits)
            found = found._replace(n_evaluations=found.n_evaluations + n_runs)
            return move(found, torch.device("cpu"))

        parts = map_batches(step, len(X), size, verbose=options.verbose, desc="boundary")
        return Verified(*joined(parts, len(X)))


def _problem(
    classifier: FittedClassifier,
    oracle: Oracle,
    options: SolveOptions,
    starts: Starts,
    batch: slice,
    source: Codes,
    target: Codes,
    partners: NDArray[np.intp],
) -> tuple[Problem, Limits]:
    """The problem of a batch on the device, in one transfer, and the limits of its points."""
    x, training = to_tensor(starts.X[batch]), classifier.training
    known = near = None
    if starts.codes is not None:
        logits = None if starts.logits is None else starts.logits[batch]
        known = Outputs(torch.from_numpy(starts.codes[batch]), logits)
    if partners.shape[1]:
        exist = torch.from_numpy(partners >= 0)
        near = Partners(training.take(partners), exist, training.outputs(partners))
    codes = torch.from_numpy(source), torch.from_numpy(target)
    box = _limits(x, options.bounds, options.widen, options.settings.table)
    x, codes, known, near, box = move((x, codes, known, near, box), oracle.device)
    dtype, budget = oracle.dtype, options.settings.budget
    low, high = (None, None) if box is None else (b.to(dtype) for b in box)
    limits, x = Limits(x, box), x.to(dtype)
    if near is not None:
        near = near._replace(points=near.points.to(dtype), known=near.known.cast(dtype))
        if options.kept is not None:
            near = keep_columns(oracle, near, x, *codes, options.kept, options.method.n_partners)
            budget = None if budget is None else budget - partners.shape[1] * oracle.n_runs
    problem = Problem(
        x,
        *codes,
        None if known is None else known.cast(dtype),
        low,
        high,
        options.bounds,
        near,
        training,
        classifier.seed,
        None if budget is None else torch.full_like(codes[0], budget),
    )
    return problem, limits


def _search(oracle: Oracle, options: SolveOptions, problem: Problem, limits: Limits) -> Verified:
    """Find the pairs of a batch; with wider bands where rounding changed a label in the end.

    A band accounts for the size of the logits, but not of terms that cancel in them.
    """
    method, settings = options.method, options.settings

    def find(problem: Problem, limits: Limits) -> tuple[Verified, Tensor]:
        ends = method.search(oracle, problem, settings)
        found = verify(oracle, ends, problem.source, limits, pairs=options.pairs)
        return found, found.n_evaluations if ends.n_gradients is None else ends.n_gradients

    (found, spent), eps = find(problem, limits), oracle.eps
    for widening in () if method.trains else _WIDENINGS:  # "deepdig" would train again
        apart = (found.inner != found.outer).flatten(1).any(1)
        again = apart & (found.status == NOT_FOUND)
        if problem.budget is not None:
            again &= problem.budget - spent >= method.least
        index = again.nonzero()[:, 0]
        part = problem.select(index)
        if part.budget is not None:
            part = part._replace(budget=part.budget - spent[index])
        logits = None if part.known is None else part.known.logits
        if logits is None:
            logits = oracle.logits(part.x)
            found.n_evaluations[index] += 1
            if part.budget is not None and method.needs != "gradient":
                part = part._replace(budget=part.budget - 1)
        rounded = margin_band(0.0, widening * eps, logits) > settings.margin_tol
        index, part = index[rounded], part.select(rounded.nonzero()[:, 0])
        if not len(index):
            break
        oracle.eps = widening * eps
        new, more = find(part, limits.select(index))
        new = new._replace(n_evaluations=new.n_evaluations + found.n_evaluations[index])
        spent[index] += more
        for all_, values in zip(found, new, strict=True):
            all_[index] = values
    oracle.eps = eps
    return found


def _limits(
    x: Tensor, bounds: tuple[Any, Any] | None, widen: bool, table: Table | None = None
) -> Box | None:
    """Bounds of each sample: of its columns for vectors, of all its elements for others.

    Those of immutable columns are the values of the sample.
    """
    keeps = table is not None and table.keeps
    if bounds is None and not keeps:
        return None
    low, high = (
        torch.as_tensor(bound, dtype=x.dtype).expand(x.shape[1:])[None]
        for bound in ((-torch.inf, torch.inf) if bounds is None else bounds)
    )
    if table is not None and keeps:
        low, high = table.fix(low, x), table.fix(high, x)
    if widen and x.ndim > 2:
        axes = tuple(range(1, x.ndim))
        low = torch.minimum(low, x.amin(axes, keepdim=True))
        high = torch.maximum(high, x.amax(axes, keepdim=True))
    return torch.minimum(low, x), torch.maximum(high, x)  # by a rounding, where not widened
