import numpy as np
import pytest
import torch
from torch import nn

from skboundary import LatentTransformer
from skboundary.networks._layers import find_tap, first_tensor, flatten_latent, run_tapped


def activations(cnn, x):
    """What the layers of SmallCNN compute, written out."""
    f = cnn.features
    conv = f[0](x)
    maps = f[5](f[4](f[3](torch.relu(f[1](conv.clone())))))
    flat = maps.flatten(1)
    hidden = cnn.hidden(flat)
    return {"conv": conv, "maps": maps, "flat": flat, "hidden": hidden, "relu": torch.relu(hidden)}


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("auto", "relu"),
        ("head:input", "relu"),
        ("hidden", "hidden"),
        ("hidden:input", "flat"),
        ("features", "maps"),
        ("features.0", "conv"),  # an in-place activation follows two layers later
        (0, "conv"),
        (-2, "relu"),  # dropout, which does nothing in evaluation mode
        (-3, "hidden"),
        (lambda net, x: torch.relu(net.hidden(net.features(x).flatten(1))), "relu"),
    ],
)
@pytest.mark.parametrize("logits", [True, False])
def test_every_form_of_layer(cnn, digits, layer, name, logits):
    x = torch.tensor(digits[0][:5])
    with torch.no_grad():
        expected = activations(cnn, x)[name]
        tap, first, output = find_tap(cnn, layer, x[:1])
        torch.testing.assert_close(first, expected[:1])
        torch.testing.assert_close(output, cnn(x[:1]))
        latent, output = run_tapped(cnn, layer, tap, x, logits=logits)
    torch.testing.assert_close(latent, expected)
    assert (output is None) != logits
    if logits:
        torch.testing.assert_close(output, cnn(x))


def test_inplace_layer_does_not_change_what_was_caught():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    tap, first, _ = find_tap(net, "0", x[:1])
    latent, _ = run_tapped(net, "0", tap, x, logits=True)
    assert (latent < 0).any()
    torch.testing.assert_close(latent, net[0](x))
    torch.testing.assert_close(first, net[0](x[:1]))


class Twice(nn.Module):
    """One linear layer that runs twice, an unused one, and control flow on the data."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(3, 3)
        self.spare = nn.Linear(3, 3)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.shared(self.relu(self.shared(x)))


def test_a_layer_that_runs_twice_means_its_last_run():
    net, x = Twice(), torch.randn(4, 3)
    inner = torch.relu(net.shared(x))
    outer = net.shared(inner)
    forms = {"shared": outer, "shared:input": inner, "auto": inner, 0: net.shared(x), -1: outer}
    for layer, expected in forms.items():
        tap, _, _ = find_tap(net, layer, x[:1])
        for logits in (True, False):
            torch.testing.assert_close(run_tapped(net, layer, tap, x, logits=logits)[0], expected)


def test_nothing_runs_after_the_layer_when_logits_are_not_needed(cnn, digits):
    x = torch.tensor(digits[0][:5])
    tap, _, _ = find_tap(cnn, "hidden", x[:1])
    ran = []
    cnn.head.register_forward_hook(lambda *_: ran.append(1))
    run_tapped(cnn, "hidden", tap, x, logits=False)
    assert not ran
    run_tapped(cnn, "hidden", tap, x, logits=True)
    assert ran


@pytest.mark.parametrize(
    ("net", "layer", "message"),
    [
        (Twice(), "shard", r"layer='shard' is not a layer.*Closest names: shared"),
        (Twice(), "shared:output", "is not a layer"),
        (Twice(), "spare", r"'spare' does not run.*that do: shared, relu"),
        (Twice(), 3, r"layer=3 is out of range: the network runs 3 leaf modules.*-3 to 2"),
        (Twice(), -4, "layer=-4 is out of range"),
        (nn.Sequential(nn.ReLU()), "auto", "this network runs none.*Name a layer .0. or"),
    ],
)
def test_a_wrong_layer_is_explained(net, layer, message):
    with pytest.raises(ValueError, match=message):
        LatentTransformer(net, layer=layer).fit(np.ones((4, 3), np.float32))


def test_first_tensor():
    t = torch.ones(1)
    for value in (t, (None, t), {"aux": None, "logits": t}, [t]):
        assert first_tensor(value) is t
    with pytest.raises(TypeError, match="contains no tensor"):
        first_tensor("text")
    with pytest.raises(TypeError, match="contains no tensor"):
        first_tensor((1, 2))


def test_pool_averages_over_space():
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert flatten_latent(maps, None).shape == (2, 12)
    torch.testing.assert_close(flatten_latent(maps, "avg"), maps.mean((2, 3)))
    assert flatten_latent(maps[:, :, 0, 0], "avg").shape == (2, 3)
    assert flatten_latent(torch.ones(4), None).shape == (4, 1)


def test_a_layer_whose_first_axis_is_not_the_batch_is_refused():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn, self.head = nn.Identity(), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.turn(x.T).T)

    with pytest.raises(ValueError, match=r"TimeFirst gives .* \(2, 3\) for 3 samples"):
        LatentTransformer(TimeFirst(), layer="turn").fit(np.ones((3, 2), np.float32))


def test_keyword_inputs_and_structured_outputs_are_caught():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Identity()
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            return {"loss": None, "logits": self.head(input=self.inner(x))}

    net, X = Keyword(), np.ones((3, 2), np.float32)
    assert np.array_equal(LatentTransformer(net).fit_transform(X), X)
    assert np.array_equal(LatentTransformer(net, layer="head:input").fit_transform(X), X)
