from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from skboundary import LatentTransformer, _part_writer
from skboundary._bank_folder import BankFolder
from skboundary.exceptions import ProbabilityOutputWarning
from skboundary.networks import collect
from tests.conftest import Recording


def loader_of(X, y, batch_size=64, **options):
    data = TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    return DataLoader(data, batch_size=batch_size, **options)


def test_collected_arrays_equal_a_loop(cnn, digits):
    X, y = digits[0][:150], digits[1][:150]
    found = collect(cnn, loader_of(X, y), device="cpu")
    with torch.no_grad():
        parts = torch.tensor(X).split(64)
        hidden = [cnn.hidden(cnn.features(part).flatten(1)).relu() for part in parts]
        logits = [cnn(part) for part in parts]
    np.testing.assert_array_equal(found.latent, torch.cat(hidden))
    np.testing.assert_array_equal(found.outputs, torch.cat(logits))
    np.testing.assert_array_equal(found.y, y)
    assert found.latent.dtype == found.outputs.dtype == np.float32


@pytest.mark.parametrize("layer", ["hidden", "features.0", -2, 0, lambda net, x: net.features(x)])
def test_layers_are_those_of_the_transformer(cnn, digits, layer):
    X, y = digits[0][:70], digits[1][:70]
    found = collect(cnn, loader_of(X, y, 35), layer=layer)
    expected = LatentTransformer(cnn, layer=layer, batch_size=35).fit(X).transform(X)
    np.testing.assert_array_equal(found.latent, expected)


class Tokens(nn.Module):
    """A transformer over padded tokens, in the form of a model of Hugging Face."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask, labels=None):
        pad = attention_mask == 0
        hidden = self.encoder(self.embedding(input_ids), src_key_padding_mask=pad)
        pooled = (hidden * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        logits = self.head(pooled)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "hidden": hidden, "logits": logits}


def token_batches(key="labels", kind=dict, sizes=((4, 5), (4, 9), (1, 3))):
    rng = torch.Generator().manual_seed(0)
    batches = []
    for n, length in sizes:
        ids = torch.randint(1, 50, (n, length), generator=rng)
        mask = torch.ones(n, length, dtype=torch.int64)
        mask[0, length // 2 :] = 0
        batch = {"input_ids": ids, "attention_mask": mask}
        if key:
            batch[key] = torch.randint(3, (n,), generator=rng)
        batches.append(kind(batch))
    return batches


@pytest.fixture
def tokens():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tokens()


@pytest.mark.parametrize("key", ["labels", "label", "y", None])
@pytest.mark.parametrize("kind", [dict, UserDict])
def test_mappings_are_passed_by_keyword(tokens, key, kind):
    batches = token_batches(key, kind)
    found = collect(tokens, batches)
    tokens.eval()
    with torch.no_grad():
        logits = [tokens(b["input_ids"], b["attention_mask"])["logits"] for b in batches]
    np.testing.assert_allclose(found.outputs, torch.cat(logits), atol=1e-6)
    # the logits are the head's output for the latent vectors, not the loss or the hidden states
    np.testing.assert_allclose(
        tokens.head(torch.tensor(found.latent)).detach(), found.outputs, atol=1e-6
    )
    assert found.latent.shape == (9, 8)
    if key is None:
        assert found.y is None
    else:
        np.testing.assert_array_equal(found.y, torch.cat([b[key] for b in batches]))


Output = namedtuple("Output", ["aux", "logits"])


class Forms(nn.Module):
    """Logits in a structure that `wrap` makes of them."""

    def __init__(self, wrap, n_outputs=3):
        super().__init__()
        self.head, self.wrap = nn.Linear(4, n_outputs), wrap

    def forward(self, x):
        return self.wrap(self.head(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: z,
        lambda z: (z, z + 1),
        lambda z: {"aux": z + 1, "logits": z},
        lambda z: Output(z + 1, z),
        lambda z: [None, z],
        lambda z: z.half(),
    ],
)
def test_forms_of_outputs(wrap):
    net, x = Forms(wrap), torch.ones(5, 4)
    outputs = collect(net, [x]).outputs
    np.testing.assert_allclose(outputs, net.head(x).detach(), rtol=1e-3)
    assert outputs.dtype == np.float32


def test_one_logit_represents_two_classes():
    net, x = Forms(lambda z: z[:, 0], 1), torch.randn(5, 4)
    z = net.head(x).detach()
    np.testing.assert_allclose(collect(net, [x]).outputs, torch.cat([-z, z], 1) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    net, x = Forms(lambda z: z).to(dtype), torch.randn(5, 4).to(dtype)
    found = collect(net, [(x, ["a", "b", "a", "b", "c"])])
    wide = np.float64 if dtype == torch.float64 else np.float32
    assert found.latent.dtype == found.outputs.dtype == wide
    np.testing.assert_array_equal(found.latent, x.to(torch.float64).numpy())
    assert found.y.tolist() == ["a", "b", "a", "b", "c"]


class Squeezing(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(x).squeeze()).squeeze()


@pytest.mark.parametrize("labels", [True, False])
def test_a_last_batch_of_one_may_lose_its_axis(labels):
    net, x = Squeezing(), torch.randn(5, 4)
    batches = [(x[:4], [0, 1, 2, 0]), (x[4:], [1])] if labels else [x[:4], x[4:]]
    found = collect(net, batches)
    np.testing.assert_allclose(found.latent, net.body(x).detach(), atol=1e-6)
    np.testing.assert_allclose(found.outputs, net.head(net.body(x)).detach(), atol=1e-6)


def test_the_module_and_the_generator_are_left_alone(cnn, digits):
    cnn.train()
    cnn.features.eval()
    flags = [module.training for module in cnn.modules()]
    state = {name: value.clone() for name, value in cnn.state_dict().items()}
    random = torch.get_rng_state()
    cnn.dropout.p = 0.9  # has no effect in evaluation mode
    batches = [torch.tensor(digits[0][:20])]
    first, again = collect(cnn, batches), collect(cnn, batches)
    np.testing.assert_array_equal(first.outputs, again.outputs)
    assert [module.training for module in cnn.modules()] == flags
    assert all(torch.equal(state[name], value) for name, value in cnn.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in cnn.modules())
    with pytest.raises(ValueError, match="SmallCNN fails"):
        collect(cnn, [torch.ones(3, 1, 5, 5)])
    assert [module.training for module in cnn.modules()] == flags


def test_inputs_are_moved_to_the_device(tokens, standin):
    found = collect(tokens, token_batches(), device=standin)
    np.testing.assert_allclose(found.outputs, collect(tokens, token_batches()).outputs, atol=1e-6)
    assert all(p.device.type == "cpu" for p in tokens.parameters())


def test_a_shuffling_loader_gives_its_own_order(cnn, digits):
    X, y = digits[0][:100], digits[1][:100]
    generator = torch.Generator().manual_seed(1)
    found = collect(cnn, loader_of(X, np.arange(100), shuffle=True, generator=generator))
    assert not np.array_equal(found.y, np.arange(100))
    expected = collect(cnn, loader_of(X, y, 100))
    np.testing.assert_allclose(found.latent, expected.latent[found.y], atol=1e-5)


@pytest.mark.parametrize("wrap", [lambda z: z.softmax(1), lambda z: z[:, :1].sigmoid()])
def test_probabilities_are_not_taken_for_logits_in_silence(wrap):
    with pytest.warns(ProbabilityOutputWarning, match="used as logits"):
        collect(Forms(wrap), [torch.ones(5, 4)])


class Nan(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.head, self.value = nn.Linear(4, 3), value

    def forward(self, x):
        out = self.head(x)
        out[x[:, 0] == 7] = self.value
        return out


@pytest.mark.parametrize("value, word", [(np.nan, "NaN"), (np.inf, "infinity")])
def test_values_that_are_not_finite_are_named(value, word):
    x = torch.zeros(10, 4)
    x[8, 0] = 7
    with pytest.raises(ValueError, match=f"outputs contains {word} in sample 8"):
        collect(Nan(value), x.split(5))


class Constant(nn.Module):
    """Returns and passes on what it is told to."""

    def __init__(self, latent, output):
        super().__init__()
        self.body, self.latent, self.output = nn.Identity(), latent, output

    def forward(self, x):
        self.body(self.latent)
        return self.output


X4 = torch.zeros(4, 2)
Lengths = namedtuple("Lengths", ["latent", "outputs"])


@pytest.mark.parametrize(
    "latent, output, message",
    [
        (
            torch.zeros(3, 2),
            X4,
            r"Batch 0 of the loader: layer='body' of Constant gives .* \(3, 2\) for 4 samples",
        ),
        (torch.zeros(()), X4, r"of shape \(\) for 4 samples"),
        (torch.zeros(4, 2).long(), X4, "gives torch.int64 of shape"),
        (X4, torch.zeros(3, 2), r"outputs of shape \(3, 2\) for 4 samples"),
        (X4, torch.zeros(4, 2, 2), r"outputs of shape \(4, 2, 2\); expected"),
        (X4, torch.zeros(4, 2).long(), "outputs of dtype torch.int64"),
    ],
)
def test_results_that_are_not_one_per_sample_are_refused(latent, output, message):
    with pytest.raises(ValueError, match=message):
        collect(Constant(latent, output), [X4], layer="body")


@pytest.mark.parametrize(
    "batches, message",
    [
        ([], "There are no batches"),
        ([(X4, X4, X4)], "Batch 0 of the loader is a tuple of 3; expected"),
        ([(X4, X4)], r"labels of shape \(4, 2\)"),
        ([(X4, torch.tensor(1))], r"labels of shape \(\)"),
        ([(X4, [0, 1, 2, 0]), (X4,)], "Batch 1 has no labels, but batch 0 has numbers"),
        ([(X4, [0, 1, 2, 0]), (X4, [*"abca"])], "Batch 1 has other labels"),
        ([{"x": X4, "y": [1] * 4, "label": [1] * 4}], r"has the keys \['label', 'y'\]"),
        ([(X4, [0, 1])], "for 2 samples"),
        ([{"z": X4}], r"Batch 0.*called with the keywords \['z'\]: TypeError"),
        ([X4, torch.zeros(4, 3)], "Batch 1 of the loader: Net fails.* one Tensor: RuntimeError"),
    ],
)
def test_batches_that_do_not_fit_are_explained(batches, message):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 3)

        def forward(self, x):
            return self.head(x)

    with pytest.raises(ValueError, match=message):
        collect(Net(), batches)


def test_a_layer_of_varying_width_is_refused(tokens):
    with pytest.raises(ValueError, match="Batch 1 has latent of 72 columns, but batch 0 of 40"):
        collect(tokens, token_batches(), layer="encoder")


def test_a_dataset_and_an_estimator_are_refused(cnn):
    class Samples(Dataset):
        def __getitem__(self, i):
            return X4[i]

    with pytest.raises(TypeError, match=r"loader is a Dataset \(Samples\).*DataLoader"):
        collect(cnn, Samples())
    with pytest.raises(TypeError, match="module is a LatentTransformer"):
        collect(LatentTransformer(), [X4])


def interrupted(batches, after):
    for i, batch in enumerate(batches):
        if i == after:
            raise KeyboardInterrupt
        yield batch


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(_part_writer, "PART_BYTES", 50 * 32 * 4)  # 50 samples


def test_a_bank_holds_the_arrays(cnn, digits, tmp_path, small_parts):
    X, y = digits[0][:150], digits[1][:150]
    loader = loader_of(X, y, 64)
    expected, found = collect(cnn, loader), collect(cnn, loader, bank=tmp_path / "bank")
    for array, on_disk in zip(expected, found):
        np.testing.assert_array_equal(np.asarray(on_disk), array)
    bank = BankFolder.open(tmp_path / "bank")
    bank.verify()
    assert bank.complete and len(bank.parts) == 3 and bank.layer == "auto"


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("killed", [False, True])
def test_an_interrupted_collection_continues(cnn, digits, tmp_path, small_parts, after, killed):
    """After 64 or 128 samples; a process that is killed leaves whole parts of 50."""
    net = Recording(cnn, tmp_path / "samples")
    loader, path = loader_of(digits[0][:150], digits[1][:150], 64), tmp_path / "bank"
    with pytest.raises(KeyboardInterrupt):
        collect(net, interrupted(loader, after), bank=path)
    stored = 64 * after
    if not after:  # nothing is known of the outputs, so there is no bank
        assert not path.exists()
        return
    bank = BankFolder.open(path)
    if killed:
        stored = 50 * (stored // 50)
        bank._replace({**bank._state, "parts": bank.parts[:-1]})
    assert bank.n_samples == stored and not bank.complete
    before = len(net.rows)
    found = collect(net, loader, bank=path)
    ran = 150 - 64 * (stored // 64)  # whole batches, and the first
    assert len(net.rows) - before == ran + 64 * (stored >= 64)
    before = len(net.rows)
    again = collect(net, loader, bank=path)
    assert len(net.rows) == before + 64 and BankFolder.open(path).complete
    for array, *on_disk in zip(collect(net, loader), found, again):
        for other in on_disk:
            np.testing.assert_array_equal(np.asarray(other), array)


def test_a_bank_of_something_else_is_not_continued(cnn, digits, tmp_path, small_parts):
    X, y = digits[0][:150], digits[1][:150]
    path = tmp_path / "bank"
    with pytest.raises(KeyboardInterrupt):
        collect(cnn, interrupted(loader_of(X, y), 2), bank=path)
    moved, other = X.copy(), y.copy()
    moved[60], other[127] = moved[60] + 1, other[127] + 1
    for loader in (
        loader_of(moved, y),
        loader_of(X, other % 10),
        loader_of(X[::-1].copy(), y[::-1].copy()),
        loader_of(X, y, 50),
        loader_of(X[:100], y[:100]),
    ):
        with pytest.raises(
            ValueError, match="holds 128 samples, which are not those of these batches"
        ):
            collect(cnn, loader, bank=path)
    with pytest.raises(ValueError, match="written with layer='auto', not 'hidden'"):
        collect(cnn, loader_of(X, y), layer="hidden", bank=path)
    with torch.no_grad():
        cnn.head.bias += 1
    with pytest.raises(ValueError, match="written with digest="):
        collect(cnn, loader_of(X, y), bank=path)
    with pytest.raises(ValueError, match="is not empty"):
        collect(cnn, loader_of(X, y), bank=tmp_path)


@pytest.mark.parametrize(
    "y, label", [([0, 1, 3, 0], "3"), ([0, -1, 2, 0], "-1"), ([*"abca"], "'a'"), ([0.0] * 4, "0.0")]
)
def test_labels_of_a_bank_are_positions(tmp_path, y, label):
    net = Forms(lambda z: z)
    with pytest.raises(ValueError, match=f"has the label {label}, but a bank .* 0 to 2"):
        collect(net, [(torch.ones(4, 4), y)], bank=tmp_path / "bank")
    with pytest.raises(ValueError, match="There are no batches"):
        collect(net, [], bank=tmp_path / "other")
    assert collect(net, [torch.ones(4, 4)], bank=tmp_path / "none").y is None
