"""Looks at plans while an engine runs them."""
