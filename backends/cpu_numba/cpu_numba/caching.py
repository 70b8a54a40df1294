"""Keeps compiled functions on disk, in place of Numba's own cache.

Numba's index and entries are pickles that it reads as they lie there: a damaged one is a traceback,
and one that somebody else wrote runs his code. It looks at the file of a function alone, and would
go on using machine code into which an older version of a helper from another file was inlined; and
it raises where no folder can be written. `core.CodeCache` checks owner and SHA-256 first, and
compiles what it cannot keep.
"""

from __future__ import annotations

import hashlib
import pickle
import platform
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba import config
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps

from core import CodeCache

#: follows NUMBA_CACHE_DIR, as Numba's own does
KEPT = CodeCache("cpu_numba", suffix=".pickle", base=config.CACHE_DIR)


@cache
def _sources() -> str:
    """Return one digest of every file that may be inlined, and of what compiles it."""
    made = hashlib.sha256("\0".join((numba.__version__, llvmlite.__version__,
                                     platform.python_version())).encode())
    here = Path(__file__).parent
    for path in (here / "whole.py", *sorted((here / "kernels/compiled").glob("*.py"))):
        made.update(path.read_bytes())
    return made.hexdigest()


def full_name(function: Any) -> str:  # noqa: ANN401 - a Numba dispatcher
    """Return the name of a function, which no other has."""
    return f"{function.__module__}.{function.__qualname__}"


class KeptFunction(NullCache):
    """Serves as the cache of one Numba dispatcher.

    looks  whether the disk is asked; it was just now where this is False
    """

    def __init__(self, function: Any, *, looks: bool = True) -> None:  # noqa: ANN401 - as above
        self._name, self._full_name = function.__name__, full_name(function)
        self._looks, self._found = looks, dict[Any, bytes]()

    def finds(self, sig: Any, target_context: Any) -> bool:  # noqa: ANN401 - Numba's types
        """Return whether something compiled for these types is kept; the next load takes it."""
        code = KEPT.load(self._name, self._made_of(sig, target_context.codegen()))
        if code:
            self._found[sig] = code
        return code is not None

    def load_overload(self, sig: Any, target_context: Any) -> Any:  # noqa: ANN401
        """Return what was compiled for these types, None where it is not kept."""
        target_context.refresh()
        if sig not in self._found and not (self._looks and self.finds(sig, target_context)):
            return None
        return CompileResult._rebuild(target_context, *pickle.loads(self._found.pop(sig)))

    def save_overload(self, sig: Any, data: Any) -> None:  # noqa: ANN401
        """Keep what was compiled for these types. What holds addresses of this process cannot be
        kept."""
        if not data.lifted and not data.library.has_dynamic_globals:
            KEPT.keep(self._name, self._made_of(sig, data.codegen), dumps(data._reduce()))

    def _made_of(self, sig: Any, codegen: Any) -> list[str]:  # noqa: ANN401
        return [_sources(), self._full_name, repr(sig), repr(codegen.magic_tuple())]
