"""Imports run one way; the syntax tree holds them to it."""

import ast
from pathlib import Path

import pytest

import skboundary

PACKAGE = Path(skboundary.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

GROUND = ("_random", "_device", "_batching", "_validation", "exceptions")

# What a room may import of the package, besides itself.
ALLOWED = {
    "functional": set(),
    "exceptions": set(),
    "_random": set(),
    "_device": set(),
    "_batching": set(),
    "_validation": {"_batching", "_device"},
    "networks": {"functional", *GROUND},
    "neighbors": {"functional", *GROUND, "networks"},
    "boundary": {"functional", *GROUND, "networks", "neighbors._exact"},
    "over_sampling": {"functional", *GROUND, "networks", "neighbors._exact"},
    "datasets": {"_device", "_random"},
    "utils": set(GROUND),
}
ALLOWED["display"] = set(ALLOWED) | {"display"}
ALLOWED["_tour"] = set(ALLOWED)
ALLOWED["__main__"] = set(ALLOWED)
OUTSIDE_FUNCTIONAL = {
    "__future__",
    "collections",
    "concurrent",
    "functools",
    "math",
    "threading",
    "typing",
    "torch",
}


def room_of(path):
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
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        if name == "skboundary" or not name.startswith("skboundary."):
            continue
        target = name.removeprefix("skboundary.")
        allowed = ALLOWED[room] | {room}
        assert any(target == a or target.startswith(a + ".") for a in allowed), (
            f"{room} imports {name}"
        )


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("functional/*.py")), ids=lambda p: p.name)
def test_algorithms_are_pure_torch(path):
    for name in imports(path):
        top = name.split(".")[0]
        assert top in OUTSIDE_FUNCTIONAL or name.startswith("skboundary.functional"), name


def test_skorch_is_imported_in_one_module():
    users = [p.name for p in MODULES if any(n.split(".")[0] == "skorch" for n in imports(p))]
    assert users == ["_default.py"]


def test_every_module_has_a_docstring_and_a_license():
    for path in MODULES:
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert "SPDX-License-Identifier: BSD-3-Clause" in text, path
