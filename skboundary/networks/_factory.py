"""The factory `as_network`, which reduces any estimator to a `Network`."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.validation import check_is_fitted
from torch import nn

from skboundary._callbacks import task
from skboundary._device import DeviceLike, resolve_device, resolve_dtype
from skboundary._random import RandomStateLike, draw_seed
from skboundary._sample_array import SampleArray
from skboundary.networks._agreement import check_agreement, pick_probes, warn_of_probabilities
from skboundary.networks._cache import CachedNetwork
from skboundary.networks._estimator_network import EstimatorNetwork, predicted_codes, split
from skboundary.networks._frozen import FrozenNetwork
from skboundary.networks._lift import lift_head, lift_steps
from skboundary.networks._protocol import Network
from skboundary.networks._torch_network import TorchNetwork


def is_trained(estimator: Any) -> bool:
    """Whether `estimator` is trained and never refitted."""
    return isinstance(estimator, (nn.Module, FrozenNetwork, FrozenEstimator))


def takes_frames(estimator: Any) -> bool:
    """Whether `estimator` may select columns of a DataFrame by name."""
    return not (estimator is None or isinstance(estimator, (nn.Module, FrozenNetwork)))


def takes_sparse(estimator: Any) -> bool:
    """Whether `estimator` accepts sparse X; for networks, batches are converted to dense."""
    is_network = estimator is None or isinstance(estimator, (nn.Module, FrozenNetwork))
    return is_network or _is_skorch(estimator) or get_tags(estimator).input_tags.sparse


def as_network(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    layer: Any = "auto",
    pool: str | None = None,
    memory: Any = None,
    memory_key: str | None = None,
    device: DeviceLike = "auto",
    batch_size: int | str = "auto",
    random_state: RandomStateLike = None,
    verbose: int = 0,
    logits: bool = True,
    latent: bool = True,
    labels: bool = False,
    fit_params: dict[str, Any] | None = None,
) -> tuple[Any, Network]:
    """Fit `estimator` unless it is trained, and return it with its `Network`.

    Parameters
    ----------
    estimator : None, nn.Module, FrozenNetwork, FrozenEstimator or classifier
        None trains the default network. Modules and frozen estimators are used without
        refitting; any other classifier is cloned and fitted.
    X : array-like of shape (n_samples, ...)
    y : array-like of shape (n_samples,) or None
    layer, pool, memory, memory_key, device, batch_size, random_state, verbose : object
        As in :class:`~skboundary.LatentTransformer`.
    logits : bool, default=True
        False if only latent vectors are needed.
    latent : bool, default=True
        False if latent vectors are not needed; the network may then have no such layer.
    labels : bool, default=False
        True if labels can replace the scores of a classifier without gradients whose scores
        disagree with them; otherwise such a classifier raises an error.
    fit_params : dict, default=None
        Further arguments of its `fit`, such as `sample_weight`.

    Returns
    -------
    estimator_ : classifier
        The trained classifier.
    network : Network
        It has run some samples, so its layer and, with `logits`, its classes are known.

    Raises
    ------
    ValueError
        If `estimator` is not a classifier, if its outputs do not match the classes, if its scores
        or probabilities contradict its `predict` and `predict_proba`, or if `layer` does not
        exist.
    TypeError
        If there are `fit_params` that the classifier does not take, or that it is trained.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skboundary.networks import as_network
    >>> X, y = load_iris(return_X_y=True)
    >>> estimator_, network = as_network(LogisticRegression(max_iter=200), X, y, device="cpu")
    >>> network.logits(X[:5]).shape
    torch.Size([5, 3])
    >>> network.differentiable, network.affine
    (True, True)
    """
    _refuse_other_kinds(estimator)
    trained = is_trained(estimator)
    estimator = _trained(estimator, X, y, device, random_state, verbose, fit_params or {})
    fitted_here = not trained and _is_skorch(_last_step(estimator)[1])
    adapter = adapt(
        estimator,
        X,
        classes=np.unique(y) if fitted_here else None,
        layer=layer,
        pool=pool,
        device=device,
        batch_size=batch_size,
        verbose=verbose,
    )
    network = with_memory(adapter, memory, memory_key) if trained else cast(Network, adapter)
    if not logits:
        network.latent(_safe_indexing(X, slice(0, 1)))
        return estimator, network
    probes = pick_probes(y, X.shape[0])
    scores = network.latent_and_logits(X, index=probes)[1] if latent else network.logits(X, probes)
    head = split(estimator)[1]
    if adapter.is_module or not labels:
        predicted, proba = _query(estimator, head, adapter, _safe_indexing(X, probes))
        check_agreement(network, type(head).__name__, scores, predicted, proba)
    if isinstance(head, FrozenNetwork) or _is_skorch(head):
        warn_of_probabilities(network, scores, one=adapter.order.index(1))
    return estimator, network


def with_memory(network: Any, memory: Any, memory_key: str | None) -> Network:
    """Return the network of a trained classifier with the cache of the parameter `memory`."""
    location = getattr(memory, "location", memory)
    if location is not None:
        folder = Path(location, "joblib", "skboundary")  # `joblib.Memory.clear` also clears it
        network = CachedNetwork(network, folder, memory_key)
    return cast(Network, network)


def trained_network(
    estimator: Any,
    like: NDArray[Any],
    n_outputs: int,
    *,
    memory: Any,
    memory_key: str | None,
    **settings: Any,
) -> tuple[Any, Network]:
    """Give the `Network` of a trained classifier without running a sample.

    Parameters
    ----------
    estimator : nn.Module, FrozenNetwork or FrozenEstimator
    like : ndarray of shape (0, ...)
        In the dtype and with the shape of the samples.
    n_outputs : int
        Number of outputs of the classifier.
    memory, memory_key, **settings : object
        As in `as_network`.

    Returns
    -------
    estimator_ : classifier
    network : Network
        It finds its layer when it runs first.
    """
    _refuse_other_kinds(estimator)
    estimator = _trained(estimator, like, None, settings["device"], None, 0, {})
    adapter = adapt(estimator, like, classes=None, **settings)
    adapter._learn_classes(n_outputs)
    return estimator, with_memory(adapter, memory, memory_key)


def refuse_metadata(estimator: Any, names: Collection[str]) -> None:
    """Raise a TypeError if metadata are given for a classifier whose `fit` gets none."""
    if not names:
        return
    if estimator is None:
        reason = "the default network takes none. Give an estimator whose fit takes them"
    else:
        reason = f"estimator={type(estimator).__name__} is trained and not fitted. Omit them"
    raise TypeError(f"fit got {sorted(names)}, but {reason}.")


def _trained(
    estimator: Any,
    X: Any,
    y: Any,
    device: DeviceLike,
    random_state: RandomStateLike,
    verbose: int,
    fit_params: dict[str, Any],
) -> Any:
    """Wrap, check or fit `estimator`."""
    if estimator is None or is_trained(estimator):
        refuse_metadata(estimator, fit_params)
    if isinstance(estimator, nn.Module):
        return FrozenNetwork(estimator)
    if isinstance(estimator, FrozenEstimator):
        if hasattr(estimator.estimator, "__sklearn_tags__"):  # any object with predict is accepted
            check_is_fitted(estimator.estimator)
        return estimator
    if estimator is None:
        return _train_default(X, y, device, draw_seed(random_state), verbose)
    if isinstance(estimator, FrozenNetwork):
        return estimator
    return _fit_clone(estimator, X, y, device, random_state, fit_params)


def adapt(
    estimator: Any,
    X: Any,
    *,
    classes: Any,
    layer: Any,
    pool: str | None,
    device: DeviceLike,
    batch_size: int | str,
    verbose: int,
) -> TorchNetwork | EstimatorNetwork:
    """Build the network of a fitted estimator.

    `classes` are those of a skorch net fitted here, and of X only the dtype is used.
    """
    steps, head = split(estimator)
    shared: dict[str, Any] = dict(pool=pool, batch_size=batch_size, verbose=verbose)
    if isinstance(head, FrozenNetwork):
        own = head._settings(device)
        if batch_size == "auto":
            shared["batch_size"] = own["batch_size"]
    elif _is_skorch(head):
        from skboundary.networks._default import output_of

        classes = getattr(head, "classes_", None) if classes is None else classes
        where = resolve_device(device, head.module_)
        own = dict(module=head.module_, classes=classes, device=where, output=output_of(head))
    elif not hasattr(head, "classes_"):
        raise ValueError(
            f"{type(head).__name__} has no classes_ after fit, so it is not a classifier. Give an "
            "estimator with predict and classes_."
        )
    else:
        where = resolve_device(device)
        dtype, lifted = resolve_dtype(X, where), lift_head(head)
        if lifted is None:
            if layer != "auto":
                raise ValueError(
                    f"layer={layer!r} is a layer of a network, but {type(head).__name__} has no "
                    "layers. Use layer='auto': the input of the classifier is its latent space."
                )
            return EstimatorNetwork(estimator, device=where, dtype=dtype, **shared)
        module = lifted.module.to(dtype)
        own = dict(module=module, classes=head.classes_, device=where, link=lifted.link)
    front = lift_steps(steps) if steps else None
    network = TorchNetwork(
        **{**own, **shared},
        layer=layer,
        steps=steps if front is None else (),
        front=front,
        front_dtype=None if front is None else resolve_dtype(X, own["device"]),
    )
    network.estimator = estimator
    return network


def _query(
    estimator: Any, head: Any, network: TorchNetwork | EstimatorNetwork, X: Any
) -> tuple[NDArray[np.intp] | None, NDArray[Any] | None]:
    """Positions (n,) of the predicted classes, and probabilities, from the classifier itself.

    None for what it does not provide, or what equals the outputs of the network by construction.
    """
    if isinstance(head, FrozenNetwork) or not network.has_scores:
        return None, None
    predicted: NDArray[np.intp] | None
    if _is_skorch(head):
        from skboundary.networks._default import query_net

        assert isinstance(network, TorchNetwork)
        predicted, proba = query_net(head, network, X)
        predicted = None if predicted is None else np.argsort(network.order)[predicted]
    else:
        predicted = predicted_codes(estimator, X, network.classes_)
        has_proba = hasattr(estimator, "predict_proba")
        proba = np.asarray(estimator.predict_proba(X)) if has_proba else None
    if proba is not None and proba.shape == (len(proba), len(network.order)):
        proba = proba[:, network.order]
    return predicted, proba


def _refuse_other_kinds(estimator: Any) -> None:
    head = split(estimator)[1]
    kind = get_tags(head).estimator_type if hasattr(head, "__sklearn_tags__") else None
    if kind not in (None, "classifier"):
        raise ValueError(
            f"{type(head).__name__} ({kind.replace('_', ' ')}) is not a classifier. Give an "
            "estimator with predict and classes_, or a torch.nn.Module."
        )


def _is_skorch(estimator: Any) -> bool:
    net = sys.modules.get("skorch.net")  # if it is not imported, `estimator` is not a skorch net
    return net is not None and isinstance(estimator, net.NeuralNet)


def _fit_clone(
    estimator: Any,
    X: Any,
    y: NDArray[Any],
    device: DeviceLike,
    random_state: RandomStateLike,
    fit_params: dict[str, Any],
) -> Any:
    if X.shape[0] < 2:  # some classifiers would return NaN
        raise ValueError(
            f"X has 1 sample; {type(estimator).__name__} needs at least 2 to be trained."
        )
    estimator, seed = clone(estimator), draw_seed(random_state)
    if random_state is not None:
        _seed_parameters(estimator, seed)
    pipeline, head = _last_step(estimator)
    if not _is_skorch(head) or pipeline is not None:
        X = np.asarray(X) if isinstance(X, SampleArray) else X
    if not _is_skorch(head):
        with task("fit-estimator", inner=estimator):
            return estimator.fit(X, y, **fit_params)
    from skboundary.networks._default import SkorchFit

    if device != "auto":
        head.set_params(device=str(resolve_device(device)))
    fit, codes = SkorchFit(head, seed), np.unique(y, return_inverse=True)[1]
    if pipeline is None:
        with task("fit-estimator", fit.n_epochs):
            fit.train(X, codes, **fit_params)
        return estimator
    name = pipeline.steps[-1][0]
    pipeline.steps[-1] = (name, fit)
    with task("fit-estimator", inner=estimator):
        estimator.fit(X, codes, **fit_params)
    pipeline.steps[-1] = (name, fit.net)
    return estimator


def _seed_parameters(estimator: Any, seed: int) -> None:
    """Seed every parameter `random_state` that is None, of an estimator and those inside it.

    `BaggingClassifier` does so for all of them; here a value that the user has set counts.
    """
    random = np.random.RandomState(seed)
    names = [
        name
        for name, value in sorted(estimator.get_params().items())
        if value is None and name.rpartition("__")[2] == "random_state"
    ]
    estimator.set_params(**{name: draw_seed(random) for name in names})


def _last_step(estimator: Any) -> tuple[Pipeline | None, Any]:
    """Innermost pipeline of an estimator, and its last step."""
    pipeline = None
    while isinstance(estimator, Pipeline):
        pipeline, estimator = estimator, estimator.steps[-1][1]
    return pipeline, estimator


def _train_default(
    X: Any, y: NDArray[Any], device: DeviceLike, seed: int, verbose: int
) -> FrozenNetwork:
    from skboundary.networks._default import train_default

    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y has 1 class, {classes[0]!r}; the default network needs at least 2 classes."
        )
    where = resolve_device(device)
    module = train_default(
        X, codes, dtype=resolve_dtype(X, where), device=where, seed=seed, verbose=verbose
    )
    return FrozenNetwork(module.eval(), classes=classes)
