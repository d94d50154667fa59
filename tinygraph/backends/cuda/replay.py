"""Calls that come again are replayed.

To work out what a call launches costs the host more than to launch it, and hangs on the sizes of
the call alone.  The second call of the same sizes is written down; from then on the host puts the
addresses of a call into the arguments of all launches at once and launches.  Where a call has the
addresses of an earlier one, too, launches that follow one another become a CUDA graph, and the
host only starts graphs and what cannot stand in one: products by cuBLAS, Python functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tinygraph.backends.cuda.kernel import Kernel

Work = Callable[[], object]
Other = Callable[[Any], object]  # takes the memory of the call
Addresses = tuple[int, ...]

MOST_CALLS = 32  # sizes of calls that are remembered
MOST_PLACES = 8  # addresses of calls that are remembered for the same sizes
MOST_STEPS = 1 << 15  # launches that are remembered, those in graphs counted again
GRAPH_NODES = 1 << 10  # launches of a graph; the device keeps some kilobytes for each
FEWEST = 3  # launches that a graph is faster than, about


@dataclass(frozen=True)
class Launched:
    """A launch.  ``sources``: for each buffer, whose address of the call's it begins behind."""

    kernel: Kernel
    blocks: int
    buffers: Sequence[Any]
    sources: Sequence[int]
    scalars: Sequence[int]
    shared: int


class Prepared(Protocol):
    """Launches that are made again, with other addresses each time."""

    works: Sequence[Work]  # one for each launch

    def move(self, addresses: Addresses) -> None:
        """From now on launch with these addresses of the call."""


class Launcher(Protocol):
    """What runs kernels.

    A kernel's buffers have the failure record in front where it checks, and what ``tg_grid``
    counts behind that where its blocks run together.  ``shared`` are bytes of shared memory on top
    of what its text declares.
    """

    def launch(self, kernel: Kernel, blocks: int, buffers: Sequence[Any], scalars: Sequence[int],
               shared: int) -> None:
        """Run a kernel."""


class Repeats(Launcher, Protocol):
    """A device that does what it did before."""

    def addresses(self, places: Sequence[Any]) -> Addresses:
        """Where the memory of a call is."""

    def prepared(self, launches: Sequence[Launched], addresses: Addresses) -> Prepared:
        """Launches for later; they have ``addresses`` now."""

    def captured(self, works: Sequence[Work]) -> Work:
        """What does the same as all of these launches, with the addresses that they have now.
        Raises RuntimeError where the device cannot."""


class Sink(Protocol):
    """Where a call puts what is to be done."""

    def launch(self, launched: Launched) -> None:
        """A kernel."""

    def work(self, other: Other) -> None:
        """Something else."""


class Now:
    """Everything is done at once, and launches are counted."""

    def __init__(self, device: Launcher, memory: Any) -> None:
        self.device, self.memory, self.count = device, memory, 0

    def launch(self, launched: Launched) -> None:
        """Run a kernel."""
        self.count += 1
        self.device.launch(launched.kernel, launched.blocks, launched.buffers, launched.scalars,
                           launched.shared)

    def work(self, other: Other) -> None:
        """Do it."""
        self.count += 1
        other(self.memory)


class Recorder:
    """Everything is written down, and nothing is done.

    steps  how many launches follow one another, or other work, in order
    """

    def __init__(self) -> None:
        self.launches: list[Launched] = []
        self.steps: list[int | Other] = []

    def launch(self, launched: Launched) -> None:
        """Write a launch down."""
        last = self.steps[-1] if self.steps else None
        if isinstance(last, int) and last < GRAPH_NODES:
            self.steps[-1] = last + 1
        else:
            self.steps.append(1)
        self.launches.append(launched)

    def work(self, other: Other) -> None:
        """Write other work down."""
        self.steps.append(other)


class Script:
    """What the calls of the same sizes do.

    loose  does it launch anything that is too little for a graph, with the addresses of now?
    """

    def __init__(self, device: Repeats, recorder: Recorder, addresses: Addresses) -> None:
        self.device = device
        self.prepared = device.prepared(recorder.launches, addresses)
        self.steps: list[Sequence[Work] | Other] = []
        at = 0
        for step in recorder.steps:
            if isinstance(step, int):
                self.steps.append(self.prepared.works[at:at + step])
                at += step
            else:
                self.steps.append(step)
        self.loose = any(isinstance(s, int) and s < FEWEST for s in recorder.steps)

    def captured(self, addresses: Addresses) -> list[Sequence[Work] | Other]:
        """Its steps for these addresses alone, with graphs."""
        self.prepared.move(addresses)
        return [[self.device.captured(step)]
                if isinstance(step, Sequence) and len(step) >= FEWEST else step
                for step in self.steps]

    def play(self, addresses: Addresses, memory: Any) -> None:
        """Do everything, launch by launch."""
        self.prepared.move(addresses)
        _play(self.steps, memory)


def _play(steps: Sequence[Sequence[Work] | Other], memory: Any) -> None:
    for step in steps:
        if isinstance(step, Sequence):
            for work in step:
                work()
        else:
            step(memory)


class Replay:
    """What is known of the calls of the same sizes.

    count   how many launches one has
    script  what one does, once it is written down
    graphs  by addresses, the least recently used first: None where they came once
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.script: Script | None = None
        self.graphs: dict[Addresses, list[Sequence[Work] | Other] | None] = {}

    @property
    def steps(self) -> int:
        """Launches that are remembered."""
        return self.count * ((self.script is not None) + sum(map(bool, self.graphs.values())))

    def keep(self, addresses: Addresses, steps: list[Sequence[Work] | Other] | None) -> None:
        """Remember addresses, and the graphs for them."""
        self.graphs[addresses] = steps
        while len(self.graphs) > MOST_PLACES or self.steps > MOST_STEPS:
            del self.graphs[next(iter(self.graphs))]


class Replays:
    """The calls of one program.  One call at a time may use it."""

    def __init__(self, device: Repeats, name: str) -> None:
        self.device, self.name = device, name
        self.graphs = True  # until the device refuses one
        self._known: dict[Hashable, Replay] = {}  # the least recently used first

    def run(self, sizes: Hashable, places: Sequence[Any], memory: Any,
            call: Callable[[Sink], None]) -> None:
        """Do what ``call`` puts into its sink.  It puts the same there whenever the sizes are the
        same, but for the places of the call, which launches begin their buffers behind.

        memory  what other work is given
        """
        addresses = self.device.addresses(places)
        found = self._known.pop(sizes, None)
        if found is None or found.count > MOST_STEPS:  # so long a loop over time is not replayed
            now = Now(self.device, memory)
            call(now)
            found = Replay(now.count) if found is None else found
            found.keep(addresses, None)
            self._known[sizes] = found
            self._forget()
            return
        if found.script is None:
            recorder = Recorder()
            call(recorder)
            found.script = Script(self.device, recorder, addresses)
        came = addresses in found.graphs
        steps = found.graphs.pop(addresses, None)
        self._known[sizes] = found
        if steps is None:
            if came and self.graphs and 2 * found.count <= MOST_STEPS:
                steps = self._captured(found.script, addresses)
            found.keep(addresses, steps)
            self._forget()
        else:
            found.graphs[addresses] = steps
        if steps is None:
            found.script.play(addresses, memory)
        else:
            if found.script.loose:
                found.script.prepared.move(addresses)
            _play(steps, memory)

    def _captured(self, script: Script, addresses: Addresses
                  ) -> list[Sequence[Work] | Other] | None:
        try:
            return script.captured(addresses)
        except RuntimeError as error:
            self.graphs = False
            warnings.warn(f"{self.name}: CUDA makes no graph of its launches, and every call makes "
                          f"them one by one: {error}", stacklevel=2)
            return None

    def _forget(self) -> None:
        """Drop what has not come for the longest time.  What came last is small enough."""
        steps = sum(r.steps for r in self._known.values())
        while len(self._known) > MOST_CALLS or steps > MOST_STEPS:
            steps -= self._known.pop(next(iter(self._known))).steps
