"""DeepDIG: autoencoders that generate adversarial samples across a boundary, and back."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from skboundary.functional._shapes import shapes

__all__ = [
    "Training",
    "autoencoder",
    "generate",
    "reconstruction_loss",
    "target_loss",
    "train_autoencoders",
]

_WINDOW = 25  # steps whose batches together estimate a success rate
_GROWTH = 0.005  # least growth of a success rate that counts: about its standard error


class Training(NamedTuple):
    """How the training of m autoencoders ended, (m,) each."""

    n_steps: Tensor
    reached: Tensor  # share of the last batches that was predicted as the target


def autoencoder(sample_shape: Sequence[int]) -> nn.Module:
    """Build the autoencoder of DeepDIG [1]_ for samples of a shape, with values in [0, 1].

    Vectors and gray images: dense layers of 100, 50 and as many units as a sample has elements.
    Images (channels, height, width) of several channels: three convolutions to 12, 24 and 48
    channels with kernels of 4, and their mirror image.

    Parameters
    ----------
    sample_shape : sequence of int
        Shape of one sample.

    Returns
    -------
    module : Module
        From `(n, *sample_shape)` to the same shape.

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.

    Examples
    --------
    >>> import torch
    >>> autoencoder((3, 16, 16))(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """
    if len(sample_shape) == 3 and sample_shape[0] > 1 and min(sample_shape[1:]) > 3:
        widths = [sample_shape[0], 12, 24, 48]
        down = [nn.Conv2d(a, b, 4, padding=1) for a, b in itertools.pairwise(widths)]
        up = [nn.ConvTranspose2d(b, a, 4, padding=1) for a, b in itertools.pairwise(widths)]
        layers: list[nn.Module] = [*down, *up[::-1]]
    else:
        size = math.prod(sample_shape)
        layers = [nn.Linear(size, 100), nn.Linear(100, 50), nn.Linear(50, size)]
    parts = [part for layer in layers[:-1] for part in (layer, nn.ReLU())]
    parts += [layers[-1], nn.Sigmoid()]
    if isinstance(layers[0], nn.Linear):
        parts = [nn.Flatten(), *parts, nn.Unflatten(1, tuple(sample_shape))]
    return nn.Sequential(*parts)


@shapes(output="n ...", x="n ...")
def reconstruction_loss(output: Tensor, x: Tensor) -> Tensor:
    """Compute the binary cross-entropy of each output against the sample it reconstructs.

    Parameters
    ----------
    output, x : Tensor of shape (n, ...)
        Values in [0, 1].

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over the elements of a sample, the first term of DeepDIG's losses [1]_.

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.
    """
    loss = nn.functional.binary_cross_entropy(output, x, reduction="none")
    return loss.flatten(1).mean(1)


@shapes(logits="n c", target="n")
def target_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the binary cross-entropy of softmax probabilities against the one-hot target.

    Element by element, ``-(log p_t + sum of log(1 - p_k) over the others) / n_classes``: the
    second term of DeepDIG's losses [1]_. It decreases every other class, which the categorical
    cross-entropy does not. Probabilities near 1 keep their gradient.

    Parameters
    ----------
    logits : Tensor of shape (n, n_classes)
    target : Tensor of shape (n,), dtype int64

    Returns
    -------
    loss : Tensor of shape (n,)
        Mean over the classes.

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.
    """
    log_p = logits.log_softmax(1)
    top = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, logits.argmax(1, True), True)
    # 1 - p of the largest p would cancel: it is the sum of the others
    rest = logits.masked_fill(top, -torch.inf).logsumexp(1) - logits.logsumexp(1)
    log_not = torch.where(top, rest[:, None], torch.log1p(-log_p.exp().masked_fill(top, 0)))
    wanted = torch.zeros_like(top).scatter_(1, target[:, None], True)
    return -torch.where(wanted, log_p, log_not).mean(1)


@torch.enable_grad()
@shapes(targets="m")
def train_autoencoders(
    autoencoders: Sequence[nn.Module],
    logits: Callable[[Tensor], Tensor],
    x: Tensor,
    members: Sequence[Tensor],
    targets: Tensor,
    rngs: Sequence[torch.Generator],
    *,
    low: float | Tensor = 0.0,
    high: float | Tensor = 1.0,
    alpha: float = 0.8,
    lr: float = 0.01,
    batch_size: int = 128,
    max_iter: int = 5000,
    patience: int | None = 4,
) -> Training:
    """Train autoencoders in one batch, one for each ordered pair of classes.

    DeepDIG's losses L_I and L_II [1]_, which differ in the samples only (real ones of a class, or
    adversarial ones that the first autoencoder generated): ``L = BCE(A(x), x) + alpha
    BCE(softmax C(A(x)), onehot(t))``, both means over all elements, for a frozen classifier C.
    Adam, whose rate is multiplied by .95 every 1000 steps; batches are drawn without replacement
    afresh each step. Each autoencoder ends as if it were trained alone.

    Parameters
    ----------
    autoencoders : sequence of Module, length m
        Modules of one architecture with inputs and outputs in [0, 1], without batch statistics
        or dropout; on the device of x and in its dtype. Trained in place.
    logits : callable
        From points (b, ...) to logits (b, n_classes), differentiable.
    x : Tensor of shape (n, ...)
    members : sequence of Tensor, length m
        Indices of the samples that each autoencoder is trained on.
    targets : Tensor of shape (m,), dtype int64
        The target class of each autoencoder.
    rngs : sequence of torch.Generator, length m
        Each draws the batches of one autoencoder. On the CPU.
    low, high : float or Tensor that broadcasts to a sample, default=0.0 and 1.0
        Bounds of x, in its units, scaled to [0, 1] for the autoencoders; values outside are
        clipped.
    alpha : float, default=0.8
        Weight of the classifier's part of the loss.
    lr : float, default=0.01
    batch_size : int, default=128
        All members, if there are fewer.
    max_iter : int, default=5000
        The paper's number of steps.
    patience : int, default=4
        Training stops when the success rate, the share of outputs that are predicted as the
        target, has not grown for this many times 25 steps; an autoencoder that has never reached
        its target continues. None trains `max_iter` steps.

    Returns
    -------
    training : Training

    References
    ----------
    .. [1] H. Karimi, T. Derr, J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_, losses L_I and L_II.
    """
    params, buffers = stack_module_state(list(autoencoders))
    optimizer = torch.optim.Adam(params.values(), lr=lr)
    sizes = torch.tensor([min(batch_size, len(m)) for m in members], device=x.device)
    width = int(sizes.max())
    weights = (torch.arange(width, device=x.device) < sizes[:, None]) / sizes[:, None]
    progress = _Progress(sizes, x.dtype, patience)
    active = torch.arange(len(autoencoders), device=x.device)

    def forward(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(autoencoders[0], (params, buffers), (x,))

    for step in range(1, max_iter + 1):
        index = torch.stack([_draw(members[i], rngs[i], width) for i in active.tolist()])
        batch = _to_unit(x[index.to(x.device)], low, high)
        output = torch.vmap(forward)(params, buffers, batch).flatten(0, 1)
        out = logits(_from_unit(output, low, high))
        target = targets[active].repeat_interleave(width)
        loss = reconstruction_loss(output, batch.flatten(0, 1)) + alpha * target_loss(out, target)
        weight = weights[active].to(x.dtype)
        optimizer.zero_grad()
        (weight * loss.unflatten(0, weight.shape)).sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.95 ** ((step - 1) // 1000)
        optimizer.step()

        hits = (out.detach().argmax(1) == target).unflatten(0, weight.shape)
        progress.add(active, (weight * hits).sum(1), step)
        if step % _WINDOW and step < max_iter:
            continue
        finished = progress.has_stopped(active, step) | (step == max_iter)
        if not finished.any():
            continue
        for place in finished.nonzero()[:, 0].tolist():
            _write(autoencoders[int(active[place])], params, place)
        kept = (~finished).nonzero()[:, 0]
        active = active[kept]
        if not len(active):
            break
        buffers = {name: buffer[kept] for name, buffer in buffers.items()}
        params, optimizer = _keep(params, optimizer, kept)
    return Training(progress.n_steps, progress.reached)


class _Progress:
    """Success rates of m autoencoders over windows of steps, and which have stopped growing."""

    def __init__(self, sizes: Tensor, dtype: torch.dtype, patience: int | None) -> None:
        self.patience = patience
        self.n_steps, self._stale = torch.zeros_like(sizes), torch.zeros_like(sizes)
        self.reached = torch.zeros(len(sizes), dtype=dtype, device=sizes.device)
        self._best, self._window = torch.zeros_like(self.reached), self.reached.clone()

    def add(self, active: Tensor, share: Tensor, step: int) -> None:
        """Count the share (a,) of a step's outputs that were predicted as the target."""
        self._window[active] += share / _WINDOW
        self.n_steps[active] = step

    def has_stopped(self, active: Tensor, step: int) -> Tensor:
        """Close a window: which of the active autoencoders (a,) are done."""
        self.reached[active] = self._window[active] * (_WINDOW / ((step - 1) % _WINDOW + 1))
        self._window.zero_()
        grown = self.reached > self._best + _GROWTH
        self._best = torch.where(grown, self.reached, self._best)
        self._stale = torch.where(grown | (self._best == 0), 0, self._stale + 1)
        if self.patience is None:
            return torch.zeros_like(grown)[active]
        return (self._stale >= self.patience)[active]


def generate(
    module: nn.Module, x: Tensor, *, low: float | Tensor = 0.0, high: float | Tensor = 1.0
) -> Tensor:
    """Generate samples with a trained autoencoder.

    Parameters
    ----------
    module : Module
    x : Tensor of shape (n, ...)
    low, high : float or Tensor that broadcasts to a sample, default=0.0 and 1.0
        As in `train_autoencoders`.

    Returns
    -------
    generated : Tensor of shape (n, ...)
        Within the bounds.
    """
    with torch.no_grad():
        return _from_unit(module(_to_unit(x, low, high)), low, high)


def _to_unit(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    width = torch.as_tensor(high - low, dtype=x.dtype, device=x.device)
    return ((x - low) / width.where(width > 0, 1)).clamp(0, 1)  # a constant column is 0


def _from_unit(x: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    return low + (high - low) * x


def _draw(members: Tensor, rng: torch.Generator, width: int) -> Tensor:
    """Samples of a batch, without replacement; the last ones repeat and have no weight."""
    drawn = torch.randperm(len(members), generator=rng)[:width].to(members.device)
    return members[nn.functional.pad(drawn, (0, width - len(drawn)))]


def _write(module: nn.Module, params: dict[str, Tensor], place: int) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(params[name][place])


def _keep(
    params: dict[str, Tensor], optimizer: torch.optim.Adam, kept: Tensor
) -> tuple[dict[str, Tensor], torch.optim.Adam]:
    """Keep some of the stacked autoencoders, and their state in Adam."""
    some = {name: p.detach()[kept].requires_grad_() for name, p in params.items()}
    smaller = torch.optim.Adam(some.values(), lr=optimizer.defaults["lr"])
    for name, p in params.items():
        state = optimizer.state[p]
        smaller.state[some[name]] = {
            key: value[kept] if value.ndim else value for key, value in state.items()
        }
    return some, smaller
