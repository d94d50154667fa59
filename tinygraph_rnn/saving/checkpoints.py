"""A whole training in a file: ``checkpoint`` and ``resume``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tinygraph.compile.variables import SharedVariable
from tinygraph.graph import Value, describe
from tinygraph.tensor.shared_randomstreams import RandomStreams
from tinygraph_rnn.random import get_rng, set_rng
from tinygraph_rnn.saving.files import (
    STORABLE,
    SavingError,
    Stored,
    encoded,
    read_file,
    write_file,
)
from tinygraph_rnn.saving.generators import (
    Snapshot,
    as_json,
    from_json,
    is_generator,
    snapshot,
)
from tinygraph_rnn.saving.names import (
    fitting,
    named,
    set_values,
    unique_names,
    values,
)
from tinygraph_rnn.saving.networks import check_json, check_names
from tinygraph_rnn.utils import collect_shared_vars, unique

Path = str | os.PathLike[str]


def checkpoint(path: Path, network: Any, updates: Any, streams: Any = (), without: Any = (),
               **state: Any) -> None:
    """Write to the file ``path`` all that a training needs to go on as if it had never stopped:

    - the parameters of ``network`` (of any kind that ``save`` takes);
    - every other shared variable that ``updates``, the dict given to ``function``, changes or
      reads, or that is a default update of these: what an optimiser remembers, learning rates,
      the states of random streams (dropout, noise);
    - those of ``streams``: a ``RandomStreams``, a shared variable or an expression (such as a
      cost), or a list of them; for what the updates do not read;
    - the generator of the initialisers (``random.get_rng()``);
    - ``state``: numbers, strings, None, lists and dicts of them, NumPy arrays, and generators
      (``numpy.random.Generator``, ``RandomState``, or ``numpy.random`` itself).

    without: shared variables to leave out, such as a data set that the updates read.

    The file is replaced at once or not at all.  Raises TypeError for what cannot be kept, OSError
    where the file cannot be written.
    """
    parameters = named(network)
    others = _others(parameters, updates, streams, without)
    initialisers = get_rng()
    if not is_generator(initialisers):
        raise TypeError(f"the initialisers draw from {initialisers!r}, whose state cannot be kept; "
                        "give random.set_rng a generator of NumPy")
    tensors = values({**parameters, **others})
    records = {name: _record(name, value, tensors) for name, value in state.items()}
    write_file(path, encoded(tensors, {
        "kind": "checkpoint", "parameters": list(parameters), "variables": list(others),
        "initialisers": as_json(snapshot(initialisers)), "state": records, "metadata": {}}))


def resume(path: Path, network: Any, updates: Any, streams: Any = (), without: Any = (),
           **generators: Any) -> dict[str, Any]:
    """Set everything to what it was when ``checkpoint`` wrote the file, and return its ``state``.

    network, updates, streams, without: as given to ``checkpoint``, built by the same program.
    generators: generators to be set, by the names they have in ``state``; of any other there is a
    new one in what is returned.

    Raises SavingError, and changes nothing, for a file that is damaged or not of this training;
    OSError where there is no file.
    """
    stored = read_file(path)
    if stored.part("kind", str) != "checkpoint":
        stored.refuse("holds parameters only; read it with load(path, network)")
    parameters = named(network)
    others = _others(parameters, updates, streams, without)
    for ours, what in ((parameters, "parameters"), (others, "variables")):
        check_names(stored, list(ours), stored.names(what), what)
    variables = {**parameters, **others}
    arrays = [fitting(stored.path, n, v, stored.tensors[n], None) for n, v in variables.items()]
    snapshots, out = _state(stored, generators)
    initialisers = from_json(stored.part("initialisers", dict),
                             f"the generator of the initialisers in {stored.path}")
    set_values(list(variables.values()), arrays)
    for name, taken in snapshots.items():
        taken.put(generators[name])
    _put_initialisers(initialisers)
    return out


# --- shared variables ----------------------------------------------------------------------------


def _others(parameters: Mapping[str, SharedVariable], updates: Any, streams: Any, without: Any
            ) -> dict[str, SharedVariable]:
    """The shared variables of a training that are no parameters, by name: "updates.<number>", and
    "updates.<number>.<name>" where they have a name."""
    found = _reached([*_updates(updates), *_streams(streams)])
    left_out = {v.storage for v in collect_shared_vars(_streams(without))}
    rest = {v.storage: v for v in found if v.storage not in left_out}
    for v in parameters.values():
        rest.pop(v.storage, None)
    pairs = ((f"updates.{k}.{v.name}" if v.name else f"updates.{k}", v)
             for k, v in enumerate(rest.values()))
    return unique_names(pairs, parameters)


def _updates(updates: Any) -> Iterator[Any]:
    """The shared variables and expressions in ``updates``: first what is changed."""
    pairs = list(updates.items() if isinstance(updates, Mapping) else updates)
    for v, _ in pairs:
        if not isinstance(v, SharedVariable):
            raise TypeError("updates must be a dict from shared variables to their new values, but "
                            f"it has {describe(v) if isinstance(v, Value) else repr(v)}")
    yield from (v for v, _ in pairs)
    yield from (new for _, new in pairs if isinstance(new, Value))


def _streams(streams: Any) -> Iterator[Any]:
    """The states of random streams, and the variables, in ``streams``."""
    for x in streams if isinstance(streams, (list, tuple, set)) else [streams]:
        if isinstance(x, RandomStreams):
            yield from x.states
        elif isinstance(x, Value):
            yield x
        else:
            raise TypeError("a RandomStreams or a variable is needed among streams, and a shared "
                            f"variable among without, not {x!r}; a generator of NumPy is given by "
                            "a name of its own, as in checkpoint(path, network, updates, rng=rng)")


def _reached(roots: Iterable[Any]) -> list[SharedVariable]:
    """The shared variables among and below ``roots``, and below their default updates."""
    found: dict[SharedVariable, None] = {}
    waiting = list(roots)
    while waiting:
        leaves = [v for v in waiting if isinstance(v, SharedVariable)]
        fresh = [v for v in unique([*leaves, *collect_shared_vars(waiting)]) if v not in found]
        found.update(dict.fromkeys(fresh))
        waiting = [v.default_update for v in fresh if v.default_update is not None]
    return list(found)


# --- the user's state ----------------------------------------------------------------------------


def _record(name: str, value: Any, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """What JSON holds of one value; an array goes to ``tensors``."""
    if is_generator(value):
        return {"generator": as_json(snapshot(value))}
    if not isinstance(value, (np.ndarray, np.generic)):
        check_json(value, name)
        return {"value": value}
    array = np.array(value, order="C")
    if array.dtype.name not in STORABLE:
        raise TypeError(f"{name} is an array of dtype {array.dtype}; dtypes that can be kept are "
                        f"{', '.join(sorted(STORABLE))}")
    array = array.astype(array.dtype.newbyteorder("="))
    key = f"state.{name}"
    while key in tensors:
        key += "~"
    tensors[key] = array
    return {"array": key, "scalar": isinstance(value, np.generic)}


def _state(stored: Stored, generators: Mapping[str, Any]
           ) -> tuple[dict[str, Snapshot], dict[str, Any]]:
    """The states for the generators given, and what ``resume`` returns."""
    records = stored.part("state", dict)
    for name, generator in generators.items():
        if not is_generator(generator):
            raise TypeError(f"{name} is {generator!r}, but only generators of NumPy are set; other "
                            "values are in what resume returns")
        if not isinstance(records.get(name), dict) or "generator" not in records[name]:
            stored.refuse(f"holds no generator {name!r}")
    snapshots, out = {}, {}
    for name, record in records.items():
        kind = next(iter(record), None) if isinstance(record, dict) else None
        if kind == "generator":
            taken = from_json(record[kind], f"{name!r} in {stored.path}")
            out[name] = generators[name] if name in generators else taken.made()
            if name in generators:
                snapshots[name] = _checked(stored, name, taken, generators[name])
        elif kind == "array" and isinstance(record[kind], str) and record[kind] in stored.tensors:
            array = stored.tensors[record[kind]]
            out[name] = array[()] if record.get("scalar") and not array.ndim else array.copy()
        elif kind == "value":
            out[name] = record[kind]
        else:
            stored.refuse(f"has a state {name!r} that is none")
    return snapshots, out


def _checked(stored: Stored, name: str, taken: Snapshot, generator: Any) -> Snapshot:
    if not taken.fits(generator):
        raise SavingError(f"{name!r} is {snapshot(generator)}, but in {stored.path} it is {taken}")
    return taken


def _put_initialisers(taken: Snapshot) -> None:
    """Let initialisers go on where they were: with the same generator, set back, if it is of the
    same kind as then."""
    if not taken.fits(get_rng()):
        set_rng(None if taken.kind == "global" else taken.made())
    taken.put(get_rng())
