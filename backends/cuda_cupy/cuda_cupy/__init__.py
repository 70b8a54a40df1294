"""Holds the cuda_cupy backend. `plugin` is its entry point; `cuda` holds the CUDA sources, one
family a file, and `kernels` binds them to ops."""
