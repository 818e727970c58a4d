"""Public docstrings are complete in the numpydoc format."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest
from numpydoc.validate import validate

import skboundary
from skboundary.boundary import BoundaryPairs
from skboundary.neighbors import LabelIssues, NeighborSearch
from skboundary.networks import Network
from tests.test_site import listed_names, resolve

PACKAGE = Path(skboundary.__file__).parent
CLASSES = [getattr(skboundary, name) for name in skboundary.__all__]
MODULES = [
    importlib.import_module(".".join(["skboundary", *folder, path.stem]))
    for folder in ([], ["functional"], ["utils"])
    for path in PACKAGE.joinpath(*folder).glob("[!_]*.py")
]
# Extended summaries, See Also and examples of methods are optional; summaries start on the line of
# the quotes; a type with a shape may need no description.
OPTIONAL = {
    "ES01",
    "SA01",
    "GL01",
    "EX01",
    "RT02",
    "RT03",
    "RT05",
    "PR07",
    "PR08",
    "PR09",
    "SA04",
    "YD01",
}
# Fields of a NamedTuple are documented in comments, and the parameters of common checks and of
# methods of a protocol in one place; a docstring is still required.
BRIEF = OPTIONAL | {"PR01", "RT01", "SS05"}


def names_of(cls):
    """Names of a class and of the public methods and properties that it defines."""
    base = f"{cls.__module__}.{cls.__name__}"
    yield base
    for name, member in vars(cls).items():
        public = inspect.isfunction(member) or isinstance(member, property)
        if public and not name.startswith("_"):
            yield f"{base}.{name}"


def members_of(module):
    """Names and objects in `__all__`, or else the public ones that the module defines."""
    for name, member in vars(module).items():
        is_its_own = getattr(member, "__module__", None) == module.__name__
        if name in getattr(module, "__all__", [name] * (is_its_own and name[0] != "_")):
            yield name, member


def public_names():
    """Every public class, method and function, with the checks that do not apply to it."""
    for cls in [*CLASSES, BoundaryPairs, LabelIssues]:
        yield from ((name, OPTIONAL) for name in names_of(cls))
    yield "skboundary.boundary.characterize_boundary", OPTIONAL
    yield "skboundary.networks.as_network", OPTIONAL
    yield "skboundary.networks.collect", OPTIONAL
    for protocol in (Network, NeighborSearch):  # its properties are described in its docstring
        for name in names_of(protocol):
            if not isinstance(vars(protocol).get(name.rpartition(".")[2]), property):
                yield name, BRIEF
    for module in MODULES:
        for name, member in members_of(module):
            if inspect.isclass(member):
                yield from ((n, BRIEF) for n in names_of(member))
            elif inspect.isfunction(member):
                is_check = list(inspect.signature(member).parameters)[:2] == [
                    "name",
                    "estimator_orig",
                ]
                yield f"{module.__name__}.{name}", BRIEF if is_check else OPTIONAL


@pytest.mark.parametrize("name, optional", sorted(public_names(), key=lambda pair: pair[0]))
def test_docstring_is_complete(name, optional):
    errors = validate(name)["errors"]
    assert not [e for e in errors if e[0] not in optional]


def test_a_missing_docstring_is_detected(monkeypatch):
    monkeypatch.setattr(skboundary.LatentKNNClassifier.predict, "__doc__", None)
    with pytest.raises(AssertionError, match="GL08"):
        test_docstring_is_complete(
            "skboundary.neighbors._latent_knn.LatentKNNClassifier.predict", OPTIONAL
        )


def test_all_public_modules_are_covered():
    covered = {name.rsplit(".", 1)[0] for name, _ in public_names()}
    for name in ("datasets", "exceptions", "utils.estimator_checks", "boundary._pairs"):
        assert f"skboundary.{name}" in covered


def test_every_name_in_the_api_reference_is_covered():
    covered = {id(resolve(name)) for name, _ in public_names() if is_top_level(name)}
    names = [name for name in listed_names() if callable(resolve(name))]
    assert len(names) > 50 and not [name for name in names if id(resolve(name)) not in covered]


def is_top_level(name):
    """Whether a dotted name is that of an object in a module, rather than in a class."""
    return name.rpartition(".")[0] in sys.modules


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_classes_have_an_example_and_a_link_to_the_guide(cls):
    doc = cls.__doc__
    assert ">>> " in doc and ":ref:`User Guide" in doc
