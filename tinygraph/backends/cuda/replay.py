"""Calls that come again are replayed.

To work out what a call launches costs the host about as much as to launch it.  Where a call has
the sizes and the addresses of an earlier one, all of it is known: the second such call is written
down, launches that follow one another become a CUDA graph, and from then on the host only starts
graphs and what cannot stand in one (products by cuBLAS, Python functions).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from tinygraph.backends.cuda.kernel import Kernel

Work = Callable[[], object]

MOST_CALLS = 32  # calls of a program that are remembered
MOST_STEPS = 1 << 15  # launches that are remembered, of all its calls
GRAPH_NODES = 1 << 10  # launches of a graph; the device keeps some kilobytes for each
FEWEST = 3  # launches that a graph is faster than, about


class Launcher(Protocol):
    """What replays need of a device."""

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Any], scalars: Sequence[int],
               shared: int) -> None:
        """Run a kernel."""

    def prepared(self, kernel: Kernel, blocks: int, buffers: Sequence[Any],
                 scalars: Sequence[int], shared: int) -> Work:
        """What does the same as ``launch`` with these arguments, whenever it is called."""

    def captured(self, launches: Sequence[Work]) -> Work:
        """What does the same as all of ``launches``, in one go.  Raises RuntimeError where the
        device cannot."""


class Sink(Protocol):
    """Where a call puts what is to be done."""

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Any], scalars: Sequence[int],
               shared: int) -> None:
        """A kernel."""

    def work(self, work: Work) -> None:
        """Something else."""


class Now:
    """Everything is done at once, and counted."""

    def __init__(self, device: Launcher) -> None:
        self.device, self.count = device, 0

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Any], scalars: Sequence[int],
               shared: int) -> None:
        """Run a kernel."""
        self.count += 1
        self.device.launch(kernel, blocks, buffers, scalars, shared)

    def work(self, work: Work) -> None:
        """Do it."""
        self.count += 1
        work()


class Recorder:
    """Everything is written down, and nothing is done.

    steps  launches that follow one another in a list, and other work, in order
    """

    def __init__(self, device: Launcher) -> None:
        self.device = device
        self.steps: list[list[Work] | Work] = []

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Any], scalars: Sequence[int],
               shared: int) -> None:
        """Write a launch down."""
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, list) or len(last) == GRAPH_NODES:
            last = []
            self.steps.append(last)
        last.append(self.device.prepared(kernel, blocks, buffers, scalars, shared))

    def work(self, work: Work) -> None:
        """Write other work down."""
        self.steps.append(work)


class Replays:
    """What the calls of one program launched.  One call at a time may use it."""

    def __init__(self, device: Launcher, name: str) -> None:
        self.device, self.name = device, name
        self.graphs = True  # until the device refuses one
        # By key, least recently used first: how many launches, and what to do in a replay.
        self._known: dict[Hashable, tuple[int, list[Work]]] = {}

    def run(self, key: Hashable | None, call: Callable[[Sink], None]) -> None:
        """Do what ``call`` puts into its sink.  It puts the same there whenever the key is the
        same: sizes, addresses, settings.

        The first time the call is made, the second time it is written down and replayed; without a
        key it is made every time.
        """
        if key is None:
            call(Now(self.device))
            return
        found = self._known.pop(key, None)
        if found is None:
            now = Now(self.device)
            call(now)
            found = now.count, []
        else:
            count, replay = found
            if count > MOST_STEPS:  # a loop over very many steps: it is as well off without
                call(Now(self.device))
            else:
                if not replay:
                    recorder = Recorder(self.device)
                    call(recorder)
                    replay = self._replay(recorder.steps)
                    found = count, replay
                for work in replay:
                    work()
        self._known[key] = found
        self._forget()

    def _forget(self) -> None:
        """Drop what has not come for the longest time.  The call that came last stays."""
        steps = sum(count for count, replay in self._known.values() if replay)
        while len(self._known) > MOST_CALLS or steps > MOST_STEPS:
            count, replay = self._known.pop(next(iter(self._known)))
            steps -= count if replay else 0

    def _replay(self, steps: Sequence[list[Work] | Work]) -> list[Work]:
        """What is to be done to do all steps."""
        out: list[Work] = []
        for step in steps:
            if not isinstance(step, list):
                out.append(step)
            else:
                graph = self._graph(step) if len(step) >= FEWEST else None
                out += step if graph is None else [graph]
        return out

    def _graph(self, launches: Sequence[Work]) -> Work | None:
        """Launches as a graph; None where the device refused this or an earlier one."""
        if not self.graphs:
            return None
        try:
            return self.device.captured(launches)
        except RuntimeError as error:
            self.graphs = False
            warnings.warn(f"{self.name}: CUDA makes no graph of its {len(launches)} launches, and "
                          f"every call launches them one by one: {error}", stacklevel=2)
            return None
