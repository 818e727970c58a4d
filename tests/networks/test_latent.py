import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skboundary import FrozenNetwork, LatentTransformer
from skboundary.networks._row_store import RowStore, row_keys


class Counting(nn.Module):
    """Remember every row that is forwarded."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.rows = []

    def forward(self, x):
        self.rows += [tuple(r.flatten().tolist()) for r in x]
        return self.body(x)


def test_latent_vectors_of_a_layer(cnn, digits):
    X, _ = digits
    latent = LatentTransformer(cnn, layer="features").fit_transform(X)
    with torch.no_grad():
        maps = cnn.features(torch.tensor(X))
    np.testing.assert_allclose(latent, maps.flatten(1), atol=1e-5)
    pooled = LatentTransformer(cnn, layer="features", pool="avg").fit_transform(X)
    np.testing.assert_allclose(pooled, maps.mean((2, 3)), atol=1e-5)
    assert latent.dtype == np.float32


def test_set_output_and_names(mlp, iris):
    X = pd.DataFrame(iris[0], columns=["a", "b", "c", "d"])
    model = LatentTransformer(mlp).set_output(transform="pandas").fit(X)
    out = model.transform(X)
    names = [f"latenttransformer{i}" for i in range(16)]
    assert list(out.columns) == list(model.get_feature_names_out()) == names
    assert list(model.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="feature names"):
        model.transform(X[["b", "a", "c", "d"]])


def test_a_pipeline_and_a_grid_over_layers(cnn, digits):
    pipe = make_pipeline(LatentTransformer(FrozenNetwork(cnn)), LogisticRegression(max_iter=500))
    grid = {"latenttransformer__layer": ["auto", "features"]}
    search = GridSearchCV(pipe, grid, cv=2, n_jobs=2).fit(*digits)
    assert search.best_score_ > 0.85


def test_any_container_gives_the_same(mlp, iris):
    X = iris[0]
    model = LatentTransformer(mlp).fit(X)
    expected = model.transform(X)
    for other in (torch.tensor(X, requires_grad=True), sparse.csr_matrix(X), X[::-1][::-1],
                  pd.DataFrame(X), np.asfortranarray(X), X.tolist()):  # fmt: skip
        np.testing.assert_allclose(model.transform(other), expected)


def test_batch_size_does_not_matter(mlp, iris):
    outs = [LatentTransformer(mlp, batch_size=b).fit_transform(iris[0]) for b in (1, 7, "auto")]
    np.testing.assert_allclose(outs[1], outs[0], rtol=1e-12)
    np.testing.assert_allclose(outs[2], outs[0], rtol=1e-12)


@pytest.mark.parametrize("as_memory", [False, True])
def test_memory_forwards_every_distinct_row_once(mlp, iris, tmp_path, as_memory):
    X = iris[0]  # row 101 equals row 142
    net = Counting(mlp)
    memory = joblib.Memory(tmp_path, verbose=0) if as_memory else str(tmp_path)
    model = LatentTransformer(FrozenNetwork(net), memory=memory)
    pipe = make_pipeline(model, LogisticRegression(max_iter=500))
    GridSearchCV(pipe, {"logisticregression__C": [0.1, 1]}, cv=3).fit(*iris)
    rows = net.rows[2:]  # two find the layer
    assert len(rows) == len(set(rows)) == len(np.unique(X, axis=0)) == 149
    np.testing.assert_allclose(
        model.fit_transform(X), LatentTransformer(FrozenNetwork(mlp)).fit_transform(X)
    )
    assert len(net.rows) == 151


@pytest.mark.parametrize(
    "change",
    [
        lambda net: LatentTransformer(net, layer="0"),
        lambda net: LatentTransformer(FrozenNetwork(net, preprocess=lambda x: x + 1)),
        lambda net: LatentTransformer(FrozenNetwork(net, preprocess=nn.Softmax(1))),
    ],
)
def test_memory_tells_networks_and_layers_apart(mlp, iris, tmp_path, change):
    LatentTransformer(mlp, memory=str(tmp_path)).fit_transform(iris[0])
    model = change(mlp)
    expected = model.fit_transform(iris[0])
    np.testing.assert_allclose(
        model.set_params(memory=str(tmp_path)).fit_transform(iris[0]), expected
    )


def test_memory_tells_weights_and_code_apart(iris, tmp_path):
    class A(nn.Linear):
        def forward(self, x):
            return super().forward(x)

    class B(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 2

    B.__qualname__ = A.__qualname__
    nets = [A(4, 3), A(4, 3), B(4, 3)]
    nets[2].load_state_dict(nets[0].state_dict())
    folders = set()
    for net in nets:
        LatentTransformer(net, layer=-1, memory=str(tmp_path)).fit(iris[0])
        folders |= set((tmp_path / "skboundary").iterdir())
        with torch.no_grad():
            expected = net.double()(torch.tensor(iris[0]))
        latent = LatentTransformer(net, layer=-1, memory=str(tmp_path)).fit_transform(iris[0])
        np.testing.assert_allclose(latent, expected)
    assert len(folders) >= 3


def test_memory_refuses_what_it_cannot_name(mlp, iris, tmp_path):
    net = FrozenNetwork(mlp, preprocess=torch.relu)
    with pytest.raises(TypeError, match="memory cannot tell what .*relu.* computes"):
        LatentTransformer(net, memory=str(tmp_path)).fit(iris[0])


def test_memory_has_no_effect_on_what_is_trained_here(iris, tmp_path):
    LatentTransformer(random_state=0, memory=str(tmp_path)).fit(*iris)
    assert not list(tmp_path.iterdir())


def test_row_keys_tell_dtype_shape_and_container_apart():
    X = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert len(set(row_keys(X))) == 3
    assert row_keys(X[::-1]) == row_keys(X)[::-1] == row_keys(np.asfortranarray(X))[::-1]
    assert not set(row_keys(X)) & set(row_keys(X.astype(np.float64)))
    assert not set(row_keys(X)) & set(row_keys(X[:, :, None]))
    assert row_keys(np.zeros((1, 2), "f4")) != row_keys(np.zeros((1, 2), "i4"))  # same bytes
    assert row_keys(sparse.csr_matrix(X)) != row_keys(sparse.csr_matrix(X + 1))
    frame = pd.DataFrame({"a": [1, 2, 1], "b": ["x", "x", "x"]})
    keys = row_keys(frame)
    assert keys[0] == keys[2] != keys[1]


def test_the_row_store_holds_no_pickles_and_keeps_order(tmp_path):
    store = RowStore(tmp_path / "net")
    X = np.random.default_rng(0).normal(size=(20, 3))
    asked = []

    def compute(rows):
        asked.append(list(rows))
        return [X[rows] * 2, X[rows, :1]]

    first = store.through(X[:8], lambda rows: compute(rows))
    mixed = np.array([5, 19, 0, 5, 12])
    doubled, column = store.through(X[mixed], lambda rows: compute(mixed[rows]))
    np.testing.assert_array_equal(first[0], X[:8] * 2)
    np.testing.assert_array_equal(doubled, X[mixed] * 2)
    np.testing.assert_array_equal(column, X[mixed, :1])
    assert asked == [list(range(8)), [19, 12]]
    for path in tmp_path.rglob("*.npy"):
        np.load(path, allow_pickle=False)
