"""Tests any backend: compares every op × dtype × example with the float64 reference.

    kernelyard conform --backend NAME
"""
