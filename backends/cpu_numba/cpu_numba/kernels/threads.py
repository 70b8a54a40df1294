"""Whether a kernel wakes other threads, decided when it binds."""

_LITTLE = 1 << 16  # multiplications that take less time than another thread takes to begin


def alone(multiplications):
    """Whether the calling thread is sooner done by itself."""
    return multiplications < _LITTLE
