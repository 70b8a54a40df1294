"""Checks what CUDA backends share, on a machine without a GPU."""

import pytest

from core import cuda
from core.errors import BackendError, OptionError
from core.tensor.dtype import bf16, f16, f32

FIX = "; fix: "


class Found(cuda.OneGpu):
    """Stands for a machine with some GPUs, all of one kind."""

    backend = "my_cuda"

    def __init__(self, count=2, arch=90):
        super().__init__()
        self.count, self.arch, self.finds = count, arch, 0

    def find(self, index):
        self.finds += 1
        self.check_index(index, self.count)
        self.check_arch("GPU X", self.arch)
        return cuda.Gpu(index, "GPU X", self.arch, 132, 13010, None)


def test_a_gpu_is_opened_once():
    one = Found()
    with pytest.raises(BackendError, match="my_cuda: no GPU is open; fix: "):
        one.opened()
    assert one.open(1) is one.open(1) is one.opened() and one.finds == 1
    with pytest.raises(OptionError, match="--device 0: this process computes on GPU 1 already; "):
        one.open()


@pytest.mark.parametrize("count, text", [(1, "sees 1 GPU, counted"), (2, "sees 2 GPUs, counted")])
def test_an_index_that_no_gpu_has(count, text):
    one = Found(count)
    with pytest.raises(OptionError, match=f"--device {count}: the driver {text} from 0"):
        one.open(count)
    assert one.open(count - 1).index == count - 1, "a failure leaves it closed"


def test_no_gpu_and_no_driver():
    with pytest.raises(BackendError, match="backend my_cuda is unavailable: the driver sees no GPU"
                                           "; fix: check nvidia-smi"):
        Found(0).open()
    assert FIX in str(Found().no_driver()) and "(why)" in str(Found().no_driver(" (why)"))
    assert "the driver reports: broken; fix: " in str(Found().driver_failed(ValueError("broken")))


@pytest.mark.parametrize("arch, text", [(75, "7.5"), (70, "7.0"), (52, "5.2")])
def test_a_gpu_that_is_too_old(arch, text):
    with pytest.raises(BackendError, match=f"GPU X has compute capability {text}, the kernels need "
                                           "8.0; fix: use --backend cpu_numpy"):
        Found(arch=arch).open()
    assert Found(arch=80).open().arch == 80


@pytest.mark.parametrize("arch, target", [(80, "sm_80"), (89, "sm_89"), (90, "sm_90a"),
                                          (100, "sm_100"), (120, "sm_120")])
def test_the_target_of_a_gpu(arch, target):
    gpu = Found(arch=arch).open()
    assert gpu.target == target
    assert gpu.describe().startswith("CUDA 13.1") and f"GPU 0: GPU X (sm_{arch})" in gpu.describe()


def test_a_sequence_leaves_out_empty_launches():
    done = []
    first, second = (lambda n=n: done.append(n) for n in (1, 2))
    cuda.sequence(cuda.nothing, first, cuda.nothing, second)()
    assert done == [1, 2]
    assert cuda.sequence(cuda.nothing) is cuda.sequence() is cuda.nothing
    cuda.nothing()


@pytest.mark.parametrize("count, each, blocks", [(0, 4, 0), (1, 4, 1), (4, 4, 1), (5, 4, 2)])
def test_cover(count, each, blocks):
    assert cuda.cover(count, each) == blocks


def test_activations_keep_16_bits():
    kinds = [cuda.CudaBackend.activation_dtype(d) for d in (f32, f16, bf16)]
    assert kinds == [f32, f16, bf16]


@pytest.fixture
def sources(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, text in {"a.cu": '#include "b.cuh"\nA', "b.cuh": '#include "c.cuh"\nB', "c.cuh": "C",
                       "other.cuh": ""}.items():
        (tmp_path / name).write_text(text)
    return cuda.Sources("my_cuda", tmp_path)


def test_a_source_is_compiled_once_for_what_decides_its_code(sources):
    runs = []

    def run(path, flags):
        runs.append(flags)
        return b"code of " + path.name.encode(), "report"
    compiler = cuda.Compiler("nvrtc 1", run)
    assert sorted(sources.files()) == ["a.cu", "b.cuh", "c.cuh", "other.cuh"]
    for defines, target, tool in [({"K": 1}, "sm_80", compiler), ({"K": 2}, "sm_80", compiler),
                                  ({"K": 1}, "sm_90a", compiler),
                                  ({"K": 1}, "sm_80", cuda.Compiler("nvrtc 2", run))] * 2:
        assert sources.cubin("a.cu", defines, target, tool) == b"code of a.cu"
    assert len(runs) == 4
    assert {"--gpu-architecture=sm_80", "-std=c++17", "-DK=1"} <= set(runs[0])


def test_the_compilers_log_is_in_the_error(sources):
    def fail(path, flags):
        raise cuda.CompileError("a.cu(3): error: nonsense")
    with pytest.raises(BackendError, match=r"my_cuda: a\.cu does not compile for sm_80 with "
                                           r"\{'K': 1\}:\na\.cu\(3\): error: nonsense"):
        sources.cubin("a.cu", {"K": 1}, "sm_80", cuda.Compiler("nvrtc", fail))
