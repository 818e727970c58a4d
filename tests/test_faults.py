"""Faults in the middle of a call: the right result or the right error, and no trace of it."""

import json
import warnings

import pytest

from tests.test_docs import ROOT, load_script

SCRIPT = load_script("faults.py")
STEPS = 2  # of a call at which a fault is injected; the script and the slow tests take more
MORE = pytest.param(40, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("most", [STEPS, MORE])
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=[pytest.mark.slow] * (what not in ("KeyboardInterrupt", "NaN")))
        for what in SCRIPT.NETWORK
    ],
)
def test_faults_of_a_network(what, most):
    for name in SCRIPT.CALLS:
        traces = SCRIPT.network_faults(name, what, most)
        assert traces and not any(traces), (name, traces)


@pytest.mark.parametrize("most", [STEPS, MORE])
@pytest.mark.parametrize("name", [*SCRIPT.CALLS, *SCRIPT.OWN_CALLS])
def test_interruptions_at_lines_of_the_package(name, most):
    traces = SCRIPT.interruptions(name, most)
    assert traces and not any(traces), traces


@pytest.mark.parametrize("most", [10, MORE])
@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=[pytest.mark.slow] * ("process" in what)) for what in SCRIPT.STORAGE],
)
def test_faults_of_files_threads_and_searches(what, most):
    traces = SCRIPT.STORAGE[what][1](most)
    assert traces and not any(traces), traces


def test_the_table_of_the_guide_equals_the_results():
    records = json.loads((ROOT / "benchmarks/results/faults.json").read_text())["records"]
    assert SCRIPT.table(records) in SCRIPT.GUIDE.read_text()
    assert all(r["injected"] == r["as_expected"] > 0 for r in records)
    faults = {r["fault"].removeprefix("network: ") for r in records}
    assert faults == {*SCRIPT.NETWORK, "line: KeyboardInterrupt", *SCRIPT.STORAGE}


def test_a_fault_that_leaves_a_trace_is_counted_as_such():
    call = SCRIPT.CALLS["LatentTransformer.transform"]
    fault, (want, _) = SCRIPT.NETWORK["KeyboardInterrupt"], SCRIPT.without_fault(call)

    def leaves_hook(module, run):
        module.register_forward_hook(lambda *_: None)
        raise KeyboardInterrupt

    def leaves_mode(module, run):
        module.eval()
        raise KeyboardInterrupt

    def is_wrong(module, run):
        return run() + 1e-9

    def stops(module, run):
        raise KeyboardInterrupt

    assert SCRIPT.trace_of(call, stops, fault, want) == ""
    assert SCRIPT.trace_of(call, leaves_hook, fault, want) == "hooks"
    assert SCRIPT.trace_of(call, leaves_mode, fault, want) == "modes"
    assert SCRIPT.trace_of(call, is_wrong, fault, want) == "the result"
