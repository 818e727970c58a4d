"""Weights of the neighbors, and labels in place of outputs."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from skboundary import FrozenNetwork, LatentKNNClassifier
from skboundary.functional.latent_mixing import inverse_distances
from skboundary.neighbors._votes import neighbor_weights


@pytest.fixture(scope="module")
def split(digits):
    X, y = digits
    return X[:400], y[:400], X[400:], y[400:]


def gauss(d):
    return np.exp(-np.square(d / d.mean()))


@pytest.mark.parametrize("weights", ["uniform", "distance", gauss])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_labels_without_the_sample_itself_are_a_vote_in_the_latent_space(
    cnn, split, weights, metric, dtype
):
    X_train, y_train, X, _ = split
    clf = LatentKNNClassifier(
        cnn.to(dtype),
        n_neighbors=7,
        query_weight=0.0,
        metric=metric,
        weights=weights,
        contribute="labels",
    ).fit(X_train, y_train)
    train, queries = (clf._network.latent(Z).numpy() for Z in (X_train, X))
    # scikit-learn's distances in float32 lose digits, which their inverses show
    atol = 1e-3 if dtype == torch.float32 and weights == "distance" else 1e-5
    theirs = KNeighborsClassifier(7, weights=weights, metric=metric, algorithm="brute")
    expected = theirs.fit(train, y_train).predict_proba(queries)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=atol)
    clf.set_params(query_weight=0.4)
    expected = 0.4 * FrozenNetwork(cnn).predict_proba(X) + 0.6 * expected
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=atol)


@pytest.mark.parametrize("average", ["proba", "logits"])
def test_weighted_outputs_against_a_loop(cnn, split, average):
    X_train, y_train, X, _ = split
    clf = LatentKNNClassifier(
        cnn.double(), n_neighbors=5, query_weight=0.3, weights="distance", average=average
    ).fit(X_train, y_train)
    output = FrozenNetwork(cnn).predict_proba
    if average == "logits":
        output = FrozenNetwork(cnn).decision_function
    own, out = output(X), output(X_train)
    distances, indices = clf.kneighbors(X)
    expected = []
    for i in range(len(X)):
        a = 1 / distances[i]
        mixed = 0.3 * own[i] + 0.7 * sum(w * out[j] for w, j in zip(a / a.sum(), indices[i]))
        e = np.exp(mixed - mixed.max())
        expected.append(mixed if average == "proba" else e / e.sum())
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-10)


def test_the_distribution_of_knn_lm(cnn, split):
    """lambda p_kNN + (1 - lambda) p, p_kNN proportional to the sum of exp(-d) over each label."""
    X_train, y_train, X, _ = split
    net = cnn.double()
    clf = LatentKNNClassifier(
        net,
        n_neighbors=9,
        query_weight=0.75,
        metric="sqeuclidean",
        weights=lambda d: np.exp(-d),
        contribute="labels",
    ).fit(X_train, y_train)
    train, queries = (clf._network.latent(Z) for Z in (X_train, X))
    d = (queries[:, None] - train).square().sum(2)
    near = d.topk(9, largest=False).indices
    p = torch.zeros(len(X), 10, dtype=torch.float64)
    p.scatter_add_(1, torch.from_numpy(y_train)[near], torch.softmax(-d.gather(1, near), 1))
    expected = 0.25 * p.numpy() + 0.75 * FrozenNetwork(net).predict_proba(X)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-10)


@pytest.mark.parametrize("w", [0.0, 0.1, 0.37, 0.88])
def test_probabilities_do_not_exceed_one(iris, w):
    X, y = iris[0], np.zeros(150, int)
    net = torch.nn.Linear(4, 2).double()
    with torch.no_grad():
        net.weight.zero_(), net.bias.copy_(torch.tensor([999.0, 0.0]))
    clf = LatentKNNClassifier(net, n_neighbors=23, query_weight=w, weights="distance")
    for contribute in ("outputs", "labels"):
        proba = clf.set_params(contribute=contribute).fit(X, y).predict_proba(X)
        np.testing.assert_allclose(proba[:, 0], 1, rtol=1e-12)
        assert proba.max() <= 1


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_weights_do_not_depend_on_the_unit(scale):
    d = np.array([[0.0, 0.0, 1.0], [1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    expected = [[0.5, 0.5, 0.0], [4 / 7, 2 / 7, 1 / 7], [1 / 3, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(neighbor_weights(d * scale, "distance"), expected, rtol=1e-12)
    given = neighbor_weights(d, lambda d: scale * (5 - d))
    np.testing.assert_allclose(given, (5 - d) / (5 - d).sum(1, keepdims=True), rtol=1e-12)
    for dtype in (torch.float32, torch.float64):
        near = torch.tensor([1e-30, 2e-30], dtype=dtype)
        torch.testing.assert_close(inverse_distances(near), torch.tensor([1, 0.5], dtype=dtype))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda d: np.exp(-1e6 * d), "not all 0.*subtract the smallest distance"),
        (lambda d: 1 - d, "at least 0"),
        (lambda d: d * np.nan, "must be finite"),
        (lambda d: d[:, :1], r"shape \(3, 1\) for distances of shape \(3, 2\)"),
        (lambda d: None, "must return one number for each"),
    ],
)
def test_weights_of_a_callable_are_checked(weights, message):
    with pytest.raises(ValueError, match=f"weights: (?s:.)*{message}"):
        neighbor_weights(np.array([[1.0, 2.0], [1.0, 3.0], [2.0, 9.0]]), weights)


def test_negative_distances_have_no_inverse():
    with pytest.raises(ValueError, match="'distance' divides .* returned -0.5.*a callable"):
        neighbor_weights(np.array([[-0.5, 2.0]]), "distance")


def test_labels_need_y_and_probabilities(cnn, split):
    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn, contribute="labels")
    with pytest.raises(ValueError, match="contribute='labels' needs .* pass y to fit"):
        clf.fit(X_train)
    with pytest.raises(ValueError, match="average='logits'.*Set average='proba'"):
        clf.set_params(average="logits").fit(X_train, y_train)
    clf.set_params(contribute="outputs").fit(X_train)
    for ask in (clf.predict, clf.explain, lambda X: clf.sweep(X, y)):
        with pytest.raises(ValueError, match="needs the labels .* pass y to fit"):
            clf.set_params(contribute="labels")
            ask(X)
    clf.set_params(average="proba").fit(X_train, y_train)
    with pytest.raises(ValueError, match="average='logits'"):
        clf.sweep(X, y, average=["proba", "logits"])


def test_a_sweep_and_an_explanation_weigh_as_predictions_do(cnn, split):
    X_train, y_train, X, y = split
    for weights in ("distance", gauss):
        for contribute in ("outputs", "labels"):
            clf = LatentKNNClassifier(
                cnn, n_neighbors=6, query_weight=0.2, weights=weights, contribute=contribute
            ).fit(X_train, y_train)
            proba, e = clf.predict_proba(X), clf.explain(X)
            voted = e.outputs if contribute == "outputs" else np.eye(10)[e.labels]
            mixed = e.query_weight * e.query_outputs + (e.weights[..., None] * voted).sum(1)
            np.testing.assert_allclose(mixed, proba, atol=1e-6)
            np.testing.assert_allclose(e.weights.sum(1), 0.8)
            table = clf.sweep(X, y, n_neighbors=[2, 6], query_weight=[0.2], scoring="neg_log_loss")
            for setting, score in zip(table["params"], table["mean_test_score"]):
                log = np.log(clf.set_params(**setting).predict_proba(X)[range(len(X)), y])
                assert score == pytest.approx(log.mean(), rel=1e-5)
            clf.set_params(n_neighbors=6).diagnose()
