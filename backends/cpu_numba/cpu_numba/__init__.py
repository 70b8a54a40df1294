"""The cpu_numba backend: `plugin` is its entry point, `kernels` binds `kernels.compiled`."""
