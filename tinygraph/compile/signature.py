"""From the arguments of ``function`` to one closed graph: inputs, outputs, updates, givens."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygraph.compile.variables import SharedSym, SharedVariable
from tinygraph.dims import Sym, dim
from tinygraph.errors import MissingInputError, ShapeError, UnusedInputError
from tinygraph.graph import Graph, Value, describe
from tinygraph.ops.arithmetic import as_value
from tinygraph.ops.callback import OwnSize
from tinygraph.rebuild import Rebuild, Survey

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "<required>"})()


class In:
    """An input of a function with more to say about it.

    value           used where the caller passes nothing
    name            for calls by keyword; the variable's own name unless given
    strict          take an ndarray of the very dtype only, no conversion
    allow_downcast  True: cast anything; False: lose nothing; None: as the function says
    autoname        False: the variable's own name does not serve
    borrow, mutable are accepted and not needed: a caller's array is never changed.
    """

    def __init__(self, variable: Value, name: str | None = None, value: Any = REQUIRED,
                 update: Any = None, mutable: bool = False, strict: bool = False,
                 allow_downcast: bool | None = None, autoname: bool = True,
                 borrow: bool | None = None) -> None:
        if not isinstance(variable, Value):
            raise TypeError(f"In takes a variable, not {variable!r}")
        if update is not None:
            raise TypeError(f"In({variable!r}) has an update; a value that a function keeps and "
                            "changes is a shared variable: w = shared(value), and updates=[(w, "
                            "new)] of function")
        self.variable, self.name = variable, name or (variable.name if autoname else None)
        self.value = REQUIRED if value is None else value
        self.strict, self.allow_downcast = strict, allow_downcast

    def __repr__(self) -> str:
        return f"In({self.variable!r})"

    @property
    def required(self) -> bool:
        return self.value is REQUIRED


class Out:
    """An output of a function.

    borrow  a function that works on a device hands the device's own array out (CuPy's on a GPU)
            instead of a NumPy array.  Either is the caller's own.
    """

    def __init__(self, variable: Value, borrow: bool = False) -> None:
        if not isinstance(variable, Value):
            raise TypeError(f"Out takes a variable, not {variable!r}")
        self.variable, self.borrow = variable, bool(borrow)

    def __repr__(self) -> str:
        return f"Out({self.variable!r}{', borrow=True' if self.borrow else ''})"


@dataclass
class Signature:
    """A closed graph with what each of its inputs and outputs is.

    graph     inputs: one per entry of ``inputs``, then ``shareds``; outputs: ``n_outputs``
              values for the caller, then one new value per entry of ``written``
    form      how results are handed back: 'one', 'list', or the keys of a dict
    borrowed  the numbers of the outputs that stay on the device
    """

    graph: Graph
    inputs: list[In]
    shareds: list[SharedVariable]
    written: list[SharedVariable]
    n_outputs: int
    form: str | tuple[Any, ...]
    borrowed: tuple[int, ...] = ()


def sign(inputs: Any, outputs: Any, updates: Any, givens: Any, on_unused_input: str,
         no_default_updates: Any) -> Signature:
    """Close the graph of a function.  Raises the errors that ``function`` documents."""
    ins = _inputs(inputs)
    values, form, borrowed = _outputs(outputs)
    pairs = _updates(updates)
    given = _pairs(givens, "givens")
    replaced, leaves_ = _replacements(ins, given)
    rebuild = Rebuild(replaced, _Kept(leaves_, given))
    both = rebuild([*values, *pairs.values()])
    roots, new = both[:len(values)], dict(zip(pairs, both[len(values):], strict=True))
    survey, shareds = _default_updates(roots, new, rebuild, no_default_updates)
    _check_closed(survey, leaves_, shareds)
    _report_unused(_unused(survey, ins, leaves_), on_unused_input)
    graph = Graph((*leaves_, *shareds), (*roots, *new.values()))
    return Signature(graph, ins, shareds, list(new), len(roots), form, borrowed)


def altered(signature: Signature, swap: Any, delete_updates: bool) -> Signature:
    """The signature with other shared variables, or without updates.  Raises the errors that
    ``Function.copy`` documents."""
    pairs = _pairs(swap, "swap")
    for old, new in pairs.items():
        if old not in signature.shareds and old not in signature.written:
            raise ValueError(f"swap: the function does not use {describe(old)}")
        if not isinstance(new, SharedVariable):
            raise TypeError(f"swap: {new!r} is not a shared variable")
        if (new.type.dtype, new.type.broadcastable) != (old.type.dtype, old.type.broadcastable):
            raise TypeError(f"swap: {describe(old)} is {old.type}, but {describe(new)} is "
                            f"{new.type}")
    n = signature.n_outputs
    outputs = signature.graph.outputs[:n] if delete_updates else signature.graph.outputs
    kept = {s for v in signature.graph.inputs if v not in pairs for s in _axes(v)}
    outputs = tuple(Rebuild(pairs, kept)(outputs))
    shareds = list(dict.fromkeys(pairs.get(w, w) for w in signature.shareds))
    written = [] if delete_updates else [pairs.get(w, w) for w in signature.written]
    inputs = signature.graph.inputs[:len(signature.inputs)]
    return Signature(Graph((*inputs, *shareds), outputs), signature.inputs, shareds, written, n,
                     signature.form, signature.borrowed)


class _Kept:
    """The symbols that stay defined: axes of inputs and of shared variables, except of those
    that givens replace."""

    def __init__(self, leaves_: Iterable[Value], replaced: Iterable[Value]) -> None:
        self.syms = {s for v in leaves_ for s in _axes(v)}
        self.dropped = {s for v in replaced if v.node is None for s in _axes(v)}

    def __contains__(self, s: object) -> bool:
        return s not in self.dropped and (s in self.syms or isinstance(s, SharedSym))


def _axes(v: Value) -> Iterable[Sym]:
    return (s for d in v.type.dims if (s := d.symbol) is not None)


def _inputs(inputs: Any) -> list[In]:
    if isinstance(inputs, Value):
        raise TypeError(f"inputs must be a list; write [{inputs.name or 'x'}]")
    ins: list[In] = []
    for x in inputs:
        entry = x if isinstance(x, In) else _entry(x) if isinstance(x, (tuple, list)) else x
        if isinstance(entry, Value):
            entry = In(entry)
        if not isinstance(entry, In):
            raise TypeError(f"inputs must hold variables, not {x!r}")
        if isinstance(entry.variable, SharedVariable):
            raise TypeError(f"{describe(entry.variable)} is shared and cannot be an input; to "
                            "feed another value use givens={shared: variable}")
        if any(entry.variable is other.variable for other in ins):
            raise UnusedInputError(f"{describe(entry.variable)} is twice among the inputs")
        ins.append(entry)
    return ins


def _entry(pair: Sequence[Any]) -> Any:
    """A pair (variable, default)."""
    if len(pair) != 2 or not isinstance(pair[0], Value) or isinstance(pair[1], Value):
        return pair
    return In(pair[0], value=pair[1])


def _outputs(outputs: Any) -> tuple[list[Value], str | tuple[Any, ...], tuple[int, ...]]:
    """The variables, the form of results, and which of them are borrowed."""
    form: str | tuple[Any, ...] = "list"
    if outputs is None:
        given = []
    elif isinstance(outputs, Mapping):
        given, form = list(outputs.values()), tuple(outputs)
    elif isinstance(outputs, (list, tuple)):
        given = list(outputs)
    else:
        given, form = [outputs], "one"
    borrowed = tuple(k for k, x in enumerate(given) if isinstance(x, Out) and x.borrow)
    return [_output(x) for x in given], form, borrowed


def _output(x: Any) -> Value:
    x = x.variable if isinstance(x, Out) else x
    if not isinstance(x, Value):
        raise TypeError(f"outputs must be variables, not {x!r}; write T.constant(...) for a "
                        "constant")
    return x


def _pairs(x: Any, what: str) -> dict[Value, Any]:
    """A dict, or a list of pairs, as a dict.  Raises ValueError for a key that comes twice."""
    out: dict[Value, Any] = {}
    for pair in x.items() if isinstance(x, Mapping) else x or ():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"{what} must be a dict or a list of pairs, but holds {pair!r}")
        key, value = pair
        if not isinstance(key, Value):
            raise TypeError(f"{what}: {key!r} is not a variable")
        if key in out:
            raise ValueError(f"{what} name {describe(key)} twice")
        out[key] = value
    return out


def _updates(updates: Any) -> dict[SharedVariable, Value]:
    out: dict[SharedVariable, Value] = {}
    for w, x in _pairs(updates, "updates").items():
        if not isinstance(w, SharedVariable):
            raise TypeError(f"updates: {describe(w)} is not a shared variable; make it with "
                            "shared(...)")
        if any(w.storage is other.storage for other in out):
            raise ValueError(f"updates name the storage of {describe(w)} twice (a clone?)")
        out[w] = _update(w, x)
    return out


def _update(w: SharedVariable, x: Any) -> Value:
    value = x if isinstance(x, Value) else as_value(x, w)
    alike = value.type.dtype == w.type.dtype and value.ndim == w.ndim
    loose = [k for k, (a, b) in enumerate(zip(value.type.dims, w.type.dims, strict=False))
             if b == 1 and a != 1]
    if loose or not alike:
        advice = ""
        if value.type.dtype != w.type.dtype:
            advice = f"; write T.cast(..., '{w.dtype}')"
        elif value.ndim != w.ndim:
            advice = f"; it has {value.ndim} axes instead of {w.ndim}"
        elif alike:
            advice = (f"; axis {loose[0]} must be known to have size 1: write "
                      f"T.addbroadcast(..., {loose[0]})")
        raise TypeError(f"the update of {describe(w)} must have its type, {w.type}, but "
                        f"{describe(value)} is {value.type}{advice}")
    return value


def _replacements(ins: Sequence[In], givens: Mapping[Value, Any]
                  ) -> tuple[dict[Value, Value], list[Value]]:
    """What to replace by what, and the leaf that stands for each input."""
    replaced: dict[Value, Value] = {}
    leaves_: list[Value] = []
    given = {s for e in ins if e.variable.node is None for s in _axes(e.variable)}
    for entry in ins:
        v = entry.variable
        if v.node is not None:
            replaced[v] = _stand_in(v, given)
        leaves_.append(replaced.get(v, v))
    first = Rebuild(dict(replaced), _Everything())
    for old, x in givens.items():
        new = x if isinstance(x, Value) else as_value(x, old)
        if new.type.dtype != old.type.dtype or new.ndim != old.ndim:
            raise TypeError(f"givens: {describe(old)} is {old.type}, but its replacement "
                            f"{describe(new)} is {new.type}; they must have one type: "
                            + (f"write T.cast(..., '{old.dtype}')" if new.ndim == old.ndim else
                               f"give it {old.ndim} axes instead of {new.ndim}"))
        for axis, (a, b) in enumerate(zip(old.type.dims, new.type.dims, strict=True)):
            if a.const is not None and a != b:
                raise TypeError(f"givens: axis {axis} of {describe(old)} is {a}, but of its "
                                f"replacement {describe(new)} it is {b}")
        replaced[old] = first([new])[0]
    return replaced, leaves_


def _stand_in(v: Value, given: set[Sym]) -> Value:
    """The leaf for an intermediate variable that is an input.  An axis whose size is a
    polynomial of sizes that no input gives gets a symbol of its own."""
    dims = []
    for k, d in enumerate(v.type.dims):
        loose = d.const is None and d.symbol is None and not d.syms() <= given
        dims.append(Sym(f"{v.name or 'input'}_{k}", f"axis {k} of {describe(v)}") if loose else d)
    type_ = v.type.with_dims(dim(d) for d in dims)
    return v.result_class()(type_, name=v.name, source=v.source)


class _Everything:
    def __contains__(self, s: object) -> bool:
        return True


def _default_updates(roots: Sequence[Value], new: dict[SharedVariable, Value], rebuild: Rebuild,
                     no_default_updates: Any) -> tuple[Survey, list[SharedVariable]]:
    """Add the default update of every shared variable in use to ``new``, until no more come."""
    survey = Survey((*roots, *new.values()))
    listed = no_default_updates if isinstance(no_default_updates, (list, tuple, set)) else ()
    everything = bool(no_default_updates) and not listed
    handled: dict[SharedVariable, None] = {}
    while True:
        used = [v for v in _shared_in_use(survey) if v not in handled]
        if not used:
            return survey, list(handled)
        for w in used:
            handled[w] = None
            if everything or w.default_update is None or any(w is x for x in listed):
                continue
            if all(w.storage is not other.storage for other in new):
                new[w] = rebuild([_update(w, w.default_update)])[0]
                survey.add([new[w]])


def _shared_in_use(survey: Survey) -> list[SharedVariable]:
    used = {v: None for v in survey.leaves if isinstance(v, SharedVariable)}
    sizes = {s for v in used for s in _axes(v)}
    for s in survey.syms:
        if isinstance(s, SharedSym) and s not in sizes and isinstance(s.variable, SharedVariable):
            used[s.variable] = None
            sizes.update(_axes(s.variable))
    return list(used)


def _check_closed(survey: Survey, leaves_: Sequence[Value], shareds: Sequence[Value]) -> None:
    """Raise MissingInputError for what nothing gives."""
    known = {*leaves_, *shareds}
    missing = [v for v in survey.leaves if v not in known]
    if missing:
        names = "; ".join(map(describe, missing))
        raise MissingInputError(f"the outputs need {names}, which is neither an input nor "
                                "shared; add it to the inputs, or give it a value in givens")
    defined = {s for v in known for s in _axes(v)} | survey.defined
    loose = [s for s in survey.syms if s.value is None and s not in defined]
    inside = [s.origin for s in loose if isinstance(s, OwnSize)]
    if inside:
        raise ShapeError(f"the outputs need the size of {'; '.join(inside)}: without it a size is "
                         "only known where the op itself is computed outside of scans")
    if loose:
        names = "; ".join(s.origin or s.name for s in loose)
        raise MissingInputError(f"the outputs need a size, {names}, of a variable that is neither "
                                "an input nor shared; add the variable to the inputs")


def _unused(survey: Survey, ins: Sequence[In], leaves_: Sequence[Value]) -> list[Value]:
    return [entry.variable for entry, leaf in zip(ins, leaves_, strict=True)
            if leaf not in survey.leaves
            and not any(s in survey.syms for d in leaf.type.dims for s in d.syms())]


def _report_unused(unused: Sequence[Value], policy: str) -> None:
    if policy not in ("raise", "warn", "ignore"):
        raise ValueError(f"on_unused_input is {policy!r}; it must be 'raise', 'warn' or 'ignore'")
    if not unused or policy == "ignore":
        return
    message = (f"no output and no update uses the input {'; '.join(map(describe, unused))}; drop "
               "it, or pass on_unused_input='ignore'")
    if policy == "raise":
        raise UnusedInputError(message)
    warnings.warn(message, stacklevel=4)
