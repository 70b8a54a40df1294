"""Which calls the kernels for Hopper GPUs take, and how they and cuBLAS are launched, without a
GPU."""

from types import SimpleNamespace

import pytest

pytest.importorskip("cuda_cupy", reason="needs ./backends/cuda_cupy")
from core.tensor.dtype import bf16, f16, f32
from cuda_cupy import blas
from cuda_cupy.kernels import attention as attention_kernels
from cuda_cupy.kernels import hopper, mixed, stream


def call(dims, attrs=None, op="", **dtypes):
    return SimpleNamespace(dims=dims, attrs=attrs or {}, dtypes=dtypes, op=SimpleNamespace(name=op))


def product(tokens=512, width=2048, dtypes=(bf16, bf16), op="linear", **rows):
    return call({"T": tokens, "K": width, **(rows or {"N": 512})}, op=op, A=dtypes[0], W=dtypes[1])


def attention(tokens=512, sequences=1, size=64, block=16, scale=0.125, cache=bf16):
    return call({"T": tokens, "S": sequences, "d": size, "BS": block}, {"scale": scale}, A=bf16,
                C=cache)


@pytest.fixture
def on(monkeypatch):
    def use(arch):
        for module in (attention_kernels, hopper, stream):
            monkeypatch.setattr(module, "device",
                                lambda: SimpleNamespace(arch=arch, multiprocessors=132))
    return use


@pytest.mark.parametrize("arch", [80, 89, 100, 120])
def test_other_gpus_are_refused_with_the_reason(on, arch):
    on(arch)
    expected = f"needs wgmma, of compute capability 9.0; this GPU has {arch / 10}"
    assert hopper._multiplies(product()) == hopper._attends(attention()) == expected
    assert stream._streams(product(8)) == expected


@pytest.mark.parametrize(("refused", "reason"), [
    (product(63), "64 rows of x or more, got 63"),
    (product(dtypes=(bf16, f16)), "got f16 for bf16"),
    (product(width=2044), "K 2044, N 512"), (product(N1=64, N2=12, N3=8), "N 64, 12, 8"),
    (attention(size=80), "got 80"), (attention(block=12), "got 12"),
    (attention(block=256), "got 256"), (attention(63), "got 63 for 1"),
    (attention(128, 3), "got 128 for 3"),
    (attention(scale=0.0), "got 0.0"), (attention(cache=f32), "got f32")])
def test_what_they_cannot_compute_is_refused(on, refused, reason):
    on(90)
    given = hopper._attends(refused) if "S" in refused.dims else hopper._multiplies(refused)
    assert given.endswith(reason)


def test_they_take_what_they_can(on):
    on(90)
    assert hopper._multiplies(product(64)) is hopper._attends(attention(64)) is None
    assert hopper._multiplies(product(64, 8, N1=8, N2=16, N3=8)) is None


@pytest.mark.parametrize(("asked", "refused"), [
    (attention(512, 1), "takes two sequences or more, of two queries or more on average; "
                        "got 512 for 1"),
    (attention(31, 16), "takes two sequences or more, of two queries or more on average; "
                        "got 31 for 16"),
    (attention(32, 16), None), (attention(4096, 3), None),
    (attention(32, 16, size=80), "takes head sizes 64 and 128, got 80")])
def test_mixed_steps_are_of_several_sequences(on, asked, refused):
    on(90)
    assert mixed._mixes_on_hopper(asked) == refused


@pytest.mark.parametrize(("asked", "refused"), [
    (product(1), "takes 2 to 64 rows of x, got 1"),
    (product(65), "takes 2 to 64 rows of x, got 65"),
    (product(8), "is slower than skinny.cu with under 8192 rows of W, got 512"),
    (product(16, N1=64, N2=64, N3=2048),
     "is slower than skinny.cu with under 8192 rows of W, got 2176"),
    (product(8, width=8200), None),  # which skinny.cu does not take
    (product(8, op="gate_up_swiglu"), None), (product(17), None), (product(8, N=8192), None),
    (product(64, dtypes=(bf16, f16)), "takes weights of x's dtype, got f16 for bf16")])
def test_few_rows_are_streamed_where_that_is_faster(on, asked, refused):
    on(90)
    assert stream._streams(asked) == refused


class Array(SimpleNamespace):
    """An array without memory: at address 0, of bf16."""

    def __init__(self, *shape):
        super().__init__(shape=shape, dtype=SimpleNamespace(name="uint16"),
                         data=SimpleNamespace(ptr=0))

    def __len__(self):
        return self.shape[0]


@pytest.fixture
def launched(on, monkeypatch):
    on(90)
    for module in (hopper, stream):
        monkeypatch.setattr(module, "tensor_map", lambda address, sizes, box: (sizes, box))
    monkeypatch.setattr(attention_kernels, "counters", lambda count: None)
    for module in (attention_kernels, hopper, stream):
        monkeypatch.setattr(module, "launch", lambda file, entry, grid, threads, arguments, **kw: (
            SimpleNamespace(grid=grid, threads=threads, arguments=arguments, **kw)))


@pytest.mark.parametrize(("tokens", "sequences", "ranges"), [
    (2048, 200, [(64, attention_kernels.ANY, {32, 11 + 32}), (2, 63, {32, 200})]),
    (63, 4, [(2, 63, {32, 4})])])
def test_every_sequence_of_a_mixed_step_has_one_kernel(launched, monkeypatch, tokens, sequences,
                                                       ranges):
    made = []
    for name in ("attend", "tiled", "grouped"):
        found = getattr(mixed, name)
        monkeypatch.setattr(mixed, name, lambda *a, found=found, **kw: made.append(found(*a, **kw)))
    cache, table = Array(2, 50, 16, 8, 64), Array(sequences, 25)
    mixed.attention_mixed_hopper(Array(tokens, 32, 64), cache, None, table, None, None, None,
                                 scale=0.125, workspace=None)
    *tiles, alone = made
    assert alone.defines["ALONE"] and alone.grid[0] == sequences
    assert [(t.defines["LEAST"], t.defines["MOST"], {*t.grid}) for t in tiles] == ranges


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rows", [(2048, 512, 512), (8, 24, 1000), (128256,)])
@pytest.mark.parametrize("tokens", [64, 129, 2048])
def test_tiles_cover_a_product(launched, tokens, rows, gated):
    rows = (rows[0],) * 2 if gated else rows
    x, weights = Array(tokens, 2048), [Array(n, 2048) for n in rows]
    outs = [Array(tokens, n) for n in rows[:1 if gated else 3]]
    made = hopper._products(x, weights, [None] * len(rows), outs, gated=gated)
    columns = made.defines["COLUMNS"] // (2 if gated else 1)
    tiles = made.arguments[-1]
    assert tiles == -(-tokens // 128) * sum(-(-o.shape[1] // columns) for o in outs)
    assert made.grid[0] <= min(132, tiles) and made.threads == 384
    assert made.shared <= hopper._SHARED and len(made.arguments) == 4 + 3 + 3 + 6
    assert [sizes for sizes, _ in made.arguments[:1 + len(rows)]] == [
        (2048, tokens), *((2048, n) for n in rows)]


@pytest.mark.parametrize(("rows", "gated", "split"), [
    ((2048,), False, 8), ((2048, 512, 512), False, 4), ((128256,), False, 1),
    ((8192, 8192), True, 1), ((8, 24, 1000), False, 8), ((2048, 2048), True, 4)])
def test_clusters_share_the_columns_of_few_tiles(launched, rows, gated, split):
    made = []
    for tokens in (2, 16, 17, 64):
        x, weights = Array(tokens, 2048), [Array(n, 2048) for n in rows]
        outs = [Array(tokens, n) for n in rows[:1 if gated else 3]]
        made.append(stream._stream(x, weights, [None] * len(rows), outs, gated=gated))
        tiles = sum(-(-o.shape[1] // (64 if gated else 128)) for o in outs)
        assert made[-1].grid == (tiles * split,) and made[-1].threads == 160
        assert made[-1].shared <= 102528 and len(made[-1].arguments) == 4 + 3 + 3 + 5
        defines = made[-1].defines
        assert defines["COLUMNS"] >= tokens and defines["STAGES"] >= 3
        # a cluster's sums take the place of the stages
        assert split == 1 or 2 * defines["COLUMNS"] * 68 * 4 <= made[-1].shared - 128
    assert {m.defines["SPLIT"] for m in made} == {split}  # whatever the rows of x


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("tokens", [32, 192, 700])
def test_tiles_cover_all_queries(launched, tokens, size):
    cache, table = Array(2, 50, 16, 8, size), Array(2, 25)
    made = hopper.attention_hopper(Array(tokens, 32, size), cache, None, table, None, None, None,
                                   scale=0.125)
    heads, tiles = made.grid
    assert heads == 32 and made.threads == 128 * (made.defines["GROUPS"] + 1)
    assert tiles == -(-tokens // (64 * made.defines["GROUPS"])) + 2  # as if each sequence began one
    assert made.shared <= hopper._SHARED
    assert made.arguments[0] == ((size, 8, 2 * 50 * 16), (64, 1, 16))


def test_cublas_is_made_before_its_launch_is_captured(monkeypatch):
    made, called = [], []
    monkeypatch.setattr(blas, "_library", lambda: (
        made.append(1) or (lambda *given: called.append(given) or 0, None, 7)))
    launch = blas.product(Array(96, 2048), Array(512, 2048), Array(96, 512), add=False)
    assert made == [1] and not called
    launch()
    assert made == [1] and called[0][:2] == (7, 1)
