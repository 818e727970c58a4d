"""FrozenNetwork: a trained torch module as an already fitted scikit-learn classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import copy
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from skboundary._runtime import check_input, resolve_device, to_numpy
from skboundary.networks._torch_model import TorchModel
from skboundary.networks._view import NetworkView


class FrozenNetwork(ClassifierMixin, BaseEstimator):
    """A trained `torch.nn.Module` as an already fitted classifier.

    The module is used as it is: never refitted, never changed, never copied by
    :func:`sklearn.base.clone` (a clone is a new shell around the same module, so a grid search
    copies no weights). It runs in evaluation mode and gets its flags back afterwards.

    Read more in the :ref:`User Guide <networks>`.

    Parameters
    ----------
    module : torch.nn.Module
        Takes a batch and gives logits of shape (n, n_classes), or one logit for two classes.
        Of a tuple or mapping the first tensor is taken.
    classes : array-like of shape (n_classes,), default=None
        The class of each output, in the order of the outputs. None means 0 to n_outputs - 1.
    preprocess : callable, default=None
        From tensor to tensor, run on every batch before the module; a normalisation, for
        instance. It is a part of the network: bounds and gradients speak of the raw X.
    output : {"logits", "proba"}, default="logits"
        What the module ends in. "proba" stands for softmax or sigmoid.
    device : str or torch.device, default="auto"
        "auto" keeps a module on the accelerator where it is, else takes the best device there
        is. A copy of the module runs where it has to be moved.
    batch_size : "auto" or int, default="auto"
        Rows in a batch; "auto" is bounded by memory. Halved when memory runs out.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted; columns of every method follow it. With ``classes=None`` it is known as soon
        as a row has run (`fit` runs one).

    See Also
    --------
    LatentTransformer : The activations of one layer as features.
    sklearn.frozen.FrozenEstimator : The same for a fitted scikit-learn estimator.

    Examples
    --------
    >>> import torch
    >>> from skboundary import FrozenNetwork
    >>> net = torch.nn.Linear(2, 2)
    >>> with torch.no_grad():
    ...     _ = net.weight.copy_(torch.eye(2)), net.bias.zero_()
    >>> FrozenNetwork(net, classes=["up", "down"]).predict([[2.0, 1.0], [0.0, 3.0]])
    array(['up', 'down'], dtype='<U4')
    """

    _parameter_constraints: dict[str, Any] = {
        "module": [nn.Module],
        "classes": ["array-like", None],
        "preprocess": [callable, None],
        "output": [StrOptions({"logits", "proba"})],
        "device": [str, torch.device],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        module: nn.Module,
        *,
        classes: Any = None,
        preprocess: Any = None,
        output: str = "logits",
        device: Any = "auto",
        batch_size: Any = "auto",
    ) -> None:
        self.module = module
        self.classes = classes
        self.preprocess = preprocess
        self.output = output
        self.device = device
        self.batch_size = batch_size

    def fit(self, X: Any, y: Any = None) -> FrozenNetwork:
        """Do nothing but run one row, which tells the number of outputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : ignored

        Returns
        -------
        self : FrozenNetwork
        """
        self._logits(X, first=True)
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted class labels."""
        if self.classes is not None:
            return np.unique(np.asarray(self.classes))
        if not hasattr(self, "_classes"):
            raise AttributeError(
                "FrozenNetwork(classes=None) knows classes_ once a row has run: call fit or "
                "predict first, or give classes."
            )
        return self._classes

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Compute raw logits, whatever the module ends in.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes the logit of the second minus that of the first.
        """
        logits = to_numpy(self._logits(X)[1])
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Compute softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
        """
        view, logits = self._logits(X)
        return to_numpy(view.proba(logits))

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the class with the largest logit.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        view, logits = self._logits(X)
        return view.classes_[to_numpy(logits.argmax(1))]

    def _logits(self, X: Any, first: bool = False) -> tuple[NetworkView, torch.Tensor]:
        self._validate_params()
        X = check_input(self, X, reset=True)
        view = NetworkView(
            self._model("auto", None, self.device), classes=self.classes, batch_size=self.batch_size
        )
        logits = view.logits(X[:1] if first else X)
        self._classes = view.classes_
        return view, logits

    def _model(self, layer: Any, pool: str | None, device: Any) -> TorchModel:
        """Make the model that a view streams rows through; a host's device goes first."""
        wanted = self.device if device == "auto" else device
        return TorchModel(
            self.module,
            layer=layer,
            pool=pool,
            device=resolve_device(wanted, self.module),
            output=self.output,
            preprocess=self.preprocess,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> FrozenNetwork:
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        for key in ("module", "preprocess"):  # a pickle opens without an accelerator
            part = state[key]
            if isinstance(part, nn.Module) and any(
                t.device.type != "cpu" for t in [*part.parameters(), *part.buffers()]
            ):
                state[key] = copy.deepcopy(part).cpu()
        return state
