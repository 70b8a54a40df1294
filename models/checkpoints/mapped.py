"""Lets go of the pages of a mapped file that have been read and are not needed again soon."""

from __future__ import annotations

import mmap

import numpy as np

from core.tensor.tensor import Array


def drop_pages(array: Array) -> None:
    """Take the whole pages of a mapped array out of this process. The system keeps them in its
    page cache as long as it likes; reading one again brings it back. Other arrays stay."""
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = begin + array.nbytes - first
    if array.flags.c_contiguous and not array.flags.writeable and length >= mmap.PAGESIZE:
        base.madvise(mmap.MADV_DONTNEED, first, length // mmap.PAGESIZE * mmap.PAGESIZE)
