"""The LLVM back end: loop language in, native function out."""
