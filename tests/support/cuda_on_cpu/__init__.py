"""Runs CUDA C on a CPU, for tests: g++ compiles cuda_pycuda's kernels, which run thread by thread,
under a stand-in for PyCUDA, through the backend's own code.

It checks arithmetic, indexing, barriers and the code that launches kernels. It says nothing about
a GPU: not what its compiler makes of the sources, nor races between warps or blocks, memory
ordering, or speed. The report of a run on a GPU decides (tests/gpu_report.json).

    machine.h     a block's threads as fibers: barriers, shuffles, atomics, shared memory
    ptx.cuh       in place of cuda_pycuda's file of that name, the only one with assembly
    toolchain.py  g++ as the backend's compiler; "machine code" is a shared library
    contexts.py   a thread's contexts, and what a forked process may not do
    device.py     streams, events, memory, modules, as on a GPU
    driver.py     what the backend uses of PyCUDA and cuda-bindings, put in their place

`python -m cuda_on_cpu MODULE ARGUMENTS`, with tests/support on PYTHONPATH, runs a module so: see
`models.run --backend cuda_pycuda`, or `models.conform --backend cuda_pycuda`.
"""
