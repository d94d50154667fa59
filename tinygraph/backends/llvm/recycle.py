"""Memory for large results of the native entrance, used again when an array is gone, as LLVM IR.

Allocators give large blocks back to the operating system as soon as they are free, and each page
of a new one costs an interrupt at its first use, which may take several times as long as the
computation.  So the entrance makes large results on blocks of its own.  NumPy gives such a block
back to us by the handler that the array names (NEP 49), and we keep it for a later result of
about the same size: ``MOST_BLOCKS`` and ``MOST_BYTES`` at most, and the oldest goes first.

To Python the arrays are like any other: they own their memory and can be resized, and tracemalloc
sees them.  Where the user has chosen a handler, all results are made by that one.

Everything here happens under the GIL.  A block has pages of its own where the system is a POSIX
one: as part of a heap it could keep all that lies below it from being given back.  Elsewhere it
comes from NumPy's default allocator.  In front of its aligned elements stand two words: how many
bytes they have, and the address of the whole.
"""

from __future__ import annotations

import mmap
import os
from string import Template

from tinygraph.backends.llvm.entry_checks import loop

# Smaller results stay in the memory of the process anyway; with larger ones the time to compute
# counts, and so does the memory.
LEAST, MOST_BYTES = 1 << 16, 1 << 26
MOST_BLOCKS = 128

CAPSULE = b"mem_handler"  # the name that NumPy asks for
NAME = b"tinygraph"

_POSIX = os.name == "posix"
IMPORTS = ("PyCapsule_New", "PyTraceMalloc_Track", *(("mmap", "munmap") if _POSIX else ()))
# What NumPy has: its function that tells the handler in use, the default handler, its capsule.
GET_HANDLER, DEFAULT, DEFAULT_CAPSULE = "PyDataMem_GetHandler", "default", "default_capsule"

# Fields of NumPy's handler, in bytes.
HANDLER_VERSION, HANDLER_CONTEXT, HANDLER_MALLOC, HANDLER_FREE = 127, 128, 136, 160

_NUMBERS = {
    "most_bytes": MOST_BYTES, "most_blocks": MOST_BLOCKS, "context": HANDLER_CONTEXT,
    "malloc": HANDLER_MALLOC, "free": HANDLER_FREE,
    "block": 64,  # elements start at a multiple, and their bytes are one
    "block_less": 63,
    "head": 80,  # the two words, and what aligning may skip
    # Elements of different blocks start at different places of a page: were it one place, loops
    # that write several results would find them all in the same few lines of the cache.
    "stagger": 9 * 64, "stagger_mask": 4095, "extra": 80 + 4096 - 64,
    "fresh_flags": 0x501,  # C-contiguous, aligned, writeable
    "own_data": 4,
    "domain": 389047,  # of NumPy's arrays in tracemalloc
    "numpy_handler": GET_HANDLER, "default": DEFAULT, "default_capsule": DEFAULT_CAPSULE,
    "capsule_bytes": len(CAPSULE) + 1, "capsule_name": CAPSULE.decode() + r"\00",
    "name": NAME.decode() + r"\00" * (HANDLER_VERSION - len(NAME)),
}  # fmt: skip

_DECLARATIONS = """\
@$default = external global i8
@$default_capsule = external global i8
declare ptr @$numpy_handler()
declare ptr @PyCapsule_New(ptr, ptr, ptr)
declare i32 @PyTraceMalloc_Track(i32, i64, i64)

@kept = internal global [$most_blocks x ptr] zeroinitializer  ; the oldest first
@kept.count = internal global i64 0
@kept.bytes = internal global i64 0
@stagger = internal global i64 0

@capsule.name = internal constant [$capsule_bytes x i8] c"$capsule_name"
@capsule = internal global ptr null
@handler = internal global { [127 x i8], i8, ptr, ptr, ptr, ptr, ptr } {
  [127 x i8] c"$name", i8 1, ptr null, ptr @handle_malloc, ptr @handle_calloc, ptr @handle_realloc,
  ptr @handle_free }
"""

# The memory of blocks: pages of the system, or what NumPy's default handler has.
_PAGES = """\
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)

define internal ptr @get_memory(i64 %size) {
  %got = call ptr @mmap(ptr null, i64 %size, i32 $protection, i32 $mapping, i32 -1, i64 0)
  %address = ptrtoint ptr %got to i64
  %failed = icmp eq i64 %address, -1
  %memory = select i1 %failed, ptr null, ptr %got
  ret ptr %memory
}

define internal void @give_memory(ptr %memory, i64 %size) {
  %code = call i32 @munmap(ptr %memory, i64 %size)
  ret void
}
"""

_HEAP = """\
define internal ptr @get_memory(i64 %size) {
  %context = call ptr @field(ptr @$default, i64 $context)
  %malloc = call ptr @field(ptr @$default, i64 $malloc)
  %memory = call ptr %malloc(ptr %context, i64 %size)
  ret ptr %memory
}

define internal void @give_memory(ptr %memory, i64 %size) {
  %context = call ptr @field(ptr @$default, i64 $context)
  %free = call ptr @field(ptr @$default, i64 $free)
  call void %free(ptr %context, ptr %memory, i64 %size)
  ret void
}
"""

_BLOCKS = """\
define internal i64 @room(ptr %block) alwaysinline {
  %room = call i64 @word(ptr %block, i64 -2)
  ret i64 %room
}

; A new block, or null.
define internal ptr @allocate(i64 %bytes) {
entry:
  %up = add i64 %bytes, $block_less
  %room = and i64 %up, -$block
  %size = add i64 %room, $extra
  %huge = icmp ugt i64 %bytes, 4611686018427387904
  br i1 %huge, label %none, label %ask
ask:
  %whole = call ptr @get_memory(i64 %size)
  %failed = icmp eq ptr %whole, null
  br i1 %failed, label %none, label %have
have:
  %address = ptrtoint ptr %whole to i64
  %least = add i64 %address, $head
  %aligned = and i64 %least, -$block
  %skip = load i64, ptr @stagger, align 8
  %skip.more = add i64 %skip, $stagger
  %skip.next = and i64 %skip.more, $stagger_mask
  store i64 %skip.next, ptr @stagger, align 8
  %start = add i64 %aligned, %skip
  %block = inttoptr i64 %start to ptr
  call void @set_word(ptr %block, i64 -2, i64 %room)
  call void @set_pointer(ptr %block, i64 -1, ptr %whole)
  ret ptr %block
none:
  ret ptr null
}

define internal void @release(ptr %block) {
  %room = call i64 @room(ptr %block)
  %size = add i64 %room, $extra
  %whole = call ptr @pointer(ptr %block, i64 -1)
  call void @give_memory(ptr %whole, i64 %size)
  ret void
}

; The block of this number is no longer kept.
define internal ptr @unkeep(i64 %number) {
entry:
  %block = call ptr @pointer(ptr @kept, i64 %number)
  %room = call i64 @room(ptr %block)
  %bytes = load i64, ptr @kept.bytes, align 8
  %less = sub i64 %bytes, %room
  store i64 %less, ptr @kept.bytes, align 8
  %count = load i64, ptr @kept.count, align 8
  %fewer = sub i64 %count, 1
  store i64 %fewer, ptr @kept.count, align 8
  %later = sub i64 %fewer, %number
  $shift_loop
  ret ptr %block
}

; The youngest block that is kept, large enough, and at most an eighth too large; or a new one.
define internal ptr @take(i64 %bytes) {
entry:
  %slack = lshr i64 %bytes, 3
  %count = load i64, ptr @kept.count, align 8
  $find_loop
  %new = call ptr @allocate(i64 %bytes)
  ret ptr %new
found:
  %again = call ptr @unkeep(i64 %number)
  ret ptr %again
}

; Keep a block whose array is gone.
define internal void @put(ptr %block) {
entry:
  %null = icmp eq ptr %block, null
  br i1 %null, label %leave, label %measure
measure:
  %room = call i64 @room(ptr %block)
  %large = icmp ugt i64 %room, $most_bytes
  br i1 %large, label %give_back, label %look
give_back:
  call void @release(ptr %block)
  br label %leave
look:
  %count = load i64, ptr @kept.count, align 8
  %full = icmp uge i64 %count, $most_blocks
  %bytes = load i64, ptr @kept.bytes, align 8
  %more = add i64 %bytes, %room
  %heavy = icmp ugt i64 %more, $most_bytes
  %over = or i1 %full, %heavy
  br i1 %over, label %throw_out, label %keep
throw_out:
  %oldest = call ptr @unkeep(i64 0)
  call void @release(ptr %oldest)
  br label %look
keep:
  call void @set_pointer(ptr @kept, i64 %count, ptr %block)
  %one_more = add i64 %count, 1
  store i64 %one_more, ptr @kept.count, align 8
  store i64 %more, ptr @kept.bytes, align 8
  br label %leave
leave:
  ret void
}
"""

_HANDLER = """\
define internal ptr @handle_malloc(ptr %context, i64 %bytes) {
  %block = call ptr @take(i64 %bytes)
  ret ptr %block
}

define internal ptr @handle_calloc(ptr %context, i64 %number, i64 %size) {
entry:
  %product = call { i64, i1 } @llvm.umul.with.overflow.i64(i64 %number, i64 %size)
  %bytes = extractvalue { i64, i1 } %product, 0
  %over = extractvalue { i64, i1 } %product, 1
  br i1 %over, label %none, label %ask
ask:
  %block = call ptr @take(i64 %bytes)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %none, label %clear
clear:
  %room = call i64 @room(ptr %block)
  %count = lshr i64 %room, 3
  $clear_loop
  ret ptr %block
none:
  ret ptr null
}

; The elements may move, and if they cannot they stay.
define internal ptr @handle_realloc(ptr %context, ptr %old, i64 %bytes) {
entry:
  %null = icmp eq ptr %old, null
  br i1 %null, label %fresh, label %measure
fresh:
  %first = call ptr @take(i64 %bytes)
  ret ptr %first
measure:
  %room = call i64 @room(ptr %old)
  %excess = sub i64 %room, %bytes
  %half = lshr i64 %room, 1
  %suits = icmp ule i64 %excess, %half
  br i1 %suits, label %stay, label %move
stay:
  ret ptr %old
move:
  %new = call ptr @take(i64 %bytes)
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %none, label %copy
copy:
  %new.room = call i64 @room(ptr %new)
  %shrinks = icmp ult i64 %new.room, %room
  %common = select i1 %shrinks, i64 %new.room, i64 %room
  %count = lshr i64 %common, 3
  $copy_loop
  call void @put(ptr %old)
  ret ptr %new
none:
  ret ptr null
}

define internal void @handle_free(ptr %context, ptr %block, i64 %bytes) {
  call void @put(ptr %block)
  ret void
}

declare { i64, i1 } @llvm.umul.with.overflow.i64(i64, i64)
"""

_CREATE = """\
; A new array.  %bytes: of its elements, if it shall lie on a block; else 0.
define internal ptr @create(ptr %dtype, i64 %axes, ptr %shape, i64 %bytes) {
entry:
  %axes32 = trunc i64 %axes to i32
  call void @Py_IncRef(ptr %dtype)  ; making an array takes one away
  %small = icmp eq i64 %bytes, 0
  br i1 %small, label %usual, label %ask
ask:
  %used = call ptr @$numpy_handler()
  %unknown = icmp eq ptr %used, null
  br i1 %unknown, label %forget, label %compare
compare:
  call void @Py_DecRef(ptr %used)
  %default = icmp eq ptr %used, @$default_capsule
  br i1 %default, label %name, label %usual
name:
  %known = load ptr, ptr @capsule, align 8
  %first = icmp eq ptr %known, null
  br i1 %first, label %make_capsule, label %allocate
make_capsule:
  %made = call ptr @PyCapsule_New(ptr @handler, ptr @capsule.name, ptr null)
  %no_capsule = icmp eq ptr %made, null
  br i1 %no_capsule, label %forget, label %keep_capsule
keep_capsule:
  store ptr %made, ptr @capsule, align 8
  br label %allocate
forget:
  call void @PyErr_Clear()
  br label %usual
allocate:
  %capsule = load ptr, ptr @capsule, align 8
  %block = call ptr @take(i64 %bytes)
  %no_block = icmp eq ptr %block, null
  br i1 %no_block, label %usual, label %on_block
on_block:
  %array = call ptr @PyArray_NewFromDescr(ptr @ndarray, ptr %dtype, i32 %axes32, ptr %shape,
                                          ptr null, ptr %block, i32 $fresh_flags, ptr null)
  %failed = icmp eq ptr %array, null
  br i1 %failed, label %give_back, label %own
own:
  %flags.place = getelementptr i8, ptr %array, i64 $array_flags
  %flags = load i32, ptr %flags.place, align 4
  %owning = or i32 %flags, $own_data
  store i32 %owning, ptr %flags.place, align 4
  %handler.place = getelementptr i8, ptr %array, i64 $array_handler
  call void @Py_IncRef(ptr %capsule)
  store ptr %capsule, ptr %handler.place, align 8
  %address = ptrtoint ptr %block to i64
  %tracked = call i32 @PyTraceMalloc_Track(i32 $domain, i64 %address, i64 %bytes)
  ret ptr %array
give_back:
  call void @put(ptr %block)
  ret ptr null
usual:
  %plain = call ptr @PyArray_NewFromDescr(ptr @ndarray, ptr %dtype, i32 %axes32, ptr %shape,
                                          ptr null, ptr null, i32 0, ptr null)
  ret ptr %plain
}
"""

_SHIFT = """\
  %to = add i64 %number, %k
  %from = add i64 %to, 1
  %moved = call ptr @pointer(ptr @kept, i64 %from)
  call void @set_pointer(ptr @kept, i64 %to, ptr %moved)"""

_FIND = """\
  %back = add i64 %k, 1
  %number = sub i64 %count, %back
  %block = call ptr @pointer(ptr @kept, i64 %number)
  %room = call i64 @room(ptr %block)
  %excess = sub i64 %room, %bytes
  %suits = icmp ule i64 %excess, %slack
  br i1 %suits, label %found, label %k.next"""

_CLEAR = "  call void @set_word(ptr %block, i64 %k, i64 0)"

_COPY = """\
  %element = call i64 @word(ptr %old, i64 %k)
  call void @set_word(ptr %new, i64 %k, i64 %element)"""


def source(pages: bool = _POSIX) -> str:
    """The definitions, for ``entry_ir.source``, which fills in what is left open.

    pages   blocks have pages of their own, by mmap
    """
    loops = {
        "shift_loop": loop("k", "%later", _SHIFT),
        "find_loop": loop("k", "%count", _FIND),
        "clear_loop": loop("k", "%count", _CLEAR),
        "copy_loop": loop("k", "%count", _COPY),
    }
    numbers: dict[str, object] = {**_NUMBERS}
    if pages:
        numbers["protection"] = mmap.PROT_READ | mmap.PROT_WRITE
        numbers["mapping"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = _PAGES if pages else _HEAP
    text = Template("\n".join([_DECLARATIONS, memory, _BLOCKS, _HANDLER, _CREATE]))
    return text.safe_substitute(loops, **numbers)
