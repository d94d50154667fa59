"""The native entrance of compiled functions, as LLVM IR: one function for all of them.

CPython calls it with the arguments themselves.  It compares them with the plans of earlier calls,
and where one fits it makes the results, runs the native code of the plan outside the GIL, stores
the new values of shared variables, and returns the results.  Where none fits, or anything else is
out of the ordinary, it has done nothing and returns None: the caller then works in Python.

Everything before the run is one moment for other threads, and so is the commit after it: it
happens under the GIL, and calls nothing that could give it up.

What it reads (``entry.py`` verifies the layouts, ``compile/entrance.py`` fills the tables; a
*word* is 8 bytes):

    self    a list: header, plans, spaces, cells, wake
    header  array of words, below; then a *row* per input, shared variable, output, new value
    plans   list of arrays of words, below
    spaces  list of byte arrays, workspaces that no call is using
    cells   a list [current array, spare or None] per shared variable, then per new value
    wake    called after a commit for which other threads wait

    header  0 inputs  1 shared variables  2 outputs  3 new values  4 is the result a list?
            5 address of the gate's words  6 the most constants of a plan
            7 the context variable and 8 the address of the word that say how many threads a call
            may use, 0 if no plan asks
    row     0 dtype object  1 axes  2 type of NumPy's scalar or 0  3 which Python numbers
            4 address of a shared variable's words
    plan    0 address of native code  1 bytes of workspace  2 threads, 0: any
            3 where sizes, 4 results, 5 constants and 6 values lie, in words
            7 how many constants, then the shapes of inputs and shared variables.  Results: for
            each its bytes if it shall lie on a block (``recycle.py``), else 0; and its shape.
            Values: a count, and for each an argument, how many bytes, and where in the plan
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

from tinygraph.backends.llvm import recycle
from tinygraph.backends.llvm.entry_checks import ARGUMENTS, LOOPS, PLANS, READING, loop

ENTRY = "tinygraph_enter"

# The words of the header and of a plan before their tables, and of a row.
HEADER, PLAN, ROW = 9, 8, 5
# Words of the gate, and of a shared variable.
HELD, RUNNING, WAITING = 0, 1, 2
BUSY, OWNED = 0, 1
# Which Python numbers an input takes: floats and integers that are rounded to float32, integers
# that float32 holds, both as float64, integers as int64 and as int32.
NO_NUMBERS, ROUNDED, SMALL, DOUBLE, LONG, INT = range(6)

IMPORTS = (
    "Py_IncRef Py_DecRef PyErr_Clear PyEval_SaveThread PyEval_RestoreThread PyFloat_AsDouble "
    "PyLong_AsLongLongAndOverflow PyList_New PyList_SetItem PyList_Append PyList_SetSlice "
    "PyObject_CallNoArgs PyContextVar_Get"
).split()
TYPES = ("ndarray", "float", "int", "none")

_DECLARATIONS = """\
@ndarray = external global i8
@float = external global i8
@int = external global i8
@none = external global i8

declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare void @PyErr_Clear()
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare double @PyFloat_AsDouble(ptr)
declare i64 @PyLong_AsLongLongAndOverflow(ptr, ptr)
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare i32 @PyList_Append(ptr, ptr)
declare i32 @PyList_SetSlice(ptr, i64, i64, ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare i32 @PyContextVar_Get(ptr, ptr, ptr)
declare ptr @PyArray_NewFromDescr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
"""

_RESULTS = """\
; May the written variables change now?  Not while another call changes one of them.
define internal i1 @free(ptr %header, i64 %from, i64 %count) {
entry:
  $free_loop
  ret i1 true
no:
  ret i1 false
}

; Give the first %count objects up; keep them.
define internal void @drop(ptr %objects, i64 %count) {
entry:
  $drop_loop
  ret void
}

define internal void @keep(ptr %objects, i64 %count) {
entry:
  $keep_loop
  ret void
}

define internal void @mark(ptr %header, i64 %from, i64 %count, i64 %busy) {
entry:
  $mark_loop
  ret void
}

; An array for every result: a spare where there is one of the right shape, else a new one.
define internal i1 @make(ptr %header, ptr %plan, ptr %cells, ptr %objects, ptr %data) {
entry:
  %inputs = call i64 @word(ptr %header, i64 0)
  %shareds = call i64 @word(ptr %header, i64 1)
  %outputs = call i64 @word(ptr %header, i64 2)
  %news = call i64 @word(ptr %header, i64 3)
  %arguments = add i64 %inputs, %shareds
  %results = add i64 %outputs, %news
  %shapes.at = call i64 @word(ptr %plan, i64 4)
  %shapes = getelementptr i64, ptr %plan, i64 %shapes.at
  %cursor = alloca ptr, align 8
  store ptr %shapes, ptr %cursor, align 8
  $results_loop
  ret i1 true
failed:
  call void @drop(ptr %objects, i64 %r)
  ret i1 false
}
"""

_RESULT = """\
  %at = add i64 %arguments, %r
  %row = call ptr @row(ptr %header, i64 %at)
  %axes = call i64 @word(ptr %row, i64 1)
  %bytes.place = load ptr, ptr %cursor, align 8
  %shape = getelementptr i64, ptr %bytes.place, i64 1
  %rest = getelementptr i64, ptr %shape, i64 %axes
  store ptr %rest, ptr %cursor, align 8
  %new = icmp uge i64 %r, %outputs
  br i1 %new, label %try_spare, label %create
try_spare:
  %number = sub i64 %r, %outputs
  %cell.at = add i64 %shareds, %number
  %cell = call ptr @item(ptr %cells, i64 %cell.at)
  %spare = call ptr @item(ptr %cell, i64 1)
  %plain = call i1 @plain(ptr %spare, ptr %row)
  br i1 %plain, label %spare_shape, label %create
spare_shape:
  %has = call ptr @shape(ptr %spare)
  %suits = call i1 @same(ptr %has, ptr %shape, i64 %axes)
  br i1 %suits, label %reuse, label %create
reuse:
  call void @Py_IncRef(ptr %spare)
  br label %have
create:
  %dtype = call ptr @pointer(ptr %row, i64 0)
  %bytes = call i64 @word(ptr %bytes.place, i64 0)
  %made = call ptr @create(ptr %dtype, i64 %axes, ptr %shape, i64 %bytes)
  %out_of_memory = icmp eq ptr %made, null
  br i1 %out_of_memory, label %failed, label %have
have:
  %array = phi ptr [ %spare, %reuse ], [ %made, %create ]
  call void @set_pointer(ptr %objects, i64 %r, ptr %array)
  %elements = call ptr @data(ptr %array)
  call void @set_pointer(ptr %data, i64 %at, ptr %elements)"""

_FREE = """\
  %at = add i64 %from, %k
  %row = call ptr @row(ptr %header, i64 %at)
  %marks = call ptr @pointer(ptr %row, i64 4)
  %busy = call i64 @word(ptr %marks, i64 $busy)
  %idle = icmp eq i64 %busy, 0
  br i1 %idle, label %k.next, label %no"""

_DROP = """\
  %object = call ptr @pointer(ptr %objects, i64 %k)
  call void @Py_DecRef(ptr %object)"""

_KEEP = """\
  %object = call ptr @pointer(ptr %objects, i64 %k)
  call void @Py_IncRef(ptr %object)"""

_MARK = """\
  %at = add i64 %from, %k
  %row = call ptr @row(ptr %header, i64 %at)
  %marks = call ptr @pointer(ptr %row, i64 4)
  call void @set_word(ptr %marks, i64 $busy, i64 %busy)"""

_COMMIT = """\
; Every new value becomes the current one.  What was current becomes the spare if nobody else can
; be reading it; else it takes the place of the new array in %news, to be given up at the end.
define internal void @commit(ptr %header, i64 %from, i64 %count, ptr %cells, i64 %first,
                             ptr %news, i1 %alone) {
entry:
  $commit_loop
  ret void
}

; Python code holds the gate for a moment only, and cannot go on before we let it.
define internal void @pass_gate(ptr %gate) {
entry:
  br label %look
look:
  %held = call i64 @word(ptr %gate, i64 $held)
  %closed = icmp ne i64 %held, 0
  br i1 %closed, label %wait, label %leave
wait:
  %thread = call ptr @PyEval_SaveThread()
  call void @PyEval_RestoreThread(ptr %thread)
  br label %look
leave:
  ret void
}
"""

_STORE = """\
  %at = add i64 %from, %k
  %row = call ptr @row(ptr %header, i64 %at)
  %marks = call ptr @pointer(ptr %row, i64 4)
  %owned = call i64 @word(ptr %marks, i64 $owned)
  %ours = icmp ne i64 %owned, 0
  call void @set_word(ptr %marks, i64 $owned, i64 1)
  %cell.at = add i64 %first, %k
  %cell = call ptr @item(ptr %cells, i64 %cell.at)
  %places = call ptr @items(ptr %cell)
  %new = call ptr @pointer(ptr %news, i64 %k)
  %old = call ptr @pointer(ptr %places, i64 0)
  %spare = call ptr @pointer(ptr %places, i64 1)
  call void @set_pointer(ptr %places, i64 0, ptr %new)
  %axes = call i64 @word(ptr %row, i64 1)
  %old_shape = call ptr @shape(ptr %old)
  %new_shape = call ptr @shape(ptr %new)
  %alike = call i1 @same(ptr %old_shape, ptr %new_shape, i64 %axes)
  %safe = and i1 %ours, %alone
  %again = and i1 %safe, %alike
  br i1 %again, label %recycle, label %give_up
recycle:
  call void @set_pointer(ptr %places, i64 1, ptr %old)
  br label %stored
give_up:
  call void @Py_IncRef(ptr @none)
  call void @set_pointer(ptr %places, i64 1, ptr @none)
  br label %stored
stored:
  %rest = phi ptr [ @none, %recycle ], [ %old, %give_up ]
  %extra = icmp eq ptr %rest, @none
  br i1 %extra, label %hold_none, label %swap
hold_none:
  call void @Py_IncRef(ptr @none)
  br label %swap
swap:
  call void @set_pointer(ptr %news, i64 %k, ptr %rest)
  call void @Py_DecRef(ptr %spare)"""

_ENTER = """\
define ptr @$entry(ptr %self, ptr %args, i64 %given) {
entry:
  %header.array = call ptr @item(ptr %self, i64 0)
  %header = call ptr @data(ptr %header.array)
  %plans = call ptr @item(ptr %self, i64 1)
  %spaces = call ptr @item(ptr %self, i64 2)
  %cells = call ptr @item(ptr %self, i64 3)
  %inputs = call i64 @word(ptr %header, i64 0)
  %shareds = call i64 @word(ptr %header, i64 1)
  %outputs = call i64 @word(ptr %header, i64 2)
  %news = call i64 @word(ptr %header, i64 3)
  %gate = call ptr @pointer(ptr %header, i64 5)
  %constants = call i64 @word(ptr %header, i64 6)
  %arguments = add i64 %inputs, %shareds
  %results = add i64 %outputs, %news
  %arrays = add i64 %arguments, %results
  %pointers = add i64 %arrays, %constants
  %cells.used = add i64 %shareds, %news
  %stateful = icmp ne i64 %cells.used, 0
  %space.place = alloca [8 x i64], align 16  ; the fault area; also an empty workspace
  %data = alloca ptr, i64 %pointers, align 16
  %shapes = alloca ptr, i64 %arguments, align 16
  %slots = alloca i64, i64 %inputs, align 16
  %currents = alloca ptr, i64 %shareds, align 16
  %objects = alloca ptr, i64 %results, align 16
  %new.objects = getelementptr ptr, ptr %objects, i64 %outputs
  %exact = icmp eq i64 %given, %inputs
  br i1 %exact, label %counted, label %none
counted:
  %variable = call ptr @pointer(ptr %header, i64 7)
  %threadless = icmp eq ptr %variable, null
  br i1 %threadless, label %gated, label %read_threads
read_threads:
  %code.variable = call i32 @PyContextVar_Get(ptr %variable, ptr null, ptr %space.place)
  %got = icmp eq i32 %code.variable, 0
  br i1 %got, label %have_context, label %error
have_context:
  %in_context = load ptr, ptr %space.place, align 8
  call void @Py_DecRef(ptr %in_context)  ; the context still has it
  %unset = icmp eq ptr %in_context, @none
  br i1 %unset, label %process_threads, label %context_threads
process_threads:
  %process.word = call ptr @pointer(ptr %header, i64 8)
  %process.count = call i64 @word(ptr %process.word, i64 0)
  br label %gated
context_threads:
  %context.count = call i64 @PyLong_AsLongLongAndOverflow(ptr %in_context, ptr %space.place)
  br label %gated
gated:
  %threads = phi i64 [ 1, %counted ], [ %process.count, %process_threads ],
                     [ %context.count, %context_threads ]
  br i1 %stateful, label %look, label %take_arguments
look:
  %held = call i64 @word(ptr %gate, i64 $held)
  %open = icmp eq i64 %held, 0
  br i1 %open, label %busy, label %none
busy:
  %from = add i64 %arguments, %outputs
  %free = call i1 @free(ptr %header, i64 %from, i64 %news)
  br i1 %free, label %take_arguments, label %none

take_arguments:
  %plain = call i1 @gather(ptr %header, ptr %args, ptr %cells, ptr %data, ptr %shapes, ptr %slots,
                           ptr %currents)
  br i1 %plain, label %choose, label %none
choose:
  %plan.array = call ptr @find(ptr %plans, ptr %header, ptr %data, ptr %shapes, i64 %threads)
  %unknown = icmp eq ptr %plan.array, null
  br i1 %unknown, label %none, label %planned
planned:
  %plan = call ptr @data(ptr %plan.array)
  %bytes = call i64 @word(ptr %plan, i64 1)
  %needless = icmp eq i64 %bytes, 0
  br i1 %needless, label %ready, label %take_space
take_space:
  %spaces.count = call i64 @length(ptr %spaces)
  %no_space = icmp eq i64 %spaces.count, 0
  br i1 %no_space, label %none, label %measure
measure:
  %top = sub i64 %spaces.count, 1
  %space = call ptr @item(ptr %spaces, i64 %top)
  %space.shape = call ptr @shape(ptr %space)
  %space.bytes = call i64 @word(ptr %space.shape, i64 0)
  %needed = add i64 %bytes, $alignment
  %enough = icmp uge i64 %space.bytes, %needed
  br i1 %enough, label %pop, label %none
pop:
  call void @Py_IncRef(ptr %space)
  %popped = call i32 @PyList_SetSlice(ptr %spaces, i64 %top, i64 %spaces.count, ptr null)
  %space.data = call ptr @data(ptr %space)
  %space.address = ptrtoint ptr %space.data to i64
  %space.up = add i64 %space.address, $alignment_less
  %space.aligned = and i64 %space.up, -$alignment
  %space.start = inttoptr i64 %space.aligned to ptr
  br label %ready

ready:
  %taken = phi ptr [ null, %planned ], [ %space, %pop ]
  %arena = phi ptr [ %space.place, %planned ], [ %space.start, %pop ]
  %made = call i1 @make(ptr %header, ptr %plan, ptr %cells, ptr %objects, ptr %data)
  br i1 %made, label %prepare, label %out_of_memory
out_of_memory:
  call void @put_back(ptr %spaces, ptr %taken)
  br label %error
error:
  ret ptr null
prepare:
  %constants.at = call i64 @word(ptr %plan, i64 5)
  %constants.count = call i64 @word(ptr %plan, i64 7)
  $constants_loop
  call void @Py_IncRef(ptr %plan.array)
  call void @keep(ptr %currents, i64 %shareds)
  %written = add i64 %arguments, %outputs
  call void @mark(ptr %header, i64 %written, i64 %news, i64 1)
  br i1 %stateful, label %count_in, label %run
count_in:
  %running = call i64 @word(ptr %gate, i64 $running)
  %running.more = add i64 %running, 1
  call void @set_word(ptr %gate, i64 $running, i64 %running.more)
  br label %run

run:
  %native = call ptr @pointer(ptr %plan, i64 0)
  %sizes.at = call i64 @word(ptr %plan, i64 3)
  %sizes = getelementptr i64, ptr %plan, i64 %sizes.at
  %thread = call ptr @PyEval_SaveThread()
  %code = call i64 %native(ptr %sizes, ptr %data, ptr %arena, ptr %space.place)
  call void @PyEval_RestoreThread(ptr %thread)
  %well = icmp eq i64 %code, 0
  br i1 %stateful, label %count_out, label %clean
count_out:
  call void @pass_gate(ptr %gate)
  %others.more = call i64 @word(ptr %gate, i64 $running)
  %others = sub i64 %others.more, 1
  call void @set_word(ptr %gate, i64 $running, i64 %others)
  %alone = icmp eq i64 %others, 0
  call void @mark(ptr %header, i64 %written, i64 %news, i64 0)
  br i1 %well, label %commit, label %clean
commit:
  call void @commit(ptr %header, i64 %written, i64 %news, ptr %cells, i64 %shareds,
                    ptr %new.objects, i1 %alone)
  br label %clean

clean:
  call void @put_back(ptr %spaces, ptr %taken)
  call void @Py_DecRef(ptr %plan.array)
  call void @drop(ptr %currents, i64 %shareds)
  call void @drop(ptr %new.objects, i64 %news)
  br i1 %stateful, label %waiters, label %finish
waiters:
  %waiting = call i64 @word(ptr %gate, i64 $waiting)
  %someone = icmp ne i64 %waiting, 0
  br i1 %someone, label %wake, label %finish
wake:
  %waker = call ptr @item(ptr %self, i64 4)
  %woken = call ptr @PyObject_CallNoArgs(ptr %waker)
  %interrupted = icmp eq ptr %woken, null
  br i1 %interrupted, label %raise, label %forget
forget:
  call void @Py_DecRef(ptr %woken)
  br label %finish
raise:
  call void @drop(ptr %objects, i64 %outputs)
  ret ptr null

finish:
  br i1 %well, label %hand_over, label %failed
failed:
  call void @drop(ptr %objects, i64 %outputs)
  br label %none
hand_over:
  %form = call i64 @word(ptr %header, i64 4)
  %lone = icmp eq i64 %form, 0
  br i1 %lone, label %single, label %many
single:
  %result = call ptr @pointer(ptr %objects, i64 0)
  ret ptr %result
many:
  %list = call ptr @PyList_New(i64 %outputs)
  %no_list = icmp eq ptr %list, null
  br i1 %no_list, label %raise, label %fill
fill:
  $list_loop
  ret ptr %list
none:
  call void @Py_IncRef(ptr @none)
  ret ptr @none
}

define internal void @put_back(ptr %spaces, ptr %space) {
entry:
  %nothing = icmp eq ptr %space, null
  br i1 %nothing, label %leave, label %append
append:
  %code = call i32 @PyList_Append(ptr %spaces, ptr %space)
  call void @Py_DecRef(ptr %space)
  %well = icmp eq i32 %code, 0
  br i1 %well, label %leave, label %lost
lost:  ; only a workspace
  call void @PyErr_Clear()
  br label %leave
leave:
  ret void
}
"""

_CONSTANT = """\
  %constant.at = add i64 %constants.at, %c
  %constant = call ptr @pointer(ptr %plan, i64 %constant.at)
  %constant.to = add i64 %arrays, %c
  call void @set_pointer(ptr %data, i64 %constant.to, ptr %constant)"""

_LIST_ITEM = """\
  %output = call ptr @pointer(ptr %objects, i64 %o)
  %placed = call i32 @PyList_SetItem(ptr %list, i64 %o, ptr %output)"""


def source(layout: Mapping[str, int]) -> str:
    """The module.  ``layout``: where CPython and NumPy keep what is read, in bytes:
    object_type, list_size, list_items, scalar_value, array_data, array_axes, array_shape,
    array_dtype, array_flags, array_handler; and plain_flags, alignment."""
    numbers = {
        "header": HEADER, "plan": PLAN, "row": ROW, "held": HELD, "running": RUNNING,
        "waiting": WAITING, "busy": BUSY, "owned": OWNED, "rounded": ROUNDED, "small": SMALL,
        "double": DOUBLE, "long": LONG, "int": INT, **layout,
        "alignment_less": layout["alignment"] - 1,
    }  # fmt: skip
    loops = {
        **LOOPS,
        "free_loop": loop("k", "%count", _FREE),
        "drop_loop": loop("k", "%count", _DROP),
        "keep_loop": loop("k", "%count", _KEEP),
        "mark_loop": loop("k", "%count", _MARK),
        "commit_loop": loop("k", "%count", _STORE),
        "results_loop": loop("r", "%results", _RESULT),
        "constants_loop": loop("c", "%constants.count", _CONSTANT),
        "list_loop": loop("o", "%outputs", _LIST_ITEM),
    }
    parts = [_DECLARATIONS, READING, ARGUMENTS, PLANS, recycle.source(), _RESULTS, _COMMIT, _ENTER]
    text = Template("\n".join(parts)).safe_substitute(loops)
    return Template(text).substitute(numbers, entry=ENTRY)
