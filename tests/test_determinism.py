"""What does not depend on threads, batch sizes, jobs and processes; the guide says the same."""

import json

import numpy as np
import pytest
import torch

from skboundary import TorchNearestNeighbors
from tests.test_docs import ROOT, load_script

SCRIPT = load_script("determinism.py")
RECORD = json.loads((ROOT / "benchmarks/results/determinism.json").read_text())


def test_statuses_and_classes_are_equal_in_float64():
    module, X = SCRIPT.network(torch.float64), SCRIPT.digits(np.float64)[0]
    for method in ("minimal", "segment"):
        found = SCRIPT.compare(module, method, X, n=12)
        assert found["pairs"] == 12 * 8 and found["found"] > 80
        assert found["statuses"] == found["classes"] == 0


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_neighbors_have_the_same_bytes_in_every_setting(metric):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 64)).astype(np.float32)
    X[1000:2000] = X[:1000]  # ties
    queries, before = X[:300], torch.get_num_threads()
    want = TorchNearestNeighbors(4, metric=metric).fit(X).kneighbors(queries)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for batch_size in (1, 7, 64, 300, "auto"):
                search = TorchNearestNeighbors(4, metric=metric, batch_size=batch_size).fit(X)
                few = slice(None) if batch_size != 1 else slice(0, 20)
                for got, part in zip(search.kneighbors(queries[few]), want):
                    np.testing.assert_array_equal(got, part[few])
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_results_have_the_same_bytes_in_two_processes_and_two_jobs():
    here = SCRIPT.everything()
    assert SCRIPT.second_process() == here
    assert SCRIPT.everything(n_jobs=2) == here


def test_the_record_holds_what_the_guide_says():
    assert SCRIPT.table(RECORD["records"]) in SCRIPT.GUIDE.read_text()
    assert {*RECORD["records"]} == {"float64", "float32"}
    for dtype, methods in RECORD["records"].items():
        assert [*methods] == SCRIPT.METHODS
        for found in methods.values():
            assert found["moved"] <= 0.01 * found["found"]
            assert dtype == "float32" or found["statuses"] == found["classes"] == 0
    assert len(RECORD["equal"]["two jobs"]) == 12
    assert RECORD["equal"]["two processes"] == RECORD["equal"]["two jobs"]
