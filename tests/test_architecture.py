"""The layers of the package: imports run one way, and `functional` needs only torch."""

import ast
import sys
from pathlib import Path

import pytest

import skboundary

PACKAGE = Path(skboundary.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

BANK = ("_bank_folder", "_bank_state", "_part_array", "_part_writer")
STATE = ("_npy", "_plain")
TASKS = ("_task_store", "_file_array")
SHARED = (
    "_random",
    "_device",
    "_callbacks",
    "_batching",
    "_sample_array",
    "_validation",
    "_site",
    "exceptions",
    *BANK,
    *STATE,
    *TASKS,
)

# What a package or module may import of skboundary, besides itself.
ALLOWED = {
    "functional": set(),
    "exceptions": set(),
    "_random": {"functional._threads"},
    "_device": {"exceptions"},
    "_callbacks": set(),
    "_batching": {"_callbacks"},
    "_site": {"__version__"},
    "_sample_array": {"_batching"},
    "_validation": {"_device", "_sample_array"},
    **{module: {*BANK, "_npy"} for module in BANK},
    "_npy": set(),
    "_plain": {"_sample_array"},
    **{module: set(TASKS) for module in TASKS},
    "networks": {"functional", *SHARED},
    "_engine": {
        "functional._threads",
        "_task_store",
        "exceptions",
        "networks._digest",
        "networks._travel",
    },
    "neighbors": {"functional", *SHARED, "networks"},
    "boundary": {"functional", *SHARED, "networks", "neighbors._exact", "_engine"},
    "over_sampling": {"functional", *SHARED, "networks", "neighbors._exact"},
    "display": {"functional", *SHARED, "networks", "neighbors", "boundary", "over_sampling"},
    "io": {*SHARED, "networks", "neighbors", "boundary", "over_sampling", "_saved"},
    "_saved": {*SHARED, "networks", "neighbors"},
    "datasets": {"_device", "_random"},
    "utils": set(SHARED),
}
ALLOWED["_tour"] = set(ALLOWED)
ALLOWED["__main__"] = set(ALLOWED)


def package_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "skboundary":
                yield from (f"skboundary.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    package = package_of(path)
    if package == "__init__":
        return
    for name in imports(path):
        if name == "skboundary" or not name.startswith("skboundary."):
            continue
        target = name.removeprefix("skboundary.")
        allowed = ALLOWED[package] | {package}
        assert any(target == a or target.startswith(a + ".") for a in allowed), (
            f"{package} imports {name}"
        )


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("functional/*.py")), ids=lambda p: p.name)
def test_functional_imports_only_torch(path):
    for name in imports(path):
        top = name.split(".")[0]
        ours = name.startswith("skboundary.functional")
        assert ours or top == "torch" or top in sys.stdlib_module_names, name


def test_skorch_is_imported_in_one_module():
    users = [p.name for p in MODULES if any(n.split(".")[0] == "skorch" for n in imports(p))]
    assert users == ["_default.py"]


def test_every_module_has_a_docstring_and_a_license():
    for path in MODULES:
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert "SPDX-License-Identifier: BSD-3-Clause" in text, path


MODULE_LIMIT, FUNCTION_LIMIT = 400, 50  # lines; the aim is 300 and 40


def body_lines(function):
    """Lines of a function without its signature and docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return function.end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LIMIT
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert not [f.name for f in functions if body_lines(f) > FUNCTION_LIMIT]
