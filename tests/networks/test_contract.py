"""What enters and leaves a network: shapes, integers, finite floats, memory, messages."""

import copy
import gc
import io
import pickle
import weakref

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from joblib.externals.loky.backend.reduction import dumps as dumps_by_value
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skboundary import (
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
)
from skboundary.networks._factory import as_network
from skboundary.networks._module_state import on_device
from skboundary.utils._checks._modules import module_state


def seeded(module):
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return module


class Net(nn.Module):
    """Two layers, and something done to the logits, which it may look up in x."""

    def __init__(self, n_outputs=3, end=lambda out, x: out, between=lambda z, x: z):
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, n_outputs)
        self.end, self.between = end, between  # functions, not modules
        seeded(self)

    def forward(self, x):
        return self.end(self.head(self.between(torch.tanh(self.body(x)), x)), x)


@pytest.fixture
def X(iris):
    return iris[0].astype(np.float32)


# ------------------------------------------------------------------------------- squeezing


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 33])
def test_a_network_that_squeezes_is_the_network_that_does_not(X, n_outputs, n):
    squeezing = FrozenNetwork(Net(n_outputs, lambda out, x: out.squeeze()), batch_size=16)
    plain = FrozenNetwork(Net(n_outputs), batch_size=16)
    for method in ("predict", "predict_proba", "decision_function"):
        got, want = getattr(squeezing, method)(X[:n]), getattr(plain, method)(X[:n])
        np.testing.assert_array_equal(got, want)
    host = LatentKNNClassifier(squeezing, n_neighbors=1).fit(X[:n], np.arange(n) % 2)
    assert host.predict(X[:1]).shape == (1,)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_a_layer_that_is_squeezed(X, batch_size):
    net = Net(between=lambda z, x: z.squeeze())
    want = LatentTransformer(Net(), layer="head:input").fit(X).transform(X)
    model = LatentTransformer(net, layer="head:input", batch_size=batch_size)
    for n in (1, 2, 150):
        np.testing.assert_allclose(model.fit(X[:n]).transform(X), want, atol=1e-5)


# -------------------------------------------------------------------------------- integers


class Tokens(nn.Module):
    """A mean of embeddings; `first` says what is done to the tokens before."""

    def __init__(self, first=lambda x: x):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(6, 8))
        self.flat, self.embedding, self.head = nn.Flatten(), nn.Embedding(50, 8), nn.Linear(8, 3)
        self.first = first
        seeded(self)

    def forward(self, x):
        x = self.flat(self.first(x))
        return self.head(torch.tanh(self.embedding(x) + self.place).mean(1))


TOKENS = np.random.default_rng(0).integers(0, 50, (40, 6))


@pytest.mark.parametrize("dtype", ["i8", "i4", "u1", "u2", "u8", ">i4"])
@pytest.mark.parametrize("frame", [False, True])
def test_tokens_reach_an_embedding_as_integers(dtype, frame):
    net, rows = Tokens(), TOKENS.astype(dtype)
    rows = pd.DataFrame(rows.astype(rows.dtype.newbyteorder("="))) if frame else rows
    with torch.no_grad():
        want = net(torch.tensor(TOKENS))
    np.testing.assert_allclose(FrozenNetwork(net).decision_function(rows), want)
    y = want.argmax(1).numpy()
    for estimator in (net, FrozenNetwork(net, batch_size=1)):
        assert LatentTransformer(estimator).fit_transform(rows).shape == (40, 8)
        host = LatentKNNClassifier(estimator, query_weight=1.0).fit(rows, y)
        assert np.array_equal(host.predict(rows), y)


def test_integers_are_kept_with_input_dtype_keep():
    def one_hot(x):
        return nn.functional.one_hot(x, 50).argmax(-1)

    net = Tokens(one_hot)
    with pytest.raises(ValueError, match="Tokens fails .*FrozenNetwork.input_dtype='keep'"):
        FrozenNetwork(net).predict(TOKENS)
    kept = FrozenNetwork(net, input_dtype="keep")
    np.testing.assert_array_equal(kept.predict(TOKENS), FrozenNetwork(Tokens()).predict(TOKENS))
    # floats are cast to the dtype of the module all the same
    X = np.ones((3, 4))
    kept = FrozenNetwork(Net(), input_dtype="keep")
    np.testing.assert_array_equal(kept.predict_proba(X), FrozenNetwork(Net()).predict_proba(X))
    with pytest.raises(ValueError, match="'input_dtype' parameter"):
        FrozenNetwork(Net(), input_dtype="float").predict(X)


def test_integers_are_cast_for_any_other_network(X):
    rows = np.rint(X).astype(int)
    want = FrozenNetwork(Net()).predict_proba(rows.astype(float))
    np.testing.assert_array_equal(FrozenNetwork(Net()).predict_proba(rows), want)


def test_a_network_of_tokens_has_no_gradient():
    _, network = as_network(Tokens(), TOKENS, None)
    assert not network.differentiable
    with pytest.raises(TypeError, match="Tokens takes integers, so it has no gradient"):
        with network.differentiable_logits():
            pass
    with pytest.raises(ValueError, match="Tokens takes integers"):
        BoundarySampleExtractor(Tokens()).fit(TOKENS).extract_pairs(TOKENS)


def test_a_skorch_net_is_trained_on_tokens():
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(Tokens, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0)
    assert LatentTransformer(net).fit_transform(TOKENS, TOKENS[:, 0] % 3).shape == (40, 8)


# ---------------------------------------------------------------------------------- outputs


def test_outputs_may_be_nested(X):
    nested = Net(end=lambda out, x: {"loss": None, "all": {"logits": ((out,), x)}})
    want = FrozenNetwork(Net()).predict_proba(X)
    np.testing.assert_array_equal(FrozenNetwork(nested).predict_proba(X), want)


def first_beyond(x, value):
    return torch.where(x[:, :1] > 7.5, value, 0)  # sample 105 is the first one


@pytest.mark.parametrize("value", ["NaN", "infinity"])
@pytest.mark.parametrize("batch_size", ["auto", 64, 1])
def test_what_is_not_finite_is_refused_by_network_and_sample(X, iris, value, batch_size):
    number = float("nan") if value == "NaN" else float("inf")
    net = Net(end=lambda out, x: out + first_beyond(x, number))
    message = f"^Net gives {value} for sample 105 of X"
    frozen = FrozenNetwork(net, batch_size=batch_size)
    for call in (frozen.predict, frozen.predict_proba, LatentKNNClassifier(frozen).fit):
        with pytest.raises(ValueError, match=message):
            call(X, *[iris[1]] * (call.__name__ == "fit"))
    hidden = Net(between=lambda z, x: z + first_beyond(x, number))
    model = LatentTransformer(FrozenNetwork(hidden, batch_size=batch_size)).fit(X[:9])
    with pytest.raises(ValueError, match=message):
        model.transform(X)


def test_the_sample_is_counted_in_x_with_a_cache_too(X, tmp_path):
    net = Net(end=lambda out, x: out + first_beyond(x, float("nan")))
    host = LatentKNNClassifier(net, memory=str(tmp_path)).fit(X[:100], np.arange(100) % 2)
    with pytest.raises(ValueError, match="Net gives NaN for sample 125 of X"):
        host.predict(np.concatenate([X[80:105], X[:100], X[105:]]))


def test_a_black_box_is_checked_too(X, iris):
    class Broken(GaussianNB):
        def predict_proba(self, X):
            return np.where(X[:, :1] > 7.5, np.nan, super().predict_proba(X))

    class Drops(GaussianNB):
        def predict_proba(self, X):
            return super().predict_proba(X)[X[:, 0] < 7.5]

    host = LatentKNNClassifier(Broken()).fit(X[:100], iris[1][:100])
    with pytest.raises(ValueError, match="Broken gives NaN for sample 105 of X"):
        host.predict(X)
    host = LatentKNNClassifier(Drops()).fit(X[:100], iris[1][:100])
    with pytest.raises(ValueError, match="Drops gives 144 outputs for a batch of 150, from sample"):
        host.predict(X)


def test_values_beyond_the_dtype_of_the_network_are_named(X):
    big = X.astype(np.float64)
    big[7] = 1e200
    with pytest.raises(ValueError, match=r"sample 7 of X.*1e\+200, above .*torch.float32"):
        FrozenNetwork(Net()).predict(big)
    assert FrozenNetwork(Net().double()).predict(big).shape == (150,)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda out, x: out[:-1], "Net gives 63 outputs for a batch of 64, from sample 0 of X"),
        (lambda out, x: out.long(), "Net gives outputs of dtype torch.int64"),
        (lambda out, x: out > 0, "dtype torch.bool"),
        (lambda out, x: out + 0j, "dtype torch.complex64"),
        (lambda out, x: out.to_sparse(), "layout torch.sparse_coo"),
        (lambda out, x: out.to("meta"), "on meta"),
        (lambda out, x: out[..., None], r"outputs of shape \(64, 3, 1\)"),
        (lambda out, x: out.sum(), r"outputs of shape \(\)"),
        (lambda out, x: None, "Net fails .*NoneType, which contains no tensor"),
        (lambda out, x: out.detach().numpy(), "Net fails .*ndarray, which contains no tensor"),
        (lambda out, x: out @ out, r"Net fails .* shape \(4,\) and dtype torch.float32"),
        (lambda out, x: x[..., 9], "Net fails .* one tensor.*IndexError"),
    ],
)
def test_odd_outputs_are_refused_by_name(X, end, message):
    with pytest.raises(ValueError, match=message):
        FrozenNetwork(Net(end=end), batch_size=64).predict(X)


def test_a_missing_output_is_detected_in_every_batch_of_a_search(X):
    _, network = as_network(Net(end=lambda out, x: out[x[:, 0] < 7.5]), X[:100], None)
    with (
        network.differentiable_logits() as logits,
        pytest.raises(ValueError, match="144 outputs for 150 samples"),
    ):
        logits(torch.tensor(X))


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (lambda x: None, "preprocess of Net gives NoneType, not a tensor"),
        (lambda x: x.numpy() / 2, "preprocess of Net gives ndarray, not a tensor.*Pipeline"),
        (lambda x: x.nothing, "preprocess of Net fails .*AttributeError"),
    ],
)
def test_preprocessing_that_gives_no_tensor(X, preprocess, message):
    for call in (FrozenNetwork.predict, lambda net, X: LatentTransformer(net).fit(X)):
        with pytest.raises(ValueError, match=message):
            call(FrozenNetwork(Net(), preprocess=preprocess), X)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (lambda x: torch.from_numpy(x.numpy() / 2), "preprocess of Net fails .*numpy"),
        (lambda x: x.detach() / 2, "logits of Net have no gradient.*detach"),
    ],
)
def test_preprocessing_that_leaves_torch_has_no_gradient(X, preprocess, message):
    net = FrozenNetwork(Net(), preprocess=preprocess)
    assert net.predict(X).shape == (150,)
    with pytest.raises(ValueError, match=message):
        BoundarySampleExtractor(net).fit(X).extract_pairs(X)


def test_a_layer_that_gives_no_floats(X):
    for layer, kind in ((lambda net, x: None, "NoneType"), (lambda net, x: x.long(), "int64")):
        with pytest.raises(ValueError, match=f"layer=.* of Net gives .*{kind}"):
            LatentTransformer(Net(), layer=layer).fit(X)


def test_what_is_no_array(X):
    data = TensorDataset(torch.tensor(X), torch.zeros(150))
    for given, word in ((data, "TensorDataset"), (DataLoader(data), "DataLoader")):
        for call in (FrozenNetwork(Net()).predict, LatentTransformer(Net()).fit):
            with pytest.raises(TypeError, match=f"X is a {word}; pass the samples in one array"):
                call(given)
    with pytest.raises(TypeError, match=r"X is a mapping \(dict\) with keys \['input_ids'\]"):
        FrozenNetwork(Net()).predict({"input_ids": X})


def test_memory_that_runs_out_is_no_fault_of_the_network(X):
    def end(out, x):
        if len(x) > 40:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
        return out

    want = FrozenNetwork(Net()).predict_proba(X)
    got = FrozenNetwork(Net(end=end)).predict_proba(X)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_floor_of_probabilities_does_not_depend_on_the_dtype(iris, dtype):
    X, y = iris[0].astype(dtype), iris[1]
    _, network = as_network(RandomForestClassifier(10, random_state=0), X, y)
    assert network.logits(X).min().item() == pytest.approx(np.log(1e-12), rel=1e-6)


# ----------------------------------------------------------------------------- whose memory


def in_place(x):
    return x.sub_(1).div_(3)


def plain(x):
    return (x - 1) / 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("preprocess", [(in_place, plain), (None, None)])
def test_in_place_operations_leave_x_alone(iris, dtype, preprocess):
    X = (iris[0] - iris[0].mean(0)).astype(dtype)
    before = X.copy()
    net, want = (
        FrozenNetwork(
            nn.Sequential(nn.ELU(inplace=inplace), seeded(nn.Linear(4, 3))).to(
                torch.from_numpy(X).dtype
            ),
            preprocess=prepare,
        )
        for inplace, prepare in zip((True, False), preprocess)
    )
    for rows in (X, X[:5], torch.from_numpy(X)):
        for _ in range(2):
            np.testing.assert_array_equal(net.predict_proba(rows), want.predict_proba(rows))
    y = net.predict(X)
    assert LatentKNNClassifier(net).fit(X, y).kneighbors(X, 1)[0].max() == 0
    for method in ("minimal", "pm", "segment"):
        ours, theirs = (
            BoundarySampleExtractor(each, method=method, effort="fast", random_state=0)
            .fit(X)
            .extract_pairs(X[:30])
            for each in (net, want)
        )
        np.testing.assert_allclose(ours.outer, theirs.outer, atol=1e-3)
        assert ours.success.any() or method != "minimal"
    ours, theirs = (SubspaceMargins(each).fit(X).transform(X[:5]) for each in (net, want))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    np.testing.assert_array_equal(X, before)


# ----------------------------------------------------------------- torch's modes of gradients


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("made_in", [torch.enable_grad, torch.inference_mode])
def test_gradients_are_taken_in_any_mode(X, mode, made_in):
    X = X - X.mean(0)
    with made_in():
        net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        seeded(net)
    before, flags = net[0].weight.clone(), [p.requires_grad for p in net.parameters()]
    reference = FrozenNetwork(seeded(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))))
    want = BoundarySampleExtractor(reference, effort="fast", random_state=0).fit(X)
    want = want.extract_pairs(X[:20])
    with mode():
        got = BoundarySampleExtractor(net, effort="fast", random_state=0).fit(X)
        got = got.extract_pairs(X[:20])
        SubspaceMargins(net).fit(X).transform(X[:5])
        LatentKNNClassifier(random_state=0).fit(X, np.arange(150) % 2)
    assert got.success.mean() > 0.9
    np.testing.assert_allclose(got.outer, want.outer, rtol=1e-6)
    assert [p.requires_grad for p in net.parameters()] == flags
    assert torch.equal(net[0].weight, before)


# ----------------------------------------------------------------------- copies and pickles


META = torch.device("meta")  # another device that every machine has


def test_a_copy_on_another_device_is_kept_and_follows_the_module():
    net = Net()
    before = module_state([net])
    other = on_device(net, META)
    assert other is not net and next(other.parameters()).device == META
    assert on_device(net, META) is other and on_device(net, torch.device("cpu")) is net
    assert module_state([net]) == before
    changes = [
        lambda: nn.init.zeros_(net.head.bias),
        lambda: setattr(net, "slope", 1.0),
        lambda: setattr(net, "slope", 5.0),
        lambda: net.register_forward_hook(lambda *_: None),
        lambda: setattr(net, "head", nn.Linear(8, 3)),
        lambda: setattr(net.body, "weight", nn.Parameter(torch.ones(8, 4))),
    ]
    for change in changes:
        change()
        assert on_device(net, META) is not other
        other = on_device(net, META)
        assert on_device(net, META) is other
    net.train()  # a flag that every pass sets by itself
    assert on_device(net, META) is other


def test_a_copy_dies_with_its_module():
    net = Net()
    other = weakref.ref(on_device(net, META))
    del net
    gc.collect()
    assert other() is None


def test_clones_share_the_copy_and_pickles_go_without():
    net = FrozenNetwork(nn.Linear(4, 3))
    size = len(pickle.dumps(net))
    assert on_device(net.module, META) is on_device(clone(net).module, META)
    assert len(pickle.dumps(net)) == size


def scale(x):
    return x / 2


def test_what_pickles_and_what_does_not(X):
    net = FrozenNetwork(seeded(nn.Linear(4, 3)), preprocess=scale)
    assert pickle.loads(pickle.dumps(net)).preprocess is scale
    local = FrozenNetwork(seeded(nn.Linear(4, 3)), preprocess=lambda x: x / 2)
    host = LatentKNNClassifier(local).fit(X, np.arange(150) % 2)
    for each in (local, host):
        for dump in (pickle.dumps, lambda net: joblib.dump(net, io.BytesIO())):
            with pytest.raises(pickle.PicklingError, match="preprocess=.*lambda.*Define it with"):
                dump(each)
    other = pickle.loads(dumps_by_value(local))  # what joblib's processes are sent
    np.testing.assert_array_equal(other.predict_proba(X), net.predict_proba(X))
    assert copy.deepcopy(local).predict(X).shape == clone(local).predict(X).shape == (150,)
