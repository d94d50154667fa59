"""Stamp reads a clock and adds up the time of what stands between two of a slot."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tinygraph.dtypes import float32, int64
from tinygraph.loops import interpret
from tinygraph.loops.build import Builder, const, index
from tinygraph.loops.check import MalformedProgram, check_program
from tinygraph.loops.language import STAMP_NUMBERS, Buffer, Program, Stamp, buffers
from tinygraph.loops.printing import format_program

X = Buffer("x", float32, index(8), "arg")
TICKS = Buffer("ticks", int64, index(2 * STAMP_NUMBERS), "arg")


def program(ticks=TICKS):
    """Eight stores, timed one by one (slot 1) and together (slot 0)."""
    b = Builder()
    b.emit(Stamp(ticks, 0, True))
    with b.loop(index(8)) as i:
        b.emit(Stamp(ticks, 1, True))
        b.store(X, i, const(1.0, float32))
        b.emit(Stamp(ticks, 1, False))
    b.emit(Stamp(ticks, 0, False))
    return Program("timed", (), (X, ticks), (), index(0), b.block())


def test_times_are_added_up():
    x, ticks = np.zeros(8, np.float32), np.zeros(2 * STAMP_NUMBERS, np.int64)
    before = time.perf_counter_ns()
    for _ in range(3):
        assert interpret.run(program(), [], [x, ticks]) == 0
    took = time.perf_counter_ns() - before
    assert x.sum() == 8
    (begun, whole, times), (_, inner, rounds) = ticks.reshape(2, STAMP_NUMBERS)
    assert before <= begun <= before + took
    assert (times, rounds) == (3, 24) and 0 < inner <= whole <= took


def test_text_and_buffers():
    assert "clock begins 1" in format_program(program())
    assert "clock" not in format_program(program(), notes=False)
    assert buffers(Stamp(TICKS, 0, True)) == (TICKS,)
    check_program(program())


@pytest.mark.parametrize(("ticks", "words"), [
    (Buffer("ticks", float32, index(6), "arg"), "int64"),
    (Buffer("ticks", int64, index(6), "arg", False), "read-only")])
def test_what_is_refused(ticks, words):
    with pytest.raises(MalformedProgram, match=words):
        check_program(program(ticks))
