"""A decorator that caches the outputs of a network on disk."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing
from torch import Tensor

from skboundary._device import to_numpy
from skboundary.networks._batched import BatchedNetwork
from skboundary.networks._sample_store import SampleStore


class CachedNetwork:
    """A network with an on-disk cache of its outputs; other attributes are those of the network.

    Parameters
    ----------
    network : BatchedNetwork
    folder : Path
        Contains one folder per key.
    memory_key : str, default=None
        See `LatentTransformer`.
    key : str, default=None
        Key of the network. None computes the digest in each call, because weights, attributes
        and globals may change between calls.
    """

    def __init__(
        self,
        network: BatchedNetwork,
        folder: Path,
        memory_key: str | None = None,
        key: str | None = None,
    ) -> None:
        self.network, self.folder, self.memory_key, self.key = network, folder, memory_key, key
        self._warned: set[str] = set()  # warnings already issued about the folder

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "network" not in self.__dict__:  # copied or unpickled
            raise AttributeError(name)
        return getattr(self.network, name)

    @property
    def batch_size(self) -> Any:
        return self.network.batch_size

    @batch_size.setter
    def batch_size(self, value: Any) -> None:
        self.network.batch_size = value

    @property
    def verbose(self) -> int:
        return self.network.verbose

    @verbose.setter
    def verbose(self, value: int) -> None:
        self.network.verbose = value

    def latent(self, X: Any, bar: Any = None) -> Tensor:
        """Latent vectors (n_samples, n_latent)."""
        return self._through(X, None, ["latent"], bar)[0]

    def logits(self, X: Any, index: NDArray[np.intp] | None = None) -> Tensor:
        """Logits (n_samples, n_classes), of the samples at `index` if given."""
        return self._through(X, index, ["logits"], None)[0]

    def latent_and_logits(
        self, X: Any, bar: Any = None, index: NDArray[np.intp] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both in one pass."""
        latent, logits = self._through(X, index, ["latent", "logits"], bar)
        return latent, logits

    def labels(self, X: Any) -> Tensor:
        """Positions (n_samples,) in `classes_` of what `predict` returns; of a module, cached."""
        return self.logits(X).argmax(1) if self.network.is_module else self.network.labels(X)

    def snapshot(self) -> CachedNetwork:
        """Return a copy with the key of the current weights and code."""
        key = self.network.digest(self.memory_key)
        snapshot = CachedNetwork(self.network, self.folder, self.memory_key, key)
        snapshot._warned = self._warned
        return snapshot

    @torch.inference_mode(False)
    def _through(
        self, X: Any, index: NDArray[np.intp] | None, names: list[str], bar: Any
    ) -> list[Tensor]:
        key = self.network.digest(self.memory_key) if self.key is None else self.key
        position = np.arange(X.shape[0]) if index is None else index
        arrays = SampleStore(self.folder / key, self._warned).through(
            X if index is None else _safe_indexing(X, index),
            names,
            lambda new: (
                [to_numpy(t) for t in outputs]
                for outputs in self.network.batches(X, names, position[new], bar)
            ),
        )
        return self.network.finish([torch.from_numpy(array) for array in arrays], names)
