"""Defines GGUF's numbers: value types of metadata, and tensor types with their block sizes.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. A block is the least run of elements of a
row that a type stores; float types have blocks of one.
"""

from __future__ import annotations

from dataclasses import dataclass

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, unless general.alignment says otherwise
STRING, ARRAY = 8, 9
#: value type -> struct format
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}


@dataclass(frozen=True)
class TensorType:
    """Describes a tensor type: `elements` of a row take `nbytes` bytes."""

    name: str
    elements: int
    nbytes: int


SUPPORTED = {0: TensorType("F32", 1, 4), 1: TensorType("F16", 1, 2), 30: TensorType("BF16", 1, 2),
             2: TensorType("Q4_0", 32, 18), 3: TensorType("Q4_1", 32, 20),
             8: TensorType("Q8_0", 32, 34), 12: TensorType("Q4_K", 256, 144),
             14: TensorType("Q6_K", 256, 210)}
#: names of the others, for the error
OTHERS = {6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 13: "Q5_K", 15: "Q8_K",
          16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
          22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
          29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}
