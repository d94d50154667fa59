"""The numbers of a workload, as all implementations of it read them from one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Problem:
    """One workload's data.

    parameters  the float32 arrays that are trained, by name
    batches     the minibatches that steps go through in turn, each its arrays by name
    options     what else the implementations need to know: numbers and texts by name
    """

    parameters: dict[str, np.ndarray]
    batches: list[dict[str, np.ndarray]] = field(default_factory=lambda: [{}])
    options: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write an npz file."""
        arrays = {f"parameter/{k}": v for k, v in self.parameters.items()}
        for n, batch in enumerate(self.batches):
            arrays |= {f"batch/{n}/{k}": v for k, v in batch.items()}
        arrays |= {f"option/{k}": np.asarray(v) for k, v in self.options.items()}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Problem:
        """Read what ``save`` wrote."""
        parameters, options = {}, {}
        batches: dict[int, dict[str, np.ndarray]] = {}
        with np.load(path) as file:
            for key in file.files:
                kind, name = key.split("/", 1)
                if kind == "parameter":
                    parameters[name] = file[key]
                elif kind == "option":
                    options[name] = file[key].item()
                else:
                    number, name = name.split("/", 1)
                    batches.setdefault(int(number), {})[name] = file[key]
        return cls(parameters, [batches[n] for n in sorted(batches)] or [{}], options)


def pack(results: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Results by kind and name as one dict of arrays, for an npz file."""
    return {f"{kind}/{name}": np.asarray(value)
            for kind, arrays in results.items() for name, value in arrays.items()}


def unpack(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """What ``pack`` packed."""
    out: dict[str, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        kind, name = key.split("/", 1)
        out.setdefault(kind, {})[name] = value
    return out
