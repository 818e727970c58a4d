"""Activations of one layer of a network, recorded by forward hooks."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import difflib
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from torch import Tensor, nn

from skboundary._plain import storable

Layer = str | int | Callable[[nn.Module, Any], Tensor]
Run = Callable[[nn.Module, Any], Any]


@storable
class Tap(NamedTuple):
    """An activation: a submodule, its input or output, and the number of the call in a pass."""

    name: str
    side: str
    call: int


class _StopForward(Exception):
    """Raised to stop the forward pass early."""


def first_tensor(value: Any) -> Tensor:
    """First tensor of the output of a module: a tensor, or nested sequences and mappings."""
    found = next(tensors_in(value), None)
    if found is None:
        raise TypeError(f"A layer returned {type(value).__name__}, which contains no tensor.")
    return found


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in([*value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)


def begins_with_embedding(module: nn.Module, x: Tensor) -> bool:
    """Whether the first leaf module with weights that `x` reaches is an `nn.Embedding`."""
    reached: list[nn.Module] = []

    def stop(layer: nn.Module, _: Any) -> None:
        reached.append(layer)
        raise _StopForward

    with ExitStack() as hooks, suppress(_StopForward):
        for layer in module.modules():
            if not any(layer.children()) and any(True for _ in layer.parameters()):
                hooks.callback(layer.register_forward_pre_hook(stop).remove)
        module(x)
    return isinstance(reached[0], (nn.Embedding, nn.EmbeddingBag)) if reached else False


def find_tap(
    module: nn.Module, layer: Layer, x: Any, run: Run = operator.call
) -> tuple[Tap | None, Tensor, Tensor]:
    """Run `x` and determine the activation that `layer` refers to.

    Which layer runs last, and how often a layer runs, depends on the control flow of the network,
    so it is determined in a forward pass. Activations that `layer` may still refer to are stored:
    one, or for a negative integer that many.

    Parameters
    ----------
    module : nn.Module
    layer : {"auto"}, str, int or callable
        As in `LatentTransformer`.
    x : Tensor of shape (n, ...), or what `run` takes
    run : callable, default=operator.call
        Passes `x` to the module.

    Returns
    -------
    tap : Tap or None
        None for a callable.
    latent : Tensor of shape (n, ...)
    output : Tensor of shape (n, ...)

    Raises
    ------
    ValueError
        If `layer` does not exist.
    """
    if not isinstance(layer, (str, int)):
        return None, layer(module, x), first_tensor(run(module, x))
    modules = dict(module.named_modules())
    name, side = _parse(layer, modules)
    leaves: list[Tap] = []  # in the order in which their calls end
    caught: dict[Tap, Tensor] = {}
    calls: Counter[str] = Counter()
    most = -layer if isinstance(layer, int) and layer < 0 else 1

    def keep(tap: Tap, value: Any) -> None:
        if len(caught) == most:
            del caught[next(iter(caught))]
        caught[tap] = first_tensor(value).clone()

    def enter(key: str, is_leaf: bool) -> Callable[..., None]:
        wanted = key == name and side == "input"
        wanted |= layer == "auto" and is_leaf and _is_linear(modules[key])

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[key] += 1
            if wanted and (args or kwargs):
                keep(Tap(key, "input", calls[key]), [*args, *kwargs.values()])

        return hook

    def leave(key: str, is_leaf: bool) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            tap, wanted = Tap(key, "output", calls[key]), key == name and side == "output"
            if is_leaf:
                wanted |= isinstance(layer, int) and (layer < 0 or layer == len(leaves))
                leaves.append(tap)
            if wanted:
                keep(tap, output)

        return hook

    with ExitStack() as hooks:
        for key, sub in modules.items():
            is_leaf = not any(sub.children())
            before, after = enter(key, is_leaf), leave(key, is_leaf)
            hooks.callback(sub.register_forward_pre_hook(before, with_kwargs=True).remove)
            hooks.callback(sub.register_forward_hook(after).remove)
        output = first_tensor(run(module, x))
    if isinstance(layer, int):
        tap = _leaf_at(layer, leaves)
    elif layer == "auto":
        tap = _last_input([t for t in leaves if _is_linear(modules[t.name])], leaves)
    else:
        tap = _last_call(layer, name, side, calls[name], leaves)
    return tap, caught[tap], output


def _last_call(layer: str, name: str, side: str, calls: int, leaves: list[Tap]) -> Tap:
    """The last call of a named module."""
    if not calls:
        raise ValueError(
            f"layer={layer!r} does not run in the forward pass. "
            f"Layers that do: {', '.join(dict.fromkeys(t.name for t in leaves))}."
        )
    return Tap(name, side, calls)


def _last_input(linear: list[Tap], leaves: list[Tap]) -> Tap:
    """The input of the last of the linear layers."""
    if not linear:
        raise ValueError(
            "layer='auto' is the input of the last nn.Linear, but this network runs none. "
            f"Name a layer ({', '.join(t.name for t in leaves[-5:] if t.name)}) or give a "
            "callable that takes the module and a batch."
        )
    return linear[-1]._replace(side="input")


def _leaf_at(position: int, leaves: list[Tap]) -> Tap:
    """The output of a leaf module, counted in execution order."""
    if not -len(leaves) <= position < len(leaves):
        raise ValueError(
            f"layer={position} is out of range: the network runs {len(leaves)} leaf modules, "
            f"so layer goes from {-len(leaves)} to {len(leaves) - 1}."
        )
    return leaves[position]


def run_tapped(
    module: nn.Module,
    layer: Layer,
    tap: Tap | None,
    x: Any,
    *,
    logits: bool,
    run: Run = operator.call,
) -> tuple[Tensor, Tensor | None]:
    """Run a batch and return the activation that `find_tap` found.

    Parameters
    ----------
    module : nn.Module
    layer : str, int or callable
    tap : Tap or None
        As returned by `find_tap`.
    x : Tensor of shape (n, ...), or what `run` takes
    logits : bool
        False stops the pass once the latent vectors are computed.
    run : callable, default=operator.call
        As in `find_tap`.

    Returns
    -------
    latent : Tensor of shape (n, ...)
    output : Tensor of shape (n, ...) or None
    """
    if tap is None:
        assert callable(layer)
        return layer(module, x), first_tensor(run(module, x)) if logits else None
    caught: list[Tensor] = []
    calls = 0

    def catch(value: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == tap.call:
            # a later in-place layer would modify the tensor, so keep a copy
            caught.append(first_tensor(value).clone() if logits else first_tensor(value))
            if not logits:
                raise _StopForward

    sub, output = module.get_submodule(tap.name), None
    before = lambda _, args, kwargs: catch([*args, *kwargs.values()])
    after = lambda _, args, output: catch(output)
    with ExitStack() as hooks, suppress(_StopForward):
        if tap.side == "input":
            hooks.callback(sub.register_forward_pre_hook(before, with_kwargs=True).remove)
        else:
            hooks.callback(sub.register_forward_hook(after).remove)
        output = first_tensor(run(module, x))
    if not caught:
        raise RuntimeError(f"Layer {tap.name!r} ran {calls} times in a pass, not {tap.call}.")
    return caught[0], output


def flatten_latent(latent: Tensor, pool: str | None) -> Tensor:
    """Flatten feature maps to (n, n_latent), after averaging over space if `pool` is "avg"."""
    if pool == "avg" and latent.ndim > 2:
        latent = latent.flatten(2).mean(2)
    return latent.flatten(1) if latent.ndim > 1 else latent[:, None]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _parse(layer: str | int, modules: dict[str, nn.Module]) -> tuple[str, str]:
    """Split "name" or "name:input"; raise a ValueError if there is no such submodule."""
    if isinstance(layer, int) or layer == "auto":
        return "", ""
    name, _, side = layer.partition(":")
    if name in modules and name and side in ("", "input"):
        return name, side or "output"
    names = [n for n in modules if n]
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[:10]
    raise ValueError(
        f"layer={layer!r} is not a layer of this network (a name, or 'name:input'). "
        f"Closest names: {', '.join(near)}."
    )
