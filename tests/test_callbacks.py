"""Callbacks of scikit-learn in `fit`: the tasks that they see, scores, bars, and failures."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn.base import BaseEstimator, clone
from sklearn.callback import CallbackSupportMixin, ProgressBar, ScoringMonitor, _progressbar
from sklearn.callback._callback_context import get_context_path
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

import skboundary
from skboundary import (
    BiasedExtrapolationClassifier,
    BiasedExtrapolationSampler,
    BiasSettings,
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentKNNClassifierCV,
    LatentTransformer,
    LogitAdjustedClassifier,
    SubspaceMargins,
    TorchKNeighborsTransformer,
    TorchNearestNeighbors,
    _callbacks,
)
from skboundary._batching import map_batches
from skboundary._callbacks import CALLBACK_ATTRIBUTES, fit_tasks, pass_task
from skboundary.io import load, save
from skboundary.networks import _default, as_network
from skboundary.networks._digest import digest


class Recorder:
    """Records what it is told; it may interrupt the n-th task, or ask to stop after one."""

    def __init__(self, interrupt=None, stop=None):
        self.interrupt, self.stop = interrupt, stop
        self.events, self.names, self.most, self.fitted = [], {}, {}, Counter()

    def setup(self, estimator, context):
        self.events.append("setup")

    def on_fit_task_begin(self, estimator, context, *, X=None, metadata=None):
        if len(self.names) == self.interrupt:
            raise KeyboardInterrupt
        path = tuple(c.task_id for c in get_context_path(context))
        self.names[path], self.most[path] = context.task_name, context.max_subtasks
        self.events.append(("begin", path))
        self.X, self.metadata = X, metadata

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.events.append(("end", tuple(c.task_id for c in get_context_path(context))))
        self.fitted[context.task_name] += fitted_estimator is not None
        return context.task_name == self.stop

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def check_nesting(self):
        """Hold that each task ends, after those inside it, and that all is torn down."""
        assert [self.events[0], self.events[-1]] == ["setup", "teardown"]
        running = []
        for event, path in self.events[1:-1]:
            if event == "begin":
                assert not running or running[-1] == path[:-1]
                running.append(path)
            else:
                assert running.pop() == path
        assert not running

    @property
    def parts(self):
        """Number of tasks inside each."""
        counts = Counter(path[:-1] for path in self.names)
        return {path: counts[path] for path in self.names}


class PropagatedRecorder(Recorder):
    """A recorder that estimators pass on to those inside them."""

    max_propagation_depth = None


@pytest.fixture
def quick(monkeypatch):
    """Four epochs of the default network, and a block for each batch."""
    monkeypatch.setattr(_default, "_STEPS", 4)
    monkeypatch.setattr(_callbacks, "_BLOCK_SECONDS", 0)


def skorch_net():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return NeuralNetClassifier(
        module, criterion=nn.CrossEntropyLoss, max_epochs=5, train_split=None, verbose=0
    )


NETWORK = {"run-network": 1, "block": 3}  # 150 samples in batches of 50
TRAINED = {"fit-estimator": 1, "epoch": 4}
SMALL = {"n_samples": 3, "n_partners": 2}

# For each estimator, where "mlp" is a trained network, the tasks in it.
CASES = {
    "latent": (LatentTransformer, {}, TRAINED),
    "latent-frozen": (LatentTransformer, {"estimator": "mlp"}, {}),
    "latent-logistic": (
        LatentTransformer,
        {"estimator": LogisticRegression(max_iter=500)},
        {"fit-estimator": 1},
    ),
    "latent-skorch": (
        LatentTransformer,
        {"estimator": skorch_net()},
        {"fit-estimator": 1, "epoch": 5},
    ),
    "frozen": (FrozenNetwork, {"module": "mlp"}, {}),
    "search": (TorchNearestNeighbors, {}, {}),
    "graph": (TorchKNeighborsTransformer, {}, {}),
    "knn": (LatentKNNClassifier, {}, TRAINED | NETWORK),
    "knn-frozen": (LatentKNNClassifier, {"estimator": "mlp"}, NETWORK),
    "knn-forest": (
        LatentKNNClassifier,
        {"estimator": DummyClassifier()},
        NETWORK | {"fit-estimator": 1},
    ),
    "cv": (
        LatentKNNClassifierCV,
        {"cv": 2},
        {
            "choose": 1,
            "split": 2,
            "fit-best-estimator": 1,
            "fit-estimator": 3,
            "epoch": 12,
            "run-network": 3,
            "find-neighbors": 2,
            "block": 11,  # of 75 samples twice, and of 150
        },
    ),
    "extractor": (BoundarySampleExtractor, {"estimator": "mlp"}, NETWORK),
    "characterizer": (
        BoundaryCharacterizer,
        {"estimator": "mlp", **SMALL},
        NETWORK | {"class-pairs": 1, "class-pair": 3},
    ),
    "margins": (SubspaceMargins, {"estimator": "mlp"}, {}),
    "margins-label": (SubspaceMargins, {"estimator": "mlp", "method": "label"}, NETWORK),
    "rounds": (
        BiasedExtrapolationClassifier,
        {"estimator": "mlp", "n_iter": 3, "stopping": None, "validation_fraction": 0.0},
        NETWORK | {"rounds": 1, "round": 3},
    ),
    "adjusted": (
        LogitAdjustedClassifier,
        {"estimator": LogisticRegression(max_iter=500), "tau": "auto"},
        {"fit-estimator": 6, "choose-tau": 1, "fold": 5},
    ),
    "sampler": (
        BiasedExtrapolationSampler,
        {"estimator": "mlp"},
        {"run-network": 1, "block": 4, "class-pairs": 1, "class-pair": 1, "new-samples": 1},
    ),
    "sampler-by-class": (
        BiasedExtrapolationSampler,
        {"estimator": LogisticRegression(max_iter=500), "settings": BiasSettings.paper()},
        {
            "fit-estimator": 4,
            "run-network": 1,
            "block": 4,
            "cross-validate": 1,
            "fold": 3,
            "class-pairs": 1,
            "class-pair": 1,
            "new-samples": 1,
        },
    ),
}


def make(name, mlp):
    cls, params, _ = CASES[name]
    params = {key: mlp if value == "mlp" else value for key, value in params.items()}
    if cls not in (TorchNearestNeighbors, TorchKNeighborsTransformer):
        params["batch_size"] = 50
    if "random_state" in cls._get_param_names():
        params["random_state"] = 0
    return cls(**params)


def fit(estimator, iris):
    X, y = iris
    if hasattr(estimator, "fit_resample") or "n_iter" in estimator.get_params():
        X, y = X[:130], y[:130]  # 50, 50 and 30 samples
    return getattr(estimator, "fit_resample", estimator.fit)(X, y)


def test_every_estimator_is_among_the_cases():
    public = {getattr(skboundary, name) for name in skboundary.__all__}
    classes = {c for c in public if isinstance(c, type) and issubclass(c, BaseEstimator)}
    assert {c for c in classes if hasattr(c, "fit")} == {cls for cls, *_ in CASES.values()}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", CASES)
def test_callbacks_see_the_tasks_of_each_estimator(name, iris, mlp):
    estimator, recorder = make(name, mlp), Recorder()
    assert estimator.set_callbacks(recorder) is estimator
    fit(estimator, iris)
    recorder.check_nesting()
    root = "fit-resample" if hasattr(estimator, "fit_resample") else "fit"
    assert Counter(recorder.names.values()) == {root: 1} | CASES[name][2]
    # bars end at 100 %
    assert recorder.parts == recorder.most
    assert recorder.fitted[root] == 1 and recorder.X is not None
    assert CALLBACK_ATTRIBUTES & set(vars(estimator)) == {"_skl_callbacks"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", CASES)
def test_no_task_stays_open_when_a_fit_is_interrupted(name, iris, mlp):
    _, _, tasks = CASES[name]
    for number in sorted({1, 1 + sum(tasks.values()) // 2, sum(tasks.values())}):
        recorder = Recorder(interrupt=number)
        estimator = make(name, mlp).set_callbacks(recorder)
        before = dict(vars(estimator))
        if number <= sum(tasks.values()):
            with pytest.raises(KeyboardInterrupt):
                fit(estimator, iris)
            assert vars(estimator).items() >= before.items()  # some keep what is finished
            assert CALLBACK_ATTRIBUTES & set(vars(estimator)) == {"_skl_callbacks"}
        else:
            fit(estimator, iris)
        recorder.check_nesting()
        assert _callbacks._running.get() is None and _callbacks._unclaimed.get() is None


class Failing(nn.Module):
    """A network that fails in the third batch."""

    def __init__(self, body):
        super().__init__()
        self.body, self.left = body, 4  # two samples and the probe come before

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("broken")
        return self.body(x)


def test_bars_end_when_a_fit_fails(iris, mlp, capsys):
    X, y = iris
    recorder = Recorder()
    clf = LatentKNNClassifier(FrozenNetwork(Failing(mlp)), batch_size=50)
    with pytest.raises((RuntimeError, ValueError), match="broken"):
        clf.set_callbacks(recorder, ProgressBar()).fit(X, y)
    recorder.check_nesting()
    assert not recorder.fitted.total()
    assert not _progressbar._run_monitors and not _progressbar._run_queues
    assert "LatentKNNClassifier - run-network" in capsys.readouterr().out
    search = GridSearchCV(
        LatentKNNClassifier(DummyClassifier(strategy="constant", constant=7)),
        {"n_neighbors": [1, 2]},
        cv=2,
        error_score=0.0,
        refit=False,
    ).set_callbacks(ProgressBar(max_propagation_depth=None))
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="All the 4 fits failed"):
        search.fit(X, y)
    assert not _progressbar._run_monitors


class Host(CallbackSupportMixin, BaseEstimator):
    """A pass over samples in batches of one."""

    @fit_tasks(lambda self: 1)
    def fit(self, X, y=None, sample_weight=None):
        with pass_task("pass", len(X)):
            for _ in map_batches(lambda part: X[part.start](), len(X), 1):
                pass
        return self


@pytest.mark.parametrize(
    ("n", "milliseconds", "n_blocks"),
    [(1, 1, 1), (30, 1, 3), (30, 4, 10), (30, 20, 30), (1000, 20, 100), (1000, 1, 100)],
)
def test_a_block_takes_at_least_ten_milliseconds(n, milliseconds, n_blocks, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_callbacks.time, "perf_counter", lambda: now[0])

    def work():
        now[0] += milliseconds / 1000 + 1e-9

    recorder = Recorder()
    Host().set_callbacks(recorder).fit([work] * n)
    recorder.check_nesting()
    assert recorder.parts[0, 0] == n_blocks <= recorder.most[0, 0] == min(n, 100)


def test_weights_are_passed_to_the_hooks():
    recorder = Recorder()
    Host().set_callbacks(recorder).fit([print], sample_weight=[2.0])
    assert recorder.metadata == {"sample_weight": [2.0]}
    Host().set_callbacks(recorder).fit([print])
    assert recorder.metadata is None


def test_calls_outside_of_fit_and_of_callbacks_are_no_tasks(iris, mlp):
    X, y = iris

    class Predicting(Recorder):
        def on_fit_task_begin(self, estimator, context, *, X=None, metadata=None):
            as_network(LogisticRegression(max_iter=500), X, y)[1].logits(X)
            super().on_fit_task_begin(estimator, context, X=X, metadata=metadata)

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            as_network(LogisticRegression(max_iter=500), X, y)[1].logits(X)
            if fitted_estimator is not None:
                fitted_estimator.predict(X)
            super().on_fit_task_end(estimator, context, fitted_estimator=fitted_estimator)

    recorder = Predicting()
    clf = LatentKNNClassifier(mlp).set_callbacks(recorder).fit(X, y)
    recorder.check_nesting()
    assert Counter(recorder.names.values()) == {"fit": 1, "run-network": 1, "block": 1}
    n = len(recorder.events)
    clf.predict(X)
    clf.partial_fit(X, y)
    assert len(recorder.events) == n


@pytest.mark.usefixtures("quick")
def test_a_callback_can_stop_epochs_and_rounds(iris, mlp):
    recorder = Recorder(stop="epoch")
    LatentTransformer(random_state=0).set_callbacks(recorder).fit(*iris)
    recorder.check_nesting()
    assert Counter(recorder.names.values())["epoch"] == 1
    clf = make("rounds", mlp).set_callbacks(Recorder(stop="round"))
    assert fit(clf, iris).n_iter_ == 1 and len(clf.history_) == 2


@pytest.mark.usefixtures("quick")
def test_inner_estimators_take_over_callbacks(iris):
    recorder = PropagatedRecorder()
    inner = make_pipeline(StandardScaler(), skorch_net())
    outer = make_pipeline(StandardScaler(), LatentKNNClassifier(inner, random_state=0))
    outer.set_callbacks(recorder).fit(*iris)
    recorder.check_nesting()
    assert recorder.parts == recorder.most
    names = Counter(recorder.names.values())
    assert names["epoch"] == 5 and names["run-network"] == 1
    fitted = outer[-1].estimator_
    for each in (outer[-1], fitted, fitted[-1]):
        assert not CALLBACK_ATTRIBUTES & set(vars(each))
    with pytest.warns(UserWarning, match="DummyClassifier does not support callbacks"):
        LatentTransformer(DummyClassifier()).set_callbacks(PropagatedRecorder()).fit(*iris)
    # one that they do not ask to pass on still knows the fit around it
    own = Recorder()
    LatentTransformer(LogisticRegression(max_iter=500).set_callbacks(own)).fit(*iris)
    assert {path[:2] for path in own.names} == {(0, 0)}


@pytest.mark.usefixtures("quick")
def test_callbacks_change_no_result(iris, mlp):
    for name in ("knn", "rounds"):
        plain = fit(make(name, mlp), iris)
        told = fit(make(name, mlp).set_callbacks(Recorder()), iris)
        np.testing.assert_array_equal(told.predict_proba(iris[0]), plain.predict_proba(iris[0]))


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_monitors_and_bars_in_a_grid_search(n_jobs, iris, mlp, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # of the terminal
    X, y = iris[0][:130], iris[1][:130]
    monitor = ScoringMonitor(scoring="accuracy")
    rounds = BiasedExtrapolationClassifier(
        mlp, stopping=None, validation_fraction=0.0, random_state=0
    ).set_callbacks(monitor)
    grid = {"biasedextrapolationclassifier__n_iter": [1, 2]}
    search = GridSearchCV(make_pipeline(StandardScaler(), rounds), grid, cv=2, n_jobs=n_jobs)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
    log = monitor.get_logs()
    assert log.estimator_name == "GridSearchCV"
    best = search.best_estimator_[-1]
    # 1 and 2 rounds in each of 2 folds, and those of the best again
    names = Counter(row["task_name"] for row in log.data)
    assert names == {"round": 2 * (1 + 2) + best.n_iter, "fit": 2 * 2 + 1}
    last = [row["accuracy"] for row in log.data if row["task_id_path"][:2] == (0, 1)]
    accuracy = best.score(search.best_estimator_[:-1].transform(X), y)
    assert len(last) == 1 + best.n_iter and accuracy in last
    bars = capsys.readouterr().out
    for line in (
        "GridSearchCV - fit ",
        "Pipeline - fit-final-estimator | BiasedExtrapolationClassifier - fit #1",
        "BiasedExtrapolationClassifier - rounds #1",
    ):
        assert line in bars
    assert not _progressbar._run_monitors


def test_a_monitor_of_neighbors_scores_each_fit(iris, mlp):
    monitor = ScoringMonitor(scoring="accuracy")
    clf = LatentKNNClassifier(mlp).set_callbacks(monitor)
    search = GridSearchCV(clf, {"query_weight": [0, 1]}, cv=3).fit(*iris)
    scores = [row["accuracy"] for row in monitor.get_logs().data]
    assert len(scores) == 2 * 3 + 1 and search.score(*iris) in scores


def test_clones_and_pickles_keep_callbacks_and_folders_do_not(iris, tmp_path):
    X, y = iris
    monitor = ScoringMonitor(scoring="accuracy")
    inner = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500).set_callbacks(monitor))
    clf = LatentKNNClassifier(inner, random_state=0).set_callbacks(monitor).fit(X, y)
    for model in (clf, FrozenNetwork(nn.Linear(4, 3)).set_callbacks(monitor)):
        assert clone(model)._skl_callbacks == [monitor]
        assert len(pickle.loads(pickle.dumps(model))._skl_callbacks) == 1
    shallow = copy.copy(clf)
    assert shallow is not clf and vars(shallow).keys() == vars(clf).keys()
    assert all(vars(shallow)[name] is value for name, value in vars(clf).items())
    assert digest(model=inner) == digest(
        model=make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    )
    assert save(clf, tmp_path / "saved") == []
    assert b"callback" not in (tmp_path / "saved" / "estimator.json").read_bytes()
    loaded = load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))
    for model in (loaded, loaded.estimator_[-1], loaded.estimator[-1]):
        assert not CALLBACK_ATTRIBUTES & set(vars(model))


def test_imbalanced_learn_ignores_callbacks_of_its_pipeline(iris, mlp):
    X, y = iris[0][:130], iris[1][:130]
    outer, own = PropagatedRecorder(), Recorder()
    sampler = BiasedExtrapolationSampler(mlp, random_state=0).set_callbacks(own)
    pipeline = make_imblearn_pipeline(sampler, LatentKNNClassifier(mlp))
    pipeline.set_callbacks(outer).fit(X, y)
    assert not outer.events
    own.check_nesting()
