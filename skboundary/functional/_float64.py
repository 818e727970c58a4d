"""Where float64 is computed."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import torch
from torch import Tensor


def float64_device(like: Tensor) -> torch.device:
    """Return the device of a tensor, or the CPU where that is MPS, which has no float64."""
    return torch.device("cpu") if like.device.type == "mps" else like.device
