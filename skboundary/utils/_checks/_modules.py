"""The networks inside an estimator: finding them, and comparing their state."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def walk(value: Any) -> Iterator[Any]:
    """Yield an estimator, its parameters, and the fitted models inside it, at any depth."""
    yield value
    inside: Iterable[Any] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, (list, tuple)):
        inside = value
    elif hasattr(value, "get_params") and not isinstance(value, type):
        fitted = [getattr(value, name, None) for name in ("module_", "estimator_")]
        inside = [*value.get_params(deep=False).values(), *fitted]
    for item in inside:
        yield from walk(item)


def modules_of(estimator: Any) -> list[torch.nn.Module]:
    """List the networks inside an estimator, each once."""
    found = (held for held in walk(estimator) if isinstance(held, torch.nn.Module))
    return list({id(module): module for module in found}.values())


def module_state(modules: list[torch.nn.Module]) -> dict[str, Any]:
    """Collect everything that a user may have set in networks, keyed by description."""
    state: dict[str, Any] = {}
    for module in modules:
        for path, part in module.named_modules():
            where = f"{type(part).__name__} {path!r}"
            state[f"training flag of {where}"] = part.training
            hooks = [v for k, v in vars(part).items() if "hooks" in k and isinstance(v, dict)]
            state[f"number of hooks of {where}"] = [len(hook) for hook in hooks]
        for path, tensor in [*module.named_parameters(), *module.named_buffers()]:
            state[f"requires_grad of {path}"] = tensor.requires_grad
            state[f"device or dtype of {path}"] = (tensor.device, tensor.dtype)
            state[f"values of {path}"] = _to_bytes(tensor)
            state[f"gradient of {path}"] = None if tensor.grad is None else _to_bytes(tensor.grad)
    return state


def _to_bytes(tensor: torch.Tensor) -> bytes:
    if tensor.is_meta:
        return b""
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


@contextmanager
def unusual_flags(modules: list[torch.nn.Module]) -> Iterator[None]:
    """Mix the flags of networks, so that a flag that is not restored is detected."""
    parts = [part for module in modules for part in module.modules()]
    weights = [w for module in modules for w in module.parameters() if w.is_floating_point()]
    training = [part.training for part in parts]
    gradients = [(weight.requires_grad, weight.grad) for weight in weights]
    try:
        for i, part in enumerate(parts):
            part.training = i % 2 == 0
        for i, weight in enumerate(weights):
            weight.requires_grad_(i % 2 == 0)
            weight.grad = torch.ones_like(weight)
        yield
    finally:
        for part, flag in zip(parts, training, strict=True):
            part.training = flag
        for weight, (flag, gradient) in zip(weights, gradients, strict=True):
            weight.requires_grad_(flag)
            weight.grad = gradient


@contextmanager
def interrupted(module: torch.nn.Module) -> Iterator[None]:
    """Make a network fail after its first layer."""
    layer = next(part for part in module.modules() if not list(part.children()))
    hook = layer.register_forward_hook(_interrupt)
    try:
        yield
    finally:
        hook.remove()


def _interrupt(module: torch.nn.Module, args: Any, output: Any) -> None:
    raise RuntimeError("interrupted by check_module_untouched")
