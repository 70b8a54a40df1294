"""Entry point: names the backend without importing its kernels."""

from core import BackendSpec, hookimpl

KERNELYARD_API = 2


@hookimpl
def register_backends(register):
    register(BackendSpec("cpu_numpy", "cpu", "cpu_numpy.backend:NumpyBackend",
                         "NumPy and its BLAS, float32 arithmetic",
                         options=("threads",)))


@hookimpl
def register_kernels(backend, register):
    if backend == "cpu_numpy":
        from cpu_numpy.kernels import kernels
        for kernel in kernels:
            register(kernel)
