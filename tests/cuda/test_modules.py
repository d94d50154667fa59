"""Kernels are compiled once, several at one time, and found again in other programs."""

from __future__ import annotations

import re
from pathlib import Path

import fake_cupy
import pytest
from compiling import kernels_in, needs_nvrtc
from test_scans import tutorial

from tinygraph.backends.cuda import modules, nvrtc
from tinygraph.backends.cuda.modules import canonical, compile_kernels
from tinygraph.backends.cuda.prelude import prelude
from tinygraph.config import config
from tinygraph.errors import InternalError

KERNEL = """\
extern "C" __global__ void {name}(BUF({type}) {x}, I64 {n}) {{
    const I64 {i} = threadIdx.x;  // of {name}
    if ({i} < {n}) {x}[{i}] = tg_exp({x}[{i}] + {number});
}}
"""


def kernel(name: str, number: float = 1, x: str = "x", n: str = "n", i: str = "i",
           type: str = "float") -> str:
    return KERNEL.format(name=name, number=number, x=x, n=n, i=i, type=type)


@pytest.fixture
def made(monkeypatch, tmp_path):
    """The sources that are compiled; by nobody."""
    sources = list[str]()
    fake_cupy.install(monkeypatch)
    monkeypatch.setattr(nvrtc, "_compile", lambda source, options, name: (
        sources.append(source) or source.encode()))
    monkeypatch.setattr(modules, "_LEAST", 10.0)
    with config.change(cache="on", cache_dir=tmp_path):
        yield sources


def compiled(texts, programs=2, head="head\n", arch="sm_90"):
    """By the name of a kernel, the cubin and the entry."""
    return {kernel: (m.code, entry) for m in compile_kernels(head, texts, arch, "test", programs)
            for kernel, entry in m.entries.items()}


def test_kernels_that_differ_in_names_are_one(made):
    texts = [kernel("k0_nest"), kernel("k12_nest", x="t4", n="n13", i="i_2"), kernel("k2_nest", 2)]
    found = compiled(texts, 1)
    assert len(made) == 1 and made[0].count("__global__") == 2
    assert found["k0_nest"] == found["k12_nest"] != found["k2_nest"]
    code, entry = found["k2_nest"]
    assert re.fullmatch(r"nest_[0-9a-f]{8}", entry) and f"void {entry}(".encode() in code


@pytest.mark.parametrize("other", [
    kernel("k0_nest", 2), kernel("k0_nest", type="double"),
    kernel("k0_nest").replace("tg_exp", "tg_log"), kernel("k0_nest").replace("< n", "< i"),
    kernel("k0_nest").replace("threadIdx", "blockIdx"),
    kernel("k0_nest").replace("threadIdx.x", "threadIdx.y")])
def test_what_makes_a_difference_is_seen(other):
    assert canonical(kernel("k0_nest"))[1] != canonical(other)[1]


def test_a_parameter_may_be_called_as_a_member_is():
    assert canonical(kernel("k0_nest", x="y"))[1] == canonical(kernel("k0_nest"))[1]
    assert "threadIdx.x" in canonical(kernel("k0_nest"))[1]


def test_a_program_that_changes_keeps_the_rest(made):
    first = compiled([kernel("k0_nest"), kernel("k1_scan", 2), kernel("k2_nest", 3)], 1)
    again = compiled([kernel("k0_scan", 2), kernel("k1_nest", 4), kernel("k2_nest", 1)], 1)
    assert len(made) == 2 and made[1].count("__global__") == 1 and "+ 4" in made[1]
    assert again["k0_scan"] == first["k1_scan"]
    assert again["k2_nest"] == first["k0_nest"] and again["k1_nest"][0] == made[1].encode()
    compiled([kernel("k0_nest")], arch="sm_80")
    compiled([kernel("k0_nest")], head="another prelude\n")
    assert len(made) == 4
    assert compiled([kernel("k0_nest")]) == {"k0_nest": first["k0_nest"]}
    assert len(made) == 4


def test_a_module_that_is_lost_is_made_again(made, tmp_path):
    texts = [kernel("k0_nest"), kernel("k1_nest", 2)]
    found = compiled(texts, 1)
    for entry in Path(tmp_path).iterdir():
        if b"head" in entry.read_bytes():
            entry.unlink()
    assert compiled(texts, 1) == found and made == [made[0]] * 2
    assert compiled(texts, 1) == found and len(made) == 2


def test_kernels_are_dealt_out(made):
    long = "".join(f"    x[{k}] = 0;\n" for k in range(100))
    texts = [kernel(f"k{k}_nest", k) for k in range(4)]
    texts.append(kernel("k4_nest").replace("    if", long + "    if"))
    found = compiled(texts, 2)
    assert [source.count("__global__") for source in sorted(made, key=len)] in ([2, 3], [3, 2])
    assert {code for code, _ in found.values()} == {source.encode() for source in made}
    assert list(found) != [] and set(found) == {f"k{k}_nest" for k in range(5)}
    assert compile_kernels("head", [], "sm_90", "test") == []


@needs_nvrtc
@pytest.mark.parametrize("programs", [1, 3])
def test_a_training_function_is_compiled(programs):
    with config.change(cache="off"):
        f, _ = tutorial("shim")
        texts = kernels_in(f.source("cuda"))
        made = compile_kernels(prelude(), texts, "compute_80", "tutorial", programs)
    entries = {}
    for module in made:
        for entry in module.entries.values():
            assert f".entry {entry}(".encode() in module.code
        entries |= module.entries
    assert len(made) == programs and sorted(entries) == sorted(
        canonical(text)[0] for text in texts)
    assert len(set(entries.values())) < len(entries)  # some are but for their names the same


@needs_nvrtc
def test_what_is_wrong_is_said():
    with config.change(cache="off"), pytest.raises(InternalError, match="tg_wrong"):
        compile_kernels(prelude(), [kernel("k0_nest"), kernel("k1_nest").replace("_exp", "_wrong")],
                        "compute_80", "rnn")
