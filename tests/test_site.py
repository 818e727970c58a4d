"""The documentation site: its API reference, its links and its pages."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import skboundary

DOCS = Path(__file__).parent.parent / "docs"
PACKAGE = Path(skboundary.__file__).parent
API_PAGES = sorted((DOCS / "api").glob("*.rst"))


def load(path):
    """Import a module of the documentation."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed_names():
    """The dotted names that the tables of the API reference list, in order."""
    for page in API_PAGES:
        module, in_table = None, False
        for line in page.read_text().splitlines():
            if found := re.fullmatch(r"\.\. (?:current)?module:: ([\w.]+)", line):
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
    names = [
        "",
        "datasets",
        "exceptions",
        "io",
        *packages,
        *(f"functional.{n}" for n in functional),
    ]
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
    for version, folder in [("1.2.0.dev0", "latest"), ("1.2.0", "v1.2.0")]:
        monkeypatch.setattr("skboundary._site.__version__", version)
        page = f"{base}/{folder}/generated/skboundary.{name}.html"
        assert estimator._get_doc_link() == page
        assert f'href="{page}' in estimator._repr_html_()


def test_a_class_of_a_user_has_no_link():
    class Mine(skboundary.LatentTransformer):
        pass

    assert Mine()._get_doc_link() == ""


def write_site(folder, link):
    """Write two pages and the times of an example; `link` is in the first page."""
    (folder / "sphinx-gallery").mkdir()
    (folder / "generated").mkdir()
    for name in skboundary.__all__:
        (folder / f"generated/skboundary.{name}.html").write_text("<p>")
    (folder / "index.html").write_text(f'<a href="{link}">x</a> <a href="https://a.org/b#c">y</a>')
    (folder / "page.html").write_text('<h1 id="title">x</h1>')
    times = '<testsuite><testcase file="plot_a.py" time="{}"/></testsuite>'
    (folder / "sphinx-gallery/junit-results.xml").write_text(times.format(3.5))
    return times


@pytest.mark.parametrize(
    "link, works",
    [
        ("page.html", True),
        ("page.html?v=1#title", True),
        ("#", True),
        ("page.html#no", False),
        ("other.html", False),
        ("#title", False),
    ],
)
def test_a_broken_link_in_the_built_site_is_found(tmp_path, capsys, link, works):
    check = load(DOCS / "check_site.py")
    write_site(tmp_path, link)
    if works:
        check.main(tmp_path)
        assert "3.5 s  plot_a.py" in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit, match=re.escape(f"index.html: {link}")):
            check.main(tmp_path)


def test_a_slow_example_and_a_missing_page_are_found(tmp_path):
    check = load(DOCS / "check_site.py")
    times = write_site(tmp_path, "page.html")
    (tmp_path / "sphinx-gallery/junit-results.xml").write_text(times.format(99))
    with pytest.raises(SystemExit, match=r"plot_a.py: 99 s, more than 45"):
        check.main(tmp_path)
    (tmp_path / "sphinx-gallery/junit-results.xml").write_text(times.format(1))
    (tmp_path / "generated/skboundary.LatentKNNClassifier.html").unlink()
    with pytest.raises(SystemExit, match=r"skboundary.LatentKNNClassifier.html"):
        check.main(tmp_path)


def test_how_tos_are_short():
    pages = list((DOCS / "howto").glob("*.rst"))
    assert len(pages) > 7
    assert not [page.name for page in pages if len(page.read_text().splitlines()) > 40]


@pytest.fixture
def results(monkeypatch):
    pytest.importorskip("sphinx", reason="the docs extra")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return load(DOCS / "_ext/benchmark_results.py")


def test_tables_of_benchmarks_are_drawn_from_the_results(results):
    page = (DOCS / "benchmarks.rst").read_text()
    assert set(re.findall(r"benchmark-table:: (\w+)", page)) == set(results.TABLES)
    for draw in results.TABLES.values():
        header, *rows = draw()
        assert rows and all(len(row) == len(header) for row in rows)
    record = results.load("neighbors")["records"][0]
    ours, faiss = (record["seconds"][name]["wall"] for name in ("ours", "faiss"))
    assert next(rows for i, rows in enumerate(results.neighbors()) if i == 1)[3:5] == [
        f"{ours:.2f}",
        f"{ours / faiss:.2f}",
    ]


def test_every_file_of_results_is_listed_with_its_command(results):
    lines = list(results.records())
    files = sorted(path.name for path in results.RESULTS.glob("*.json"))
    assert [re.match(r"- ``([\w.]+)``", line)[1] for line in lines] == files
    assert all("``python" in line and "torch 2" in line for line in lines)
