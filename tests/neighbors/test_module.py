import io

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier


def assert_same(clf, X, *, atol=1e-6):
    """Compare with `predict_proba`, where the k-th and the next distance are told apart."""
    k = clf.n_neighbors
    distances = clf.kneighbors(X, k + 1)[0].astype(np.float64)
    clear = distances[:, k] - distances[:, k - 1] > 1e-5 * distances[:, k]
    assert clear.mean() > 0.9
    with torch.no_grad():
        proba = clf.to_module()(torch.as_tensor(X))
    assert proba.dtype == torch.as_tensor(clf.predict_proba(X[:1])).dtype
    np.testing.assert_allclose(proba[clear], clf.predict_proba(X)[clear], atol=atol, rtol=0)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("average", ["proba", "logits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_module_gives_the_probabilities_of_the_classifier(cnn, digits, metric, average, dtype):
    X, y = digits[0][:400], digits[1][:400]
    cnn.to(dtype)
    clf = LatentKNNClassifier(cnn, metric=metric, average=average, query_weight=0.3, n_neighbors=5)
    assert_same(clf.fit(X, y), digits[0][400:460])


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize(
    "params", [{"weights": "distance"}, {"contribute": "labels"}, {"average": "logits"}]
)
def test_votes(cnn, digits, metric, params):
    X, y = digits[0][:400], digits[1][:400]
    clf = LatentKNNClassifier(
        cnn, metric=metric, query_weight=0.2, n_neighbors=5, **{"weights": "distance", **params}
    ).fit(X, y)
    assert_same(clf, digits[0][400:460])


def clusters(seed, spread, offset):
    """Groups of samples whose size is a small part of the distance between them."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(4, 16))
    X = centers[rng.integers(4, size=400)] + spread * rng.normal(size=(400, 16))
    return (X + offset * rng.normal(size=16)).astype(np.float32)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
@pytest.mark.parametrize("scale, offset", [(1.0, 0.0), (1e-12, 0.0), (1e12, 0.0), (1.0, 100.0)])
def test_groups_much_closer_than_float32_scores_resolve(metric, spread, scale, offset):
    X = clusters(0, spread, 0.0 if metric == "cosine" else offset) * np.float32(scale)
    head = nn.Linear(16, 3)
    with torch.no_grad():
        head.weight.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)) / scale)
    clf = LatentKNNClassifier(head, metric=metric, query_weight=0.0, n_neighbors=1).fit(X[:350])
    assert_same(clf, X[350:], atol=2e-6)


def test_a_zero_vector_has_the_cosine_distance_one():
    X = np.array([[0, 0], [-1, 0.1], [-1, 0.2], [0.1, 1], [0.2, 1]], np.float32)
    clf = LatentKNNClassifier(nn.Linear(2, 2), metric="cosine", n_neighbors=1, query_weight=0.0)
    clf.fit(X)
    query = np.array([[1.0, -0.5]], np.float32)  # all others are farther than the zero vector
    assert clf.kneighbors(query)[1][0, 0] == 0
    assert_same(clf, query)
    # a query of zeros is at the distance 1 from all: any of them is right
    proba = clf.to_module()(torch.zeros(1, 2))
    np.testing.assert_allclose(proba.sum(), 1, rtol=1e-6)


class Normalize(nn.Module):
    def forward(self, x):
        return (x - 3.0) / 2.0


def net(n_outputs=3, last=()):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(4, 16), nn.ReLU(inplace=True), nn.Linear(16, n_outputs), *last
        )


CASES = {
    "the default network": lambda: None,
    "named classes": lambda: FrozenNetwork(net(), classes=[2, 0, 1]),
    "preprocess": lambda: FrozenNetwork(net(), preprocess=Normalize()),
    "probabilities": lambda: FrozenNetwork(net(last=[nn.Softmax(1)]), output="proba"),
    "float64": lambda: net().double(),
    "logistic regression": lambda: LogisticRegression(max_iter=500),
    "a pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "one against the rest": lambda: SGDClassifier(loss="log_loss", random_state=0),
    "modified Huber": lambda: SGDClassifier(loss="modified_huber", random_state=0),
    "a perceptron": lambda: MLPClassifier((8,), max_iter=30, random_state=0),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("average", ["proba", "logits"])
def test_every_kind_of_classifier_with_a_module(iris, name, average):
    X, y = iris
    clf = LatentKNNClassifier(
        CASES[name](), average=average, query_weight=0.4, random_state=0, n_neighbors=2
    )
    X = np.random.default_rng(0).normal(scale=0.01, size=X.shape) + X  # iris repeats samples
    assert_same(clf.fit(X[::2], y[::2]), X[1::2])


def test_two_classes_and_one_logit(iris):
    X, y = iris[0][:100], np.array(["a", "b"])[iris[1][:100]]
    X = np.random.default_rng(0).normal(scale=0.01, size=X.shape) + X
    for module in (net(1), net(1, [nn.Flatten(0)])):
        clf = LatentKNNClassifier(FrozenNetwork(module, classes=["b", "a"]), query_weight=0.4)
        assert_same(clf.fit(X[::2], y[::2]), X[1::2])


def test_layers_pooling_and_integers(cnn, digits):
    X, y = digits[0][:200], digits[1][:200]
    flat = lambda module, x: module.features(x).flatten(1)
    for layer, pool in (("features", "avg"), ("features.0", None), (-3, None), (flat, None)):
        clf = LatentKNNClassifier(cnn, layer=layer, pool=pool, query_weight=0.4).fit(X, y)
        assert_same(clf, digits[0][200:240])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokens = nn.Sequential(nn.Embedding(30, 4), nn.Flatten(), nn.Linear(20, 3))
    X = np.random.default_rng(0).integers(30, size=(100, 5))
    clf = LatentKNNClassifier(tokens, layer="1", query_weight=0.2).fit(X[:80])
    assert_same(clf, X[80:])


def test_the_module_is_a_copy_with_the_parameters_of_now(mlp, iris, tmp_path):
    X, y = iris
    mlp.train()
    clf = LatentKNNClassifier(mlp, n_neighbors=140, memory=str(tmp_path)).fit(X, y)
    module = clf.to_module()
    x = torch.tensor(X)
    before = module(x)
    assert mlp.training and mlp[0].weight.requires_grad
    assert not any(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        mlp[0].weight.zero_()
    clf.set_params(n_neighbors=2, query_weight=0.1)
    np.testing.assert_array_equal(module(x), before)
    assert not np.allclose(clf.to_module()(x), before)
    with pytest.raises(ValueError, match="'query_weight' parameter of LatentKNNClassifier"):
        clf.set_params(query_weight=2).to_module()
    with pytest.raises(ValueError, match="n_neighbors = 151"):
        clf.set_params(query_weight=0.5, n_neighbors=151).to_module()


@pytest.mark.parametrize(
    "params, message",
    [
        ({"estimator": RandomForestClassifier(3)}, "RandomForestClassifier is not a torch module"),
        (
            {"estimator": make_pipeline(PolynomialFeatures(), LogisticRegression(max_iter=5000))},
            "The steps PolynomialFeatures before the network transform arrays",
        ),
        (
            {"estimator": FrozenNetwork(net(), preprocess=lambda x: x + 1)},
            "preprocess=<function .* is a function",
        ),
        ({"neighbors": NearestNeighbors()}, "neighbors=NearestNeighbors.*exact"),
        ({"query_transforms": [np.negative]}, "query_transforms"),
        ({"weights": lambda d: np.exp(-d)}, "weights=<function .* takes an array"),
    ],
)
def test_what_is_not_torch_is_refused(iris, params, message):
    clf = LatentKNNClassifier(**{"estimator": net(), **params}).fit(*iris)
    with pytest.raises(ValueError, match=message):
        clf.to_module()


def exported(clf, x):
    shapes = {"x": {0: torch.export.Dim("n")}}
    return torch.export.export(clf.to_module(), (x,), dynamic_shapes=shapes, strict=False)


@pytest.mark.parametrize("metric, average", [("euclidean", "proba"), ("cosine", "logits")])
def test_an_exported_program_is_saved_and_loaded(cnn, digits, metric, average):
    X, y = digits[0][:200], digits[1][:200]
    clf = LatentKNNClassifier(cnn, metric=metric, average=average, query_weight=0.4).fit(X, y)
    file = io.BytesIO()
    torch.export.save(exported(clf, torch.tensor(X[:4])), file)
    program = torch.export.load(io.BytesIO(file.getvalue())).module()
    for n in (1, 7, 100):
        np.testing.assert_allclose(
            program(torch.tensor(digits[0][200 : 200 + n])),
            clf.predict_proba(digits[0][200 : 200 + n]),
            atol=1e-6,
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch about itself
@pytest.mark.parametrize("metric, average", [("euclidean", "logits"), ("cosine", "proba")])
@pytest.mark.parametrize("kind", ["cnn", "pipeline"])
def test_onnx(cnn, digits, metric, average, kind, tmp_path):
    pytest.importorskip("onnxscript", reason="the onnx extra")
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra")
    X, y = digits
    estimator = cnn
    if kind == "pipeline":
        X = X.reshape(len(X), -1)
        estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    clf = LatentKNNClassifier(estimator, metric=metric, average=average, query_weight=0.4)
    clf = clone(clf).fit(X[:300], y[:300])
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        clf.to_module(),
        (torch.tensor(X[:4]),),
        path,
        dynamo=True,
        dynamic_shapes={"x": {0: torch.export.Dim("n")}},
        verbose=False,
    )
    session = runtime.InferenceSession(path)
    for n in (1, 50):
        (proba,) = session.run(None, {session.get_inputs()[0].name: X[300 : 300 + n]})
        np.testing.assert_allclose(proba, clf.predict_proba(X[300 : 300 + n]), atol=1e-6)
