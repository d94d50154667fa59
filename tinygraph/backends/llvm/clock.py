"""Reading the processor's clock, for profiles.

On x86 it is the time stamp counter, elsewhere the counter that LLVM calls steady.  Neither is in
seconds: the caller compares it with a clock that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygraph.loops.language import STAMP_NUMBERS, Stamp

if TYPE_CHECKING:
    from tinygraph.backends.llvm.emit import Emitter


def stamp(emitter: Emitter, stmt: Stamp) -> None:
    """Begin: note the time.  End: add what went by, and one to the count; several threads may."""
    code = emitter.code
    x86 = emitter.target.arch == "x86"
    function = "llvm.readcyclecounter" if x86 else "llvm.readsteadycounter"
    emitter.declare(f"declare i64 @{function}()")
    now = code.value(f"call i64 @{function}()")
    place = emitter.address(stmt.buffer, str(STAMP_NUMBERS * stmt.slot))
    if stmt.begin:
        emitter.stamps[stmt.slot] = now
        code.emit(f"store atomic i64 {now}, ptr {place} monotonic, align 8")
        return
    passed = code.value(f"sub i64 {now}, {emitter.stamps[stmt.slot]}")
    for offset, amount in ((1, passed), (2, "1")):
        at = code.value(f"getelementptr inbounds i64, ptr {place}, i64 {offset}")
        code.value(f"atomicrmw add ptr {at}, i64 {amount} monotonic")
