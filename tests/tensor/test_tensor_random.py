"""Random streams: the generator's published numbers, the same bits everywhere, distributions,
states and updates.  Draws inside of scan: tests/scan/test_scan_random.py."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy import stats

import tinygraph
import tinygraph.tensor as T
from tinygraph import function, grad
from tinygraph.ops.arithmetic import elementwise
from tinygraph.ops.philox import philox
from tinygraph.sandbox.rng_mrg import MRG_RandomStreams
from tinygraph.tensor.shared_randomstreams import RandomStreams

BACKENDS = ("numpy", "loops", "llvm")
# Of the authors' test vectors (Random123, kat_vectors, philox4x32 10): counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.fixture(autouse=True)
def no_cache():
    with tinygraph.config.change(cache="off"):
        yield


def int64s(words: str) -> list[np.ndarray]:
    """Words of 32 bits, low ones first, as int64."""
    return list(np.array([int(w, 16) for w in words.split()], np.uint32).view(np.int64))


def words(*halves: np.ndarray) -> str:
    return " ".join(f"{w:08x}" for x in halves for w in np.asarray(x).reshape(1).view(np.uint32))


def draws(variable, count=1, **options):
    f = function([], variable, **options)
    return [f() for _ in range(count)]


# --- the generator


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("counter,key,result", KNOWN)
def test_the_published_numbers(counter, key, result, backend):
    (index, draw), (k,) = int64s(counter), int64s(key)
    assert words(*philox(index, draw, k)) == result
    i, d, v = T.lvector("i"), T.lscalar("d"), T.lscalar("k")
    f = function([i, d, v], [elementwise(f"philox_{half}", i, d, v) for half in ("low", "high")],
                 backend=backend)
    assert words(*f(index[None], draw, k)) == result


@pytest.mark.parametrize("backend", ["loops", "llvm"])
def test_any_counter_and_key_has_the_same_bits(backend):
    rng = np.random.default_rng(0)
    ends = np.array([0, 1, -1, 2**31, 2**32 - 1, 2**32, -2**63, 2**63 - 1])
    arrays = [np.concatenate([rng.permutation(ends), rng.integers(-2**63, 2**63, 40)])
              for _ in range(3)]
    i, d, k = T.lvector("i"), T.lvector("d"), T.lvector("k")
    f = function([i, d, k], [elementwise(f"philox_{half}", i, d, k) for half in ("low", "high")],
                 backend=backend)
    np.testing.assert_array_equal(f(*arrays), philox(*arrays))


# --- the same bits everywhere


def several(n, x, p):
    """A draw of every kind; of those whose name ends in '~' the last bit may differ."""
    s = RandomStreams(7)
    return {
        "uniform": s.uniform((n, 3)), "uniform64": s.uniform((5, n), dtype="float64"),
        "bounded": s.uniform((n, 2), low=-1.0, high=3.0), "by parameters": s.uniform(low=x - 1),
        "normal": s.normal((n, n)), "normal64~": s.normal((n,), dtype="float64"),
        "moved": s.normal(avg=x, std=0.1), "truncated": s.truncated_normal((n,), std=2.0),
        "coins": s.binomial((n,), p=0.3), "binomial": s.binomial((n, 4), n=10, p=0.3),
        "symbolic n": s.binomial(x.shape, n=n, p=x), "many n": s.binomial(n=[0, 1, 20], p=0.5),
        "integers": s.random_integers((n,), low=-3, high=5),
        "multinomial": s.multinomial(pvals=p), "five": s.multinomial((2, 2), 5, [0.2, 0.3, 0.5]),
        "poisson": s.poisson((n,), lam=3.5), "poissons": s.poisson(lam=x * 4),
        "permutation": s.permutation(n=n), "permutations": s.permutation((2,), n=5),
        "choice": s.choice((n,), a=[5.0, 6.0, 7.0]), "weighted": s.choice((n,), 3, p=[0.1, 0, 0.9]),
        "without": s.choice((4,), 6, replace=False),
        "weighted without": s.choice((2, 2), 5, replace=False, p=[0.1, 0.2, 0.3, 0.4, 0]),
        "shuffled": s.shuffle_row_elements(x), "scalar": s.uniform(()), "none": s.normal(),
        "empty": s.uniform((0, 3)),
    }


@pytest.fixture(scope="module")
def reference():
    return calls("numpy")


def calls(backend):
    n, x, p = T.iscalar("n"), T.fmatrix("x"), T.fmatrix("p")
    f = function([n, x, p], several(n, x, p), backend=backend)
    arrays = (6, np.linspace(0.1, 0.9, 12, dtype="f").reshape(3, 4),
              np.array([[0.1, 0.2, 0.7], [0, 1, 0]], "f"))
    return [f(*arrays) for _ in range(2)]


@pytest.mark.parametrize("backend", ["loops", "llvm"])
def test_every_back_end_draws_the_same_bits(reference, backend):
    for got, want in zip(calls(backend), reference, strict=True):
        for name, a in want.items():
            b = got[name]
            assert a.dtype == b.dtype and a.shape == b.shape, name
            if name.endswith("~"):
                np.testing.assert_allclose(b, a, rtol=0, atol=2e-15, err_msg=name)
            else:
                np.testing.assert_array_equal(b, a, err_msg=name)


def test_results_have_the_shapes_and_dtypes_that_are_asked_for(reference):
    first, second = reference
    shapes = {name: a.shape for name, a in first.items()}
    assert shapes["multinomial"] == (2, 3) and shapes["five"] == (2, 2, 3)
    assert shapes["permutations"] == (2, 5) and shapes["empty"] == (0, 3)
    assert shapes["scalar"] == () and shapes["symbolic n"] == (3, 4)
    same = {name for name in first if np.array_equal(first[name], second[name])}
    assert same <= {"empty", "weighted", "multinomial"}  # every call draws anew
    np.testing.assert_array_equal(np.sort(first["permutations"], axis=1), [range(5)] * 2)
    np.testing.assert_array_equal(np.sort(first["shuffled"], axis=1),
                                  np.linspace(0.1, 0.9, 12, dtype="f").reshape(3, 4))
    assert len(set(first["without"])) == 4
    assert sorted(first["weighted without"].ravel()) == [0, 1, 2, 3]
    assert set(first["weighted"]) <= {0, 2} and (first["multinomial"][1] == [0, 1, 0]).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(threads):
    n = T.lscalar("n")
    s = RandomStreams(11)
    f = function([n], [s.uniform((n, 7)), s.normal((n,)), s.binomial((n, 3)).sum(axis=0)])
    with tinygraph.config.change(threads=threads):
        u, z, total = f(60_001)
    i = np.arange(60_001 * 7)
    key = s.states[0].get_value()[0]
    low, _ = philox(i, 0, key)
    np.testing.assert_array_equal(u.ravel(), (low >> 40 & (1 << 24) - 1).astype("f") / 2**24)
    g = function([n], s.normal((n,)))
    s.seed()
    np.testing.assert_array_equal(f(60_001)[1], z)
    assert g(60_001).shape == z.shape and (total > 29_000).all()


# --- states


def test_a_seed_and_an_order_of_calls_give_the_numbers():
    def numbers(streams):
        return [draws(streams.uniform((4,)), 2), draws(streams.uniform((4,)), 2)]

    a, b = numbers(RandomStreams(3)), numbers(RandomStreams(np.int64(3)))
    np.testing.assert_array_equal(a, b)
    assert len({x.tobytes() for pair in a for x in pair}) == 4
    c, d = numbers(RandomStreams(4)), numbers(RandomStreams([3, 4]))
    e, f = numbers(RandomStreams()), numbers(RandomStreams())
    kinds = [np.asarray(x).tobytes() for x in (a, c, d, e, f)]
    assert len(set(kinds)) == 5
    np.testing.assert_array_equal(numbers(MRG_RandomStreams(3)), a)


def test_one_variable_is_one_draw_and_calls_advance():
    s = RandomStreams(5)
    u = s.uniform((3,))
    f = function([], [u, u + 1, (u * u).sum()])
    a, b, c = f()
    np.testing.assert_array_equal(a + np.float32(1), b)
    np.testing.assert_allclose((a * a).sum(), c, rtol=1e-6)
    assert not np.array_equal(f()[0], a)
    np.testing.assert_array_equal(u.rng.get_value()[1], 2)
    state, new = u.update
    assert state is u.rng and s.updates() == [(state, new)] == s.state_updates


def test_functions_share_the_state_of_a_variable():
    s = RandomStreams(5)
    u = s.uniform((3,))
    f, g, still = function([], u), function([], u * 2), function([], u, no_default_updates=True)
    want = draws(RandomStreams(5).uniform((3,)), 4)
    np.testing.assert_array_equal(f(), want[0])
    np.testing.assert_array_equal(still(), want[1])
    np.testing.assert_array_equal(still(), want[1])
    np.testing.assert_array_equal(g(), 2 * want[1])
    np.testing.assert_array_equal(f(), want[2])
    np.testing.assert_array_equal(function([], u, no_default_updates=[u.rng])(), want[3])
    explicit = function([], u, updates=s.updates(), no_default_updates=True)
    np.testing.assert_array_equal(explicit(), want[3])
    assert not np.array_equal(explicit(), want[3])


def test_states_can_be_read_set_and_seeded_again():
    s = RandomStreams(8)
    u, v = s.uniform((2,)), s.normal((2,))
    f = function([], [u, v])
    first, kept = f(), u.rng.get_value()
    second = f()
    u.rng.set_value(kept)
    np.testing.assert_array_equal(f()[0], second[0])
    s.seed()
    np.testing.assert_array_equal(f(), first)
    s.seed(9)
    other = f()
    t = RandomStreams(9)
    np.testing.assert_array_equal(function([], [t.uniform((2,)), t.normal((2,))])(), other)
    with pytest.raises(TypeError, match="random state.*axis 0 must have size 2"):
        u.rng.set_value(np.zeros(3, np.int64))


def test_streams_can_be_pickled():
    s = RandomStreams(8)
    u = s.uniform((2,))
    function([], u)()
    twin = pickle.loads(pickle.dumps((s, u)))
    np.testing.assert_array_equal(draws(twin[1])[0], draws(u)[0])
    np.testing.assert_array_equal(draws(twin[0].uniform((3,)))[0], draws(s.uniform((3,)))[0])


# --- dtypes and sizes


@pytest.mark.parametrize("float_x", ["float32", "float64"])
def test_dtypes(float_x):
    with tinygraph.config.change(floatX=float_x):
        s = RandomStreams(1)
        assert s.uniform((2,)).dtype == s.normal((2,)).dtype == float_x
        assert s.uniform((2,), dtype="float32").dtype == "float32"
        assert s.normal((2,), avg=T.dscalar(), dtype=None).dtype == "float64"
        assert s.uniform((2,), low=T.fscalar()).dtype == float_x
        whole = (s.binomial((2,)), s.random_integers((2,)), s.multinomial(pvals=[0.5, 0.5]),
                 s.poisson((2,)), s.permutation(n=3), s.choice((2,)))
        assert {v.dtype for v in whole} == {"int64"}
        assert s.binomial((2,), dtype=float_x).dtype == float_x
        assert s.choice((2,), np.array([1, 2], "int8")).dtype == "int8"
        mrg = MRG_RandomStreams()
        assert mrg.uniform((2,)).dtype == mrg.normal((2,), truncate=True).dtype == float_x
        assert mrg.binomial((2,), dtype="int8", nstreams=3).dtype == "int8"


def test_sizes():
    n, v, x = T.lscalar("n"), T.lvector("v"), T.matrix("x")
    s = RandomStreams(1)
    assert s.uniform((1, n, 3)).broadcastable == (True, False, False)
    assert s.uniform(4).type.dims == s.uniform((np.int64(4),)).type.dims
    assert s.uniform(v, ndim=2).ndim == 2
    outputs = [s.uniform((2, n, 3)), s.uniform(x.shape), s.uniform((x.shape[0] * 2,)),
               s.uniform(v, ndim=2), s.uniform(n), s.normal(avg=x), s.uniform(x.shape, low=x[0])]
    for backend in BACKENDS:
        f = function([n, v, x], outputs, backend=backend)
        for k, shape in ((4, (2, 3)), (0, (1, 5))):
            got = f(k, shape, np.zeros(shape, "f"))
            assert [a.shape for a in got] == [(2, k, 3), shape, (2 * shape[0],), shape, (k,),
                                              shape, shape]
        empty = function([n], [s.uniform((n, 2)), s.normal((n,)), s.permutation(n=n)],
                         backend=backend)(0)
        assert [a.shape for a in empty] == [(0, 2), (0,), (0,)]


def test_what_makes_no_sense_is_refused():
    s = RandomStreams(1)
    v = T.lvector("v")
    with pytest.raises(TypeError, match=r"uniform: size is \(2, 2.5\).*integer"):
        s.uniform((2, 2.5))
    with pytest.raises(ValueError, match=r"normal: size is \(2, -1\).*negative"):
        s.normal((2, -1))
    with pytest.raises(ValueError, match="pass ndim="):
        s.uniform(v)
    with pytest.raises(ValueError, match="uniform: ndim is 3, but size .* has 2 entries"):
        s.uniform((2, 2), ndim=3)
    with pytest.raises(ValueError, match="x .* has 2 axes, but size .* 1 entries"):
        s.normal((2,), avg=T.matrix("x"))
    with pytest.raises(TypeError, match="uniform: dtype is 'int64'"):
        s.uniform((2,), dtype="int64")
    with pytest.raises(TypeError, match="complex"):
        s.normal((2,), dtype="complex64")
    with pytest.raises(TypeError, match="binomial: n is 0.5"):
        s.binomial((2,), n=0.5)
    with pytest.raises(ValueError, match="low is 3 and high is 2"):
        s.random_integers((2,), low=3, high=2)
    with pytest.raises(TypeError, match="multinomial: the probabilities are missing"):
        MRG_RandomStreams().multinomial((2,))
    with pytest.raises(ValueError, match="7 elements are asked for, but there are only 6"):
        s.choice((7,), 6, replace=False)
    for seed in (-1, 1.5, "one", [1, -2]):
        with pytest.raises(ValueError, match="the seed is .* integer of at least 0"):
            RandomStreams(seed)


# --- distributions, on big samples of fixed seeds

N = 200_000


def sample(method, *args, streams=RandomStreams, **kwargs):
    return draws(getattr(streams(2024), method)((N,), *args, **kwargs))[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniform(dtype):
    u = sample("uniform", dtype=dtype)
    assert u.min() >= 0 and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    digits = 24 if dtype == "float32" else 53
    whole = u.astype("float64") * 2.0**digits
    assert (whole == np.floor(whole)).all() and (whole % 2 == 1).mean() > 0.49
    v = sample("uniform", -2.0, 6.0, dtype=dtype)
    assert stats.kstest(v, stats.uniform(-2, 8).cdf).pvalue > 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal(dtype):
    z = sample("normal", dtype=dtype)
    assert stats.kstest(z, "norm").pvalue > 0.01
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01 and abs((z**4).mean() - 3) < 0.1
    assert np.abs(z).max() > 4
    w = sample("normal", 3.0, 0.5, dtype=dtype)
    assert stats.kstest(w, stats.norm(3, 0.5).cdf).pvalue > 0.01
    t = sample("truncated_normal", 1.0, 2.0, dtype=dtype)
    assert stats.kstest(t, stats.truncnorm(-2, 2, 1, 2).cdf).pvalue > 0.01


def agree(counts, expected):
    """Do observed counts fit expected ones (chi-square, classes of at least 5)?"""
    large = expected >= 5
    observed = np.append(counts[large], counts[~large].sum())
    wanted = np.append(expected[large], counts.sum() - expected[large].sum())
    if wanted[-1] < 5:
        observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
    return stats.chisquare(observed, wanted).pvalue > 0.01


@pytest.mark.parametrize("n,p", [(1, 0.3), (10, 0.3), (25, 0.9)])
def test_binomial(n, p):
    x = sample("binomial", n, p)
    k = np.arange(n + 1)
    assert agree(np.bincount(x, minlength=n + 1), N * stats.binom(n, p).pmf(k))


@pytest.mark.parametrize("lam", [0.0, 0.4, 3.5, 40.0])
def test_poisson(lam):
    x = sample("poisson", lam)
    k = np.arange(x.max() + 20)
    assert agree(np.bincount(x, minlength=len(k)), N * stats.poisson(lam).pmf(k)) or lam == 0
    assert lam or (x == 0).all()


def test_discrete():
    x = sample("random_integers", -3, 5)
    assert agree(np.bincount(x + 3, minlength=9), np.full(9, N / 9))
    wide = sample("random_integers", 0, 2**40)
    assert stats.kstest(wide / 2**40, "uniform").pvalue > 0.01 and (wide % 2).mean() > 0.49
    p = np.array([0.1, 0.2, 0.0, 0.7])
    m = sample("multinomial", 1, p)
    assert (m.sum(axis=1) == 1).all() and agree(m.sum(axis=0), N * p)
    c = sample("choice", 4, True, p)
    assert agree(np.bincount(c, minlength=4), N * p)
    rows = draws(MRG_RandomStreams(1).choice(N, p=np.array([p, p[::-1]])))[0]
    assert agree(np.bincount(rows[1], minlength=4), N * p[::-1])


def test_order():
    perms = draws(RandomStreams(6).permutation((N // 4,), n=4))[0]
    numbers = perms @ np.array([64, 16, 4, 1])
    assert agree(np.unique(numbers, return_counts=True)[1], np.full(24, N / 4 / 24))
    p = [0.5, 0.3, 0.2]
    pairs = draws(MRG_RandomStreams(6).choice(2, p=np.tile(p, (N // 4, 1)), replace=False))[0]
    expected = [p[a] * p[b] / (1 - p[a]) for a in range(3) for b in range(3) if a != b]
    counts = np.unique(pairs @ [3, 1], return_counts=True)[1]
    assert agree(counts, N / 4 * np.array(expected))


def test_elements_calls_and_variables_are_not_correlated():
    s = RandomStreams(0)
    f = function([], [s.uniform((20_000,), dtype="float64") for _ in range(3)])
    series = np.array([*f(), *f()])
    lags = [np.roll(series[0], k) for k in (1, 2, 4, 64)]
    matrix = np.corrcoef(np.vstack([series, lags]))
    assert np.abs(matrix - np.eye(len(matrix))).max() < 0.03


# --- gradients


def test_gradients_reach_parameters_of_continuous_draws():
    a, b = T.dvector("a"), T.dvector("b")
    s = RandomStreams(4)
    u = s.uniform(low=a, high=b)
    z = s.normal((3,), avg=a, std=b)
    cost = (u ** 2).sum() + (z ** 3).sum()
    f = function([a, b], [u, z, *grad(cost, [a, b])], no_default_updates=True)
    low, high = np.array([0.5, 1.0, -1.0]), np.array([2.0, 1.5, 0.3])
    uv, zv, ga, gb = f(low, high)
    t, eps = (uv - low) / (high - low), (zv - low) / high
    np.testing.assert_allclose(ga, 2 * uv * (1 - t) + 3 * zv**2, rtol=1e-10)
    np.testing.assert_allclose(gb, 2 * uv * t + 3 * zv**2 * eps, rtol=1e-10)


def test_no_gradient_through_discrete_draws():
    p = T.dvector("p")
    s = RandomStreams(4)
    coins = s.binomial(p=p, dtype="float64")
    g = function([p], grad((coins * p).sum(), p), no_default_updates=True)
    x = np.array([0.2, 0.5, 0.9])
    np.testing.assert_array_equal(g(x), function([p], coins, no_default_updates=True)(x))
