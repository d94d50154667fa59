"""Call: Python functions in a loop program, interpreted and native."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinygraph.backends.llvm import jit
from tinygraph.backends.runners import NativeRunner
from tinygraph.dtypes import bool_, float32, float64
from tinygraph.loops.build import Builder, const, index
from tinygraph.loops.check import MalformedProgram, check_program
from tinygraph.loops.interpret import OutOfBounds, run
from tinygraph.loops.language import (
    Binary,
    Buffer,
    Call,
    DimOf,
    Load,
    Program,
    Strided,
    expressions,
)
from tinygraph.loops.printing import format_stmt

N = DimOf("n")
X = Buffer("x", float64, index(12), "arg", False)
Y = Buffer("y", float64, index(12), "arg")
FLAGS = Buffer("flags", bool_, index(4), "arg", False)
ZERO = index(0)


class Plan:
    """The part of a plan that a native runner reads."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = np.array(sizes or [0], np.int64)
        self.sizes_address = self.sizes.ctypes.data
        self.arena_bytes = 0


def both(program: Program, *arrays: np.ndarray) -> list[list[np.ndarray]]:
    """The arrays after a run by the interpreter, and after one by native code."""
    first, second = [a.copy() for a in arrays], [a.copy() for a in arrays]
    assert run(program, [3], first) == 0
    native = NativeRunner(jit.compile_program(program), len(arrays), len(arrays), program)
    assert native(Plan(3), second, [], []) is None
    return [first, second]


def program(call: Call, *args: Buffer) -> Program:
    b = Builder()
    b.emit(call)
    return Program("p", ("n",), args, (), ZERO, b.block())


def strided(buffer: Buffer, offset: int, sizes: tuple, strides: tuple) -> Strided:
    sizes = tuple(index(s) if isinstance(s, int) else s for s in sizes)
    return Strided(buffer, index(offset), sizes, tuple(map(index, strides)))


def copy(inputs, outputs) -> None:
    outputs[0][...] = inputs[0]


@pytest.mark.parametrize(("sizes", "offset", "strides", "take"), [
    ((N, 4), 0, (4, 1), lambda x: x.reshape(3, 4)),
    ((N, 4), 8, (-4, 1), lambda x: x.reshape(3, 4)[::-1]),
    ((4, N), 0, (1, 4), lambda x: x.reshape(3, 4).T),
    ((N, 4), 5, (0, 0), lambda x: np.full((3, 4), x[5])),
    ((N, 2, 2), 0, (4, 2, 1), lambda x: x.reshape(3, 2, 2)),
    ((), 7, (), lambda x: x[7]),
    ((0, N), 12, (1, 1), lambda x: np.zeros((0, 3))),
])
def test_strides_offsets_and_sizes(sizes: tuple, offset: int, strides: tuple, take: Callable
                                   ) -> None:
    seen = []

    def note(inputs, outputs) -> None:
        seen.append(inputs[0].copy())
        copy(inputs, outputs)

    dense = strided(Y, 0, sizes, {0: (), 2: (4, 1), 3: (4, 2, 1)}[len(sizes)])
    if sizes == (4, N):
        dense = strided(Y, 0, sizes, (3, 1))
    call = Call("note", note, (strided(X, offset, sizes, strides),), (dense,))
    x, y = np.arange(12.0), np.full(12, -1.0)
    for after in both(program(call, X, Y), x, y):
        want = take(x)
        got = seen.pop(0)
        np.testing.assert_array_equal(got, want)
        assert got.shape == want.shape
        np.testing.assert_array_equal(after[1][:want.size], want.ravel())
        assert (after[1][want.size:] == -1).all()


def test_in_a_loop_with_other_dtypes_and_what_is_computed_around_it() -> None:
    b = Builder()
    with b.loop(N) as i:
        at = Strided(Y, i, (), ())
        b.emit(Call("count", lambda inputs, outputs: outputs[0].__setitem__(
            (), inputs[0].sum() + inputs[1]), (strided(FLAGS, 0, (4,), (1,)), at), (at,)))
        b.store(Y, i, Binary("mul", Load(Y, i), const(10.0, float64)))
    p = Program("p", ("n",), (FLAGS, Y), (), ZERO, b.block())
    flags = np.array([True, False, True, True])
    for _, y in both(p, flags, np.arange(12.0)):
        np.testing.assert_array_equal(y[:4], [30, 40, 50, 3])


def test_an_exception_leaves_the_program() -> None:
    def refuse(inputs, outputs) -> None:
        raise LookupError("no")

    b = Builder()
    b.store(Y, ZERO, const(5.0, float64))
    b.emit(Call("refuse", refuse, (), ()))
    b.store(Y, index(1), const(5.0, float64))
    p = Program("p", (), (Y,), (), ZERO, b.block())
    y, z = np.zeros(12), np.zeros(12)
    with pytest.raises(LookupError, match="no"):
        run(p, [], [y])
    native = NativeRunner(jit.compile_program(p), 1, 1, p)
    for _ in range(2):
        with pytest.raises(LookupError, match="no"):
            native(Plan(), [z], [], [])
    assert y[:2].tolist() == z[:2].tolist() == [5, 0]


def test_the_interpreter_sees_what_lies_outside() -> None:
    call = Call("copy", copy, (strided(X, 4, (3, 4), (4, 1)),), (strided(Y, 0, (3, 4), (4, 1)),))
    with pytest.raises(OutOfBounds, match="index 15 is outside buffer x of 12"):
        run(program(call, X, Y), [3], [np.zeros(12), np.zeros(12)])


def test_how_it_is_printed() -> None:
    call = Call("copy", copy, (strided(X, 8, (N, 4), (-4, 1)),), (strided(Y, 0, (), ()),))
    assert format_stmt(call) == "y[0] = call 'copy' of x[8; sizes $n, 4; strides -4, 1]"
    assert N in expressions(call)


@pytest.mark.parametrize(("fact", "inputs", "outputs"), [
    ("x is read-only", (), (strided(X, 0, (), ()),)),
    ("buffer q is no argument", (strided(Buffer("q", float32, N), 0, (), ()),), ()),
    ("has 1 sizes and 0 strides", (Strided(X, ZERO, (N,), ()),), ()),
    ("of an array in x is float32", (Strided(X, const(1, float32), (), ()),), ()),
])
def test_malformed_calls_are_refused(fact: str, inputs: tuple, outputs: tuple) -> None:
    with pytest.raises(MalformedProgram, match=fact):
        check_program(program(Call("copy", copy, inputs, outputs), X, Y))


def test_none_stands_in_a_parallel_loop() -> None:
    b = Builder()
    with b.loop(N, "parallel"):
        b.emit(Call("copy", copy, (), ()))
    with pytest.raises(MalformedProgram, match="a Call stands in a parallel loop"):
        check_program(Program("p", ("n",), (), (), ZERO, b.block()))
