"""The examples of docs/rnn print what stands below them; there is a page for every module."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType

import pytest

import tinygraph_rnn
from tinygraph import config

PAGES = sorted((Path(__file__).parents[2] / "docs" / "rnn").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page):
    blocks = re.findall(r"^```pycon\n(.*?)^```$", page.read_text(encoding="utf-8"),
                        re.MULTILINE | re.DOTALL)
    assert blocks, f"{page.name} has no example"
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    with config.change(floatX="float32", backend="llvm"):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_every_module_and_page_is_in_the_index():
    index = (Path(__file__).parents[2] / "docs" / "rnn" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\| \[(\w+)\]\((\w+)\.md\)", index))
    assert linked == {(page.stem, page.stem) for page in PAGES if page.stem != "index"}
    modules = {name for name in tinygraph_rnn.__all__
               if isinstance(getattr(tinygraph_rnn, name), ModuleType)}
    assert modules - {page.stem for page in PAGES} == {"random"}
    assert "`tinygraph_rnn.random`" in index
