"""docs/coming-from-theano.md and the tests of this folder name the same points; its programs
print what is shown; the names in its tables exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path

import pytest

from tinygraph import config
from tinygraph.config import Config, Count, Setting

HERE = Path(__file__).parent
TEXT = (HERE.parents[1] / "docs/coming-from-theano.md").read_text(encoding="utf-8")
POINTS = dict(re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^#)", TEXT, re.MULTILINE | re.DOTALL))
NAMES = sorted(set(re.findall(r"`(tinygraph(?:\.\w+)*)`", TEXT)))


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_points_are_numbered_in_order():
    assert [int(k) for k in POINTS] == list(range(1, 79))


def test_every_point_has_a_test():
    tests = "".join(p.read_text(encoding="utf-8") for p in HERE.glob("test_semantics_*.py"))
    tested = set(map(int, re.findall(r"^def test_(\d\d)_", tests, re.MULTILINE)))
    assert tested == set(map(int, POINTS))


def test_the_table_of_differences_has_those_that_the_points_tell():
    rows = re.findall(r"^\| ([\d, ]+) \|", section("Differences"), re.MULTILINE)
    listed = {int(k) for row in rows for k in row.split(",")}
    assert {int(k) for k, text in POINTS.items() if "**Differs**" in text} == listed


def test_the_programs_print_what_is_shown(monkeypatch):
    monkeypatch.setattr(Config.floatX, "process_value", None)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    programs = [text for language, text in blocks if language == "python"]
    shown = [text for language, text in blocks if not language]
    names: dict = {}
    for program, expected in zip(programs, shown, strict=True):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), config.change(cache="off"):
            exec(compile(program, "coming-from-theano.py", "exec"), names)
        assert out.getvalue() == expected


def test_every_setting_is_in_the_table():
    table = section("Settings")
    for name, value in vars(Config).items():
        if isinstance(value, (Setting, Count)):
            assert f"`{name}`" in table
    for name, default in re.findall(r"^\| `(\w+)` \| '(\w+)'", table, re.MULTILINE):
        assert getattr(Config, name).default == default


def exists(name: str) -> bool:
    """Is there such a module, or something in one?"""
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            value = importlib.import_module(".".join(parts[:k]))
            if all(value := getattr(value, part, None) for part in parts[k:]):
                return True
    return False


def test_what_does_not_exist_does_not():
    rows = section("Names").split("does not exist, and what to write instead")[1]
    first = " ".join(re.findall(r"^\|([^|]*)\|", rows, re.MULTILINE))
    names = re.findall(r"`((?:T|theano)\.[\w.]+)`", first)
    ours = [re.sub(r"^T\.", "tinygraph.tensor.", re.sub(r"^theano\.", "tinygraph.", name))
            for name in names]
    assert len(ours) > 25 and exists("tinygraph.tensor.nnet.relu")
    assert [name for name in ours if exists(name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_names_exist(name):
    assert exists(name)
