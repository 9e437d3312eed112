"""How the project is built: imports run one way, without a circle, and no name means two things."""

import ast
import runpy
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Names that a module's own name explains: `lora.init`, `weighting.get`; and what every program,
# configuration and sweep has.
IDIOMS = {
    *("apply", "from_huggingface", "get", "init", "load", "names", "read", "save", "write"),
    # What every form of an export offers.
    *("opening", "outputs", "refusal"),
    # What every layout of a family's files offers.
    "tensors",
    *("get_config", "get_sweep", "main", "parse"),
}


def modules(*packages):
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield name, ast.parse(path.read_text("utf-8"))


def imports(tree, known, *, late):
    """Yields the modules that a file imports; `late` ones, in functions, too if asked."""
    for node in ast.walk(tree) if late else _at_once(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def _at_once(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_once(child)


def test_the_library_imports_nothing_of_the_programs():
    found = [
        (name, target)
        for name, tree in modules("dwa_jax")
        for target in imports(tree, (), late=True)
        if target.partition(".")[0] in ("experiments", "configs", "tests")
    ]
    assert found == []


def test_there_is_no_circle():
    trees = dict(modules("dwa_jax", "experiments", "configs"))
    needs = {
        name: {t for t in imports(tree, trees, late=False) if t in trees and t != name}
        for name, tree in trees.items()
    }
    # What can be imported once everything that it needs has been is taken away, again and again.
    while ready := {name for name, targets in needs.items() if not targets & set(needs)}:
        needs = {name: targets for name, targets in needs.items() if name not in ready}
    assert needs == {}


def test_programs_alone_lie_flat():
    flat = [p.name for p in (ROOT / "experiments").glob("*.py") if p.name != "__init__.py"]
    assert len(flat) <= 12


def test_two_things_never_share_a_name():
    where = defaultdict(list)
    for name, tree in modules("dwa_jax", "experiments"):
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name)
    twice = {name: places for name, places in where.items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name not in IDIOMS} == {}


def test_no_two_modules_of_the_library_share_a_name():
    names = Counter(
        name.rpartition(".")[2] for name, _ in modules("dwa_jax") if name.count(".") > 0
    )
    assert {name for name, count in names.items() if count > 1} <= {"protocol", "config"}


def test_where_it_cannot_run_it_says_so(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ImportError, match="runs on Linux and macOS; on Windows use it within WSL"):
        runpy.run_path(str(ROOT / "dwa_jax" / "__init__.py"))
