"""Shapes of tensor arguments: a decorator that checks them, and numbers in place of tensors."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def expanded_like(value: float | Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A number, or a tensor, in the shape of another tensor and on its device.

    Numbers are filled in on the device: a tensor made of one there would be transferred.
    """
    if isinstance(value, Tensor):
        return value.to(device=like.device, dtype=dtype).expand_as(like)
    return torch.full_like(like, value, dtype=dtype)


def shapes(**expected: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check the shapes of tensor arguments against patterns such as ``"n ..."``.

    Parameters
    ----------
    **expected : str
        For each argument the names of its axes. A name has the same size wherever it occurs, and
        "..." is any number of axes, the same wherever it occurs. Arguments
        that are not tensors, such as None, are not checked.

    Returns
    -------
    decorator : callable
        The function it returns raises a ValueError that names the argument and both shapes.

    Examples
    --------
    >>> import torch
    >>> from skboundary.functional._shapes import shapes
    >>> @shapes(x="n ...", source="n")
    ... def count(x, source):
    ...     return len(x)
    >>> count(torch.zeros(3, 2), torch.zeros(4))
    Traceback (most recent call last):
    ...
    ValueError: source has shape (4,), expected (n,) = (3,) as x has shape (3, 2).
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = list(inspect.signature(function).parameters)
        places = [(name, names.index(name), axes.split()) for name, axes in expected.items()]

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            sizes: dict[str, tuple[tuple[int, ...], str, Tensor]] = {}
            for name, place, axes in places:
                value = args[place] if place < len(args) else kwargs.get(name)
                if isinstance(value, Tensor):
                    _match(name, value, axes, sizes)
            return function(*args, **kwargs)

        return checked

    return decorate


def _match(
    name: str, value: Tensor, axes: list[str], sizes: dict[str, tuple[tuple[int, ...], str, Tensor]]
) -> None:
    """Bind the axes of one argument, or raise where they contradict an earlier one."""
    shape, n = tuple(value.shape), len(axes)
    if "..." in axes:
        dots = axes.index("...")
        last = len(shape) - (n - dots - 1)
        parts = [(s,) for s in shape[:dots]] + [shape[dots:last]] + [(s,) for s in shape[last:]]
        fits = last >= dots
    else:
        parts, fits = [(s,) for s in shape], len(shape) == n
    if not fits:
        raise ValueError(f"{name} has shape {shape}, expected {_tuple_of(axes)}.")
    for axis, part in zip(axes, parts, strict=True):
        known, other, tensor = sizes.setdefault(axis, (part, name, value))
        if known != part:
            sized = [str(size) for a in axes for size in (sizes[a][0] if a in sizes else [a])]
            raise ValueError(
                f"{name} has shape {shape}, expected {_tuple_of(axes)} = {_tuple_of(sized)} as "
                f"{other} has shape {tuple(tensor.shape)}."
            )


def _tuple_of(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
