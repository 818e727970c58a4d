"""From rows and classes to checked pairs: batches, processes, bounds and statuses."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import map_batches, resolve_batch_size
from skboundary._device import to_tensor
from skboundary._random import forked_rng
from skboundary.boundary._oracle import Oracle, as_rows, consult
from skboundary.boundary._pairs import (
    ALREADY_TARGET,
    NOT_FOUND,
    OK,
    STATUSES,
    BoundaryPairs,
    Checked,
    check_ends,
    norms,
)
from skboundary.boundary._training_samples import TrainingSamples, find_partners
from skboundary.boundary.methods._problem import Problem, Settings
from skboundary.boundary.methods._registry import Method
from skboundary.functional.margins import margin_band
from skboundary.networks import Network

_WIDENINGS = (8, 64)  # of a band

# Numbers in the rows that go through a black box at a time, all of them in one call.
_NUMBERS = 2**22


class Model(NamedTuple):
    """All that a fitted extractor knows."""

    network: Network
    estimator: Any
    response: str
    columns: tuple[str, Any] | None
    training: TrainingSamples
    latent: Tensor | None  # (n_pool, n_latent), where a method measures distances in it
    seed: int
    classes: NDArray[Any]  # by position; not the network's own where fit was given positions

    def space(self, name: str) -> Tensor:
        """Training samples in the space that has this name, "latent" or "input"."""
        if name == "input":
            return to_tensor(self.training.X).flatten(1).to(self.network.dtype)
        return self.latent_of(self.training.X) if self.latent is None else self.latent

    @property
    def has_layer(self) -> bool:
        """Whether a network has to run for a latent vector."""
        return self.network.has_linear

    def latent_of(self, X: NDArray[Any]) -> Tensor:
        """Latent vectors of rows; the rows themselves where a network has no such layer."""
        if self.network.is_module and not self.has_layer:
            return to_tensor(X).flatten(1).to(self.network.dtype)
        return self.network.latent(as_rows(X, self.columns))

    def logits_of(self, X: NDArray[Any]) -> Tensor:
        """Scores of rows."""
        return self.network.logits(as_rows(X, self.columns))


class SolveOptions(NamedTuple):
    """How to look for the boundary."""

    method: Method
    settings: Settings
    bounds: tuple[Any, Any] | None
    widen: bool  # bounds of samples that lie outside them
    random_partners: bool = False
    n_asked: int = 0  # times that the classifier has run each row already
    n_jobs: int | None = None
    verbose: int = 0


def find_pairs(
    model: Model,
    options: SolveOptions,
    X: NDArray[Any],
    source: NDArray[np.intp],
    target: NDArray[np.intp],
) -> BoundaryPairs:
    """Find a pair for each row; rows whose source is their target are not asked about.

    Parameters
    ----------
    model : Model
    options : SolveOptions
    X : ndarray of shape (n, ...)
        Its floating dtype is the one of the pairs.
    source, target : ndarray of shape (n,)
        Classes; a target of -1 is any class but the source.

    Returns
    -------
    pairs : BoundaryPairs
    """
    todo = (source != target).nonzero()[0]
    partners = np.full((len(X), options.method.n_partners), -1)
    if options.random_partners:  # drawn here, so that they do not depend on the jobs
        rng = np.random.default_rng(model.seed)
        partners[todo] = find_partners(
            model.training, None, None, source[todo], target[todo], partners.shape[1], rng
        )
    parts = []
    for rows in _shares(source[todo], target[todo], effective_n_jobs(options.n_jobs)):
        rows = todo[rows]
        some = (a[rows] for a in (X, source, target, partners))
        parts.append((rows, delayed(_solve)(model, options, *some)))
    if len(parts) > 1:
        checked = Parallel(n_jobs=options.n_jobs)(job for _, job in parts)
    else:
        checked = [function(*args) for _, (function, args, _) in parts]

    n, classes = len(X), model.classes
    outer = X.copy()
    inner, midpoint = (X.copy(), X.copy()) if options.settings.pairs else (X, X)
    margins, status = np.full((2, n), np.nan, X.dtype), np.full(n, ALREADY_TARGET)
    distance, target = np.full(n, np.nan, X.dtype), target.copy()
    n_evaluations = np.full(n, options.n_asked)
    for (rows, _), found in zip(parts, checked, strict=True):
        outer[rows] = found.outer
        if options.settings.pairs:
            inner[rows], midpoint[rows] = found.inner, found.midpoint
        target[rows], status[rows] = found.target, found.status
        n_evaluations[rows] += found.n_evaluations.numpy()
        margins[:, rows] = found.margin_inner, found.margin_outer
        distance[rows] = norms(found.outer - found.inner, options.settings.norm)
    distance[status == NOT_FOUND] = np.nan
    return BoundaryPairs(
        inner,
        outer,
        midpoint,
        distance,
        classes[source],
        classes[target],
        margins[0],
        margins[1],
        status == OK,
        STATUSES[status],
        n_evaluations,
    )


def _shares(
    source: NDArray[np.intp], target: NDArray[np.intp], n_jobs: int
) -> list[NDArray[np.intp]]:
    """Deal rows out to jobs, whole class pairs each; the rows of a pair stay together."""
    key = source * (target.max(initial=0) + 2) + target
    order = np.argsort(key, kind="stable")
    if n_jobs == 1 or not len(key):
        return [order] if len(key) else []
    pairs = np.array_split(np.unique(key), n_jobs)
    return [order[np.isin(key[order], share)] for share in pairs if len(share)]


def _solve(
    model: Model,
    options: SolveOptions,
    X: NDArray[Any],
    source: NDArray[np.intp],
    target: NDArray[np.intp],
    partners: NDArray[np.intp],
) -> Checked:
    """Find pairs for rows of one job, batch by batch."""
    method, network = options.method, model.network
    n_asked = 0
    if method.n_partners and not options.random_partners:
        in_latent = method.space == "latent"
        n_asked = int(in_latent and model.has_layer)
        queries = model.latent_of(X) if in_latent else to_tensor(X).flatten(1)
        partners = find_partners(
            model.training, model.space(method.space), queries, source, target, method.n_partners
        )
    dtype = torch.float32 if X.dtype == np.float32 else torch.float64
    # before the network is borrowed: a training in another thread may be waiting for it
    with (
        forked_rng(model.seed) if method.trains else nullcontext(),
        torch.inference_mode(False),
        torch.enable_grad(),
        consult(network, model.estimator, model.response, model.columns) as oracle,
    ):
        oracle.eps = max(oracle.eps, torch.finfo(dtype).eps)  # ends are rounded to it

        def step(rows: slice) -> Checked:
            x = to_tensor(X[rows], device=oracle.device, dtype=oracle.dtype)
            box = _limits(to_tensor(X[rows]), options.bounds, options.widen)
            low, high = (
                (to_tensor(b, device=x.device, dtype=x.dtype) for b in box) if box else (None, None)
            )
            s, t, p = (
                torch.from_numpy(a[rows]).to(oracle.device) for a in (source, target, partners)
            )
            problem = Problem(x, s, t, low, high, options.bounds, p, model.training, model.seed)
            box = None if box is None else (box[0].to(x.device), box[1].to(x.device))
            found = _settle(oracle, method, problem, options.settings, dtype, box)
            found = found._replace(n_evaluations=found.n_evaluations + n_asked)
            return Checked(*(value.cpu() for value in found))

        size = _batch_size(network, X, method.batched)
        parts = [*map_batches(step, len(X), size, verbose=options.verbose, desc="boundary")]
    return Checked(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _settle(
    oracle: Oracle,
    method: Method,
    problem: Problem,
    settings: Settings,
    dtype: torch.dtype,
    box: tuple[Tensor, Tensor] | None,
) -> Checked:
    """Find the pairs of a batch; with wider bands where rounding changed a label in the end.

    A band knows how large the logits are, not how large the terms are that cancel in them.
    """

    def find(problem: Problem, box: tuple[Tensor, Tensor] | None) -> Checked:
        ends = method.search(oracle, problem, settings)
        pairs = settings.pairs or not method.one_sided
        return check_ends(oracle, ends, problem.source, problem.target, dtype, pairs=pairs, box=box)

    found, eps = find(problem, box), oracle.eps
    for widening in _WIDENINGS if method.batched else ():  # "deepdig" would train again
        apart = (found.inner != found.outer).flatten(1).any(1)
        rows = (apart & (found.status == NOT_FOUND)).nonzero()[:, 0]
        part = problem.select(rows)
        logits = oracle.logits(part.x)
        found.n_evaluations[rows] += 1
        rounded = margin_band(0.0, widening * eps, logits) > settings.margin_tol
        rows, part = rows[rounded], part.select(rounded.nonzero()[:, 0])
        if not len(rows):
            break
        oracle.eps = widening * eps
        again = find(part, None if box is None else (box[0][rows], box[1][rows]))
        again = again._replace(n_evaluations=again.n_evaluations + found.n_evaluations[rows])
        for all_, new in zip(found, again, strict=True):
            all_[rows] = new
    oracle.eps = eps
    return found


def _batch_size(network: Network, X: NDArray[Any], batched: bool) -> int:
    if not batched:
        return len(X)
    numbers = int(np.prod(X.shape[1:]))
    if network.batch_size == "auto" and not network.differentiable:
        return max(1, _NUMBERS // numbers)
    return resolve_batch_size(network.batch_size, numbers * network.dtype.itemsize, network.device)


def _limits(x: Tensor, bounds: tuple[Any, Any] | None, widen: bool) -> tuple[Tensor, Tensor] | None:
    """Bounds of each sample: of its columns for vectors, of all its elements for others."""
    if bounds is None:
        return None
    low, high = (
        torch.as_tensor(bound, dtype=x.dtype).expand(x.shape[1:])[None] for bound in bounds
    )
    if widen and x.ndim > 2:
        axes = tuple(range(1, x.ndim))
        low = torch.minimum(low, x.amin(axes, keepdim=True))
        high = torch.maximum(high, x.amax(axes, keepdim=True))
    return torch.minimum(low, x), torch.maximum(high, x)  # by a rounding, where not widened
