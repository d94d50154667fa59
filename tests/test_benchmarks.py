"""The benchmarks compute what they should, at small sizes; nothing here looks at a time."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygraph import config
from tinygraph_rnn import random

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TUTORIAL = {"batch": 6, "hidden": 3, "lengths": (7, 5)}
RECURRENT = {"batch": 3, "steps": 5, "features": 4, "hidden": 6}
SIZES = {
    "W1": TUTORIAL,
    "W2": {"batch": 5, "length": 6, "hidden": 4},
    "W3": RECURRENT,
    "W4": {**RECURRENT, "hidden": 7},
    "W5": RECURRENT,
    "W6": {"hidden": 3},
    "W7": {"n": 50},
    "W7-1e6": {"n": 1000},
    "W8": {"batch": 6, "hidden": 3, "drawn": (3, 4, 9)},
    "W9": {**RECURRENT, "batch": 1},
}
INSTALLED = {"jax": "JAX", "torch": "PyTorch", "pytensor": "PyTensor"}
# PyTensor compiles for minutes; two rows, in the mode that needs no C++ compiler, say enough.
PEERS = [(row, "jax") for row in SIZES] + [(row, "torch") for row in SIZES]
PEERS += [("W6", "pytensor"), ("W9", "pytensor")]


@pytest.fixture
def load(monkeypatch):
    """A module of the benchmarks by name."""
    for folder in (BENCHMARKS, BENCHMARKS / "peers"):
        monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    with config.change(floatX="float32"):
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if BENCHMARKS in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]
    random.set_rng(None)


def compare(load, row, peer, variant):
    """Raises unless the first three steps of a peer agree with the reference."""
    harness, workload = load("harness"), load("catalogue").WORKLOADS[row]
    problem = workload.create(0, **SIZES[row])
    losses, expected = load("workloads.reference").steps(workload.source(), problem, 3)
    value = load("worker").value
    own = load(f"{peer}_{workload.module}").Workload(problem, variant)
    found = [value(own.step())]
    results = own.results()
    found += [value(own.step()) for _ in range(2)]
    np.testing.assert_allclose(found, losses, rtol=1e-4)
    assert set(results) == set(expected)
    for kind in set(expected) - {"parameters"}:
        assert harness.furthest(results[kind], expected[kind])[0] < 1e-5
    if "parameters" in expected:
        error = harness.distance(results["parameters"], expected["parameters"],
                                 problem.parameters, expected["gradients"])
        assert error[0] < 1e-3
    return own


@pytest.mark.parametrize("row", SIZES)
def test_tinygraph_agrees_with_the_reference(load, row):
    own = compare(load, row, "tinygraph", "")
    assert own.compiles == 1


@pytest.mark.parametrize("row", ["W1", "W5"])
def test_tinygraph_agrees_without_native_code(load, row):
    with config.change(backend="numpy"):
        compare(load, row, "tinygraph", "")


@pytest.mark.parametrize("row, peer", PEERS)
def test_peers_agree_with_the_reference(load, row, peer):
    if importlib.util.find_spec(peer) is None:
        pytest.skip(f"{INSTALLED[peer]} is not installed: nothing to compare with")
    for variant in load("catalogue").WORKLOADS[row].variants[peer]:
        if variant not in ("compile", "c"):
            compare(load, row, peer, variant)


def test_clipping_that_bites(load):
    """The models clip at every step, which the bound of the benchmark hides."""
    workload, reference = load("catalogue").WORKLOADS["W1"], load("workloads.reference")

    def gradients(clip):
        problem = workload.create(0, **TUTORIAL, clip=clip)
        expected = reference.steps(workload.source(), problem, 1)[1]["gradients"]
        own = load("tinygraph_tutorial").Workload(problem, "").results()["gradients"]
        assert load("harness").furthest(own, expected)[0] < 1e-5
        return expected
    assert load("harness").furthest(gradients(1e-3), gradients(100.0))[0] > 1e-2


def test_tape_agrees_with_differences(load):
    tape = load("workloads.tape")
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 4)), rng.standard_normal((4, 2)), rng.standard_normal(2)
    keep = rng.random((3, 2)) < 0.5

    def cost(*arrays):
        a, b, c = map(tape.lift, arrays)
        y = tape.where(keep, tape.tanh(a @ b + c), tape.sigmoid(-a)[:, 1:3] * 2)
        z = tape.concatenate([y - c, tape.exp(y)], 1)
        return (a, b, c), tape.mean(tape.log(z * z + 1)) + tape.total(1 - c)

    leaves, value = cost(a, b, c)
    assert float(value.value) == float(cost(a, b, c)[1].value)
    arrays = [a, b, c]
    for k, gradient in enumerate(tape.gradients(value, leaves)):
        for at in np.ndindex(arrays[k].shape):
            ends = []
            for move in (1e-6, -1e-6):
                moved = [x.copy() for x in arrays]
                moved[k][at] += move
                ends.append(float(cost(*moved)[1].value))
            assert gradient[at] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_strings_of_the_grammar(load):
    elman = load("workloads.elman")
    seen, follow = elman.word(np.random.default_rng(1))
    assert seen.shape == follow.shape
    assert (seen.sum(1) == 1).all() and set(follow.sum(1)) <= {1.0, 2.0}
    assert seen[0].argmax() == elman.SYMBOLS.index("B")
    assert (follow[:-1] * seen[1:]).sum(1).all()  # what follows may follow
    assert follow[-1].argmax() == elman.SYMBOLS.index("E")


def test_problems_are_kept(load, tmp_path):
    problem = load("catalogue").WORKLOADS["W1"].create(0, **TUTORIAL)
    problem.save(tmp_path / "problem.npz")
    again = load("problem").Problem.load(tmp_path / "problem.npz")
    assert again.options == problem.options
    assert [b["X"].shape[1] for b in again.batches] == [7, 5]
    np.testing.assert_array_equal(again.parameters["dense.W"], problem.parameters["dense.W"])


def test_comparisons_find_the_difference(load):
    harness = load("harness")
    right = {"a": np.array([1.0, -10.0]), "b": np.zeros(2)}
    assert harness.furthest(right, right) == (0.0, "")
    assert harness.furthest({**right, "a": np.array([1.0, -9.0])}, right) == (0.1, "a")
    assert harness.furthest({**right, "b": np.array([0.0, 0.5])}, right) == (0.5, "b")
    bad, name = harness.furthest({**right, "a": np.array([np.nan, -10.0])}, right)
    assert name == "a" and not bad <= 1e-4
    with pytest.raises(ValueError, match="only one side has .*'b'"):
        harness.furthest({"a": right["a"]}, right)
    with pytest.raises(ValueError, match="a has shape"):
        harness.furthest({**right, "a": np.zeros(3)}, right)
    start = {"a": np.array([1.0, -12.0]), "b": np.zeros(2)}
    slope = {"a": np.ones(2), "b": np.zeros(2)}  # no slope: nothing is compared
    moved = {"a": np.array([1.0, -9.0]), "b": np.ones(2)}
    assert harness.distance(moved, right, start, slope) == (0.5, "a")


def test_rows_by_name(load):
    select = load("catalogue").select
    assert select(["W7"]) == ["W7", "W7-1e6"]
    assert select(["W3", "W1"]) == ["W1", "W3"]
    assert select(None)[-1] == "limit"
    with pytest.raises(ValueError, match="there is no workload 'W10'"):
        select(["W10"])


def test_program_alone(load, tmp_path, capsys):
    path = tmp_path / "figures.json"
    out = load("run").main(["--quick", "--only", "W6", "--peers", "--blocks", "2", "--seconds",
                            "0.001", "--starts", "2", "--json", str(path)])
    assert json.loads(path.read_text()) == json.loads(json.dumps(out))
    row = out["workloads"]["W6"]
    own = row["peers"]["tinygraph"]
    assert set(row["peers"]) == {"tinygraph"} and not row["wrong"] and own["compiles"] == 1
    assert len(own["blocks"]) == len(own["first"]) == len(own["warm"]) == 2
    assert "build, warm / cold" in row["ratios"]
    assert "W6 Elman network" in capsys.readouterr().out


def test_program_measures_whole_runs(load, tmp_path, capsys):
    out = load("run").main(["--quick", "--only", "W8", "--peers"], batch=4, hidden=2,
                           drawn=(4, 3, 9))
    own = out["workloads"]["W8"]["peers"]["tinygraph"]
    assert len(own["times"]) == own["compiles"] == 1


def test_program_measures_the_limit(load, capsys):
    out = load("run").main(["--only", "limit", "--blocks", "1", "--seconds", "0.001"],
                           hidden=8, batch=4, steps=5)
    assert set(out["limit"]["shares"]) == {"W3", "W4"}
    assert "sgemm 1024" in capsys.readouterr().out


def test_a_process_that_fails_is_named(load, tmp_path):
    harness = load("harness")
    problem = load("catalogue").WORKLOADS["W6"].create(0)
    problem.save(tmp_path / "problem.npz")
    with pytest.raises(harness.Skipped, match="ended: .*no_such_module"):
        harness.Running(harness.Peer("other", "no_such_module"), tmp_path / "problem.npz",
                        tmp_path)
    late = harness.Peer("tinygraph", "tinygraph_elman", limit=0.0)
    with pytest.raises(harness.Skipped, match="no answer within 0 s"):
        harness.Running(late, tmp_path / "problem.npz", tmp_path)


def test_peers_that_are_not_installed_are_named(load, monkeypatch):
    measure = load("measure")
    monkeypatch.setattr(measure.importlib.util, "find_spec", lambda name: None)
    peers, skipped = measure.peers_of(load("catalogue").WORKLOADS["W1"], ["jax", "torch"],
                                      measure.Plan())
    assert [p.name for p in peers] == ["tinygraph"]
    assert skipped == {"jax": "not installed", "torch": "not installed"}


def test_picture(load, tmp_path):
    row = {"by system": {"jax": 3.0, "torch": 5.0}, "goal": 2}
    path = tmp_path / "ratios.png"
    load("report").picture({"W1": row, "W2": {"goal": 1}}, str(path))
    assert path.read_bytes()[1:4] == b"PNG"


def without_slow(row):
    """The peers and variants of a row that start in seconds."""
    return [(peer, variant) for peer, variants in row.workload.variants.items()
            for variant in variants if (peer, variant) not in row.workload.slow]


def test_gpu_rows_are_those_of_the_other_program(load):
    gpu, known = load("gpu"), load("catalogue").WORKLOADS
    assert list(gpu.ROWS) == ["W1", "W2", "W3", "W4", "W5", "W8"]
    for name, row in gpu.ROWS.items():
        assert (row.workload.sizes, row.workload.module) == (known[name].sizes, known[name].module)
        assert set(gpu.PEERS) <= set(row.workload.variants)
    assert all("nn" in gpu.ROWS[name].workload.variants["torch"] for name in ("W2", "W3", "W5"))


def test_gpu_grid(load):
    gpu = load("gpu")
    rows = gpu.grid()
    assert len(rows) == 25 and list(rows)[0] == "LSTM 64 x 1"
    problem = gpu.problem_of(rows["LSTM 64 x 4"], gpu.Plan(), "cuda")
    assert problem.batches[0]["X"].shape == (100, 4, 64)
    assert problem.parameters["U"].shape == (64, 256) and problem.options["device"] == "cuda"
    assert rows["LSTM 1024 x 1"].cudnn is None and rows["LSTM 512 x 1"].cudnn == gpu.LEVEL
    args = ["--only", "W1", "W3", "grid", "--hidden", "64", "--batch", "1", "16"]
    assert list(gpu.chosen(gpu.parse(args))) == [
        "W1", "W3", "W3 forward", "LSTM 64 x 1", "LSTM 64 x 1 forward", "LSTM 64 x 16",
        "LSTM 64 x 16 forward"]
    rows = gpu.chosen(gpu.parse([*args, "--modes", "training"]))
    assert list(rows) == ["W1", "W3", "LSTM 64 x 1", "LSTM 64 x 16"]
    assert rows["LSTM 64 x 16"].workload.sizes["steps"] == 100


@pytest.mark.parametrize("peer", ["jax", "torch"])
def test_gpu_peers_infer_as_the_reference_does(load, peer):
    pytest.importorskip(peer, reason=f"{INSTALLED[peer]} is not installed: nothing to compare with")
    gpu = load("gpu")
    row = gpu.forward(gpu.ROWS["W3"]).workload
    problem = gpu.problem_of(gpu.Row(row), gpu.Plan(), "cpu", **RECURRENT)
    wanted = load("workloads.reference").steps(row.source(), problem, 1)[1]["outputs"]["result"]
    for variant in row.variants[peer]:
        own = load(f"{peer}_recurrent").Workload(problem, variant)
        np.testing.assert_allclose(own.results()["outputs"]["result"], wanted, atol=1e-5)
        assert abs(load("worker").value(own.step()) - wanted.mean()) < 1e-5


def test_gpu_rehearsal(load, tmp_path, capsys, monkeypatch):
    """All the program does, at tiny sizes, without a GPU and without a time in what it says."""
    gpu = load("gpu")
    monkeypatch.setattr(gpu, "unavailable", lambda: "there is no NVIDIA driver")
    rows = gpu.chosen(gpu.parse(["--rehearse"]))
    assert {name.removesuffix(" forward") for name in rows} == {
        *gpu.ROWS, "LSTM 5 x 1", "LSTM 5 x 3", "LSTM 12 x 1", "LSTM 12 x 3"}
    for name, row in rows.items():
        problem = gpu.problem_of(row, gpu.plan_of(gpu.parse(["--rehearse"])), "shim")
        assert max(p.size for p in problem.parameters.values()) < 1000, name
    path = tmp_path / "figures.json"
    out = gpu.main(["--rehearse", "--only", "grid", "--peers", "--hidden", "5", "--batch", "3",
                    "--json", str(path)])
    assert json.loads(path.read_text()) == json.loads(json.dumps(out)) and out["rehearsal"]
    assert list(out["workloads"]) == ["LSTM 5 x 3", "LSTM 5 x 3 forward"]
    for report in out["workloads"].values():
        own = report["peers"]["tinygraph"]
        assert set(own) == {"system", "version", "errors"} and max(own["errors"].values()) < 1e-4
        assert not report["wrong"] and not report["ratios"]
    printed = capsys.readouterr().out
    assert "a rehearsal" in printed and "median" not in printed and "faster" not in printed


def test_gpu_problems_say_where_they_are_worked_on(load, tmp_path):
    gpu = load("gpu")
    problem = gpu.problem_of(gpu.ROWS["W3"], gpu.Plan(), "cuda", **RECURRENT)
    problem.save(tmp_path / "problem.npz")
    assert load("problem").Problem.load(tmp_path / "problem.npz").options["device"] == "cuda"


@pytest.mark.parametrize("name", ["W1", "W2", "W3", "W4", "W5", "W8"])
@pytest.mark.parametrize("peer", ["jax", "torch"])
def test_gpu_peers_agree_with_the_reference(load, name, peer):
    pytest.importorskip(peer, reason=f"{INSTALLED[peer]} is not installed: nothing to compare with")
    for system, variant in without_slow(load("gpu").ROWS[name]):
        if system == peer:
            compare(load, name, peer, variant)


def test_gpu_program_on_the_shim(load, tmp_path, capsys):
    """Everything but the GPU: kernels run on the CPU, checked against the reference and timed."""
    path = tmp_path / "figures.json"
    out = load("gpu").main(["--only", "W3", "--modes", "training", "--peers", "--quick", "--blocks",
                            "1", "--seconds", "0.001", "--json", str(path)], device="shim",
                           **RECURRENT)
    assert json.loads(path.read_text()) == json.loads(json.dumps(out))
    own = out["workloads"]["W3"]["peers"]["tinygraph"]
    assert own["median"] >= own["minimum"] > 0 and not out["workloads"]["W3"]["wrong"]
    assert max(own["errors"].values()) < 1e-4
    printed = capsys.readouterr().out
    assert "LSTM, hidden 128" in printed and "times faster than" in printed


def test_gpu_ratios_are_to_the_best(load):
    gpu = load("gpu")
    medians = {"tinygraph": 2.0, "torch nn": 1.0, "torch eager": 30.0, "jax scan": 12.0}
    report = {"peers": {name: {"median": m} for name, m in medians.items()}, "title": "x"}
    report["ratios"] = gpu.ratios(report)
    assert report["ratios"] == {"by hand": ("jax scan", 6.0), "cudnn": ("torch nn", 0.5)}
    line = gpu.summary({"W3": report}, gpu.ROWS).splitlines()[-1]
    assert line.split() == ["W3", "x", "jax", "scan", "6.00", "5", "0.50", "0.83"]
    del report["peers"]["tinygraph"]
    assert gpu.ratios(report) == {}


def test_gpu_program_without_a_gpu_says_so_and_ends(load, monkeypatch, capsys):
    gpu = load("gpu")
    monkeypatch.setattr(gpu, "unavailable", lambda: "there is no NVIDIA driver")
    with pytest.raises(SystemExit) as end:
        gpu.main(["--only", "W3"])
    said = capsys.readouterr()
    assert end.value.code == gpu.NO_GPU == 2 and not said.out
    assert said.err == ("there is no GPU to run these benchmarks on: there is no NVIDIA driver; "
                        f"'{gpu.DOCTOR}' tests every back end\n")


def test_gpu_peers_do_not_work_elsewhere(load):
    """A peer that finds no GPU takes no part, instead of being timed on the CPU."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    gpu = load("gpu")
    problem = gpu.problem_of(gpu.ROWS["W3"], gpu.Plan(), "cuda", **RECURRENT)
    with pytest.raises(load("worker").Unavailable, match="finds no GPU"):
        load("torch_recurrent").Workload(problem, "nn")
