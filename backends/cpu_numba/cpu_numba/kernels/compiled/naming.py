"""Names for closures."""


def named(*parts):
    """A decorator: names a function after `parts`, which no other one has.

    Numba calls machine code after the function's qualified name, its types and a number that counts
    from 1 in each process. Closures of one factory share the first two; cached by two processes
    they can share the number as well, and a third, which reads both, then links one for the other.
    """
    def name(function):
        function.__qualname__ = "_".join(str(getattr(p, "__qualname__", p)) for p in parts)
        return function
    return name
