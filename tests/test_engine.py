"""The engine of tasks: its serial form, its files, and tasks that fail."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import delayed

from skboundary import BoundaryCharacterizer, BoundarySampleExtractor
from skboundary import _engine as engine
from skboundary._task_store import TaskStore, write_whole
from skboundary.boundary import _solve


def test_the_serial_form_runs_tasks_in_order_when_they_are_gathered():
    serial = engine.find_engine(None)
    assert isinstance(serial, engine.Processes) and serial.workers() == serial.shares == 1
    calls = []
    tasks = [serial.submit("a task", lambda i: calls.append(i) or i, i) for i in range(3)]
    results = serial.gather(tasks)
    assert not calls and next(results) == 0 and calls == [0]
    assert list(results) == [1, 2] and calls == [0, 1, 2]


def test_processes_give_the_same_results():
    processes = engine.find_engine(2)
    assert processes.workers() == processes.shares == 2
    tasks = [processes.submit("a task", pow, i, 2) for i in range(4)]
    assert list(processes.gather(tasks)) == [0, 1, 4, 9]
    tasks = [processes.submit("a task", os.getpid) for _ in range(4)]
    assert os.getpid() not in list(processes.gather(tasks))


def test_tasks_use_no_more_threads_than_the_process_that_submits_them():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        serial = engine.find_engine(1)
        tasks = [serial.submit("threads", torch.get_num_threads)]
        torch.set_num_threads(2)  # as if joblib had given its process two
        assert [*serial.gather(tasks)] == [1] and torch.get_num_threads() == 2
        torch.set_num_threads(1)  # and now less than here
        tasks = [delayed(engine._on_threads)(2, torch.get_num_threads)]
        assert [*serial.gather(tasks)] == [1]
    finally:
        torch.set_num_threads(before)


def test_tasks_are_computed_once(tmp_path):
    calls = []

    def task(*args):
        return engine.run_task(str(tmp_path), "run", "key", "a task", *args)

    assert task(lambda x: calls.append(x) or x + 1, (1,)) == 2
    assert task(lambda x: calls.append(x) or x + 1, (1,)) == 2 and calls == [1]


def test_large_arguments_and_results_are_files(tmp_path):
    array = np.zeros(2**18)
    write_whole(tmp_path / "argument.pkl", pickle.dumps(array))
    args = (tmp_path / "argument.pkl", 0)
    found = engine.run_task(str(tmp_path), "run", "key", "a task", pow, args)
    assert isinstance(found, Path) and (pickle.loads(found.read_bytes()) == 1).all()


def test_errors_of_input_are_not_tried_again(tmp_path):
    calls = []

    def bad(error):
        calls.append(1)
        raise error

    store = TaskStore(str(tmp_path), "run")
    for error in (ValueError("x"), TypeError("x"), UnicodeDecodeError("a", b"", 0, 1, "x")):
        with pytest.raises((ValueError, TypeError), match="the third: .*x"):
            store.finish("key", "the third", lambda: bad(error))
    assert len(calls) == 3 and not [*tmp_path.iterdir()]
    with pytest.raises(RuntimeError, match=r"the third failed 3 times \(OSError: x\)"):
        store.finish("key", "the third", lambda: bad(OSError("x")))
    assert len(calls) == 6


def test_tries_that_ended_with_their_process_count(tmp_path):
    store = TaskStore(str(tmp_path), "run")

    def interrupted():
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            store.finish("key", "it", interrupted)
    with pytest.raises(RuntimeError, match="it failed 3 times .its process ended"):
        store.finish("key", "it", lambda: 1)
    assert store.finish("key", "it", lambda: 1)[0] == 1  # in the next call
    assert TaskStore(str(tmp_path), "other").finish("key", "it", interrupted)[0] == 1


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "part", b"1234")
    assert not [*tmp_path.iterdir()]


class SomeFail(engine.Processes):
    """An engine whose second task fails."""

    shares = 8

    def __init__(self):
        pass

    def gather(self, tasks):
        for i, (function, args, kwargs) in enumerate(tasks):
            yield engine.Failed("lost") if i == 1 else function(*args, **kwargs)


def test_samples_of_a_failed_task_have_that_status(iris, monkeypatch):
    X, y = iris
    model = BoundarySampleExtractor(effort="fast", batch_size=50, random_state=0).fit(X, y)
    expected = model.extract_pairs(X)
    monkeypatch.setattr(_solve, "find_engine", lambda n_jobs: SomeFail())
    pairs = model.extract_pairs(X)
    failed = pairs.status == "failed"
    order = np.argsort(model.estimator_.predict(X), kind="stable")
    np.testing.assert_array_equal(np.sort(order[50:100]), failed.nonzero()[0])  # one batch
    assert (pairs.target[failed] != pairs.source[failed]).all()
    assert not pairs.success[failed].any() and np.isnan(pairs.distance[failed]).all()
    np.testing.assert_array_equal(pairs.outer[failed], X[failed])
    np.testing.assert_array_equal(pairs.outer[~failed], expected.outer[~failed])
    with pytest.warns(UserWarning, match=rf"\(failed: {failed.sum()}\)"):
        found = model.set_params(returns="distance").transform(X)
    np.testing.assert_array_equal(np.isnan(found[:, 0]), failed)


def test_failed_class_pairs_are_measured_by_the_next_fit(iris, monkeypatch):
    X, y = iris
    model = BoundaryCharacterizer(n_samples=10, warm_start=True, random_state=0)
    expected = BoundaryCharacterizer(n_samples=10, random_state=0).fit(X, y).report_
    with monkeypatch.context() as patch:
        name = "skboundary.boundary._characterization.find_engine"
        patch.setattr(name, lambda n_jobs: SomeFail())
        report = model.fit(X, y).report_
    assert report.status.tolist() == ["ok", "failed", "ok", "ok", "failed", "ok"]
    failed = report.status == "failed"
    assert np.isnan(report.success_rate[failed]).all()
    np.testing.assert_array_equal(report.length[~failed], expected.length[~failed])
    report = model.fit(X, y).report_
    assert set(report.status) == {"ok"}
    np.testing.assert_array_equal(report.length, expected.length)
