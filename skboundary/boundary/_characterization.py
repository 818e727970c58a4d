"""The function that measures the boundaries of a classifier, class pair by class pair."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skboundary._batching import progress
from skboundary._callbacks import task
from skboundary._device import DeviceLike
from skboundary._engine import Failed, find_engine
from skboundary._random import RandomStateLike, draw_seed
from skboundary._validation import check_targets, named
from skboundary.boundary._classifier import FittedClassifier
from skboundary.boundary._inputs import label_code, numbers
from skboundary.boundary._pair_report import COLUMNS, Labeled, Measures, Plan, measure
from skboundary.boundary._pairs import name_pairs
from skboundary.boundary.methods._registry import EFFORT_CONSTRAINT, METHODS, choose_method
from skboundary.networks._host import NetworkHostMixin
from skboundary.networks._labels import encode_labels
from skboundary.networks._parameters import NETWORK_CONSTRAINTS

MEASURE_CONSTRAINTS: dict[str, Any] = {
    **NETWORK_CONSTRAINTS,
    "pairs": [StrOptions({"all"}), list, tuple],
    "method": [StrOptions({"segment", "deepdig", "pm"})],
    "init": [StrOptions({"nearest", "random"})],
    "n_samples": [Interval(Integral, 1, None, closed="left")],
    "n_partners": [Interval(Integral, 1, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "generator": [callable, None],
    "effort": EFFORT_CONSTRAINT,
    "n_jobs": [Integral, None],
}

_PAIRS_PER_JOB = 2  # ordered class pairs: both directions


@validate_params(MEASURE_CONSTRAINTS | {"cache": [dict, None]}, prefer_skip_nested_validation=False)
def characterize_boundary(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    X_test: ArrayLike | None = None,
    y_test: ArrayLike | None = None,
    pairs: Any = "all",
    method: str = "segment",
    init: str = "nearest",
    n_samples: int = 100,
    n_partners: int = 10,
    max_iter: int = 50,
    generator: Any = None,
    effort: str | int = "balanced",
    n_jobs: int | None = None,
    device: DeviceLike = "auto",
    batch_size: int | str = "auto",
    random_state: RandomStateLike = None,
    verbose: int = 0,
    cache: Measures | None = None,
) -> Bunch:
    """Describe the boundary between each ordered pair of classes.

    The measures of DeepDIG [1]_: how often a search between the two classes succeeds, how far
    the boundary is from the data, how often the predicted class changes along it, and how well a
    hyperplane in the latent space separates the classes.

    Read more in the :ref:`User Guide <characterization>`.

    Parameters
    ----------
    estimator : estimator or torch.nn.Module or None
        The classifier. A module, a :class:`~skboundary.FrozenNetwork` and a
        :class:`~sklearn.frozen.FrozenEstimator` are used as given; any other estimator is cloned
        and fitted. None trains a small multilayer perceptron on standardized columns.
    X : array-like of shape (n_samples, ...)
        Training samples. The search starts from those that are predicted correctly.
    y : array-like of shape (n_samples,)
    X_test : array-like of shape (n_test, ...), default=None
        Samples on which linearity is measured, too.
    y_test : array-like of shape (n_test,), default=None
    pairs : "all" or list of (source, target), default="all"
        Ordered pairs of class labels.
    method : {"segment", "deepdig", "pm"}, default="segment"
        How to find two points on either side of a boundary, between which a segment is halved:
        a sample of the source class and the nearest one of the target class in the latent space;
        adversarial samples of DeepDIG's generators, which take seconds a pair to train; or the
        ends that perturbation minimization finds.
    init : {"nearest", "random"}, default="nearest"
        The sample of the target class for "segment". "random" draws it.
    n_samples : int, default=100
        Samples of the source class to start from, in each ordered pair.
    n_partners : int, default=10
        Borderline samples with which each of them is connected by a segment to count changes of
        the predicted class. The paper has 50.
    max_iter : int, default=50
        Maximum number of midpoints of a segment.
    generator : callable, default=None
        For "deepdig": from the shape of a sample to an autoencoder, as in
        :class:`~skboundary.BoundarySampleExtractor`.
    effort : {"fast", "balanced", "thorough"} or int, default="balanced"
        How long "deepdig" trains, and "pm" searches; the gradients per sample of "pm", 20 or more.
    n_jobs : int, default=None
        Processes of joblib that share the class pairs; None is this process. Under an active
        `Client` of dask class pairs are tasks of its cluster, see :ref:`distributed`.
    device : str or torch.device, default="auto"
        "auto" keeps a module on its accelerator if it is on one; otherwise it selects the best
        device available.
    batch_size : "auto" or int, default="auto"
        Samples per batch; "auto" limits the memory of a batch. Halved when memory runs out.
    random_state : int, RandomState instance or None, default=None
        Seeds training and the draws of samples.
    verbose : int, default=0
        If positive, shows a progress bar over class pairs.
    cache : dict, default=None
        Receives the measures of each class pair, by positions of the classes, as soon as they
        are known, so that they survive an interruption. Pairs that it holds already are not
        measured again: use it only for calls with the same arguments.

    Returns
    -------
    report : Bunch of ndarray of shape (n_pairs,)
        As `report_` of :class:`~skboundary.BoundaryCharacterizer`.

    Raises
    ------
    ValueError
        For input that is not finite, unknown or equal classes in a pair, less than two classes,
        a method that does not support the classifier, or an effort that it does not take.

    See Also
    --------
    skboundary.BoundaryCharacterizer : The same as an estimator, which keeps what it has measured.

    References
    ----------
    .. [1] H. Karimi, T. Derr and J. Tang, "Characterizing the decision boundary of deep neural
       networks", `arXiv 1912.11460 <https://arxiv.org/abs/1912.11460>`_.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skboundary.boundary import characterize_boundary
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = FrozenEstimator(LogisticRegression(max_iter=1000).fit(X, y))
    >>> report = characterize_boundary(classifier, X, y, pairs=[(0, 1), (1, 2)], random_state=0)
    >>> report.success_rate
    array([1., 1.])
    """
    rng = check_random_state(random_state)
    if isinstance(estimator, FittedClassifier):  # of `BoundaryCharacterizer`, with valid input
        classifier = estimator
    else:
        host = _Host(estimator)
        X, y = host._check_fit(X, y)
        X_test, y_test = check_test_set(host, X_test, y_test)
        params = {"device": device, "batch_size": batch_size}
        classifier = fit_for_measures(estimator, X, y, method, random_state=rng, **params)
    plan = Plan(method, init, n_samples, n_partners, max_iter, generator, effort, draw_seed(rng))
    cache = {} if cache is None else cache
    return _report(classifier, plan, y, X_test, y_test, pairs, n_jobs, verbose, cache)


def _report(
    classifier: FittedClassifier,
    plan: Plan,
    y: Any,
    X_test: Any,
    y_test: Any,
    pairs: Any,
    n_jobs: int | None,
    verbose: int,
    cache: Measures,
) -> Bunch:
    """Measure the class pairs that are not in the cache, and collect all."""
    METHODS[plan.method].settle(plan.effort)
    classes, latent = classifier.classes, classifier.training_latent()
    train = Labeled(latent, encode_labels(y, classes))
    test = Labeled(latent[:0], train.codes[:0])
    wanted = _resolve_pairs(pairs, classes, np.unique(train.codes))
    if X_test is not None:
        with named("test"):
            codes = encode_labels(y_test, classes)
        test = Labeled(classifier.latent(numbers(X_test)), codes)
    missing = sorted({*wanted} - {*cache}, key=lambda pair: (min(pair), max(pair), pair))
    size = METHODS[plan.method].pairs_at_once or _PAIRS_PER_JOB
    shares = [missing[i : i + size] for i in range(0, len(missing), size)]
    engine = find_engine(n_jobs)
    tasks = [
        engine.submit(
            f"measures of {name_pairs(classes, share)}",
            measure,
            classifier,
            plan,
            train,
            test,
            share,
        )
        for share in shares
    ]
    failed: Measures = {}
    results = engine.gather(tasks)
    bar = progress(len(missing), "class pairs", verbose)
    with bar, task("class-pairs", len(shares)):
        for share in shares:
            with task("class-pair"):
                found = next(results)
                if isinstance(found, Failed):  # not in the cache: the next call measures them
                    failed |= {pair: dict.fromkeys(COLUMNS, np.nan) for pair in share}
                else:
                    cache.update(found)
                bar.update(len(share))
        next(results, None)  # a cluster warns of failed tasks at the end
    measures = cache | failed
    s, t = np.array(wanted, dtype=np.intp).reshape(-1, 2).T
    columns = {name: np.array([measures[pair][name] for pair in wanted]) for name in COLUMNS}
    status = np.array(["failed" if pair in failed else "ok" for pair in wanted])
    return Bunch(source=classes[s], target=classes[t], status=status, **columns)


def fit_for_measures(
    estimator: Any, X: Any, y: NDArray[Any], method: str, **params: Any
) -> FittedClassifier:
    """Fit a classifier, whose training samples get latent vectors, and check the method."""
    X = numbers(X) if sparse.issparse(X) else X
    classifier = FittedClassifier.fit(estimator, X, y, latent=True, **params)
    choose_method(method, 2, classifier.response, classifier.estimator)
    return classifier


def check_test_set(host: Any, X: Any, y: Any) -> tuple[Any, Any]:
    """Validate the test samples, where there are any."""
    if (X is None) != (y is None):
        raise ValueError("X_test and y_test must be given together: pass both or neither.")
    if X is None:
        return None, None
    with named("test"):
        X = host._check_X(X)
        return X, check_targets(host, X, y)


def _resolve_pairs(
    pairs: Any, classes: NDArray[Any], present: NDArray[np.intp]
) -> list[tuple[int, int]]:
    """Ordered pairs as positions in `classes`."""
    if isinstance(pairs, str):
        if len(present) < 2:
            raise ValueError(
                f"y holds 1 class, {classes[present[0]]!r}: there is no boundary to "
                "characterize. Give samples of at least 2 classes."
            )
        return [(int(s), int(t)) for s in present for t in present if s != t]
    resolved = []
    for pair in pairs:
        if np.ndim(pair) != 1 or len(pair) != 2:
            raise ValueError(f"pairs holds {pair!r}: give (source, target), two class labels.")
        s, t = (label_code(label, classes, "pairs") for label in pair)
        if s == t:
            raise ValueError(f"pairs holds {pair!r}: source and target must differ.")
        resolved.append((s, t))
    return resolved


class _Host(NetworkHostMixin, BaseEstimator):
    """Validates the arguments of the function, in whose name."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


_Host.__name__ = characterize_boundary.__name__
