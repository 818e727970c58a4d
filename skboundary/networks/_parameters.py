"""Parameters and attributes that the estimators share: constraints, and text for docstrings."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import re
from numbers import Integral
from os import PathLike
from textwrap import indent
from typing import Any, TypeVar

import torch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from torch import nn

Class = TypeVar("Class", bound=type)

# What runs a network, in every estimator of the package.
RUNTIME_CONSTRAINTS: dict[str, Any] = {
    "device": [str, torch.device],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
}

# The network, and how it is built, in every estimator around one.
NETWORK_CONSTRAINTS: dict[str, Any] = {
    "estimator": [HasMethods(["fit", "predict"]), nn.Module, None],
    **RUNTIME_CONSTRAINTS,
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

LAYER_CONSTRAINTS: dict[str, Any] = {"layer": [str, Integral, callable]}

# The latent space and its cache, where latent vectors are what an estimator works with.
LATENT_CONSTRAINTS: dict[str, Any] = {
    **NETWORK_CONSTRAINTS,
    **LAYER_CONSTRAINTS,
    "pool": [StrOptions({"avg"}), None],
    "memory": [str, PathLike, HasMethods(["cache"]), None],
    "memory_key": [str, None],
}

DESCRIPTIONS = {
    "estimator": """\
estimator : estimator or torch.nn.Module, default=None
    The classifier. A module, a :class:`FrozenNetwork` and a
    :class:`~sklearn.frozen.FrozenEstimator` are used as given; any other estimator is cloned
    and fitted. None trains a small multilayer perceptron on standardized columns.""",
    "layer": """\
layer : str, int or callable, default="auto"
    The latent space, as in :class:`LatentTransformer`; "auto" is the input of the last
    `torch.nn.Linear` that runs.""",
    "pool": """\
pool : {"avg"}, default=None
    Average feature maps over all axes after the second; None flattens them.""",
    "memory": """\
memory : path or joblib.Memory, default=None
    Where to cache the outputs of a trained network. A sample that appears again, in any fold
    of any search, is not passed through the network again. Ignored for an estimator that is
    fitted here.""",
    "memory_key": """\
memory_key : str, default=None
    Identifies what the network computes besides its weights. It replaces the digest of the
    network's code and attributes in `memory`, for networks that cannot be digested.""",
    "device": """\
device : str or torch.device, default="auto"
    "auto" keeps a module on its accelerator if it is on one; otherwise it selects the best
    device available.""",
    "batch_size": """\
batch_size : "auto" or int, default="auto"
    Samples per batch; "auto" limits the memory of a batch. Halved when memory runs out.""",
    "random_state": """\
random_state : int, RandomState instance or None, default=None
    Seeds the training of the default network and of skorch nets. An int or instance also seeds
    each `random_state` that is None among the parameters of `estimator` and its steps.""",
    "verbose": """\
verbose : int, default=0
    If positive, shows a progress bar.""",
    "classes_": """\
classes_ : ndarray of shape (n_classes,)
    Sorted class labels; for a trained network all of its classes.""",
    "estimator_": """\
estimator_ : estimator
    The trained classifier.""",
    "device_": """\
device_ : torch.device
    The device that the network runs on.""",
    "input_shape_": """\
input_shape_ : tuple of int
    Shape of one sample.""",
    "n_features_in_": """\
n_features_in_ : int
    Size of the second axis of X.""",
    "feature_names_in_": """\
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Names of the columns. Defined only if X has column names that are all strings.""",
}


def fill_docstring(cls: Class) -> Class:
    """Replace each line ``{name}`` of a class docstring by the shared description of `name`.

    Raises
    ------
    KeyError
        For a name without a shared description.
    """
    if cls.__doc__ is not None:  # as under python -OO
        cls.__doc__ = re.sub(
            r"^( *)\{(\w+)\}$",
            lambda found: indent(DESCRIPTIONS[found[2]], found[1]),
            cls.__doc__,
            flags=re.MULTILINE,
        )
    return cls
