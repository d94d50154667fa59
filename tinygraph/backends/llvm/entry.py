"""The native entrance of compiled functions: a function of CPython's own kind, made of LLVM code.

>>> method = load(compile_entry())     # once per process
>>> call = method(state)               # call(*arguments) -> result, list of results, or None

``entry_ir.py`` says what ``state`` holds and what the code does.  The code reads arrays and lists
where they lie in memory; ``layout`` finds out whether they lie as expected, and where they do not
(another implementation of Python, a build without the GIL) there is no entrance.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from tinygraph.backends.llvm import entry_ir, recycle
from tinygraph.dtypes import ALL

ALIGNMENT = 64  # of a workspace
_FASTCALL = 0x80  # METH_FASTCALL: called with an array of arguments and their number
# Places in NumPy's table of functions.
_ARRAY_TYPE, _NEW_FROM_DESCR, _GET_HANDLER, _DEFAULT_HANDLER = 2, 94, 305, 306
_PLAIN = 0x101  # NPY_ARRAY_C_CONTIGUOUS and NPY_ARRAY_ALIGNED


class Method:
    """The loaded entrance.  It stays loaded until the process ends."""

    class _Definition(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("code", ctypes.c_void_p),
                    ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]

    def __init__(self, address: int) -> None:
        self._definition = self._Definition(b"enter", address, _FASTCALL, None)
        self._new = ctypes.pythonapi["PyCFunction_NewEx"]
        self._new.restype = ctypes.py_object
        self._new.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]

    def __call__(self, state: list[Any]) -> Callable[..., Any]:
        """The entrance with ``state``.  Needs this object alive."""
        return self._new(ctypes.addressof(self._definition), state, None)


@functools.cache
def layout() -> dict[str, int] | None:
    """Where this Python and this NumPy keep what the code reads; None if that is not known."""
    if (platform.python_implementation() != "CPython" or sys.maxsize < 2**32
            or sysconfig.get_config_var("Py_GIL_DISABLED")):
        return None
    head = object.__basicsize__
    found = {
        "object_type": head - 8, "list_size": head, "list_items": head + 8, "scalar_value": head,
        "array_data": head, "array_axes": head + 8, "array_shape": head + 16,
        "array_dtype": head + 40, "array_flags": head + 48, "array_handler": head + 72,
        "plain_flags": _PLAIN, "alignment": ALIGNMENT,
    }  # fmt: skip
    right = (_lists_lie(found) and _scalars_lie(found)
             and all(_lies(a, found) for a in _probes()) and _creates() is not None
             and _handles(found))
    return found if right else None


def _at(x: Any, offset: int) -> int:
    return ctypes.c_int64.from_address(id(x) + offset).value


def _int_at(x: Any, offset: int) -> int:
    return ctypes.c_int32.from_address(id(x) + offset).value


def _probes() -> list[np.ndarray]:
    """Arrays of several kinds that together tell every field from its neighbours."""
    plain = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    frozen = np.zeros((3, 5))
    frozen.flags.writeable = False
    raw = np.zeros(17, np.uint8)
    return [plain, plain[:, 1:, ::2], plain.T, frozen, raw[1:].view(np.float64), np.array(3),
            np.zeros((0, 7), np.int8), np.ones(1, bool)]


def _lies(a: np.ndarray, at: dict[str, int]) -> bool:
    """Does ``a`` lie as expected?  What is not is found out before any address is followed."""
    axes, flags = _int_at(a, at["array_axes"]), _int_at(a, at["array_flags"])
    shape, strides = _at(a, at["array_shape"]), _at(a, at["array_shape"] + 8)
    plain = flags & _PLAIN == _PLAIN
    if (axes != a.ndim or _at(a, at["object_type"]) != id(np.ndarray)
            or _at(a, at["array_data"]) != a.__array_interface__["data"][0]
            or _at(a, at["array_dtype"]) != id(a.dtype)
            or plain != (a.flags.c_contiguous and a.flags.aligned)):
        return False
    if not axes:
        return True
    # One piece of memory holds the shape and, behind it, the strides.
    return shape % 8 == 0 and strides - shape == 8 * axes and tuple(
        ctypes.c_int64.from_address(shape + 8 * k).value for k in range(axes)) == a.shape


def _lists_lie(at: dict[str, int]) -> bool:
    x: list[Any] = [None, "a", 3.5]
    items = _at(x, at["list_items"])
    return _at(x, at["object_type"]) == id(list) and _at(x, at["list_size"]) == 3 and [
        ctypes.c_int64.from_address(items + 8 * k).value for k in range(3)] == [id(v) for v in x]


def _scalars_lie(at: dict[str, int]) -> bool:
    scalars = [np.array([1], kind.np)[0] for kind in ALL]
    return all(ctypes.string_at(id(x) + at["scalar_value"], x.itemsize) == x.tobytes()
               for x in scalars)


@functools.cache
def _table() -> int | None:
    """The address of NumPy's table of functions, if it begins as it should; else None."""
    core = sys.modules.get("numpy._core._multiarray_umath") or sys.modules.get(
        "numpy.core._multiarray_umath")
    table = getattr(core, "_ARRAY_API", None)
    if table is None:
        return None
    start = _pointer(table, None)
    return start if _word(start + 8 * _ARRAY_TYPE) == id(np.ndarray) else None


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _pointer(capsule: Any, name: bytes | None) -> int:
    get = ctypes.pythonapi["PyCapsule_GetPointer"]
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


@functools.cache
def _creates() -> int | None:
    """The address of PyArray_NewFromDescr, if calling it makes an array; else None."""
    table = _table()
    address = _word(table + 8 * _NEW_FROM_DESCR) if table else 0
    if not address:
        return None
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int,
                             *[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_void_p)(address)
    kind, shape = np.dtype(np.float32), (ctypes.c_int64 * 2)(3, 5)
    ctypes.pythonapi["Py_IncRef"](ctypes.py_object(kind))  # the call takes one away
    made = make(np.ndarray, kind, 2, ctypes.addressof(shape), None, None, 0, None)
    right = type(made) is np.ndarray and made.shape == (3, 5) and made.dtype is kind
    return address if right and made.flags.owndata and made.flags.carray else None


def _handles(at: dict[str, int]) -> bool:
    """Do arrays name the handler of their memory as expected, and is NumPy's own as expected?"""
    table = _table()
    if table is None:
        return False
    get = ctypes.PYFUNCTYPE(ctypes.py_object)(_word(table + 8 * _GET_HANDLER))
    own, view = np.zeros((2, 3)), np.zeros((2, 3))[1:]
    return (_at(own, at["array_handler"]) == id(get()) and not _at(view, at["array_handler"])
            and _default_handler() is not None)


def _default_handler() -> tuple[int, int] | None:
    """The addresses of the capsule with NumPy's default handler and of the handler."""
    table = _table()
    if table is None:
        return None
    capsule = _word(_word(table + 8 * _DEFAULT_HANDLER))
    handler = _pointer(ctypes.cast(capsule, ctypes.py_object), recycle.CAPSULE)
    version = ctypes.c_uint8.from_address(handler + recycle.HANDLER_VERSION).value
    return (capsule, handler) if version == 1 else None


def key() -> str:
    """A text that differs wherever the code of the entrance could."""
    text = entry_ir.source(layout() or {})
    version = ".".join(map(str, llvm.llvm_version_info))
    return (f"entry;{hashlib.sha256(text.encode()).hexdigest()};{platform.machine()};"
            f"{sys.platform};llvm{version}")


def compile_entry() -> bytes:
    """The object code, for any machine of this architecture.  Needs a ``layout``."""
    at = layout()
    assert at is not None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(entry_ir.source(at), llvm.create_context())
    # Not optimised: the code only looks around, and is there ten times sooner.
    machine = llvm.Target.from_default_triple().create_target_machine(
        opt=0, reloc="pic", jit=True)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return machine.emit_object(module)


def load(data: bytes) -> Method:
    """The entrance of this process, from its object code."""
    builder = llvm.JITLibraryBuilder()
    builder.add_object_img(data)
    for name in (*entry_ir.IMPORTS, *recycle.IMPORTS):
        place = ctypes.cast(ctypes.pythonapi[name], ctypes.c_void_p).value
        assert place is not None
        builder.import_symbol(name, place)
    create, table, default = _creates(), _table(), _default_handler()
    assert create is not None and table is not None and default is not None
    builder.import_symbol("PyArray_NewFromDescr", create)
    builder.import_symbol(recycle.GET_HANDLER, _word(table + 8 * _GET_HANDLER))
    builder.import_symbol(recycle.DEFAULT_CAPSULE, default[0])
    builder.import_symbol(recycle.DEFAULT, default[1])
    for name, value in zip(entry_ir.TYPES, (np.ndarray, float, int, None), strict=True):
        builder.import_symbol(name, id(value))
    builder.export_symbol(entry_ir.ENTRY)
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        opt=0, reloc="pic", jit=True)
    linker = llvm.create_lljit_compiler(machine)
    tracker = builder.link(linker, "tinygraph.entry")
    address = tracker[entry_ir.ENTRY]
    # Functions that Python keeps to its very end run in this code, so nothing may unload it.
    tracker.detach()
    linker.detach()
    return Method(address)
