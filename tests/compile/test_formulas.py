"""Sizes as a list of steps: the same numbers as each Dim evaluated by itself, every part once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygraph.dims import Sym, dim, floordiv, maximum, minimum
from tinygraph.formulas import Formulas

SYMBOLS = [Sym(name) for name in "abc"]


def combined(dims):
    pair = st.tuples(dims, dims)
    functions = [lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, floordiv, minimum,
                 maximum]
    return st.tuples(st.sampled_from(functions), pair).map(lambda fp: fp[0](*fp[1]))


DIMS = st.recursive(st.integers(-3, 9).map(dim) | st.sampled_from(SYMBOLS).map(dim), combined,
                    max_leaves=8)


@given(st.lists(DIMS, max_size=6), st.lists(st.integers(0, 50), min_size=3, max_size=3))
def test_values_are_those_of_each_dim(dims, numbers):
    env = dict(zip(SYMBOLS, numbers, strict=True))
    assert Formulas(dims)(env) == [d.evaluate(env) for d in dims]


def test_nested_parts_are_worked_out_once():
    a, b, _ = map(dim, SYMBOLS)
    d, dims = a, []
    for k in range(60):  # by itself, each would be worked out in 2**k steps
        d = floordiv(d + b, dim(2 + k % 3)) + floordiv(d, dim(5))
        dims.append(d)
    formulas = Formulas(dims)
    assert len(formulas(dict.fromkeys(SYMBOLS, 7))) == 60
    assert formulas.steps <= 5 * 60


def test_a_symbol_without_a_value_is_an_error():
    with pytest.raises(KeyError):
        Formulas([dim(SYMBOLS[0]) + 1])({})
