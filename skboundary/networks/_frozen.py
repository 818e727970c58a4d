"""FrozenNetwork: a trained torch module as an already fitted scikit-learn classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import pickle
import sys
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils._param_validation import StrOptions
from torch import nn

from skboundary._device import resolve_device, to_numpy
from skboundary._validation import all_or_nothing, check_input
from skboundary.networks._labels import resolve_labels
from skboundary.networks._module_state import on_device
from skboundary.networks._parameters import RUNTIME_CONSTRAINTS, fill_docstring
from skboundary.networks._torch_network import TorchNetwork


@fill_docstring
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
        From tensor to tensor, run on every batch before the module; a normalization, for
        instance. It is a part of the network: bounds and gradients speak of the raw X.
    output : {"logits", "proba"}, default="logits"
        What the module ends in. "proba" stands for softmax or sigmoid.
    device : str or torch.device, default="auto"
        "auto" keeps a module on the accelerator where it is, else takes the best device there
        is. A copy of the module runs where it has to be moved.
    {batch_size}
    input_dtype : {"auto", "keep"}, default="auto"
        Samples are cast to the dtype of the module. "auto" hands integers over as integers
        (int64) where an `nn.Embedding` is the first layer with weights that runs, "keep"
        whatever comes first. A network that takes integers has no gradient in X.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted; columns of every method follow it. With ``classes=None`` it is known after
        `fit`. After a `fit` with encoded labels (positions among the classes, as
        :class:`~sklearn.ensemble.VotingClassifier` gives them) it is 0 to n_classes - 1.
    n_features_in_ : int
        Size of the second axis of X, after `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, after `fit` on X with names that are all strings.
    input_shape_ : tuple of int
        Shape of one row of X, after `fit`.

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
        **RUNTIME_CONSTRAINTS,
        "input_dtype": [StrOptions({"auto", "keep"})],
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
        input_dtype: str = "auto",
    ) -> None:
        self.module = module
        self.classes = classes
        self.preprocess = preprocess
        self.output = output
        self.device = device
        self.batch_size = batch_size
        self.input_dtype = input_dtype

    @all_or_nothing()
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> FrozenNetwork:
        """Run one sample, which tells the number of outputs, and store the columns of X.

        Nothing is trained. From now on X must have these columns; without `fit` it may have
        whatever the module takes.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Only tells whether `predict` answers in labels or in positions among the classes.

        Returns
        -------
        self : FrozenNetwork
        """
        self._validate_params()
        X = check_input(self, X, reset=True)
        network = TorchNetwork(**self._settings())
        network.logits(X[:1])
        y = to_numpy(y) if isinstance(y, torch.Tensor) else np.asarray(y)
        self._classes = resolve_labels(y if y.ndim == 1 else None, network.classes_, strict=False)[
            0
        ]
        return self

    @property
    def classes_(self) -> NDArray[Any]:
        """Sorted class labels."""
        if hasattr(self, "_classes"):
            return self._classes
        if self.classes is not None:
            return np.unique(np.asarray(self.classes))
        raise AttributeError(
            "FrozenNetwork(classes=None) knows classes_ once a row has run: call fit first, "
            "or give classes."
        )

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
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

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
        """
        network, logits = self._logits(X)
        return to_numpy(network.proba(logits))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predict the class with the largest logit.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        network, logits = self._logits(X)
        return getattr(self, "_classes", network.classes_)[to_numpy(logits.argmax(1))]

    def _logits(self, X: Any) -> tuple[TorchNetwork, torch.Tensor]:
        self._validate_params()
        fitted = hasattr(self, "input_shape_")
        # without fit there is nothing to compare X with, and nothing is written down
        X = check_input(self if fitted else clone(self), X, reset=not fitted)
        network = TorchNetwork(**self._settings())
        return network, network.logits(X)

    def _settings(self, device: Any = "auto") -> dict[str, Any]:
        """Parameters of `TorchNetwork`; the device of a host takes precedence."""
        wanted = self.device if device == "auto" else device
        return dict(
            module=self.module,
            classes=self.classes,
            output=self.output,
            preprocess=self.preprocess,
            keep_integers=self.input_dtype == "keep",
            device=resolve_device(wanted, self.module),
            batch_size=self.batch_size,
        )

    def set_params(self, **params: Any) -> FrozenNetwork:
        """Set parameters; another module, or other classes, take away what `fit` learned.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self : FrozenNetwork
        """
        if any(
            name in params and params[name] is not getattr(self, name)
            for name in ("module", "classes")
        ):
            for name in ("_classes", "n_features_in_", "feature_names_in_", "input_shape_"):
                self.__dict__.pop(name, None)
        return super().set_params(**params)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.target_tags.required = False
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> FrozenNetwork:
        return type(self)(**self.get_params(deep=False))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        for key in ("module", "preprocess"):  # a pickle opens without an accelerator
            if isinstance(state[key], nn.Module):
                state[key] = on_device(state[key], torch.device("cpu"))
        if not _can_be_pickled(self.preprocess):
            raise pickle.PicklingError(
                f"preprocess={self.preprocess!r} cannot be pickled: it is no function of a "
                "module that can be imported. Define it with def at the top level of a module, or "
                "write an nn.Module."
            )
        return state


def _can_be_pickled(function: Any) -> bool:
    """Whether the pickler that is at work can pickle a function: by name, or by its code."""
    name = getattr(function, "__qualname__", "")
    if "<lambda>" not in name and "<locals>" not in name:
        return True
    frame: FrameType | None = sys._getframe()
    while frame is not None and not {"cloudpickle", "dill", "copy"} & {
        *frame.f_globals.get("__name__", "").split(".")
    }:
        frame = frame.f_back
    return frame is not None
