"""Measures of the boundary between two classes, after DeepDIG's characterization."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._device import move, to_numpy, to_tensor
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._hyperplane import Plane, fit_plane, linearity_of
from skboundary.boundary._inputs import data_range
from skboundary.boundary._oracle import Oracle, Outputs
from skboundary.boundary._points import along, norms
from skboundary.boundary._solve import SolveOptions, find_pairs
from skboundary.boundary._training_samples import find_partners
from skboundary.boundary.methods._deepdig import carry_over, halve
from skboundary.boundary.methods._problem import Settings
from skboundary.boundary.methods._registry import METHODS
from skboundary.functional.boundary_complexity import (
    distance_to_samples,
    draw_partners,
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

Pair = tuple[int, int]
Measures = dict[Pair, dict[str, float]]


class Plan(NamedTuple):
    """Parameters of the characterizer that concern a class pair."""

    method: str
    init: str
    n_samples: int
    n_partners: int
    max_iter: int
    generator: Any
    effort: str | int
    seed: int


class Labeled(NamedTuple):
    """Latent vectors with true labels."""

    latent: Tensor  # (n, n_latent)
    codes: NDArray[np.intp]  # (n,)


class Segments(NamedTuple):
    """Segments from points predicted as the source to points predicted as the target."""

    start: Tensor  # (n, ...)
    end: Tensor
    known: tuple[Outputs | None, Outputs | None] = (None, None)  # at both
    yields: tuple[float, float] = (np.nan, np.nan)

    def select(self, index: Tensor) -> Segments:
        """Some of the segments."""
        at_start, at_end = (None if out is None else out.select(index) for out in self.known)
        return Segments(self.start[index], self.end[index], (at_start, at_end), self.yields)


def measure(
    classifier: FittedClassifier, plan: Plan, train: Labeled, test: Labeled, pairs: list[Pair]
) -> Measures:
    """Measure some ordered pairs of classes, (source, target) as positions in `classes`.

    Parameters
    ----------
    classifier : FittedClassifier
        Fitted on the training samples.
    plan : Plan
    train, test : Labeled
    pairs : list of tuple (int, int)

    Returns
    -------
    measures : dict
        For each pair the values of COLUMNS. They do not depend on the other pairs.
    """
    planes: dict[Pair, Plane | None] = {}
    measures: Measures = {}
    with classifier.open() as oracle:
        for (s, t), segments in _segments(classifier, oracle, plan, pairs).items():
            values = measures[s, t] = dict.fromkeys(COLUMNS, np.nan)
            points = _halve(oracle, plan, segments, s, t, values)
            latent = classifier.latent(to_numpy(points)) if len(points) else train.latent[:0]
            between = Labeled(latent, np.full(len(points), s))
            values["oscillation"] = _oscillation(oracle, plan, points, s, t)
            key = (min(s, t), max(s, t))
            if key not in planes:
                planes[key] = fit_plane(train.latent, train.codes, *key)
            plane = planes[key]
            for of, samples in zip(_SETS, (train, test, between), strict=True):
                if plane is not None:
                    found = linearity_of(plane, *samples, *key)
                    for name, value in zip(_MEASURES, found, strict=True):
                        values[f"{name}_{of}"] = float(value)
            for side, code in (("source", s), ("target", t)):
                of_class = (train.codes == code).nonzero()[0]
                if len(points) and len(of_class):
                    near = to_tensor(classifier.training.X[of_class]).flatten(1).to(points.dtype)
                    distances = distance_to_samples(points.flatten(1).cpu(), near)
                    values[f"distance_{side}"] = _mean(distances)
                    distances = distance_to_samples(
                        latent, train.latent[torch.from_numpy(of_class)]
                    )
                    values[f"latent_distance_{side}"] = _mean(distances)
        oracle.nan.refuse(oracle.network.name)
    return measures


def _segments(
    classifier: FittedClassifier, oracle: Oracle, plan: Plan, pairs: list[Pair]
) -> dict[Pair, Segments]:
    """Draw samples of the source class of each pair, and find points across the boundary."""
    training = classifier.training
    near = training.latent if plan.method == "segment" and plan.init == "nearest" else None
    drawn, partners = [], []
    for s, t in pairs:
        rng = _rng(plan, s, t)
        index = rng.permutation(training.of_class(s))[: plan.n_samples]
        source, target = (np.full(len(index), code) for code in (s, t))
        queries = None if near is None else near[torch.from_numpy(index)]
        partners.append(find_partners(training, near, queries, source, target, 1, rng)[:, 0])
        drawn.append(index)
    which = np.repeat(np.arange(len(pairs)), [*map(len, drawn)])
    find = {"segment": _to_partners, "pm": _of_pm, "deepdig": _of_generators}[plan.method]
    source, target = np.array(pairs)[which].T
    segments, success, yields = find(
        classifier, oracle, plan, np.concatenate(drawn), np.concatenate(partners), source, target
    )
    of_pair = torch.from_numpy(which).to(success.device)
    return {
        pair: segments.select(success & (of_pair == i))._replace(
            yields=yields.get(pair, (np.nan, np.nan))
        )
        for i, pair in enumerate(pairs)
    }


Found = tuple[Segments, Tensor, dict[Pair, tuple[float, float]]]
Codes = NDArray[np.intp]


def _to_partners(
    classifier: FittedClassifier,
    oracle: Oracle,
    plan: Plan,
    index: Codes,
    partners: Codes,
    source: Codes,
    target: Codes,
) -> Found:
    """Segments from samples to their partners; which exist; no success rates of generators."""
    training, dtype = classifier.training, oracle.dtype
    ends = [(training.take(i), training.outputs(i)) for i in (index, partners)]
    success = torch.from_numpy(partners >= 0)
    ((start, at_start), (end, at_end)), success = move((ends, success), oracle.device)
    known = at_start.cast(dtype), at_end.cast(dtype)
    return Segments(start.to(dtype), end.to(dtype), known), success, {}


def _of_pm(
    classifier: FittedClassifier,
    oracle: Oracle,
    plan: Plan,
    index: Codes,
    partners: Codes,
    source: Codes,
    target: Codes,
) -> Found:
    """Segments between the ends that perturbation minimization finds."""
    method, training, like = METHODS["pm"], classifier.training, _like(oracle)
    effort, budget = method.settle(plan.effort)
    settings = Settings(effort, budget=budget)
    options = SolveOptions(method, settings, data_range(training.X), widen=True)
    found = find_pairs(classifier, options, training.starts(index), source, target)
    start, end = (to_tensor(side).to(like) for side in (found.inner, found.outer))
    return Segments(start, end), torch.from_numpy(found.success).to(like.device), {}


def _of_generators(
    classifier: FittedClassifier,
    oracle: Oracle,
    plan: Plan,
    index: Codes,
    partners: Codes,
    source: Codes,
    target: Codes,
) -> Found:
    """Segments from re-adversarial to adversarial samples of DeepDIG's generators."""
    training, like = classifier.training, _like(oracle)
    found = carry_over(
        oracle,
        training,
        training.take(index).to(like),
        torch.from_numpy(source).to(like.device),
        torch.from_numpy(target).to(like.device),
        METHODS["deepdig"].settle(plan.effort)[0],
        plan.generator,
        plan.seed,
        data_range(training.X),
    )
    known = found.at_back, found.at_over
    return Segments(found.back, found.over, known), found.success, found.yields


def _halve(
    oracle: Oracle, plan: Plan, segments: Segments, s: int, t: int, values: dict[str, float]
) -> Tensor:
    """Borderline samples (n, ...) of a class pair; enter how the search for them went."""
    start, end, known, (values["yield_over"], values["yield_back"]) = segments
    values["n_segments"] = float(len(start))
    if not len(start):
        return start
    source, target = (
        torch.full((len(start),), code, dtype=torch.long, device=start.device) for code in (s, t)
    )
    middle = halve(oracle, start, end, source, target, plan.max_iter, known=known)
    # between labels alone there is a place where they change, but none where they are equal
    success = ~middle.third_class if oracle.response == "label" else middle.success
    values["success_rate"] = _mean(success)
    values["third_class_rate"] = _mean(middle.third_class)
    values["attempts"] = _mean(middle.n_evaluations)
    values["attempts_success"] = _mean(middle.n_evaluations[success])
    values["attempts_fail"] = _mean(middle.n_evaluations[~success])
    values["length"] = _mean(norms(end - start, 2))
    return along(start, end, middle.t)[success]


def _oscillation(oracle: Oracle, plan: Plan, points: Tensor, s: int, t: int) -> float:
    """Compute the IDC of borderline samples (n, ...), NaN for less than two."""
    seed = int(_rng(plan, s, t).integers(2**31))
    partners = draw_partners(len(points), plan.n_partners, torch.Generator().manual_seed(seed))
    first = torch.arange(len(points)).repeat_interleave(partners.shape[1])
    starts, ends = (points[i.to(points.device)] for i in (first, partners.flatten()))
    return _mean(oscillation(oracle.labels, starts, ends).share)


def _like(oracle: Oracle) -> Tensor:
    return torch.empty(0, dtype=oracle.dtype, device=oracle.device)


def _mean(values: Tensor) -> float:
    return float(values.cpu().double().mean())  # MPS has no float64


def _rng(plan: Plan, s: int, t: int) -> np.random.Generator:
    """Random numbers of a class pair, whichever others are measured."""
    return np.random.default_rng((plan.seed, s, t))
