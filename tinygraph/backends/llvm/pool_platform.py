"""What the pool of compiled code takes from the platform, as LLVM IR: threads, clock, signals,
and the floating-point mode.

The texts are templates: ``$name`` stands for a field of the pool's state or for a number.
"""

from __future__ import annotations

# What the pool takes from the C library of the process.
IMPORTS = (
    "pthread_create pthread_detach pthread_attr_init pthread_attr_setstacksize "
    "pthread_attr_destroy pthread_mutex_init pthread_mutex_lock pthread_mutex_unlock "
    "pthread_cond_init pthread_cond_wait pthread_cond_signal pthread_sigmask sigfillset sigdelset "
    "sched_yield clock_gettime"
).split()

DECLARATIONS = """\
@pool = internal global [$state_bytes x i8] zeroinitializer, align 128

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sigfillset(ptr)
declare i32 @sigdelset(ptr, i32)
declare i32 @sched_yield()
declare i32 @clock_gettime(i32, ptr)
"""

# The caller's floating-point mode, flushing of denormals and rounding, becomes the workers'.
MACHINES = {
    "x86": """\
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)

define internal void @pause() {
  call void @llvm.x86.sse2.pause()
  ret void
}

define internal i64 @mode() {
  %place = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %mode = load volatile i32, ptr %place, align 4
  %wide = zext i32 %mode to i64
  ret i64 %wide
}

define internal void @set_mode(i64 %wide) {
  %place = alloca i32, align 4
  %mode = trunc i64 %wide to i32
  store volatile i32 %mode, ptr %place, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}
""",
    "aarch64": """\
declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)

define internal void @pause() {
  call void @llvm.aarch64.hint(i32 1)  ; yield
  ret void
}

define internal i64 @mode() {
  %mode = call i64 @llvm.aarch64.get.fpcr()
  ret i64 %mode
}

define internal void @set_mode(i64 %mode) {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
""",
    "other": """\
define internal void @pause() {
  ret void
}

define internal i64 @mode() {
  ret i64 0
}

define internal void @set_mode(i64 %mode) {
  ret void
}
""",
}

CLOCK = """\
define internal i64 @now() {  ; nanoseconds
  %time = alloca { i64, i64 }, align 8
  %code = call i32 @clock_gettime(i32 $clock, ptr %time)
  %seconds = load i64, ptr %time, align 8
  %place = getelementptr i8, ptr %time, i64 8
  %rest = load i64, ptr %place, align 8
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %rest
  ret i64 %sum
}
"""

MANAGEMENT = """\
define internal i64 @grow(i64 %have, i64 %wanted) {
entry:
  %attributes = alloca [256 x i8], align 16
  %set = alloca [256 x i8], align 16
  %old = alloca [256 x i8], align 16
  %thread = alloca ptr, align 8
  %refused = load i64, ptr $refused, align 8
  %never = icmp ne i64 %refused, 0
  br i1 %never, label %refusal, label %prepare
refusal:
  ret i64 %have
prepare:
  %fresh = icmp eq i64 %have, 0
  br i1 %fresh, label %initialise, label %begin
initialise:
  %m = call i32 @pthread_mutex_init(ptr $mutex, ptr null)
  %w = call i32 @pthread_cond_init(ptr $wake, ptr null)
  %d = call i32 @pthread_cond_init(ptr $done, ptr null)
  br label %begin
begin:
  ; Signals are for the threads that Python knows, errors in our own code excepted.
  %filled = call i32 @sigfillset(ptr %set)
$keep_signals
  %masked = call i32 @pthread_sigmask(i32 $setmask, ptr %set, ptr %old)
  %made = call i32 @pthread_attr_init(ptr %attributes)
  %sized = call i32 @pthread_attr_setstacksize(ptr %attributes, i64 8388608)
  br label %next
next:
  %workers = phi i64 [ %have, %begin ], [ %workers1, %created ]
  %more = icmp slt i64 %workers, %wanted
  br i1 %more, label %create, label %end
create:
  %code = call i32 @pthread_create(ptr %thread, ptr %attributes, ptr @worker, ptr null)
  %well = icmp eq i32 %code, 0
  br i1 %well, label %created, label %denied
created:
  %handle = load ptr, ptr %thread, align 8
  %detached = call i32 @pthread_detach(ptr %handle)
  %workers1 = add i64 %workers, 1
  br label %next
denied:
  store i64 1, ptr $refused, align 8
  br label %end
end:
  %destroyed = call i32 @pthread_attr_destroy(ptr %attributes)
  %restored = call i32 @pthread_sigmask(i32 $setmask, ptr %old, ptr null)
  store i64 %workers, ptr $workers, align 8
  ret i64 %workers
}

declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define void @$reset() {
  call void @llvm.memset.p0.i64(ptr align 128 @pool, i8 0, i64 $state_bytes, i1 false)
  ret void
}
"""
