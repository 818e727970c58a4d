"""FrozenNetwork: a trained torch module as an already fitted scikit-learn classifier."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import StrOptions, validate_parameter_constraints
from torch import nn

from skboundary._callbacks import fit_tasks
from skboundary._device import DeviceLike, resolve_device, to_numpy
from skboundary._site import DocLinkMixin
from skboundary._validation import all_or_nothing, check_input
from skboundary.networks._carrier import StoredStateMixin
from skboundary.networks._chunks import Output, over_chunks
from skboundary.networks._labels import resolve_labels
from skboundary.networks._parameters import RUNTIME_CONSTRAINTS, fill_docstring
from skboundary.networks._torch_network import TorchNetwork


@fill_docstring
class FrozenNetwork(StoredStateMixin, DocLinkMixin, ClassifierMixin, BaseEstimator):
    """A trained `torch.nn.Module` as an already fitted classifier.

    The module is never refitted or modified. :func:`sklearn.base.clone` does not copy it: a clone
    shares the module, so a grid search copies no weights. It runs in evaluation mode, and its
    flags are restored afterwards.

    Read more in the :ref:`User Guide <networks>`.

    Parameters
    ----------
    module : torch.nn.Module
        Maps a batch to logits of shape (n, n_classes), or to one logit for two classes. The
        first tensor of a tuple or mapping is used.
    classes : array-like of shape (n_classes,), default=None
        The class of each output, in the order of the outputs. None is 0 to n_outputs - 1.
    preprocess : callable, default=None
        Maps a tensor to a tensor, and is applied to every batch before the module, for instance
        a normalization. It is part of the network: bounds and gradients refer to the raw X.
    output : {"logits", "proba"}, default="logits"
        What the module returns; "proba" if it ends in a softmax or sigmoid.
    device : str or torch.device, default="auto"
        "auto" keeps a module on its accelerator if it is on one; otherwise it selects the best
        device available. If the module is on another device, a copy of it is used.
    {batch_size}
    input_dtype : {"auto", "keep"}, default="auto"
        Samples are cast to the dtype of the module. "auto" keeps integers (as int64) if an
        `nn.Embedding` is the first layer with weights that runs; "keep" always keeps them. A
        network that takes integers has no gradient with respect to X.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted class labels, the order of the columns of all methods. With ``classes=None`` it is
        available after `fit`. After a `fit` with encoded labels (positions among the classes, as
        :class:`~sklearn.ensemble.VotingClassifier` passes them) it is 0 to n_classes - 1.
    n_features_in_ : int
        Size of the second axis of X, after `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, after `fit` on X with column names that are all strings.
    input_shape_ : tuple of int
        Shape of one sample, after `fit`.

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
        device: DeviceLike = "auto",
        batch_size: int | str = "auto",
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
    @fit_tasks()
    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> FrozenNetwork:
        """Determine the number of outputs from one sample, and store the columns of X.

        Nothing is trained. After `fit`, X must have the same columns; before, any X that the
        module accepts is accepted.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
        y : array-like of shape (n_samples,), default=None
            Determines whether `predict` returns labels or positions among the classes.

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
            "FrozenNetwork(classes=None) has no classes_ before fit: call fit, or set classes."
        )

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the unnormalized logits, whatever the module ends in.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        scores : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes, the logit of the second minus that of the first.
        """
        logits = to_numpy(self._logits(X)[1])
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    @over_chunks(
        lambda self, X: Output((len(self.classes_),), TorchNetwork(**self._settings()).dtype)
    )
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Compute the softmax of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
        """
        network, logits = self._logits(X)
        return to_numpy(network.proba(logits))

    @over_chunks(lambda self, X: Output((), self.classes_.dtype))
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
        # before fit there are no columns to compare with, and no attributes are set
        X = check_input(self if fitted else self._shell(), X, reset=not fitted)
        network = TorchNetwork(**self._settings())
        return network, network.logits(X)

    def _shell(self) -> FrozenNetwork:
        """A shallow copy, whose attributes can be set."""
        shell = object.__new__(type(self))
        shell.__dict__.update(vars(self))
        return shell

    def _validate_params(self) -> None:
        # the parameters by name: scikit-learn finds them by their signature, which takes as long
        # as a pass of a small network
        params = {name: getattr(self, name) for name in self._parameter_constraints}
        validate_parameter_constraints(
            self._parameter_constraints, params, caller_name=type(self).__name__
        )

    def _settings(self, device: DeviceLike = "auto") -> dict[str, Any]:
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
        """Set parameters; another module or other classes reset the fitted attributes.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self : FrozenNetwork
        """
        changed = any(
            name in params and params[name] is not getattr(self, name)
            for name in ("module", "classes")
        )
        super().set_params(**params)
        if changed:
            for name in ("_classes", "n_features_in_", "feature_names_in_", "input_shape_"):
                self.__dict__.pop(name, None)
        return self

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
        callbacks = getattr(self, "_skl_callbacks", ())
        return type(self)(**self.get_params(deep=False)).set_callbacks(*callbacks)
