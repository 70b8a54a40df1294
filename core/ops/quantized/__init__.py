"""Holds quantising, the layouts of quantised matrices, the product with codes in blocks, and
look-ups in codes."""
