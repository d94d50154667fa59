"""The name of every shared variable of a network, and reading and setting many at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinygraph.compile.convert import as_layout
from tinygraph.compile.variables import GATE, SharedVariable, snapshot
from tinygraph.graph import Value
from tinygraph_rnn import cells
from tinygraph_rnn.layers.base import Layer
from tinygraph_rnn.layers.helper import get_all_layers
from tinygraph_rnn.saving.files import SavingError
from tinygraph_rnn.utils import collect_shared_vars

Pairs = Iterator[tuple[str, SharedVariable]]


def named(network: Any) -> dict[str, SharedVariable]:
    """The shared variables of ``network`` by the names that they have in files.

    - Of a layer, or a list of layers: "<layer>.<parameter>" in the order of ``get_all_params``,
      where <layer> is the layer's name, or else "<number>.<class>" with its number among the
      layers that have parameters; <parameter> is the variable's name without the layer's, or else
      "param<number>" with its number in the layer.
    - Of a dict: its keys.
    - Of a list of variables: "<number>.<name>", or "<number>" of one without a name.
    - Of cells (``cells.StackedCells``, a cell, a list of them; anything with ``params``):
      "<number>.<class>.<attribute>", start states too; and "<class>.<attribute>" of what a class
      made from StackedCells adds to ``params``.

    An expression stands for the shared variables in it.  What several places share is named once,
    at the first.  A name that is taken already gets "~2", "~3" and so on.
    Raises TypeError for anything else.
    """
    return unique_names(_pairs(network))


def unique_names(pairs: Iterable[tuple[str, SharedVariable]], taken: Mapping[str, SharedVariable]
                 | None = None) -> dict[str, SharedVariable]:
    """Each of the variables once, by a name that is neither used twice nor in ``taken``, but for
    those that are in ``taken``."""
    out: dict[str, SharedVariable] = {}
    known = dict(taken or {})
    seen = {v.storage for v in known.values()}
    for wanted, v in pairs:
        if v.storage in seen:  # of clones, too
            continue
        name, k = wanted, 2
        while name in known:
            name, k = f"{wanted}~{k}", k + 1
        seen.add(v.storage)
        out[name] = known[name] = v
    return out


def _pairs(network: Any) -> Pairs:
    if isinstance(network, Layer):
        return _of_layers([network])
    if isinstance(network, Value):
        return _of_list([network])
    if isinstance(network, Mapping):
        return _of_dict(network)
    if isinstance(network, (list, tuple)):
        if all(isinstance(x, Layer) for x in network):
            return _of_layers(network)
        if all(isinstance(x, Value) for x in network):
            return _of_list(network)
        if all(hasattr(x, "params") and not isinstance(x, Layer) for x in network):
            return _of_cells(network)
    elif isinstance(network, cells.StackedCells):
        return _of_stack(network)
    elif hasattr(network, "params"):
        return _of_cells([network])
    raise TypeError("a layer, a list of layers, a list or dict of shared variables, or cells are "
                    f"needed, not {network!r}")


def _of_layers(layers: Sequence[Layer]) -> Pairs:
    number = 0
    for layer in get_all_layers(list(layers)):
        own = layer.get_params()
        place = layer.name or f"{number}.{type(layer).__name__}"
        number += bool(own)
        for k, v in enumerate(own):
            name = v.name or f"param{k}"
            if layer.name is not None:
                name = name.removeprefix(f"{layer.name}.")
            yield f"{place}.{name}", v


def _of_dict(variables: Mapping[Any, Any]) -> Pairs:
    for key, value in variables.items():
        if not isinstance(key, str) or not isinstance(value, Value):
            raise TypeError(f"a dict from names to shared variables is needed, but it has {key!r}: "
                            f"{value!r}")
        for v in _unwrapped(value):
            yield (key if v is value else f"{key}.{v.name or 'param'}"), v


def _of_list(variables: Iterable[Any]) -> Pairs:
    for k, value in enumerate(variables):
        for v in _unwrapped(value):
            yield (f"{k}.{v.name}" if v.name else str(k)), v


def _of_cells(cells_: Iterable[Any]) -> Pairs:
    for k, cell in enumerate(cells_):
        yield from ((f"{k}.{name}", v) for name, v in _of_cell(cell))


def _of_stack(stack: cells.StackedCells) -> Pairs:
    yield from _of_cells(stack.layers)
    yield from _of_cell(stack)  # what a class of the user's adds to params


def _of_cell(cell: Any) -> Pairs:
    attributes = dict(_attributes(cell))
    own = list(cell.params)
    if isinstance(getattr(cell, "initial_hidden_state", None), SharedVariable):
        own.append(cell.initial_hidden_state)
    for number, value in enumerate(own):
        for v in _unwrapped(value):
            name = attributes.get(v) or v.name or f"param{number}"
            yield f"{type(cell).__name__}.{name}", v


def _attributes(cell: Any) -> Iterator[tuple[SharedVariable, str]]:
    """The shared variables of a cell and of its gates, with where they are found."""
    for name, x in getattr(cell, "__dict__", {}).items():
        if isinstance(x, SharedVariable):
            yield x, name
        elif isinstance(x, cells.Layer):
            yield from ((y, f"{name}.{inner}") for inner, y in vars(x).items()
                        if isinstance(y, SharedVariable))


def _unwrapped(value: Any) -> list[SharedVariable]:
    if not isinstance(value, Value):
        raise TypeError(f"a parameter must be a shared variable, not {value!r}")
    return collect_shared_vars([value])


# --- values --------------------------------------------------------------------------------------


def values(variables: Mapping[str, SharedVariable]) -> dict[str, np.ndarray]:
    """Copies of the values, all of one moment: no call of another thread stores in between."""
    return dict(zip(variables, snapshot([v.storage for v in variables.values()]), strict=True))


def set_values(variables: Sequence[SharedVariable], arrays: Sequence[np.ndarray]) -> None:
    """Give the variables copies of ``arrays``, which fit them: all at one moment."""
    copies = [as_layout(a.copy(), v.type.dtype.np)
              for v, a in zip(variables, arrays, strict=True)]
    storages = [v.storage for v in variables]
    with GATE.closed():
        GATE.wait(storages)
        for storage, a in zip(storages, copies, strict=True):
            storage.store(a, True, alone=False)


def fitting(where: str, name: str, variable: SharedVariable, array: np.ndarray,
            cast: bool | None = False) -> np.ndarray:
    """``array``, from the file ``where``, as a value for ``variable``.

    cast: convert another dtype; None: the user has no such choice.
    Raises SavingError for another shape, and for another dtype unless ``cast``, or where casting
    would change more than rounding does.
    """
    shape = variable.storage.shape
    if array.shape != shape:
        raise SavingError(f"{name!r} has shape {shape}, but in {where} it has {array.shape}; "
                          "the file is of another network")
    kind = variable.type.dtype.np
    if array.dtype == kind:
        return array
    if not cast:
        raise SavingError(f"{name!r} is of dtype {kind}, but in {where} it is of {array.dtype}; "
                          + ("the file is of another training" if cast is None else
                             "pass cast=True to convert it"))
    if not np.can_cast(array.dtype, kind, "same_kind"):
        raise SavingError(f"{name!r} is of dtype {kind}, to which {array.dtype}, its dtype in "
                          f"{where}, cannot be converted")
    with np.errstate(over="ignore"):
        out = array.astype(kind)
    lost = (np.isfinite(array) & ~np.isfinite(out)) if kind.kind == "f" else out != array
    if lost.any():
        raise SavingError(f"{name!r} has values in {where} that {kind} cannot hold, such as "
                          f"{array[lost][0]}")
    return out
