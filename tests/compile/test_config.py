"""Settings: what they take, where they come from, and the number of threads in a plan."""

import copy
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph import config
from tinygraph.compile.close import close
from tinygraph.compile.plan import Planner
from tinygraph.compile.report import Report, Work
from tinygraph.dims import THREADS, Dim, dim
from tinygraph.graph import Graph
from tinygraph.lowering.lower import lower


def in_new_process(**environment):
    program = "import tinygraph; print(tinygraph.config.threads)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          env={**os.environ, **environment}, timeout=60)


def test_threads_in_code_and_for_a_block():
    with config.change(threads=3):
        assert config.threads == 3
        with config.change(threads="5"):
            assert config.threads == 5
        assert config.threads == 3
    before = config.threads
    try:
        config.threads = np.int64(7)
        assert config.threads == 7 and type(config.threads) is int
    finally:
        config.threads = before


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "two", "0", None, True, [2]])
def test_threads_must_be_a_number_of_at_least_one(wrong):
    before = config.threads
    with pytest.raises(ValueError, match="config.threads is .* at least 1"):
        config.threads = wrong
    with pytest.raises(ValueError, match="config.threads is"), config.change(threads=wrong):
        pass
    assert config.threads == before


def test_a_change_that_is_refused_changes_nothing():
    before = config.floatX, config.threads
    with pytest.raises(ValueError), config.change(floatX="float64", threads=0):
        pass
    assert (config.floatX, config.threads) == before


def test_threads_from_the_environment_or_the_machine():
    assert in_new_process(TINYGRAPH_THREADS="3").stdout.strip() == "3"
    assert int(in_new_process(TINYGRAPH_THREADS="").stdout) >= 1
    wrong = in_new_process(TINYGRAPH_THREADS="many").stderr
    assert "the environment variable TINYGRAPH_THREADS is 'many'" in wrong


def test_tf32(monkeypatch):
    assert config.tf32 is False
    with config.change(tf32=True):
        assert config.tf32 is True
    monkeypatch.setenv("TINYGRAPH_TF32", "True")
    assert config.tf32 is True
    monkeypatch.setenv("TINYGRAPH_TF32", "maybe")
    with pytest.raises(ValueError, match="TINYGRAPH_TF32 is 'maybe'; it must be one of False"):
        assert config.tf32
    with pytest.raises(ValueError, match="config.tf32 is 2"):
        config.tf32 = 2


def test_unknown_settings():
    with pytest.raises(AttributeError, match="'thread'.*cache, .*threads"):
        config.thread = 2
    with pytest.raises(AttributeError, match="thread"), config.change(thread=2):
        pass


def test_the_symbol_of_threads_is_one():
    assert copy.deepcopy(THREADS) is THREADS and pickle.loads(pickle.dumps(THREADS)) is THREADS
    d = dim(THREADS) * 8 + 1
    assert all(s is THREADS for s in pickle.loads(pickle.dumps(d)).syms())


def planner(size):
    x = T.dvector("x")
    closed = close(Graph((x,), (x + 1,)), {})
    lowered = lower(closed.graph, "f")
    own = [d for d in lowered.sizes if THREADS not in d.syms()]
    lowered = replace(lowered, sizes=(*own, size))
    return Planner(closed.graph, closed, lowered, 1)


def test_a_plan_holds_for_one_number_of_threads():
    plans, array = planner(dim(THREADS) * 8), np.ones(3)
    assert plans.threads_matter
    with config.change(threads=2):
        two = plans([array])
        assert two.sizes[-1] == 16 and plans([array]) is two
    with config.change(threads=3):
        assert plans([array]).sizes[-1] == 24
    with config.change(threads=2):
        assert plans([array]) is two


def test_most_plans_hold_for_any_number_of_threads():
    plans, array = planner(dim(8)), np.ones(3)
    with config.change(threads=2):
        two = plans([array])
    with config.change(threads=3):
        assert plans([array]) is two


def test_changing_threads_compiles_nothing():
    x = T.dmatrix("x")
    f = tinygraph.function([x], T.tanh(x).sum(), backend="llvm")
    for threads in (1, 2, 3):
        with config.change(threads=threads):
            np.testing.assert_allclose(f(np.ones((4, 5))), 20 * np.tanh(1.0))
    assert f.compiles == 1


def test_workspace_of_a_report_knows_the_threads():
    arena: Dim = dim(THREADS) * 64
    report = Report("f", [], Work(), 1, {}, [], False, arena)
    with config.change(threads=4):
        assert report.workspace_bytes() == 256 and report.workspace_bytes(threads=1) == 64
