"""Holds the layouts of quantised matrices, and the product with codes in blocks."""
