"""C names and types for what a loop program names."""

from __future__ import annotations

import re

from tinygraph.dtypes import DType

C_TYPES = {"float32": "float", "float64": "double", "int8": "signed char", "int16": "short",
           "int32": "int", "int64": "I64", "uint8": "unsigned char", "bool": "bool"}

# What C, CUDA or the prelude use themselves; every function of the prelude begins with tg_.
_RESERVED = frozenset("""
    alignas alignof asm auto bool break case catch char class const constexpr continue decltype
    default delete do double dynamic_cast else enum explicit export extern false float for friend
    goto if inline int long mutable namespace new noexcept nullptr operator private protected public
    register return short signed sizeof static struct switch template this throw true try typedef
    typeid typename union unsigned using virtual void volatile wchar_t while I64 U64 BUF FAULT
    fault sync threadIdx blockIdx blockDim gridDim warpSize and or not xor bitand bitor compl
    """.split())


def c_type(dtype: DType) -> str:
    """The C type of an element."""
    return C_TYPES[dtype.name]


class Names:
    """Gives every name of a program its own C identifier."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._taken: set[str] = set(_RESERVED)

    def of(self, name: str) -> str:
        """The identifier for ``name``, always the same one."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self.fresh(name)
        return found

    def fresh(self, hint: str) -> str:
        """An identifier that nothing else has."""
        base = re.sub(r"\W", "_", hint.replace("$", ""), flags=re.ASCII).strip("_") or "v"
        if base[0].isdigit() or base.startswith("tg_") or "__" in base:
            base = "v" + re.sub(r"_+", "_", base)
        name, k = base, 1
        while name in self._taken:
            k += 1
            name = f"{base}_{k}"
        self._taken.add(name)
        return name
