"""Runs the test suite once for each pass of the compiler, with that pass left out.

    python tools/every_pass_off.py                          every pass, the whole suite
    python tools/every_pass_off.py --passes sink,join       these passes
    python tools/every_pass_off.py tests/rnn tests/scan     these tests (values, mostly)
    python tools/every_pass_off.py --threads 1,2            each of them with 1 and with 2 threads

Prints one line for each run, and the end of the output of those that fail.  Exit status 1 if any
does.  Tests marked ``counts`` say what passes do and are skipped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from tinygraph.passes.pipeline import PIPELINE

ROOT = Path(__file__).parents[1]


def run(name: str, threads: str, tests: list[str]) -> bool:
    """One run of the suite; True if it passes."""
    environment = {**os.environ, **({"TINYGRAPH_THREADS": threads} if threads else {})}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
               "--without-pass", name, *tests]
    start = time.perf_counter()
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = result.stdout.strip().splitlines() or result.stderr.strip().splitlines() or [""]
    on = f", {threads} threads" if threads else ""
    print(f"without {name}{on}: {lines[-1].strip('= ')} ({time.perf_counter() - start:.0f} s)",
          flush=True)
    if result.returncode:
        print("\n".join(f"    {line}" for line in lines[-25:-1]), flush=True)
    return result.returncode == 0


def main() -> int:
    names = list(dict.fromkeys(p.name for p in PIPELINE))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tests", nargs="*", help="files and folders; all tests unless given")
    parser.add_argument("--passes", default=",".join(names), help="names with commas between")
    parser.add_argument("--threads", default="", help="such as 1,2; as configured unless given")
    options = parser.parse_args()
    asked = options.passes.split(",")
    unknown = [n for n in asked if n not in names]
    if unknown:
        parser.error(f"there is no pass {unknown[0]!r}; the passes are {', '.join(names)}")
    outcomes = [run(name, threads, options.tests)
                for name in asked for threads in options.threads.split(",")]
    print(f"{sum(outcomes)} of {len(outcomes)} runs passed")
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
