"""Decides which matrices are quantised, and to what.

The options `--quantize`, `--group-size`, `--keep` and `--quantize-only` of every command. By
default every projection and the output head are quantised; embeddings, norms and biases stay as
they are, as nothing is gained by quantising them for a product that does not happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from core.errors import OptionError
from core.ops.quantized.quantize import Filler, Quantized, quantize
from core.tensor.tensor import Array

#: scheme -> bits, symmetric
SCHEMES = {"int8": (8, True), "int4": (4, False), "int4-symmetric": (4, True)}
LARGEST_GROUP = 1 << 16


@dataclass(frozen=True)
class Quantization:
    """Says how to quantise weights. Patterns are of whole weight names, with * ? and [..].

    group_size  None: 64 for 8 bits, 128 for 4; a group ends with its row, so the last may be short
    keep        matrices that stay in full precision
    only        when not empty, the only matrices that are quantised (except `keep`)
    """

    bits: int
    symmetric: bool
    group_size: int | None = None
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()

    @classmethod
    def parse(cls, scheme: str | None, group_size: int | None = None,
              keep: str | Sequence[str] = (), only: str | Sequence[str] = (),
              ) -> Quantization | None:
        """Parse the options' values; None without a scheme. Raises OptionError."""
        patterns = [(value,) if isinstance(value, str) else tuple(value) for value in (keep, only)]
        if scheme is None:
            if group_size is not None or any(patterns):
                raise OptionError("--group-size, --keep and --quantize-only say how to quantise: "
                                  "give --quantize too")
            return None
        if scheme not in SCHEMES:
            raise OptionError(f"--quantize {scheme!r}: expected one of {', '.join(SCHEMES)}")
        if group_size is not None and not 1 <= group_size <= LARGEST_GROUP:
            raise OptionError(f"--group-size {group_size}: expected 1 to {LARGEST_GROUP}")
        return cls(*SCHEMES[scheme], group_size, *patterns)

    @property
    def precision(self) -> str:
        """Return int8 or int4."""
        return f"int{self.bits}"

    def choose(self, candidates: Iterable[str]) -> list[str]:
        """Return the weights among `candidates`, in their order, that are to be quantised. Raises
        OptionError for a pattern that matches none of them, or if nothing is left."""
        names = list(candidates)
        for option, patterns in (("--keep", self.keep), ("--quantize-only", self.only)):
            for pattern in patterns:
                if not any(fnmatchcase(n, pattern) for n in names):
                    raise OptionError(f"{option} {pattern!r} matches none of the {len(names)} "
                                      f"matrices that could be quantised, such as "
                                      f"{', '.join(names[:1] + names[-1:]) or 'none'}")
        chosen = [n for n in names
                  if not _matches(n, self.keep) and (not self.only or _matches(n, self.only))]
        if names and not chosen:
            raise OptionError("--keep and --quantize-only leave no matrix to quantise; leave "
                              "--quantize out")
        return chosen

    def apply(self, weight: Array, by: Filler | None = None) -> Quantized:
        """Quantise a matrix [N,K]. `by`: see `quantize`."""
        return quantize(weight, self.bits, self.group_size, symmetric=self.symmetric, by=by)

    def probe(self, columns: int) -> Quantized:
        """Return one row of zeros, quantised: for the shapes and dtypes of the parts."""
        return self.apply(np.zeros((1, columns), np.float32))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)




