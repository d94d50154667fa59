"""The part of the native entrance that only looks: at arguments, shared variables and plans.

``entry_ir.py`` says what the tables hold.
"""

from __future__ import annotations

READING = """\
define internal i64 @word(ptr %table, i64 %k) alwaysinline {
  %place = getelementptr i64, ptr %table, i64 %k
  %value = load i64, ptr %place, align 8
  ret i64 %value
}

define internal void @set_word(ptr %table, i64 %k, i64 %value) alwaysinline {
  %place = getelementptr i64, ptr %table, i64 %k
  store i64 %value, ptr %place, align 8
  ret void
}

define internal ptr @pointer(ptr %table, i64 %k) alwaysinline {
  %place = getelementptr ptr, ptr %table, i64 %k
  %value = load ptr, ptr %place, align 8
  ret ptr %value
}

define internal void @set_pointer(ptr %table, i64 %k, ptr %value) alwaysinline {
  %place = getelementptr ptr, ptr %table, i64 %k
  store ptr %value, ptr %place, align 8
  ret void
}

define internal ptr @field(ptr %object, i64 %offset) alwaysinline {
  %place = getelementptr i8, ptr %object, i64 %offset
  %value = load ptr, ptr %place, align 8
  ret ptr %value
}

define internal i64 @length(ptr %list) alwaysinline {
  %place = getelementptr i8, ptr %list, i64 $list_size
  %value = load i64, ptr %place, align 8
  ret i64 %value
}

define internal ptr @items(ptr %list) alwaysinline {
  %value = call ptr @field(ptr %list, i64 $list_items)
  ret ptr %value
}

define internal ptr @item(ptr %list, i64 %k) alwaysinline {
  %items = call ptr @items(ptr %list)
  %value = call ptr @pointer(ptr %items, i64 %k)
  ret ptr %value
}

define internal ptr @data(ptr %array) alwaysinline {
  %value = call ptr @field(ptr %array, i64 $array_data)
  ret ptr %value
}

define internal ptr @shape(ptr %array) alwaysinline {
  %value = call ptr @field(ptr %array, i64 $array_shape)
  ret ptr %value
}

define internal ptr @row(ptr %header, i64 %k) alwaysinline {
  %words = mul i64 %k, $row
  %offset = add i64 %words, $header
  %place = getelementptr i64, ptr %header, i64 %offset
  ret ptr %place
}

; Are %count words, or bytes, the same?
define internal i1 @same(ptr %a, ptr %b, i64 %count) alwaysinline {
entry:
  $words_loop
  ret i1 true
differ:
  ret i1 false
}

define internal i1 @same_bytes(ptr %a, ptr %b, i64 %count) {
entry:
  $bytes_loop
  ret i1 true
differ:
  ret i1 false
}
"""

# One argument: where its elements are, or null.
ARGUMENTS = """\
; Is it an array of the row's dtype object and number of axes, C-contiguous and aligned?
define internal i1 @plain(ptr %x, ptr %row) alwaysinline {
entry:
  %type = call ptr @field(ptr %x, i64 $object_type)
  %array = icmp eq ptr %type, @ndarray
  br i1 %array, label %look, label %no
look:
  %dtype = call ptr @field(ptr %x, i64 $array_dtype)
  %wanted = call ptr @pointer(ptr %row, i64 0)
  %same = icmp eq ptr %dtype, %wanted
  %axes.place = getelementptr i8, ptr %x, i64 $array_axes
  %axes = load i32, ptr %axes.place, align 4
  %rank = call i64 @word(ptr %row, i64 1)
  %rank32 = trunc i64 %rank to i32
  %flat = icmp eq i32 %axes, %rank32
  %flags.place = getelementptr i8, ptr %x, i64 $array_flags
  %flags = load i32, ptr %flags.place, align 4
  %both = and i32 %flags, $plain_flags
  %simple = icmp eq i32 %both, $plain_flags
  %a = and i1 %same, %flat
  %b = and i1 %a, %simple
  ret i1 %b
no:
  ret i1 false
}

; The value of a NumPy scalar or of a Python number, which is put into %slot.
define internal ptr @number(ptr %x, ptr %row, ptr %slot) {
entry:
  %overflow = alloca i32, align 4
  %type = call ptr @field(ptr %x, i64 $object_type)
  %scalar = call ptr @pointer(ptr %row, i64 2)
  %own = icmp eq ptr %type, %scalar
  br i1 %own, label %inside, label %python
inside:
  %value = getelementptr i8, ptr %x, i64 $scalar_value
  ret ptr %value
python:
  %kind = call i64 @word(ptr %row, i64 3)
  %real = icmp eq ptr %type, @float
  br i1 %real, label %float, label %whole
float:
  %double = call double @PyFloat_AsDouble(ptr %x)
  switch i64 %kind, label %no [ i64 $rounded, label %as_float
                                i64 $double, label %as_double ]
as_float:
  %single = fptrunc double %double to float
  store float %single, ptr %slot, align 8
  ret ptr %slot
as_double:
  store double %double, ptr %slot, align 8
  ret ptr %slot
whole:
  %integer = icmp eq ptr %type, @int
  br i1 %integer, label %int, label %no
int:
  %long = call i64 @PyLong_AsLongLongAndOverflow(ptr %x, ptr %overflow)
  %over = load i32, ptr %overflow, align 4
  %fits = icmp eq i32 %over, 0
  br i1 %fits, label %convert, label %no
convert:
  switch i64 %kind, label %no [ i64 $rounded, label %int_float
                                i64 $small, label %int_float
                                i64 $double, label %int_double
                                i64 $long, label %int_long
                                i64 $int, label %int_int ]
int_float:  ; every integer up to 2^24 is a float
  %from24 = add i64 %long, 16777216
  %in24 = icmp ule i64 %from24, 33554432
  %to_float = sitofp i64 %long to float
  store float %to_float, ptr %slot, align 8
  br i1 %in24, label %done, label %no
int_double:
  %from53 = add i64 %long, 9007199254740992
  %in53 = icmp ule i64 %from53, 18014398509481984
  %to_double = sitofp i64 %long to double
  store double %to_double, ptr %slot, align 8
  br i1 %in53, label %done, label %no
int_long:
  store i64 %long, ptr %slot, align 8
  ret ptr %slot
int_int:
  %narrow = trunc i64 %long to i32
  %back = sext i32 %narrow to i64
  %kept = icmp eq i64 %back, %long
  store i32 %narrow, ptr %slot, align 8
  br i1 %kept, label %done, label %no
done:
  ret ptr %slot
no:
  ret ptr null
}

; The elements and the shapes of all inputs and shared variables; false where one is not plain.
define internal i1 @gather(ptr %header, ptr %args, ptr %cells, ptr %data, ptr %shapes, ptr %slots,
                           ptr %currents) {
entry:
  %inputs = call i64 @word(ptr %header, i64 0)
  %shareds = call i64 @word(ptr %header, i64 1)
  $inputs_loop
  $shareds_loop
  ret i1 true
no:
  ret i1 false
}
"""

_INPUT = """\
  %x = call ptr @pointer(ptr %args, i64 %i)
  %row = call ptr @row(ptr %header, i64 %i)
  %plain = call i1 @plain(ptr %x, ptr %row)
  br i1 %plain, label %array, label %other
array:
  %shape = call ptr @shape(ptr %x)
  call void @set_pointer(ptr %shapes, i64 %i, ptr %shape)
  %elements = call ptr @data(ptr %x)
  br label %set
other:
  %axes = call i64 @word(ptr %row, i64 1)
  %zero = icmp eq i64 %axes, 0
  br i1 %zero, label %scalar, label %no
scalar:
  %slot = getelementptr i64, ptr %slots, i64 %i
  %value = call ptr @number(ptr %x, ptr %row, ptr %slot)
  %refused = icmp eq ptr %value, null
  br i1 %refused, label %no, label %set
set:
  %place = phi ptr [ %elements, %array ], [ %value, %scalar ]
  call void @set_pointer(ptr %data, i64 %i, ptr %place)"""

_SHARED = """\
  %at = add i64 %inputs, %s
  %cell = call ptr @item(ptr %cells, i64 %s)
  %current = call ptr @item(ptr %cell, i64 0)
  %shared.row = call ptr @row(ptr %header, i64 %at)
  %shared.plain = call i1 @plain(ptr %current, ptr %shared.row)
  %shared.data = call ptr @data(ptr %current)
  %shared.shape = call ptr @shape(ptr %current)
  call void @set_pointer(ptr %data, i64 %at, ptr %shared.data)
  call void @set_pointer(ptr %shapes, i64 %at, ptr %shared.shape)
  call void @set_pointer(ptr %currents, i64 %s, ptr %current)
  br i1 %shared.plain, label %s.next, label %no"""

PLANS = """\
define internal i1 @fits(ptr %plan, ptr %header, ptr %data, ptr %shapes, i64 %threads) {
entry:
  %inputs = call i64 @word(ptr %header, i64 0)
  %shareds = call i64 @word(ptr %header, i64 1)
  %arguments = add i64 %inputs, %shareds
  %for = call i64 @word(ptr %plan, i64 2)
  %any = icmp eq i64 %for, 0
  %right = icmp eq i64 %for, %threads
  %may = or i1 %any, %right
  br i1 %may, label %compare, label %no
compare:
  %cursor = alloca ptr, align 8
  %start = getelementptr i64, ptr %plan, i64 $plan
  store ptr %start, ptr %cursor, align 8
  $shapes_loop
  %values.at = call i64 @word(ptr %plan, i64 6)
  %values = getelementptr i64, ptr %plan, i64 %values.at
  %count = call i64 @word(ptr %values, i64 0)
  $values_loop
  ret i1 true
no:
  ret i1 false
}

; The plan that fits, moved to the front; null if there is none.
define internal ptr @find(ptr %plans, ptr %header, ptr %data, ptr %shapes, i64 %threads) {
entry:
  %items = call ptr @items(ptr %plans)
  %count = call i64 @length(ptr %plans)
  $plans_loop
  ret ptr null
found:
  %first = call ptr @pointer(ptr %items, i64 0)
  call void @set_pointer(ptr %items, i64 0, ptr %plan)
  call void @set_pointer(ptr %items, i64 %p, ptr %first)
  ret ptr %plan
}
"""

_SHAPE = """\
  %row = call ptr @row(ptr %header, i64 %i)
  %axes = call i64 @word(ptr %row, i64 1)
  %shape = call ptr @pointer(ptr %shapes, i64 %i)
  %expected = load ptr, ptr %cursor, align 8
  %rest = getelementptr i64, ptr %expected, i64 %axes
  store ptr %rest, ptr %cursor, align 8
  %equal = call i1 @same(ptr %shape, ptr %expected, i64 %axes)
  br i1 %equal, label %i.next, label %no"""

_VALUE = """\
  %v3 = mul i64 %v, 3
  %which.at = add i64 %v3, 1
  %bytes.at = add i64 %v3, 2
  %kept.at = add i64 %v3, 3
  %which = call i64 @word(ptr %values, i64 %which.at)
  %value.bytes = call i64 @word(ptr %values, i64 %bytes.at)
  %kept.word = call i64 @word(ptr %values, i64 %kept.at)
  %kept = getelementptr i64, ptr %plan, i64 %kept.word
  %now = call ptr @pointer(ptr %data, i64 %which)
  %unchanged = call i1 @same_bytes(ptr %now, ptr %kept, i64 %value.bytes)
  br i1 %unchanged, label %v.next, label %no"""

_ONE_PLAN = """\
  %plan = call ptr @pointer(ptr %items, i64 %p)
  %words = call ptr @data(ptr %plan)
  %fit = call i1 @fits(ptr %words, ptr %header, ptr %data, ptr %shapes, i64 %threads)
  br i1 %fit, label %found, label %p.next"""

_SAME_WORD = """\
  %one = call i64 @word(ptr %a, i64 %k)
  %other = call i64 @word(ptr %b, i64 %k)
  %equal = icmp eq i64 %one, %other
  br i1 %equal, label %k.next, label %differ"""

_SAME_BYTE = """\
  %one.at = getelementptr i8, ptr %a, i64 %k
  %other.at = getelementptr i8, ptr %b, i64 %k
  %one = load i8, ptr %one.at
  %other = load i8, ptr %other.at
  %equal = icmp eq i8 %one, %other
  br i1 %equal, label %k.next, label %differ"""


def loop(index: str, count: str, body: str) -> str:
    """``body`` for every index below ``count``; it may leave by branches of its own, and goes on
    to the next index at its end or by a branch to ``index.next``."""
    last = body.rstrip().rsplit("\n", 1)[-1].lstrip()
    onward = "" if last.startswith("br ") else f"\n  br label %{index}.next"
    return f"""br label %{index}.start
{index}.start:
  br label %{index}.head
{index}.head:
  %{index} = phi i64 [ 0, %{index}.start ], [ %{index}.more, %{index}.next ]
  %{index}.in = icmp ult i64 %{index}, {count}
  br i1 %{index}.in, label %{index}.body, label %{index}.done
{index}.body:
{body}{onward}
{index}.next:
  %{index}.more = add i64 %{index}, 1
  br label %{index}.head
{index}.done:"""


LOOPS = {
    "words_loop": loop("k", "%count", _SAME_WORD),
    "bytes_loop": loop("k", "%count", _SAME_BYTE),
    "inputs_loop": loop("i", "%inputs", _INPUT),
    "shareds_loop": loop("s", "%shareds", _SHARED),
    "shapes_loop": loop("i", "%arguments", _SHAPE),
    "values_loop": loop("v", "%count", _VALUE),
    "plans_loop": loop("p", "%count", _ONE_PLAN),
}
