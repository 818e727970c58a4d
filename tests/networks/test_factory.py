import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
)
from skboundary.networks._factory import as_network


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))


def skorch_net(module=None, **params):
    defaults = {"criterion": nn.CrossEntropyLoss, "max_epochs": 40, "lr": 0.1, "verbose": 0}
    return NeuralNetClassifier(module or Small, **{**defaults, **params})


# ------------------------------------------------------- who is refitted, and who is not


def test_a_module_is_used_as_it_is(mlp, iris):
    estimator, network = as_network(mlp, *iris)
    assert isinstance(estimator, FrozenNetwork) and estimator.module is mlp
    assert network.module is mlp


@pytest.mark.parametrize("steps", [[], [StandardScaler()]])
def test_a_frozen_estimator_is_used_as_it_is(iris, steps):
    X, y = iris
    fitted = make_pipeline(*steps, LogisticRegression(max_iter=1000)).fit(X[::2], y[::2])
    frozen = FrozenEstimator(fitted)
    estimator, network = as_network(frozen, X, y)
    assert estimator is frozen
    np.testing.assert_allclose(network.proba(network.logits(X)), fitted.predict_proba(X))


def test_an_unfitted_frozen_estimator_is_refused(iris):
    with pytest.raises(NotFittedError):
        as_network(FrozenEstimator(LogisticRegression()), *iris)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomForestClassifier(5, random_state=0),
        lambda: LogisticRegression(max_iter=999),
        skorch_net,
        lambda: make_pipeline(StandardScaler(), skorch_net()),
    ],
    ids=["forest", "linear", "skorch", "pipeline"],
)
def test_anything_else_is_cloned_and_fitted(make, iris):
    X, y = iris
    given = make()
    estimator, network = as_network(given, X, y, random_state=0)
    assert estimator is not given and type(estimator) is type(given)
    assert not hasattr(given, "classes_") and not hasattr(given, "module_")
    assert (network.classes_[network.logits(X).argmax(1)] == y).mean() > 0.8
    # already fitted: still cloned and fitted anew
    again, _ = as_network(estimator, X[::2], y[::2], random_state=0)
    assert again is not estimator


def test_the_default_learns_tabular_data(iris):
    X, y = iris
    names = np.array(["x", "y", "z"])[y]
    estimator, network = as_network(None, X * [1, 1000, 1, 1e-3], names, random_state=0)
    assert isinstance(estimator, FrozenNetwork)
    assert (estimator.predict(X * [1, 1000, 1, 1e-3]) == names).mean() > 0.95
    assert network.dtype == torch.float64
    _, network = as_network(None, X.astype(np.float32), y, random_state=0)
    assert network.dtype == torch.float32


def test_the_default_is_seeded_and_touches_no_global_generator(iris):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    logits = [as_network(None, *iris, random_state=s)[1].logits(iris[0]) for s in (0, 0, 1)]
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_the_default_accepts_images_sparse_samples_and_constant_columns(digits):
    X, y = digits
    _, network = as_network(None, X, y, random_state=0)
    assert (network.logits(X).argmax(1).numpy() == y).mean() > 0.99
    flat = sparse.csr_matrix(X.reshape(len(X), -1))
    _, network_sparse = as_network(None, flat, y, random_state=0)
    torch.testing.assert_close(network_sparse.logits(flat), network.logits(X))


def test_one_class_is_too_few_for_the_default(iris):
    with pytest.raises(ValueError, match="y has 1 class.*at least 2"):
        as_network(None, iris[0], np.zeros(150))


# ----------------------------------------------------------------------- skorch on our side


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("labels", [["a", "b", "c"], [-3, 5, 50]])
def test_skorch_takes_any_labels_and_dtypes(iris, labels, dtype):
    X, y = (iris[0] * 10).astype(dtype), np.array(labels)[iris[1]]
    _, network = as_network(skorch_net(lr=0.01), X, y, random_state=0)
    assert list(network.classes_) == sorted(labels)
    assert (network.classes_[network.logits(X).argmax(1)] == y).mean() > 0.6


def test_skorch_is_seeded(iris):
    runs = [
        as_network(
            make_pipeline(StandardScaler(), skorch_net(iterator_train__shuffle=True)),
            *iris,
            random_state=s,
        )[1].logits(iris[0])
        for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_early_stopping_of_skorch_ends_the_training(iris):
    X, y = iris
    # skorch ends a training by KeyboardInterrupt
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, threshold_mode="abs")
    fitted, _ = as_network(skorch_net(callbacks=[stop], max_epochs=9), X, y, random_state=0)
    assert len(fitted.history) == 3


class Interrupting(Callback):
    """Raises KeyboardInterrupt itself, or lets that of a signal through after it has cleaned up."""

    def __init__(self, by):
        self.by = by

    def on_epoch_end(self, net, **_):
        try:
            if self.by == "statement":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)
        except KeyboardInterrupt:
            self.clean = True
            raise
        finally:
            self.ended = True


@pytest.mark.parametrize("by", ["statement", "signal"])
def test_a_callback_that_cleans_up_and_raises_again(by, iris):
    X, y = iris
    net = skorch_net(callbacks=[Interrupting(by)], max_epochs=9)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if by == "signal":
            with pytest.raises(KeyboardInterrupt):
                as_network(net, X, y, random_state=0)
        else:
            assert len(as_network(net, X, y, random_state=0)[0].history) == 1
    finally:
        signal.signal(signal.SIGINT, handler)


def test_a_skorch_net_in_nested_pipelines_is_seeded_cast_and_encoded(iris):
    X, y = iris[0], np.array(["a", "b", "c"])[iris[1]]
    flat = make_pipeline(StandardScaler(), StandardScaler(), skorch_net())
    nested = make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), skorch_net()))
    deeper = make_pipeline(StandardScaler(), make_pipeline(nested))
    state = torch.get_rng_state()
    found = [as_network(pipe, X, y, random_state=s)[1] for pipe in (flat, nested) for s in (0, 1)]
    logits = [network.logits(X) for network in found]
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(logits[:2], logits[2:])
    assert not torch.equal(logits[2], logits[3]) and found[2].classes_.tolist() == [*"abc"]
    fitted, network = as_network(deeper, X, y, random_state=0)
    assert (network.classes_[network.logits(X).argmax(1)] == y).mean() > 0.8
    assert type(fitted[-1][-1][-1][-1]) is NeuralNetClassifier  # no stand-in is left behind


# ----------------------------------------------------------------------- other estimators


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (Ridge(), "Ridge .regressor"),
        (make_pipeline(StandardScaler(), Ridge()), "Ridge .regressor"),
        (FrozenEstimator(Ridge()), "Ridge .regressor"),
        (GridSearchCV(Ridge(), {"alpha": [1]}), "GridSearchCV .regressor"),
        (NeuralNetRegressor(Small, verbose=0), "NeuralNetRegressor .regressor"),
        (KMeans(2), "KMeans .clusterer"),
        (IsolationForest(), "IsolationForest .outlier detector"),
    ],
    ids=lambda m: getattr(type(m), "__name__", None),
)
@pytest.mark.parametrize(
    "host",
    [
        LatentKNNClassifier,
        LatentTransformer,
        BoundarySampleExtractor,
        SubspaceMargins,
        BoundaryCharacterizer,
        BiasedExtrapolationClassifier,
    ],
)
def test_other_kinds_of_estimators_are_refused_in_one_sentence(iris, host, model, kind):
    with pytest.raises(
        ValueError, match=f"{kind}. is not a classifier. Give .* predict and classes_"
    ):
        host(model).fit(*iris)


def test_the_sampler_refuses_a_regressor(iris):
    with pytest.raises(ValueError, match="Ridge .regressor. is not a classifier"):
        BiasedExtrapolationSampler(estimator=Ridge()).fit_resample(iris[0][:130], iris[1][:130])


def test_an_estimator_without_classes_is_refused(iris):
    class Constant(BaseEstimator):
        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.zeros(len(X))

    with pytest.raises(ValueError, match="Constant has no classes_ after fit"):
        LatentKNNClassifier(Constant()).fit(*iris)
    with pytest.raises(ValueError, match="implementing 'fit' and 'predict'.*Got PCA"):
        LatentKNNClassifier(PCA()).fit(*iris)


class Softmax(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 3), nn.Softmax(1))


@pytest.mark.parametrize(
    ("net", "n_classes"),
    [
        (NeuralNetClassifier(Softmax, max_epochs=30, verbose=0), 3),  # NLLLoss: probabilities
        (skorch_net(), 3),
        (NeuralNetBinaryClassifier(nn.Linear(4, 1), max_epochs=30, verbose=0), 2),
        (
            NeuralNetBinaryClassifier(
                nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()),
                criterion=nn.BCELoss,
                max_epochs=30,
                verbose=0,
            ),
            2,
        ),
    ],
    ids=["nll", "cross entropy", "bce logits", "bce"],
)
def test_the_criterion_tells_what_the_net_ends_in(net, n_classes, iris):
    X, y = iris[0].astype(np.float32), np.minimum(iris[1], n_classes - 1)
    fitted, network = as_network(net, X, y, random_state=0)
    # BCELoss: skorch's own predict_proba passes the probability of class 1 on
    expected = fitted.predict_proba(X)
    np.testing.assert_allclose(network.proba(network.logits(X)), expected, atol=1e-5)
    assert torch.isfinite(network.logits(X)).all()


def test_a_trained_skorch_net_keeps_its_classes(iris):
    X, y = iris[0].astype(np.float32), np.array([7, 5, 9])[iris[1]]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = skorch_net(classes=[7, 5, 9]).fit(X, iris[1])
    _, network = as_network(FrozenEstimator(net), X, y)
    assert list(network.classes_) == [5, 7, 9]
    np.testing.assert_allclose(
        network.proba(network.logits(X)), net.predict_proba(X)[:, [1, 0, 2]], atol=1e-6
    )


def test_a_trained_skorch_net_in_a_pipeline_keeps_its_classes(iris):
    X, y = iris[0].astype(np.float32), np.array([7, 5, 9])[iris[1]]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = skorch_net(classes=[7, 5, 9]).fit(X, iris[1])
    _, network = as_network(make_pipeline(FunctionTransformer(), FrozenEstimator(net)), X, y)
    assert (network.classes_[network.logits(X).argmax(1)] == y).mean() > 0.8


def test_imblearn_pipelines_resample_in_fit_only(iris):
    X, y = iris[0][:120], iris[1][:120]
    pipe = make_imblearn_pipeline(
        StandardScaler(), RandomOverSampler(random_state=0), skorch_net(max_epochs=5)
    )
    _, network = as_network(pipe, X, y, random_state=0)
    assert len(network.logits(X)) == 120 and network.differentiable


def test_device_is_handed_to_skorch(iris):
    given = skorch_net(device="meta")
    fitted, _ = as_network(given, *iris, device="cpu", random_state=0)
    assert fitted.device == "cpu" and given.device == "meta"


# ---------------------------------------------------------------------- device and dtype


def test_the_hosts_device_rules(mlp, iris):
    net = FrozenNetwork(mlp, device="cuda:99")
    assert LatentTransformer(net, device="cpu").fit(iris[0]).device_ == torch.device("cpu")
    with pytest.raises(ValueError, match="cuda:99"):
        LatentTransformer(net).fit(iris[0])
    with pytest.raises(ValueError, match="cuda:98"):
        LatentTransformer(net, device="cuda:98").fit(iris[0])


def test_the_networks_batch_size_serves_a_host_that_has_none(mlp, iris):
    assert as_network(FrozenNetwork(mlp, batch_size=7), *iris)[1].batch_size == 7
    assert as_network(FrozenNetwork(mlp, batch_size=7), *iris, batch_size=9)[1].batch_size == 9


# ------------------------------------------------------------------------------- classes


def test_labels_outside_a_module_without_classes_are_refused(mlp, iris):
    X, y = iris
    clf = LatentKNNClassifier(mlp)
    assert list(clf.fit(X[y < 2], y[y < 2]).classes_) == [0, 1, 2]  # a fold may lack some
    assert list(clf.fit(X).classes_) == [0, 1, 2]
    for bad in (y + 1, np.array(["a", "b", "c"])[y], y - 1):
        with pytest.raises(ValueError, match=r"y holds .* FrozenNetwork\(module, classes=...\)"):
            clf.fit(X, bad)
    LatentTransformer(mlp).fit(X, np.array(["a", "b", "c"])[y])  # a transformer reads no labels


# --------------------------------------------------------------------------- black boxes


@pytest.mark.parametrize(
    "model",
    [RandomForestClassifier(10, random_state=0), KNeighborsClassifier(), SVC()],
    ids=repr,
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_black_boxes_give_scores_and_x(model, n_classes, iris):
    X, y = iris[0], np.minimum(iris[1], n_classes - 1)
    fitted, network = as_network(make_pipeline(PolynomialFeatures(2), model), X, y)
    latent, logits = network.latent_and_logits(X)
    np.testing.assert_allclose(latent, fitted[0].transform(X))
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(network.proba(logits), fitted.predict_proba(X), atol=1e-12)
    else:
        scores = fitted.decision_function(X)
        scores = np.c_[-scores / 2, scores / 2] if scores.ndim == 1 else scores
        np.testing.assert_allclose(logits, scores)
    with pytest.raises(TypeError, match="has no gradient"), network.differentiable_logits():
        pass


def test_a_classifier_that_only_predicts(iris):
    class Plain:
        classes_ = np.array(["b", "a"])

        def fit(self, X, y):
            return self

        def predict(self, X):
            return np.where(X[:, 2] > 2, "a", "b")

    X = iris[0]
    _, network = as_network(FrozenEstimator(Plain().fit(X, None)), X, None)
    assert list(network.classes_) == ["a", "b"]
    np.testing.assert_allclose(network.proba(network.logits(X))[:, 0], X[:, 2] > 2, atol=1e-12)


def test_a_black_box_has_no_layers(iris):
    with pytest.raises(ValueError, match="RandomForestClassifier has no layers. Use layer='auto'"):
        LatentTransformer(RandomForestClassifier(2), layer="conv1").fit(*iris)


def test_frames_reach_a_pipeline_that_selects_columns(iris):
    X = pd.DataFrame(iris[0], columns=["a", "b", "c", "d"])
    X = X.assign(kind=np.array(["x", "y"])[iris[1] % 2])
    pipe = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["kind"]), (StandardScaler(), ["a", "c"])),
        LogisticRegression(),
    )
    clf = LatentKNNClassifier(pipe, query_weight=1.0).fit(X, iris[1])
    np.testing.assert_allclose(clf.predict_proba(X), clf.estimator_.predict_proba(X))
    net_pipe = make_pipeline(pipe[0], skorch_net(nn.Linear(4, 3), max_epochs=2))
    assert LatentTransformer(net_pipe, random_state=0).fit_transform(X, iris[1]).shape == (150, 4)


def test_random_state_reaches_the_random_parameters_of_the_classifier(iris):
    pipe = make_pipeline(PCA(2), RandomForestClassifier(5), memory=None)
    a, b = (LatentKNNClassifier(pipe, random_state=0).fit(*iris) for _ in range(2))
    seeds = {name: v for name, v in a.estimator_.get_params().items() if "random_state" in name}
    assert len(seeds) == 2 and len(set(seeds.values())) == 2 and None not in seeds.values()
    np.testing.assert_array_equal(a.predict_proba(iris[0]), b.predict_proba(iris[0]))
    c = LatentKNNClassifier(pipe, random_state=1).fit(*iris)
    assert (a.predict_proba(iris[0]) != c.predict_proba(iris[0])).any()
    assert pipe[1].random_state is None


def test_a_random_state_of_the_classifier_is_kept(iris):
    forest = RandomForestClassifier(5, random_state=7)
    clf = LatentKNNClassifier(forest, random_state=0).fit(*iris)
    assert clf.estimator_.random_state == 7
    clf = LatentKNNClassifier(RandomForestClassifier(5)).fit(*iris)
    assert clf.estimator_.random_state is None
