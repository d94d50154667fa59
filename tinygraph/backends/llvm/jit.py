"""Object code: from a program, to bytes, into this process.

>>> code = compile_program(program)          # bytes that any process of this machine can load
>>> native = load(code)                      # native(sizes, args, arena, fault) -> int
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import platform
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import llvmlite.binding as llvm

from tinygraph.backends.llvm import gemm, parts, threads
from tinygraph.backends.llvm.emit import VECTORISE, Emitter, emit
from tinygraph.config import processors
from tinygraph.dtypes import DType
from tinygraph.errors import InternalError
from tinygraph.loops.language import For, Gemm, Program, walk

KERNELS = 1  # goes into the cache key: count it up when emitted code changes its meaning


@dataclass(frozen=True)
class ObjectCode:
    """A compiled program.

    name      the exported function
    data      the object files, the program's own and those of the products it calls
    llvm_ir   the module before optimisation
    seconds   what emitting, optimising and code generation took together
    pool      the object file of the pool of threads, if the program has work to share
    """

    name: str
    data: bytes
    llvm_ir: str
    seconds: float
    pool: bytes = b""


class Native:
    """A loaded function: ``native(sizes, args, arena, fault)`` with addresses as int.

    Returns 0, or site + 1 of the Check that failed.  The GIL is released during the call, and any
    number of threads may call at once with memory of their own.  The code lives as long as this.
    """

    def __init__(self, tracker: llvm.orcjit.ResourceTracker, name: str, linker: llvm.LLJIT) -> None:
        self.name = name
        self._linker = linker  # must outlive the tracker
        self.address: int = tracker[name]
        self._tracker = tracker
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 4)
        self._function = prototype(self.address)

    def __call__(self, sizes: int, args: int, arena: int, fault: int) -> int:
        return self._function(sizes, args, arena, fault)


# functools.cache alone may build a thing twice when threads come at once, and drop one in use.
_LOCK = threading.RLock()


@functools.cache
def _initialised() -> bool:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return True


@functools.cache
def _features() -> dict[str, bool]:
    _initialised()
    return dict(llvm.get_host_cpu_features())


def _machine() -> llvm.TargetMachine:
    """This process's target machine: the host's CPU with all it can do."""
    with _LOCK:
        return _shared_machine()


@functools.cache
def _shared_machine() -> llvm.TargetMachine:
    return _new_machine()


def _new_machine() -> llvm.TargetMachine:
    _initialised()
    features = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(_features().items()))
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=1, reloc="pic", jit=True
    )


def _linker() -> llvm.LLJIT:
    """The linker of this process; every function is a library of its own in it."""
    with _LOCK:
        return _shared_linker()


@functools.cache
def _shared_linker() -> llvm.LLJIT:
    return llvm.create_lljit_compiler(_new_machine())


@functools.cache
def _serial() -> itertools.count[int]:
    return itertools.count()


def _library_name() -> str:
    """A name that no library of the linker has had."""
    with _LOCK:
        return f"tinygraph.{next(_serial())}"


@functools.cache
def host() -> gemm.Target:
    """What the emitter must know about this machine."""
    features, machine = _features(), platform.machine().lower()
    x86 = machine in ("x86_64", "amd64", "i686", "i386")
    arch = "x86" if x86 else ("aarch64" if machine in ("aarch64", "arm64") else "other")
    wide = features.get("avx512f", False)
    width = 64 if wide else (32 if features.get("avx2", False) else 16)
    registers = 32 if wide or arch == "aarch64" else 16
    attributes = '"denormal-fp-math"="preserve-sign,preserve-sign"'
    if wide:
        attributes += ' "prefer-vector-width"="512"'
    return gemm.Target(arch, width, registers, wide, attributes)


def target_key(target: gemm.Target | None = None) -> str:
    """A text that differs wherever the same program could compile to other code."""
    target = target or host()
    features = ",".join(name for name, on in sorted(_features().items()) if on)
    version = ".".join(map(str, llvm.llvm_version_info))
    return f"{llvm.get_host_cpu_name()};{features};llvm{version};{target};kernels{KERNELS}"


def compile_program(
    program: Program, *, opt_level: int = 1, target: gemm.Target | None = None
) -> ObjectCode:
    """Compile ``program`` for this machine.

    ``opt_level`` 1 takes a fifth of the optimiser's time of 2 and 3 and leaves code that is hardly
    slower where all inner loops are vector loops.
    Raises InternalError if the program breaks the rules of the loop language.
    """
    start = time.perf_counter()
    target = target or host()
    begun: list[Future[bytes]] = []
    emitter = Emitter(program, target)
    if processors() > 1:
        emitter.ready = lambda nests: begun.append(parts.beside(
            functools.partial(_object_file, nests, program.name, opt_level)))
    text = emitter.module()
    files = [*_object_files(emitter.rest, program.name, opt_level),
             *(future.result() for future in begun),
             *(_product_kernels(d, target) for d in _gemm_dtypes(program))]
    shared = any(isinstance(s, For) and s.mode == "parallel" for s in walk(program.body))
    pool = threads.object_code() if shared else b""
    seconds = time.perf_counter() - start
    return ObjectCode(program.name, _join(files), text, seconds, pool)


def _object_files(text: str, name: str, opt_level: int) -> list[bytes]:
    """The code of a module, as object files that make it up together."""
    return parts.side_by_side(lambda part: _object_file(part, name, opt_level),
                              parts.cut(text, processors()))


def _object_file(text: str, name: str, opt_level: int) -> bytes:
    machine = _new_machine()
    return parts.object_file(machine, _optimised(text, name, opt_level, machine))


def prepare_products(dtypes: Iterable[DType]) -> None:
    """Begin to compile the products of ``dtypes`` on a thread of their own.  The work is LLVM's
    and needs no Python, so that it goes on beside the passes that make the program."""
    for dtype in dtypes:
        _products(dtype, host())
    threads.prepare()


def _product_kernels(dtype: DType, target: gemm.Target) -> bytes:
    """The object file of the products of ``dtype``, compiled once per process."""
    return _products(dtype, target).result()


def _products(dtype: DType, target: gemm.Target) -> Future[bytes]:
    with _LOCK:
        return _begin_products(dtype, target, os.getpid())


@functools.cache
def _begin_products(dtype: DType, target: gemm.Target, process: int) -> Future[bytes]:
    """``process``: a fork has none of its parent's threads, and begins anew."""
    future: Future[bytes] = Future()
    machine = _new_machine()

    def work() -> None:
        # Register tiles are written as they shall run, so there is nothing to optimise.
        try:
            module = _parsed(gemm.kernels(dtype, target), f"{dtype} products")
            future.set_result(parts.object_file(machine, module))
        except BaseException as error:  # the waiting thread raises it
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def _join(files: list[bytes]) -> bytes:
    """Object files behind one another, each after its length in 8 bytes."""
    return b"".join(len(x).to_bytes(8, "little") + x for x in files)


def objects(data: bytes) -> list[bytes]:
    """The object files in ``ObjectCode.data``."""
    files = []
    while data:
        size = int.from_bytes(data[:8], "little")
        files.append(data[8 : 8 + size])
        data = data[8 + size :]
    return files


def _parsed(text: str, name: str) -> llvm.ModuleRef:
    """The module of ``text``, checked, for this machine."""
    machine = _machine()
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.verify()
    except RuntimeError as error:
        raise InternalError(f"LLVM rejects the code of {name!r}: {error}") from error
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return module


def _optimised(text: str, name: str, opt_level: int, machine: llvm.TargetMachine | None = None
               ) -> llvm.ModuleRef:
    """The module of ``text`` after the optimiser: 0 nothing, 1 five passes, 2 and 3 all.
    ``machine``: one that nobody else uses; without it, no two threads come here at once."""
    module = _parsed(text, name)
    options = llvm.create_pipeline_tuning_options(speed_level=opt_level)
    options.loop_vectorization = options.slp_vectorization = opt_level >= 2
    builder = llvm.create_pass_builder(machine or _machine(), options)
    if opt_level == 1:
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        passes.add_instruction_combine_pass()
        passes.add_new_gvn_pass()
        passes.add_dead_code_elimination_pass()
        if machine is None:
            passes.run(module, builder)
        else:
            parts.run_passes(passes, module, builder)
    elif VECTORISE in text:
        builder.getModulePassManager().run(module, builder)
    elif opt_level:
        # Loops are vector code already: the scalar half of the pipeline does, at half the price.
        manager = builder.getFunctionPassManager()
        for function in module.functions:
            if not function.is_declaration:
                manager.run(function, builder)
    return module


def _gemm_dtypes(program: Program) -> list[DType]:
    used = {s.c.buffer.dtype for s in walk(program.body) if isinstance(s, Gemm)}
    return sorted(used, key=str)


def panel(dtype: DType) -> int:
    """How many columns of a matrix this machine's products pack together."""
    return gemm.panel(dtype, host())


def load(code: ObjectCode, imports: Mapping[str, int] | None = None) -> Native:
    """Link ``code`` into this process.  ``imports``: the addresses of what it calls outside."""
    builder = llvm.JITLibraryBuilder()
    for data in objects(code.data):
        builder.add_object_img(data)
    builder.add_current_process()  # memset, memcpy and memmove
    if code.pool:
        builder.import_symbol(threads.SYMBOL, threads.address(code.pool))
    for name, address in (imports or {}).items():
        builder.import_symbol(name, address)
    builder.export_symbol(code.name)
    linker = _linker()
    tracker = builder.link(linker, _library_name())
    return Native(tracker, code.name, linker)


def optimised_ir(program: Program, *, opt_level: int = 1, target: gemm.Target | None = None) -> str:
    """The LLVM IR of ``program`` after the optimiser."""
    return str(_optimised(emit(program, target or host()), program.name, opt_level))


def assembly(program: Program, *, opt_level: int = 1, target: gemm.Target | None = None) -> str:
    """The machine code of ``program`` as assembly text."""
    module = _optimised(emit(program, target or host()), program.name, opt_level)
    return _machine().emit_assembly(module)
