"""The suite that any backend is held to: every op × dtype × sample against the float64 definition.

    pytest --pyargs core.conformance --backend NAME
"""
