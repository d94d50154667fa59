"""The states of NumPy's random generators as JSON, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygraph_rnn.saving.files import SavingError

_KINDS = ("global", "RandomState", "Generator")
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
# The largest value of every number in a state.  NumPy takes positions unseen, and reads there.
_LARGEST = {"pos": 624, "buffer_pos": 4, "has_uint32": 1, "uinteger": 2 ** 32 - 1, "has_gauss": 1,
            "state": 2 ** 128 - 1, "inc": 2 ** 128 - 1}


@dataclass(frozen=True)
class Snapshot:
    """The state of a generator.

    kind: "Generator", "RandomState", or "global" for NumPy's functions (``numpy.random``).
    state: as NumPy describes it.
    """

    kind: str
    state: dict[str, Any]

    def fits(self, generator: Any) -> bool:
        """Is ``generator`` of this kind, with the same algorithm?"""
        return (is_generator(generator) and _kind(generator) == self.kind
                and _state(generator)["bit_generator"] == self.state["bit_generator"])

    def put(self, generator: Any) -> None:
        """Set a generator that fits to this state."""
        if self.kind == "Generator":
            generator.bit_generator.state = self.state
        else:
            generator.set_state(self.state)

    def made(self) -> Any:
        """A new generator in this state."""
        source = getattr(np.random, self.state["bit_generator"])()
        out = (np.random.Generator if self.kind == "Generator" else np.random.RandomState)(source)
        Snapshot("Generator" if self.kind == "Generator" else "RandomState", self.state).put(out)
        return out

    def __str__(self) -> str:
        name = "numpy.random itself" if self.kind == "global" else f"a {self.kind}"
        return f"{name} with {self.state['bit_generator']}"


def is_generator(x: Any) -> bool:
    """Is ``x`` a generator of NumPy whose state can be kept, or ``numpy.random`` itself?"""
    if x is not np.random and not isinstance(x, (np.random.Generator, np.random.RandomState)):
        return False
    return _state(x)["bit_generator"] in _BIT_GENERATORS


def snapshot(generator: Any) -> Snapshot:
    """The state of a generator."""
    return Snapshot(_kind(generator), _state(generator))


def as_json(snapshot: Snapshot) -> dict[str, Any]:
    """What JSON can hold of a snapshot: everything."""
    return {"kind": snapshot.kind, "state": _plain(snapshot.state)}


def from_json(record: Any, where: str) -> Snapshot:
    """A snapshot from what ``as_json`` gave.  Raises SavingError for a state that is none."""
    if isinstance(record, dict) and set(record) == {"kind", "state"}:
        kind, state = record["kind"], record["state"]
        name = state.get("bit_generator") if isinstance(state, dict) else None
        if kind in _KINDS and name in _BIT_GENERATORS:
            source = getattr(np.random, name)(0)
            pattern = (source.state if kind == "Generator"
                       else np.random.RandomState(source).get_state(legacy=False))
            return Snapshot(kind, _like(pattern, state, "", where))
    raise SavingError(f"{where} is no state of a generator")


def _kind(generator: Any) -> str:
    if generator is np.random:
        return "global"
    return "Generator" if isinstance(generator, np.random.Generator) else "RandomState"


def _state(generator: Any) -> dict[str, Any]:
    if isinstance(generator, np.random.Generator):
        return dict(generator.bit_generator.state)
    return generator.get_state(legacy=False)


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    return x.tolist() if isinstance(x, (np.ndarray, np.generic)) else x


def _like(pattern: Any, x: Any, name: str, where: str) -> Any:
    """``x`` with the types that ``pattern``, the state of another generator, has."""
    if isinstance(pattern, dict):
        if isinstance(x, dict) and set(x) == set(pattern):
            return {key: _like(p, x[key], key, where) for key, p in pattern.items()}
    elif isinstance(pattern, np.ndarray):
        most = int(np.iinfo(pattern.dtype).max)
        if isinstance(x, list) and len(x) == len(pattern) and all(
                type(n) is int and 0 <= n <= most for n in x):
            return np.array(x, pattern.dtype)
    elif isinstance(pattern, str):
        if x == pattern:
            return x
    elif isinstance(pattern, float):
        if type(x) is float:
            return x
    elif type(x) is int and 0 <= x <= _LARGEST[name]:
        return x
    raise SavingError(f"{where} is no state of a generator: its {name or 'content'} is wrong")
