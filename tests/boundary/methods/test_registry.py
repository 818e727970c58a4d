"""The table of the methods."""

import inspect

import pytest

from skboundary import BoundarySampleExtractor
from skboundary.boundary.methods._registry import AUTO, METHODS, choose_method

EFFORTS = {"fast", "balanced", "thorough"}
IN_ONE_FILE = {"label": "_query", "score": "_query"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_in_a_file_named_like_it(name):
    module = inspect.getmodule(METHODS[name].search).__name__
    assert module == f"skboundary.boundary.methods.{IN_ONE_FILE.get(name, f'_{name}')}"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_all_efforts(name):
    assert set(METHODS[name].efforts) == EFFORTS


@pytest.mark.parametrize("name", METHODS)
def test_levels_and_numbers(name):
    method = METHODS[name]
    assert method.settle("fast") == (method.efforts["fast"], None)
    if name not in ("deepdig", "sparse"):
        assert method.settle(method.least) == (method.within(method.least), method.least)
    else:
        assert method.within is None


def test_every_method_is_a_value_of_the_parameter():
    (names,) = BoundarySampleExtractor._parameter_constraints["method"]
    assert names.options == {"auto", *METHODS}


@pytest.mark.parametrize("response, name", AUTO.items())
def test_the_default_supports_its_response(response, name):
    assert choose_method("auto", 2, response, None) is METHODS[name]
