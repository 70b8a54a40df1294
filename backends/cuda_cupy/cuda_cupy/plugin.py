"""Names the backend, as the entry point, without importing CuPy."""

from core import BackendSpec, hookimpl

KERNELYARD_API = 2


@hookimpl
def register_backends(register):
    register(BackendSpec("cuda_cupy", "cuda", "cuda_cupy.backend:CupyBackend",
                         "CUDA C++ through CuPy, captured into graphs",
                         {"cupy": "pip install 'cupy-cuda13x[ctk]'"},
                         options=("device", "allow_tf32")))


@hookimpl
def register_kernels(backend, register):
    if backend == "cuda_cupy":
        from cuda_cupy.kernels import kernels
        for kernel in kernels:
            register(kernel)
