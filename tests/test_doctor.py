"""``python -m tinygraph doctor`` says what works here and what the rest needs."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinygraph
from tinygraph import __main__, doctor
from tinygraph.backends.cuda import device, nvrtc
from tinygraph.config import config

ROOT = Path(__file__).parents[1]


def lines(text: str) -> dict[str, str]:
    """What is said about every back end."""
    return dict(re.findall(r"^(\w+) +(.+)$", text.split("\n\n")[1], re.MULTILINE))


def test_the_command():
    done = subprocess.run([sys.executable, "-m", "tinygraph", "doctor"], capture_output=True,
                          text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    found = lines(done.stdout)
    assert list(found) == list(doctor.BACKENDS)
    assert {found[name] for name in ("llvm", "loops", "numpy")} == {"works"}
    assert f"numpy {np.__version__}" in done.stdout
    assert f"tinygraph {tinygraph.__version__}" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["nurse"]])
def test_other_commands_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        __main__.main(arguments)
    assert caught.value.code == 2 and "doctor" in capsys.readouterr().err


def test_what_cuda_needs_stands_line_by_line(monkeypatch):
    monkeypatch.setattr(device, "obstacles", lambda: ["no driver", "no CuPy (pip install it)"])
    out = io.StringIO()
    assert doctor.doctor(out) == 0
    assert "cuda   no driver\n       no CuPy (pip install it)\n" in out.getvalue()


def test_a_back_end_that_fails_says_how(monkeypatch):
    def trial(backend):
        if backend == "llvm":
            raise OSError("no executable memory")

    monkeypatch.setattr(device, "obstacles", lambda: [])
    assert doctor.examine("llvm", trial).problem == "OSError: no executable memory"
    assert doctor.examine("cuda", trial).problem == ""
    monkeypatch.setattr(doctor, "examine",
                        lambda backend: doctor.Finding(backend, "broken" * (backend == "llvm")))
    out = io.StringIO()
    assert doctor.doctor(out) == 1
    assert lines(out.getvalue())["llvm"] == "broken"


def test_wrong_numbers_are_no_success(monkeypatch):
    monkeypatch.setattr(doctor, "_by_hand", lambda x, w: [np.float64(1), np.ones((2, 2))])
    assert "AssertionError: a small recurrent net gives" in doctor.examine("numpy").problem


def test_a_cache_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with warnings.catch_warnings(), config.change(cache="on", cache_dir=blocked / "cache"):
        assert any("cannot be written" in line for line in doctor.machine())
    with config.change(cache="on", cache_dir=tmp_path):
        assert any(f"cache {tmp_path} (can be written)" in line for line in doctor.machine())
    with config.change(cache="off"):
        assert any("switched off" in line for line in doctor.machine())


def test_a_gpu_is_named(monkeypatch):
    class Gpu:
        name, arch, multiprocessors, products = "GPU 1", "sm_90", 132, None

    monkeypatch.setattr(nvrtc, "driver_version", lambda: 12040)
    monkeypatch.setattr(device, "require_cuda", Gpu)
    said = "\n".join(doctor.machine())
    assert "driver for CUDA 12.4" in said
    assert "GPU GPU 1, sm_90, 132 multiprocessors, no cuBLAS" in said


def test_the_wheels_that_are_named_are_the_extras():
    text = (ROOT / "pyproject.toml").read_text()
    for extra, major in (("cuda", 13), ("cuda12", 12)):
        block = re.search(rf"^{extra} = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
        assert block is not None
        names = {re.split("[<>=]", name)[0] for name in re.findall(r'"([^"]+)"', block[1])}
        assert names == set(nvrtc.WHEELS[major])


def test_import_needs_no_cupy():
    """Nothing of CuPy is imported, or tried, before a GPU is asked for."""
    program = ("import sys; sys.modules['cupy'] = None; import tinygraph, tinygraph.doctor\n"
               "from tinygraph.backends.cuda import cublas, device, gpu, nvrtc\n"
               "print(sorted(m for m in sys.modules if m.startswith('cupy')))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          cwd=ROOT, check=True, timeout=120)
    assert done.stdout.strip() == "['cupy']"  # the None that stands in its way
