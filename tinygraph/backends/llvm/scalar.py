"""Scalar operations of the loop language as lines of LLVM IR.

A value is a pair in text: the operand (``%7``, ``true``, ``0x3FF0000000000000``) and the DType that
its user already knows.  bool is i1 in registers and i8 in memory.
"""

from __future__ import annotations

import struct

import numpy as np

from tinygraph.dtypes import DType, bool_, float32, float64, int32, int64
from tinygraph.errors import InternalError
from tinygraph.loops.language import COMPARISONS, TRANSCENDENTAL

# Contraction into fma is allowed everywhere; the order of sums only where the language says so.
FLAGS = "contract"
ACCUMULATE_FLAGS = "reassoc nsz contract"

_FLOAT_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}
_ROUNDING = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven"}
_BITWISE = {"and": "and", "or": "or", "xor": "xor"}
# On booleans the arithmetic of NumPy is the logic below.
_BOOL_ARITHMETIC = {"add": "or", "mul": "and", "min": "and", "max": "or"}


class Code:
    """The growing text of one function: lines, fresh names and the current block's label.

    While ``lanes`` is more than 1 the operations below work on vectors of so many elements.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.label = "entry"
        self.lanes = 1
        self._count = 0

    def fresh(self, stem: str = "v") -> str:
        """A name that this function has not used, without its '%'."""
        self._count += 1
        return f"{stem}{self._count}"

    def emit(self, line: str) -> None:
        """Append an instruction that has no result."""
        self.lines.append("  " + line)

    def value(self, instruction: str) -> str:
        """Append an instruction and return the operand that names its result."""
        name = "%" + self.fresh()
        self.lines.append(f"  {name} = {instruction}")
        return name

    def kind(self, dtype: DType) -> str:
        """The type of a value of ``dtype``: scalar, or a vector of ``lanes``."""
        return self.widened(register_type(dtype))

    def widened(self, kind: str) -> str:
        """The vector of ``lanes`` elements of the scalar type ``kind``, or that type."""
        return kind if self.lanes == 1 else f"<{self.lanes} x {kind}>"

    def literal(self, value: float | int | bool, dtype: DType) -> str:
        """The constant ``value`` of type ``kind(dtype)``."""
        one = constant(value, dtype)
        return one if self.lanes == 1 else f"splat ({register_type(dtype)} {one})"

    def suffix(self, dtype: DType) -> str:
        """``kind(dtype)`` as the names of intrinsics spell it."""
        scalar = f"{'f' if dtype.is_float else 'i'}{dtype.bits}"
        return scalar if self.lanes == 1 else f"v{self.lanes}{scalar}"

    def choose(self, cond: str, x: str, y: str, dtype: DType) -> str:
        """x where ``cond``, else y."""
        kind = self.kind(dtype)
        return self.value(f"select {self.kind(bool_)} {cond}, {kind} {x}, {kind} {y}")

    def block(self, label: str) -> None:
        """Start the basic block ``label``."""
        self.lines.append(f"{label}:")
        self.label = label


def register_type(dtype: DType) -> str:
    """The LLVM type of a value of ``dtype`` in a register."""
    if dtype.is_float:
        return "float" if dtype is float32 else "double"
    return f"i{dtype.bits}"


def memory_type(dtype: DType) -> str:
    """The LLVM type of an element of ``dtype`` in a buffer."""
    return "i8" if dtype is bool_ else register_type(dtype)


def constant(value: float | int | bool, dtype: DType) -> str:
    """The literal of ``value``; integers wrap to their width, floats round to theirs."""
    if dtype is bool_:
        return "true" if value else "false"
    if dtype.is_int:
        low = int(value) & ((1 << dtype.bits) - 1)
        return str(low - (1 << dtype.bits) if low >> (dtype.bits - 1) else low)
    with np.errstate(over="ignore"):
        exact = float(np.float32(value)) if dtype is float32 else float(value)
    if exact != exact:
        return "0x7FF8000000000000"
    return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"


def to_memory(code: Code, value: str, dtype: DType) -> str:
    """``value`` in the type that a buffer of ``dtype`` holds."""
    if dtype is not bool_:
        return value
    return code.value(f"zext {code.kind(bool_)} {value} to {code.widened('i8')}")


def from_memory(code: Code, value: str, dtype: DType) -> str:
    """A loaded element of ``dtype`` as a register value."""
    if dtype is not bool_:
        return value
    return code.value(f"icmp ne {code.widened('i8')} {value}, zeroinitializer")


def intrinsic(code: Code, name: str, dtype: DType, *args: str, flags: str = "") -> str:
    """Call ``llvm.name`` on operands of one dtype."""
    kind = code.kind(dtype)
    operands = ", ".join(f"{kind} {a}" for a in args)
    prefix = f"{flags} " if flags else ""
    return code.value(f"call {prefix}{kind} @llvm.{name}.{code.suffix(dtype)}({operands})")


def store_first(
    code: Code,
    element: str,
    lanes: int,
    count: str,
    values: list[str],
    places: list[str],
    suffix: list[str],
    whole: bool = True,
) -> None:
    """Store the first ``count`` (1 to ``lanes``) elements of every vector at its place.

    Whole vector, half, quarter, ...: three or four branches for all vectors together, where a
    masked store takes a dozen cycles or more for each on processors without mask registers.
    ``suffix`` follows each store (alignment, metadata).  ``whole``: may ``count`` be ``lanes``.
    """
    vector, size = f"<{lanes} x {element}>", lanes if whole else lanes // 2
    while size:
        take, skip, before = code.fresh("take"), code.fresh("skip"), code.label
        bit = code.value(f"and i64 {count}, {size}")
        code.emit(f"br i1 {code.value(f'icmp ne i64 {bit}, 0')}, label %{take}, label %{skip}")
        code.block(take)
        rest, following = [], []
        for value, place, tail in zip(values, places, suffix, strict=True):
            part, kind = value, vector
            if size < lanes:
                kind = f"<{size} x {element}>"
                part = _lanes(code, vector, value, list(range(size)))
            code.emit(f"store {kind} {part}, ptr {place}{tail}")
            if 1 < size < lanes:
                moved = [min(i, lanes - 1) for i in range(size, size + lanes)]
                rest.append(_lanes(code, vector, value, moved))
                following.append(code.value(f"getelementptr {element}, ptr {place}, i64 {size}"))
        code.emit(f"br label %{skip}")
        code.block(skip)
        if rest:
            ways = [("ptr", places, following), (vector, values, rest)]
            places, values = (
                [
                    code.value(f"phi {kind} [ {x}, %{before} ], [ {y}, %{take} ]")
                    for x, y in zip(old, new, strict=True)
                ]
                for kind, old, new in ways
            )
        size //= 2


def _lanes(code: Code, vector: str, value: str, picks: list[int]) -> str:
    """The vector of the elements ``picks`` of ``value``."""
    numbers = ", ".join(f"i32 {p}" for p in picks)
    return code.value(
        f"shufflevector {vector} {value}, {vector} poison, <{len(picks)} x i32> <{numbers}>"
    )


def _unsupported(op: str, dtype: DType) -> InternalError:
    if op in TRANSCENDENTAL:
        return InternalError(
            f"{op!r} on {dtype} reached the LLVM back end; transcendental functions "
            "must be expanded into plain arithmetic by a loop pass before code is emitted"
        )
    return InternalError(f"the LLVM back end has no {op!r} on {dtype}")


def unary(code: Code, op: str, x: str, dtype: DType) -> str:
    """op(x) for x of ``dtype``.  Raises InternalError for a pair that has no meaning."""
    if dtype.is_float:
        return _unary_float(code, op, x, dtype)
    kind = code.kind(dtype)
    if op in ("isnan", "isinf"):
        return code.literal(False, bool_)
    if op == "not":
        return code.value(f"icmp eq {kind} {x}, {code.literal(0, dtype)}")
    if op == "invert":
        return code.value(f"xor {kind} {x}, {code.literal(True if dtype is bool_ else -1, dtype)}")
    if op in _ROUNDING or (op == "abs" and dtype.kind in "bu"):
        return x
    if op == "neg" and dtype.is_int:
        return code.value(f"sub {kind} {code.literal(0, dtype)}, {x}")
    if op == "abs":
        return code.value(f"call {kind} @llvm.abs.{code.suffix(dtype)}({kind} {x}, i1 false)")
    if op == "from_bits" and dtype in (int32, int64):
        twin = float32 if dtype is int32 else float64
        return code.value(f"bitcast {kind} {x} to {code.kind(twin)}")
    raise _unsupported(op, dtype)


def _unary_float(code: Code, op: str, x: str, dtype: DType) -> str:
    kind = code.kind(dtype)
    if op == "neg":
        return code.value(f"fneg {kind} {x}")
    if op in ("abs", "sqrt"):
        return intrinsic(code, "fabs" if op == "abs" else "sqrt", dtype, x)
    if op in _ROUNDING:
        return intrinsic(code, _ROUNDING[op], dtype, x)
    if op == "isnan":
        return code.value(f"fcmp uno {kind} {x}, {x}")
    if op == "isinf":
        size = intrinsic(code, "fabs", dtype, x)
        return code.value(f"fcmp oeq {kind} {size}, {code.literal(float('inf'), dtype)}")
    if op == "not":
        return code.value(f"fcmp oeq {kind} {x}, {code.literal(0.0, dtype)}")
    if op == "to_bits":
        twin = int32 if dtype is float32 else int64
        return code.value(f"bitcast {kind} {x} to {code.kind(twin)}")
    raise _unsupported(op, dtype)


def binary(
    code: Code, op: str, x: str, y: str, dtype: DType, *, index: bool = False, free: bool = False
) -> str:
    """op(x, y) for operands of ``dtype``.

    ``index`` claims that an int64 add, sub or mul does not overflow; ``free`` lets a float
    operation be reassociated.  Raises InternalError for a pair that has no meaning.
    """
    if dtype.is_float:
        return _binary_float(code, op, x, y, dtype, free)
    if dtype is bool_:
        return _binary_bool(code, op, x, y)
    kind, signed = code.kind(dtype), dtype.kind == "i"
    if op in COMPARISONS:
        sign = "" if op in ("eq", "ne") else ("s" if signed else "u")
        return code.value(f"icmp {sign}{op} {kind} {x}, {y}")
    if op in ("add", "sub", "mul"):
        return code.value(f"{op} {'nsw ' if index and dtype is int64 else ''}{kind} {x}, {y}")
    if op in _BITWISE:
        return code.value(f"{op} {kind} {x}, {y}")
    if op in ("min", "max"):
        return intrinsic(code, ("s" if signed else "u") + op, dtype, x, y)
    if op in ("shl", "shr"):
        amount = code.value(f"and {kind} {y}, {code.literal(dtype.bits - 1, dtype)}")
        shift = "shl" if op == "shl" else ("ashr" if signed else "lshr")
        return code.value(f"{shift} {kind} {x}, {amount}")
    if op in ("floordiv", "mod"):
        return _divide(code, op, x, y, dtype)
    raise _unsupported(op, dtype)


def _binary_bool(code: Code, op: str, x: str, y: str) -> str:
    kind = code.kind(bool_)
    if op in COMPARISONS:
        return code.value(f"icmp {op if op in ('eq', 'ne') else 'u' + op} {kind} {x}, {y}")
    logic = _BITWISE.get(op) or _BOOL_ARITHMETIC.get(op)
    if logic is None:
        raise _unsupported(op, bool_)
    return code.value(f"{logic} {kind} {x}, {y}")


def _binary_float(code: Code, op: str, x: str, y: str, dtype: DType, free: bool) -> str:
    kind = code.kind(dtype)
    if op in COMPARISONS:
        return code.value(f"fcmp {_FLOAT_COMPARE[op]} {kind} {x}, {y}")
    if op in ("add", "sub", "mul"):
        return code.value(f"f{op} {ACCUMULATE_FLAGS if free else FLAGS} {kind} {x}, {y}")
    if op == "div":
        return code.value(f"fdiv {kind} {x}, {y}")
    if op in ("min", "max"):
        # minimum and maximum hand on a nan; which zero wins is nobody's contract.
        return intrinsic(code, op + "imum", dtype, x, y, flags="nsz")
    if op in ("floordiv", "mod"):
        return _divide_float(code, op, x, y, dtype)
    raise _unsupported(op, dtype)


def _divide(code: Code, op: str, x: str, y: str, dtype: DType) -> str:
    """Integer division with Python's signs; 0 for a zero divisor; never traps."""
    kind, none = code.kind(dtype), code.literal(0, dtype)
    one, truth = code.literal(1, dtype), code.kind(bool_)
    zero = code.value(f"icmp eq {kind} {y}, {none}")
    if dtype.kind == "u":
        safe = code.choose(zero, one, y, dtype)
        result = code.value(f"{'udiv' if op == 'floordiv' else 'urem'} {kind} {x}, {safe}")
        return code.choose(zero, none, result, dtype)
    # x / -1 traps for the smallest x: divide by 1 there and negate, which wraps.
    minus = code.value(f"icmp eq {kind} {y}, {code.literal(-1, dtype)}")
    special = code.value(f"or {truth} {zero}, {minus}")
    safe = code.choose(special, one, y, dtype)
    remainder = code.value(f"srem {kind} {x}, {safe}")
    signs = code.value(f"xor {kind} {remainder}, {safe}")
    differ = code.value(f"icmp slt {kind} {signs}, {none}")
    inexact = code.value(f"icmp ne {kind} {remainder}, {none}")
    adjust = code.value(f"and {truth} {differ}, {inexact}")
    if op == "mod":
        step = code.choose(adjust, safe, none, dtype)
        result = code.value(f"add {kind} {remainder}, {step}")
    else:
        quotient = code.value(f"sdiv {kind} {x}, {safe}")
        step = code.value(f"sext {truth} {adjust} to {kind}")
        floored = code.value(f"add {kind} {quotient}, {step}")
        negated = code.value(f"sub {kind} {none}, {x}")
        result = code.choose(minus, negated, floored, dtype)
    return code.choose(zero, none, result, dtype)


def _divide_float(code: Code, op: str, x: str, y: str, dtype: DType) -> str:
    """floor(x / y) or x - y * floor(x / y), without a call of fmod.

    The quotient is corrected by the sign of its remainder, since x / y may round up to an integer.
    """
    truth = code.kind(bool_)
    kind, zero, one = code.kind(dtype), code.literal(0.0, dtype), code.literal(1.0, dtype)
    infinity = code.literal(float("inf"), dtype)
    ratio = code.value(f"fdiv {kind} {x}, {y}")
    floored = intrinsic(code, "floor", dtype, ratio)
    minus = code.value(f"fneg {kind} {floored}")
    rest = intrinsic(code, "fmuladd", dtype, minus, y, x)
    # The remainder has y's sign or is zero; its product with y is negative if floor was one high.
    signed_rest = code.value(f"fcmp olt {kind} {rest}, {zero}")
    signed_y = code.value(f"fcmp olt {kind} {y}, {zero}")
    nonzero = code.value(f"fcmp one {kind} {rest}, {zero}")
    differ = code.value(f"xor {truth} {signed_rest}, {signed_y}")
    high = code.value(f"and {truth} {differ}, {nonzero}")
    size_y = intrinsic(code, "fabs", dtype, y)
    size_x = intrinsic(code, "fabs", dtype, x)
    wide = code.value(f"fcmp oeq {kind} {size_y}, {infinity}")
    finite = code.value(f"fcmp olt {kind} {size_x}, {infinity}")
    beyond = code.value(f"and {truth} {wide}, {finite}")
    signed_x = code.value(f"fcmp olt {kind} {x}, {zero}")
    x_nonzero = code.value(f"fcmp one {kind} {x}, {zero}")
    opposite = code.value(f"xor {truth} {signed_x}, {signed_y}")
    below = code.value(f"and {truth} {opposite}, {x_nonzero}")
    if op == "mod":
        moved = code.value(f"fadd {kind} {rest}, {y}")
        usual = code.choose(high, moved, rest, dtype)
        edge = code.choose(below, y, x, dtype)
    else:
        lower = code.value(f"fsub {kind} {floored}, {one}")
        usual = code.choose(high, lower, floored, dtype)
        edge = code.choose(below, code.literal(-1.0, dtype), zero, dtype)
        # An infinite x leaves no remainder to round by: nan, as in Python, but for a zero y.
        endless = code.value(f"fcmp oeq {kind} {size_x}, {infinity}")
        divided = code.value(f"fcmp une {kind} {y}, {zero}")
        lost = code.value(f"and {truth} {endless}, {divided}")
        usual = code.choose(lost, code.literal(float("nan"), dtype), usual, dtype)
    return code.choose(beyond, edge, usual, dtype)


def cast(code: Code, x: str, source: DType, target: DType) -> str:
    """x of ``source`` as ``target``: floats saturate to integers, anything to bool is x != 0."""
    if source is target:
        return x
    old, new = code.kind(source), code.kind(target)
    if target is bool_:
        compare = "fcmp une" if source.is_float else "icmp ne"
        return code.value(f"{compare} {old} {x}, {code.literal(0, source)}")
    if target.is_float:
        if source.is_float:
            return code.value(f"{'fpext' if target is float64 else 'fptrunc'} {old} {x} to {new}")
        signed = source.kind == "i"
        return code.value(f"{'sitofp' if signed else 'uitofp'} {old} {x} to {new}")
    if source.is_float:
        sign = "si" if target.kind == "i" else "ui"
        name = f"llvm.fpto{sign}.sat.{code.suffix(target)}.{code.suffix(source)}"
        return code.value(f"call {new} @{name}({old} {x})")
    if source.bits > target.bits:
        return code.value(f"trunc {old} {x} to {new}")
    if source.bits == target.bits:
        return x
    return code.value(f"{'sext' if source.kind == 'i' else 'zext'} {old} {x} to {new}")
