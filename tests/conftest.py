"""Makes the modules in this folder importable from every test: ``import models``.

    pytest --without-pass NAME

compiles every function of the suite without that pass.  Tests that say what passes do, and not
what values come out, bear the mark ``counts`` (all of tests/passes does) and are skipped then.
"""

from __future__ import annotations

import pytest

MARK = "counts: asserts what passes do, not values; skipped under --without-pass"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-pass", metavar="NAME",
                     help="compile every function without this pass; tests marked 'counts' skip")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARK)
    name = config.getoption("--without-pass")
    if name is not None:
        _leave_out(name)


def _leave_out(name: str) -> None:
    """From now on no function of this process is compiled with the pass."""
    from tinygraph.compile import build
    from tinygraph.passes.pipeline import PIPELINE, select

    known = list(dict.fromkeys(p.name for p in PIPELINE))
    if name not in known:
        raise pytest.UsageError(f"there is no pass {name!r}; the passes are {', '.join(known)}")
    build.select = lambda passes, graph=None: tuple(
        p for p in select(passes, graph) if p.name != name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    name = config.getoption("--without-pass")
    for item in items:
        if "passes" in item.path.parent.parts:
            item.add_marker("counts")
        if name is not None and item.get_closest_marker("counts"):
            reason = f"asserts what passes do, and {name!r} is left out"
            item.add_marker(pytest.mark.skip(reason=reason))
