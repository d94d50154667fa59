"""A GPU where there is none: fake_cupy, with kernels run by the shim at the addresses that a
launch names, and streams that are captured.

What a launch passes are words; where one of them is no address of memory that is there, or what
lies there is shorter than the kernel reads, the test fails.
"""

from __future__ import annotations

import re
import types
from dataclasses import dataclass

import fake_cupy
from fake_cupy import STATE

from tinygraph.backends.cuda import nvrtc
from tinygraph.backends.cuda.shim import Shim

THREADS = 64  # of a block: the shim runs them one after another, and kernels take any number
MULTIPROCESSORS = 6


@dataclass
class Node:
    """A launch: its argument words are those at the time of the launch."""

    name: str
    run: object
    together: bool


class Gpu:
    """The device: what it has done.

    singles  names of kernels launched by themselves;  graphs  the nodes of every graph;
    replayed  how often a graph was launched;  products  how many cuBLAS has computed
    """

    def __init__(self, log):
        self.log = log
        self.functions = {}
        self.forget()
        self.graphs = []

    def forget(self):
        self.singles, self.replayed, self.products = [], 0, 0

    def done(self):
        """Launches by themselves, graphs launched, and products since the last time."""
        done = len(self.singles), self.replayed, self.products
        self.forget()
        return done

    def launch(self, f, gx, gy, gz, bx, by, bz, shared, stream, params, extra):
        self._launch(f, (gx, gy, gz), (bx, by, bz), shared, stream, params, False)
        assert extra == 0

    def launch_together(self, f, gx, gy, gz, bx, by, bz, shared, stream, params):
        self._launch(f, (gx, gy, gz), (bx, by, bz), shared, stream, params, True)

    def _launch(self, f, grid, block, shared, stream, params, together):
        self.check(f, *grid, *block, shared, stream, params)
        node = self.functions[f].node(grid[0], shared, params, together)
        assert stream == STATE.stream.ptr
        if STATE.stream.nodes is not None:
            STATE.stream.nodes.append(node)
        else:
            self.singles.append(node.name)
            node.run()


class Module:
    def __init__(self, gpu):
        self.gpu = gpu

    def load(self, cubin):
        source = cubin.decode()
        kernels = [types.SimpleNamespace(name=name, shared_bytes=0) for name in re.findall(
            r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(', source)]
        self.shim = Shim(source, kernels, THREADS)

    def get_function(self, name):
        return Function(self, name)


class Function:
    def __init__(self, module, name):
        self.module, self.name = module, name
        self.ptr = 1000 + len(module.gpu.functions)
        module.gpu.functions[self.ptr] = self

    def node(self, blocks, shared, params, together):
        shim, log = self.module.shim, self.module.gpu.log
        entry = shim._entries[self.name]
        words = fake_cupy.words(params, len(entry.buffers) + len(entry.scalars))

        def run():
            log.launches.append((self.name, words))
            buffers = [STATE.pool.at(word, dtype) for word, (_, dtype) in zip(
                words, entry.buffers, strict=False)]
            shim.launch(self.name, blocks, None, buffers, words[len(buffers):],
                        shared_bytes=shared, together=together)
        return Node(self.name, run, together)


class Stream(fake_cupy.Stream):
    """``nodes``: what has been launched since its capture began."""

    gpu: Gpu

    def synchronize(self):
        assert self.nodes is None

    def begin_capture(self, mode=None):
        super().begin_capture(mode)
        self.nodes = []

    def end_capture(self):
        super().end_capture()
        nodes, self.nodes = self.nodes, None
        self.gpu.graphs.append(nodes)
        return Graph(self.gpu, nodes)


class Graph:
    def __init__(self, gpu, nodes):
        self.gpu, self.nodes = gpu, nodes

    def launch(self, stream=None):
        self.gpu.replayed += 1
        for node in self.nodes:
            node.run()


def install(monkeypatch, **settings):
    """Put the GPU where ``import cupy`` finds it, and back end 'cuda' too."""
    gpu = Gpu(fake_cupy.install(monkeypatch, **settings))
    import cupy

    def gemm(name):
        plain = getattr(cupy.cuda.cublas, name)

        def call(*arguments):
            if STATE.stream.nodes is not None:
                raise NotImplementedError("calling cuBLAS API during stream capture")
            gpu.products += 1
            plain(*arguments)
        return call

    gpu.check = cupy.cuda.driver.check
    monkeypatch.setattr(Stream, "gpu", gpu, raising=False)
    cupy.cuda.function = types.SimpleNamespace(Module=lambda: Module(gpu))
    cupy.cuda.Stream = Stream
    cupy.cuda.runtime.deviceGetAttribute = lambda code, number: {
        16: MULTIPROCESSORS, 97: 227 << 10}[code]
    cupy.cuda.driver.launchKernel = gpu.launch
    cupy.cuda.driver.launchCooperativeKernel = gpu.launch_together
    for name in ("sgemm", "dgemm"):
        setattr(cupy.cuda.cublas, name, gemm(name))
    monkeypatch.setattr(nvrtc, "driver_version", lambda: 12040)
    monkeypatch.setattr(nvrtc, "opened", lambda: None)  # nothing is kept
    monkeypatch.setattr(nvrtc, "_compile", lambda source, options, name: source.encode())
    return gpu
