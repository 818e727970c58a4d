"""TorchKNeighborsTransformer: the graphs of scikit-learn's, and the estimators that take them."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.cluster import DBSCAN, SpectralClustering
from sklearn.datasets import load_iris
from sklearn.exceptions import EfficiencyWarning, NotFittedError
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsTransformer
from sklearn.pipeline import make_pipeline
from sklearn.semi_supervised import LabelSpreading

from skboundary import TorchKNeighborsTransformer


@pytest.fixture
def X():
    return np.random.RandomState(0).randn(120, 5)


def assert_same(graph, expected):
    assert graph.shape == expected.shape and graph.format == "csr"
    np.testing.assert_array_equal(graph.indptr, expected.indptr)
    np.testing.assert_array_equal(graph.indices, expected.indices)
    np.testing.assert_allclose(graph.data, expected.data, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("mode", ["distance", "connectivity"])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_graphs_equal_those_of_scikit_learn(X, mode, metric):
    params = dict(n_neighbors=7, mode=mode, metric=metric)
    ours, theirs = TorchKNeighborsTransformer(**params), KNeighborsTransformer(**params)
    graph = ours.fit_transform(X)
    assert_same(graph, theirs.fit_transform(X))
    assert (np.diff(graph.indptr) == (8 if mode == "distance" else 7)).all()
    assert (graph.indices.reshape(120, -1)[:, 0] == np.arange(120)).all()
    queries = X[:10] + 0.1
    assert_same(ours.transform(queries), theirs.transform(queries))
    expected = [f"torch{name}" for name in theirs.get_feature_names_out()]
    assert ours.get_feature_names_out().tolist() == expected


@pytest.mark.parametrize("interface", ["spmatrix", "sparray"])
def test_graphs_have_the_interface_of_the_configuration(X, interface):
    with config_context(sparse_interface=interface):
        graph = TorchKNeighborsTransformer().fit_transform(X)
        assert type(graph) is type(KNeighborsTransformer().fit_transform(X))
    assert sparse.isspmatrix(graph) == (interface == "spmatrix")


def fitted(transformer, model, X, interface):
    model = make_pipeline(transformer(n_neighbors=15), model)
    with config_context(sparse_interface=interface), warnings.catch_warnings():
        warnings.simplefilter("error", EfficiencyWarning)  # of graphs that are not sorted
        if hasattr(model[-1], "fit_predict"):
            return model.fit_predict(X)
        return model.fit_transform(X)


@pytest.mark.parametrize("interface", ["spmatrix", "sparray"])
def test_estimators_take_the_graph_in_place_of_samples(interface):
    X, _ = load_iris(return_X_y=True)
    tsne = TSNE(init="random", metric="precomputed", perplexity=4, max_iter=500, random_state=0)
    embedded = fitted(TorchKNeighborsTransformer, tsne, X, interface)
    assert trustworthiness(X, embedded) > 0.95
    dbscan = DBSCAN(eps=0.5, metric="precomputed")
    ours, theirs = (
        fitted(transformer, dbscan, X, interface)
        for transformer in (TorchKNeighborsTransformer, KNeighborsTransformer)
    )
    assert adjusted_rand_score(ours, theirs) == 1


def test_spectral_clustering_takes_the_graph():  # of scikit-learn 1.9 no sparse array, of anyone
    X, _ = load_iris(return_X_y=True)
    cluster = SpectralClustering(
        3, affinity="precomputed_nearest_neighbors", n_neighbors=15, random_state=0
    )
    ours, theirs = (
        fitted(transformer, cluster, X[50:], "spmatrix")
        for transformer in (TorchKNeighborsTransformer, KNeighborsTransformer)
    )
    assert adjusted_rand_score(ours, theirs) > 0.9


def test_label_spreading_takes_the_transformer_as_a_kernel():
    X, y = load_iris(return_X_y=True)
    labels = np.where(np.arange(150) % 10 == 0, y, -1)
    results = []
    for transformer in (TorchKNeighborsTransformer, KNeighborsTransformer):

        def kernel(X, Y, transformer=transformer):
            return transformer(n_neighbors=7, mode="connectivity").fit(Y).transform(X)

        model = LabelSpreading(kernel=kernel).fit(X, labels)
        results.append(model.transduction_)
    assert (results[0] == y).mean() > 0.85 and (results[0] == results[1]).mean() > 0.98


def test_partial_fit_and_a_bank_give_the_same_graph(X, tmp_path):
    expected = TorchKNeighborsTransformer().fit_transform(X)
    parts = TorchKNeighborsTransformer().partial_fit(X[:50]).partial_fit(X[50:])
    assert_same(parts.transform(X), expected)
    assert len(parts.get_feature_names_out()) == 120
    bank = TorchKNeighborsTransformer(bank=tmp_path / "bank").fit(X)
    assert_same(bank.transform(X), expected)


def test_too_few_samples_and_invalid_parameters_are_refused(X):
    with pytest.raises(ValueError, match="n_neighbors < n_samples_fit, but n_neighbors = 120"):
        TorchKNeighborsTransformer(n_neighbors=120).fit_transform(X)
    with pytest.raises(ValueError, match="'mode' parameter of TorchKNeighborsTransformer"):
        TorchKNeighborsTransformer(mode="both").fit(X)
    model = TorchKNeighborsTransformer().fit(X)
    with pytest.raises(ValueError, match="'mode' parameter of TorchKNeighborsTransformer"):
        model.set_params(mode="both").transform(X)
    with pytest.raises(NotFittedError):
        TorchKNeighborsTransformer().transform(X)
    with pytest.raises(NotFittedError):
        TorchKNeighborsTransformer().get_feature_names_out()
    with pytest.raises(ValueError, match="outputs a scipy sparse matrix"):
        TorchKNeighborsTransformer().set_output(transform="pandas").fit_transform(X)
