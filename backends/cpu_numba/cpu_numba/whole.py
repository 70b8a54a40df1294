"""Optimises and compiles the code of a kernel once, where Numba does it at each level of calls.

Numba makes a library for each function, and optimises and compiles each with all that it calls
inlined: the heart of a product, which lies eight calls deep, went through LLVM eight times. Of the
functions that a kernel consists of only the outermost one is called from Python, so the others stay
as they were written until that one links them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock

_active = False


class _Library(JITCodeLibrary):
    """Waits for a function that Python calls. Once none of ours compile, it is as Numba's: whoever
    asks for it then makes it whole."""

    _environment: tuple[str, Any] | None = None

    def _ensure_finalized(self) -> None:
        if not _active:
            super()._ensure_finalized()

    def _optimize_functions(self, ll_module: Any) -> None:  # noqa: ANN401 - Numba's types, and below
        """Leave functions as they are: what all of them become is optimised."""
        ll_module.data_layout = super().codegen._data_layout

    def add_linking_library(self, library: Any) -> None:  # noqa: ANN401
        self._linking_libraries.append(library)

    def get_pointer_to_function(self, name: str) -> int:
        """Return the address of machine code; 0 for an entry point that nobody asked for."""
        if not self._finalized:
            if all(name != f.name for f in self._final_module.functions):
                return 0
            self.finalize()
        return super().get_pointer_to_function(name)

    def finalize(self) -> None:
        """Make machine code of all that is called, at any depth, as one."""
        # LLVM links a function only once something linked before calls it: callers go first
        self._linking_libraries = list(self._below({}))[::-1]
        self._shared_module = None  # what ours linked lacks all that is called
        super().finalize()
        if self._environment is not None:
            super().codegen.set_env(*self._environment)

    def _below(self, found: dict[Any, None]) -> dict[Any, None]:
        """Add all that is called, each after what it calls."""
        for library in self._linking_libraries:
            if library not in found:
                if isinstance(library, _Library) and not library._finalized:
                    library._below(found)
                found[library] = None
        return found

    @property
    def codegen(self) -> Any:  # noqa: ANN401
        return super().codegen if self._finalized else self

    def set_env(self, name: str, env: Any) -> None:  # noqa: ANN401
        """Keep what Numba would write into machine code; here there is none yet."""
        self._environment = name, env


@contextmanager
def kernels_whole(function: Any) -> Iterator[None]:  # noqa: ANN401
    """Compile so what is compiled in this block."""
    global _active
    codegen = function.targetctx.codegen()
    with global_compiler_lock:
        codegen._library_class, _active = _Library, True
        try:
            yield
        finally:
            _active = False
            del codegen._library_class
