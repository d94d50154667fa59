"""Lists of values as Lasagne's users write them: ``numpy.savez(path, *get_all_param_values(net))``.

An .npz file is a zip archive of .npy files named arr_0, arr_1, ...: without names of parameters,
and with checksums of CRC-32 only.  ``save`` writes better ones.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from tinygraph.compile.variables import SharedVariable
from tinygraph_rnn.saving.files import SavingError, has_broken_bools, write_file
from tinygraph_rnn.saving.names import fitting, named, set_values, values

Path = str | os.PathLike[str]
_LONGEST_HEADER = 4096  # bytes that a .npy file has before its data, at the most
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(?P<kind>[<>|=]?(?:f[248]|[iu][1248]|b1))', "
    rb"'fortran_order': (?P<f>True|False), 'shape': \((?P<shape>[0-9L, ]{,999})\),? ?\} *\n",
    re.DOTALL)
_NUMBER = re.compile(rb"[0-9]+")
# What zipfile raises on bytes that are no sound archive.
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError,
               RuntimeError, ValueError, OverflowError, OSError)


def save_npz(path: Path, network: Any) -> None:
    """Write the values of the parameters of ``network``, in their order, as ``numpy.savez`` does.

    network: anything that ``save`` takes.  The file is replaced at once or not at all; its name is
    ``path``, to which nothing is added.
    """
    buffer = io.BytesIO()
    np.savez(buffer, *values(named(network)).values())
    write_file(path, buffer.getvalue())


def load_npz(path: Path, network: Any, cast: bool = False) -> None:
    """Give the parameters of ``network`` the values arr_0, arr_1, ... of the .npz file ``path``, in
    the order of ``get_all_params``.

    cast: convert values of another dtype, such as float64 ones for a float32 network.

    Raises SavingError, and changes nothing, for a file that is damaged or no such list, and where
    the number, a shape or a dtype does not fit; OSError where there is no file.  Nothing is
    unpickled, and no more is read than the parameters need.
    """
    where = str(os.fspath(path))
    variables = named(network)
    with open(path, "rb") as file:
        data = file.read(os.fstat(file.fileno()).st_size)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(where, archive, list(variables))
            contents = [_content(where, archive, member, v)
                        for member, v in zip(members, variables.values(), strict=True)]
    except SavingError:
        raise
    except _BROKEN_ZIP as error:
        raise SavingError(f"{where} is no .npz file, or is damaged: {error}") from error
    arrays = [
        fitting(where, name, v, _array(f"{where}: arr_{k}, for {name!r},", content, v), cast)
        for k, ((name, v), content) in enumerate(zip(variables.items(), contents, strict=True))]
    set_values(list(variables.values()), arrays)


def _members(where: str, archive: zipfile.ZipFile, names: list[str]) -> list[zipfile.ZipInfo]:
    """The files arr_0.npy, arr_1.npy, ... of the archive, which must be as many as ``names``."""
    found = {member.filename: member for member in archive.infolist()}
    wanted = [f"arr_{k}.npy" for k in range(len(names))]
    if len(found) != len(archive.infolist()):
        raise SavingError(f"{where} has two arrays of one name")
    if len(found) != len(wanted):
        raise SavingError(f"{where} holds {len(found)} arrays, but the network has {len(wanted)} "
                          "parameters; the file is of another network")
    for member, name in zip(wanted, names, strict=True):
        if member not in found:
            raise SavingError(f"{where} has no {member} for {name!r}; it must hold the arrays "
                              f"arr_0 to arr_{len(names) - 1}, as numpy.savez(path, *values) "
                              "writes them")
    return [found[member] for member in wanted]


def _content(where: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo, v: SharedVariable
             ) -> bytes:
    """One file of the archive, if it is no longer than it must be for ``v``."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise SavingError(f"{where} holds {member.filename} compressed in a way that NumPy does "
                          "not use")
    most = _LONGEST_HEADER + 8 * math.prod(v.storage.shape)
    if member.file_size > most:
        raise SavingError(f"{where} holds {member.filename} with {member.file_size} bytes, more "
                          f"than an array of shape {v.storage.shape} needs")
    with archive.open(member) as file:
        return file.read(most)  # without a number it would unpack all before it looks at the size


def _array(what: str, content: bytes, v: SharedVariable) -> np.ndarray:
    """The array in a .npy file.  Its header has one form, which is not evaluated."""
    head = _HEADER.match(content)
    length = int.from_bytes(content[8:10], "little") + 10
    if head is None or head.end() != length:
        raise SavingError(f"{what} is no .npy file with an array of numbers; Python objects are "
                          "never read")
    kind = np.dtype(head["kind"].decode())
    shape = tuple(int(n) for n in _NUMBER.findall(head["shape"]))
    if shape != v.storage.shape:
        raise SavingError(f"{what} has shape {shape}, but the parameter has {v.storage.shape}; "
                          "the file is of another network")
    data = content[length:]
    if len(data) != kind.itemsize * math.prod(shape):
        raise SavingError(f"{what} has {len(data)} bytes of data, which is not what its shape "
                          f"{shape} and dtype {kind} need")
    array = np.frombuffer(data, kind).reshape(shape, order="F" if head["f"] == b"True" else "C")
    if has_broken_bools(array):
        raise SavingError(f"{what} has bools that are neither 0 nor 1")
    return array.astype(kind.newbyteorder("="))
