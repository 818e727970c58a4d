import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.stats import pearsonr
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from torch import nn

from skboundary import FrozenNetwork, LatentKNNClassifier
from tests.conftest import Recording


@pytest.fixture(scope="module")
def split(digits):
    X, y = digits
    return X[:400], y[:400], X[400:], y[400:]


def reference(cnn, X_train, X, *, k, w, metric, average, transforms=()):
    """LaSeNN in float64 loops, as Algorithm 1 of the paper has it."""
    net = copy.deepcopy(cnn).double()
    with torch.no_grad():
        tap = lambda x: torch.relu(net.hidden(net.features(x).flatten(1))).numpy()
        train, out = (f(torch.tensor(X_train).double()) for f in (tap, net))
        x = torch.tensor(X).double()
        latents = [tap(t(x)) for t in (lambda x: x, *transforms)]
        own = net(x)
    output = lambda z: (torch.softmax(z, 1) if average == "proba" else z).numpy()
    own, out = output(own), output(out)
    mixed, neighbors = np.empty_like(own), np.empty((len(X), k), int)
    for i in range(len(X)):
        best = {}
        for latent in latents:
            for j in range(len(train)):
                if metric == "cosine":
                    cos = latent[i] @ train[j]
                    d = 1 - cos / np.linalg.norm(latent[i]) / np.linalg.norm(train[j])
                else:
                    d = np.sum((latent[i] - train[j]) ** 2)
                best[j] = min(d, best.get(j, np.inf))
        neighbors[i] = sorted(best, key=lambda j: (best[j], j))[:k]
        mixed[i] = w * own[i] + (1 - w) / k * out[neighbors[i]].sum(0)
    if average == "logits":
        mixed = torch.softmax(torch.tensor(mixed), 1).numpy()
    return mixed, neighbors


def flip(X):
    return X[..., ::-1] if isinstance(X, np.ndarray) else X.flip(-1)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("average", ["proba", "logits"])
@pytest.mark.parametrize("transforms", [(), (flip,)], ids=["plain", "flip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_are_those_of_the_paper(cnn, split, metric, average, transforms, dtype):
    X_train, y_train, X, _ = split
    X = X[:12]
    clf = LatentKNNClassifier(
        cnn.to(dtype),
        n_neighbors=4,
        query_weight=0.4,
        metric=metric,
        average=average,
        query_transforms=[*transforms],
    ).fit(X_train[:150], y_train[:150])
    proba, indices = clf.predict_proba(X), clf.kneighbors(X, return_distance=False)
    expected, neighbors = reference(
        cnn, X_train[:150], X, k=4, w=0.4, metric=metric, average=average, transforms=transforms
    )
    np.testing.assert_array_equal(indices, neighbors)
    np.testing.assert_allclose(proba, expected, atol=1e-5 if dtype == torch.float32 else 1e-12)
    assert proba.dtype == (np.float32 if dtype == torch.float32 else np.float64)
    assert np.array_equal(clf.predict(X), expected.argmax(1))


def test_limits(cnn, split):
    X_train, y_train, X, _ = split
    clf = LatentKNNClassifier(cnn, query_weight=1.0).fit(X_train, y_train)
    bare = FrozenNetwork(cnn)
    np.testing.assert_allclose(clf.predict_proba(X), bare.predict_proba(X), atol=1e-6)
    # the nearest neighbor of a training sample is the sample itself
    clf.set_params(query_weight=0.0, n_neighbors=1)
    np.testing.assert_allclose(clf.predict_proba(X_train), bare.predict_proba(X_train), atol=1e-6)
    # and without itself it is another
    assert (clf.kneighbors()[1][:, 0] != np.arange(len(X_train))).all()


def test_parameters_act_at_predict_time(cnn, split):
    X_train, y_train, X, _y = split
    clf = LatentKNNClassifier(cnn, metric="cosine").fit(X_train, y_train)
    for params in [{"n_neighbors": 7}, {"query_weight": 0.1}, {"average": "logits"}]:
        before = clf.predict_proba(X)
        clf.set_params(**params)
        fresh = clone(clf).fit(X_train, y_train)
        np.testing.assert_allclose(clf.predict_proba(X), fresh.predict_proba(X), atol=1e-6)
        assert not np.allclose(clf.predict_proba(X), before)
    with pytest.raises(ValueError, match="'query_weight' parameter of LatentKNNClassifier"):
        clf.set_params(query_weight=1.5).predict(X)
    with pytest.raises(ValueError, match="n_neighbors = 401, n_samples_fit = 400"):
        clf.set_params(query_weight=0.5, n_neighbors=401).predict(X)
    with pytest.raises(ValueError, match="n_neighbors = 401.*Lower n_neighbors"):
        clf.fit(X_train, y_train)


class Counting(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body
        self.rows = []

    def forward(self, x):
        self.rows += [x[i].numpy().tobytes() for i in range(len(x))]
        return self.body(x)


def test_the_network_runs_once_per_sample(cnn, split):
    X_train, y_train, X, y = split
    net = Counting(cnn)
    clf = LatentKNNClassifier(FrozenNetwork(net)).fit(X_train, y_train)
    assert len(net.rows) == len(X_train) + 2 + 64  # two find the layer, 64 what it ends in
    net.rows.clear()
    clf.predict(X)
    clf.set_params(n_neighbors=5, query_weight=0.2).diagnose()
    assert len(net.rows) == len(X)
    net.rows.clear()
    clf.sweep(X, y)
    assert len(net.rows) == len(X)


def test_memory_makes_a_grid_search_run_every_distinct_sample_once(cnn, split, tmp_path):
    X, y, _, _ = split
    X, y = np.concatenate([X[:120], X[:10]]), np.concatenate([y[:120], y[:10]])
    net = Recording(cnn, tmp_path / "rows")
    clf = LatentKNNClassifier(FrozenNetwork(net), memory=str(tmp_path), metric="cosine")
    grid = {"n_neighbors": [1, 5], "query_weight": [0.0, 0.5, 0.9]}
    search = GridSearchCV(clf, grid, cv=3).fit(X, y)
    rows = net.rows[2:]  # two find the layer
    assert len(rows) == len(set(rows)) == 120
    plain = GridSearchCV(clone(clf).set_params(memory=None), grid, cv=3).fit(X, y)
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize("scoring", [None, "neg_log_loss", "roc_auc_ovr", "balanced_accuracy"])
def test_sweep_scores_like_refitted_classifiers(cnn, split, scoring):
    from sklearn.metrics import check_scoring

    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn, query_transforms=[flip]).fit(X_train, y_train)
    results = clf.sweep(
        X,
        y,
        n_neighbors=[1, 6],
        query_weight=[0.0, 0.5],
        average=["proba", "logits"],
        scoring=scoring,
    )
    assert len(results["params"]) == 8
    for setting, score in zip(results["params"], results["mean_test_score"]):
        one = clone(clf).set_params(**setting).fit(X_train, y_train)
        assert check_scoring(one, scoring=scoring)(one, X, y) == pytest.approx(score, abs=1e-6)
    best = results["params"][int(np.argmin(results["rank_test_score"]))]
    assert (
        results["mean_test_score"].max()
        == results["mean_test_score"][results["params"].index(best)]
    )
    assert clf.get_params()["n_neighbors"] == 3  # the classifier keeps its own setting
    with pytest.raises(ValueError, match="query_weight"):
        clf.sweep(X, y, query_weight=[2.0])
    with pytest.raises(ValueError, match="n_neighbors = 999"):
        clf.sweep(X, y, n_neighbors=[1, 999])


class Uncopied(nn.Module):
    """A network that is too large to copy."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x)

    def __deepcopy__(self, memo):
        raise AssertionError("copied")


def test_sweep_does_not_copy_the_network(mlp, iris):
    clf = LatentKNNClassifier(Uncopied(mlp)).fit(*iris)
    assert len(clf.sweep(*iris)["params"]) == 28


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_neighbors": 5}, r"n_neighbors=5 is not a list of values: pass \[5\]"),
        ({"average": "proba"}, r"average='proba' is not a list .* pass \['proba'\]"),
        ({"query_weight": np.array(0.5)}, "query_weight=.*0.5.* is not a list"),
        ({"query_weight": ()}, "query_weight is empty"),
        ({"n_neighbors": [1, "2"]}, "'n_neighbors' parameter of LatentKNN.* Got '2'"),
        ({"n_neighbors": [0]}, "'n_neighbors' parameter of LatentKNN.* Got 0"),
        ({"average": ["mean"]}, "'average' parameter of LatentKNN.* Got 'mean'"),
    ],
)
def test_sweep_refuses_what_the_parameters_refuse(mlp, iris, values, message):
    clf = LatentKNNClassifier(mlp).fit(*iris)
    with pytest.raises(ValueError, match=message):
        clf.sweep(*iris, **values)
    assert len(clf.sweep(*iris, n_neighbors=iter([2, 1]), query_weight=np.array([0.5]))) == 8


def test_sweep_needs_labels(mlp, iris):
    X, _ = iris
    with pytest.raises(ValueError, match="sweep .* give y"):
        LatentKNNClassifier(mlp).fit(X).sweep(X, None)


def test_numbers_of_neighbors_are_checked_where_they_are_given(mlp, iris):
    X, y = iris
    clf = LatentKNNClassifier(mlp).fit(X, y)
    for queries in (X, None):
        for k in ("2", 2.5, 0):
            with pytest.raises(ValueError, match="'n_neighbors' parameter of LatentKNN.* Got"):
                clf.kneighbors(queries, n_neighbors=k)
    clf.set_params(n_neighbors="2")
    for ask in (clf.diagnose, clf.kneighbors, lambda: clf.predict(X), lambda: clf.explain(X)):
        with pytest.raises(ValueError, match="'n_neighbors' parameter of LatentKNN.* Got '2'"):
            ask()


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("transforms", [(), (np.flip, np.negative)])
def test_one_bar_for_the_whole_call(mlp, iris, monkeypatch, tmp_path, memory, transforms):
    from skboundary.neighbors import _bank

    X, y = iris
    moves, opened = [], []

    class Bar:
        n = 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def update(self, n):
            self.n += n
            moves.append(self.n)

    def open_bar(total, desc, verbose):
        assert verbose == 1
        opened.append(total)
        return Bar()

    clf = LatentKNNClassifier(
        mlp,
        batch_size=10,
        query_transforms=transforms,
        memory=str(tmp_path) if memory else None,
    ).fit(X, y)
    monkeypatch.setattr(_bank, "BLOCK", 64)
    monkeypatch.setattr(_bank, "progress", open_bar)
    clf.set_params(verbose=1)
    total = 150 * (1 + len(transforms))
    for ask in (clf.predict, clf.kneighbors, clf.explain, lambda X: clf.sweep(X, y)):
        opened.clear(), moves.clear()
        ask(X)
        assert opened == [total] and moves[-1] == total and moves == sorted(moves)
        assert len(set(moves)) >= (3 if memory else total // 10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("average", ["proba", "logits"])
def test_probabilities_of_a_half_precision_network_sum_to_one(mlp, iris, dtype, average):
    X, y = iris
    clf = LatentKNNClassifier(mlp.to(dtype), average=average, query_weight=0.3).fit(X, y)
    proba = clf.predict_proba(X)
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(1), 1, atol=1e-6)
    if average == "proba":
        np.testing.assert_allclose(clf.explain(X).outputs.sum(2), 1, atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradient_modes_do_not_matter(mlp, iris, mode):
    X, y = iris
    expected = LatentKNNClassifier(mlp).fit(X, y).predict_proba(X)
    with mode():
        clf = LatentKNNClassifier(mlp).fit(X, y)
        for ask in (clf.explain, clf.score_samples, lambda X: clf.sweep(X, y)):
            ask(X)
        np.testing.assert_array_equal(clf.predict_proba(X), expected)
        clf.diagnose()
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    clf.diagnose(X, y)


def test_explain_adds_up_to_the_prediction(cnn, split):
    X_train, y_train, X, _ = split
    names = np.array([f"digit {i}" for i in range(10)])
    net = FrozenNetwork(cnn, classes=names)
    clf = LatentKNNClassifier(net, n_neighbors=5, query_weight=0.6).fit(X_train, names[y_train])
    e = clf.explain(X)
    np.testing.assert_array_equal(e.labels, names[y_train][e.indices])
    np.testing.assert_allclose(e.query_weight + e.weights.sum(1), 1)
    mixed = e.query_weight * e.query_outputs + (e.weights[..., None] * e.outputs).sum(1)
    np.testing.assert_allclose(mixed, clf.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(e.proba, clf.predict_proba(X))
    np.testing.assert_allclose(e.query_proba, net.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(e.distances, clf.kneighbors(X)[0])
    assert clf.fit(X_train).explain(X[:2]).labels is None


def test_diagnose_against_the_definitions(cnn, split):
    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn, query_weight=0.1).fit(X_train, y_train)
    d = clf.diagnose(X, y)
    distances, indices = clf.kneighbors(X)
    purity = [sum(y_train[j] == y[i] for j in indices[i]) for i in range(len(X))]
    near = distances.mean(1)
    bare, mixed = FrozenNetwork(cnn).predict(X), clf.predict(X)
    np.testing.assert_array_equal(d.purity, purity)
    np.testing.assert_allclose(d.mean_distance, near)
    r, p = pearsonr(purity, near)
    assert d.correlation == pytest.approx(r) and d.p_value == pytest.approx(p)
    assert d.correlation < 0
    assert d.same_prediction == pytest.approx((bare == mixed).mean())
    assert d.distance_correct == pytest.approx(near[bare == y].mean())
    assert d.distance_wrong == pytest.approx(near[bare != y].mean())
    assert d.distance_changed == pytest.approx(near[bare != mixed].mean())
    np.testing.assert_array_equal(d.changed, bare != mixed)
    latent = clf._network.latent(X_train).numpy()
    means = np.stack([latent[y_train == c].mean(0) for c in range(10)])
    gaps = np.linalg.norm(means[3] - means, axis=1)
    other = np.argsort(gaps)[1]
    assert d.nearest_class[3] == other
    line = means[other] - means[3]
    expected = (clf._network.latent(X).numpy() - means[3]) @ line / (line @ line)
    np.testing.assert_allclose(d.projections[:, 3], expected, atol=1e-4)


def test_diagnose_of_training_samples_leaves_each_out(cnn, split):
    X_train, y_train, X, y = split
    clf = LatentKNNClassifier(cnn).fit(X_train, y_train)
    d = clf.diagnose()
    np.testing.assert_allclose(d.mean_distance, clf.kneighbors()[0].mean(1))
    assert (d.mean_distance > clf.diagnose(X_train, y_train).mean_distance).all()
    squared = clone(clf).set_params(metric="sqeuclidean").fit(X_train, y_train)
    np.testing.assert_allclose(squared.diagnose().mean_distance, d.mean_distance, rtol=1e-5)
    with pytest.raises(ValueError, match="pass y to fit"):
        clf.fit(X_train).diagnose(X, y)
    with pytest.raises(ValueError, match="not one of the 10 classes"):
        LatentKNNClassifier(cnn).fit(X_train, y_train).diagnose(X, y + 50)
    with pytest.raises(ValueError, match="needs the labels of X: pass y"):
        LatentKNNClassifier(cnn).fit(X_train, y_train).diagnose(X)


def test_score_samples(cnn, split):
    X_train, y_train, X, _ = split
    clf = LatentKNNClassifier(cnn, n_neighbors=4).fit(X_train, y_train)
    np.testing.assert_array_equal(clf.score_samples(X), -clf.kneighbors(X)[0][:, 3])
    assert clf.score_samples(X).mean() > clf.score_samples(X + 3).mean()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_any_object_with_fit_and_kneighbors(cnn, split, metric):
    X_train, y_train, X, _ = split
    theirs = NearestNeighbors(metric=metric, algorithm="brute")
    clf = LatentKNNClassifier(cnn, neighbors=theirs, query_transforms=[flip]).fit(X_train, y_train)
    ours = LatentKNNClassifier(cnn, metric=metric, query_transforms=[flip]).fit(X_train, y_train)
    assert clf.neighbors_ is not theirs and not hasattr(theirs, "n_samples_fit_")
    np.testing.assert_array_equal(clf.kneighbors(X)[1], ours.kneighbors(X)[1])
    np.testing.assert_allclose(clf.predict_proba(X), ours.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(clf.kneighbors()[1], ours.kneighbors()[1])
    with pytest.raises(ValueError, match="metric='cosine' has no effect on neighbors="):
        LatentKNNClassifier(cnn, neighbors=theirs, metric="cosine").fit(X_train, y_train)


def test_a_transform_that_changes_the_shape_is_refused(cnn, split):
    X_train, y_train, X, _ = split
    for wrong in (lambda X: X[..., :4], lambda X: X[:3]):
        clf = LatentKNNClassifier(cnn, query_transforms=[wrong]).fit(X_train, y_train)
        with pytest.raises(ValueError, match="query_transforms.*must keep the shape"):
            clf.predict(X)


@pytest.mark.parametrize("result", [None, [[1.0]], "rows", 3])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_a_transform_that_returns_no_samples_is_refused(mlp, iris, container, result):
    X = container(iris[0])
    clf = LatentKNNClassifier(mlp, query_transforms=[lambda X: result]).fit(X)
    message = f"query_transforms.*into a {type(result).__name__}; it must keep the shape"
    with pytest.raises(ValueError, match=message):
        clf.predict(X)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array, pd.DataFrame])
def test_a_transform_takes_the_container_of_X(iris, container):
    X, y = iris
    forest = RandomForestClassifier(5, random_state=0)
    clf = LatentKNNClassifier(forest, query_transforms=[lambda X: 2 * X]).fit(container(X), y)
    array = LatentKNNClassifier(forest, query_transforms=[lambda X: 2 * X]).fit(X, y)
    np.testing.assert_array_equal(clf.kneighbors(container(X))[1], array.kneighbors(X)[1])


def test_a_transform_keeps_the_columns_of_a_frame(iris):
    X = pd.DataFrame(iris[0], columns=[*"abcd"])
    forest = RandomForestClassifier(5, random_state=0)
    for wrong in (lambda X: X[[*"bacd"]], lambda X: X.to_numpy()):
        clf = LatentKNNClassifier(forest, query_transforms=[wrong]).fit(X, iris[1])
        with pytest.raises(ValueError, match="query_transforms.*and the columns of a DataFrame"):
            clf.predict(X)


def test_a_transform_may_work_in_place(mlp, iris):
    X, y = iris[0].copy(), iris[1]
    clf = LatentKNNClassifier(mlp, query_transforms=[lambda X: np.negative(X, out=X)]).fit(X, y)
    proba = clf.predict_proba(X)
    np.testing.assert_array_equal(X, iris[0])
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


def test_results_do_not_depend_on_the_block_size(cnn, split, monkeypatch):
    from skboundary.neighbors import _bank

    X_train, y_train, X, _y = split
    clf = LatentKNNClassifier(cnn).fit(X_train, y_train)
    proba, neighbors = clf.predict_proba(X), clf.kneighbors(X)[1]
    monkeypatch.setattr(_bank, "BLOCK", 7)
    np.testing.assert_allclose(clf.predict_proba(X), proba, atol=1e-6)
    np.testing.assert_array_equal(clf.kneighbors(X)[1], neighbors)


def test_a_black_box(iris):
    X, y = iris[0], np.array(["a", "b", "c"])[iris[1]]
    forest = RandomForestClassifier(20, random_state=0)
    clf = LatentKNNClassifier(forest, n_neighbors=2, query_weight=0.5).fit(X[::2], y[::2])
    p = clf.estimator_.predict_proba(X)
    near = NearestNeighbors(n_neighbors=2).fit(X[::2]).kneighbors(X, return_distance=False)
    expected = 0.5 * p + 0.5 * clf.estimator_.predict_proba(X[::2])[near].mean(1)
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-12)
    frozen = LatentKNNClassifier(FrozenEstimator(clf.estimator_), n_neighbors=2, query_weight=0.5)
    np.testing.assert_allclose(frozen.fit(X[::2]).predict_proba(X), expected, atol=1e-12)


def test_unfitted_and_missing_labels(cnn, split):
    X_train, _y_train, X, _y = split
    for method in ("predict", "predict_proba", "kneighbors", "explain", "score_samples"):
        with pytest.raises(NotFittedError):
            getattr(LatentKNNClassifier(cnn), method)(X)
    with pytest.raises(ValueError, match="requires y to be passed"):
        LatentKNNClassifier().fit(X_train)
    assert LatentKNNClassifier().__sklearn_tags__().target_tags.required
    assert not LatentKNNClassifier(cnn).__sklearn_tags__().target_tags.required


def test_pickle(cnn, split):
    X_train, y_train, X, _ = split
    clf = LatentKNNClassifier(cnn).fit(X_train, y_train)
    other = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(other.predict_proba(X), clf.predict_proba(X))


def test_device_agrees_with_cpu_and_its_pickle_is_on_the_cpu(cnn, split, device):
    X_train, y_train, X, _ = split
    cpu = LatentKNNClassifier(cnn, device="cpu").fit(X_train, y_train)
    clf = LatentKNNClassifier(cnn, device=device).fit(X_train, y_train)
    assert clf.device_.type == device and next(cnn.parameters()).device.type == "cpu"
    other = pickle.loads(pickle.dumps(clf))
    expected, (distances, near) = clf.predict_proba(X), clf.kneighbors(X)
    for each in (cpu, other):
        theirs = each.kneighbors(X)
        np.testing.assert_allclose(theirs[0], distances, rtol=1e-2)
        same = (theirs[1] == near).all(1)  # devices round, which may part a tie
        assert same.mean() > (0.98 if device == "cuda" else 0.9999)
        np.testing.assert_allclose(each.predict_proba(X)[same], expected[same], atol=1e-3)


def test_probabilities_are_computed_for_neighbors_only(mlp, iris):
    X = iris[0]
    clf = LatentKNNClassifier(FrozenNetwork(mlp)).fit(X)
    computed, link = [], clf._bank.link
    clf._bank.link = lambda z: computed.append(len(z)) or link(z)
    near = clf.explain(X[:5])
    assert clf.predict_proba(X[:5]).shape == (5, 3) and set(computed) == {5, 15}
    expected = FrozenNetwork(mlp).predict_proba(X)[near.indices]
    np.testing.assert_allclose(near.outputs, expected, rtol=1e-12)
