"""What is measured of the boundary between two classes, for BoundaryCharacterizer."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.svm import LinearSVC
from torch import Tensor

from skboundary._device import to_numpy, to_tensor
from skboundary.boundary._inputs import floating
from skboundary.boundary._oracle import Oracle, consult
from skboundary.boundary._pairs import expand, norms
from skboundary.boundary._training_samples import find_partners
from skboundary.boundary.methods._deepdig import carry_over, halve
from skboundary.functional.boundary_complexity import (
    Linearity,
    distance_to_rows,
    draw_partners,
    linearity,
    oscillation,
)

_SETS = ("train", "test", "borderline")
_MEASURES = ("linear_distance", "error_distance", "error_rate")  # as in Linearity
_DISTANCES = (
    "distance_source",
    "distance_target",
    "latent_distance_source",
    "latent_distance_target",
)
COLUMNS = (
    "n_segments",
    "success_rate",
    "third_class_rate",
    "attempts",
    "attempts_success",
    "attempts_fail",
    "yield_over",
    "yield_back",
    "oscillation",
    *(f"{measure}_{of}" for measure in _MEASURES for of in _SETS),
    "length",
    *_DISTANCES,
)

# Powers of two between which liblinear returns, whatever the data: about 1e-15 to 1e15.
_RANGE = -50, 50

Pair = tuple[int, int]


class Plan(NamedTuple):
    """Parameters of the characterizer that concern a class pair."""

    method: str
    init: str
    n_samples: int
    n_partners: int
    max_iter: int
    seed: int


class Sets(NamedTuple):
    """Labeled rows."""

    X: NDArray[Any]
    codes: NDArray[np.intp]
    latent: Tensor
    latent_test: Tensor
    codes_test: NDArray[np.intp]


class Segments(NamedTuple):
    """Segments from rows predicted as the source to rows predicted as the target."""

    start: Tensor  # (n, ...)
    end: Tensor
    yields: tuple[float, float] = (np.nan, np.nan)


class Plane(NamedTuple):
    """The paper's support vector machine, fitted to latent vectors divided by a power of two."""

    svm: LinearSVC
    exponent: int


def measure(
    extractor: Any, plan: Plan, sets: Sets, pairs: list[Pair]
) -> dict[Pair, dict[str, float]]:
    """Measure some ordered pairs of classes, (source, target) as positions in `classes_`.

    Parameters
    ----------
    extractor : BoundarySampleExtractor
        Fitted on the training rows with the plan's method.
    plan : Plan
    sets : Sets
    pairs : list of tuple (int, int)

    Returns
    -------
    rows : dict
        For each pair the values of COLUMNS. They do not depend on the other pairs.
    """
    model, latent = extractor._model, sets.latent
    planes: dict[Pair, Any] = {}
    rows = {}
    with consult(model.network, model.estimator, model.response, model.columns) as oracle:
        for (s, t), segments in _segments(extractor, oracle, plan, latent, pairs).items():
            row = dict.fromkeys(COLUMNS, np.nan)
            points = _halve(oracle, plan, segments, s, t, row)
            between = model.latent_of(to_numpy(points)) if len(points) else latent[:0]
            row["oscillation"] = _oscillation(oracle, plan, points, s, t)
            key = (min(s, t), max(s, t))
            if key not in planes:
                planes[key] = _plane(latent, sets.codes, *key)
            for of, z, codes in (
                ("train", latent, sets.codes),
                ("test", sets.latent_test, sets.codes_test),
                ("borderline", between, np.full(len(points), s)),
            ):
                if planes[key] is not None:
                    found = _linearity(planes[key], z, codes, *key)
                    for name, value in zip(_MEASURES, found, strict=True):
                        row[f"{name}_{of}"] = float(value)
            for side, code in (("source", s), ("target", t)):
                of_class = (sets.codes == code).nonzero()[0]
                if len(points) and len(of_class):
                    near = to_tensor(sets.X[of_class]).flatten(1).to(points.dtype)
                    row[f"distance_{side}"] = _mean(distance_to_rows(points.flatten(1).cpu(), near))
                    near = latent[torch.from_numpy(of_class)]
                    row[f"latent_distance_{side}"] = _mean(distance_to_rows(between, near))
            rows[s, t] = row
    return rows


def _segments(
    extractor: Any, oracle: Oracle, plan: Plan, latent: Tensor, pairs: list[Pair]
) -> dict[Pair, Segments]:
    """Draw rows of the source class of each pair, and find what lies across the boundary."""
    training, like = (
        extractor._model.training,
        torch.empty(0, dtype=oracle.dtype, device=oracle.device),
    )
    drawn, partners = [], []
    for s, t in pairs:
        rng = _rng(plan, s, t)
        rows = rng.permutation(training.of_class(s))[: plan.n_samples]
        source, target = (np.full(len(rows), code) for code in (s, t))
        space = latent if plan.method == "segment" and plan.init == "nearest" else None
        of_rows = None if space is None else space[torch.from_numpy(rows)]
        partners.append(find_partners(training, space, of_rows, source, target, 1, rng)[:, 0])
        drawn.append(rows)
    index, which = np.concatenate(drawn), np.repeat(np.arange(len(pairs)), [*map(len, drawn)])
    source, target = np.array(pairs)[which].T
    start, end = training.take(index, like), training.take(np.concatenate(partners), like)
    success = torch.from_numpy(np.concatenate(partners) >= 0).to(like.device)
    yields: dict[Pair, tuple[float, float]] = {}
    if plan.method == "pm":
        found = extractor._find(training.X[index].astype(floating(training.X)), source, target)
        start, end = (to_tensor(side).to(like) for side in (found.inner, found.outer))
        success = torch.from_numpy(found.success).to(like.device)
    elif plan.method == "deepdig":
        s_, t_ = (torch.from_numpy(codes).to(like.device) for codes in (source, target))
        end, start, success, yields = carry_over(
            oracle,
            training,
            start,
            s_,
            t_,
            extractor.effort,
            extractor.generator,
            plan.seed,
            extractor.bounds_,
        )
    of_pair = torch.from_numpy(which).to(like.device)
    return {
        pair: Segments(
            start[success & (of_pair == i)],
            end[success & (of_pair == i)],
            yields.get(pair, (np.nan, np.nan)),
        )
        for i, pair in enumerate(pairs)
    }


def _halve(
    oracle: Oracle, plan: Plan, segments: Segments, s: int, t: int, row: dict[str, float]
) -> Tensor:
    """Borderline samples (n, ...) of a class pair; enter how the search for them went."""
    start, end, (row["yield_over"], row["yield_back"]) = segments
    row["n_segments"] = float(len(start))
    if not len(start):
        return start
    source, target = (
        torch.full((len(start),), code, dtype=torch.long, device=start.device) for code in (s, t)
    )
    middle = halve(oracle, start, end, source, target, plan.max_iter)
    # between labels alone there is a place where they change, but none where they are equal
    success = ~middle.third_class if oracle.response == "label" else middle.success
    row["success_rate"] = _mean(success)
    row["third_class_rate"] = _mean(middle.third_class)
    row["attempts"] = _mean(middle.n_evaluations)
    row["attempts_success"] = _mean(middle.n_evaluations[success])
    row["attempts_fail"] = _mean(middle.n_evaluations[~success])
    row["length"] = _mean(norms(end - start, 2))
    return (start + expand(middle.t, start) * (end - start))[success]


def _oscillation(oracle: Oracle, plan: Plan, points: Tensor, s: int, t: int) -> float:
    """Compute the IDC of borderline samples (n, ...), NaN for less than two."""
    seed = int(_rng(plan, s, t).integers(2**31))
    partners = draw_partners(len(points), plan.n_partners, torch.Generator().manual_seed(seed))
    first = torch.arange(len(points)).repeat_interleave(partners.shape[1])
    starts, ends = (points[i.to(points.device)] for i in (first, partners.flatten()))
    return _mean(oscillation(oracle.labels, starts, ends).share)


def _plane(latent: Tensor, codes: NDArray[np.intp], s: int, t: int) -> Plane | None:
    """Fit the paper's support vector machine to the training rows of two classes.

    Far outside the range in which liblinear returns, latent vectors are divided by a power of
    two. With C times its square, and the constant feature of the intercept divided as well, the
    problem stays the same.
    """
    rows = (codes == s) | (codes == t)
    if len(np.unique(codes[rows])) < 2:
        return None
    z = to_numpy(latent)[rows]
    exponent = int(np.frexp(np.abs(z).max())[1])
    low, high = _RANGE
    if low <= exponent <= high:
        exponent = 0
    scale = 2.0 ** np.clip(exponent, low, high)
    svm = LinearSVC(C=scale**2, intercept_scaling=1 / scale, max_iter=10_000, random_state=0)
    return Plane(svm.fit(np.ldexp(z, -exponent), codes[rows] == t), exponent)


def _linearity(plane: Plane, latent: Tensor, codes: NDArray[np.intp], s: int, t: int) -> Linearity:
    """Linearity of the rows of two classes; t is on the positive side."""
    rows = (codes == s) | (codes == t)
    if not rows.any():
        nothing = torch.tensor(torch.nan)
        return Linearity(nothing, nothing, nothing)
    score = plane.svm.decision_function(np.ldexp(to_numpy(latent)[rows], -plane.exponent))
    with np.errstate(divide="ignore", invalid="ignore"):  # weights of 0 separate nothing
        d = np.ldexp(score / np.linalg.norm(plane.svm.coef_), plane.exponent)
    return linearity(torch.from_numpy(d), torch.from_numpy(codes[rows] == t))


def _mean(values: Tensor) -> float:
    return float(values.cpu().double().mean())  # MPS has no float64


def _rng(plan: Plan, s: int, t: int) -> np.random.Generator:
    """Random numbers of a class pair, whichever others are measured."""
    return np.random.default_rng((plan.seed, s, t))
