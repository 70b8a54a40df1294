"""Lists the dimensions of published models, at which the ops are tried.

A test compares them with the plans of the shapes that `random:SHAPE` knows. An example with a whole
matrix of them may need gigabytes: it is a `large` one then, and the default examples have each of
its dimensions beside small ones.
"""

from __future__ import annotations

from dataclasses import dataclass

LARGEST = 1_200_000  # elements of a matrix of a default example


@dataclass(frozen=True)
class Published:
    """Holds the dimensions of one model's layers; `context` is its longest."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    eps: float = 1e-5
    biases: bool = False

    @property
    def qkv(self) -> tuple[int, int, int]:
        """Return the rows of the query, key and value matrices."""
        return (self.heads * self.head_dim, *2 * (self.kv_heads * self.head_dim,))

    @property
    def matrices(self) -> set[tuple[int, int, bool]]:
        """Return (rows, columns, with a bias) of each weight matrix."""
        return {*((rows, self.hidden, self.biases) for rows in self.qkv),
                (self.hidden, self.qkv[0], False), (self.inner, self.hidden, False),
                (self.hidden, self.inner, False), (self.vocab, self.hidden, False)}


PUBLISHED = (
    Published(2048, 5632, 32, 4, 64, 32000, 2048),  # TinyLlama-1.1B
    Published(2048, 8192, 32, 8, 64, 128256, 131072),  # Llama-3.2-1B
    Published(896, 4864, 14, 2, 64, 151936, 32768, 1e-6, True),  # Qwen2.5-0.5B
    Published(4096, 11008, 32, 32, 128, 32000, 4096),  # Llama-2-7B
)
HIDDEN = sorted({(p.hidden, p.eps) for p in PUBLISHED})
VOCABS = sorted({p.vocab for p in PUBLISHED})
INNER = sorted({p.inner for p in PUBLISHED})
HEADS = sorted({(n, p.head_dim) for p in PUBLISHED for n in (p.heads, p.kv_heads)})
GROUPS = ((8, 64), (4, 128))  # bits and group sizes of `--quantize int8` and `int4`
LONGEST_T = 4096  # tokens of a step: as many as `--chunk` may be asked for


@dataclass(frozen=True)
class Product:
    """Describes a product with a matrix [rows, columns]; `large` where it is a whole large one."""

    rows: int
    columns: int
    bias: bool = False

    @property
    def large(self) -> bool:
        return self.rows * self.columns > LARGEST


def products() -> list[Product]:
    """Return every matrix of the published models; of large ones also each dimension alone."""
    whole = {Product(*matrix) for p in PUBLISHED for matrix in p.matrices}
    large = [p for p in whole if p.large]
    alone = {Product(p.rows, 16) for p in large} | {Product(64, p.columns) for p in large}
    return sorted(whole | alone, key=lambda p: (p.large, p.rows * p.columns, p.rows, p.bias))
