"""The cpu_numpy backend: `plugin` is its entry point; `kernels` holds one file an op family."""
