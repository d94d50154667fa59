"""The parameters of a network in a file: ``save`` and ``load``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygraph_rnn.saving.files import (
    SavingError,
    Stored,
    encoded,
    read_file,
    shortened,
    write_file,
)
from tinygraph_rnn.saving.names import fitting, named, set_values, values

Path = str | os.PathLike[str]


def save(path: Path, network: Any, **metadata: Any) -> None:
    """Write the parameters of ``network`` by name to the file ``path``, in safetensors format.

    network: a layer, a list of layers, a list or dict of shared variables, or cells (anything with
    ``params``).  Names are those that docs/rnn/saving.md tells.
    metadata: anything that JSON can hold; ``read_metadata`` returns it.

    The file is replaced at once or not at all.  Raises TypeError for what cannot be saved, OSError
    where the file cannot be written.
    """
    check_json(metadata, "metadata")
    tensors = values(named(network))
    write_file(path, encoded(tensors, {
        "kind": "parameters", "parameters": list(tensors), "metadata": metadata}))


def load(path: Path, network: Any = None, strict: bool = True, cast: bool = False,
         foreign: bool = False) -> dict[str, np.ndarray] | None:
    """Give the parameters of ``network`` the values that ``save`` or ``checkpoint`` wrote; without
    a network, return them as a dict from name to array.

    strict: names must be the same in both; with False the ones they share are loaded.
    cast: convert values of another dtype, such as float64 ones for a float32 network.
    foreign: take a file that another program wrote, which has no digest to tell of damage.

    Raises SavingError, and changes nothing, for a file that is damaged or no such file, and where
    a name, shape or dtype does not fit; OSError where there is no file.
    """
    stored = read_file(path, foreign)
    names = list(stored.tensors) if stored.info is None else stored.names("parameters")
    if network is None:
        return {name: stored.tensors[name].copy() for name in names}
    variables = named(network)
    if strict:
        check_names(stored, list(variables), names, "parameters",
                    "; strict=False loads what both have")
    common = [name for name in variables if name in set(names)]
    if not common and variables:
        stored.refuse(f"has none of the parameters of the network: it has {shortened(names)}, the "
                      f"network {shortened(list(variables))}")
    arrays = [fitting(stored.path, n, variables[n], stored.tensors[n], cast) for n in common]
    set_values([variables[n] for n in common], arrays)
    return None


def read_metadata(path: Path) -> dict[str, Any]:
    """What was given to ``save`` as metadata.  Raises as ``load``."""
    stored = read_file(path)
    return stored.part("metadata", dict)


def check_names(stored: Stored, ours: Sequence[str], theirs: Sequence[str], what: str,
                advice: str = "") -> None:
    """Raise SavingError unless program and file have the same names."""
    have, held = set(ours), set(theirs)
    missing = [n for n in ours if n not in held]
    extra = [n for n in theirs if n not in have]
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f"lacks the {what} {shortened(missing)}")
    if extra:
        parts.append(f"has {shortened(extra)}, which are not here")
    raise SavingError(f"{stored.path} does not fit here: it {' and '.join(parts)}{advice}")


def check_json(value: Any, where: str) -> None:
    """Raise TypeError unless ``value`` is None, a bool, a number, a string, or a list or dict (with
    strings as keys) of such."""
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        for key, inner in value.items():
            check_json(inner, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for k, inner in enumerate(value):
            check_json(inner, f"{where}[{k}]")
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise TypeError(f"{where} is {value!r}, but only None, bools, numbers and strings can be "
                        "kept, and lists and dicts (with strings as keys) of them; write "
                        "float(x) or x.tolist() for a number or an array of NumPy inside them")
