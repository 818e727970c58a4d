"""scikit-learn models that are linear, or multilayer perceptrons, as torch modules."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from skboundary.networks._outputs import Link, modified_huber, one_vs_rest, softmax


class Lifted(NamedTuple):
    """A module whose output is `decision_function`, and its link to `predict_proba`."""

    module: nn.Module
    link: Link


# --------------------------------------------------------------------------------- modules


class Affine(nn.Module):
    """``(x - shift) * scale``, column by column.

    Parameters
    ----------
    shift, scale : array-like of shape (n_features,) or float
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Any, scale: Any) -> None:
        super().__init__()
        self.register_buffer("shift", torch.as_tensor(np.array(shift, dtype=np.float64)))
        self.register_buffer("scale", torch.as_tensor(np.array(scale, dtype=np.float64)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) * self.scale


def linear(weight: Any, bias: Any = None) -> nn.Linear:
    """Build a float64 nn.Linear from a weight (n_out, n_in) and a bias (n_out,)."""
    weight = np.atleast_2d(np.asarray(weight, dtype=np.float64))
    # skip_init: initial weights would be drawn from the global generator
    layer = nn.utils.skip_init(
        nn.Linear, weight.shape[1], weight.shape[0], bias is not None, dtype=torch.float64
    )
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight))
        if bias is not None:
            shape = (weight.shape[0],)
            layer.bias.copy_(torch.as_tensor(np.broadcast_to(bias, shape).astype(np.float64)))
    return layer


def _linear_model(model: Any) -> Lifted:
    link = softmax
    loss = getattr(model, "loss", None)
    if isinstance(model, SGDClassifier) and loss in ("log_loss", "modified_huber"):
        link = one_vs_rest if loss == "log_loss" else modified_huber
    return Lifted(nn.Sequential(linear(model.coef_, model.intercept_)), link)


_ACTIVATIONS = {"identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


def _mlp(model: MLPClassifier) -> Lifted:
    layers: list[nn.Module] = []
    for weight, bias in zip(model.coefs_, model.intercepts_, strict=True):
        layers += [linear(weight.T, bias), _ACTIVATIONS[model.activation]()]
    return Lifted(nn.Sequential(*layers[:-1]), softmax)


def _standard_scaler(step: StandardScaler) -> nn.Module:
    mean = step.mean_ if step.with_mean else 0.0
    return Affine(mean, 1 / step.scale_ if step.with_std else 1.0)


def _min_max_scaler(step: MinMaxScaler) -> nn.Module | None:
    return None if step.clip else Affine(-step.min_ / step.scale_, step.scale_)


def _pca(step: PCA) -> nn.Module:
    rotate = linear(step.components_)
    # same guard against tiny variances as in scikit-learn
    deviation = np.sqrt(step.explained_variance_)
    deviation = np.maximum(deviation, np.finfo(deviation.dtype).eps)
    whiten = [Affine(0.0, 1 / deviation)] if step.whiten else []
    return nn.Sequential(Affine(step.mean_, 1.0), rotate, *whiten)


# Exact types, because a subclass may compute something else.
_HEADS: dict[type, Callable[[Any], Lifted]] = {
    LogisticRegression: _linear_model,
    LinearSVC: _linear_model,
    RidgeClassifier: _linear_model,
    SGDClassifier: _linear_model,
    MLPClassifier: _mlp,
}
_STEPS: dict[type, Callable[[Any], nn.Module | None]] = {
    StandardScaler: _standard_scaler,
    MinMaxScaler: _min_max_scaler,
    PCA: _pca,
}


def lift_head(model: Any) -> Lifted | None:
    """Convert a fitted classifier to a float64 module; None if there is no such module.

    Parameters
    ----------
    model : estimator
        `LogisticRegression`, `LinearSVC`, `RidgeClassifier`, `SGDClassifier` and
        `MLPClassifier` are converted. The output is `decision_function`, with one column for two
        classes; for `MLPClassifier` the softmax of the output is `predict_proba`.

    Returns
    -------
    lifted : Lifted or None
    """
    make = _HEADS.get(type(model))
    return None if make is None else make(model)


def lift_steps(steps: list[Any]) -> nn.Module | None:
    """Convert fitted `StandardScaler`, `MinMaxScaler` and `PCA` steps to one float64 module.

    None if any step is of another type, or clips.
    """
    modules: list[nn.Module] = []
    for step in steps:
        make = _STEPS.get(type(step))
        module = None if make is None else make(step)
        if module is None:
            return None
        modules.append(module)
    return nn.Sequential(*modules)
