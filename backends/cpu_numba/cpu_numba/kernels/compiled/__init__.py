"""Holds what Numba compiles: loops over flat arrays. Nothing here knows of ops, tensors or
plans."""
