"""What Python and NumPy would do with a number, said of a variable: what to write instead.

NumPy's functions of elements (``np.exp(x)``, ``array * x``) make expressions, as methods do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from tinygraph.graph import Value, describe
from tinygraph.ops.arithmetic import elementwise


def _function(name: str) -> Callable[..., Any]:
    return lambda *xs: elementwise(name, *xs)


# NumPy's functions by name, and what they are of variables.
_UFUNCS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul,
    "divide": operator.truediv, "true_divide": operator.truediv,
    "floor_divide": operator.floordiv, "remainder": operator.mod, "power": operator.pow,
    "negative": operator.neg, "absolute": abs, "matmul": operator.matmul,
    "bitwise_and": operator.and_, "bitwise_or": operator.or_, "bitwise_xor": operator.xor,
    "invert": operator.invert, "maximum": _function("maximum"), "minimum": _function("minimum"),
    "greater": _function("gt"), "greater_equal": _function("ge"), "less": _function("lt"),
    "less_equal": _function("le"), "equal": lambda x, y: False, "not_equal": lambda x, y: True,
    **{name: _function(name) for name in (
        "exp", "expm1", "log", "log1p", "log2", "sqrt", "sin", "cos", "tan", "tanh", "floor",
        "ceil", "trunc", "arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh",
        "arctanh")}}


class Refusals:
    """The methods by which Python asks a number for its value."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any
                        ) -> Any:
        of = next(x for x in (*operands, self) if isinstance(x, Value))
        known = _UFUNCS.get(ufunc.__name__)
        if known is None or method != "__call__" or options:
            raise TypeError(f"numpy.{ufunc.__name__} cannot compute with the variable "
                            f"{describe(of)}, which has no value yet; write functions of "
                            "tinygraph.tensor (T.exp, T.dot, ...), without out= and other options")
        if isinstance(operands[0], Value):
            return known(*operands)
        first = operands[0]
        if len(operands) > 1 and isinstance(first, np.ndarray | np.generic):
            reflected = getattr(operands[1], _REFLECTED.get(ufunc.__name__, ""), None)
            if reflected is not None:
                return reflected(first)
        return known(*operands)

    def _no_value(self, wanted: str, instead: str) -> NoReturn:
        assert isinstance(self, Value)
        raise TypeError(f"{describe(self)} is no {wanted}: it has no value before a function is "
                        f"called; {instead}")

    def __float__(self) -> float:
        self._no_value("Python float", "leave it a variable, or compute it with .eval({...})")

    def __int__(self) -> int:
        self._no_value("Python int", "write T.cast(x, 'int64'), or compute it with .eval({...})")

    def __index__(self) -> int:
        self._no_value("Python integer", "index a variable by it (T.constant([...])[x]); instead "
                       "of range(x) write T.arange(x), or scan with n_steps=x")

    def __setitem__(self, index: Any, value: Any) -> None:
        self._no_value("array that can be written into", "write x = T.set_subtensor(x[...], "
                       "value), or T.inc_subtensor to add")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._no_value("function", "it is not callable: compile one with tinygraph.function("
                       "[inputs], x), or write x.eval({input: value})")


_REFLECTED = {"add": "__radd__", "subtract": "__rsub__", "multiply": "__rmul__",
              "divide": "__rtruediv__", "true_divide": "__rtruediv__",
              "floor_divide": "__rfloordiv__", "remainder": "__rmod__", "power": "__rpow__",
              "matmul": "__rmatmul__", "bitwise_and": "__rand__", "bitwise_or": "__ror__",
              "bitwise_xor": "__rxor__"}
