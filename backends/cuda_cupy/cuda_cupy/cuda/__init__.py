"""Holds the CUDA sources, which `cuda_cupy.compiler` reads."""
