"""What cells written by users cost beside the built-in LSTM: a training step, side by side.

    python benchmarks/custom_cell.py [--units 128] [--batch 64] [--features 64] [--steps 100]
                                     [--seconds 0.3] [--blocks 10] [--threads 2]

The cells of ``examples/custom_cell.py``, built-in ones among them, are trained on the square of the
last state by Adam in float32.  All are compiled in this process, then take turns, a block of steps
each.  The table has the median and the minimum of a step in milliseconds, and both divided by the
LSTM's, the median as that of the ratios of the turns.
"""

from __future__ import annotations

import argparse
import runpy
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import table

import tinygraph
import tinygraph.tensor as T
import tinygraph_rnn as lasagne
from tinygraph_rnn.layers import GRULayer, InputLayer, get_all_params, get_output

EXAMPLE = Path(__file__).parents[1] / "examples" / "custom_cell.py"


def training(cell: Any, features: int, units: int) -> Any:
    """The training function of one cell: (batch, time, features) -> cost."""
    l_in = InputLayer((None, None, features))
    layer = cell(l_in, units, grad_clipping=100.0, only_return_final=True)
    cost = T.mean(get_output(layer) ** 2)
    updates = lasagne.updates.adam(cost, get_all_params(layer, trainable=True))
    return tinygraph.function([l_in.input_var], cost, updates=updates)


def measure(cells: dict[str, Any], options: argparse.Namespace) -> list[list[str]]:
    """A row of figures for each cell; the first one is what all are divided by."""
    shape = (options.batch, options.steps, options.features)
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    steps = [training(cell, options.features, options.units) for cell in cells.values()]
    times: list[list[np.ndarray]] = [[] for _ in steps]
    for turn in range(options.blocks + 1):
        for step, found in zip(steps, times, strict=True):
            block, end = [], time.perf_counter() + options.seconds
            while len(block) < 2 or time.perf_counter() < end:
                start = time.perf_counter()
                step(x)
                block.append(time.perf_counter() - start)
            if turn:
                found.append(np.array(block[1:]) * 1e3)
    medians = np.array([[np.median(block) for block in found] for found in times])
    least = np.array([min(block.min() for block in found) for found in times])
    ratios = np.median(medians / medians[0], axis=1)
    return [[name, f"{np.median(m):.3f}", f"{n:.3f}", f"{r:.2f}", f"{n / least[0]:.2f}"]
            for name, m, n, r in zip(cells, medians, least, ratios, strict=True)]


def main(argv: list[str] | None = None) -> list[list[str]]:
    """Print the table; returns its rows."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="of a sequence")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a block")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    cells = {**runpy.run_path(str(EXAMPLE))["CELLS"], "gru": GRULayer}
    with tinygraph.config.change(floatX="float32", threads=options.threads):
        rows = measure(cells, options)
    print(table([["a training step", "ms", "least", "times", "of the least"], *rows]))
    return rows


if __name__ == "__main__":
    main()
