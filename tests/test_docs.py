"""What the documents say is so: their programs run and print what is shown beside them."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import sys
from pathlib import Path

import pytest

from tinygraph.passes.pipeline import PIPELINE

pytestmark = pytest.mark.counts
ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/architecture.md", "docs/vector_math.md",
             "docs/performance.md", "docs/coming-from-theano.md",
             "docs/coming-from-lasagne.md", "docs/debugging.md", "docs/gpu.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[tuple[str, str]]:
    """(language, content) of every fenced block of a document."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text(name), re.MULTILINE | re.DOTALL)


def programs(name: str) -> list[str]:
    return [content for language, content in blocks(name) if language == "python"]


def without_places(printed: str) -> list[str]:
    """Lines without the file and line that each equation bears."""
    return [re.sub(r"(  at \S+| \(\S+:\d+\))$", "", line) for line in printed.splitlines()]


@pytest.fixture(scope="module")
def readme() -> tuple[dict, list[str]]:
    """The names that the README's programs define, one after another, and what each prints."""
    names: dict = {}
    printed = []
    for k, program in enumerate(programs("README.md")):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(program, f"README-{k}.py", "exec"), names)
        printed.append(out.getvalue())
    return names, printed


def test_the_first_program_prints_what_is_shown(readme):
    shown = [content for language, content in blocks("README.md") if not language]
    assert readme[1][0] == shown[0]


def test_the_look_inside_is_what_is_shown(readme):
    names, printed = readme
    _, equations, loops = (content for language, content in blocks("README.md") if not language)
    assert without_places(names["f"].after("stable")) == equations.splitlines()
    assert loops in names["f"].source("loops")
    assert equations in "\n".join(without_places(printed[1])) + "\n"
    assert all(names["f"].source(stage) for stage in ("graph", "llvm", "asm"))


def test_the_walk_has_the_products_that_are_shown():
    names: dict = {}
    for program in programs("docs/architecture.md"):
        exec(compile(program, "walk.py", "exec"), names)
    f = names["f"]
    report = "\n".join(without_places(str(f.report())))
    shown = next(content for _, content in blocks("docs/architecture.md")
                 if content.startswith("rnn: "))
    for line in shown.splitlines()[1:]:
        assert line in report.splitlines()
    assert f.after("close").count(" = dot{") == 8
    assert "lazy scan" in f.after("close") and "lazy scan" not in f.after("unite")


def test_debugging_prints_what_is_shown():
    names: dict = {}
    found = blocks("docs/debugging.md")
    for (language, program), (kind, shown) in zip(found, found[1:], strict=False):
        if language != "python":
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(program, "debugging.py", "exec"), names)
        if kind != "text":  # times differ from run to run
            assert out.getvalue() == shown
    assert str(names["f"].profile).startswith("layer: 100 calls")


@pytest.fixture(scope="module")
def gpu() -> tuple[dict, list[str]]:
    """The names that the programs of docs/gpu.md define, and what each prints."""
    names: dict = {}
    printed = []
    for program in programs("docs/gpu.md"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(program, "gpu.py", "exec"), names)
        printed.append(out.getvalue())
    return names, printed


@pytest.mark.parametrize("number, name, kernels", [(0, "f", 4), (1, "g", 6)])
def test_the_kernel_is_what_is_shown(gpu, number, name, kernels):
    shown = [content for language, content in blocks("docs/gpu.md") if language == "cuda"][number]
    source = gpu[1][number]
    assert source == gpu[0][name].source("cuda") + "\n" and source.count("__global__") == kernels
    emitted = iter([line.strip() for line in source.splitlines()])
    for line in shown.splitlines():
        line = re.sub(r"  // \d+$", "", line).strip()
        pattern = re.escape(line).replace(re.escape("..."), ".*")
        if line != "...":  # between two lines that are shown there may be others
            assert any(re.fullmatch(pattern, other) for other in emitted), line


def test_the_lines_of_the_kernel_are_explained_one_by_one():
    shown = next(content for language, content in blocks("docs/gpu.md") if language == "cuda")
    labels = re.findall(r"  // (\d+)$", shown, re.MULTILINE)
    after = text("docs/gpu.md").partition(shown)[2].partition("`f.report()`")[0]
    assert labels == re.findall(r"^(\d+)\. ", after, re.MULTILINE) and len(labels) == 17


def test_the_launches_and_the_finding_of_the_shim_are_what_is_shown(gpu):
    launches, arrays, finding = (content for language, content in blocks("docs/gpu.md")
                                 if not language)
    assert launches in str(gpu[0]["f"].report())
    assert [arrays, finding] == gpu[1][2:]


def test_the_table_of_passes_is_the_pipeline():
    table = text("docs/architecture.md").split("| pass |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [p.name for p in PIPELINE]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name):
    found = re.findall(r"`((?:[\w.]+/)+[\w.]*)`", text(name))
    found += [link for link in re.findall(r"\]\(([^)#]+)\)", text(name)) if "://" not in link]
    missing = [path for path in found
               if not any((base / path).exists()
                          for base in (ROOT, ROOT / "docs", ROOT / "tinygraph"))]
    assert found and not missing


def test_the_commands_are_these():
    lines = [line.strip() for line in text("README.md").splitlines()]
    assert 'pip install -e ".[examples]" && python examples/add_task.py' in lines
    assert 'pip install -e ".[test]" && pytest' in lines


@pytest.mark.parametrize("module", ["tinygraph", "tinygraph.config", "tinygraph_rnn"])
def test_doctests(module):
    importlib.import_module(module)
    result = doctest.testmod(sys.modules[module])  # tinygraph.config is an object, too
    assert result.attempted and not result.failed
