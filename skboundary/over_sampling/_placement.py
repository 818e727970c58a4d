"""Placement: pairs of samples of two classes, and the positions of new samples between them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from skboundary._callbacks import task
from skboundary.functional.extrapolation import (
    asymmetric_target,
    centroid_ratio,
    margin_ratio,
    place_on_grid,
    reachable,
    segment_ratio,
    select_majority,
    thin,
)
from skboundary.functional.pairing import (
    Find,
    fill,
    one_to_one_rounds,
    pair_nearest,
    pair_one_to_one,
)
from skboundary.over_sampling._geometry import CHUNK, LatentGeometry
from skboundary.over_sampling._plan import Plan, join
from skboundary.over_sampling._settings import BiasSettings

# Decision-boundary re-sampling: least probability of the majority class at a majority sample,
# and largest at a minority sample.
_REFINE, _SKIP = 0.9, 0.3


class Rules(NamedTuple):
    """The parameters of the sampler that decide where samples are placed."""

    instance_pairing: str
    n_neighbors: int
    find: Find
    bias: str
    placement: str
    within_class: float
    settings: BiasSettings


def plan_class(
    geometry: LatentGeometry,
    minority: int,
    shares: dict[int, float],
    n: int,
    rules: Rules,
    generator: torch.Generator,
) -> Plan:
    """Plan all new samples of a minority class.

    Parameters
    ----------
    geometry : LatentGeometry
    minority : int
        Code of the class.
    shares : dict
        From the code of each of its majority classes to the share of samples that is biased.
    n : int
        Number of new samples.
    rules : Rules
    generator : torch.Generator

    Returns
    -------
    plan : Plan
    """
    placements = [Placement(geometry, minority, majority, rules, generator) for majority in shares]
    n_within = round(rules.within_class * n)
    numbers = [len(part) for part in torch.arange(n - n_within).tensor_split(len(placements))]
    plans = []
    for placement, k in zip(placements, numbers, strict=True):
        with task("class-pair"):
            if k:
                plans.append(placement.extrapolate(k, shares[placement.majority]))
    if n_within:
        plans.append(placements[0].interpolate(n_within))
    return join(plans)


class Placement:
    """Placement of samples of a minority class toward one majority class.

    Parameters
    ----------
    geometry : LatentGeometry
    minority, majority : int
        Columns of the logits.
    rules : Rules
    generator : torch.Generator
    """

    def __init__(
        self,
        geometry: LatentGeometry,
        minority: int,
        majority: int,
        rules: Rules,
        generator: torch.Generator,
    ) -> None:
        self.geometry, self.minority, self.majority = geometry, minority, majority
        self.rules, self.generator = rules, generator
        self.minority_samples = geometry.samples_of(minority)
        self.majority_samples = geometry.samples_of(majority)
        self.minority_margins = geometry.margins(self.minority_samples, minority, majority)
        self.majority_margins = geometry.margins(self.majority_samples, minority, majority)

    def extrapolate(self, n: int, share: float) -> Plan:
        """Place n samples between the classes, a share of them biased, the others at random."""
        bias, fraction = self.rules.bias, self.rules.settings.fraction
        n_biased = round(share * n)
        if bias == "dbr":
            plans = [self._decision_boundary_resampling(n_biased)] if n_biased else []
            selected = torch.empty(0, dtype=torch.int64)
        else:
            by = "bottom" if bias == "asymmetric" else bias
            selected = select_majority(
                self.majority_margins, by, fraction, generator=self.generator
            )
            plans = [self._extrapolate(n_biased, bias, selected)] if n_biased else []
        if n > n_biased:
            # other majority samples than those of the biased part, so that no pair is repeated
            margins = self.majority_margins.clone()
            margins[selected] = 0.0
            if not n_biased or not (margins < 0).any():
                margins = self.majority_margins
            selected = select_majority(margins, "random", fraction, generator=self.generator)
            plans.append(self._extrapolate(n - n_biased, "random", selected))
        return join(plans)

    def interpolate(self, n: int) -> Plan:
        """Place n samples between neighbors of the minority class, as SMOTE does."""
        latent = self._latent(self.minority_samples)
        pairs = pair_nearest(
            latent,
            latent,
            n,
            min(self.rules.n_neighbors, len(latent) - 1),
            generator=self.generator,
            exclude_self=True,
            replace=True,
            find=self.rules.find,
        )
        parents = self.minority_samples[pairs.cpu()]
        return self._as_plan(parents, self._uniform(n), torch.full((n,), math.nan).double())

    def _extrapolate(self, n: int, bias: str, selected: Tensor) -> Plan:
        minority = self.minority_samples[self.minority_margins > 0]
        majority = self.majority_samples[selected]
        if not len(minority) or not len(majority):
            return self._fall_back(n)
        parents, repeated = fill(self._pairs(minority, majority, n), n)
        first, last = self._margins(parents)
        target = torch.full((n,), 0.5, dtype=torch.float64)
        if bias == "asymmetric":
            settings = self.rules.settings
            target = asymmetric_target(self._ratio(parents), settings.gamma, settings.p_min)
        target = reachable(target, first, last)
        position, target = self._place(parents, repeated, target)
        if self.rules.placement == "spread":
            position = position * self._uniform(n)
        return self._as_plan(parents, position, target)

    def _decision_boundary_resampling(self, n: int) -> Plan:
        majority = self.majority_samples[(-self.majority_margins).sigmoid() > _REFINE]
        certain = (-self.minority_margins).sigmoid() <= _SKIP
        if not len(majority) or not certain.any():
            return self._fall_back(n)
        latent, candidates = self._latent(self.minority_samples), self._latent(majority)
        parts: list[Plan] = []
        steep = torch.empty(0, 2, dtype=torch.int64)  # pairs without an acceptable grid position
        missing = n
        rounds = one_to_one_rounds(
            latent, candidates, math.ceil(n / len(latent)), find=self.rules.find
        )
        for number, pairs in enumerate(rounds):
            if number:  # further rounds leave out the minority samples that are skipped anyway
                pairs = pairs[certain.to(pairs.device)[pairs[:, 0]]]
            distances = (latent[pairs[:, 0]] - candidates[pairs[:, 1]]).norm(dim=1)
            pairs = pairs[thin(distances, missing)].cpu()
            pairs = pairs[certain[pairs[:, 0]]]
            if not len(pairs):
                continue
            parents = torch.stack([self.minority_samples[pairs[:, 0]], majority[pairs[:, 1]]], 1)
            margin = self.geometry.margin_along(parents, self.minority, self.majority)
            position, accepted = place_on_grid(margin, self._margins(parents)[1])
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
        """Place midpoints of near pairs, where no segment is known to cross the boundary."""
        minority = self.minority_samples[self.minority_margins > 0]
        majority = self.majority_samples[self.majority_margins < 0]
        minority, majority = (
            own_side if len(own_side) else every
            for own_side, every in (
                (minority, self.minority_samples),
                (majority, self.majority_samples),
            )
        )
        parents, repeated = fill(self._pairs(minority, majority, n), n)
        position = torch.where(repeated, self._uniform(n) / 2, 0.5)
        plan = self._as_plan(parents, position, torch.full_like(position, math.nan))
        return plan._replace(n_fallback=n)

    def _pairs(self, minority: Tensor, majority: Tensor, n: int) -> Tensor:
        """Pair samples of X in the latent space: at most n pairs, minority sample first."""
        rules = self.rules
        first, second = self._latent(minority), self._latent(majority)
        if rules.instance_pairing == "one-to-one":
            pairs = pair_one_to_one(first, second, n, find=rules.find)
        else:
            flipped = rules.instance_pairing == "nearest"
            queries, samples = (second, first) if flipped else (first, second)
            pairs = pair_nearest(
                queries,
                samples,
                n,
                rules.n_neighbors,
                generator=self.generator,
                find=rules.find,
            )
            pairs = pairs.flip(1) if flipped else pairs
        pairs = pairs.cpu()
        return torch.stack([minority[pairs[:, 0]], majority[pairs[:, 1]]], 1)

    def _place(self, parents: Tensor, repeated: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Find positions; a repeated pair gets a target closer to its minority sample's own."""
        own = self._margins(parents)[0].sigmoid()
        target = torch.where(repeated, torch.lerp(target, own, self._uniform(len(target))), target)
        position, found = self.geometry.place(parents, target, self.minority, self.majority)
        # all targets on a step function meet at the same jump: spread the repeated pairs
        again = repeated & ~found
        return torch.where(again, position * self._uniform(len(target)), position), target

    def _ratio(self, parents: Tensor) -> Tensor:
        """Compute ``d_normal / d_abnormal`` of equation 1 for each pair."""
        how = self.rules.settings.distance_ratio
        if how == "margin":
            fraction = self.rules.settings.fraction
            ratio = margin_ratio(self.minority_margins, self.majority_margins, fraction)
            return ratio.expand(len(parents))
        half = torch.full((len(parents),), 0.5, dtype=torch.float64)
        position, _ = self.geometry.place(parents, half, self.minority, self.majority)
        if how == "segment":
            return segment_ratio(position)
        means = self.geometry.means[[self.minority, self.majority]]
        return torch.cat(
            [
                centroid_ratio(self.geometry.latent_at(pairs, at).double(), *means)
                for pairs, at in zip(parents.split(CHUNK), position.split(CHUNK), strict=True)
            ]
        )

    def _margins(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        first, last = parents.unbind(1)
        return (
            self.geometry.margins(first, self.minority, self.majority),
            self.geometry.margins(last, self.minority, self.majority),
        )

    def _as_plan(self, parents: Tensor, position: Tensor, target: Tensor) -> Plan:
        classes = torch.tensor([self.minority, self.majority]).expand(len(parents), 2)
        return Plan(parents, position, target, classes)

    def _latent(self, index: Tensor) -> Tensor:
        return self.geometry.latent[index.to(self.geometry.latent.device)]

    def _uniform(self, n: int) -> Tensor:
        return torch.rand(n, generator=self.generator, dtype=torch.float64)
