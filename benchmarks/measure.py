"""Measuring one workload: compare with the reference, then time."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from catalogue import Workload
from harness import Peer, Running, Skipped, distance, furthest, interleave
from problem import Problem
from workloads import reference

OWN = "tinygraph"
GRADIENTS, STEPS, LOSSES = 1e-4, 2e-2, 1e-3
CHECKED = 6
PATIENCE = 20.0

Report = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    blocks    turns of every process
    seconds   of such a turn
    starts    fresh processes for the seconds to the first result; one for peers that take more
              than 20 s
    threads   of every process
    limit     seconds that a process may take to answer
    compile_limit  the same for torch.compile
    """

    quick: bool = False
    blocks: int = 10
    seconds: float = 1.0
    starts: int = 3
    threads: int = 2
    limit: float = 900.0
    compile_limit: float = 400.0
    seed: int = 0


def peers_of(workload: Workload, systems: Sequence[str], plan: Plan
             ) -> tuple[list[Peer], dict[str, str]]:
    """tinygraph and the variants of the systems; and, by name, why others are left out."""
    out = [Peer(OWN, f"{OWN}_{workload.module}", "", plan.threads, plan.limit)]
    skipped = {}
    for system in systems:
        if importlib.util.find_spec(system) is None:
            skipped[system] = "not installed"
            continue
        for variant in workload.variants[system]:
            compiled = variant == "compile"
            peer = Peer(system, f"{system}_{workload.module}", variant, plan.threads,
                        plan.compile_limit if compiled else plan.limit)
            if plan.quick and (system, variant) in workload.slow:
                skipped[peer.name] = "takes minutes to start; not with --quick"
            else:
                out.append(peer)
    return out, skipped


def measure(workload: Workload, systems: Sequence[str], plan: Plan, problem: Problem,
            say: Callable[[str], None]) -> Report:
    """All figures of a workload; seconds and bytes."""
    peers, skipped = peers_of(workload, systems, plan)
    report: Report = {"title": workload.title, "goal": workload.goal, "whole": workload.whole,
                      "options": problem.options, "peers": {}, "skipped": skipped, "wrong": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "problem.npz"
        problem.save(path)
        say("reference")
        count = max(2, min(len(problem.batches), CHECKED))
        expected = reference.steps(workload.source(), problem, count)
        for peer in peers:
            say(f"checking {peer.name}")
            try:
                report["peers"][peer.name] = check(peer, path, folder, problem, expected)
            except Skipped as reason:
                leave_out(report, reason)
            except ValueError as difference:
                report["wrong"][peer.name] = str(difference)
        ready = [p for p in peers if p.name in report["peers"]]
        if workload.whole:
            run_whole(ready, path, folder, plan, report, say)
        else:
            time_steps(ready, path, folder, plan, report, len(problem.batches), say)
            time_starts(ready, path, folder, plan, report, say)
    return report


def cache_of(peer: Peer, folder: Path) -> Path:
    """The folder of the caches that a peer keeps between its processes."""
    return folder / f"cache {peer.name}"


def check(peer: Peer, path: Path, folder: Path, problem: Problem,
          expected: tuple[list[float], dict[str, Any]]) -> Report:
    """A first process, from nothing: compare it with the reference.  Raises ValueError where it
    differs."""
    losses, wanted = expected
    with Running(peer, path, cache_of(peer, folder)) as r:
        report = {"system": peer.system, "version": r.greeting["version"], "first": [r.first],
                  "parts": [{**r.greeting["seconds"], **r.greeting["stages"]}]}
        results = r.results()
        found = r.greeting["losses"] + r.ask(do="losses", steps=len(losses) - 1)["losses"]
    errors = {"losses": float(np.max(np.abs(np.subtract(found, losses))) / np.max(np.abs(losses)))}
    where = {"losses": ""}
    for kind, arrays in wanted.items():
        errors[kind], where[kind] = (
            distance(results[kind], arrays, problem.parameters, wanted["gradients"])
            if kind == "parameters" else furthest(results[kind], arrays))
    for kind, error in errors.items():
        most = {"losses": LOSSES, "parameters": STEPS}.get(kind, GRADIENTS)
        if not error <= most:
            raise ValueError(f"its {kind} {where[kind]} differ from the reference by {error:.1e}, "
                             f"more than {most:.0e}")
    return {**report, "errors": errors}


def time_steps(peers: Sequence[Peer], path: Path, folder: Path, plan: Plan, report: Report,
               cycle: int, say: Callable[[str], None]) -> None:
    """The times of steps, compiles and memory of processes that do nothing else."""
    with ExitStack() as stack:
        running = []
        for peer in peers:
            say(f"starting {peer.name}")
            try:
                running.append(stack.enter_context(Running(peer, path, cache_of(peer, folder))))
            except Skipped as reason:
                leave_out(report, reason)
                continue
            if peer.system == OWN:
                note_start(report["peers"][peer.name], "warm", running[-1])
        say("timing")
        for r, t in turns(running, plan, cycle, report):
            report["peers"][r.peer.name] |= {
                "median": float(np.median(t)), "minimum": float(t.min()),
                "steps": t.size, "blocks": np.median(t, axis=1).tolist(), **r.ask(do="state")}


def turns(running: list[Running], plan: Plan, cycle: int, report: Report
          ) -> list[tuple[Running, np.ndarray]]:
    """``interleave``, again without a process that fails in it."""
    while running:
        try:
            times = interleave(running, plan.blocks, plan.seconds, cycle)
            return list(zip(running, times, strict=True))
        except Skipped as reason:
            leave_out(report, reason)
            running = [r for r in running if r.peer.name != reason.name]
    return []


def leave_out(report: Report, reason: Skipped) -> None:
    """Note that a peer does not take part, and drop what is known of it."""
    report["skipped"][reason.name] = str(reason)
    report["peers"].pop(reason.name, None)


def note_start(report: Report, kind: str, running: Running) -> None:
    """Add a process's seconds to its first result; kind: 'first' (cold) or 'warm'."""
    report.setdefault(kind, []).append(running.first)
    report.setdefault("parts" if kind == "first" else "warm parts", []).append(
        {**running.greeting["seconds"], **running.greeting["stages"]})


def time_starts(peers: Sequence[Peer], path: Path, folder: Path, plan: Plan, report: Report,
                say: Callable[[str], None]) -> None:
    """Further fresh processes, in turns, with empty caches; tinygraph's with a filled one too."""
    say("starting processes")
    for _ in range(plan.starts - 1):
        for peer in peers:
            own = report["peers"].get(peer.name)
            if own is None or own["first"][0] > PATIENCE:
                continue
            try:
                start_again(peer, path, folder, own)
            except Skipped as reason:
                leave_out(report, reason)


def start_again(peer: Peer, path: Path, folder: Path, own: Report) -> None:
    """One more process from nothing, and one of tinygraph's with what an earlier one kept."""
    with tempfile.TemporaryDirectory() as empty, Running(peer, path, Path(empty)) as running:
        note_start(own, "first", running)
    if peer.system == OWN:
        with Running(peer, path, cache_of(peer, folder)) as running:
            note_start(own, "warm", running)


def run_whole(peers: Sequence[Peer], path: Path, folder: Path, plan: Plan, report: Report,
              say: Callable[[str], None]) -> None:
    """Seconds of processes that do all minibatches, from nothing."""
    losses: list[float] = []
    for turn in range(plan.starts):
        for peer in peers:
            own = report["peers"].get(peer.name)
            if own is None or (turn and own["times"][0] > PATIENCE):
                continue
            say(f"running {peer.name}")
            try:
                with (tempfile.TemporaryDirectory() as empty,
                      Running(peer, path, Path(empty), every=True) as running):
                    own.setdefault("times", []).append(running.first)
                    found = running.greeting["losses"]
                    own |= running.ask(do="state")
            except Skipped as reason:
                leave_out(report, reason)
                continue
            losses = losses or found
            error = float(np.max(np.abs(np.subtract(found, losses))) / np.max(losses))
            own["errors"]["all losses"] = error
            if not error <= LOSSES:
                report["wrong"][peer.name] = f"its losses differ by {error:.1e}"
    for own in report["peers"].values():
        times = own["times"]
        own |= {"median": float(np.median(times)), "minimum": min(times), "steps": len(times)}
