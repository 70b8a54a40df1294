"""Entry point: names the backend without importing Numba, which takes half a second."""

from core import BackendSpec, hookimpl

KERNELYARD_API = 2


@hookimpl
def register_backends(register):
    register(BackendSpec("cpu_numba", "cpu", "cpu_numba.backend:NumbaBackend",
                         "compiled for this machine's vector width, all cores",
                         requires={"numba": "pip install numba"},
                         options=("threads", "spare")))


@hookimpl
def register_kernels(backend, register):
    if backend == "cpu_numba":
        from cpu_numba.kernels import kernels
        for kernel in kernels:
            register(kernel)
