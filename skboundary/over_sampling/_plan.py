"""Where new samples lie: pairs of rows, and a position on the segment between them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skboundary._batching import progress
from skboundary.functional.extrapolation import (
    asymmetric_target,
    centroid_ratio,
    margin_ratio,
    place_on_grid,
    reachable,
    segment_ratio,
    select_majors,
    thin,
)
from skboundary.functional.pairing import (
    fill,
    one_to_one_rounds,
    pair_nearest,
    pair_one_to_one,
)
from skboundary.over_sampling._space import _CHUNK, Space, segment_points

# DBR: how sure a major must be of its class, and how unsure a minor may be of its own.
_REFINE, _SKIP = 0.9, 0.3


class Plan(NamedTuple):
    """Synthetic rows before they are made."""

    parents: Tensor  # (n, 2) rows of X
    positions: Tensor  # (n,) from 0 at the first parent to 1 at the second
    targets: Tensor  # (n,) wanted probabilities, NaN = none
    classes: Tensor  # (n, 2) whose boundary is meant: codes of minor and major
    n_fallback: int = 0


def join(plans: list[Plan]) -> Plan:
    """Put plans one after the other."""
    none = torch.empty(0, dtype=torch.float64)
    empty = Plan(torch.empty(0, 2).long(), none, none, torch.empty(0, 2).long())
    plans = [empty, *plans]
    return Plan(
        torch.cat([plan.parents for plan in plans]),
        torch.cat([plan.positions for plan in plans]),
        torch.cat([plan.targets for plan in plans]),
        torch.cat([plan.classes for plan in plans]),
        sum(plan.n_fallback for plan in plans),
    )


def plan_class(
    space: Space,
    minor: int,
    shares: dict[int, float],
    n: int,
    settings: Any,
    generator: torch.Generator,
) -> Plan:
    """Plan all new samples of a class.

    Parameters
    ----------
    space : Space
    minor : int
        Its code.
    shares : dict
        From each of its majors to the share of their samples that is biased.
    n : int
        Number of samples.
    settings : BiasedExtrapolationSampler
        Its parameters.
    generator : torch.Generator

    Returns
    -------
    plan : Plan
    """
    pairs = [ClassPair(space, minor, major, settings, generator) for major in shares]
    n_within = round(settings.within_class * n)
    numbers = [len(part) for part in torch.arange(n - n_within).tensor_split(len(pairs))]
    plans = [pair.plan(k, shares[pair.major]) for pair, k in zip(pairs, numbers, strict=True) if k]
    if n_within:
        plans.append(pairs[0].interpolate(n_within))
    return join(plans)


def make_rows(
    space: Space, plan: Plan, finish: Callable[[NDArray[Any]], NDArray[Any]] | None
) -> tuple[NDArray[Any], Tensor]:
    """Make the rows of a plan, and find out what the classifier says of them.

    Parameters
    ----------
    space : Space
        Its latent vectors are not needed any more.
    plan : Plan
    finish : callable, default=None
        What else is done to rows, in place.

    Returns
    -------
    rows : ndarray of shape (n, ...)
    probabilities : Tensor of shape (n,)
        Of the minor class against the major class.
    """
    rows = np.empty((len(plan.parents), *space.X.shape[1:]), dtype=space.X.dtype)
    margins = torch.empty(len(rows), dtype=torch.float64)
    with progress(len(rows), "new samples", space.verbose) as bar:
        for start in range(0, len(rows), _CHUNK):
            part = slice(start, start + _CHUNK)
            parents, classes = plan.parents[part], plan.classes[part]
            made = segment_points(space.X, parents, plan.positions[part])
            if space.linear and finish is None:
                first, last = (space.logits[end].gather(1, classes) for end in parents.unbind(1))
                logits = torch.lerp(first, last, plan.positions[part, None])
            else:
                made = made if finish is None else finish(made)
                logits = space.logits_of(made).gather(1, classes)
            rows[part] = made
            margins[part] = logits[:, 0] - logits[:, 1]
            bar.update(len(made))
    return rows, margins.sigmoid()


class ClassPair:
    """A class that gets samples, and the class toward which it grows.

    Parameters
    ----------
    space : Space
    minor, major : int
        Columns of the logits.
    settings : BiasedExtrapolationSampler
        Its parameters.
    generator : torch.Generator
    """

    def __init__(
        self, space: Space, minor: int, major: int, settings: Any, generator: torch.Generator
    ) -> None:
        self.space, self.minor, self.major = space, minor, major
        self.settings, self.generator = settings, generator
        self.minors, self.majors = space.rows_of(minor), space.rows_of(major)
        self.minor_margins = space.margins(self.minors, minor, major)
        self.major_margins = space.margins(self.majors, minor, major)

    def plan(self, n: int, share: float) -> Plan:
        """Place n samples, a share of them by the bias of the settings, the rest at random."""
        bias, fraction = self.settings.bias, self.settings.bias_fraction
        n_biased = round(share * n)
        if bias == "dbr":
            plans = [self._decision_boundary_resampling(n_biased)] if n_biased else []
            selected = torch.empty(0, dtype=torch.int64)
        else:
            by = "bottom" if bias == "asymmetric" else bias
            selected = select_majors(self.major_margins, by, fraction, generator=self.generator)
            plans = [self._extrapolate(n_biased, bias, selected)] if n_biased else []
        if n > n_biased:
            # other majors than the biased part has, so that no pair comes twice
            margins = self.major_margins.clone()
            margins[selected] = 0.0
            if not n_biased or not (margins < 0).any():
                margins = self.major_margins
            selected = select_majors(margins, "random", fraction, generator=self.generator)
            plans.append(self._extrapolate(n - n_biased, "random", selected))
        return join(plans)

    def interpolate(self, n: int) -> Plan:
        """Place n samples between minors and their neighbors among the minors, as SMOTE does."""
        latent = self._latent(self.minors)
        k = min(self.settings.n_neighbors, len(latent) - 1)
        pairs = pair_nearest(
            latent, latent, n, k, generator=self.generator, exclude_self=True, replace=True
        )
        parents = self.minors[pairs.cpu()]
        nowhere = torch.full((n,), math.nan, dtype=torch.float64)
        return self._as_plan(parents, self._uniform(n), nowhere)

    def _extrapolate(self, n: int, bias: str, selected: Tensor) -> Plan:
        minors, majors = self.minors[self.minor_margins > 0], self.majors[selected]
        if not len(minors) or not len(majors):
            return self._fall_back(n)
        parents, repeated = fill(self._pairs(minors, majors, n), n)
        first, last = self._margins(parents)
        target = torch.full((n,), 0.5, dtype=torch.float64)
        if bias == "asymmetric":
            s = self.settings
            target = asymmetric_target(self._ratio(parents), s.gamma, s.p_max, s.p_min)
        target = reachable(target, first, last)
        position, target = self._place(parents, repeated, target)
        if self.settings.placement == "spread":
            position = position * self._uniform(n)
        return self._as_plan(parents, position, target)

    def _decision_boundary_resampling(self, n: int) -> Plan:
        majors = self.majors[(-self.major_margins).sigmoid() > _REFINE]
        sure = (-self.minor_margins).sigmoid() <= _SKIP
        if not len(majors) or not sure.any():
            return self._fall_back(n)
        latent, among = self._latent(self.minors), self._latent(majors)
        parts: list[Plan] = []
        steep = torch.empty(0, 2, dtype=torch.int64)  # pairs that no position of the grid suits
        missing = n
        rounds = one_to_one_rounds(latent, among, math.ceil(n / len(latent)))
        for number, pairs in enumerate(rounds):
            if number:  # to fill up, no more minors that are skipped anyway
                pairs = pairs[sure.to(pairs.device)[pairs[:, 0]]]
            distances = (latent[pairs[:, 0]] - among[pairs[:, 1]]).norm(dim=1)
            pairs = pairs[thin(distances, missing)].cpu()
            pairs = pairs[sure[pairs[:, 0]]]
            if not len(pairs):
                continue
            parents = torch.stack([self.minors[pairs[:, 0]], majors[pairs[:, 1]]], 1)
            along = self.space.along(parents, self.minor, self.major)
            position, accepted = place_on_grid(along, self._margins(parents)[1])
            half = torch.full_like(position, 0.5)
            parts.append(self._as_plan(parents[accepted], position[accepted], half[accepted]))
            steep = torch.cat([steep, parents[~accepted]])[:n]
            missing -= int(accepted.sum())
            if not missing or (number and not accepted.any() and len(steep) >= missing):
                break
        once = join(parts)
        pairs = torch.cat([once.parents, steep])
        if not len(pairs):
            return self._fall_back(n)
        parents, repeated = fill(pairs, n)
        parents, repeated = parents[len(once.parents) :], repeated[len(once.parents) :]
        half = torch.full((len(parents),), 0.5, dtype=torch.float64)
        return join([once, self._as_plan(parents, *self._place(parents, repeated, half))])

    def _fall_back(self, n: int) -> Plan:
        """Give midpoints of pairs that are near, where no segment is known to cross."""
        minors = self.minors[self.minor_margins > 0]
        majors = self.majors[self.major_margins < 0]
        minors, majors = (
            right if len(right) else every
            for right, every in ((minors, self.minors), (majors, self.majors))
        )
        parents, repeated = fill(self._pairs(minors, majors, n), n)
        position = torch.where(repeated, self._uniform(n) / 2, 0.5)
        plan = self._as_plan(parents, position, torch.full_like(position, math.nan))
        return plan._replace(n_fallback=n)

    def _pairs(self, minors: Tensor, majors: Tensor, n: int) -> Tensor:
        """Pair rows of X in the latent space, at most n pairs."""
        how, k = self.settings.instance_pairing, self.settings.n_neighbors
        few, many = self._latent(minors), self._latent(majors)
        if how == "one-to-one":
            pairs = pair_one_to_one(few, many, n)
        elif how == "nearest":
            pairs = pair_nearest(many, few, n, k, generator=self.generator).flip(1)
        else:
            pairs = pair_nearest(few, many, n, k, generator=self.generator)
        pairs = pairs.cpu()
        return torch.stack([minors[pairs[:, 0]], majors[pairs[:, 1]]], 1)

    def _place(self, parents: Tensor, repeated: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Find positions; a pair that is used again gets a target nearer to its minor."""
        own = self._margins(parents)[0].sigmoid()
        target = torch.where(repeated, torch.lerp(target, own, self._uniform(len(target))), target)
        position, found = self.space.place(parents, target, self.minor, self.major)
        # all targets of a step function meet at the same jump: spread what is used again
        again = repeated & ~found
        return torch.where(again, position * self._uniform(len(target)), position), target

    def _ratio(self, parents: Tensor) -> Tensor:
        """Compute ``d_normal / d_abnormal`` of equation 1 for each pair."""
        how = self.settings.distance_ratio
        if how == "margin":
            ratio = margin_ratio(
                self.minor_margins, self.major_margins, self.settings.bias_fraction
            )
            return ratio.expand(len(parents))
        half = torch.full((len(parents),), 0.5, dtype=torch.float64)
        position, _ = self.space.place(parents, half, self.minor, self.major)
        if how == "segment":
            return segment_ratio(position)
        minor_mean, major_mean = self.space.means[self.minor], self.space.means[self.major]
        return torch.cat(
            [
                centroid_ratio(self.space.latent_at(pair, at).double(), minor_mean, major_mean)
                for pair, at in zip(parents.split(_CHUNK), position.split(_CHUNK), strict=True)
            ]
        )

    def _margins(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        first, last = parents.unbind(1)
        return (
            self.space.margins(first, self.minor, self.major),
            self.space.margins(last, self.minor, self.major),
        )

    def _as_plan(self, parents: Tensor, position: Tensor, target: Tensor) -> Plan:
        classes = torch.tensor([self.minor, self.major]).expand(len(parents), 2)
        return Plan(parents, position, target, classes)

    def _latent(self, rows: Tensor) -> Tensor:
        return self.space.latent[rows.to(self.space.latent.device)]

    def _uniform(self, n: int) -> Tensor:
        return torch.rand(n, generator=self.generator, dtype=torch.float64)
