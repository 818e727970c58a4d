"""Work on a cluster: equal to the serial form, whatever process ends in the meantime."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression

from skboundary import (
    BoundaryCharacterizer,
    BoundarySampleExtractor,
    FrozenNetwork,
    LatentKNNClassifier,
    LatentTransformer,
    SubspaceMargins,
    TorchNearestNeighbors,
)
from skboundary._task_store import task_folder
from skboundary.exceptions import FailedTaskWarning
from tests.distributed.faults import Halves

da = pytest.importorskip("dask.array")
pytest.importorskip("distributed")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def chunked(X, size=64):
    return da.from_array(X, chunks=(size, *X.shape[1:]))


def computed(client, lazy):
    """Results on the cluster, within two minutes."""
    return client.compute(lazy).result(120)


def serial(method, X, size=64):
    parts = [method(X[i : i + size]) for i in range(0, len(X), size)]
    if isinstance(parts[0], tuple):
        return [np.concatenate(part) for part in zip(*parts)]
    return [np.concatenate(parts)]


@pytest.mark.parametrize(
    "model",
    [
        LatentKNNClassifier(random_state=0),
        LatentTransformer(random_state=0),
        TorchNearestNeighbors(),
        SubspaceMargins(random_state=0, max_iter=5),
        BoundarySampleExtractor(random_state=0, effort="fast"),
        BoundarySampleExtractor(LogisticRegression(), method="segment", returns="distance"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_dask_arrays_equal_the_serial_form(model, client, iris):
    X, y = iris
    X = X.astype(np.float32)
    model.fit(X, y)
    names = ["transform", "predict", "predict_proba", "kneighbors", "score_samples"]
    names = [name for name in names if hasattr(model, name)]
    results = []
    for name in names:
        found = getattr(model, name)(chunked(X))
        results.append([computed(client, lazy) for lazy in _listed(found)])
    client.close()  # or the extractor would make tasks of the batches of a chunk
    for name, found in zip(names, results):
        for result, values in zip(found, serial(getattr(model, name), X), strict=True):
            assert result.dtype == values.dtype
            assert_array_equal(result, values)


def _listed(found):
    return found if isinstance(found, tuple) else [found]


def test_a_bank_is_searched_by_ranges(client, iris, tmp_path, monkeypatch):
    X, _ = iris
    monkeypatch.setattr("skboundary.neighbors._sharded_search._RANGE_BYTES", 4 * 4 * 40)
    in_memory = TorchNearestNeighbors(5).fit(X)
    on_disk = TorchNearestNeighbors(5, bank=tmp_path / "bank").fit(X)
    distances, indices = on_disk.kneighbors(chunked(X))
    expected = in_memory.kneighbors(X)
    assert_array_equal(computed(client, distances), expected[0])
    assert_array_equal(computed(client, indices), expected[1])


def test_images(client, digits, cnn):
    X, _ = digits
    model = FrozenNetwork(cnn, classes=np.arange(10))
    result = computed(client, model.predict_proba(chunked(X[:200])))
    assert_array_equal(result, serial(model.predict_proba, X[:200])[0])


def test_large_results_travel_as_files(client):
    X = np.random.default_rng(0).normal(size=(3000, 200))
    model = TorchNearestNeighbors(100).fit(X[:500])
    distances, indices = model.kneighbors(chunked(X, 3000))  # 2.4 MB each
    stored = client.persist(distances)
    assert_array_equal(computed(client, stored), model.kneighbors(X)[0])
    kinds = set().union(*client.run(kinds_in_memory).values())
    assert "FileArray" in kinds and "ndarray" not in kinds
    assert_array_equal(computed(client, indices + 0), model.kneighbors(X)[1])


def kinds_in_memory(dask_worker):
    return {type(value).__name__ for value in dask_worker.data.values()}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["minimal", "pm", "label", "segment"])
def test_batches_of_the_extractor_equal_the_serial_form(method, dtype, client, digits, cnn):
    X, y = digits
    estimator = cnn if dtype == np.float32 else cnn.double()
    model = BoundarySampleExtractor(
        estimator, method=method, effort="fast", batch_size=8, random_state=0
    ).fit(X[:200].astype(dtype), y[:200])
    found = model.extract(40)
    assert len([*task_folder().glob("part-*")]) == 5
    client.close()  # from here on, in this process
    for name, values in vars(model.extract(40)).items():
        assert_array_equal(getattr(found, name), values, err_msg=name)


def test_class_pairs_of_the_characterizer_equal_the_serial_form(client, digits, cnn):
    X, y = digits
    model = BoundaryCharacterizer(cnn, n_samples=10, n_partners=2, random_state=0)
    found = model.fit(X[:200], y[:200]).report_
    client.close()
    expected = model.fit(X[:200], y[:200]).report_
    for name in expected:
        assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.fixture
def halves(tmp_path):
    """An extractor around a black box with faults, and samples of two classes."""
    X = np.random.default_rng(0).random((256, 2))
    box = Halves(str(tmp_path))
    y = (X[:, 0] >= 0.5).astype(int)
    model = BoundarySampleExtractor(box, method="label", effort=50, random_state=0).fit(X, y)
    return model, box, X


def test_a_killed_worker_costs_one_task(halves, client):
    model, box, X = halves
    expected = serial(model.transform, X)[0]
    before = set(client.scheduler_info()["workers"])
    box.set_fault(X[130, 1], 1)
    assert_array_equal(computed(client, model.transform(chunked(X))), expected)
    client.wait_for_workers(1, timeout=120)  # dask may not start both again
    assert len(before - set(client.scheduler_info()["workers"])) == 1


def test_both_workers_are_killed(halves, client):
    model, box, X = halves
    expected = serial(model.transform, X)[0]
    pids = client.run(os.getpid).values()
    box.hold(3)
    future = client.compute(model.transform(chunked(X, 16)))
    wait_for_parts(box, 3)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert len(box.parts()) < 16
    box.release()
    assert_array_equal(future.result(180), expected)


def wait_for_parts(box, n, process=None):
    """Wait until tasks are finished, as long as the process that submitted them runs."""
    limit = time.monotonic() + 120
    while len(box.parts()) < n:
        assert time.monotonic() < limit and (process is None or process.poll() is None)
        time.sleep(0.1)


def test_a_chunk_that_ends_its_workers_is_named(halves, client):
    model, box, X = halves
    lazy = model.transform(chunked(X))
    box.set_fault(X[130, 1], 10)
    with pytest.raises(RuntimeError, match="samples 128 to 191 of X failed 3 times .its process"):
        computed(client, lazy)
    assert list(task_folder().glob("part-*"))
    box.set_fault(0.0, 0)
    client.wait_for_workers(1, timeout=120)  # dask may not start both again
    again = computed(client, model.transform(chunked(X)))
    client.close()
    assert_array_equal(again, serial(model.transform, X)[0])


def test_pairs_whose_task_ends_its_workers_have_failed(halves, client):
    """Tasks of 32 samples, in the order of their classes."""
    model, box, X = halves
    order = np.argsort(X[:, 0] >= 0.5, kind="stable")
    box.set_fault(X[order[200], 1], 10)
    with pytest.warns(FailedTaskWarning, match="1 of 8 tasks failed on the cluster.*1 and others"):
        pairs = model.extract_pairs(X)
    failed = np.isin(np.arange(256), order[192:224])
    assert_array_equal(pairs.status == "failed", failed)
    assert pairs.success[~failed].all()
    box.set_fault(0.0, 0)
    client.wait_for_workers(1, timeout=120)  # dask may not start both again
    again = model.extract_pairs(X)
    assert again.success.all()
    client.close()
    expected = model.extract_pairs(X)
    for name in ("inner", "outer", "midpoint", "target", "n_evaluations"):
        values = getattr(expected, name)
        assert_array_equal(getattr(again, name), values, err_msg=name)
        assert_array_equal(getattr(pairs, name)[~failed], values[~failed], err_msg=name)


CLIENT = """
    import sys
    import dask, numpy as np
    from distributed import Client
    from skboundary import BoundarySampleExtractor
    from tests.distributed.faults import Halves

    if __name__ == "__main__":
        folder, address = sys.argv[1:]
        dask.config.set({"temporary-directory": folder})
        X = np.random.default_rng(0).random((256, 2))
        box = Halves(folder)
        model = BoundarySampleExtractor(box, method="label", effort=50, random_state=0)
        model.fit(X, (X[:, 0] >= 0.5).astype(int))
        if address == "none":
            client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
        else:
            client = Client(address)
        with client:
            lazy = model.transform(dask.array.from_array(X, chunks=(16, 2)))
            np.save(folder + "/result.npy", lazy.compute())
"""


def script(folder, address):
    path = folder / "script.py"
    path.write_text(textwrap.dedent(CLIENT).replace("import dask,", "import dask.array,"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return [sys.executable, str(path), str(folder), address], environment


def test_a_killed_client_is_resumed(cluster, client, tmp_path):
    """A worker waits after 4 of 16 parts; the other may finish the one that it is at."""
    command, environment = script(tmp_path, cluster.scheduler_address)
    box, pids = Halves(str(tmp_path)), client.run(os.getpid).values()
    box.hold(4)
    process = subprocess.Popen(command, env=environment)
    wait_for_parts(box, 4, process)
    process.kill()
    process.wait(30)
    limit = time.monotonic() + 120
    while client.run_on_scheduler(count_tasks):  # until it notices
        assert time.monotonic() < limit
        time.sleep(0.1)
    for pid in pids:  # nor is anything left in the memory of the workers
        os.kill(pid, signal.SIGKILL)
    times = {path: path.stat().st_mtime_ns for path in box.parts()}
    assert 4 <= len(times) <= 6
    box.release()
    subprocess.run(command, env=environment, check=True, timeout=300)
    assert len(box.parts()) == 16
    assert all(path.stat().st_mtime_ns == changed for path, changed in times.items())
    model = BoundarySampleExtractor(box, method="label", effort=50, random_state=0)
    X = np.random.default_rng(0).random((256, 2))
    model.fit(X, (X[:, 0] >= 0.5).astype(int))
    assert_array_equal(np.load(tmp_path / "result.npy"), model.transform(X))


def count_tasks(dask_scheduler):
    return len(dask_scheduler.tasks)


def test_no_process_is_left(tmp_path):
    command, environment = script(tmp_path, "none")
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    assert process.wait(300) == 0
    deadline = time.monotonic() + 30
    while members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not members(process.pid)


def members(group):
    """Processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(stat.parent.name)
    return found


def test_the_how_to_runs(tmp_path):
    text = (ROOT / "docs/howto/two_workers.rst").read_text()
    block = text.split(".. code-block:: python\n")[1].split("\nIf a process")[0]
    (tmp_path / "script.py").write_text(textwrap.dedent(block))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "True True\n", done.stderr


def test_memory_of_a_worker_is_bounded(client, tmp_path):
    """320 MB of samples in chunks of 8 MB, a table of 40 MB, and two workers."""
    rng = np.random.default_rng(0)
    path = tmp_path / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", np.float32, (625_000, 128))
    for start in range(0, len(X), 62_500):
        X[start : start + 62_500] = rng.random((62_500, 128), dtype=np.float32)
    model = LatentTransformer(LogisticRegression()).fit(X[:100], np.arange(100) % 2)

    def rows(block_info=None):
        (start, stop), _ = block_info[None]["array-location"]
        return np.load(path, mmap_mode="r")[start:stop]

    lazy = da.map_blocks(rows, chunks=((15_625,) * 40, (128,)), dtype=np.float32)
    computed(client, model.transform(lazy[:15_625]).sum())  # imports, and the estimator
    before = client.run(reset_peak)
    total = computed(client, model.transform(lazy).sum(dtype=float))
    assert total == pytest.approx(X.sum(dtype=float), rel=1e-6)
    grown = {worker: peak - before[worker] for worker, peak in client.run(memory, "VmHWM").items()}
    assert max(grown.values()) < 120


def memory(key):
    """A memory figure of this process, in MB."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) / 1024


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def test_an_estimator_holds_no_client(client, iris):
    X, y = iris
    model = BoundarySampleExtractor(random_state=0, effort="fast").fit(X, y)
    before = pickle.dumps(model)
    model.extract(6)
    computed(client, model.transform(chunked(X)))
    after = pickle.dumps(model)
    assert b"distributed" not in after and len(after) == len(before)


def test_a_cluster_without_workers_is_given_up(client, iris, monkeypatch):
    from distributed import Client, LocalCluster

    X, y = iris
    model = BoundarySampleExtractor(random_state=0, effort="fast").fit(X, y)
    monkeypatch.setattr("skboundary._engine._PATIENCE", 2.0)
    monkeypatch.setattr("skboundary._engine._INTERVAL", 0.5)
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as empty,
        Client(empty),
        pytest.raises(RuntimeError, match="no worker for 2 seconds. Finished parts are in"),
    ):
        model.extract_pairs(X)


def test_an_asynchronous_client_is_refused(iris):
    import asyncio

    from distributed import Client

    X, y = iris
    model = BoundarySampleExtractor(random_state=0, effort="fast").fit(X, y)

    async def run():
        async with Client(processes=False, asynchronous=True, dashboard_address=None):
            model.extract_pairs(X)

    with pytest.raises(ValueError, match="asynchronous"):
        asyncio.run(run())
