"""Writing scalar formulas as loop expressions: numbers with Python's operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinygraph.dtypes import DType, float32, float64, int32, int64
from tinygraph.loops.build import const
from tinygraph.loops.language import Binary, Cast, Const, Expr, Select, Unary, Var


@dataclass(frozen=True)
class Format:
    """The bits of a float type: ``mantissa`` stored bits, exponent ``bias``, ``bits`` in all."""

    dtype: DType
    integer: DType
    bits: int
    mantissa: int
    bias: int

    @property
    def magic(self) -> float:
        """1.5 * 2^mantissa: adding it rounds a small number to an integer, half to even, and
        leaves that integer in the low bits.  (A trick as old as IEEE arithmetic.)"""
        return 1.5 * 2.0**self.mantissa

    @property
    def tiny(self) -> float:
        """The smallest normal number."""
        return 2.0 ** (1 - self.bias)

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return (2.0 - 2.0**-self.mantissa) * 2.0**self.bias

    def pick(self, single: float, double: float) -> float:
        """A constant that depends on the type."""
        return single if self.dtype is float32 else double


SINGLE = Format(float32, int32, 32, 23, 127)
DOUBLE = Format(float64, int64, 64, 52, 1023)


def format_of(dtype: DType) -> Format:
    """The Format of float32 or float64."""
    return SINGLE if dtype is float32 else DOUBLE


class Num:
    """An expression with operators.  ``n.let()`` names a value that is used more than once;
    ``bind`` is what makes the name (it appends a ``Let`` and gives the ``Var``)."""

    def __init__(self, expr: Expr, bind: Callable[[Expr], Var]) -> None:
        self.expr = expr
        self.bind = bind

    @property
    def format(self) -> Format:
        """The Format of its type."""
        return format_of(self.expr.dtype)

    def new(self, expr: Expr) -> Num:
        """Another expression of the same place."""
        return Num(expr, self.bind)

    def let(self) -> Num:
        """The same value under a name."""
        atom = isinstance(self.expr, (Var, Const))
        return self if atom else self.new(self.bind(self.expr))

    def lift(self, y: Num | float | int) -> Num:
        """A Python number as a literal of this type."""
        return y if isinstance(y, Num) else self.new(const(y, self.expr.dtype))

    def op(self, name: str, y: Num | float | int) -> Num:
        """A binary operation of the language."""
        return self.new(Binary(name, self.expr, self.lift(y).expr))

    def __add__(self, y: Num | float) -> Num:
        return self.op("add", y)

    def __radd__(self, y: float) -> Num:
        return self.lift(y).op("add", self)

    def __sub__(self, y: Num | float) -> Num:
        return self.op("sub", y)

    def __rsub__(self, y: float) -> Num:
        return self.lift(y).op("sub", self)

    def __mul__(self, y: Num | float) -> Num:
        return self.op("mul", y)

    def __rmul__(self, y: float) -> Num:
        return self.lift(y).op("mul", self)

    def __truediv__(self, y: Num | float) -> Num:
        return self.op("div", y)

    def __rtruediv__(self, y: float) -> Num:
        return self.lift(y).op("div", self)

    def __and__(self, y: Num | int) -> Num:
        return self.op("and", y)

    def __or__(self, y: Num | int) -> Num:
        return self.op("or", y)

    def __xor__(self, y: Num | int) -> Num:
        return self.op("xor", y)

    def __lshift__(self, y: int) -> Num:
        return self.op("shl", y)

    def __rshift__(self, y: int) -> Num:
        return self.op("shr", y)

    def __lt__(self, y: Num | float) -> Num:
        return self.op("lt", y)

    def __le__(self, y: Num | float) -> Num:
        return self.op("le", y)

    def __gt__(self, y: Num | float) -> Num:
        return self.op("gt", y)

    def __ge__(self, y: Num | float) -> Num:
        return self.op("ge", y)

    def __neg__(self) -> Num:
        return self.new(Unary("neg", self.expr))

    def __abs__(self) -> Num:
        return self.new(Unary("abs", self.expr))

    def same(self, y: Num | float | int) -> Num:
        """self == y (``==`` itself is left to Python)."""
        return self.op("eq", y)

    def differs(self, y: Num | float | int) -> Num:
        """self != y"""
        return self.op("ne", y)

    def apply(self, op: str) -> Num:
        """A unary operation of the language."""
        return self.new(Unary(op, self.expr))

    def bits(self) -> Num:
        """The bits of this float as an integer."""
        return self.apply("to_bits")

    def from_bits(self) -> Num:
        """The float with these bits."""
        return self.apply("from_bits")

    def cast(self, dtype: DType) -> Num:
        """The same number as ``dtype``."""
        return self.new(Cast(self.expr, dtype))

    def choose(self, then: Num | float, other: Num | float) -> Num:
        """``then`` where this condition holds, else ``other``; one of them is a Num."""
        model = then if isinstance(then, Num) else other
        assert isinstance(model, Num)
        pair = model.lift(then).expr, model.lift(other).expr
        return self.new(Select(self.expr, *pair))

    def at_most(self, limit: float) -> Num:
        """min(self, limit) that keeps a nan: one vector instruction as it is written."""
        x = self.let()
        return (x.lift(limit) < x).choose(limit, x)

    def at_least(self, limit: float) -> Num:
        """max(self, limit) that keeps a nan."""
        x = self.let()
        return (x.lift(limit) > x).choose(limit, x)

    def like_sign_of(self, x: Num) -> Num:
        """self, which is not negative, with the sign bit of ``x``."""
        return (self.bits() | (x.bits() & _sign(self.format))).from_bits()

    def flip_sign(self, bit: Num) -> Num:
        """self with its sign bit turned over where the integer ``bit`` has its top bit set."""
        return (self.bits() ^ (bit & _sign(self.format))).from_bits()

    def poly(self, coefficients: tuple[float, ...], scale: float = 1.0) -> Num:
        """c0 + c1 s + c2 s^2 ..., s = scale * self, by Horner's rule; ``scale`` is a power of
        2, up to its sign, so that it costs no accuracy."""
        scaled = [c * scale**k for k, c in enumerate(coefficients)]
        result = self.lift(scaled[-1])
        for c in reversed(scaled[:-1]):
            result = result * self + c
        return result


def _sign(form: Format) -> int:
    return -(1 << (form.bits - 1))
