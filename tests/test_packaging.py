import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import skboundary

ROOT = Path(__file__).parent.parent


def configuration():
    cfg = configparser.ConfigParser()
    cfg.read(ROOT / "setup.cfg")
    return tomllib.loads((ROOT / "pyproject.toml").read_text()), cfg


def test_each_tool_is_configured_in_one_file():
    toml, cfg = configuration()
    ours = {re.split(r"[:_-]", s.removeprefix("tool:"))[0] for s in cfg.sections()}
    theirs = set(toml["tool"])
    assert not ours & theirs
    assert {"mypy", "coverage"} <= ours and {"pytest", "ruff", "setuptools"} <= theirs
    assert not {"metadata", "options"} & ours
    stray = ["tox.ini", "pytest.ini", "ruff.toml", ".flake8", ".coveragerc", "mypy.ini", "setup.py"]
    assert not [name for name in stray if (ROOT / name).exists()]


def test_the_version_has_one_source():
    toml, _ = configuration()
    assert "version" not in toml["project"] and toml["project"]["dynamic"] == ["version"]
    assert toml["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "skboundary.__version__"}
    assert version("skboundary") == skboundary.__version__


def test_citation_and_changelog_name_the_release():
    if "dev" in skboundary.__version__:
        pytest.skip("a development version")
    release, citation = skboundary.__version__, (ROOT / "CITATION.cff").read_text()
    (date,) = re.findall(r"^date-released: (\S+)$", citation, re.MULTILINE)
    assert f"\nversion: {release}\n" in citation
    page = ROOT / f"docs/whats_new/v{release.rpartition('.')[0]}.rst"
    assert f"\nVersion {release}, {date}\n" in page.read_text()


def test_constraints_pin_all_dependencies():
    toml, _ = configuration()
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    project = toml["project"]
    extras = project["optional-dependencies"]
    declared = project["dependencies"] + [d for name in extras for d in extras[name]]
    names = {re.match(r"[\w-]+", d).group() for d in declared}
    assert names == set(pinned)
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().split()


def test_ci_installs_the_lower_bounds():
    toml, _ = configuration()
    project = toml["project"]
    declared = " ".join(project["dependencies"] + project["optional-dependencies"]["test"])
    bounds = dict(re.findall(r"([\w-]+)(?:\[\w+\])?[>=]=([\d.]+)", declared))
    text = (ROOT / "constraints-min.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)$", text, re.MULTILINE))
    assert pinned.pop("torch") == "2.13.0" and bounds.pop("torch")
    assert pinned == bounds
    names = {re.match(r"[\w-]+", name).group() for name in declared.split()}
    assert names == set(bounds) | {"torch"}
    assert "-c constraints-min.txt" in (ROOT / ".ci/run").read_text()


def test_the_source_distribution_holds_every_file():
    git = shutil.which("git") and (ROOT / ".git").exists()
    if not git:
        pytest.skip("not a checkout of the repository")
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    words = [line.split() for line in (ROOT / "MANIFEST.in").read_text().splitlines()]
    folders = {name for first, *names in words if first == "graft" for name in names}
    included = {name for first, *names in words if first == "include" for name in names}
    included |= {"MANIFEST.in", "README.md", "LICENSE", "pyproject.toml", "setup.cfg"}  # always
    for name in run.stdout.splitlines():
        in_package = name.startswith("skboundary/") and name.endswith((".py", "py.typed"))
        assert in_package or name in included or name.partition("/")[0] in folders, name
    assert {"tests", "docs", "benchmarks"} <= folders


def test_import_loads_no_heavy_packages():
    code = (
        "import sys, skboundary; assert 'LatentKNNClassifier' in dir(skboundary)\n"
        "heavy = {'skorch', 'imblearn', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from skboundary import *\n"
        "assert LatentKNNClassifier and FrozenNetwork and TorchNearestNeighbors\n"
        "heavy -= {'imblearn'}  # a sampler is one of its classes\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_raises_an_attribute_error():
    assert not hasattr(skboundary, "LatentKNNRegressor")


def test_package_is_typed():
    assert (Path(skboundary.__file__).parent / "py.typed").exists()
