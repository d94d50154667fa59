"""Programs that are wrong are refused in the user's words, at the user's line, and the mended
program runs."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import wrong_building
import wrong_calling
import wrong_gradients
import wrong_layers
import wrong_scans

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn
import tinygraph_rnn.init
import tinygraph_rnn.layers
import tinygraph_rnn.updates
from tinygraph import config

MODULES = (wrong_building, wrong_calling, wrong_scans, wrong_gradients, wrong_layers)
ROWS = [row for module in MODULES for row in module.ROWS]
FILE = "user.py"


@pytest.fixture(autouse=True)
def settings():
    with config.change(floatX="float32", cache="off"):
        yield


def run(text):
    """The program, as if it stood in a file of the user's."""
    names = {"np": np, "tinygraph": tinygraph, "T": T, "shared": tinygraph.shared,
             "scan": tinygraph.scan, "function": tinygraph.function, "grad": tinygraph.grad,
             "tinygraph_rnn": tinygraph_rnn, "layers": tinygraph_rnn.layers}
    exec(compile(text, FILE, "exec"), names)


def error_class(name):
    return getattr(tinygraph.errors, name, None) or getattr(builtins, name)


def test_there_are_many_and_each_has_its_name():
    names = [row.name for row in ROWS]
    assert len(names) >= 120 and len(set(names)) == len(names)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_refused(row):
    with pytest.raises(error_class(row.error)) as caught:
        run(row.text)
    message = str(caught.value)
    lines = [k for k, line in enumerate(row.text.splitlines(), 1) if line.endswith("#!")]
    missing = [phrase for phrase in (*row.says, *(f"{FILE}:{k}" for k in lines))
               if phrase not in message]
    assert not missing, f"{message!r} lacks {missing}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_mended(row):
    assert row.mend[0] in row.text
    run(row.text.replace(*row.mend))


@pytest.mark.parametrize("backend", ["numpy", "loops"])
@pytest.mark.parametrize("row", [r for r in wrong_calling.ROWS if r.text.rstrip().endswith(")")
                                 and "\nf(" in r.text], ids=lambda row: row.name)
def test_other_back_ends_refuse_the_same(row, backend):
    with config.change(backend=backend), pytest.raises(error_class(row.error)):
        run(row.text)
