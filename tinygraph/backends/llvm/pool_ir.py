"""The native thread pool of compiled code, as LLVM IR.

One word, the gate, carries the protocol:

    bits 0..14   participants: workers inside the region
    bit 15       the caller sleeps until they have left
    bits 16..31  seats: workers that may still join
    bits 32..63  the number of the region, so that a worker joins each at most once

The caller opens the gate with seats, takes indices like everybody else until none is left, closes
it, and waits for those who have joined.  A worker that comes late finds no seat and has held up
nobody.  All state lies in one block of memory, whose zeros mean a pool without workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

from tinygraph.backends.llvm.pool_platform import CLOCK, DECLARATIONS, MACHINES, MANAGEMENT

ENTRY = "tinygraph_parallel"
RESET = "tinygraph_parallel_reset"
STATE_BYTES = 1024
MOST_WORKERS = 255

# How long a thread looks for work, or for the end of it, before it sleeps.
IDLE_NANOSECONDS = 200_000
WAIT_NANOSECONDS = 300_000

# Offsets into the state.  128 bytes apart lie what different threads write at the same time: two
# lines of 64 bytes, because the hardware fetches them in pairs.
_FIELDS = {
    # what a worker reads when it joins
    "gate": 0, "task": 8, "context": 16, "count": 24, "mode": 32,
    # the next index to hand out
    "next": 128,
    # the caller's own
    "busy": 256, "workers": 264, "refused": 272,
    # under the mutex, except that the caller reads sleepers to see whether there are any
    "sleepers": 384, "tokens": 392, "failed_index": 400, "failed_code": 408,
    # opaque to us; 48 and 64 bytes on the platforms at hand
    "mutex": 512, "wake": 640, "done": 768,
}  # fmt: skip

# What the caller and the workers share.
_WORK = """\
define internal void @fail(i64 %index, i64 %code) {
entry:
  %locked = call i32 @pthread_mutex_lock(ptr $mutex)
  %lowest = load i64, ptr $failed_index, align 8
  %lower = icmp slt i64 %index, %lowest
  br i1 %lower, label %keep, label %leave
keep:
  store i64 %index, ptr $failed_index, align 8
  store i64 %code, ptr $failed_code, align 8
  br label %leave
leave:
  %unlocked = call i32 @pthread_mutex_unlock(ptr $mutex)
  %count = load i64, ptr $count, align 8
  %before = atomicrmw umax ptr $next, i64 %count monotonic, align 8
  ret void
}

define internal void @drain(ptr %task, ptr %context, i64 %count) {
entry:
  br label %take
take:
  %index = atomicrmw add ptr $next, i64 1 monotonic, align 8
  %some = icmp ult i64 %index, %count
  br i1 %some, label %run, label %leave
run:
  %code = call i64 %task(ptr %context, i64 %index)
  %well = icmp eq i64 %code, 0
  br i1 %well, label %take, label %failed
failed:
  call void @fail(i64 %index, i64 %code)
  br label %leave
leave:
  ret void
}
"""

_WORKER = """\
define internal ptr @worker(ptr %nothing) {
entry:
  br label %idle
idle:
  %last = phi i64 [ -1, %entry ], [ %last, %asleep ], [ %region, %left ]
  br label %look
look:
  %turn = phi i64 [ 0, %idle ], [ %turn, %join ], [ %turn1, %rest ], [ %turn1, %yield ]
  %end = phi i64 [ 0, %idle ], [ %end, %join ], [ %end, %rest ], [ %end1, %yield ]
  %gate = load atomic i64, ptr $gate acquire, align 8
  %seats = and i64 %gate, $seats
  %free = icmp ne i64 %seats, 0
  %region = lshr i64 %gate, 32
  %new = icmp ne i64 %region, %last
  %open = and i1 %free, %new
  br i1 %open, label %join, label %wait

join:
  %entered = add i64 %gate, $enter
  %tried = cmpxchg ptr $gate, i64 %gate, i64 %entered acq_rel monotonic, align 8
  %joined = extractvalue { i64, i1 } %tried, 1
  br i1 %joined, label %work, label %look
work:
  %task = load ptr, ptr $task, align 8
  %context = load ptr, ptr $context, align 8
  %count = load i64, ptr $count, align 8
  %mode = load i64, ptr $mode, align 8
  call void @set_mode(i64 %mode)
  call void @drain(ptr %task, ptr %context, i64 %count)
  %before = atomicrmw sub ptr $gate, i64 1 acq_rel, align 8
  %low = and i64 %before, $low
  %awaited = icmp eq i64 %low, $last_awaited
  br i1 %awaited, label %report, label %left
report:
  %locked = call i32 @pthread_mutex_lock(ptr $mutex)
  %signalled = call i32 @pthread_cond_signal(ptr $done)
  %unlocked = call i32 @pthread_mutex_unlock(ptr $mutex)
  br label %left
left:
  br label %idle

wait:
  call void @pause()
  %turn1 = add i64 %turn, 1
  %low_turn = and i64 %turn1, $turns
  %check = icmp eq i64 %low_turn, 0
  br i1 %check, label %measure, label %rest
rest:
  br label %look
measure:
  %now = call i64 @now()
  %first = icmp eq i64 %end, 0
  %limit = add i64 %now, $idle
  %end1 = select i1 %first, i64 %limit, i64 %end
  %late = icmp sgt i64 %now, %end1
  br i1 %late, label %asleep, label %yield
yield:
  %yielded = call i32 @sched_yield()
  br label %look
asleep:
  call void @sleep(i64 %last)
  br label %idle
}

define internal void @sleep(i64 %last) {
entry:
  %locked = call i32 @pthread_mutex_lock(ptr $mutex)
  ; The caller opens the gate, then looks for sleepers: in this order one sees the other.
  %counted = atomicrmw add ptr $sleepers, i64 1 seq_cst, align 8
  %gate = load atomic i64, ptr $gate seq_cst, align 8
  %seats = and i64 %gate, $seats
  %free = icmp ne i64 %seats, 0
  %region = lshr i64 %gate, 32
  %new = icmp ne i64 %region, %last
  %open = and i1 %free, %new
  br i1 %open, label %stay, label %look
stay:
  %discounted = atomicrmw sub ptr $sleepers, i64 1 seq_cst, align 8
  br label %leave
look:
  %tokens = load i64, ptr $tokens, align 8
  %woken = icmp ne i64 %tokens, 0
  br i1 %woken, label %rise, label %wait
wait:
  %waited = call i32 @pthread_cond_wait(ptr $wake, ptr $mutex)
  br label %look
rise:  ; who woke us has counted us out
  %rest = sub i64 %tokens, 1
  store i64 %rest, ptr $tokens, align 8
  br label %leave
leave:
  %unlocked = call i32 @pthread_mutex_unlock(ptr $mutex)
  ret void
}
"""

_CALLER = """\
define i64 @$entry(ptr %task, ptr %context, i64 %count, i64 %threads) {
entry:
  %few = call i64 @llvm.smin.i64(i64 %count, i64 %threads)
  %wanted = sub i64 %few, 1
  %seats = call i64 @llvm.smin.i64(i64 %wanted, i64 $most)
  %several = icmp sgt i64 %seats, 0
  br i1 %several, label %try, label %alone
try:
  %tried = cmpxchg ptr $busy, i64 0, i64 1 acquire monotonic, align 8
  %mine = extractvalue { i64, i1 } %tried, 1
  br i1 %mine, label %own, label %alone
own:
  %have = load i64, ptr $workers, align 8
  %enough = icmp sge i64 %have, %seats
  br i1 %enough, label %check, label %more
more:
  %grown = call i64 @grow(i64 %have, i64 %seats)
  br label %check
check:
  %workers = phi i64 [ %have, %own ], [ %grown, %more ]
  %helpers = call i64 @llvm.smin.i64(i64 %seats, i64 %workers)
  %some = icmp sgt i64 %helpers, 0
  br i1 %some, label %open, label %forgo
forgo:
  store atomic i64 0, ptr $busy release, align 8
  br label %alone

open:
  %mode = call i64 @mode()
  store ptr %task, ptr $task, align 8
  store ptr %context, ptr $context, align 8
  store i64 %count, ptr $count, align 8
  store i64 %mode, ptr $mode, align 8
  store i64 9223372036854775807, ptr $failed_index, align 8
  store atomic i64 0, ptr $next monotonic, align 8
  %gate = load atomic i64, ptr $gate monotonic, align 8
  %region = lshr i64 %gate, 32
  %region1 = add i64 %region, 1
  %high = shl i64 %region1, 32
  %low = shl i64 %helpers, 16
  %opened = or i64 %high, %low
  store atomic i64 %opened, ptr $gate seq_cst, align 8
  %sleepers = load atomic i64, ptr $sleepers seq_cst, align 8
  %awake = sub i64 %workers, %sleepers
  %lack = icmp slt i64 %awake, %helpers
  br i1 %lack, label %rouse, label %work
rouse:
  call void @rouse(i64 %helpers, i64 %workers)
  br label %work
work:
  call void @drain(ptr %task, ptr %context, i64 %count)
  %closed = atomicrmw and ptr $gate, i64 $close acq_rel, align 8
  %inside = and i64 %closed, $inside
  %left = icmp eq i64 %inside, 0
  br i1 %left, label %finish, label %wait
wait:
  call void @await()
  br label %finish
finish:
  %failed = load i64, ptr $failed_index, align 8
  %well = icmp eq i64 %failed, 9223372036854775807
  %code = load i64, ptr $failed_code, align 8
  %result = select i1 %well, i64 0, i64 %code
  store atomic i64 0, ptr $busy release, align 8
  ret i64 %result

alone:
  %all = call i64 @$entry.serial(ptr %task, ptr %context, i64 %count, i64 1)
  ret i64 %all
}

declare i64 @llvm.smin.i64(i64, i64)

define internal void @await() {
entry:
  br label %look
look:
  %turn = phi i64 [ 0, %entry ], [ %turn1, %rest ], [ %turn1, %yield ]
  %end = phi i64 [ 0, %entry ], [ %end, %rest ], [ %end1, %yield ]
  %gate = load atomic i64, ptr $gate acquire, align 8
  %inside = and i64 %gate, $inside
  %left = icmp eq i64 %inside, 0
  br i1 %left, label %leave, label %wait
wait:
  call void @pause()
  %turn1 = add i64 %turn, 1
  %low_turn = and i64 %turn1, $turns
  %check = icmp eq i64 %low_turn, 0
  br i1 %check, label %measure, label %rest
rest:
  br label %look
measure:
  %now = call i64 @now()
  %first = icmp eq i64 %end, 0
  %limit = add i64 %now, $patience
  %end1 = select i1 %first, i64 %limit, i64 %end
  %late = icmp sgt i64 %now, %end1
  br i1 %late, label %block, label %yield
yield:
  %yielded = call i32 @sched_yield()
  br label %look

block:
  %locked = call i32 @pthread_mutex_lock(ptr $mutex)
  %marked = atomicrmw or ptr $gate, i64 $waiting acq_rel, align 8
  br label %again
again:
  %gate1 = load atomic i64, ptr $gate acquire, align 8
  %inside1 = and i64 %gate1, $inside
  %left1 = icmp eq i64 %inside1, 0
  br i1 %left1, label %unlock, label %doze
doze:
  %dozed = call i32 @pthread_cond_wait(ptr $done, ptr $mutex)
  br label %again
unlock:
  %unlocked = call i32 @pthread_mutex_unlock(ptr $mutex)
  br label %leave
leave:
  ret void
}

define internal void @rouse(i64 %helpers, i64 %workers) {
entry:
  %locked = call i32 @pthread_mutex_lock(ptr $mutex)
  %sleepers = load atomic i64, ptr $sleepers seq_cst, align 8
  %awake = sub i64 %workers, %sleepers
  %lacking = sub i64 %helpers, %awake
  %positive = call i64 @llvm.smax.i64(i64 %lacking, i64 0)
  %calls = call i64 @llvm.smin.i64(i64 %positive, i64 %sleepers)
  %rest = sub i64 %sleepers, %calls
  store atomic i64 %rest, ptr $sleepers seq_cst, align 8
  %tokens = load i64, ptr $tokens, align 8
  %tokens1 = add i64 %tokens, %calls
  store i64 %tokens1, ptr $tokens, align 8
  %unlocked = call i32 @pthread_mutex_unlock(ptr $mutex)
  br label %next
next:
  %done = phi i64 [ 0, %entry ], [ %done1, %signal ]
  %some = icmp slt i64 %done, %calls
  br i1 %some, label %signal, label %leave
signal:
  %signalled = call i32 @pthread_cond_signal(ptr $wake)
  %done1 = add i64 %done, 1
  br label %next
leave:
  ret void
}

declare i64 @llvm.smax.i64(i64, i64)
"""

_SERIAL = """\
define $linkage i64 @$name(ptr %task, ptr %context, i64 %count, i64 %threads) {
entry:
  br label %next
next:
  %index = phi i64 [ 0, %entry ], [ %index1, %run ]
  %some = icmp slt i64 %index, %count
  br i1 %some, label %run, label %leave
run:
  %code = call i64 %task(ptr %context, i64 %index)
  %index1 = add i64 %index, 1
  %well = icmp eq i64 %code, 0
  br i1 %well, label %next, label %failed
failed:
  ret i64 %code
leave:
  ret i64 0
}
"""


def serial() -> str:
    """A module with ``ENTRY`` alone, which runs everything on the thread that calls."""
    return Template(_SERIAL).substitute(linkage="", name=ENTRY)


def pool(arch: str, clock: int, setmask: int, kept_signals: Mapping[str, int]) -> str:
    """The module of the pool: ``ENTRY``, and ``RESET`` for the child of a fork.

    arch          "x86", "aarch64" or "other"
    clock         the number of the monotonic clock on this platform
    setmask       its SIG_SETMASK
    kept_signals  the signals that workers do not block
    """
    values: dict[str, object] = {
        name: f"getelementptr (i8, ptr @pool, i64 {offset})" for name, offset in _FIELDS.items()
    }
    keep = [
        f"  %{name} = call i32 @sigdelset(ptr %set, i32 {number})"
        for name, number in kept_signals.items()
    ]
    values.update(
        entry=ENTRY, reset=RESET, state_bytes=STATE_BYTES, most=MOST_WORKERS, clock=clock,
        setmask=setmask, keep_signals="\n".join(keep), idle=IDLE_NANOSECONDS,
        patience=WAIT_NANOSECONDS, turns=127, enter=1 - (1 << 16), seats=0xFFFF0000,
        inside=0x7FFF, waiting=0x8000, low=0xFFFF, last_awaited=0x8001, close=~0xFFFF0000,
    )  # fmt: skip
    parts = [DECLARATIONS, MACHINES[arch], CLOCK, _WORK, _WORKER, _CALLER, MANAGEMENT]
    text = Template("\n".join(parts)).substitute(values)
    alone = Template(_SERIAL).substitute(linkage="internal", name=f"{ENTRY}.serial")
    return f"{text}\n{alone}"
