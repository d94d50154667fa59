"""``function`` and the object it makes: a compiled graph that is called with arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

import numpy as np

from tinygraph.backends.homes import Home, on_host
from tinygraph.compile import saving
from tinygraph.compile.build import build
from tinygraph.compile.check import check_call
from tinygraph.compile.convert import Converter
from tinygraph.compile.entrance import Entrance, method, native_runner
from tinygraph.compile.mode import mode_options
from tinygraph.compile.nan_guard import guard_call, guarded
from tinygraph.compile.profile import Profile, Stopwatch, profiled, timed
from tinygraph.compile.report import Report
from tinygraph.compile.signature import Signature, altered, sign
from tinygraph.compile.variables import GATE, SharedVariable, Turn
from tinygraph.config import config
from tinygraph.graph import Graph, Value, describe

_MAX_SHAPES = 4
_FIRST_CALLS = 2  # so many of a function do without the native entrance


def _no_entrance(*args: Any) -> None:
    """The native entrance of a function that has none, or not yet."""


class Executable(Protocol):
    """What a back end makes of a closed graph.

    Called with one array per input (C-contiguous, aligned, native, the exact dtype and rank) and
    one entry per output: None, or an array into which that output may be written.  Returns one
    array per output, C-contiguous and of the exact dtype, whose memory is the caller's own: no
    two share memory, and none shares with an input.  Never writes an input.  May be called by
    several threads at once.  Raises the user's errors.

    home     where it works: arrays are of that device or NumPy's, results are of that device
    on_host  the numbers of inputs that it reads on the host: NumPy's arrays cost nothing there
    """

    home: Home | None
    on_host: Sequence[int]

    def __call__(self, arrays: list[Any], out: list[Any]) -> list[Any]: ...

    def report(self) -> Report: ...

    def source(self, stage: str = ...) -> str: ...

    def after(self, pass_name: str) -> Any: ...


def function(inputs: Any = (), outputs: Any = None, mode: str | None = None, updates: Any = None,
             givens: Any = None, no_default_updates: Any = False, accept_inplace: bool = False,
             name: str | None = None, rebuild_strict: bool = True,
             allow_input_downcast: bool | None = None, profile: Any = None,
             on_unused_input: str | None = None, *, backend: str | None = None,
             passes: Any = None, check: bool | None = None,
             nan_guard: bool | str | None = None) -> Function:
    """Compile ``outputs`` and ``updates`` as a function of ``inputs``.

    inputs   a list of variables, ``In`` entries or pairs (variable, default); an intermediate
             variable may be an input
    outputs  a variable (a call returns one array), a list (a list), a dict (a dict) or None;
             ``Out(variable, borrow=True)`` is left on the device of a function that works on one
    mode     'FAST_COMPILE' (the interpreter), 'DebugMode' (check=True) or 'NanGuardMode'
             (nan_guard=True) for the options below where they are not given; config.mode, which
             is 'FAST_RUN', unless given
    updates  new values of shared variables: a dict or a list of pairs.  All are computed from
             the old values and stored together when the call has succeeded
    givens   variables (shared and intermediate ones too) with what replaces them
    on_unused_input       'raise', 'warn' or 'ignore'; config.on_unused_input unless given
    allow_input_downcast  True: cast any argument; False: never lose anything; None: the same,
             but a Python float may be rounded into a floatX scalar
    name     for messages and reports
    backend  'llvm', 'cuda', 'numpy', 'loops' or 'shim' (see config.backend, which says unless
             given)
    passes   which passes run: 'all', 'none', names, or '-name' for all but these; as
             config.optimizer says unless given
    check    every call also runs the interpreter, and raises CheckError where results differ or
             a nan or inf appears
    no_default_updates    True, or a list of shared variables: leave ``default_update`` aside
    nan_guard             True ('both'), 'nan' or 'inf': a call whose results or new values of
             shared variables hold such a number raises NotFiniteError, which names the operation
             that made the first one, its line and the scan's step; 'inside': also where no result
             is reached (slow: every call is interpreted).  config.nan_guard unless given

    profile               True: ``f.profile`` says how long each part of the program took

    accept_inplace and rebuild_strict are taken from programs that have them; types are always
    checked, and ``report()`` of the function tells what it consists of.

    Raises MissingInputError, UnusedInputError; TypeError for a type that does not fit; ValueError
    for an update that is named twice.
    """
    del accept_inplace, rebuild_strict
    moded = mode_options(mode, {"backend": backend, "passes": passes, "check": check,
                                "nan_guard": nan_guard})
    moded["nan_guard"] = guarded(moded["nan_guard"], config.nan_guard)
    signature = sign(inputs, outputs, updates, givens, on_unused_input or config.on_unused_input,
                     no_default_updates)
    return Function(signature, {"name": name or "function", "float_x": config.floatX,
                                "gpu": config.gpu,
                                "allow_input_downcast": allow_input_downcast,
                                "profile": timed(profile, moded["backend"]), **moded})


class Function:
    """A compiled function: call it with one argument per input, by position or name.

    name      as given to ``function``
    compiles  how many times it was built: once, and once for each new shape of a shared variable
    Safe to call from several threads; safe to pickle (shared variables go along by value).
    ``trust_input`` is taken from programs that set it; arguments are always looked at.
    """

    trust_input = False

    def __init__(self, signature: Signature, options: dict[str, Any]) -> None:
        self.signature, self.options = signature, options
        self.name: str = options["name"]
        self.compiles = 0
        self._building = threading.Lock()
        self._executables: dict[tuple[Any, ...], Executable] = {}
        self._shapes_seen: list[set[tuple[int, ...]]] = [set() for _ in signature.shareds]
        self._prepare_inputs()
        self._prepare_state()
        self._pack = self._packer()
        self._ready: tuple[Any, Executable]
        self._get([w.storage.shape for w in signature.shareds])
        self._settle(self._ready[1])

    # --- preparation

    def _prepare_inputs(self) -> None:
        self._check: bool = self.options["check"]
        self._guard: str = self.options["nan_guard"]
        self._watched = self._check or self._guard != "off"
        signature, allow = self.signature, self.options["allow_input_downcast"]
        self._converters: list[Converter] = []
        self._fast: list[tuple[int, np.dtype, int]] = []
        for entry in signature.inputs:
            downcast = allow if entry.allow_downcast is None else entry.allow_downcast
            converter = Converter(entry.variable, entry.variable.type, entry.strict, downcast,
                                  self.options["float_x"])
            self._converters.append(converter)
            rank = -1 if converter.fixed else entry.variable.ndim
            self._fast.append((len(self._fast), converter.kind, rank))
        self._n_inputs = len(signature.inputs)
        self._by_name = {e.name: k for k, e in enumerate(signature.inputs) if e.name}

    def _settle(self, executable: Executable) -> None:
        """Work where the first executable does."""
        self._home = executable.home
        self._may_enter = self._home is None and not self._watched
        n, signature = self._n_inputs, self.signature
        self._on_host = [k - n for k in executable.on_host if k >= n]
        self._fetched = [] if self._home is None else [
            k for k in range(signature.n_outputs) if k not in signature.borrowed]
        for converter in self._converters:
            converter.home = self._home
        self._defaults = {k: c(e.value) for k, (e, c) in
                          enumerate(zip(signature.inputs, self._converters, strict=True))
                          if not e.required}

    def _prepare_state(self) -> None:
        signature = self.signature
        self._storages = [w.storage for w in signature.shareds]
        self._written = [w.storage for w in signature.written]
        self._no_out: list[Any] = [None] * signature.n_outputs
        self._spaces: list[np.ndarray] = []  # for all executables
        self._slow_calls = 0
        self._entrance: Entrance | None = None
        self._enter: Callable[..., Any] = _no_entrance

    def _packer(self) -> Any:
        form = self.signature.form
        if form == "one":
            return lambda results: results[0]
        if form == "list":
            return lambda results: results
        return lambda results: dict(zip(form, results, strict=True))

    # --- calling

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            results = self._enter(*args)
            if results is not None:
                return results
        return self._call(args, kwargs)

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A call that is not like one before, or that must wait."""
        if kwargs or len(args) != self._n_inputs:
            args = self._bind(args, kwargs)
        arrays = list(args)
        for k, kind, rank in self._fast:
            x = arrays[k]
            if not (type(x) is np.ndarray and x.dtype is kind and x.ndim == rank
                    and x.flags.carray):
                arrays[k] = self._converters[k](x)
        if self._slow_calls >= _FIRST_CALLS and self._may_enter:
            results = self._natively(arrays)
            if results is not None:
                return results
        results = self._slowly(arrays)
        self._slow_calls += 1
        return self._pack(results)

    def _natively(self, arrays: list[np.ndarray]) -> Any:
        """The results by the native entrance, which learns what it does not know; or None."""
        if self._entrance is None:
            if native_runner(self._ready[1]) is None:
                return None
            native = method()
            if native is None:
                return None
            self._entrance = Entrance(native, self.signature, self._converters, self._storages,
                                      self._written, self._spaces)
        results = self._entrance.call(*arrays)
        while results is None and self._waited():
            results = self._entrance.call(*arrays)
        if results is None and self._learnt(self._entrance, arrays):
            results = self._entrance.call(*arrays)
        self._enter = self._entrance.call
        return results

    def _learnt(self, entrance: Entrance, arrays: list[np.ndarray]) -> bool:
        """Does the entrance know a plan now for calls like this that it did not know before?"""
        turn = Turn(self._storages, [])
        try:
            current, _ = turn.begin()
            executable = self._executable([a.shape for a in current])
            return entrance.learn(executable, arrays + current)
        finally:
            turn.end([])

    def _waited(self) -> bool:
        """Did another call keep this one waiting?  It does not any more."""
        if not self._written:
            return False
        with GATE.closed():
            return GATE.wait(self._written)

    def _slowly(self, arrays: list[Any]) -> list[Any]:
        """The results, with nothing but Python before and after the run."""
        n = self.signature.n_outputs
        if not self._storages and not self._written:
            return self._handed(self._execute(arrays, [], self._no_out))
        turn = Turn(self._storages, self._written, self._home, self._on_host)
        new = list[Any]()
        try:
            current, spares = turn.begin()
            results = self._execute(arrays, current, self._no_out + spares)
            handed = self._handed(results[:n])
            new = results[n:]
            return handed
        finally:
            turn.end(new)

    def _handed(self, results: list[Any]) -> list[Any]:
        """The results as the caller gets them."""
        home = self._home
        if home is None:
            return results
        return [home.get(r) if k in self._fetched else r for k, r in enumerate(results)]

    def _execute(self, arrays: list[Any], current: list[Any], out: list[Any]) -> list[Any]:
        executable = self._executable([a.shape for a in current])
        everything = arrays + current
        if executable.home is self._home:
            results = executable(everything, out)
        else:
            results = self._elsewhere(executable, everything)
        if self._watched:
            inputs, found = ([on_host(a, self._home) for a in arrays]
                             for arrays in (everything, results))
            if self._check:
                check_call(self.signature, inputs, found)
            if self._guard != "off":
                guard_call(self._guard, self.name, self.signature, inputs, found)
        return results

    def _elsewhere(self, executable: Executable, arrays: list[Any]) -> list[Any]:
        """The results of an executable that, for other shapes of shared variables than the first
        had, does not work where the function does."""
        home, n = self._home, len(self.signature.graph.outputs)
        results = executable([on_host(a, home) for a in arrays], [None] * n)
        found = [on_host(r, executable.home) for r in results]
        return found if home is None else [home.put(a) for a in found]

    def _executable(self, shapes: list[tuple[int, ...]]) -> Executable:
        """The executable for these shapes of the shared variables."""
        known, executable = self._ready
        return executable if shapes == known else self._get(shapes)

    def _bind(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments by position.  Raises TypeError where they do not fit."""
        given = dict(enumerate(args))
        if len(args) > self._n_inputs:
            self._refuse_call(f"{len(args)} arguments were passed")
        for name, x in kwargs.items():
            k = self._by_name.get(name)
            if k is None:
                self._refuse_call(f"there is no input named {name!r}")
            if k in given:
                self._refuse_call(f"{name!r} was passed twice")
            given[k] = x
        missing = [k for k in range(self._n_inputs) if k not in given and k not in self._defaults]
        if missing:
            names = ", ".join(describe(self.signature.inputs[k].variable) for k in missing)
            self._refuse_call(f"Missing required input: {names}")
        return tuple(given[k] if k in given else self._defaults[k]
                     for k in range(self._n_inputs))

    def _refuse_call(self, fact: str) -> NoReturn:
        expected = ", ".join(describe(e.variable) + ("" if e.required else " with a default")
                             for e in self.signature.inputs) or "no arguments"
        raise TypeError(f"{self.name}: {fact}; it expects {expected}")

    # --- building

    def _get(self, shapes: list[tuple[int, ...]]) -> Executable:
        """The executable for these shapes of the shared variables, built where there is none.

        A variable that keeps changing shape is no longer built for: its sizes become symbols.
        """
        with self._building:
            for seen, shape in zip(self._shapes_seen, shapes, strict=True):
                if len(seen) <= _MAX_SHAPES:
                    seen.add(shape)
            fixed: dict[Value, tuple[int, ...]] = {
                w: shape for w, shape, seen in
                zip(self.signature.shareds, shapes, self._shapes_seen, strict=True)
                if len(seen) <= _MAX_SHAPES}
            key = tuple(fixed.get(w) for w in self.signature.shareds)
            executable = self._executables.get(key)
            if executable is None:
                options = self.options
                executable = build(self.signature.graph, name=self.name,
                                   backend=options["backend"], passes=options["passes"],
                                   shared_shapes=fixed, gpu=options.get("gpu"),
                                   profile=options.get("profile", False))
                runner = native_runner(executable)
                if runner is not None:
                    runner.spaces = self._spaces
                self.compiles += 1
                self._executables[key] = executable
            self._ready = (shapes, executable)
            return executable

    # --- looking inside

    @property
    def graph(self) -> Graph:
        """The closed graph: inputs, then shared variables; outputs, then new values."""
        return self.signature.graph

    @property
    def inputs(self) -> list[Value]:
        """The input variables."""
        return [e.variable for e in self.signature.inputs]

    @property
    def outputs(self) -> list[Value]:
        """The output expressions (with givens replaced)."""
        return list(self.signature.graph.outputs[:self.signature.n_outputs])

    @property
    def updates(self) -> dict[SharedVariable, Value]:
        """The shared variables that a call changes, and their new values."""
        new = self.signature.graph.outputs[self.signature.n_outputs:]
        return dict(zip(self.signature.written, new, strict=True))

    @property
    def shared(self) -> list[SharedVariable]:
        """The shared variables that a call reads."""
        return list(self.signature.shareds)

    def get_shared(self) -> list[SharedVariable]:
        """The shared variables that a call reads or changes."""
        return list(dict.fromkeys((*self.signature.shareds, *self.signature.written)))

    def copy(self, share_memory: bool = False, swap: Any = None, delete_updates: bool = False,
             name: str | None = None, profile: Any = None) -> Function:
        """Another function like this one.  swap: {shared variable: the one that takes its
        place, of the same type}.  delete_updates: it changes no shared variable.  profile: as
        for ``function``; as this one unless given.  share_memory is taken from programs that
        have it.

        Raises TypeError for another type, ValueError for a variable that this function does not
        use.
        """
        del share_memory
        options = {**self.options, "name": name or self.name}
        if profile is not None:
            options["profile"] = timed(profile, options["backend"])
        return Function(altered(self.signature, swap or {}, delete_updates), options)

    @property
    def profile(self) -> Profile | None:
        """How long the parts of the program took in all calls so far: ``f.profile.summary()``;
        None for a function that was compiled without profile=True."""
        watches = [w for e in self._executables.values()
                   if isinstance(w := getattr(e, "stopwatch", None), Stopwatch)]
        return profiled(self.name, watches) if self.options.get("profile") else None

    def report(self) -> Report:
        """What the compiler did, as data that prints readably."""
        report = self._ready[1].report()
        report.compiles = self.compiles
        return report

    def source(self, stage: str = "graph") -> str:
        """The program at a stage of compilation, as text."""
        return self._ready[1].source(stage)

    def after(self, pass_name: str) -> Any:
        """The graph as it stood after a pass."""
        return self._ready[1].after(pass_name)

    def __repr__(self) -> str:
        ins = ", ".join(e.name or str(e.variable.type) for e in self.signature.inputs)
        outs = ", ".join(str(v.type) for v in self.outputs)
        new = ", ".join(w.name or "shared" for w in self.signature.written)
        return f"<function {self.name}({ins}) -> [{outs}]" + (f" updates {new}>" if new else ">")

    def __reduce__(self) -> Any:
        return _load, (saving.dumps((self.signature, self.options)),)


def _load(data: bytes) -> Function:
    return Function(*saving.loads(data))
