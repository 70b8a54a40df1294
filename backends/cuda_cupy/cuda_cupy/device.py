"""Opens the device that this backend computes on, once, with an error that names the fix."""

from __future__ import annotations

from core import cuda

WHEEL = "pip install 'cupy-cuda13x[ctk]'"


class CupyGpu(cuda.OneGpu[cuda.Gpu]):
    """Opens the GPU through CuPy."""

    backend = "cuda_cupy"

    def find(self, index: int) -> cuda.Gpu:
        try:
            import cupy
            from cupy.cuda import runtime
        except Exception as error:
            raise self.unavailable(
                f"CuPy cannot be imported ({type(error).__name__}: {error})", WHEEL) from error
        wheel = runtime.runtimeGetVersion()
        try:
            driver = runtime.driverGetVersion()
        except runtime.CUDARuntimeError:
            driver = 0
        if driver == 0:
            raise self.no_driver()
        if driver // 1000 < wheel // 1000:
            raise self.unavailable(
                f"the driver speaks CUDA {cuda.version(driver)}, this CuPy wheel needs "
                f"{cuda.version(wheel)}",
                f"pip install 'cupy-cuda{driver // 1000}x[ctk]' in its place, or update the driver")
        try:
            count = runtime.getDeviceCount()
        except runtime.CUDARuntimeError as error:
            raise self.driver_failed(error) from error
        self.check_index(index, count)
        try:
            from cupy.cuda import nvrtc
            nvrtc.getVersion()
        except Exception as error:
            raise self.unavailable(
                f"NVRTC, which compiles the kernels, cannot be loaded ({error})", WHEEL
                ) from error
        properties = runtime.getDeviceProperties(index)
        arch, name = properties["major"] * 10 + properties["minor"], properties["name"].decode()
        self.check_arch(name, arch)
        self._use = cupy.cuda.Device(index).use
        with self:
            return cuda.Gpu(index, name, arch, properties["multiProcessorCount"], driver,
                            cupy.cuda.Stream(non_blocking=True))

    def enter(self) -> None:
        """Choose the device, which CuPy keeps for each thread. It stays chosen: to choose another
        again would open a context there."""
        self._use()


gpu = CupyGpu()
open_device, device = gpu.open, gpu.opened
