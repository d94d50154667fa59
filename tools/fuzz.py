"""Random programs, compiled, against the plain interpreter.

    python tools/fuzz.py                        1000 programs
    python tools/fuzz.py --count 20000          more
    python tools/fuzz.py --first 5000           from this seed on
    python tools/fuzz.py --seed 1414            this one program, with its traceback
    python tools/fuzz.py --backend loops        slowly, every access to memory checked
    python tools/fuzz.py --backend shim         CUDA kernels on the CPU, races found too

The generator is that of the tests (tests/lowering/graph_fuzz.py): every op that users reach,
scans with their gradients included.  Every program is compiled once and run under several sizes.
Prints the seeds that fail, each with the first line of its error; exit status 1 if any does.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "lowering"),
                str(Path(__file__).parents[1] / "tests")]

import graph_fuzz  # noqa: E402
import models  # noqa: E402
from tqdm import tqdm  # noqa: E402

import tinygraph  # noqa: E402


def check(seed: int, backend: str) -> None:
    """Raise AssertionError if the program of ``seed`` computes anything else than it should."""
    fuzz = graph_fuzz.Fuzz(seed)
    fuzz.grow(4 + seed % 9)
    outputs = fuzz.outputs(3)
    f = tinygraph.function(fuzz.inputs, outputs, backend=backend, on_unused_input="ignore")
    oracle = tinygraph.function(fuzz.inputs, outputs, backend="numpy", on_unused_input="ignore")
    for arrays in fuzz.arrays[:None if backend == "llvm" else 4]:
        models.assert_close(f(*arrays), oracle(*arrays), floor=1.0)
    assert f.compiles == 1, f"compiled {f.compiles} times"


def main() -> int:
    """Run as the command line says; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--backend", default="llvm", choices=("llvm", "loops", "shim"))
    args = parser.parse_args()
    tinygraph.config.cache = "off"
    if args.seed is not None:
        check(args.seed, args.backend)
        return 0
    failed = []
    for seed in tqdm(range(args.first, args.first + args.count), mininterval=5):
        try:
            check(seed, args.backend)
        except Exception as error:  # every failure is a finding, whatever it is
            failed.append(seed)
            where = traceback.extract_tb(error.__traceback__)[-1]
            first = (str(error).strip().splitlines() or [""])[0][:150]
            tqdm.write(f"{seed}: {type(error).__name__} in {where.name}: {first}")
    print(f"{args.count} programs, {len(failed)} failed: {failed[:20]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
