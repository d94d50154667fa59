"""Initial values of parameters: callables from a shape to an array of floatX."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygraph_rnn.random import get_rng
from tinygraph_rnn.utils import floatX


class Initializer:
    """The base: ``sample(shape)`` gives the array; calling does the same."""

    def __call__(self, shape: Sequence[int]) -> np.ndarray:
        return floatX(self.sample(tuple(shape)))

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of ``shape``."""
        raise NotImplementedError(f"{type(self).__name__}.sample")


class Constant(Initializer):
    """Every element is ``val``."""

    def __init__(self, val: float = 0.0) -> None:
        self.val = val

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.val, dtype=float)


class Normal(Initializer):
    """Normally distributed with mean ``mean`` and standard deviation ``std``."""

    def __init__(self, std: float = 0.01, mean: float = 0.0) -> None:
        self.std, self.mean = std, mean

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        return get_rng().normal(self.mean, self.std, size=shape)


class Uniform(Initializer):
    """Uniform in [mean - range, mean + range] or, for a pair, in [range[0], range[1]].

    With ``std`` the range is the one of that standard deviation, sqrt(3) std about the mean.
    """

    def __init__(self, range: float | tuple[float, float] = 0.01, std: float | None = None,
                 mean: float = 0.0) -> None:
        if std is not None:
            width = np.sqrt(3) * std
            self.range = (mean - width, mean + width)
        elif isinstance(range, tuple):
            self.range = range
        else:
            self.range = (mean - range, mean + range)

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        return get_rng().uniform(*self.range, size=shape)


class _Scaled(Initializer):
    """A distribution whose standard deviation depends on the shape.

    The first axis of a matrix counts inputs, the second outputs; further axes (a receptive
    field) count for both, with the outputs on the first axis then.
    """

    def __init__(self, initializer: type[Normal] | type[Uniform] = Normal,
                 gain: float | str = 1.0) -> None:
        if isinstance(gain, str) and gain != "relu":
            raise ValueError(f"gain is {gain!r}; it must be a number or 'relu'")
        self.initializer = initializer
        self.gain = np.sqrt(2) if isinstance(gain, str) else gain

    def std(self, fan_in: float, fan_out: float) -> float:
        raise NotImplementedError(f"{type(self).__name__}.std")

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"{type(self).__name__} needs a shape of two axes or more, not "
                             f"{shape}: it scales by the numbers of inputs and outputs")
        field = float(np.prod(shape[2:]))
        fan_in, fan_out = shape[:2] if len(shape) == 2 else shape[1::-1]
        std = self.gain * self.std(fan_in * field, fan_out * field)
        return self.initializer(std=std).sample(shape)


class Glorot(_Scaled):
    """Standard deviation gain * sqrt(2 / (inputs + outputs))  (Glorot and Bengio 2010).

    gain 'relu' is sqrt(2).
    """

    def std(self, fan_in: float, fan_out: float) -> float:
        return float(np.sqrt(2 / (fan_in + fan_out)))


class GlorotNormal(Glorot):
    """``Glorot`` of a normal distribution."""

    def __init__(self, gain: float | str = 1.0) -> None:
        super().__init__(Normal, gain)


class GlorotUniform(Glorot):
    """``Glorot`` of a uniform distribution."""

    def __init__(self, gain: float | str = 1.0) -> None:
        super().__init__(Uniform, gain)


class He(_Scaled):
    """Standard deviation gain * sqrt(1 / inputs)  (He et al. 2015; their rectifiers have gain
    sqrt(2), which 'relu' stands for)."""

    def std(self, fan_in: float, fan_out: float) -> float:
        return float(np.sqrt(1 / fan_in))


class HeNormal(He):
    """``He`` of a normal distribution."""

    def __init__(self, gain: float | str = 1.0) -> None:
        super().__init__(Normal, gain)


class HeUniform(He):
    """``He`` of a uniform distribution."""

    def __init__(self, gain: float | str = 1.0) -> None:
        super().__init__(Uniform, gain)


class Orthogonal(Initializer):
    """gain times a random matrix with orthonormal rows or columns, whichever are fewer
    (Saxe, McClelland and Ganguli 2013).  Axes after the first count as one."""

    def __init__(self, gain: float | str = 1.0) -> None:
        self.gain = np.sqrt(2) if gain == "relu" else float(gain)

    def sample(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            raise ValueError(f"Orthogonal needs a shape of two axes or more, not {shape}")
        flat = (shape[0], int(np.prod(shape[1:])))
        u, _, v = np.linalg.svd(get_rng().normal(0.0, 1.0, size=flat), full_matrices=False)
        return self.gain * (u if u.shape == flat else v).reshape(shape)


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
        return out
