"""Defines every error that kernelyard raises on purpose.

    KernelyardError
    ├── InputError              what a user gave: options, prompts, files
    │   ├── OptionError         an unknown or contradictory option
    │   ├── PromptError         an empty prompt, or one longer than the context
    │   ├── ConfigError         config.json: unknown architecture, rope type, bad value
    │   ├── CheckpointError     weights: missing, truncated, wrong shape, disagreeing shards
    │   └── TokenizerError      tokenizer files missing, or not matching the vocabulary
    ├── OpError                 an op was called with inputs that its definition rejects
    │   ├── ShapeError
    │   └── DtypeError
    ├── MemoryError_            device memory
    │   ├── AllocationError     out of memory, or an absurd size
    │   ├── BoundsError         a copy or view beyond the end of its buffer
    │   └── LifetimeError       use after free, double free
    ├── PluginError             a plugin that cannot be used
    │   ├── ClashError          two plugins offer one name: one thing of one of them is left out
    │   └── KernelError         a kernel raised, or returned what it may not: names node and kernel
    ├── BackendError            a backend is unknown or unavailable
    ├── QueueFullError          an engine has no place for one more request now
    ├── LockError               installed kernels are not those of the lock file
    ├── NoKernelError           no kernel takes a node; lists what was tried and why not
    └── CheckError              a cross-check failed, or a value was not finite

Each message names the thing, what was found, what was expected, and how to fix it. Command line
tools print it without a traceback and exit with code 2, or with 1 for a CheckError and 3 for a
KernelError.
"""

from collections.abc import Mapping
from typing import TypeVar


class KernelyardError(Exception):
    """Is the root of the tree above."""


class InputError(KernelyardError):
    """The user's input cannot be used."""


class OptionError(InputError):
    """An option is unknown, malformed or contradictory."""


class PromptError(InputError):
    """The prompt is empty or does not fit into the context."""


class ConfigError(InputError):
    """A model's configuration is missing something or names something unknown."""


class CheckpointError(InputError):
    """Weight files are missing, damaged, or do not match the configuration."""


class TokenizerError(InputError):
    """Tokenizer files are missing, damaged, or do not match the vocabulary."""


class OpError(KernelyardError):
    """An op rejects its inputs or attributes."""


class ShapeError(OpError):
    """A shape does not fit the op's signature."""


class DtypeError(OpError):
    """A dtype does not fit the op's signature."""


class MemoryError_(KernelyardError):  # the underscore keeps Python's own MemoryError visible
    """Device memory was misused or ran out."""


class AllocationError(MemoryError_):
    """An allocation could not be made."""


class BoundsError(MemoryError_):
    """A copy or a view reaches beyond its buffer."""


class LifetimeError(MemoryError_):
    """A buffer was used after it was freed, or freed twice."""


class PluginError(KernelyardError):
    """A plugin breaks the contract of docs/plugin-api.md."""


class ClashError(PluginError):
    """A name is taken: the thing that came later is left out, the rest of its plugin works."""


class KernelError(PluginError):
    """Says that a kernel raised, or returned what it may not. The cause is what it raised.

    The message has node, op, kernel, distribution, dimensions, dtypes and the plugin's own line.
    """


class BackendError(KernelyardError):
    """A backend is unknown, or cannot run on this machine."""


class QueueFullError(KernelyardError):
    """An engine's queue is full; the same request may succeed later."""


class LockError(KernelyardError):
    """A lock file cannot be read, or the installed kernels are not the ones that it holds."""


class NoKernelError(KernelyardError):
    """No kernel of the requested backends takes a node."""


class CheckError(KernelyardError):
    """A kernel disagreed with its definition, or produced NaN or Inf."""


_Kind = TypeVar("_Kind", bound=KernelyardError)


def missing_packages(what: str, fixes: Mapping[str, str], kind: type[_Kind]) -> _Kind:
    """Make the error that `what` cannot be done for want of Python packages.

    fixes  each missing package, by the name that it is imported by, with the line that installs it
    """
    missing = [f"module {module!r} is missing; fix: {fix}" for module, fix in fixes.items()]
    return kind(f"{what}: {'; '.join(missing)}")


def unavailable(backend: str, reason: str, fix: str) -> BackendError:
    """Make the error that a backend cannot run here, why, and the line that fixes it."""
    return BackendError(f"backend {backend} is unavailable: {reason}; fix: {fix}")


def worded(error: BaseException) -> str:
    """Return an error's type and text, of an error that a plugin or a library raised: its text may
    be empty, and may even fail."""
    try:
        text = str(error).strip()
    except KeyboardInterrupt:
        raise
    except BaseException:
        text = "(it has no text)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
