"""One dtype rule: points and outputs are float32 at least, whatever the network computes in."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skboundary import FrozenNetwork
from skboundary.networks._factory import as_network


class Odd(nn.Module):
    """A network of two layers that may change its precision half-way and at its end."""

    def __init__(self, body, head=None, end=None, autocast=False):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.body, self.head = nn.Linear(4, 16), nn.Linear(16, 3)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=g))
        self.body.to(body)
        self.head.to(head or body)
        self.end, self.autocast = end, autocast

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            z = torch.tanh(self.body(x))
            out = self.head(z if self.autocast else z.to(self.head.weight.dtype))
        return out.to(self.end or out.dtype)


f16, b16, f32, f64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
ODD = {
    "half": (Odd(f16), f32, f16),
    "bfloat": (Odd(b16), f32, b16),
    "half, float logits": (Odd(f16, end=f32), f32, f16),
    "autocast": (Odd(f32, autocast=True), f32, b16),
    "double head": (Odd(f32, head=f64), f64, f32),
    "double logits": (Odd(f32, end=f64), f64, f32),
    "half logits": (Odd(f32, end=f16), f32, f16),
    "float": (Odd(f32), f32, f32),
    "double": (Odd(f64), f64, f64),
}


@pytest.mark.parametrize("name", ODD)
def test_points_and_outputs_are_float32_at_least(name):
    module, out, coarsest = ODD[name]
    X, y = load_iris(return_X_y=True)
    _, network = as_network(FrozenNetwork(module), X, y)
    latent, logits = network.latent_and_logits(X)
    assert logits.dtype == network.logits(X).dtype == out
    assert latent.dtype == torch.promote_types(f32, module.head.weight.dtype)
    assert network.input_dtype == torch.promote_types(f32, module.body.weight.dtype)
    assert network.eps == torch.finfo(coarsest).eps
    np.testing.assert_allclose(network.proba(logits).sum(1), 1, rtol=1e-6)
    exact = FrozenNetwork(Odd(f64)).decision_function(X)
    assert np.abs(logits.numpy() - exact).max() < 4 * network.eps * np.abs(exact).max()
    weight, bias = network.last_linear()
    assert weight.dtype == bias.dtype == latent.dtype
    with network.differentiable_logits() as forward, torch.enable_grad():
        x = torch.tensor(X, dtype=network.input_dtype, requires_grad=True)
        logits = forward(x)
        (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert logits.dtype == out and gradient.dtype == x.dtype and gradient.abs().sum() > 0


@pytest.mark.parametrize("dtype", [f16, f32])
def test_a_float64_step_before_the_network_keeps_float64_points(dtype):
    X, y = load_iris(return_X_y=True)
    scaler = StandardScaler().fit(X)
    for given, points in ((X, f64), (X.astype(np.float32), f32)):
        pipe = make_pipeline(scaler, FrozenNetwork(Odd(dtype)))
        _, network = as_network(FrozenEstimator(pipe), given, y)
        assert network.input_dtype == points
        assert network.logits(given).dtype == network.dtype == f32
        assert network.eps == torch.finfo(dtype).eps


@pytest.mark.parametrize("model", [RandomForestClassifier(5), LogisticRegression(max_iter=999)])
def test_eps_of_what_is_no_network(model):
    X, y = load_iris(return_X_y=True)
    for dtype in (np.float32, np.float64):
        _, network = as_network(model, X.astype(dtype), y, random_state=0)
        assert network.eps == np.finfo(dtype).eps and network.input_dtype == network.dtype
