"""Anonymous memory of the estimators on a memory map, against the bounds in the guide."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import skboundary
from tests.test_docs import ROOT, load_script

if not sys.platform.startswith("linux"):
    pytest.skip("reads /proc", allow_module_level=True)

script = load_script("out_of_core.py")


@pytest.fixture(scope="session")
def two_gigabytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "X.npy"
    script.write(path, script.ROWS)
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "threads"), [*((name, 1) for name in script.CASES), ("LatentKNNClassifier", 2)]
)
def test_estimators_keep_within_their_bound(name, threads, two_gigabytes):
    found = script.in_child(name, two_gigabytes, threads)
    assert found["measured"] <= found["bound"], found


SMALL = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import out_of_core
from skboundary import _batching, _sample_array
from skboundary.boundary import _boundary_search
from skboundary.networks import _sample_store
_batching.BATCH_BYTES = _sample_array.BATCH_BYTES = _boundary_search._BLOCK_BYTES = 2**20
_sample_store._LARGE = 2**20
path = Path(sys.argv[2], "X.npy")
out_of_core.write(path, 2**14)
for name in sys.argv[3:]:
    print(json.dumps(out_of_core.measure(name, path, base=24, searched=2**10)))
"""


def test_a_memory_map_is_not_copied(tmp_path):
    """64 MB, with blocks of 1 MB: each copy of X would exceed the bound."""
    names = [
        "LatentTransformer(memory=)",
        "LatentKNNClassifier(bank=)",
        "TorchNearestNeighbors",
        "BoundarySampleExtractor, distances",
    ]
    code = [sys.executable, "-c", textwrap.dedent(SMALL), str(ROOT / "benchmarks"), str(tmp_path)]
    root = Path(skboundary.__file__).parents[1]
    # the buffers of a search are per thread, and as large as this bound
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*code, *names], capture_output=True, text=True, cwd=root, env=env, check=False
    )
    assert not done.returncode, done.stderr
    for line in done.stdout.splitlines():
        found = json.loads(line)
        assert found["measured"] <= found["bound"], found


def test_the_bounds_in_the_guide_equal_the_results():
    records = json.loads(script.RESULT.read_text())["records"]
    guide = (ROOT / "docs/user_guide/memory.rst").read_text()
    assert script.table(records) in guide
    assert [r["estimator"] for r in records] == [*script.CASES]
    assert all(r["measured"] <= r["bound"] for r in records)
