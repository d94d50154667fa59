"""The rooms of the two packages are read in one order, and imported in that order.

The list below is the order.  Imports inside functions count; imports for type checkers do not.
"""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("tinygraph", "tinygraph_rnn")

# A room is a module, or a package with all its files but those that are rooms of their own.
ORDER = (
    "tinygraph.errors",
    "tinygraph.config",
    "tinygraph.store",
    "tinygraph.dtypes",
    "tinygraph.dims",
    "tinygraph.formulas",
    "tinygraph.graph",
    "tinygraph.interning",
    "tinygraph.late",
    "tinygraph.loops",
    "tinygraph.ops",
    "tinygraph.printing",
    "tinygraph.reverse_mode",
    "tinygraph.rebuild",
    "tinygraph.interpret",
    "tinygraph.tensor",
    "tinygraph.gradient_check",
    "tinygraph.updates",
    "tinygraph.scan_module",
    "tinygraph.gradient",
    "tinygraph.rewrite",
    "tinygraph.gof",
    "tinygraph.passes",
    "tinygraph.lowering",
    "tinygraph.backends",
    "tinygraph.compile",
    "tinygraph.tensor.shared_randomstreams",
    "tinygraph.sandbox",
    "tinygraph",
    "tinygraph.doctor",
    "tinygraph.__main__",
    "tinygraph_rnn.utils",
    "tinygraph_rnn.random",
    "tinygraph_rnn.init",
    "tinygraph_rnn.nonlinearities",
    "tinygraph_rnn.objectives",
    "tinygraph_rnn.tasks",
    "tinygraph_rnn.cells",
    "tinygraph_rnn.updates",
    "tinygraph_rnn.layers",
    "tinygraph_rnn.regularization",
    "tinygraph_rnn.saving",
    "tinygraph_rnn.training",
    "tinygraph_rnn",
)

# Rooms that see less than everything before them.
SEES_ONLY = {
    "tinygraph.loops": {"tinygraph.dtypes"},
    "tinygraph.printing": {"tinygraph.graph", "tinygraph.ops"},
    "tinygraph.backends": {
        "tinygraph.errors", "tinygraph.config", "tinygraph.store", "tinygraph.dtypes",
        "tinygraph.loops"},
}


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    return module if module in ORDER else ".".join(module.split(".")[:2])


def statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements under ``node``, but for those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from statements(other)
        else:
            yield from statements(child)


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of ours that a file imports, each with its line."""
    for statement in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            assert statement.level == 0, f"{path}:{statement.lineno}: a relative import"
            base = statement.module or ""
            names = [f"{base}.{alias.name}" for alias in statement.names]
            names = [name if name in MODULES else base for name in names]
        for name in names:
            if name.split(".")[0] in PACKAGES:
                assert name in MODULES, f"{path}:{statement.lineno}: there is no module {name}"
                yield name, statement.lineno


def test_every_room_is_in_the_order():
    assert {room(module) for module in MODULES} == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_upwards(module):
    here = ORDER.index(room(module))
    later = [f"line {line}: {name}" for name, line in imported(MODULES[module])
             if ORDER.index(room(name)) > here]
    assert not later, f"{module} imports from rooms that are read after it: {later}"


@pytest.mark.parametrize("name", SEES_ONLY)
def test_rooms_that_see_less(name):
    seen = {room(other) for module in MODULES if room(module) == name
            for other, _ in imported(MODULES[module])}
    assert seen <= {name} | SEES_ONLY[name]


def test_no_cycle_of_files():
    graph = {module: {name for name, _ in imported(path) if name != module}
             for module, path in MODULES.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def test_the_walk_sees_what_it_should(tmp_path):
    path = tmp_path / "example.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import tinygraph.compile.call\n"
        "def f():\n    from tinygraph.graph import Value\n    import tinygraph.dims, os\n")
    assert list(imported(path)) == [("tinygraph.graph", 5), ("tinygraph.dims", 6)]


def test_no_module_bears_the_name_of_something_public():
    """A module 'tinygraph/scan.py' would replace the function ``tinygraph.scan`` when it is
    imported, or be replaced by it."""
    for module in MODULES:
        importlib.import_module(module)
    for module in MODULES:
        package, _, name = module.rpartition(".")
        if package:
            assert not callable(getattr(importlib.import_module(package), name)), module


def test_importing_tinygraph_is_light():
    heavy = ["cupy", "matplotlib", "networkx", "scipy", "tqdm", "tinygraph_rnn"]
    program = f"import sys, tinygraph; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
