"""Holds single calls of kernels in files: writes, replays and shrinks them."""
