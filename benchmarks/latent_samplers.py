"""Two over-samplers from the literature on latent vectors, as baselines.

``EOS`` (D. Dablain et al., "Efficient augmentation for imbalanced deep learning", 2022,
https://arxiv.org/abs/2207.06080) places samples between a minority sample and one of its nearest
enemies: the samples of other classes among its n_neighbors nearest ones. Samples without an enemy
are no base; where a class has none at all, each sample's nearest enemy is taken.

``Mixup`` is latent mixup with hard labels (V. Verma et al., "Manifold mixup", 2019,
https://arxiv.org/abs/1806.05236): ``t a + (1 - t) b`` of a minority sample a and any sample b of
another class, with t drawn from Beta(alpha, alpha) and at least one half, so that the label is a's.
"""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state


class _BetweenClasses(BaseOverSampler):
    """Places samples of each class between its own samples and samples of other classes."""

    _parameter_constraints: dict[str, Any] = {**BaseOverSampler._parameter_constraints}

    def _fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        random = check_random_state(self.random_state)
        parts, labels = [X], [y]
        for label, n in self.sampling_strategy_.items():
            a, b, t = self._draw(X, np.flatnonzero(y == label), y != label, n, random)
            parts.append(X[b] + t[:, None] * (X[a] - X[b]))
            labels.append(np.full(n, label, dtype=y.dtype))
        return np.concatenate(parts), np.concatenate(labels)


class EOS(_BetweenClasses):
    """Interpolation toward nearest enemies."""

    def __init__(
        self, *, n_neighbors: int = 10, sampling_strategy: Any = "auto", random_state: Any = None
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.n_neighbors = n_neighbors
        self.random_state = random_state

    def _draw(self, X: Any, own: Any, enemy: Any, n: int, random: Any) -> tuple[Any, Any, Any]:
        """Indices of n minority samples and of enemies, and the weight of the former."""
        k = min(self.n_neighbors + 1, len(X))
        near = NearestNeighbors(n_neighbors=k).fit(X).kneighbors(X[own], return_distance=False)
        hostile = enemy[near] & (near != own[:, None])
        if not hostile.any():
            others = np.flatnonzero(enemy)
            nearest = NearestNeighbors(n_neighbors=1).fit(X[others])
            near = others[nearest.kneighbors(X[own], return_distance=False)]
            hostile = np.ones_like(near, dtype=bool)
        base = random.choice(np.flatnonzero(hostile.any(1)), n)
        chosen = [random.choice(near[i][hostile[i]]) for i in base]
        return own[base], np.array(chosen, dtype=int), 1 - random.uniform(size=n)


class Mixup(_BetweenClasses):
    """Mixup with samples of other classes, nearer to the minority sample."""

    def __init__(
        self, *, alpha: float = 0.4, sampling_strategy: Any = "auto", random_state: Any = None
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.alpha = alpha
        self.random_state = random_state

    def _draw(self, X: Any, own: Any, enemy: Any, n: int, random: Any) -> tuple[Any, Any, Any]:
        """Indices of n minority samples and of others, and the weight of the former."""
        t = random.beta(self.alpha, self.alpha, n)
        return (
            random.choice(own, n),
            random.choice(np.flatnonzero(enemy), n),
            np.maximum(t, 1 - t),
        )
