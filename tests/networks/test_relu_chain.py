"""Networks as chains of affine maps with ReLU, and the reasons why some are none."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from torch import nn

from skboundary import FrozenNetwork
from skboundary.networks import as_network
from skboundary.networks._relu_chain import NotAChainError, relu_chain

CPU = torch.device("cpu")


def chain_of(estimator, X, y=None):
    network = as_network(estimator, X, y, latent=False, labels=True, random_state=0, device="cpu")[
        1
    ]
    return network, relu_chain(network, X.shape[1:], CPU)


def run(layers, X):
    x = torch.as_tensor(X, dtype=torch.float64).flatten(1)
    for weight, bias in layers[:-1]:
        x = (x @ weight.T + bias).relu()
    return x @ layers[-1][0].T + layers[-1][1]


@pytest.mark.parametrize(
    "estimator, n_layers",
    [
        (LogisticRegression(max_iter=500), 1),
        (SGDClassifier(random_state=0), 1),
        (make_pipeline(StandardScaler(), LogisticRegression()), 1),
        (MLPClassifier((8, 5), max_iter=20, random_state=0), 3),
        (make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=20, random_state=0)), 2),
        (None, 3),  # the default network
    ],
)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_that_are_chains(iris, estimator, n_layers, binary):
    X, y = iris
    if binary:
        X, y = X[50:], y[50:]
    network, layers = chain_of(estimator, X, y)
    assert len(layers) == n_layers
    torch.testing.assert_close(run(layers, X), network.logits(X).double(), rtol=1e-9, atol=1e-9)


def seeded(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*[make() for make in layers])


IMAGES = np.random.default_rng(0).normal(size=(6, 2, 3, 4))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Flatten, lambda: nn.Linear(24, 5), nn.ReLU, nn.Dropout, lambda: nn.Linear(5, 3)],
        [nn.ReLU, nn.Flatten, lambda: nn.Linear(24, 3)],
        [nn.Identity, nn.Flatten, lambda: nn.Linear(24, 3), nn.ReLU],
        [lambda: nn.Linear(4, 2, bias=False), nn.ReLU, nn.Flatten, lambda: nn.Linear(12, 3)],
        [lambda: nn.Flatten(2), lambda: nn.Linear(12, 2), nn.Flatten, lambda: nn.Linear(4, 3)],
        [lambda: seeded(nn.Flatten, lambda: nn.Linear(24, 4)), nn.ReLU, lambda: nn.Linear(4, 1)],
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modules_of_images(layers, dtype):
    module = seeded(*layers).to(dtype)
    network, found = chain_of(FrozenNetwork(module), IMAGES)
    rtol = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(
        run(found, IMAGES), network.logits(IMAGES).double(), rtol=rtol, atol=1e-5
    )


def test_classes_are_in_their_order():
    module = seeded(lambda: nn.Linear(4, 3)).double()
    X = np.random.default_rng(0).normal(size=(9, 4))
    network, layers = chain_of(FrozenNetwork(module, classes=["b", "c", "a"]), X)
    assert network.classes_.tolist() == ["a", "b", "c"]
    torch.testing.assert_close(run(layers, X), network.logits(X))


def test_a_preprocess_that_is_a_module_is_part_of_the_chain():
    module, before = seeded(lambda: nn.Linear(4, 3)).double(), nn.ReLU()
    X = np.random.default_rng(0).normal(size=(9, 4))
    network, layers = chain_of(FrozenNetwork(module, preprocess=before), X)
    torch.testing.assert_close(run(layers, X), network.logits(X))


class Sub(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 2


def hooked():
    layer = nn.Linear(4, 3)
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    return layer


def patched():
    layer = nn.Linear(4, 3)
    layer.forward = lambda x: x[:, :3] ** 2
    return layer


@pytest.mark.parametrize(
    "estimator, reason",
    [
        (RandomForestClassifier(3), "RandomForestClassifier is not a chain"),
        (
            make_pipeline(FunctionTransformer(np.abs), LogisticRegression()),
            "the step FunctionTransformer of the pipeline is not known to be affine",
        ),
        (nn.Sequential(nn.Linear(4, 3), nn.Tanh()), "a layer Tanh is neither linear nor ReLU"),
        (nn.Sequential(Sub(4, 3)), "a layer Sub is neither linear nor ReLU"),
        (nn.Sequential(hooked()), "a layer Linear has hooks"),
        (nn.Sequential(patched()), "a layer Linear has hooks, or a forward of its own"),
        (nn.Sequential(nn.Linear(4, 3)).bfloat16(), "Sequential computes in half precision"),
        (
            FrozenNetwork(nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), output="proba"),
            "the outputs of Sequential are not declared as logits",
        ),
        (
            FrozenNetwork(nn.Linear(4, 3), preprocess=torch.abs),
            "preprocess of Linear is a function",
        ),
    ],
)
def test_networks_that_are_no_chain(iris, estimator, reason):
    with pytest.raises(NotAChainError, match=reason):
        chain_of(estimator, *iris)
