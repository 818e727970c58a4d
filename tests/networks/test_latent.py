import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skboundary import FrozenNetwork, LatentTransformer


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
    for other in (
        torch.tensor(X, requires_grad=True),
        sparse.csr_matrix(X),
        X[::-1][::-1],
        pd.DataFrame(X),
        np.asfortranarray(X),
        X.tolist(),
    ):
        np.testing.assert_allclose(model.transform(other), expected)


def test_batch_size_does_not_matter(mlp, iris):
    outs = [LatentTransformer(mlp, batch_size=b).fit_transform(iris[0]) for b in (1, 7, "auto")]
    np.testing.assert_allclose(outs[1], outs[0], rtol=1e-12)
    np.testing.assert_allclose(outs[2], outs[0], rtol=1e-12)
