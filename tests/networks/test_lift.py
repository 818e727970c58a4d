import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC

from skboundary.networks._factory import as_network

MODELS = [
    LogisticRegression(max_iter=500),
    LogisticRegression(fit_intercept=False),
    LinearSVC(),
    RidgeClassifier(),
    SGDClassifier(random_state=0),
    SGDClassifier(loss="log_loss", random_state=0),
    SGDClassifier(loss="modified_huber", random_state=0),
    MLPClassifier((8, 6), max_iter=30, random_state=0),
    MLPClassifier((8,), activation="tanh", max_iter=30, random_state=0),
    MLPClassifier((8,), activation="logistic", max_iter=30, random_state=0),
    MLPClassifier((8,), activation="identity", max_iter=30, random_state=0),
]
STEPS = [
    [],
    [StandardScaler()],
    [StandardScaler(with_mean=False), "passthrough", MinMaxScaler((-1, 2))],
    [StandardScaler(with_std=False), PCA(3)],
    [PCA(2, whiten=True), StandardScaler()],
]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", STEPS, ids=len)
@pytest.mark.parametrize("model", MODELS, ids=repr)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_lifted_logits_are_the_decision_function(iris, model, steps, n_classes, dtype):
    X, y = iris[0].astype(dtype), np.array(["u", "v", "w"])[np.minimum(iris[1], n_classes - 1)]
    fitted, network = as_network(make_pipeline(*steps, model), X, y)
    assert network.differentiable and list(network.classes_) == list(np.unique(y))
    latent, logits = network.latent_and_logits(X)
    assert logits.dtype == getattr(torch, np.dtype(dtype).name)
    tolerance = {"rtol": 1e-5, "atol": 1e-5 if dtype == np.float64 else 1e-4}
    if hasattr(fitted, "decision_function"):
        scores = fitted.decision_function(X)
        expected = np.c_[-scores / 2, scores / 2] if scores.ndim == 1 else scores
        np.testing.assert_allclose(logits.numpy(), expected, **tolerance)
    if hasattr(fitted, "predict_proba"):
        np.testing.assert_allclose(network.proba(logits), fitted.predict_proba(X), **tolerance)
    if not isinstance(model, MLPClassifier):  # the latent space is the input of the last step
        expected = fitted[:-1].transform(X) if steps else X
        np.testing.assert_allclose(latent, expected, **tolerance)


def test_gradients_reach_raw_x(iris):
    X, y = iris
    fitted, network = as_network(make_pipeline(StandardScaler(), LogisticRegression()), X, y)
    x = torch.tensor(X[:2], requires_grad=True)
    with network.differentiable_logits() as logits:
        logits(x)[:, 1].sum().backward()
    expected = fitted[-1].coef_[1] / fitted[0].scale_
    np.testing.assert_allclose(x.grad.numpy(), np.tile(expected, (2, 1)), rtol=1e-10)


@pytest.mark.parametrize("step", [PolynomialFeatures(2), MinMaxScaler(clip=True)], ids=repr)
def test_a_step_that_is_not_affine_runs_but_has_no_gradient(iris, step):
    X, y = iris
    fitted, network = as_network(make_pipeline(step, LogisticRegression(max_iter=1000)), X, y)
    assert not network.differentiable
    np.testing.assert_allclose(
        network.proba(network.logits(X)), fitted.predict_proba(X), atol=1e-12
    )
    np.testing.assert_allclose(network.latent(X), fitted[:-1].transform(X))
    with pytest.raises(TypeError, match=f"{type(step).__name__} has no gradient"):
        with network.differentiable_logits():
            pass


def test_a_subclass_is_not_lifted(iris):
    class Odd(LogisticRegression):
        def predict_proba(self, X):
            return np.full((len(X), 3), 1 / 3)

    _, network = as_network(Odd(max_iter=500), *iris)
    assert not network.differentiable
    np.testing.assert_allclose(network.proba(network.logits(iris[0])), 1 / 3)


def test_modified_huber_without_any_score_is_uniform():
    from skboundary.networks._outputs import modified_huber

    np.testing.assert_allclose(modified_huber(torch.full((2, 3), -5.0)), 1 / 3)


def test_sigmoids_that_vanish_are_normalized_all_the_same():
    from skboundary.networks._outputs import one_vs_rest

    logits = torch.tensor([[-2000.0, -1999.0, -2001.0]])
    np.testing.assert_allclose(one_vs_rest(logits), logits.softmax(1), rtol=1e-6)
