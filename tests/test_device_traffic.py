"""Transfers, waits and launches of the estimators: at most as many as recorded."""

import json

import pytest

from tests.test_docs import ROOT, load_script

RECORDS = json.loads((ROOT / "benchmarks/results/device_traffic.json").read_text())["records"]
SLOW = {"BoundaryCharacterizer.fit", 'BoundarySampleExtractor("score").transform'}
SLACK = 1.25  # of waits and launches: the number of steps follows from rounding


@pytest.fixture(scope="module")
def script():
    return load_script("device_traffic.py")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in RECORDS]
)
def test_counts_have_not_grown(name, script, standin):
    found = script.measure(name, script.network())
    part = "block" if "block" in found else "call"
    for kind, recorded in RECORDS[name][part].items():
        exact = part == "block" and kind.startswith("transfers")
        assert found[part][kind] <= (recorded if exact else SLACK * max(recorded, 10)), (
            f"{name} has {found[part][kind]} {kind} per {part}, not {recorded}: "
            f"{found['names']}. If this is meant, run python benchmarks/device_traffic.py."
        )


def test_the_counts_in_the_guide_equal_the_results(script):
    assert script.table(RECORDS) in script.GUIDE.read_text()
    assert [*RECORDS] == [*script.IN_BLOCKS, *script.AT_ONCE]


def test_each_stage_takes_one_transfer_in_each_direction():
    blocks = {name: r["block"] for name, r in RECORDS.items() if "block" in r}
    direct = ["FrozenNetwork", "LatentTransformer", "TorchNearestNeighbors", "BiasedExtrapolation"]
    for name, block in blocks.items():
        if name.startswith("SubspaceMargins"):  # lists of subspaces come out in each step
            continue
        stages = 1 if name.startswith(tuple(direct)) else 2  # the network, and a search
        assert block["transfers_out"] == stages
        more = {"score": 10, "label": 1, "pm": 1}  # random directions, and the penalty
        extra = next((n for method, n in more.items() if f'"{method}"' in name), 0)
        assert block["transfers_in"] <= stages + extra
