"""Common base of all networks: batches, validation of the outputs, order of the classes."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from torch import Tensor

from skboundary._batching import joined, map_batches, resolve_batch_size
from skboundary._device import move, to_tensor
from skboundary._sample_array import SampleArray


class BatchedNetwork(ABC):
    """A `Network` that computes its outputs batch by batch.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)
        Classes in the order of the outputs; None is ``np.arange(n_outputs)``.
    device : torch.device
    dtype, input_dtype, compute_dtype : torch.dtype
        Dtypes of the outputs, of points that a search moves, and of the computation.
    batch_size : "auto" or int
    verbose : int
    """

    def __init__(
        self,
        *,
        classes: Any,
        device: torch.device,
        dtype: torch.dtype,
        input_dtype: torch.dtype,
        compute_dtype: torch.dtype,
        batch_size: Any,
        verbose: int,
    ) -> None:
        self._given = None if classes is None else np.asarray(classes)
        self.device, self.batch_size, self.verbose = device, batch_size, verbose
        self.dtype, self.input_dtype, self.compute_dtype = dtype, input_dtype, compute_dtype
        self.classes_: NDArray[Any] = np.empty(0)
        self.n_latent = 0
        self.order: list[int] = []
        self._is_sorted = True

    is_module: bool

    @property
    @abstractmethod
    def name(self) -> str:
        """Class of the classifier or module, for messages."""

    @abstractmethod
    def labels(self, X: Any) -> Tensor:
        """Positions (n_samples,) in `classes_` of what `predict` returns."""

    @abstractmethod
    def digest(self, memory_key: str | None = None) -> str:
        """Digest of all that the outputs depend on besides X; see `Network.digest`."""

    @abstractmethod
    def _begin(self, first: Callable[[], Any], latent: bool) -> None:
        """Prepare for batches; `first` returns two samples, or one if there is only one."""

    @abstractmethod
    def _forward(
        self, samples: Any, latent: bool, logits: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Latent vectors (n, n_latent) and logits (n, n_outputs) of a batch, if requested."""

    def latent(self, X: Any, bar: Any = None) -> Tensor:
        """Latent vectors (n_samples, n_latent)."""
        return self.finish(self.compute(X, ["latent"], bar=bar), ["latent"])[0]

    def logits(self, X: Any, index: NDArray[np.intp] | None = None) -> Tensor:
        """Logits (n_samples, n_classes), of the samples at `index` if given."""
        return self.finish(self.compute(X, ["logits"], index), ["logits"])[0]

    def latent_and_logits(
        self, X: Any, bar: Any = None, index: NDArray[np.intp] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        names = ["latent", "logits"]
        latent, logits = self.finish(self.compute(X, names, index, bar), names)
        return latent, logits

    def snapshot(self) -> BatchedNetwork:
        """Return the network itself: it has no state to fix."""
        return self

    @torch.inference_mode(False)
    def compute(
        self,
        X: Any,
        names: list[str],
        index: NDArray[np.intp] | None = None,
        bar: Any = None,
    ) -> list[Tensor]:
        """Compute the outputs in `names`; see `batches`."""
        return joined(
            self.batches(X, names, index, bar), X.shape[0] if index is None else len(index)
        )

    @torch.inference_mode(False)
    def batches(
        self,
        X: Any,
        names: list[str],
        index: NDArray[np.intp] | None = None,
        bar: Any = None,
    ) -> Iterator[list[Tensor]]:
        """Yield the outputs in `names` ("latent", "logits"), with columns as in the classifier.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        names : list of str
        index : ndarray of shape (n,), default=None
            Positions of the samples in X; None selects all.
        bar : object, default=None
            See `map_batches`.

        Yields
        ------
        outputs : list of Tensor
            One per name, of the samples of a batch, on the CPU.
        """
        latent, logits = "latent" in names, "logits" in names
        n = X.shape[0] if index is None else len(index)

        def pick(part: slice) -> Any:
            where = part if index is None else index[part]
            is_array = isinstance(X, (np.ndarray, SampleArray))
            return X[where] if is_array else _safe_indexing(X, where)

        self._begin(lambda: pick(slice(0, 2)), latent)
        size = self._samples_per_batch(X)

        widths: list[int] = []  # of the first batch

        def step(part: slice) -> list[Tensor]:
            both = self._forward(pick(part), latent, logits)
            out = move([t for t in both if t is not None], torch.device("cpu"))
            number = np.arange(part.start, part.stop) if index is None else index[part]
            for t in out:
                self._check(t, X, number)
            widths[:] = widths or [t.shape[1] for t in out]
            for t, width in zip(out, widths, strict=True):
                if t.shape[1] != width:
                    raise ValueError(
                        f"{self.name} gives {t.shape[1]} outputs per sample for the batch from "
                        f"sample {number[0]} of X on, and {width} for the first batch."
                    )
            return out

        yield from map_batches(step, n, size, verbose=self.verbose, desc="network", bar=bar)

    def n_batches(self, X: Any) -> int:
        """Number of batches in a pass over samples (n_samples, ...), if memory suffices."""
        return -(-X.shape[0] // self._samples_per_batch(X))

    def _samples_per_batch(self, X: Any) -> int:
        sample_bytes = int(np.prod(X.shape[1:])) * self.dtype.itemsize
        return resolve_batch_size(self.batch_size, sample_bytes, self.device)

    def finish(self, outputs: list[Tensor], names: list[str]) -> list[Tensor]:
        """Store the numbers of latent features and classes, and sort the columns of the logits."""
        if "latent" in names:
            self.n_latent = outputs[0].shape[1]
        if "logits" in names:
            outputs[-1] = self._sorted(outputs[-1])
        return outputs

    def _check(self, output: Tensor, X: Any, number: NDArray[np.intp]) -> None:
        """Raise a ValueError for outputs that are not one per sample, or not finite."""
        if len(output) != len(number):
            raise ValueError(
                f"{self.name} gives {len(output)} outputs for a batch of {len(number)}, from "
                f"sample {number[0]} of X on; a classifier gives one per sample."
            )
        if output.sum().isfinite():  # one pass; a sum of finite numbers may overflow
            return
        finite = output.isfinite()
        if finite.all():
            return
        finite = finite.flatten(1).all(1)
        first = int((~finite).nonzero()[0, 0])
        what = "NaN" if output[first].isnan().any() else "infinity"
        message = f"{self.name} gives {what} for sample {number[first]} of X."
        if not hasattr(X, "columns"):
            limit = torch.finfo(self.compute_dtype).max
            largest = to_tensor(_safe_indexing(X, number[[first]])).double().abs().max().item()
            if largest > limit:
                message += (
                    f" The sample contains {largest:.4g}, above the maximum {limit:.4g} of "
                    f"{self.compute_dtype}: scale X, or use a network of a wider dtype."
                )
        raise ValueError(message)

    def _learn_classes(self, n_outputs: int) -> None:
        """Set `classes_`, once the number of outputs is known; later it may not change."""
        if len(self.order):
            if n_outputs != len(self.order):
                raise ValueError(
                    f"{self.name} gives {n_outputs} outputs per sample, but gave "
                    f"{len(self.order)} before; a classifier gives one for each of its classes."
                )
            return
        given = np.arange(n_outputs) if self._given is None else self._given
        if len(given) != n_outputs:
            raise ValueError(
                f"The network has {n_outputs} outputs, but there are {len(given)} classes: "
                f"{given[:10].tolist()}. Give FrozenNetwork(classes=...) one class per output, or "
                "change the network's last layer."
            )
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise ValueError(
                f"classes={given.tolist()} contains NaN or infinity. Give each output a class."
            )
        if len(set(given.tolist())) != n_outputs:
            raise ValueError(
                f"classes={given.tolist()} contains duplicates. Give each output its own class."
            )
        self.order = np.argsort(given, kind="stable").tolist()
        self.classes_ = given[self.order]
        self._is_sorted = self.order == list(range(n_outputs))

    def _sorted(self, logits: Tensor) -> Tensor:
        """Sort the columns in the order of `classes_`."""
        self._learn_classes(logits.shape[1])
        return logits if self._is_sorted else logits[:, self.order]
