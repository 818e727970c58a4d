"""The hyperplane that separates two classes in a latent space, and how well it does."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.svm import LinearSVC
from torch import Tensor

from skboundary._device import to_numpy
from skboundary.functional.boundary_complexity import Linearity, linearity

# Powers of two between which liblinear returns, whatever the data: about 1e-15 to 1e15.
_RANGE = -50, 50


class Plane(NamedTuple):
    """The paper's support vector machine, fitted to latent vectors divided by a power of two."""

    svm: LinearSVC
    exponent: int


def fit_plane(latent: Tensor, codes: NDArray[np.intp], s: int, t: int) -> Plane | None:
    """Fit the paper's support vector machine to the training samples of two classes.

    Far outside the range in which liblinear returns, latent vectors are divided by a power of
    two. With C times its square, and the constant feature of the intercept divided as well, the
    problem stays the same.
    """
    of_both = (codes == s) | (codes == t)
    if len(np.unique(codes[of_both])) < 2:
        return None
    z = to_numpy(latent)[of_both]
    exponent = int(np.frexp(np.abs(z).max())[1])
    low, high = _RANGE
    if low <= exponent <= high:
        exponent = 0
    scale = 2.0 ** np.clip(exponent, low, high)
    svm = LinearSVC(C=scale**2, intercept_scaling=1 / scale, max_iter=10_000, random_state=0)
    return Plane(svm.fit(np.ldexp(z, -exponent), codes[of_both] == t), exponent)


def linearity_of(
    plane: Plane, latent: Tensor, codes: NDArray[np.intp], s: int, t: int
) -> Linearity:
    """Linearity of the samples of two classes; t is on the positive side."""
    of_both = (codes == s) | (codes == t)
    if not of_both.any():
        nothing = torch.tensor(torch.nan)
        return Linearity(nothing, nothing, nothing)
    score = plane.svm.decision_function(np.ldexp(to_numpy(latent)[of_both], -plane.exponent))
    with np.errstate(divide="ignore", invalid="ignore"):  # weights of 0 separate nothing
        d = np.ldexp(score / np.linalg.norm(plane.svm.coef_), plane.exponent)
    return linearity(torch.from_numpy(d), torch.from_numpy(codes[of_both] == t))
