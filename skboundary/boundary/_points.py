"""Points on segments, and their distances."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def expand(values: Tensor, like: Tensor) -> Tensor:
    """Give values (n,) trailing axes of size 1, to go with points (n, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def along(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Points (n, ...) at the positions t (n,) of segments."""
    return start + expand(t, start) * (end - start)


def norms(difference: Tensor, norm: Any) -> Tensor:
    """Norm (n,) of each difference (n, ...); "2sq" has the distances of 2."""
    order = 2 if norm == "2sq" else norm
    return torch.linalg.vector_norm(difference.flatten(1), ord=order, dim=1)
