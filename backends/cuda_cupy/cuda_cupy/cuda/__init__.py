"""CUDA sources, read by `cuda_cupy.compiler`."""
