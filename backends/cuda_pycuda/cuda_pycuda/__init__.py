"""Holds the cuda_pycuda backend. `plugin` is its entry point; `cuda` holds the CUDA C sources, one
small file an op family (docs/kernels.md walks through them), and `kernels` binds them to ops."""
