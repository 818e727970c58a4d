"""Scores of samples unlike the training data, p-values of classes, and trust in explanations."""

import copy

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier, LatentTransformer
from skboundary.exceptions import SeenSamplesWarning
from skboundary.neighbors import _bank

METHODS = ["knn", "boundary", "energy"]


@pytest.fixture(scope="module")
def split(digits):
    X, y = digits
    return X[:300], y[:300], X[300:], y[300:]


def hidden(cnn, X):
    """Latent vectors and logits in float64."""
    net = copy.deepcopy(cnn).double()
    with torch.no_grad():
        x = torch.as_tensor(X).double()
        z = torch.relu(net.hidden(net.features(x).flatten(1)))
        return z.numpy(), net.head(z).numpy()


def scale_logits(cnn, factor):
    with torch.no_grad():
        cnn.head.weight *= factor
        cnn.head.bias *= factor
    return cnn


@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 2e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_scores_against_the_formulas(cnn, split, dtype, rtol, factor):
    X_train, y_train, X, _ = split
    scale_logits(cnn.to(dtype), factor)
    clf = LatentKNNClassifier(cnn, metric="cosine").fit(X_train, y_train)
    (train, _), (z, logits) = hidden(cnn, X_train), hidden(cnn, X)
    np.testing.assert_allclose(
        clf.score_samples(X, method="energy"), logsumexp(logits, axis=1), rtol=rtol
    )
    weight = cnn.head.weight.detach().double().numpy()
    expected = []
    for i, c in enumerate(logits.argmax(1)):
        others = [
            (logits[i, c] - logits[i, j]) / np.linalg.norm(weight[c] - weight[j])
            for j in range(10)
            if j != c
        ]
        expected.append(np.mean(others) / np.linalg.norm(z[i] - train.mean(0)))
    np.testing.assert_allclose(clf.score_samples(X, method="boundary"), expected, rtol=rtol)
    # the order by the cosine distance is that by the distance of unit vectors, as in the paper
    unit, units = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, train))
    kth = np.sort(np.linalg.norm(unit[:, None] - units, axis=2), axis=1)[:, 19]
    found = clf.score_samples(X, n_neighbors=20)
    np.testing.assert_allclose(found, -(kth**2) / 2, rtol=100 * rtol, atol=1e-6)
    np.testing.assert_array_equal(clf.score_samples(X), -clf.kneighbors(X)[0][:, 2])


@pytest.mark.parametrize("method", METHODS)
def test_blocks_banks_and_dask_arrays_give_the_same(cnn, split, method, tmp_path, monkeypatch):
    X_train, y_train, X, _ = split
    clf = LatentKNNClassifier(cnn, batch_size=50).fit(X_train, y_train)
    expected, of_stored = clf.score_samples(X, method=method), clf.score_samples(method=method)
    assert expected.shape == (300,) and of_stored.shape == (300,)
    if method != "knn":
        np.testing.assert_allclose(of_stored, clf.score_samples(X_train, method=method), rtol=1e-5)
    bank = LatentKNNClassifier(cnn, batch_size=50, bank=tmp_path / "bank").fit(X_train, y_train)
    opened = LatentKNNClassifier.from_bank(tmp_path / "bank", cnn, batch_size=50)
    for block in (4096, 100):
        monkeypatch.setattr(_bank, "BLOCK", block)
        for other in (clf, bank, opened):
            np.testing.assert_allclose(other.score_samples(X, method=method), expected, rtol=1e-9)
            np.testing.assert_allclose(other.score_samples(method=method), of_stored, rtol=1e-9)
    da = pytest.importorskip("dask.array")
    lazy = clf.score_samples(da.from_array(X, chunks=(100, 1, 8, 8)), method=method)
    assert lazy.chunks == ((100, 100, 100),) and lazy.dtype == expected.dtype
    np.testing.assert_allclose(lazy.compute(scheduler="threads"), expected, rtol=1e-6)


def test_without_a_network(cnn, split, tmp_path):
    X, y = split[:2]
    through = LatentKNNClassifier(cnn, bank=tmp_path / "bank").fit(X, y)
    latent = LatentTransformer(cnn).fit(X).transform(X)
    logits = FrozenNetwork(cnn).decision_function(X)
    for clf in (
        LatentKNNClassifier().fit_latent(latent, logits, y),
        LatentKNNClassifier.from_bank(tmp_path / "bank"),
    ):
        for method in ("knn", "energy"):
            np.testing.assert_array_equal(
                clf.score_samples(method=method), through.score_samples(method=method)
            )
        with pytest.raises(ValueError, match="method='boundary' needs the linear layer"):
            clf.score_samples(method="boundary")
        for ask in (
            lambda: clf.score_samples(X, method="energy"),
            lambda: clf.credibility(X, X_cal=X, y_cal=y),
        ):
            with pytest.raises(ValueError, match="has no network"):
                ask()
        assert clf.explain().boundary_distance is None
    p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    clf = LatentKNNClassifier().fit_latent(latent, np.log(np.maximum(p, 1e-12)), y)
    with pytest.raises(ValueError, match="method='energy' needs logits"):
        clf.score_samples(method="energy")


BLACK_BOXES = {
    "a forest": (RandomForestClassifier(5, random_state=0), {"knn"}),
    "decision values": (SVC(), {"knn", "energy"}),
    "a lifted model": (make_pipeline(StandardScaler(), LogisticRegression()), {*METHODS}),
}


@pytest.mark.parametrize("name", BLACK_BOXES)
def test_classifiers_say_what_they_lack(iris, name):
    classifier, methods = BLACK_BOXES[name]
    X, y = iris
    clf = LatentKNNClassifier(classifier).fit(X, y)
    for method in METHODS:
        if method in methods:
            assert np.ptp(clf.score_samples(X, method=method)) > 0.05
            continue
        with pytest.raises(ValueError, match=f"method='{method}' needs .*Use method='knn'"):
            clf.score_samples(X, method=method)
    distance = clf.explain(X).boundary_distance
    assert distance is None if "boundary" not in methods else (distance >= 0).all()


class Ended(nn.Module):
    """A network with something after its last layer."""

    def __init__(self, body, end):
        super().__init__()
        self.body, self.end = body, end

    def forward(self, x):
        return self.end(self.body(x))


def test_what_follows_the_last_layer_is_noticed(cnn, split):
    X_train, y_train, X, _ = split
    plain = LatentKNNClassifier(cnn).fit(X_train, y_train)
    expected = plain.score_samples(X, method="boundary")
    # normalized outputs have the same boundaries, and no energy
    for net in (
        FrozenNetwork(Ended(cnn, nn.Softmax(1)), output="proba"),
        Ended(cnn, nn.LogSoftmax(1)),
    ):
        clf = LatentKNNClassifier(net).fit(X_train, y_train)
        np.testing.assert_allclose(clf.score_samples(X, method="boundary"), expected, rtol=1e-5)
        for samples in (X, None):
            with pytest.raises(ValueError, match="method='energy' needs logits"):
                clf.score_samples(samples, method="energy")
    # other functions move the boundaries, and other layers have none
    for net, layer in ((Ended(cnn, nn.Tanh()), "auto"), (cnn, "hidden")):
        clf = LatentKNNClassifier(net, layer=layer).fit(X_train, y_train)
        with pytest.raises(ValueError, match="method='boundary' needs the linear layer"):
            clf.score_samples(X, method="boundary")
        assert clf.explain(X).boundary_distance is None
        assert clf.score_samples(X, method="energy").shape == (300,)


def test_a_sample_whose_logits_look_normalized_is_no_reason_to_refuse(iris):
    X, y = iris
    logits = X[:, :3].copy()
    logits[7] -= logsumexp(logits[7])
    clf = LatentKNNClassifier().fit_latent(X, logits, y)
    energy = logsumexp(logits, axis=1)
    np.testing.assert_allclose(clf.score_samples(method="energy"), energy, atol=1e-12)


def test_what_is_wrong_is_named(cnn, split):
    X, y = split[:2]
    clf = LatentKNNClassifier(cnn).fit(X, y)
    with pytest.raises(ValueError, match="method='msp' .* none of 'knn', 'boundary' and 'energy'"):
        clf.score_samples(X, method="msp")
    for method in ("boundary", "energy"):
        with pytest.raises(ValueError, match=f"n_neighbors=5 has no effect on method='{method}'"):
            clf.score_samples(X, method=method, n_neighbors=5)
    with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit"):
        clf.score_samples(X, n_neighbors=301)
    with pytest.raises(ValueError, match="'n_neighbors' parameter .* Got 0"):
        clf.credibility(X, X_cal=X, y_cal=y, n_neighbors=0)
    with pytest.raises(ValueError, match="Expected n_neighbors <= n_samples_fit"):
        clf.credibility(X, X_cal=X, y_cal=y, n_neighbors=301)
    with pytest.raises(ValueError, match="not one of the 10 classes"):
        clf.credibility(X, X_cal=X, y_cal=y + 50)
    with pytest.raises(ValueError, match="pass y_cal"):
        clf.credibility(X, X_cal=X, y_cal=None)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.credibility(X, X_cal=X, y_cal=y[:-1])
    with pytest.raises(ValueError, match="credibility needs .* pass y to fit"):
        clf.fit(X).credibility(X, X_cal=X, y_cal=y)
    assert clf.explain(X).agreement is None


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_explanations_say_how_far_to_trust(cnn, split, w):
    X_train, y_train, X, _ = split
    names = np.array([f"digit {i}" for i in range(10)])
    clf = LatentKNNClassifier(FrozenNetwork(cnn, classes=names), n_neighbors=7, query_weight=w)
    clf.fit(X_train, names[y_train])
    for samples in (X, None):
        why = clf.explain(samples)
        predicted = names[why.proba.argmax(1)]
        shares = [np.mean(why.labels[i] == predicted[i]) for i in range(300)]
        np.testing.assert_allclose(why.agreement, shares)
        _, logits = hidden(cnn, X if samples is not None else X_train)
        weight = cnn.head.weight.detach().double().numpy()
        nearest = [
            min(
                (row[c] - row[j]) / np.linalg.norm(weight[c] - weight[j])
                for j in range(10)
                if j != c
            )
            for row, c in zip(logits, logits.argmax(1))
        ]
        np.testing.assert_allclose(why.boundary_distance, nearest, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(clf.predict(X), names[clf.explain(X).proba.argmax(1)])


@pytest.mark.parametrize("transforms", [None, [lambda X: X[..., ::-1]]])
def test_credibility_against_loops(cnn, split, transforms):
    X_train, y_train, X, y = split
    names = np.array([f"digit {i}" for i in range(10)])
    clf = LatentKNNClassifier(FrozenNetwork(cnn, classes=names), query_transforms=transforms)
    clf.fit(X_train, names[y_train])
    X_cal, y_cal, X = X[:120], names[y[:120]], X[120:]
    p = clf.credibility(X, X_cal=X_cal, y_cal=y_cal, n_neighbors=11)
    near = names[y_train][clf.kneighbors(X, 11)[1]]
    near_cal = names[y_train][clf.kneighbors(X_cal, 11)[1]]
    strange = [sum(label != own for label in row) for row, own in zip(near_cal, y_cal)]
    assert p.shape == (180, 10) and p.dtype == np.float64
    for i in range(180):
        for c in range(10):
            mine = sum(label != names[c] for label in near[i])
            assert p[i, c] == (1 + sum(other >= mine for other in strange)) / 121


def test_errors_name_the_calibration_samples(cnn, split):
    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn).fit(X_train, y_train)
    for given, match in (
        ({"X_cal": X, "y_cal": None}, "needs the labels of the calibration samples: pass y_cal"),
        ({"X_cal": X, "y_cal": y + 9}, "which is not one of .* y is y_cal"),
        ({"X_cal": X * np.float32(np.nan), "y_cal": y}, "NaN in sample 0.* X is X_cal"),
        ({"X_cal": X[:-1], "y_cal": y}, "inconsistent numbers of samples.* y is y_cal"),
    ):
        with pytest.raises(ValueError, match=match):
            clf.credibility(X, **given)


def draw(rng, n):
    """Two classes that overlap."""
    y = rng.integers(2, size=n)
    return rng.normal(size=(n, 2)) + 1.2 * y[:, None], y


@pytest.mark.parametrize("n_cal, k", [(9, 40), (60, 40), (60, 3)])
def test_true_classes_are_covered(n_cal, k):
    """P(p <= a) <= a over samples and calibration samples, and not much less with few ties."""
    rng, n_draws = np.random.default_rng(0), 60
    clf = LatentKNNClassifier(LogisticRegression()).fit(*draw(rng, 200))
    p = []
    for _ in range(n_draws):
        (X_cal, y_cal), (X, y) = draw(rng, n_cal), draw(rng, 100)
        found = clf.credibility(X, X_cal=X_cal, y_cal=y_cal, n_neighbors=k)
        p.append(found[np.arange(100), y])
    for level in (0.05, 0.1, 0.2, 0.4):
        missed = (np.array(p) <= level).mean(1)  # in each draw
        slack = 4 * np.sqrt(level * (1 - level) * (1 / (n_cal + 2) + 0.01) / n_draws)
        assert missed.mean() <= level + slack
        if level > 2 / n_cal and k > 3:
            assert missed.mean() > level / 2 - slack


def test_calibration_samples_of_the_training_are_noticed(cnn, split, recwarn):
    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn).fit(X_train, y_train)
    clf.credibility(X[:50], X_cal=X[50:], y_cal=y[50:])
    assert not recwarn.list
    with pytest.warns(SeenSamplesWarning, match=r"100.0% of the calibration .* p-values are too"):
        clf.credibility(X, X_cal=X_train, y_cal=y_train)
    for start in (260, 240):  # 40 and 60 of 100 samples
        part = slice(start, start + 100)
        X_cal, y_cal = np.concatenate([X_train, X])[part], np.concatenate([y_train, y])[part]
        recwarn.clear()
        clf.credibility(X[200:], X_cal=X_cal, y_cal=y_cal)
        assert [str(w.message)[:5] for w in recwarn.list] == ["60.0%"] * (start == 240)
