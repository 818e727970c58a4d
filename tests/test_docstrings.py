"""Public docstrings are complete numpydoc: every parameter, every return, an example."""

import importlib
import inspect
from pathlib import Path

import pytest
from numpydoc.validate import validate

import skboundary

CLASSES = [getattr(skboundary, name) for name in skboundary.__all__]
FUNCTIONAL = [
    importlib.import_module(f"skboundary.functional.{path.stem}")
    for path in (Path(skboundary.__file__).parent / "functional").glob("[!_]*.py")
]
# Extended summaries, See Also and examples of methods are written where there is something to
# say; summaries start on the line of the quotes; a type with its shape can say it all.
OPTIONAL = {"ES01", "SA01", "GL01", "EX01", "RT02", "RT03", "RT05", "PR07", "PR08", "PR09",
            "SA04", "YD01", "GL08"}  # fmt: skip


def public_names():
    for cls in CLASSES:
        base = f"{cls.__module__}.{cls.__name__}"
        yield base
        for name, member in vars(cls).items():
            if not name.startswith("_") and (inspect.isfunction(member) or name == "classes_"):
                yield f"{base}.{name}"
    for module in FUNCTIONAL:
        for name, member in vars(module).items():
            if not name.startswith("_") and inspect.isfunction(member):
                if member.__module__ == module.__name__:
                    yield f"{module.__name__}.{name}"


@pytest.mark.parametrize("name", sorted(public_names()))
def test_docstring_is_complete(name):
    errors = validate(name)["errors"]
    assert not [e for e in errors if e[0] not in OPTIONAL]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_classes_show_an_example_and_lead_to_the_guide(cls):
    doc = cls.__doc__
    assert ">>> " in doc and ":ref:`User Guide" in doc
