"""The function that the caller of a program sees."""

from __future__ import annotations

from tinygraph.backends.llvm.tiles import Target


def exported(name: str, target: Target) -> str:
    """The function that the caller sees: the mode that flushes denormals, around the body."""
    call = "call i64 @body(ptr %sizes, ptr %args, ptr %arena, ptr %fault)"
    lines = [
        f"define i64 @{name}(ptr %sizes, ptr %args, ptr %arena, ptr %fault) #1 {{",
        "entry:",
    ]
    if target.arch == "x86":
        lines += [
            "  %state = alloca i32, align 4",
            "  %flushing = alloca i32, align 4",
            "  call void @llvm.x86.sse.stmxcsr(ptr %state)",
            "  %old = load volatile i32, ptr %state, align 4",
            f"  %new = or i32 %old, {0x8040}  ; FTZ and DAZ",
            "  store volatile i32 %new, ptr %flushing, align 4",
            "  call void @llvm.x86.sse.ldmxcsr(ptr %flushing)",
            f"  %code = {call}",
            "  call void @llvm.x86.sse.ldmxcsr(ptr %state)",
        ]
    elif target.arch == "aarch64":
        lines += [
            "  %old = call i64 @llvm.aarch64.get.fpcr()",
            f"  %new = or i64 %old, {1 << 24}  ; FZ",
            "  call void @llvm.aarch64.set.fpcr(i64 %new)",
            f"  %code = {call}",
            "  call void @llvm.aarch64.set.fpcr(i64 %old)",
        ]
    else:
        lines.append(f"  %code = {call}")
    return "\n".join([*lines, "  ret i64 %code", "}"])
