"""BoundaryCharacterizer: boundaries of known complexity, resuming, and bad input."""

import itertools
import pickle
import threading

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris, make_blobs
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from skorch import NeuralNetClassifier
from torch import nn

from skboundary import BoundaryCharacterizer, FrozenNetwork
from skboundary.boundary import _characterization, _hyperplane, characterize_boundary
from skboundary.datasets import make_checkerboard, make_linear, make_xor
from skboundary.functional.boundary_complexity import linearity


class Known(ClassifierMixin, BaseEstimator):
    """A problem's own boundary as a fitted classifier; its latent space is X."""

    def __init__(self, function):
        self.function = function
        self.classes_ = np.array([0, 1])

    def fit(self, X, y):
        return self

    def decision_function(self, X):
        return self.function(torch.as_tensor(X, dtype=torch.float64)).numpy()

    def predict(self, X):
        return (self.decision_function(X) > 0).astype(int)


def known(problem):
    return FrozenEstimator(Known(problem.module.function))


def characterize(estimator, X, y, **params):
    model = BoundaryCharacterizer(estimator, random_state=0, n_samples=40, **params)
    return model.fit(X, y).report_


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, np.array(["setosa", "versicolor", "virginica"])[y]


@pytest.fixture(scope="module")
def logistic(iris):
    return FrozenEstimator(LogisticRegression(max_iter=500).fit(*iris))


def test_a_linear_boundary_is_crossed_once_and_separates_all():
    problem = make_linear(400, 3, random_state=0)
    margin = problem.data @ problem.weights + problem.bias
    clear = np.abs(margin) > 1
    X, y = problem.data[clear], problem.target[clear]
    report = characterize(known(problem), X, y, n_partners=5)
    assert (report.success_rate == 1).all() and (report.third_class_rate == 0).all()
    assert (report.error_rate_train == 0).all() and np.isnan(report.error_distance_train).all()
    # borderline samples are within rounding of the boundary, on either side of it: a segment
    # between two of them changes the class once where it crosses, and never otherwise
    assert (report.oscillation > 0).all() and (report.oscillation <= 1 / 50).all()
    assert (report.attempts_success == report.attempts).all()
    assert np.isnan(report.attempts_fail).all() and np.isnan(report.error_rate_test).all()
    # halving a margin of m on a segment of margin m1 + m2 needs about log2((m1 + m2) / m) steps
    assert ((report.attempts > 10) & (report.attempts < 20)).all()


def test_the_nearest_samples_across_or_random_ones(iris, logistic):
    near, drawn = (characterize(logistic, *iris, init=init) for init in ("nearest", "random"))
    assert (near.length < drawn.length).all()


def test_the_known_order_of_complexity():
    """More cells, more changes of mind, and less that a line could do."""
    problems = [make_linear(600, 2, random_state=0), make_xor(600, random_state=0)]
    problems += [make_checkerboard(600, n_cells=n, random_state=0) for n in (4, 8)]
    reports = [characterize(known(p), p.data, p.target) for p in problems]
    idc = [report.oscillation.mean() for report in reports]
    assert idc[0] < idc[1] < idc[2] < idc[3] and idc[2] > 2 * idc[0]
    errors = [report.error_rate_train.mean() for report in reports]
    assert errors[0] < 0.02 and min(errors[1:]) > 0.3
    # all segments end on the boundary of the nearest cell, so at most a cell away
    assert reports[3].length.max() < reports[2].length.max() < 0.5


def test_the_smoother_of_two_nets_oscillates_less():
    samples = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    idc = []
    for pace in (2, 6, 18):
        wave = Known(lambda x, k=pace: 8 * (x[:, 0] - 0.3 * torch.sin(k * x[:, 1])))
        report = characterize(FrozenEstimator(wave), samples, wave.predict(samples))
        idc.append(report.oscillation.mean())
    assert idc[0] < idc[1] < idc[2]


def slow_report(model, X, y, X_test, y_test, s, t):
    """The measures of one ordered pair from their definitions, a sample at a time.

    For a linear classifier, whose latent space is X, with all correctly predicted samples of the
    source class as starts, and all segments between borderline samples.
    """
    of_class = {c: X[y == c] for c in (s, t)}
    right = {c: [x for x in of_class[c] if model.predict([x])[0] == c] for c in (s, t)}
    column = model.classes_.tolist().index
    border, lengths, attempts, n_third = [], [], {True: [], False: []}, 0
    for a in right[s]:
        b = min(right[t], key=lambda z: np.linalg.norm(a - z))
        lengths.append(np.linalg.norm(a - b))
        success = False
        for n in range(1, 51):
            middle = (a + b) / 2
            p = model.predict_proba([middle])[0]
            label = model.classes_[p.argmax()]
            n_third += label not in (s, t)
            success = bool(label in (s, t) and abs(p[column(s)] - p[column(t)]) < 1e-4)
            if success or label not in (s, t):
                break
            a, b = (middle, b) if label == s else (a, middle)
        attempts[success].append(n)
        border += [middle] if success else []
    u = np.arange(50)[:, None] / 50
    points = [u * i + (1 - u) * j for i, j in itertools.permutations(border, 2)]
    said = model.predict(np.concatenate(points)).reshape(-1, 50)
    report = {
        "n_segments": len(right[s]),
        "success_rate": len(border) / len(right[s]),
        "third_class_rate": n_third / len(right[s]),
        "attempts": np.mean(attempts[True] + attempts[False]),
        "attempts_success": np.mean(attempts[True]),
        "attempts_fail": np.mean(attempts[False]) if attempts[False] else np.nan,
        "yield_over": np.nan,
        "yield_back": np.nan,
        "oscillation": np.mean([(row[1:] != row[:-1]).sum() / 50 for row in said]),
        "length": np.mean(lengths),
    }
    _first, second = sorted((s, t))
    chosen = np.isin(y, (s, t))
    svm = LinearSVC(max_iter=10_000, random_state=0).fit(X[chosen], y[chosen] == second)
    foot = -svm.intercept_[0] * svm.coef_[0] / (svm.coef_[0] @ svm.coef_[0])  # on the hyperplane
    normal = svm.coef_[0] / np.linalg.norm(svm.coef_[0])
    border = np.array(border)
    for of, samples, labels in (
        ("train", X, y),
        ("test", X_test, y_test),
        ("borderline", border, [s] * len(border)),
    ):
        every, wrong = [], []
        for x, label in zip(samples, labels):
            if label in (s, t):
                distance = (x - foot) @ normal
                every.append(abs(distance))
                if (distance > 0) != (label == second):
                    wrong.append(abs(distance))
        for name, d in (("linear", np.mean(every)), ("error", np.mean(wrong or [np.nan]))):
            report[f"{name}_distance_{of}"] = d / (1 + d)
        report[f"error_rate_{of}"] = len(wrong) / len(every)
    for side, label in (("source", s), ("target", t)):
        near = [min(np.linalg.norm(m - z) for z in of_class[label]) for m in border]
        report[f"distance_{side}"] = report[f"latent_distance_{side}"] = np.mean(near)
    return report


def test_every_column_against_a_slow_reference():
    X, y = make_blobs(120, 4, centers=3, cluster_std=4.0, random_state=10)
    y = np.array(["a", "b", "c"], dtype=object)[y]
    head = LogisticRegression().fit(X[:60], y[:60])
    model = BoundaryCharacterizer(FrozenEstimator(head), n_partners=200, random_state=0)
    report = model.fit(X[:60], y[:60], X_test=X[60:], y_test=y[60:]).report_
    for i, (s, t) in enumerate(zip(report.source, report.target)):
        expected = slow_report(head, X[:60], y[:60], X[60:], y[60:], s, t)
        assert {"source", "target", "status", *expected} == set(report)
        for name, value in expected.items():
            np.testing.assert_allclose(report[name][i], value, rtol=1e-6, err_msg=f"{s} {t} {name}")
    assert (report.third_class_rate > 0).any() and (report.error_distance_test > 0).any()
    assert len(set(report.error_rate_borderline)) > 2  # neither 0, 1/2 nor 1 throughout


@pytest.fixture(scope="module")
def two_blobs():
    return make_blobs(200, 5, centers=2, cluster_std=6, random_state=0)


@pytest.mark.parametrize("exponent", [-40, -20, 0, 20, 40, 60, 90])
def test_hyperplanes_are_liblinears_own(two_blobs, exponent):
    """Bit for bit where it is asked directly, and the same problem where it is not."""
    X, y = two_blobs
    X = np.ldexp(X, exponent)
    svm = LinearSVC(max_iter=10_000, random_state=0).fit(X, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        d = torch.from_numpy(svm.decision_function(X) / np.linalg.norm(svm.coef_))
    expected = linearity(d, torch.from_numpy(y == 1))
    plane = _hyperplane.fit_plane(torch.from_numpy(X), y, 0, 1)
    assert (plane.exponent == 0) == (abs(exponent) < 50)
    got = _hyperplane.linearity_of(plane, torch.from_numpy(X), y, 0, 1)
    if plane.exponent == 0:
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-310, 1e-200, 1e-100, 1e60, 1e100, 1e200, 1e300])
def test_hyperplanes_of_extreme_latent_vectors_end(two_blobs, unit):
    """liblinear itself does not return from any of these."""
    X, y = two_blobs
    z = torch.from_numpy(X * unit)
    plane = _hyperplane.fit_plane(z, y, 0, 1)
    found = _hyperplane.linearity_of(plane, z, y, 0, 1)
    if unit > 1:  # the margin without errors: the same hyperplane as at 1e20
        at = torch.from_numpy(X * 1e20)
        same = _hyperplane.linearity_of(_hyperplane.fit_plane(at, y, 0, 1), at, y, 0, 1)
        np.testing.assert_allclose(found, same, rtol=1e-9)
    else:  # too small for liblinear to take a step from weights of 0
        assert not plane.svm.coef_.any() and found.error_rate == 0.5


def test_a_report_of_extreme_latent_vectors_ends(two_blobs):
    X, y = two_blobs
    params = {"n_partners": 2, "max_iter": 10}
    report = characterize(KNeighborsClassifier(3), X * 1e100, y, **params)
    plain = characterize(KNeighborsClassifier(3), X * 1e20, y, **params)
    for name, values in plain.items():
        if name == "status":
            continue
        if name == "length" or name.startswith(("distance", "latent_distance")):
            values = values * 1e80
        np.testing.assert_allclose(report[name], values, rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_latent_vectors_have_no_hyperplane(value):
    z, codes = torch.full((40, 3), value), np.repeat([0, 1], 20)
    plane = _hyperplane.fit_plane(z, codes, 0, 1)
    found = _hyperplane.linearity_of(plane, z, codes, 0, 1)
    assert found.distance.isnan() and found.error_distance.isnan() and found.error_rate == 0.5


def test_the_frame_has_a_column_for_every_figure(iris, logistic):
    model = BoundaryCharacterizer(logistic, n_samples=5, random_state=0).fit(*iris)
    frame = model.to_frame()
    assert frame.columns.tolist() == list(model.report_) and len(frame) == 6


def test_what_is_finished_survives_an_interruption(iris, logistic, monkeypatch):
    X, y = iris
    whole = characterize(logistic, X, y)
    measured, measure = [], _characterization.measure

    def interrupted(*args):
        if len(measured) == 2 and not going_on:
            raise KeyboardInterrupt
        measured.append(args[-1])
        return measure(*args)

    monkeypatch.setattr(_characterization, "measure", interrupted)
    model = BoundaryCharacterizer(logistic, random_state=0, n_samples=40, warm_start=True)
    going_on = False
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert len(measured) == 2 and not hasattr(model, "report_")
    going_on = True
    report = model.fit(X, y).report_
    assert len(measured) == 3  # 2 of 6 pairs at a time: the last two were missing
    for name, values in whole.items():
        np.testing.assert_array_equal(report[name], values)
    model.set_params(pairs=[("versicolor", "setosa")]).fit(X, y)
    assert len(measured) == 3 and model.report_.oscillation[0] == whole.oscillation[2]
    model.set_params(warm_start=False).fit(X, y)
    assert len(measured) == 4


def half_and_half(X, y):
    return {"X": X[::2], "y": y[::2], "X_test": X[1::2], "y_test": y[1::2]}


def test_errors_name_the_test_samples(iris, logistic):
    X, y = iris
    data, wrong = half_and_half(X, y), X[1::2].copy()
    wrong[3] = np.nan
    model = BoundaryCharacterizer(logistic)
    with pytest.raises(ValueError, match="NaN in sample 3.* Here X is X_test, and y is y_test"):
        model.fit(**data | {"X_test": wrong})
    with pytest.raises(ValueError, match="y holds 'rosa', .* Here X is X_test, and y is y_test"):
        model.fit(**data | {"y_test": np.full(75, "rosa")})


def assert_measured_anew(model, data, monkeypatch):
    """The report of a warm fit is that of a fresh one, and no class pair was kept."""
    measured = []
    with monkeypatch.context() as patch:
        measure = _characterization.measure
        patch.setattr(
            _characterization, "measure", lambda *args: measured.append(args) or measure(*args)
        )
        report = model.fit(**data).report_
    assert sum(len(args[-1]) for args in measured) == len(report.source)
    fresh = clone(model).fit(**data).report_
    for name, values in fresh.items():
        np.testing.assert_array_equal(report[name], values)


OTHER = {
    "estimator": LogisticRegression(C=0.1, max_iter=500),
    "method": "pm",
    "init": "random",
    "n_samples": 5,
    "n_partners": 3,
    "max_iter": 9,
    "generator": torch.nn.Identity,
    "effort": "fast",
    "device": "cpu",
    "batch_size": 64,
    "random_state": 1,
}


@pytest.mark.parametrize("name", OTHER)
def test_other_parameters_are_measured_anew(iris, name, monkeypatch):
    start = {"n_samples": 8, "n_partners": 2, "random_state": 0, "warm_start": True}
    model = BoundaryCharacterizer(LogisticRegression(max_iter=500), **start)
    free = {"pairs", "n_jobs", "verbose", "warm_start"}
    assert set(OTHER) | free == set(model.get_params(deep=False))
    data = half_and_half(*iris)
    model.set_params(pairs=[("setosa", "versicolor")]).fit(**data)
    model.set_params(**{name: OTHER[name]}, pairs="all")
    assert_measured_anew(model, data, monkeypatch)


@pytest.mark.parametrize("name", ["X", "y", "X_test", "y_test"])
def test_other_data_of_the_same_shape_are_measured_anew(iris, name, monkeypatch):
    model = BoundaryCharacterizer(
        LogisticRegression(max_iter=500),
        n_samples=8,
        n_partners=2,
        random_state=0,
        warm_start=True,
    )
    data = half_and_half(*iris)
    changed = data[name].copy()
    changed[0] = changed[-1]
    model.set_params(pairs=[("setosa", "versicolor")]).fit(**data)
    assert_measured_anew(model, data | {name: changed}, monkeypatch)


def test_test_samples_and_names_of_columns_are_data(iris, monkeypatch):
    model = BoundaryCharacterizer(
        LogisticRegression(max_iter=500),
        pairs=[("setosa", "versicolor")],
        n_samples=8,
        n_partners=2,
        random_state=0,
        warm_start=True,
    )
    data = half_and_half(*iris)
    model.fit(**data)
    del data["X_test"], data["y_test"]
    for columns in ("abcd", "abdc"):
        assert_measured_anew(model, data, monkeypatch)
        data["X"] = pd.DataFrame(data["X"]).set_axis(list(columns), axis=1)


@pytest.mark.parametrize("frozen", [True, False])
def test_other_weights_are_measured_anew(iris, frozen, monkeypatch):
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3).double()
    net = FrozenNetwork(module, classes=np.unique(iris[1])) if frozen else module
    y = iris[1] if frozen else np.unique(iris[1], return_inverse=True)[1]
    model = BoundaryCharacterizer(net, n_samples=8, n_partners=2, random_state=0, warm_start=True)
    first = model.fit(iris[0], y).report_
    measured = model._cache
    assert model.fit(iris[0], y)._cache is measured  # using a network does not change it
    with torch.no_grad():
        module.weight[0] += 0.1
    assert_measured_anew(model, {"X": iris[0], "y": y}, monkeypatch)
    assert not np.array_equal(first.length, model.report_.length, equal_nan=True)


def test_what_cannot_change_a_figure_keeps_it(iris, tmp_path):
    X, y = iris
    start = {"n_samples": 8, "n_partners": 2, "warm_start": True}
    model = BoundaryCharacterizer(
        LogisticRegression(max_iter=500), random_state=np.random.RandomState(0), **start
    ).fit(X, y)
    found = model._cache
    model.set_params(pairs=[("setosa", "versicolor")], n_jobs=1, verbose=0)
    assert model.fit(X, y)._cache is found  # though the RandomState has advanced
    model = pickle.loads(pickle.dumps(model))
    found = model._cache
    assert model.set_params(pairs="all").fit(X.copy(), y.astype(object))._cache is not found
    found = model._cache
    assert model.fit(X.copy(), y.astype(object))._cache is found
    model.set_params(random_state=np.random.RandomState(0)).fit(X, y)
    assert model._cache is not found


def test_a_classifier_that_cannot_be_compared_is_named(iris):
    class Odd(Known):
        def __init__(self):
            self.lock = threading.Lock()
            super().__init__(lambda x: x[:, 2] - 2.5)

    model = BoundaryCharacterizer(FrozenEstimator(Odd()), warm_start=True)
    y = (iris[0][:, 2] > 2.5).astype(int)
    with pytest.raises(ValueError, match="warm_start=True compares.*lock.*warm_start=False"):
        model.fit(iris[0], y)
    model.set_params(warm_start=False).fit(iris[0], y)


def test_pairs_do_not_depend_on_each_other_batches_or_jobs(iris, logistic):
    X, y = iris
    whole = characterize(logistic, X, y)
    some = characterize(logistic, X, y, pairs=[("virginica", "versicolor")], batch_size=7)
    with joblib.parallel_config(backend="threading"):
        together = characterize(logistic, X, y, n_jobs=2)
    for name, values in whole.items():
        np.testing.assert_array_equal(together[name], values)
        np.testing.assert_array_equal(some[name], values[5:])


@pytest.mark.slow
def test_processes_give_the_same(iris):
    X, y = iris
    whole = characterize(None, X, y)
    shared = characterize(None, X, y, n_jobs=2)
    for name, values in whole.items():
        np.testing.assert_array_equal(shared[name], values)


# --------------------------------------------------------------------------- any number format


class Rescaled(nn.Module):
    """Logits of a smooth network times a number; a part of it may compute in another dtype."""

    def __init__(self, scale=1.0, dtype=torch.float32, kind=None):
        super().__init__()
        rng = np.random.default_rng(0)
        first, last = nn.Linear(4, 8), nn.Linear(8, 3)
        X, y = load_iris(return_X_y=True)
        with torch.no_grad():
            first.weight.copy_(torch.from_numpy(rng.normal(size=(8, 4))))
            first.bias.copy_(torch.from_numpy(rng.normal(size=8)))
            samples = StandardScaler().fit_transform(X).astype("float32")
            head = LogisticRegression(max_iter=500).fit(first(torch.from_numpy(samples)).tanh(), y)
            last.weight.copy_(torch.from_numpy(head.coef_))
            last.bias.copy_(torch.from_numpy(head.intercept_))
        self.scale, self.kind, self.first, self.last = scale, kind, first.to(dtype), last.to(dtype)
        if kind == "head":
            self.last.double()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.kind == "autocast"):
            hidden = self.first(x).tanh()
            return self.scale * self.last(hidden.double() if self.kind == "head" else hidden)


SCALES = [
    *itertools.product([1.0, 1e3, 1e5], [torch.float32, torch.float64], [None]),
    *itertools.product([1.0], [torch.float16, torch.bfloat16], [None]),
    *itertools.product([1.0, 1e3], [torch.float32], ["autocast", "head"]),
]


@pytest.mark.parametrize("case", SCALES, ids=str)
@pytest.mark.parametrize(
    "method", ["segment", "pm", pytest.param("deepdig", marks=pytest.mark.slow)]
)
def test_success_at_any_logit_scale_and_precision(method, case):
    """Halving ends where rounding hides which of two classes leads."""
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X).astype("float64" if case[1].itemsize == 8 else "float32")
    report = characterize(
        FrozenNetwork(Rescaled(*case)),
        X,
        y,
        method=method,
        effort="fast",
        n_partners=2,
        pairs=[(1, 2), (2, 1)],
    )
    assert (report.n_segments == 40).all() and (report.third_class_rate == 0).all()
    assert (report.success_rate == 1).all()
    if method == "segment" and case[1] in (torch.float32, torch.float64) and case[2] is None:
        # as near as the numbers allow: the larger the logits, the longer it takes
        assert (report.attempts > 12).all() and (report.attempts < 36).all()


@pytest.mark.parametrize("kind", [None, "autocast", "head"])
@pytest.mark.parametrize(
    "step",
    [StandardScaler(), MinMaxScaler(), PCA(4), PCA(4, whiten=True)],
    ids=["standard", "range", "rotate", "whiten"],
)
@pytest.mark.parametrize(
    "method", ["segment", "pm", pytest.param("deepdig", marks=pytest.mark.slow)]
)
def test_a_float32_network_behind_float64_steps(method, step, kind):
    X, y = load_iris(return_X_y=True)
    net = make_pipeline(step, StandardScaler(), FrozenNetwork(Rescaled(kind=kind)))
    for samples in (X, X.astype("float32")):
        predicted = net.fit(X, y).predict(samples)  # the network was made for other columns
        report = characterize(
            net, samples, predicted, method=method, effort="fast", n_partners=2, pairs=[(0, 1)]
        )
        assert report.n_segments[0] > 10 and report.success_rate[0] == 1


@pytest.mark.parametrize("method", ["segment", "pm"])
def test_a_skorch_net_behind_float64_steps(iris, method):
    net = NeuralNetClassifier(
        Rescaled, criterion=nn.CrossEntropyLoss, max_epochs=1, verbose=0, train_split=None
    )
    X, y = load_iris(return_X_y=True)
    report = characterize(
        make_pipeline(StandardScaler(), net),
        X,
        y,
        method=method,
        effort="fast",
        n_partners=2,
        pairs=[(1, 2)],
    )
    assert report.n_segments[0] > 20 and report.success_rate[0] == 1


FRAMES = {
    "bool": lambda frame: frame > frame.mean(),
    "get_dummies": lambda frame: pd.get_dummies(
        frame.assign(size=pd.cut(frame["a"], 3, labels=["s", "m", "l"]).astype(str))
    ),
    "boolean": lambda frame: frame.assign(b=(frame["b"] > 3).astype("boolean")),
    "Float64": lambda frame: frame.astype("Float64"),
    "Int64": lambda frame: (10 * frame).round().astype("Int64"),
    "polars": lambda frame: pytest.importorskip("polars").DataFrame(frame.to_dict("list")),
}


@pytest.mark.parametrize("method", ["segment", "pm"])
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_any_columns(kind, method):
    X, y = load_iris(return_X_y=True)
    y = (y > 1).astype(int)
    frame = FRAMES[kind](pd.DataFrame(X, columns=list("abcd")))
    array = frame.to_numpy().astype(float)
    reports = [
        BoundaryCharacterizer(
            make_pipeline(StandardScaler(), LogisticRegression()),
            method=method,
            effort="fast",
            n_samples=10,
            n_partners=2,
            random_state=0,
        )
        .fit(samples, y, X_test=samples[:60], y_test=y[:60])
        .report_
        for samples in (frame, array)
    ]
    assert (reports[0].n_segments == 10).all() and (reports[0].success_rate == 1).all()
    for name, values in reports[1].items():
        if name != "status":
            np.testing.assert_allclose(reports[0][name], values, rtol=1e-6, err_msg=name)


def test_a_forest_has_a_boundary_between_labels(iris):
    X, y = iris
    forest = RandomForestClassifier(5, random_state=0)
    report = characterize(forest, X, y, pairs=[("versicolor", "virginica")], max_iter=20)
    assert report.success_rate[0] == 1 and report.attempts[0] == 20
    assert report.length[0] > 0 and report.oscillation[0] > 0


def test_generators_report_their_yields(digits, cnn):
    X, y = digits
    net = FrozenNetwork(cnn)
    settings = {"pairs": [(0, 1), (1, 0)], "effort": "fast", "n_partners": 2}
    report = characterize(net, X, y, method="deepdig", **settings)
    assert (report.yield_over > 0.8).all() and (report.yield_back > 0.8).all()
    assert (report.n_segments > 20).all() and (report.success_rate > 0.8).all()
    plain = characterize(net, X, y, **settings)
    assert np.isnan(plain.yield_over).all()
    assert (report.length < plain.length).all()  # over and back is a shorter way


def test_a_class_that_is_never_predicted_leaves_gaps(iris):
    X, y = iris
    two = Known(lambda x: x[:, 2] - 2.5)  # setosa or not; there is a third label in y
    two.classes_ = np.unique(y)
    two.decision_function = lambda X: np.c_[2.5 - X[:, 2], X[:, 2] - 2.5, -9 + 0 * X[:, 0]]
    two.predict = lambda X: two.classes_[two.decision_function(X).argmax(1)]
    report = characterize(FrozenEstimator(two), X, y)
    never = (report.source == "virginica") | (report.target == "virginica")
    assert (report.n_segments[never] == 0).all() and np.isnan(report.success_rate[never]).all()
    assert (report.success_rate[~never] == 1).all()
    assert (report.error_rate_train[~never] == 0).all()
    assert np.isfinite(report.error_rate_train).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pairs": [("setosa", "daisy")]}, "'daisy' is not one of the classes"),
        ({"pairs": [("setosa", "setosa")]}, "source and target must differ"),
        ({"pairs": ["setosa"]}, "give \\(source, target\\), two class labels"),
        ({"pairs": "some"}, "The 'pairs' parameter"),
        ({"n_samples": 0}, "The 'n_samples' parameter"),
        ({"method": "deepdig", "estimator": RandomForestClassifier(5)}, "needs gradients"),
    ],
)
def test_bad_parameters_are_named(iris, params, message):
    with pytest.raises(ValueError, match=message):
        model = BoundaryCharacterizer(LogisticRegression(max_iter=500))
        model.set_params(**params).fit(*iris)


def test_bad_data_are_named(iris, logistic):
    X, y = iris
    with pytest.raises(ValueError, match="there is no boundary to characterize"):
        BoundaryCharacterizer(logistic).fit(X[:50], y[:50])
    with pytest.raises(ValueError, match="pass both or neither"):
        BoundaryCharacterizer(logistic).fit(X, y, X_test=X)
    with pytest.raises(ValueError, match="samples of shape|features"):
        BoundaryCharacterizer(logistic).fit(X, y, X_test=X[:, :2], y_test=y)


@pytest.mark.parametrize("method", ["deepdig", "pm", "segment"])
def test_nothing_to_start_from_is_no_error(iris, method):
    """A network that predicts two of its three classes only."""
    X, y = iris
    module = torch.nn.Linear(4, 3).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0, 0, -1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]))
        module.bias.copy_(torch.tensor([2.5, -2.5, -9.0]))
    net = FrozenNetwork(module, classes=np.unique(y))
    pairs = [("virginica", "setosa"), ("setosa", "virginica")]
    report = characterize(net, X, y, method=method, pairs=pairs[:1], effort="fast")
    assert report.n_segments[0] == 0 and np.isnan(report.oscillation[0])
    report = characterize(net, X, y, method="segment", pairs=pairs)
    assert (report.n_segments == 0).all()


def test_perturbations_have_the_length_of_the_closed_form():
    """On a linear net of slope L the ends, each predicted with .9, are 2 log(9) / L apart."""
    problem = make_linear(200, 2, slope=4.0, random_state=0)
    module = torch.nn.Linear(2, 2).double()
    with torch.no_grad():
        w = torch.from_numpy(problem.weights)
        module.weight.copy_(torch.stack([-w, w]) / 2)
        module.bias.copy_(torch.tensor([-problem.bias, problem.bias]) / 2)
    report = characterize(FrozenNetwork(module), problem.data, problem.target, method="pm")
    assert (report.n_segments == 40).all() and (report.success_rate == 1).all()
    assert report.length == pytest.approx(2 * np.log(9) / 4, rel=0.05)
    assert np.isnan(report.yield_over).all()


# ------------------------------------------------------------------------------ the function


def test_the_function_gives_the_report_of_the_class(iris, logistic):
    X, y = iris
    params = {"n_samples": 10, "pairs": [("setosa", "virginica")], "random_state": 0}
    test = {"X_test": X[::2], "y_test": y[::2]}
    report = characterize_boundary(logistic, X, y, **params, **test)
    expected = BoundaryCharacterizer(logistic, **params).fit(X, y, **test).report_
    assert list(report) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(report[name], values)


def test_the_function_measures_missing_pairs_only(iris, logistic, monkeypatch):
    X, y = iris
    measured, measure = [], _characterization.measure
    monkeypatch.setattr(
        _characterization, "measure", lambda *args: measured.extend(args[-1]) or measure(*args)
    )
    cache = {}
    params = {"n_samples": 5, "random_state": 0, "cache": cache}
    one = characterize_boundary(logistic, X, y, pairs=[("setosa", "virginica")], **params)
    assert measured == [(0, 2)] == [*cache]
    both = characterize_boundary(
        logistic, X, y, pairs=[("virginica", "setosa"), ("setosa", "virginica")], **params
    )
    assert measured == [(0, 2), (2, 0)] and both.length[1] == one.length[0]


def test_the_function_names_itself_and_its_parameters(iris, logistic):
    X, y = iris
    with pytest.raises(ValueError, match="characterize_boundary requires y"):
        characterize_boundary(logistic, X, None)
    with pytest.raises(ValueError, match="'method' parameter of characterize_boundary must be"):
        characterize_boundary(logistic, X, y, method="label")
    with pytest.raises(ValueError, match="X has 2 features, but characterize_boundary"):
        characterize_boundary(logistic, X, y, X_test=X[:, :2], y_test=y)
