"""Whatever is passed, a call gives a right result, or a ValueError or TypeError with the cause.

300 cases in the default suite, the same in every run; ``-m slow`` draws 5,000 others, whose seed it
prints. Every defect that they found has a test of its own near the code.
"""

import os
import secrets
import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

import skboundary
from skboundary.networks import _default
from tests.hostile_input import cases
from tests.hostile_networks import NETWORKS, PARAMETERS, SOUND

PACKAGE = Path(skboundary.__file__).parent
# Libraries that check what they are given; numpy and torch fail somewhere in between.
CHECKING = ("sklearn", "imblearn", "scipy", "joblib", "pandas", "polars")

CHEAP = {
    "LatentKNNClassifierCV": {"n_neighbors": (1, 2), "query_weight": (0.0, 0.5), "cv": 2},
    "BoundarySampleExtractor": {"effort": "fast"},
    "BoundaryCharacterizer": {"effort": "fast", "n_samples": 3, "n_partners": 2, "max_iter": 20},
    "SubspaceMargins": {"max_iter": 5},
    "BiasedExtrapolationClassifier": {"n_iter": 1, "epochs_per_iter": 2},
}
METHODS = {
    "TorchNearestNeighbors": ["kneighbors", "radius_neighbors", "partial_fit"],
    "TorchKNeighborsTransformer": ["kneighbors", "transform", "partial_fit"],
    "LatentTransformer": ["transform"],
    "LatentKNNClassifier": ["predict_proba", "predict", "kneighbors", "explain", "diagnose"],
    "LatentKNNClassifierCV": ["predict_proba", "predict"],
    "FrozenNetwork": ["predict_proba", "predict", "decision_function"],
    "BoundarySampleExtractor": ["transform", "extract_pairs", "extract"],
    "BoundaryCharacterizer": [],
    "SubspaceMargins": ["transform"],
    "BiasedExtrapolationSampler": [],
    "BiasedExtrapolationClassifier": ["predict_proba", "predict"],
    "LogitAdjustedClassifier": ["predict_proba", "predict", "decision_function"],
}


SEARCHES = {"TorchNearestNeighbors", "TorchKNeighborsTransformer"}

# What a characterizer keeps of a fit that failed, for warm_start.
KEPT = {"_classifier", "_rng", "_cache", "_measured"}

# ------------------------------------------------------------------------------------- refusals


def assert_refusal(error):
    """Check that an error is one of the three, and was raised on purpose, with a message."""
    assert isinstance(error, (ValueError, TypeError, NotFittedError)), repr(error)
    assert str(error).strip()
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = PACKAGE in Path(last.filename).parents
    on_purpose = last.line.startswith("raise") if ours else library_of(last.filename) in CHECKING
    assert on_purpose, f"{last.filename}:{last.lineno} fails by chance: {error!r}"


def library_of(filename):
    parts = Path(filename).parts
    return parts[parts.index("site-packages") + 1] if "site-packages" in parts else ""


def refused(call):
    """The result of a call and None, or None and the error with which it refused its arguments."""
    try:
        return call(), None
    except Exception as error:
        assert_refusal(error)
        return None, error


# -------------------------------------------------------------------------------------- results


def dense(X):
    """Samples of any container as float64."""
    if sparse.issparse(X):
        X = X.toarray()
    elif hasattr(X, "detach"):
        X = X.detach().numpy()
    return np.asarray(X).astype(float)


def check_kneighbors(model, result, X):
    """Nearest first, and as near as in a search by differences in float64."""
    distances, indices = result
    n_fit = model.n_samples_fit_
    assert distances.shape == indices.shape == (len(X), model.n_neighbors)
    assert ((indices >= 0) & (indices < n_fit)).all() and np.isfinite(distances).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert all(len(set(row)) == len(row) for row in indices.tolist())


def check_exact(model, result, X, train):
    eps = np.finfo(result[0].dtype).eps
    true = DISTANCES[model.effective_metric_](X, train)
    want = np.sort(true, axis=1)[:, : model.n_neighbors]
    is_cosine = model.effective_metric_ == "cosine"
    atol = 8 * eps if is_cosine else np.finfo(result[0].dtype).tiny
    np.testing.assert_allclose(result[0], want, rtol=8 * eps, atol=atol)
    found = np.take_along_axis(true, result[1], axis=1)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12 if is_cosine else 0)


def check_within(model, result, X):
    assert all(part.shape == (len(X),) for part in result)
    for distances, indices in zip(*result):
        assert (np.diff(indices) > 0).all() and np.isfinite(distances).all()
        assert (distances <= model.radius * (1 + 1e-6)).all()


def check_graph(model, result, X):
    assert result.shape == (len(X), model.n_samples_fit_) and np.isfinite(result.data).all()
    assert (np.diff(result.indptr) == model.n_neighbors + (model.mode == "distance")).all()


def squared(X, Y):
    return ((X[:, None] - Y) ** 2).sum(2)


def cosine(X, Y):
    X, Y = (Z / np.abs(Z).max(1, keepdims=True, initial=1e-300) for Z in (X, Y))
    norms = np.linalg.norm(X, axis=1)[:, None] * np.linalg.norm(Y, axis=1)
    return 1 - np.divide(X @ Y.T, norms, out=np.zeros_like(norms), where=norms > 0)


DISTANCES = {
    "euclidean": lambda X, Y: np.sqrt(squared(X, Y)),
    "sqeuclidean": squared,
    "cosine": cosine,
}


def check_proba(model, p, X):
    assert p.shape == (len(X), len(model.classes_))
    assert ((p >= 0) & (p <= 1 + 1e-6)).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)


def check_labels(model, y, X):
    assert y.shape == (len(X),) and set(y.tolist()) <= set(model.classes_.tolist())
    assert y.dtype.kind == model.classes_.dtype.kind


def check_scores(model, scores, X):
    assert scores.shape in ((len(X),), (len(X), len(model.classes_)))
    assert np.isfinite(scores).all()


def check_latent(model, latent, X):
    assert latent.ndim == 2 and len(latent) == len(X) and np.isfinite(latent).all()


def check_margins(model, margins, X):
    assert margins.shape == (len(X), model.n_subspaces_)
    assert (np.isnan(margins) | (margins >= 0)).all()
    assert model.censored == "nan" or not np.isnan(margins).any()


def check_points(model, result, X):
    shapes = {
        "boundary": X.shape,
        "perturbation": X.shape,
        "distance": (len(X), 1),
        "interval": (len(X), 2),
        "class_distances": (len(X), len(model.classes_)),
    }
    assert result.shape == shapes[model.returns]
    if model.returns in ("boundary", "perturbation"):
        assert np.isfinite(result).all()
    else:
        assert (np.isnan(result) | (result >= 0)).all()


def check_pairs(model, pairs, X):
    """The ends of a pair are predicted as its classes, and points without one stay."""
    code_of = {label: code for code, label in enumerate(model.classes_.tolist())}
    ok = pairs.success
    for points, labels in ((pairs.inner, pairs.source), (pairs.outer, pairs.target)):
        assert np.isfinite(points).all()
        codes = model._classifier.labels(points[ok]) if ok.any() else []
        assert [*codes] == [code_of[label] for label in labels[ok].tolist()]
    assert (pairs.source[ok] != pairs.target[ok]).all()
    assert (pairs.distance[ok] >= 0).all()
    assert np.isnan(pairs.distance[pairs.status == "not_found"]).all()
    assert ((pairs.status == "ok") == ok).all()


def check_explanation(model, found, X):
    check_proba(model, found.proba, X)
    np.testing.assert_allclose(found.weights.sum(1) + found.query_weight, 1)
    check_kneighbors(model, (found.distances, found.indices), X)


def check_diagnosis(model, found, X):
    assert found.purity.shape == found.mean_distance.shape == (len(X),)
    assert ((found.purity >= 0) & (found.purity <= model.n_neighbors)).all()
    assert np.isfinite(found.mean_distance).all()


def check_report(report):
    """Rates lie in [0, 1], lengths are not negative; NaN where nothing was measured."""
    for name, values in report.items():
        if "rate" in name or name == "oscillation":
            assert (np.isnan(values) | ((values >= 0) & (values <= 1))).all(), name
        elif "length" in name or "distance" in name:
            assert (np.isnan(values) | (values >= 0)).all(), name


def codes_of(y):
    """Labels, or columns of one-hot ones; imbalanced-learn returns one column for two classes."""
    y = np.asarray(y)
    return y.argmax(1) if y.ndim == 2 and y.shape[1] > 1 else y.ravel()


def check_resampled(model, result, X, y):
    X_new, y_new = result
    assert np.isfinite(dense(X_new)).all()
    np.testing.assert_array_equal(dense(X_new)[: len(X)].reshape(len(X), -1), X.reshape(len(X), -1))
    labels, counts = np.unique(codes_of(y), return_counts=True)
    want = {label: n + model.sampling_strategy_.get(label, 0) for label, n in zip(labels, counts)}
    assert dict(zip(*np.unique(codes_of(y_new), return_counts=True))) == want
    assert len(model.parents_) == len(X_new.shape and y_new) - len(X)
    assert ((model.positions_ >= 0) & (model.positions_ <= 1)).all()


CHECKS = {
    "predict_proba": check_proba,
    "predict": check_labels,
    "decision_function": check_scores,
    "kneighbors": check_kneighbors,
    "radius_neighbors": check_within,
    "explain": check_explanation,
    "extract_pairs": check_pairs,
    "transform": {
        "LatentTransformer": check_latent,
        "TorchKNeighborsTransformer": check_graph,
        "SubspaceMargins": check_margins,
        "BoundarySampleExtractor": check_points,
    },
}


# ---------------------------------------------------------------------------------------- cases


def build(name, case):
    """The estimator of a case, and its parameters."""
    try:
        labels = np.unique(np.asarray(case.y.build()).ravel())
    except TypeError:  # labels that have no order
        labels = np.arange(3)
    infinite = labels.dtype.kind == "f" and np.isinf(labels).any()
    strange = infinite or labels.dtype.kind not in "biufUO" or (labels != labels).any()
    if strange or not 2 <= len(labels) <= 4:
        labels = np.arange(3)
    params = CHEAP.get(name, {}) | case.params
    if name == "FrozenNetwork":
        params["module"] = NETWORKS[case.network](case.train.shape, labels)
        params["module"] = getattr(params["module"], "module", params["module"])
    elif name not in SEARCHES:
        params["estimator"] = NETWORKS[case.network](case.train.shape, labels)
    return getattr(skboundary, name)(**params), params


def run(name, case):
    """Run all methods of an estimator, and check each result and each refusal."""
    model, params = build(name, case)
    X, y = case.train.build(), case.y.build()
    before = dict(vars(model))
    fit = model.fit_resample if hasattr(model, "fit_resample") else model.fit
    result, error = refused(lambda: fit(X, y))
    if error is not None:
        assert vars(model).keys() - before.keys() <= KEPT
        return
    assert not case.train.is_bad, "samples were accepted that hold no numbers, or missing ones"
    validate_parameter_constraints(model._parameter_constraints, params, caller_name=name)
    if name == "BiasedExtrapolationSampler":
        check_resampled(model, result, dense(X), y)
    elif name == "BoundaryCharacterizer":
        check_report(model.report_)
    for method in METHODS[name]:
        run_method(model, method, case)


def run_method(model, method, case):
    name, X = type(model).__name__, case.query.build()
    if method in ("kneighbors", "radius_neighbors", "diagnose") and X is None:
        return
    arguments = {"extract": [3], "diagnose": [X, case.y.build()]}.get(method, [X])
    call = getattr(model, method, None)
    if call is None:  # of the head that is inside
        return
    result, error = refused(lambda: call(*arguments))
    if method == "extract":
        assert error is not None or len(result) == 3
    elif error is None:
        assert not case.query.is_bad, "samples were accepted that hold no numbers, or missing ones"
        check = check_diagnosis if method == "diagnose" else CHECKS.get(method)
        check = check[name] if isinstance(check, dict) else check
        if check is not None:
            check(model, result, dense(X))
        if name in SEARCHES and method == "kneighbors":
            check_exact(model, result, dense(X), dense(case.train.build()))


def strategy(name):
    takes_network = name not in SEARCHES
    networks = [*NETWORKS] if takes_network else ["default"]
    constraints = getattr(skboundary, name)._parameter_constraints

    def is_valid(parameter, value):
        try:
            validate_parameter_constraints(constraints, {parameter: value}, caller_name=name)
        except InvalidParameterError:
            return False
        return True

    sound = [*SOUND] if takes_network else networks
    return cases(sound, networks, PARAMETERS[name], is_valid)


def search(name, n, **options):
    """Run n cases of an estimator."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    options = options | {"database": None, "deadline": None, "suppress_health_check": health}

    def one(case):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(name, case)

    return settings(max_examples=n, **options)(given(strategy(name))(one))


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(_default, "_STEPS", 3)


def test_every_parameter_of_every_estimator_is_drawn():
    left_out = {"BiasSettings"} | {name for name in skboundary.__all__ if name.endswith("Display")}
    assert {*METHODS} == {*PARAMETERS} == {*skboundary.__all__} - left_out
    for name, values in PARAMETERS.items():
        taken = {*getattr(skboundary, name)._parameter_constraints} - {"estimator", "module"}
        assert {*values} == taken, name


@pytest.mark.parametrize("name", METHODS)
def test_hostile_input(name):
    search(name, 300 // len(METHODS) + 1, derandomize=True)()


SEED = int(os.environ.get("SKBOUNDARY_SEED", secrets.randbelow(2**31)))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_more_hostile_input(name):
    print(f"SKBOUNDARY_SEED={SEED}")
    seed(SEED)(search(name, 5000 // len(METHODS) + 1))()
