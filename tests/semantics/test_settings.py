"""Settings as programs that come from Theano make them: by assignment, for a block, by
environment; each of them read when it is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import tinygraph
import tinygraph.tensor as T
from tinygraph.config import Config, Count, Foreign, Setting

# Every setting with another value than its default, as the environment has it.
OTHER = {
    "floatX": "float64", "backend": "numpy", "cache_dir": "elsewhere/cache", "cache": "off",
    "nan_guard": "nan", "mode": "FAST_COMPILE", "optimizer": "None", "on_unused_input": "warn",
    "threads": "3", "device": "cuda1", "exception_verbosity": "low",
    "compute_test_value": "warn", "warn_float64": "ignore", "allow_gc": "False", "cxx": "",
    "profile": "False",
}
NAMES = [name for name, value in vars(Config).items() if isinstance(value, (Setting, Count))]
ONE_VALUE = {"warn_float64", "cxx", "profile"}


@pytest.fixture(autouse=True)
def double_precision():
    """The settings of this file are its own."""


@pytest.fixture(scope="module")
def in_another_environment():
    """The settings of a process whose environment has all of OTHER, set after the import."""
    program = (
        "import os, tinygraph\n"
        f"os.environ.update({{'TINYGRAPH_' + k.upper(): v for k, v in {OTHER!r}.items()}})\n"
        f"print([(k, getattr(tinygraph.config, k)) for k in {NAMES!r}])\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True, timeout=60, env={k: v for k, v in os.environ.items()
                                                       if not k.startswith("TINYGRAPH_")})
    return dict(eval(done.stdout))


def test_every_setting_is_tried_here():
    assert set(NAMES) == set(OTHER)


@pytest.mark.parametrize("name", NAMES)
def test_by_environment_variable_when_it_is_read(name, in_another_environment):
    value = in_another_environment[name]
    assert str(value) == OTHER[name]
    setting = vars(Config)[name]
    if isinstance(setting, Setting) and name not in ONE_VALUE:
        assert value != setting.default


@pytest.mark.parametrize("name", NAMES)
def test_by_assignment_and_for_a_block(name):
    config, setting = Config(), vars(Config)[name]
    before = getattr(config, name)
    with config.change(**{name: OTHER[name]}):
        inside = getattr(config, name)
        assert str(inside) == OTHER[name]
    assert getattr(config, name) == before
    kept = setting.word.value if isinstance(setting, Count) else setting.process_value
    try:
        setattr(config, name, inside)
        assert getattr(config, name) == inside
    finally:
        if isinstance(setting, Count):
            setting.word.value = kept
        else:
            setting.process_value = kept


@pytest.mark.parametrize("name", [n for n in NAMES if n != "cache_dir"])
def test_bad_values_name_what_is_allowed(name):
    allowed = ("at least 1" if name == "threads" else
               repr(vars(Config)[name].choices[0]).strip("'"))
    with pytest.raises(ValueError, match=f"config.{name} is 'wrong'; it must be .*{allowed}"):
        setattr(tinygraph.config, name, "wrong")
    with pytest.raises(ValueError, match=f"config.{name} is 'wrong'"), \
            tinygraph.config.change(**{name: "wrong"}):
        pass


def test_a_bad_environment_variable_is_named(monkeypatch):
    monkeypatch.setenv("TINYGRAPH_FLOATX", "float16")
    with pytest.raises(ValueError, match="environment variable TINYGRAPH_FLOATX is 'float16'; it "
                                         "must be one of 'float32', 'float64'"):
        T.matrix()
    monkeypatch.setenv("TINYGRAPH_FLOATX", "")
    assert T.matrix().dtype == "float32"


def test_unknown_settings_name_those_that_exist():
    for name, advice in (("float_x", "threads"), ("linker", "set backend"),
                         ("openmp", "set threads"), ("compiledir", "set cache_dir")):
        with pytest.raises(AttributeError, match=f"no setting '{name}'.*floatX.*{advice}"):
            setattr(tinygraph.config, name, "x")
        with pytest.raises(AttributeError, match=f"no setting '{name}'.*{advice}"):
            getattr(tinygraph.config, name)
        with pytest.raises(AttributeError, match=advice), tinygraph.config.change(**{name: "x"}):
            pass
    assert not hasattr(tinygraph.config, "gcc")


def test_foreign_settings_say_what_to_do():
    with pytest.raises(ValueError, match="config.cxx is 'g..'; it must be '': no C.. compiler"):
        tinygraph.config.cxx = "g++"
    assert all(vars(Config)[n].advice for n in NAMES if isinstance(vars(Config)[n], Foreign))


def test_the_device_says_which_back_end_where_nobody_does(monkeypatch):
    config = tinygraph.config
    assert (config.device, config.backend, config.gpu) == ("cpu", "llvm", None)
    for name, device, number in (("cuda", "cuda", None), ("gpu", "cuda", None),
                                 ("gpu0", "cuda0", 0), ("cuda12", "cuda12", 12)):
        with config.change(device=name):
            assert (config.device, config.backend, config.gpu) == (device, "cuda", number)
            with config.change(backend="numpy"):
                assert config.backend == "numpy"
    monkeypatch.setenv("TINYGRAPH_DEVICE", "gpu1")
    assert (config.device, config.backend, config.gpu) == ("cuda1", "cuda", 1)
    monkeypatch.setenv("TINYGRAPH_BACKEND", "loops")
    assert config.backend == "loops"
    for wrong in ("cpu0", "cuda-1", "opencl", "cuda 1", ""):
        with pytest.raises(ValueError, match="must be 'cpu', 'cuda', or 'cuda0', 'cuda1', ..."):
            config.device = wrong


def test_an_empty_text_in_a_block_is_a_value():
    with tinygraph.config.change(cache_dir="elsewhere/cache"):
        with tinygraph.config.change(cache_dir=""):
            assert tinygraph.config.cache_dir == ""
        assert str(tinygraph.config.cache_path) == "elsewhere/cache"
