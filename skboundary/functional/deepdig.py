"""DeepDIG's generators: autoencoders that carry a sample over the boundary, and back."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

_WINDOW = 25  # steps whose batches together estimate a yield
_GROWTH = 0.005  # what counts as growth of the yield: about its standard error


class Training(NamedTuple):
    """How the training of m generators ended, (m,) each."""

    n_steps: Tensor
    reached: Tensor  # share of the last batches that the classifier took for the target


def autoencoder(row_shape: Sequence[int]) -> nn.Module:
    """Build the autoencoder of the paper for rows of a shape, with values in [0, 1].

    Rows of numbers and gray images: dense layers of 100, 50 and as many numbers as a row has.
    Images (channels, height, width) of several channels: three convolutions to 12, 24 and 48
    channels with kernels of 4, and their mirror image.

    Parameters
    ----------
    row_shape : sequence of int
        Shape of one row.

    Returns
    -------
    module : Module
        From (n, *row_shape) to the same shape.

    Examples
    --------
    >>> import torch
    >>> autoencoder((3, 16, 16))(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """
    if len(row_shape) == 3 and row_shape[0] > 1 and min(row_shape[1:]) > 3:
        widths = [row_shape[0], 12, 24, 48]
        down = [nn.Conv2d(a, b, 4, padding=1) for a, b in itertools.pairwise(widths)]
        up = [nn.ConvTranspose2d(b, a, 4, padding=1) for a, b in itertools.pairwise(widths)]
        layers: list[nn.Module] = [*down, *up[::-1]]
    else:
        size = math.prod(row_shape)
        layers = [nn.Linear(size, 100), nn.Linear(100, 50), nn.Linear(50, size)]
    parts = [part for layer in layers[:-1] for part in (layer, nn.ReLU())]
    parts += [layers[-1], nn.Sigmoid()]
    if isinstance(layers[0], nn.Linear):
        parts = [nn.Flatten(), *parts, nn.Unflatten(1, tuple(row_shape))]
    return nn.Sequential(*parts)


def reconstruction_loss(output: Tensor, x: Tensor) -> Tensor:
    """Compute the binary cross-entropy of each row against the row that it shall resemble.

    Parameters
    ----------
    output, x : Tensor of shape (n, ...)
        Values in [0, 1].

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over the elements of a row.
    """
    loss = nn.functional.binary_cross_entropy(output, x, reduction="none")
    return loss.flatten(1).mean(1)


def target_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the binary cross-entropy of softmax probabilities against the one-hot target.

    Element by element, ``-(log p_t + sum of log(1 - p_k) over the others) / n_classes``: it
    pushes every other class down, which the categorical cross-entropy does not. Probabilities
    near 1 keep their gradient.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
    target : Tensor of shape (n,), dtype int64

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over the classes.
    """
    log_p = logits.log_softmax(1)
    top = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, True), True)
    # 1 - p of the largest p would cancel: it is the sum of the others
    rest = logits.masked_fill(top, -torch.inf).logsumexp(1) - logits.logsumexp(1)
    log_not = torch.where(top, rest[:, None], torch.log1p(-log_p.exp().masked_fill(top, 0)))
    wanted = torch.zeros_like(top).scatter_(1, target[:, None], True)
    return -torch.where(wanted, log_p, log_not).mean(1)


@torch.enable_grad()
def train_generators(
    modules: Sequence[nn.Module],
    classify: Callable[[Tensor], Tensor],
    rows: Tensor,
    members: Sequence[Tensor],
    targets: Tensor,
    generators: Sequence[torch.Generator],
    *,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    alpha: float = 0.8,
    lr: float = 0.01,
    batch_size: int = 128,
    max_iter: int = 5000,
    patience: int | None = 4,
) -> Training:
    """Train generators side by side, one for each ordered pair of classes.

    DeepDIG's losses L_I and L_II, which differ in the rows only (real samples of a class, or
    what the first generator made of them): ``L = BCE(A(x), x) + alpha BCE(softmax C(A(x)),
    onehot(t))``, both means over all elements, for a frozen classifier C. Adam, whose rate is
    multiplied by .95 every 1000 steps; batches drawn without replacement afresh each step.
    The generators do not see each other: each ends as if trained alone.

    Parameters
    ----------
    modules : sequence of Module, length m
        Of one architecture, values in [0, 1] in and out, without batch statistics or dropout;
        on the device of `rows` and in their dtype. Trained in place.
    classify : callable
        Differentiable logits (b, n_classes) of rows (b, ...).
    rows : Tensor of shape (n, ...)
    members : sequence of Tensor, length m
        Which rows each generator is trained on.
    targets : Tensor of shape (m,), dtype int64
        The class that each generator shall reach.
    generators : sequence of torch.Generator, length m
        Each draws the batches of one generator.
    low, high : float or Tensor that broadcasts to a row, default=0.0 and 1.0
        Bounds of the rows, brought to [0, 1] for the generators; values outside are clipped.
    alpha : float, default=0.8
        Weight of the classifier's part of the loss.
    lr : float, default=0.01
    batch_size : int, default=128
        Or all members, where there are fewer.
    max_iter : int, default=5000
        The paper's number of steps.
    patience : int, default=4
        A generator is done when its yield, the share of rows that reach the target, has not
        grown through so many times 25 steps; one that has never reached it goes on. None trains
        `max_iter` steps.

    Returns
    -------
    training : Training
    """
    params, buffers = stack_module_state(list(modules))
    optimizer = torch.optim.Adam(params.values(), lr=lr)
    sizes = torch.tensor([min(batch_size, len(m)) for m in members], device=rows.device)
    width = int(sizes.max())
    weights = (torch.arange(width, device=rows.device) < sizes[:, None]) / sizes[:, None]
    n_steps = torch.zeros_like(sizes)
    reached = torch.zeros(len(modules), dtype=rows.dtype, device=rows.device)
    best, stale, window = torch.zeros_like(reached), n_steps.clone(), reached.clone()
    active = torch.arange(len(modules), device=rows.device)

    def forward(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(modules[0], (params, buffers), (x,))

    for step in range(1, max_iter + 1):
        index = torch.stack([_draw(members[i], generators[i], width) for i in active.tolist()])
        x = _to_unit(rows[index.to(rows.device)], low, high)
        output = torch.vmap(forward)(params, buffers, x).flatten(0, 1)
        logits = classify(_from_unit(output, low, high))
        target = targets[active].repeat_interleave(width)
        loss = reconstruction_loss(output, x.flatten(0, 1)) + alpha * target_loss(logits, target)
        weight = weights[active].to(rows.dtype)
        optimizer.zero_grad()
        (weight * loss.unflatten(0, weight.shape)).sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.95 ** ((step - 1) // 1000)
        optimizer.step()

        hits = (logits.detach().argmax(1) == target).unflatten(0, weight.shape)
        window[active] += (weight * hits).sum(1) / _WINDOW
        n_steps[active] = step
        if step % _WINDOW and step < max_iter:
            continue
        reached[active] = window[active] * (_WINDOW / ((step - 1) % _WINDOW + 1))
        window.zero_()
        grown = reached > best + _GROWTH
        best = torch.where(grown, reached, best)
        stale = torch.where(grown | (best == 0), 0, stale + 1)
        done = torch.zeros_like(grown) if patience is None else stale >= patience
        done |= torch.full_like(done, step == max_iter)
        finished = done[active]
        if finished.any():
            for place in finished.nonzero()[:, 0].tolist():
                _write(modules[int(active[place])], params, place)
            kept = (~finished).nonzero()[:, 0]
            active = active[kept]
            if not len(active):
                break
            buffers = {name: buffer[kept] for name, buffer in buffers.items()}
            params, optimizer = _keep(params, optimizer, kept)
    return Training(n_steps, reached)


def generate(
    module: nn.Module, x: Tensor, *, low: float | Tensor = 0.0, high: float | Tensor = 1.0
) -> Tensor:
    """Run rows through a trained generator.

    Parameters
    ----------
    module : Module
    x : Tensor of shape (n, ...)
    low, high : float or Tensor that broadcasts to a row, default=0.0 and 1.0
        As in `train_generators`.

    Returns
    -------
    made : Tensor of shape (n, ...)
        Within the bounds.
    """
    with torch.no_grad():
        return _from_unit(module(_to_unit(x, low, high)), low, high)


def _to_unit(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    width = torch.as_tensor(high - low, dtype=x.dtype, device=x.device)
    return ((x - low) / width.where(width > 0, 1)).clamp(0, 1)  # a constant column is 0


def _from_unit(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    return low + (high - low) * x


def _draw(members: Tensor, generator: torch.Generator, width: int) -> Tensor:
    """Rows of a batch, without replacement; the last ones repeat and weigh nothing."""
    drawn = torch.randperm(len(members), generator=generator)[:width].to(members.device)
    return members[nn.functional.pad(drawn, (0, width - len(drawn)))]


def _write(module: nn.Module, params: dict[str, Tensor], place: int) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(params[name][place])


def _keep(
    params: dict[str, Tensor], optimizer: torch.optim.Adam, kept: Tensor
) -> tuple[dict[str, Tensor], torch.optim.Adam]:
    """Go on with some of the stacked generators, and with what Adam knows of them."""
    some = {name: p.detach()[kept].requires_grad_() for name, p in params.items()}
    smaller = torch.optim.Adam(some.values(), lr=optimizer.defaults["lr"])
    for name, p in params.items():
        state = optimizer.state[p]
        smaller.state[some[name]] = {
            key: value[kept] if value.ndim else value for key, value in state.items()
        }
    return some, smaller
