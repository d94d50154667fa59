"""What is laid out for a late size is enough for every value that it may take."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tinygraph.dims import Sym, at_most, dim, floordiv, is_late, maximum, minimum

EARLY = [Sym(name) for name in "ab"]
LATE = [Sym("s", bound=dim(EARLY[0])), Sym("t", bound=dim(EARLY[0]) * dim(EARLY[1]) + 1)]


def combined(dims):
    pair = st.tuples(dims, dims)
    functions = [lambda x, y: x + y, lambda x, y: maximum(x - y, dim(0)), lambda x, y: x * y,
                 floordiv, minimum, maximum]
    return st.tuples(st.sampled_from(functions), pair).map(lambda fp: fp[0](*fp[1]))


DIMS = st.recursive(
    st.integers(0, 20).map(dim) | st.sampled_from([*EARLY, *LATE]).map(dim), combined, max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(DIMS, st.integers(0, 6), st.integers(0, 6), st.data())
def test_a_bound_is_never_exceeded(d, a, b, data):
    env = dict(zip(EARLY, (a, b), strict=True))
    bound = at_most(d)
    assert not is_late(bound)
    most = bound.evaluate(env)
    for s in LATE:
        env[s] = data.draw(st.integers(0, s.bound.evaluate(env)))
    assert 0 <= d.evaluate(env) <= most


def test_a_size_that_is_known_is_its_own_bound():
    d = floordiv(dim(EARLY[0]) * 3, dim(EARLY[1])) + 2
    assert at_most(d) is d
