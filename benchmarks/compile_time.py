"""How compile time grows: seconds of graphs of 200 to 2000 nodes and the exponent of the fit, loops
of few and of many outputs per node, one compilation for all lengths.

    python benchmarks/compile_time.py [--quick] [--only KIND ...]

The seconds are those that the process worked (all its threads), the least of several runs, so that
what else the machine does matters little.  The cache of compiled code is off.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tinygraph
import tinygraph.tensor as T

SIZES = (200, 500, 1000, 2000)
Built = tuple[list[Any], Any]  # inputs, a scalar


def mixed(n: int) -> Built:
    """About ``n`` nodes of all kinds: elementwise functions, products, reductions, with values
    that are read several times."""
    rng = np.random.default_rng(0)
    x, w, u = T.matrices("x", "w", "u")
    values, count = [T.tanh(T.dot(x, w))], 2
    while count < n:
        a, b = (values[-1 - int(rng.integers(0, min(8, len(values))))] for _ in range(2))
        choice = int(rng.integers(0, 10))
        if choice < 3:
            values.append(a + b * 0.5)
        elif choice < 6:
            values.append(T.tanh(a))
        elif choice < 8:
            values.append(a * b)
        elif choice < 9:
            values.append(T.dot(a, u))
        else:
            values.append(a - b.sum(axis=0))
        count += (2, 2, 2, 1, 1, 1, 1, 1, 1, 3)[choice]
    return [x, w, u], sum(v.mean() for v in values[-8:])


def chain(n: int) -> Built:
    """``n`` elementwise functions, each of the one before."""
    x = T.matrix("x")
    v = x
    for k in range(n):
        v = (T.tanh(v), v * 1.01, v + x)[k % 3]
    return [x], v.sum()


def wide(n: int) -> Built:
    """``n`` nodes beside one another that read one input."""
    x = T.matrix("x")
    return [x], sum(T.tanh(x * (1.0 + k)).sum() for k in range(n // 4))


def layers(n: int) -> Built:
    """``n`` nodes of dense layers, each with weights of its own."""
    x = T.matrix("x")
    weights, v = [T.matrix(f"w{k}") for k in range(n // 2)], x
    for w in weights:
        v = T.tanh(T.dot(v, w))
    return [x, *weights], v.sum()


GRAPHS: dict[str, Callable[[int], Built]] = {
    "mixed": mixed, "chain": chain, "wide": wide, "layers": layers}


def states(k: int) -> Built:
    """A loop of ``k`` states, each stacked."""
    x, starts = T.tensor3("x"), [T.matrix(f"h{i}") for i in range(k)]

    def step(x_t: Any, *h: Any) -> list[Any]:
        return [T.tanh(x_t * (0.1 * i + 1) + v * 0.5) for i, v in enumerate(h)]

    outs, _ = tinygraph.scan(step, sequences=x, outputs_info=starts)
    return [x, *starts], sum((o * o).sum() for o in (outs if k > 1 else [outs]))


def products(k: int) -> Built:
    """A loop of ``k`` states with a product each."""
    x, starts = T.tensor3("x"), [T.matrix(f"h{i}") for i in range(k)]
    weights = [T.matrix(f"w{i}") for i in range(k)]

    def step(x_t: Any, *h: Any) -> list[Any]:
        return [T.tanh(x_t + T.dot(v, w)) for v, w in zip(h, weights, strict=True)]

    outs, _ = tinygraph.scan(step, sequences=x, outputs_info=starts)
    return [x, *starts, *weights], sum((o * o).sum() for o in (outs if k > 1 else [outs]))


LOOPS: dict[str, Callable[[int], Built]] = {"states": states, "products": products}


def seconds(build: Callable[[int], Built], n: int, gradient: bool, repeat: int
            ) -> tuple[int, float, float]:
    """Nodes of the user's graph, least seconds of the gradient, least seconds of function()."""
    best, nodes = [float("inf")] * 2, 0
    for _ in range(repeat):
        inputs, cost = build(n)
        start = time.process_time()
        outputs = [cost, *tinygraph.grad(cost, inputs)] if gradient else [cost]
        middle = time.process_time()
        f = tinygraph.function(inputs, outputs)
        end = time.process_time()
        best = [min(best[0], middle - start), min(best[1], end - middle)]
        nodes = f.graph.size
    return nodes, best[0], best[1]


def exponent(nodes: Sequence[int], times: Sequence[float]) -> float:
    """p where times are about nodes ** p."""
    return float(np.polyfit(np.log(nodes), np.log(times), 1)[0])


def growth(kinds: Sequence[str], sizes: Sequence[int], repeat: int) -> None:
    """Print seconds by size, and the exponents."""
    print(f"{'graph':<18}{'nodes':>34}{'ms of function()':>34}{'exponent':>10}")
    for kind in kinds:
        for gradient in (False, True):
            rows = [seconds(GRAPHS[kind], n, gradient, repeat) for n in sizes]
            nodes, times = [r[0] for r in rows], [r[2] for r in rows]
            name = kind + (" + gradient" if gradient else "")
            print(f"{name:<18}{'  '.join(map(str, nodes)):>34}"
                  f"{'  '.join(f'{t * 1e3:.0f}' for t in times):>34}"
                  f"{exponent(nodes, times):>10.2f}", flush=True)


def loops(few: int, many: int, repeat: int) -> None:
    """Print the time per node of loops with few and with many outputs, gradients included."""
    for name, build in LOOPS.items():
        found = []
        for k in (few, many):
            nodes, gradient, rest = seconds(build, k, True, repeat)
            found.append((gradient + rest) / nodes)
            print(f"loop of {k} {name}, and its gradient: {nodes} nodes, "
                  f"{found[-1] * 1e6:.0f} us per node", flush=True)
        print(f"    {many} outputs over {few}, per node: {found[1] / found[0]:.2f}")


def lengths() -> None:
    """Print how many compilations loops of 10 and of 10000 steps take."""
    inputs, cost = states(2)
    f = tinygraph.function(inputs, [cost, *tinygraph.grad(cost, inputs)])
    for steps in (10, 10_000):
        f(np.zeros((steps, 2, 3), "float32"), *[np.zeros((2, 3), "float32")] * 2)
    print(f"T=10 and T=10000: {f.report().compiles} compilation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller graphs, one run of each")
    parser.add_argument("--only", nargs="*", default=[], choices=[*GRAPHS, "loops"])
    options = parser.parse_args()
    repeat = 1 if options.quick else 3
    with tinygraph.config.change(cache="off", floatX="float32"):
        seconds(chain, 20, True, 1)  # what is compiled once per process
        kinds = [k for k in GRAPHS if not options.only or k in options.only]
        if kinds:
            growth(kinds, SIZES[:2] if options.quick else SIZES, repeat)
        if not options.only or "loops" in options.only:
            loops(4, 20 if options.quick else 100, repeat)
            lengths()


if __name__ == "__main__":
    main()
