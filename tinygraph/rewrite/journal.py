"""What one compilation did: every application of a rule, every pass with its time and size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinygraph.graph import Value


def expression(value: Value, depth: int = 4) -> str:
    """``value`` as text: names of leaves, applications down to ``depth`` levels, then '...'."""
    if value.node is None:
        return value.name or str(value.type)
    if not value.node.inputs:
        return str(value.node.op)
    if depth == 0:
        return value.name or "..."
    inside = ", ".join(expression(v, depth - 1) for v in value.node.inputs)
    place = f"[{value.index}]" if len(value.node.outputs) > 1 else ""
    return f"{value.node.op}({inside}){place}"


@dataclass(frozen=True)
class Entry:
    """One application of a rule.  The texts are made when they are asked for."""

    pass_name: str
    rule: str
    old: tuple[Value, ...]
    new: tuple[Value, ...]
    seconds: float

    @property
    def before(self) -> str:
        return "; ".join(expression(v) for v in self.old)

    @property
    def after(self) -> str:
        return "; ".join(expression(v) for v in self.new)

    def __str__(self) -> str:
        source = self.old[0].source
        where = f"  ({source})" if source else ""
        return f"{self.pass_name}/{self.rule}: {self.before} --> {self.after}{where}"


@dataclass(frozen=True)
class PassRecord:
    """One run of a pass: wall time, and the number of nodes (bodies included) on both sides."""

    name: str
    seconds: float
    nodes_before: int
    nodes_after: int
    changed: bool


@dataclass
class Journal:
    """What one compilation did, in order."""

    entries: list[Entry] = field(default_factory=list)
    passes: list[PassRecord] = field(default_factory=list)

    def note(self, pass_name: str, rule: str, old: Sequence[Value], new: Sequence[Value],
             seconds: float = 0.0) -> None:
        """Record that ``rule`` replaced ``old`` by ``new``."""
        self.entries.append(Entry(pass_name, rule, tuple(old), tuple(new), seconds))

    def count(self, rule: str) -> int:
        """How often ``rule`` was applied."""
        return sum(entry.rule == rule for entry in self.entries)

    def counts(self) -> Counter[str]:
        """How often each rule was applied."""
        return Counter(entry.rule for entry in self.entries)

    @property
    def seconds(self) -> float:
        """The wall time of all passes."""
        return sum(record.seconds for record in self.passes)

    def __str__(self) -> str:
        lines = [f"{r.name:<24}{r.seconds * 1e3:9.2f} ms{r.nodes_before:8d} -->{r.nodes_after:8d}"
                 f" nodes{'' if r.changed else '  (unchanged)'}" for r in self.passes]
        return "\n".join(lines + [str(entry) for entry in self.entries])
