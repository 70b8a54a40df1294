"""Tests any backend: compares every op × dtype × example with the float64 reference.

    pytest --pyargs core.conformance --backend NAME
"""
