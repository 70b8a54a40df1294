"""Runs parts of the suite in processes apart: tests that may end one, and imports of plugins."""
