"""Names the backend, as the entry point, without importing PyCUDA."""

from core import BackendSpec, hookimpl

KERNELYARD_API = 2


@hookimpl
def register_backends(register):
    register(BackendSpec("cuda_pycuda", "cuda", "cuda_pycuda.backend:PycudaBackend",
                         "plain CUDA C through PyCUDA, captured into graphs",
                         {"pycuda": "pip install pycuda",
                          "cuda.bindings": "pip install cuda-bindings"}, options=("device",)))


@hookimpl
def register_kernels(backend, register):
    if backend == "cuda_pycuda":
        from cuda_pycuda.kernels import kernels
        for kernel in kernels:
            register(kernel)
