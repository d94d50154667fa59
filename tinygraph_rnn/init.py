"""Initial values of parameters: callables from a shape to an array of floatX.

They draw from ``tinygraph_rnn.random``: ``random.set_rng(seed)`` makes a whole network repeatable,
``initializer.seeded(seed)`` one parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tinygraph_rnn.random import get_rng, set_rng
from tinygraph_rnn.utils import floatX


class Initializer:
    """The base.  To define one, write ``sample(shape)``; calling gives its array as floatX."""

    def __call__(self, shape: Sequence[int]) -> np.ndarray:
        return floatX(self.sample(tuple(shape)))

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of ``shape``."""
        raise NotImplementedError(f"{type(self).__name__}.sample")

    def seeded(self, seed: int) -> Initializer:
        """This initialiser with random numbers of its own: the first array that it gives depends
        on ``seed`` and the shape alone, the next ones go on from there."""
        return _Seeded(self, seed)


class _Seeded(Initializer):
    """An initialiser that draws from its own generator."""

    def __init__(self, initializer: Initializer, seed: int) -> None:
        self.initializer, self.rng = initializer, np.random.RandomState(seed)

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        others = get_rng()
        set_rng(self.rng)
        try:
            return self.initializer.sample(shape)
        finally:
            set_rng(others)


class Constant(Initializer):
    """Every element is ``val``."""

    def __init__(self, val: float = 0.0) -> None:
        self.val = val

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        return floatX(np.full(shape, self.val, dtype=float))


class Normal(Initializer):
    """Normally distributed with mean ``mean`` and standard deviation ``std``."""

    def __init__(self, std: float = 0.01, mean: float = 0.0) -> None:
        self.std, self.mean = std, mean

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        return floatX(get_rng().normal(self.mean, self.std, size=shape))


class Uniform(Initializer):
    """Uniform in [mean - range, mean + range] or, for a pair, in [range[0], range[1]].

    With ``std`` the range is the one of that standard deviation, sqrt(3) std about the mean.
    """

    def __init__(self, range: float | Sequence[float] = 0.01, std: float | None = None,
                 mean: float = 0.0) -> None:
        if std is not None:
            range = np.sqrt(3) * std
        if np.shape(range) not in ((), (2,)):
            raise ValueError(f"range is {range!r}; it must be a number or a pair of numbers")
        low, high = range if np.ndim(range) else (mean - range, mean + range)  # type: ignore
        self.range = (low, high)

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        return floatX(get_rng().uniform(*self.range, size=shape))


def _gain(gain: float | str) -> float:
    """``gain`` as a number."""
    if isinstance(gain, str) and gain != "relu":
        raise ValueError(f"gain is {gain!r}; it must be a number or 'relu'")
    return float(np.sqrt(2)) if isinstance(gain, str) else float(gain)


class _Scaled(Initializer):
    """A distribution whose standard deviation depends on the shape.

    initializer: a class, or anything else, that makes an initialiser of ``std=``.
    gain: a factor; 'relu' is sqrt(2).
    The first axis of a matrix counts inputs, the second outputs.  Of more axes the first counts
    outputs and the second inputs, and the rest (the receptive field) counts for both.  c01b: of
    shapes (inputs, rows, columns, outputs).

    ``sample`` raises ValueError for a shape with less than two axes, or with c01b not of four.
    """

    def __init__(self, initializer: Callable[..., Initializer] = Normal, gain: float | str = 1.0,
                 c01b: bool = False) -> None:
        self.initializer, self.gain, self.c01b = initializer, _gain(gain), c01b

    def std(self, fan_in: float, fan_out: float) -> float:
        """The standard deviation, but for the gain."""
        raise NotImplementedError(f"{type(self).__name__}.std")

    def _fans(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """The numbers of inputs of an output, and of outputs of an input."""
        name = type(self).__name__
        if self.c01b:
            if len(shape) != 4:
                raise ValueError(f"{name} with c01b needs a shape of four axes (inputs, rows, "
                                 f"columns, outputs), not {shape}")
            shape = (shape[3], *shape[:3])
        if len(shape) < 2:
            raise ValueError(f"{name} needs a shape of two axes or more, not {shape}: it scales "
                             "by the numbers of inputs and outputs")
        field = float(np.prod(shape[2:]))
        fan_in, fan_out = shape[:2] if len(shape) == 2 else shape[1::-1]
        return fan_in * field, fan_out * field

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.initializer(std=self.gain * self.std(*self._fans(shape))).sample(shape)


class Glorot(_Scaled):
    """Standard deviation gain * sqrt(2 / (inputs + outputs))  (Glorot and Bengio 2010).

    initializer, gain, c01b, and how inputs and outputs are counted: see docs/rnn/init.md.
    """

    def std(self, fan_in: float, fan_out: float) -> float:
        """sqrt(2 / (inputs + outputs))."""
        return float(np.sqrt(2 / (fan_in + fan_out)))


class GlorotNormal(Glorot):
    """``Glorot`` of a normal distribution."""

    def __init__(self, gain: float | str = 1.0, c01b: bool = False) -> None:
        super().__init__(Normal, gain, c01b)


class GlorotUniform(Glorot):
    """``Glorot`` of a uniform distribution."""

    def __init__(self, gain: float | str = 1.0, c01b: bool = False) -> None:
        super().__init__(Uniform, gain, c01b)


class He(_Scaled):
    """Standard deviation gain * sqrt(1 / inputs)  (He et al. 2015; their rectifiers have gain
    sqrt(2), which 'relu' stands for).  Arguments as those of ``Glorot``."""

    def std(self, fan_in: float, fan_out: float) -> float:
        """sqrt(1 / inputs)."""
        return float(np.sqrt(1 / fan_in))


class HeNormal(He):
    """``He`` of a normal distribution."""

    def __init__(self, gain: float | str = 1.0, c01b: bool = False) -> None:
        super().__init__(Normal, gain, c01b)


class HeUniform(He):
    """``He`` of a uniform distribution."""

    def __init__(self, gain: float | str = 1.0, c01b: bool = False) -> None:
        super().__init__(Uniform, gain, c01b)


class Orthogonal(Initializer):
    """gain times a random matrix with orthonormal rows or columns, whichever are fewer
    (Saxe, McClelland and Ganguli 2013).  Axes after the first count as one; gain 'relu' is
    sqrt(2).  ``sample`` raises ValueError for a shape with less than two axes."""

    def __init__(self, gain: float | str = 1.0) -> None:
        self.gain = _gain(gain)

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal needs a shape of two axes or more, not {shape}")
        flat = (shape[0], int(np.prod(shape[1:])))
        u, _, v = np.linalg.svd(get_rng().normal(0.0, 1.0, size=flat), full_matrices=False)
        return floatX(self.gain * (u if u.shape == flat else v).reshape(shape))


class Sparse(Initializer):
    """A matrix of which every column holds ``sparsity`` times its length (at least one) normal
    values of standard deviation ``std``, the rest zero  (Martens 2010)."""

    def __init__(self, sparsity: float = 0.1, std: float = 0.01) -> None:
        self.sparsity, self.std = sparsity, std

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != 2:
            raise ValueError(f"Sparse makes matrices, not a shape of {shape}")
        rows, columns = shape
        kept = max(1, int(self.sparsity * rows))
        out = np.zeros(shape)
        for j in range(columns):
            chosen = get_rng().permutation(rows)[:kept]
            out[chosen, j] = get_rng().normal(0.0, self.std, size=len(chosen))
        return floatX(out)
