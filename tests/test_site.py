"""The documentation site: its API reference, its links and its pages."""

import importlib
import re
from pathlib import Path

import pytest

import skboundary

DOCS = Path(__file__).parent.parent / "docs"
PACKAGE = Path(skboundary.__file__).parent
API_PAGES = sorted((DOCS / "api").glob("*.rst"))


def listed_names():
    """The dotted names that the tables of the API reference list, in order."""
    for page in API_PAGES:
        module, in_table = None, False
        for line in page.read_text().splitlines():
            if found := re.fullmatch(r"\.\. currentmodule:: ([\w.]+)", line):
                module = found[1]
            in_table = line == ".. autosummary::" or (in_table and line[:3] in ("", "   "))
            if in_table and re.fullmatch(r"   \w+", line):
                yield f"{module}.{line.strip()}"


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def public_objects():
    """The dotted names of each public object."""
    packages = {p.parent.name for p in PACKAGE.glob("[!_]*/__init__.py")} - {"functional", "utils"}
    functional = importlib.import_module("skboundary.functional").__all__
    names = ["", "datasets", "exceptions", *packages, *(f"functional.{n}" for n in functional)]
    objects = {}
    for module in (importlib.import_module(f"skboundary.{name}".rstrip(".")) for name in names):
        own = {
            n for n, o in vars(module).items() if getattr(o, "__module__", "") == module.__name__
        }
        for name in getattr(module, "__all__", {n for n in own if n[0] != "_"}):
            dotted = f"{module.__name__}.{name}"
            objects.setdefault(id(getattr(module, name)), []).append(dotted)
    return list(objects.values())


def test_the_api_reference_lists_every_public_object_once():
    listed = list(listed_names())
    assert len(listed) == len(set(listed)) > 50
    tools = {n for n in listed if n.startswith("skboundary.utils.")}  # most checks are for reading
    assert all(callable(resolve(name)) for name in tools)
    unlisted, repeated = [], []
    for names in public_objects():
        found = set(names) & set(listed)
        if not found:
            unlisted.append(names)
        if len(found) > 1:
            repeated.append(names)
    assert not unlisted and not repeated
    assert set(listed) - tools <= {name for names in public_objects() for name in names}


def test_names_of_the_package_have_a_page_of_that_name():
    assert {f"skboundary.{name}" for name in skboundary.__all__} <= set(listed_names())


@pytest.mark.parametrize(
    "name", [n for n in skboundary.__all__ if hasattr(getattr(skboundary, n), "get_params")]
)
def test_the_html_representation_links_to_the_page(name, monkeypatch):
    cls = getattr(skboundary, name)
    estimator = cls(None) if name == "FrozenNetwork" else cls()
    base = "https://skboundary.readthedocs.io/en"
    assert estimator._get_doc_link() == f"{base}/latest/generated/skboundary.{name}.html"
    assert f'href="{base}/latest/generated/skboundary.{name}.html' in estimator._repr_html_()
    monkeypatch.setattr("skboundary._site.__version__", "1.2.0")
    assert f"{base}/v1.2.0/generated/skboundary.{name}.html" == estimator._get_doc_link()


def test_a_class_of_a_user_has_no_link():
    class Mine(skboundary.LatentTransformer):
        pass

    assert Mine()._get_doc_link() == ""
