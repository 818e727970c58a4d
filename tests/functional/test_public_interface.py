"""The public modules of functional, and what boundary searches have in common."""

# SPDX-License-Identifier: BSD-3-Clause

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from skboundary import functional
from skboundary.functional._results import BoundaryPair, BoundaryPoint
from skboundary.functional.ddn import ddn
from skboundary.functional.nearest_boundary import nearest_boundary
from skboundary.functional.perturbation_minimization import (
    PMPair,
    fast_start,
    minimize_perturbation,
)
from skboundary.functional.query_search import label_search, score_search, segment_search
from skboundary.functional.sparse_search import sparse_search

SEARCHES = [
    nearest_boundary,
    ddn,
    segment_search,
    label_search,
    score_search,
    sparse_search,
    fast_start,
    minimize_perturbation,
]


def test_all_public_modules_are_listed():
    files = Path(functional.__file__).parent.glob("[!_]*.py")
    assert functional.__all__ == sorted(path.stem for path in files)
    for name in functional.__all__:
        assert f"- `{name}`:" in functional.__doc__


@pytest.mark.parametrize("name", functional.__all__)
def test_public_modules_list_what_they_define(name):
    module = importlib.import_module(f"skboundary.functional.{name}")
    assert set(module.__all__) <= set(vars(module))
    assert module.__all__ == sorted(module.__all__, key=lambda n: (not n.isupper(), n))


@pytest.mark.parametrize("search", SEARCHES, ids=lambda f: f.__name__)
def test_boundary_searches_share_their_leading_parameters(search):
    parameters = inspect.signature(search).parameters
    names = list(parameters)
    assert names[0] in ("logits", "score", "label") and names[1:4] == ["x", "source", "target"]
    keyword = [name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    assert keyword == names[3:] and "bounds" in keyword


def test_results_begin_with_the_fields_of_a_boundary_point():
    n = len(BoundaryPoint._fields)
    for result in (BoundaryPair, PMPair):
        assert result._fields[:n] == BoundaryPoint._fields and result._fields[n] == "inner"


def test_importing_functional_does_not_import_torch():
    code = "import sys, skboundary.functional; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
