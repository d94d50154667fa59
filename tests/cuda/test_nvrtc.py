"""The prelude compiles; what NVRTC refuses is said; what it made is kept."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import fake_cupy
import pytest
from compiling import compiles, needs_nvrtc, targets

from tinygraph.backends.cuda import nvrtc
from tinygraph.backends.cuda.prelude import prelude
from tinygraph.config import config
from tinygraph.errors import InternalError, UnavailableError

HALVE = """\
extern "C" __global__ void halve(float* x, long long n) {
    for (long long i = threadIdx.x; i < n; i += blockDim.x) x[i] *= 0.5f;
}
"""


@pytest.fixture(autouse=True)
def no_cache():
    with config.change(cache="off"):
        yield


@pytest.fixture
def counted(monkeypatch):
    """The names of programs that are compiled."""
    names = list[str]()
    true = nvrtc._compile
    monkeypatch.setattr(nvrtc, "_compile", lambda source, options, name: (
        names.append(name) or true(source, options, name)))
    return names


@needs_nvrtc
def test_the_prelude_compiles():
    found = compiles(prelude() + HALVE)
    assert list(found) == targets() and {"sm_80", "sm_90"} <= set(found)
    for cubin in found.values():
        assert cubin.startswith(b"\x7fELF") and b"halve" in cubin
        # The last table of an ELF file ends with the file: no byte is missing.
        table = int.from_bytes(cubin[40:48], "little")
        size, count = (int.from_bytes(cubin[k:k + 2], "little") for k in (58, 60))
        headers = int.from_bytes(cubin[32:40], "little")
        each, number = (int.from_bytes(cubin[k:k + 2], "little") for k in (54, 56))
        assert max(table + size * count, headers + each * number) == len(cubin)


@needs_nvrtc
def test_what_is_wrong_is_said():
    wrong = HALVE.replace("0.5f", "half_of_one")
    with pytest.raises(InternalError) as caught:
        nvrtc.compile_source(wrong, "sm_80", "rnn")
    said = str(caught.value)
    assert said.startswith("NVRTC refuses the kernels of rnn (--gpu-architecture=sm_80)")
    assert "rnn.cu(2): error" in said and '"half_of_one" is undefined' in said
    assert "line 2 of the text: for (long long i" in said
    with pytest.raises(InternalError, match="invalid value for --gpu-architecture"):
        nvrtc.compile_source(HALVE, "sm_7", "rnn")


@needs_nvrtc
def test_cubins_are_kept(tmp_path, counted):
    with config.change(cache="on", cache_dir=tmp_path):
        first = nvrtc.compile_source(HALVE, "sm_80", "a")
        assert nvrtc.compile_source(HALVE, "sm_80", "another name") == first
        nvrtc.compile_source(HALVE, "sm_90", "b")
        nvrtc.compile_source(HALVE + "\n", "sm_80", "c")
        assert counted == ["a", "b", "c"]
        for entry in Path(tmp_path).iterdir():  # cut short, as by a full disk
            entry.write_bytes(entry.read_bytes()[:-100])
        assert nvrtc.compile_source(HALVE, "sm_80", "again") == first
        assert counted[-1] == "again"
    nvrtc.compile_source(HALVE, "sm_80", "not kept")
    assert counted[-1] == "not kept"


@needs_nvrtc
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with config.change(cache="on", cache_dir=blocked), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert nvrtc.compile_source(HALVE, "sm_80", "a").startswith(b"\x7fELF")
    assert any("is not kept" in str(w.message) for w in said)


@needs_nvrtc
def test_compiling_loads_nothing_but_the_compiler():
    assert nvrtc.available() is None and nvrtc.version() >= (12, 0)
    assert {80, 90} <= set(nvrtc.architectures())
    assert sys.modules["cupy"].cuda.nvrtc is not None


def test_without_cupy_it_says_so(monkeypatch):
    monkeypatch.setattr(nvrtc, "driver_version", lambda: None)
    with fake_cupy.no_cupy(monkeypatch):
        assert nvrtc.available() == f"CuPy is not installed ({nvrtc.pip_line()})"
        with pytest.raises(UnavailableError, match="CuPy is not installed"):
            nvrtc.compile_source(HALVE, "sm_80", "a")


def test_another_nvrtc_has_other_cubins(tmp_path, monkeypatch):
    """The key holds NVRTC's version, so a new one does not take what an old one made."""
    monkeypatch.setattr(nvrtc, "_compile", lambda source, options, name: name.encode())
    with config.change(cache="on", cache_dir=tmp_path):
        fake_cupy.install(monkeypatch, nvrtc=(12, 8))
        assert nvrtc.compile_source(HALVE, "sm_80", "old") == b"old"
        fake_cupy.install(monkeypatch, nvrtc=(12, 9))
        assert nvrtc.compile_source(HALVE, "sm_80", "new") == b"new"
        assert nvrtc.compile_source(HALVE, "sm_80", "newer") == b"new"
