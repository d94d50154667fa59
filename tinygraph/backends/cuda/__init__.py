"""Loop programs as CUDA kernels: what the CPU runs, mapped to blocks and threads."""
