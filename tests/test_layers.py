"""Imports run downward only, and each module has its test."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ignite_salak"
LAYERS = {
    "files": 0,
    "classes": 0,
    "randomness": 0,
    "events": 0,
    "ranks": 0,
    "data": 1,
    "symmetry": 1,
    "alignment": 1,
    "augment": 1,
    "voting": 1,
    "pseudo_labels": 1,
    "thresholds": 1,
    "losses": 1,
    "models": 1,
    "metrics": 1,
    "plots": 1,
    "pictures": 1,
    "report": 2,
    "inference": 2,
    "steps": 2,
    "engines": 3,
    "handlers": 3,
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(name):
    return name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_downward(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        assert not name.startswith("experiments"), f"{path} imports an experiment"
        if name.startswith("ignite_salak."):
            other = room(name)
            assert other == own or LAYERS[other] < LAYERS[own], f"{own} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_only_upper_rooms_know_ignite_and_only_augment_knows_kornia(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = {name.split(".")[0] for name in imports(path)}
    if "kornia" in names:
        assert own == "augment"
    if "ignite" in names:
        assert own in ("events", "metrics", "steps", "engines", "handlers")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_has_a_test_of_its_name_and_says_what_is_public(path):
    tests = Path(__file__).parent / path.relative_to(PACKAGE).parent
    assert (tests / f"test_{path.name}").exists()
    assert "__all__" in path.read_text(encoding="utf-8")
