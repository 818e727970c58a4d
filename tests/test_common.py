"""scikit-learn's checks and our own for every public estimator, strictly.

ESTIMATORS and EXCLUDED together hold every public estimator; XFAILS holds every check that is
expected to fail, with its reason.
"""

import copy
import inspect
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from imblearn.utils import estimator_checks as imblearn_checks
from scipy import sparse
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import estimator_checks as sklearn_checks
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

import skboundary
from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BiasSettings,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentKNNClassifierCV,
    LatentTransformer,
    LogitAdjustedClassifier,
    SubspaceMargins,
    TorchKNeighborsTransformer,
    TorchNearestNeighbors,
)
from skboundary.networks import _default
from skboundary.utils._checks._assertions import find_difference
from skboundary.utils._checks._run import fit_and_run, fresh
from skboundary.utils.estimator_checks import estimator_checks_generator
from tests import standin_device


class AnyNet(nn.Module):
    """A trained network for samples of any width, as the checks use samples of several widths."""

    def __init__(self, n_outputs, bend=torch.tanh, slope=1.0):
        super().__init__()
        self.hidden, self.head = nn.Linear(2, 8), nn.Linear(8, n_outputs)
        self.bend, self.slope = bend, slope

    def forward(self, x):
        x = x.flatten(1)
        x = torch.stack([x.mean(1), x[:, ::2].mean(1)], 1)  # two features of any sample
        return self.slope * self.head(self.bend(self.hidden(x)))


class SizedNet(nn.Sequential):
    def __init__(self, n_inputs=1, n_outputs=2):
        super().__init__(nn.Flatten(), nn.Linear(n_inputs, 32), nn.ReLU(), nn.Linear(32, n_outputs))


class FitToData(Callback):
    """Size the module by the numbers of features and classes."""

    def on_train_begin(self, net, X, y):
        net.set_params(module__n_inputs=int(np.prod(X.shape[1:])), module__n_outputs=y.max() + 1)


def skorch_net():
    return NeuralNetClassifier(
        SizedNet,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=100,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        callbacks=[FitToData()],
    )


def frozen(seed=0, bend=torch.tanh, slope=1.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FrozenNetwork(AnyNet(4, bend, slope).double())


def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression())


ESTIMATORS = {
    "BoundaryCharacterizer": BoundaryCharacterizer(random_state=0),
    "BoundaryCharacterizer-lifted": BoundaryCharacterizer(
        LogisticRegression(), n_samples=5, n_partners=2
    ),
    "BoundaryCharacterizer-frozen": BoundaryCharacterizer(frozen(), n_samples=5, n_partners=2),
    "BoundarySampleExtractor": BoundarySampleExtractor(),
    "BoundarySampleExtractor-segment": BoundarySampleExtractor(
        logistic(), method="segment", returns="distance"
    ),
    "BoundarySampleExtractor-minimal": BoundarySampleExtractor(logistic(), effort="fast"),
    "BoundarySampleExtractor-label": BoundarySampleExtractor(
        DecisionTreeClassifier(random_state=0), effort="fast", returns="class_distances"
    ),
    "BoundarySampleExtractor-pm-frozen": BoundarySampleExtractor(
        # steep, and flat nowhere: with a slope of 1 all pairs collapse, and nothing is checked
        frozen(2, torch.asinh, 10.0),
        method="pm",
        effort="fast",
        returns="perturbation",
    ),
    "BoundarySampleExtractor-score": BoundarySampleExtractor(GaussianNB(), effort="fast"),
    "BoundarySampleExtractor-deepdig-frozen": BoundarySampleExtractor(
        frozen(2, torch.asinh, 10.0), method="deepdig", effort="fast"
    ),
    "TorchNearestNeighbors": TorchNearestNeighbors(),
    "TorchNearestNeighbors-cosine": TorchNearestNeighbors(n_neighbors=3, metric="cosine"),
    "TorchKNeighborsTransformer": TorchKNeighborsTransformer(),
    "TorchKNeighborsTransformer-connectivity": TorchKNeighborsTransformer(
        mode="connectivity", n_neighbors=3, metric="cosine"
    ),
    "LatentTransformer": LatentTransformer(),
    "LatentTransformer-frozen": LatentTransformer(frozen()),
    "LatentTransformer-pipeline": LatentTransformer(
        make_pipeline(StandardScaler(), LogisticRegression())
    ),
    "LatentKNNClassifier": LatentKNNClassifier(),
    "LatentKNNClassifier-cosine": LatentKNNClassifier(
        LogisticRegression(), metric="cosine", query_weight=0.3
    ),
    "LatentKNNClassifier-skorch": LatentKNNClassifier(skorch_net()),
    "LatentKNNClassifier-pipeline": LatentKNNClassifier(
        make_pipeline(StandardScaler(), skorch_net()), average="logits"
    ),
    "LatentKNNClassifier-forest": LatentKNNClassifier(RandomForestClassifier(10, random_state=0)),
    "LatentKNNClassifier-frozen": LatentKNNClassifier(frozen()),
    "LatentKNNClassifierCV": LatentKNNClassifierCV(random_state=0),
    "LatentKNNClassifierCV-fraction": LatentKNNClassifierCV(
        LogisticRegression(),
        n_neighbors=[1, 5],
        query_weight=[0.2, 0.9],
        validation_fraction=0.4,
        refit=False,
    ),
    "SubspaceMargins": SubspaceMargins(random_state=0),
    "SubspaceMargins-pipeline": SubspaceMargins(
        make_pipeline(StandardScaler(), LogisticRegression()), max_iter=5
    ),
    "SubspaceMargins-forest": SubspaceMargins(
        RandomForestClassifier(2, random_state=0), method="label", n_components=1, max_iter=2
    ),
    "SubspaceMargins-frozen": SubspaceMargins(frozen(), subspaces="random", max_iter=5),
    "BiasedExtrapolationSampler": BiasedExtrapolationSampler(random_state=0),
    "BiasedExtrapolationSampler-specific": BiasedExtrapolationSampler(
        estimator=RandomForestClassifier(5, random_state=0),
        class_pairs="one-to-one",
        settings=BiasSettings(class_specific="proportional"),
        random_state=0,
    ),
    "BiasedExtrapolationSampler-mixed": BiasedExtrapolationSampler(
        instance_pairing="nearest",
        placement="spread",
        within_class=0.5,
        settings=BiasSettings(distance_ratio="segment"),
        random_state=0,
    ),
    "BiasedExtrapolationSampler-frozen": BiasedExtrapolationSampler(
        estimator=frozen(), bias="dbr", random_state=0
    ),
    "BiasedExtrapolationClassifier": BiasedExtrapolationClassifier(random_state=0),
    "BiasedExtrapolationClassifier-lifted": BiasedExtrapolationClassifier(
        LogisticRegression(), n_iter=1
    ),
    "LogitAdjustedClassifier": LogitAdjustedClassifier(),
    "LogitAdjustedClassifier-auto": LogitAdjustedClassifier(logistic(), tau="auto"),
}

SLOW = {
    "LatentKNNClassifierCV",  # six trainings in each fit; the configuration with one runs the same
    "BoundarySampleExtractor-deepdig-frozen",  # it trains generators in each search
    # 19 rounds for each of 13 index types; the configuration with one round runs them too
    "BiasedExtrapolationClassifier-check_estimator_sparse_array",
    "BiasedExtrapolationClassifier-check_estimator_sparse_matrix",
    # 100 samples in batches of one; the configurations with five samples run it too
    "BoundaryCharacterizer-vectors-check_batch_size_invariance",
}

EXCLUDED = {
    "BiasSettings": "parameters without fit; tests/over_sampling/test_settings.py is its suite",
    "FrozenNetwork": "needs no fit; tests/networks/test_frozen.py tests it",
}

_HASH = "joblib's hash of a module changes with every copy; check_module_untouched compares"
_CLASSES = "a trained network keeps its classes: it refuses others and predicts all of its own"
_N_ITER = "max_iter bounds the searches of transform; fit iterates nothing"
XFAILS = {
    "BoundarySampleExtractor-pm-frozen": {"check_estimators_overwrite_params": _HASH},
    "BoundarySampleExtractor-deepdig-frozen": {"check_estimators_overwrite_params": _HASH},
    "BoundaryCharacterizer-frozen": {"check_estimators_overwrite_params": _HASH},
    "LatentTransformer-frozen": {"check_estimators_overwrite_params": _HASH},
    "SubspaceMargins": {"check_transformer_n_iter": _N_ITER},
    "SubspaceMargins-pipeline": {"check_transformer_n_iter": _N_ITER},
    "SubspaceMargins-forest": {"check_transformer_n_iter": _N_ITER},
    "SubspaceMargins-frozen": {
        "check_estimators_overwrite_params": _HASH,
        "check_transformer_n_iter": _N_ITER,
    },
    "BiasedExtrapolationSampler-frozen": {"check_estimators_overwrite_params": _HASH},
    "LatentKNNClassifier-frozen": {
        "check_estimators_overwrite_params": _HASH,
        "check_classifiers_classes": _CLASSES,
        "check_classifiers_one_label": _CLASSES,
        "check_classifiers_train": "the network of this test is untrained, hence not accurate",
    },
}

# Checks that scikit-learn's generator leaves out.
EXTRA = [
    sklearn_checks.check_param_validation,
    sklearn_checks.check_dataframe_column_names_consistency,
]
EXTRA_TRANSFORMER = [
    sklearn_checks.check_transformer_get_feature_names_out,
    sklearn_checks.check_transformer_get_feature_names_out_pandas,
    sklearn_checks.check_set_output_transform,
    sklearn_checks.check_set_output_transform_pandas,
    sklearn_checks.check_global_output_transform_pandas,
]

Y3 = np.arange(40) % 3
VECTORS = make_blobs(40, 4, centers=3, random_state=0)
IMAGES = np.random.RandomState(0).rand(40, 1, 4, 4) + Y3[:, None, None, None], Y3


TRAIN, TRAINED = _default.train_default, {}


@pytest.fixture(autouse=True)
def one_training_for_all(request, monkeypatch):
    """Train the default network once per data set and seed, except for LatentTransformer."""
    if "test_own[LatentTransformer-vectors" not in request.node.nodeid:
        monkeypatch.setattr(_default, "train_default", train_once)


def train_once(X, y, **params):
    what = X.toarray() if sparse.issparse(X) else X  # 32- and 64-bit indices hold the same samples
    key = joblib.hash((type(X).__name__, what, y, params))  # memory layouts count
    if key not in TRAINED:
        TRAINED[key] = TRAIN(X, y, **params)
    return copy.deepcopy(TRAINED[key])


def param(name, *values, label, marks=()):
    if {name, f"{name}-{label}"} & SLOW:
        marks = [*marks, pytest.mark.slow]
    return pytest.param(*values, marks=marks, id=f"{name}-{label}")


def sklearn_params():
    for name, estimator in ESTIMATORS.items():
        expected = XFAILS.get(name, {})
        for item in sklearn_checks.estimator_checks_generator(
            estimator, expected_failed_checks=expected, mark="xfail", xfail_strict=True
        ):
            values, marks = getattr(item, "values", item), getattr(item, "marks", ())
            yield param(name, *values, label=values[1].func.__name__, marks=marks)


def imblearn_params():
    for name, estimator in ESTIMATORS.items():
        if not hasattr(estimator, "fit_resample"):
            continue
        for each, check in imblearn_checks.estimator_checks_generator(estimator):
            yield param(name, each, check, label=check.func.__name__)
        for check in (
            imblearn_checks.check_param_validation,
            imblearn_checks.check_dataframe_column_names_consistency,
        ):
            on_type = partial(check, type(estimator).__name__)
            yield param(name, estimator, on_type, label=check.__name__)


def extra_params():
    for name, estimator in ESTIMATORS.items():
        for check in EXTRA + EXTRA_TRANSFORMER * hasattr(estimator, "transform"):
            yield param(name, estimator, check, label=check.__name__)


def own_params():
    for name, estimator in ESTIMATORS.items():
        for data in (VECTORS, IMAGES):
            if data is IMAGES and "frozen" not in name and not name.endswith("Classifier"):
                continue  # the others take vectors only
            for item in estimator_checks_generator(estimator, data=data):
                if name.endswith("frozen") and item[1].__name__ == "check_float32_preserved":
                    continue  # this network computes in float64 for all input
                kind = "images" if data is IMAGES else "vectors"
                yield param(name, *item, label=f"{kind}-{item[1].__name__}")


# The checks in which the device of the computation matters.
ON_A_DEVICE = {
    "check_module_untouched",
    "check_parameters_not_written_back",
    "check_pickle_holds_cpu_tensors",
}


def data_of(name):
    return [VECTORS, IMAGES] if name.endswith("frozen") else [VECTORS]


def device_params():
    for name, estimator in ESTIMATORS.items():
        for data in data_of(name):
            kind = "images" if data is IMAGES else "vectors"
            for each, check in estimator_checks_generator(estimator, data=data):
                # skorch loads storages onto the device of its net, and the stand-in has none
                on_storages = "NeuralNet" in repr(each) and "pickle" in check.__name__
                if check.__name__ in ON_A_DEVICE and not on_storages:
                    yield param(name, each, check, label=f"{kind}-{check.__name__}")


@pytest.mark.parametrize("name", [param(n, n, label="device") for n in ESTIMATORS])
def test_results_on_a_device_equal_those_on_the_cpu(name, device):
    params = {"batch_size": 16} if "batch_size" in ESTIMATORS[name].get_params() else {}
    for X, y in data_of(name):
        expected = fit_and_run(fresh(ESTIMATORS[name], {**params, "device": "cpu"}), X, y)
        estimator = fresh(ESTIMATORS[name], {**params, "device": device})
        with standin_device.count() as traffic:
            results = fit_and_run(estimator, X, y)
        assert estimator.device_.type == device
        if device == "standin":
            assert traffic.launches and traffic.transfers_in and traffic.transfers_out
            for method, result in results.items():
                np.testing.assert_array_equal(result, expected[method], method, strict=True)
        assert not find_difference(estimator, results, expected)


@pytest.mark.parametrize(("estimator", "check"), list(device_params()))
def test_own_on_a_device(estimator, check, device):
    check(clone(estimator).set_params(device=device))


@pytest.mark.parametrize(
    "name", [param(n, n, label="pairs") for n in ESTIMATORS if n.startswith("BoundarySample")]
)
@pytest.mark.parametrize("integers", [False, True], ids=["floats", "integers"])
def test_extractors_find_the_boundary_in_the_data_of_our_checks(name, integers):
    for X, y in (VECTORS, IMAGES) if "frozen" in name else (VECTORS,):
        X = np.rint((X - X.min()) * (255 / np.ptp(X))) if integers else X
        extractor = clone(ESTIMATORS[name]).set_params(random_state=0).fit(X, y)
        # an untrained network has classes that a generator does not reach in 500 steps
        least = 0.1 if name in SLOW else 1.0
        assert extractor.extract_pairs(X).success.mean() >= least


@pytest.mark.parametrize(("estimator", "check"), list(sklearn_params()))
def test_sklearn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("estimator", "check"), list(imblearn_params()))
def test_imblearn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(("estimator", "check"), list(extra_params()))
def test_extra(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize(("estimator", "check"), list(own_params()))
def test_own(estimator, check):
    check(estimator)


def test_every_public_estimator_is_checked_or_excluded():
    public = {
        name
        for name in skboundary.__all__
        if inspect.isclass(getattr(skboundary, name))
        and issubclass(getattr(skboundary, name), BaseEstimator)
    }
    checked = {type(estimator).__name__ for estimator in ESTIMATORS.values()}
    assert checked | set(EXCLUDED) == public
    assert not checked & set(EXCLUDED)
    assert set(XFAILS) <= set(ESTIMATORS)
    for name in checked:
        given = ESTIMATORS[name].get_params(deep=False)
        default = type(ESTIMATORS[name])().get_params(deep=False)
        assert {**given, "random_state": None} == {**default, "random_state": None}
